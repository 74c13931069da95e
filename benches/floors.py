"""The floors: what carpool is measured against, written as well as plain Python allows.

`BareFutures` is no batcher: it is the least that awaiting an asyncio future costs when many of them are
answered together. `HandBatcher` and `HandThread` are the batchers a good engineer writes by hand in an
afternoon: they check what they must to stay correct (a cancelled caller, a raising handler, a wrong number
of results) and nothing else.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Handler = Callable[[list[Any]], Sequence[Any]]
AsyncHandler = Callable[[list[Any]], Awaitable[Sequence[Any]]]
Futures = list["asyncio.Future[Any]"]


def answer_all(futures: Futures, results: Sequence[Any]) -> None:
    """Gives each waiting future its result; a cancelled caller is passed over."""
    if len(results) != len(futures):
        fail_all(futures, ValueError(f"{len(futures)} items, {len(results)} results"))
        return
    for future, result in zip(futures, results, strict=True):
        if not future.done():
            future.set_result(result)


def fail_all(futures: Futures, error: BaseException) -> None:
    """Gives each waiting future the error."""
    for future in futures:
        if not future.done():
            future.set_exception(error)


class BareFutures:
    """Futures made one by one and answered in bulk: no handler, no limit, no wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: list[int] = []
        self._futures: Futures = []

    def __call__(self, item: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = self._loop.create_future()
        if not self._futures:
            self._loop.call_soon(self._answer)
        self._items.append(item)
        self._futures.append(future)
        return future

    def _answer(self) -> None:
        items, self._items = self._items, []
        futures, self._futures = self._futures, []
        for future, item in zip(futures, items, strict=True):
            future.set_result(item + 1)


class HandBatcher:
    """A list, `call_soon` or `call_later` for the first of a batch, `set_result`; the handler is awaited."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: AsyncHandler,
        *,
        max_batch_size: int,
        wait_s: float,
    ) -> None:
        self._loop = loop
        self._handler = handler
        self._max_batch_size = max_batch_size
        self._wait_s = wait_s
        self._items: list[Any] = []
        self._futures: Futures = []
        self._timer: asyncio.Handle | None = None
        self._running: set[asyncio.Task[None]] = set()

    def __call__(self, item: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        items = self._items
        items.append(item)
        self._futures.append(future)
        size = len(items)
        if size == self._max_batch_size:
            self._leave()
        elif size == 1:
            if self._wait_s:
                self._timer = self._loop.call_later(self._wait_s, self._leave)
            else:
                self._timer = self._loop.call_soon(self._leave)
        return future

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        items, self._items = self._items, []
        futures, self._futures = self._futures, []
        self._start(items, futures)

    def _start(self, items: list[Any], futures: Futures) -> None:
        run = self._loop.create_task(self._run(items, futures))
        self._running.add(run)
        run.add_done_callback(self._running.discard)

    async def _run(self, items: list[Any], futures: Futures) -> None:
        try:
            results = await self._handler(items)
        except BaseException as error:
            fail_all(futures, error)
            raise
        answer_all(futures, results)


class HandInline(HandBatcher):
    """The same for a handler that is a plain function: it runs right where the batch leaves."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: Handler,
        *,
        max_batch_size: int,
        wait_s: float,
    ) -> None:
        async def never(items: list[Any]) -> Sequence[Any]:
            raise AssertionError("a plain handler is not awaited")

        super().__init__(loop, never, max_batch_size=max_batch_size, wait_s=wait_s)
        self._plain = handler

    def _start(self, items: list[Any], futures: Futures) -> None:
        try:
            results = self._plain(items)
        except Exception as error:
            fail_all(futures, error)
        else:
            answer_all(futures, results)


class HandThread:
    """A worker thread that takes what is pending when it is free, and tells the loop once per batch."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handler: Handler,
        *,
        max_batch_size: int,
        wait_s: float,
    ) -> None:
        self._loop = loop
        self._handler = handler
        self._max_batch_size = max_batch_size
        self._wait_s = wait_s
        self._changed = threading.Condition(threading.Lock())
        self._pending: list[tuple[Any, asyncio.Future[Any], float]] = []
        self._closed = False
        self._worker = threading.Thread(target=self._serve, name="hand-worker", daemon=True)
        self._worker.start()

    def __call__(self, item: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        arrived = time.monotonic()
        with self._changed:
            self._pending.append((item, future, arrived))
            # Only the first and the one that fills a batch can make the worker move.
            if len(self._pending) in (1, self._max_batch_size):
                self._changed.notify()
        return future

    def close(self) -> None:
        """Serves what is pending, then ends the worker."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join()

    def _take(self) -> list[tuple[Any, asyncio.Future[Any], float]]:
        with self._changed:
            while not self._pending and not self._closed:
                self._changed.wait()
            if self._pending:
                due = self._pending[0][2] + self._wait_s
                while len(self._pending) < self._max_batch_size and not self._closed:
                    remaining = due - time.monotonic()
                    if remaining <= 0:
                        break
                    self._changed.wait(remaining)
            batch = self._pending[: self._max_batch_size]
            del self._pending[: self._max_batch_size]
            return batch

    def _serve(self) -> None:
        while batch := self._take():
            futures = [future for _, future, _ in batch]
            try:
                results = self._handler([item for item, _, _ in batch])
            except BaseException as error:
                self._loop.call_soon_threadsafe(fail_all, futures, error)
            else:
                self._loop.call_soon_threadsafe(answer_all, futures, results)
