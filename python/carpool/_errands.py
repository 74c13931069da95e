"""A thread for what the core's timer thread finds and must not do itself: it never enters the interpreter.

Told through here are futures whose requests are overdue, and event loops that cannot be rung.
"""

from __future__ import annotations

import threading

from . import _lifecycle
from ._core import run_errands
from ._watch import events

__all__ = ["start"]


def start() -> None:
    """Starts the thread of this process; called once in each, at the first deadline."""
    with _lifecycle.lock:
        if any(thread.name == _NAME and thread.is_alive() for thread in _lifecycle.threads()):
            return
        thread = threading.Thread(target=_run, name=_NAME, daemon=True)
        thread.start()
        _lifecycle.started(thread)


_NAME = "carpool errands"


def _run() -> None:
    while True:
        try:
            if not run_errands():
                return
        except BaseException as error:
            # Something reached into the thread; what is left is told by the next round.
            events.worker_died(_NAME, error)
