"""What outlives a call: engines that are open, the end of the process, and forks.

Nothing is started here. What makes a forked child forget the locks and engines of its parent is noted at
import, since a fork may hit the very first use.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref

from . import _core

__all__ = ["engines", "lock", "opened", "started", "threads"]

#: How long the end of the process waits for requests in flight, in seconds, over all batchers.
EXIT_DRAIN_S = 1.0

#: And how long for threads that are just being told of their ends.
LEAVE_MS = 200

#: Guards the opening of engines, here and in the classes that own them. Made anew in a forked child,
#: where whoever held it may not exist.
lock = threading.RLock()

_engines: weakref.WeakSet[_core.Engine] = weakref.WeakSet()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_registered = False


def opened(engine: _core.Engine, workers: list[threading.Thread]) -> None:
    """Notes an engine and its workers; call with `lock` held."""
    _engines.add(engine)
    _threads.update(workers)
    _register()


def started(thread: threading.Thread) -> None:
    """Notes a thread that serves all engines; call with `lock` held."""
    _threads.add(thread)
    _register()


def engines() -> list[_core.Engine]:
    """The engines of this process; call with `lock` held."""
    return list(_engines)


def threads() -> list[threading.Thread]:
    """The threads of this process, of engines and of all."""
    return list(_threads)


def _register() -> None:
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_at_exit)


def _in_child() -> None:
    global lock, _engines, _threads
    _core.forked()
    lock = threading.RLock()
    _engines = weakref.WeakSet()
    _threads = weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _at_exit() -> None:
    """Lets what is in flight end, for a moment, then fails the rest.

    Runs while daemon threads still may: afterwards a worker that tries to come back to the
    interpreter would be stopped for ever, with its callers waiting.
    """
    end = time.monotonic() + EXIT_DRAIN_S
    engines = list(_engines)
    for engine in engines:
        # A loop that could run what is left has ended before this, or ends with its thread.
        engine.close(engine.executor != "loop")
    for engine in engines:
        if engine.executor != "loop" and not engine.wait_ended(_rest(end)):
            engine.close(False)
    _core.end_errands()
    for thread in list(_threads):
        if thread is not threading.current_thread():
            thread.join(_rest(end) / 1e9)
    _core.keep_out(LEAVE_MS)


def _rest(end: float) -> int:
    return max(0, round((end - time.monotonic()) * 1e9))
