"""Where coroutines of a front door run: one event loop on a thread of its own, for all that is `async def` in it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable
from typing import Any

from carpool.compat._front import ProcessLock

__all__ = ["Home"]


class Home:
    """An event loop that is started at need. What `enter` opened on it, methods find on the same loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = ProcessLock()
        self._process = 0
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_here(self) -> bool:
        """Whether this code runs on it."""
        return self._thread is threading.current_thread()

    def run(self, coroutine: Awaitable[Any]) -> Any:
        """Runs a coroutine to its end and returns its result; blocks."""
        future = asyncio.run_coroutine_threadsafe(_outcome(coroutine), self._started())
        result, error = future.result()
        if error is not None:
            raise error
        return result

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            here = os.getpid()
            if self._event_loop is None or self._process != here:
                event_loop = self._event_loop = asyncio.new_event_loop()
                self._process = here
                self._thread = threading.Thread(
                    target=_turn, args=(event_loop,), name=self._name, daemon=True
                )
                self._thread.start()
            return self._event_loop

    def stop(self) -> None:
        """Ends the loop, if it was started; waits for its thread."""
        with self._lock:
            event_loop, thread = self._event_loop, self._thread
            self._event_loop = self._thread = None
        if event_loop is not None and thread is not None and self._process == os.getpid():
            event_loop.call_soon_threadsafe(event_loop.stop)
            thread.join()


async def _outcome(coroutine: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    # Raised out of a task, some exceptions would end the loop.
    try:
        return await coroutine, None
    except BaseException as error:
        return None, error


def _turn(event_loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(event_loop)
    try:
        event_loop.run_forever()
        left = asyncio.all_tasks(event_loop)
        for one in left:
            one.cancel()
        event_loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        event_loop.run_until_complete(event_loop.shutdown_asyncgens())
    finally:
        event_loop.close()
