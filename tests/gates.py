"""What the tests drive: gated handlers, threads, scripts, and waits on what can be seen.

No test sleeps to wait for something. A handler waits at a gate that the test opens, a thread
tells through its outcome that it has ended, and where the library announces a state only in its
statistics the test watches those (`until`). Where time itself is the input, `let_pass` spends it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from carpool import batched

LIMIT = 20.0
"""Seconds after which a wait that should have ended is a failure. Never reached by a sound run."""

TESTS = Path(__file__).resolve().parent

WAYS = ("thread", "thread-async", "loop", "caller")
"""Who runs the handler: the four executors a batcher can have."""


def answer(item: Any) -> Any:
    """What gated handlers return for an item: recognisably that item's answer, and no other's."""
    return ("answer", item)


class Gate:
    """A handler that records each batch and holds it until the test lets it go.

    `handler` and `ahandler` are the functions to decorate. Batches are numbered as they enter;
    `release()` lets the next one go, `open()` all of them from now on.
    """

    def __init__(self, answer: Callable[[Any], Any] = answer) -> None:
        self.batches: list[list[Any]] = []
        self.running = 0
        self.most_running = 0
        self.threads: list[int] = []
        self._answer = answer
        self._passes = 0
        self._changed = threading.Condition()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

        def handler(items: list[Any]) -> list[Any]:
            return self.run(items)

        async def ahandler(items: list[Any]) -> list[Any]:
            return await self.arun(items)

        self.handler = handler
        self.ahandler = ahandler

    @property
    def items(self) -> list[Any]:
        """All items that reached the handler, in order."""
        return [item for batch in list(self.batches) for item in batch]

    def run(self, items: list[Any]) -> list[Any]:
        number = self._enter(items)
        try:
            self._wait(lambda: self._passes >= number)
        finally:
            self._leave()
        return [self._answer(item) for item in items]

    async def arun(self, items: list[Any]) -> list[Any]:
        number = self._enter(items)
        try:
            await self._await(lambda: self._passes >= number)
        finally:
            self._leave()
        return [self._answer(item) for item in items]

    def entered(self, batches: int = 1) -> None:
        """Wait until so many batches (in all) have reached the handler."""
        self._wait(lambda: len(self.batches) >= batches)

    async def aentered(self, batches: int = 1) -> None:
        await self._await(lambda: len(self.batches) >= batches)

    def release(self, batches: int = 1) -> None:
        """Let so many more batches go."""
        with self._changed:
            self._passes += batches
            self._announce()

    def open(self) -> None:
        self.release(10**9)

    def _enter(self, items: list[Any]) -> int:
        with self._changed:
            self.batches.append(list(items))
            self.threads.append(threading.get_ident())
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self._announce()
            return len(self.batches)

    def _leave(self) -> None:
        with self._changed:
            self.running -= 1

    def _announce(self) -> None:
        self._changed.notify_all()
        waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            try:
                loop.call_soon_threadsafe(_finish, future)
            except RuntimeError:  # that loop is closed: its waiter is gone too
                pass

    def _wait(self, predicate: Callable[[], bool]) -> None:
        with self._changed:
            if not self._changed.wait_for(predicate, LIMIT):
                raise AssertionError(f"the gate waited in vain; batches so far: {self.batches!r}")

    async def _await(self, predicate: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if predicate():
                    return
                future = loop.create_future()
                self._waiters.append((loop, future))
            try:
                await asyncio.wait_for(future, LIMIT)
            except asyncio.TimeoutError:
                raise AssertionError(
                    f"the gate waited in vain; batches so far: {self.batches!r}"
                ) from None


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def batched_by(way: str, handler: Gate | Callable[[list[Any]], Any], **options: Any) -> Any:
    """The handler decorated so that `way` runs it. Call it by `acall`, which all of them have."""
    if isinstance(handler, Gate):
        function: Any = handler.ahandler if way in ("loop", "thread-async") else handler.handler
    elif way in ("loop", "thread-async"):

        async def ahandler(items: list[Any]) -> Any:
            return handler(items)

        function = ahandler
    else:

        def plain(items: list[Any]) -> Any:
            return handler(items)

        function = plain
    return batched(function, executor=way.removesuffix("-async"), **options)


def in_thread(function: Callable[..., Any], *args: Any) -> concurrent.futures.Future[Any]:
    """Call it in a daemon thread of its own (a hanging one must not keep pytest from ending)."""
    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def call() -> None:
        try:
            outcome.set_result(function(*args))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return outcome


def until(predicate: Callable[[], Any]) -> None:
    """Spin until it is true: only for states that no event announces.

    Such are: a thread is by now blocked inside a call, a worker has let go of its last batch.
    """
    end = time.monotonic() + LIMIT
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError("waited in vain for a state that should have come")
        time.sleep(0)  # gives the interpreter and the core away, waits for nothing


async def auntil(predicate: Callable[[], Any]) -> None:
    """The same on a loop, which keeps turning."""
    end = time.monotonic() + LIMIT
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError("waited in vain for a state that should have come")
        await asyncio.sleep(0)


def let_pass(seconds: float, since: float) -> None:
    """Let the clock run until `since + seconds`, where the passing of time is what is tested."""
    while (left := since + seconds - time.monotonic()) > 0:
        time.sleep(left)


def identity(stats: Any) -> bool:
    """Every submitted request is accounted for, exactly once."""
    accounted = (
        stats.answered
        + stats.failed
        + stats.cancelled
        + stats.rejected
        + stats.pending
        + stats.in_flight
    )
    return bool(stats.submitted == accounted)


def run_on(
    factory: Callable[[], asyncio.AbstractEventLoop],
    main: Coroutine[Any, Any, Any],
    debug: bool = False,
) -> Any:
    """asyncio.run on a loop from this factory (asyncio.Runner takes one only from 3.11 on)."""
    loop = factory()
    try:
        asyncio.set_event_loop(loop)
        loop.set_debug(debug)
        return loop.run_until_complete(main)
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for one in left:
                one.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


PREAMBLE = """
import asyncio, atexit, gc, os, signal, sys, threading, time
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def start_script(source: str, *options: str) -> subprocess.Popen[str]:
    """Start a fresh interpreter on this source. It can `say(...)` lines to us, unbuffered."""
    environment = dict(
        os.environ, PYTHONPATH=os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    )
    return subprocess.Popen(
        [sys.executable, *options, "-c", PREAMBLE + source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def end_script(process: subprocess.Popen[str], limit: float = LIMIT) -> list[str]:
    """Wait for its end, which must be orderly (exit code 0), and return the lines it said."""
    return orderly(*outcome_of(process, limit))


def orderly(code: int, said: str, complaint: str) -> list[str]:
    assert code == 0, f"exit code {code}\n{said}\n{complaint}"
    return said.splitlines()


def outcome_of(process: subprocess.Popen[str], limit: float = LIMIT) -> tuple[int, str, str]:
    try:
        said, complaint = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        said, complaint = process.communicate()
        raise AssertionError(
            f"the script did not end within {limit} s\n{said}\n{complaint}"
        ) from None
    return process.returncode, said, complaint


def interrupt_script(process: subprocess.Popen[str]) -> list[str]:
    """Press Ctrl-C, wait for the orderly end, and return the lines it said.

    Python takes a signal when it next looks for one; one that comes in the instant between that
    look and the system call that waits is not seen before the next (so it is with any lock of the
    standard library). A person presses again, and so do we; the script ignores it once it has had one.
    """
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        try:
            said, complaint = process.communicate(timeout=LIMIT / 4)
        except subprocess.TimeoutExpired:
            continue
        return orderly(process.returncode, said, complaint)
    return end_script(process)


def run_script(source: str, *options: str) -> list[str]:
    return end_script(start_script(source, *options))
