"""`Batcher`, for loops of one's own, and what it shares with decorated functions."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from . import _events, _lifecycle
from ._calls import Calls
from ._core import Batch, Engine
from ._exceptions import WouldDeadlock
from ._options import NO_CALL_OPTIONS, Options, max_size, refuse_unknown, timeout_ns
from ._stats import Stats
from ._terms import asks_of
from ._types import A, B, Overflow
from ._worker import open_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Batcher", "Lifecycle"]

#: After how many seconds a close that still waits says so.
SLOW_CLOSE_S = 5.0


class Station:
    """The engine of one batcher in this process, with its workers; made at first use, anew after a fork."""

    def __init__(self, options: Options, name: str, executor: str, slots: int | None) -> None:
        self.options = options
        self.name = name
        self.executor = executor
        self.slots = slots
        self.closed = False
        self._engine: Engine | None = None
        self._workers: list[threading.Thread] = []

    def engine(self) -> Engine:
        """The engine, without starting anything."""
        engine = self._engine
        if engine is None or not engine.is_ours:
            with _lifecycle.lock:
                engine = self._engine
                if engine is None or not engine.is_ours:
                    engine = self._open()
        return engine

    def _open(self) -> Engine:
        options = self.options
        engine = Engine(
            name=self.name,
            max_batch_size=options.max_batch_size,
            wait_ns=options.wait_ns,
            max_queue=options.max_queue,
            overflow=options.overflow,
            slots=self.slots,
            executor=self.executor,
            max_batch_cost=options.max_batch_cost,
            gather=options.gather,
        )
        open_engine(engine, 0)
        if self.closed:
            # Closed before the fork: closed in the child.
            engine.close(False)
        self._engine, self._workers = engine, []
        return engine

    def start(self) -> Engine:
        """The engine, with its workers running."""
        engine = self.engine()
        if not self._workers and not engine.closed:
            with _lifecycle.lock:
                engine = self.engine()
                if not self._workers and not engine.closed:
                    self._workers = open_engine(engine, self.slots or 1)
        return engine

    @property
    def workers(self) -> list[threading.Thread]:
        """The worker threads of this process; none before the first use."""
        return self._workers if self._engine is not None and self._engine.is_ours else []

    def release(self) -> None:
        """Ends engine and workers, nothing being pending; for collection."""
        if self._engine is not None and self._engine.is_ours:
            self._engine.close(False)


class Lifecycle:
    """Figures and end of a batcher."""

    _station: Station

    @property
    def name(self) -> str:
        """Its name in statistics, threads and log lines."""
        return self._station.name

    @property
    def stats(self) -> Stats:
        """All figures now, frozen."""
        return Stats.from_core(self._station.engine().stats())

    @property
    def healthy(self) -> bool:
        """Whether it takes requests and can answer them: not closed, its workers alive."""
        engine = self._station.engine()
        return not engine.closed and all(one.is_alive() for one in self._station.workers)

    def flush(self) -> None:
        """Makes everything that is pending now leave as soon as a slot is free, full or not."""
        self._station.engine().flush()

    def close(self, drain: bool = True, timeout: float | None = None) -> bool:
        """Takes no more requests; waits until all have ended, at most `timeout` seconds.

        What is pending still runs with `drain`, else it fails with BatcherClosed; what is in flight
        ends in any case. When the time is over, what is still pending fails too. May be called again.

        Returns:
            True when all has ended, False when the time was over.

        Raises:
            WouldDeadlock: called where it would wait for itself: in the handler, or on the event
                loop that has to run it (there: `await aclose()`).
            TypeError, ValueError: `timeout` is no number, or negative.
        """
        limit = timeout_ns("timeout", timeout)
        engine = self._station.engine()
        self._station.closed = True
        if engine.idle or limit == 0:
            engine.close(drain)
        elif drain:
            try:
                engine.check_wait("a draining close")
            except WouldDeadlock:
                self._station.closed = engine.closed
                raise
            engine.close(True)
        else:
            engine.close(False)
            try:
                engine.check_wait("a close")
            except WouldDeadlock:
                # What is in flight cannot end while this waits for it.
                return engine.wait_ended(0)
        end = None if limit is None else time.monotonic_ns() + limit
        started = time.monotonic()
        while True:
            rest = None if end is None else max(0, end - time.monotonic_ns())
            slow = round(SLOW_CLOSE_S * 1e9)
            ended = engine.wait_ended(slow if rest is None else min(rest, slow))
            if ended or (end is not None and time.monotonic_ns() >= end):
                break
            self._say_slow(engine, started)
        if not ended:
            self._say_slow(engine, started)
            engine.close(False)
        else:
            self._join(end)
        return ended

    async def aclose(self, drain: bool = True, timeout: float | None = None) -> bool:
        """`close` for coroutines: waits without blocking the event loop.

        Raises:
            WouldDeadlock: called with `drain` in the handler, which would wait for itself.
            TypeError, ValueError: `timeout` is no number, or negative.
        """
        import asyncio

        limit = timeout_ns("timeout", timeout)
        engine = self._station.engine()
        would_deadlock = False
        if not engine.idle:
            try:
                engine.check_chain()
            except WouldDeadlock:
                if drain:
                    raise
                would_deadlock = True
        self._station.closed = True
        engine.close(drain)
        event_loop = asyncio.get_running_loop()
        ended = event_loop.create_future()

        def wake() -> None:
            # A loop that is closed waits no more.
            with contextlib.suppress(RuntimeError):
                event_loop.call_soon_threadsafe(_set, ended)

        started = time.monotonic()
        if not engine.poll_ended(wake):
            if would_deadlock:
                return False
            seconds = None if limit is None else limit / 1e9
            try:
                await asyncio.wait_for(ended, seconds)
            except asyncio.TimeoutError:
                self._say_slow(engine, started)
                engine.close(False)
                return engine.wait_ended(0)
        self._join(0)
        return True

    def _say_slow(self, engine: Engine, started: float) -> None:
        stats = Stats.from_core(engine.stats())
        seconds = time.monotonic() - started
        _events.slow_close(self.name, seconds, stats.pending, stats.in_flight)

    def _join(self, end: int | None) -> None:
        """Waits for the worker threads, which have nothing left to do but to end."""
        for worker in self._station.workers:
            if worker is not threading.current_thread():
                rest = 1.0 if end is None else max(0.0, (end - time.monotonic_ns()) / 1e9)
                worker.join(rest)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(drain=self._drains(kind))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose(drain=self._drains(kind))

    def _drains(self, kind: type[BaseException] | None) -> bool:
        return True


class Batcher(Lifecycle, Calls[A, B]):
    """Turns single calls into batches for a loop of your own, which owns the slot.

    ```python
    batcher: Batcher[str, int] = Batcher(max_batch_size=32, wait_ms=2)
    for batch in batcher:                    # another thread; `async for` on an event loop
        batch.complete([len(item) for item in batch.items])
    ```

    Args:
        max_batch_size: most requests in one batch.
        wait_ms: longest time the oldest request is held for company, in milliseconds.
        max_queue: most pending requests.
        overflow: what a request meets at a full queue: "raise" QueueFull, or "wait" for room.
        name: in statistics and log lines.
        max_batch_cost: most cost in one batch; of requests that cost 1 each, or
        cost: what one costs: a function of the item that returns an int from 0, or an int for all. A request
            above `max_batch_cost` raises RequestTooLarge in its caller.
        key: a function of the item; requests share a batch only where what it returns is equal. It must be
            hashable; None is no key.
        timeout_ms: a request that is not in a batch so many milliseconds after its call fails with
            DeadlineExceeded and never reaches the loop.
        age_ms: what one level of `priority` (see `options`) is worth, in milliseconds of waiting.

    Raises:
        TypeError, ValueError: an option is unknown, of the wrong type or out of range.
    """

    _pulled = False

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            max_batch_size: int = 32,
            wait_ms: float = 0,
            max_queue: int = 10_000,
            overflow: Overflow = "raise",
            name: str | None = None,
            max_batch_cost: int | None = None,
            cost: Callable[[A], int] | int | None = None,
            key: Callable[[A], Hashable] | None = None,
            timeout_ms: float | None = None,
            age_ms: float = 1000,
        ) -> None: ...

    else:
        # With a better error for options that do not exist.
        def __init__(
            self,
            *,
            max_batch_size: int = 32,
            wait_ms: float = 0,
            max_queue: int = 10_000,
            overflow: Overflow = "raise",
            name: str | None = None,
            max_batch_cost: int | None = None,
            cost: Any = None,
            key: Any = None,
            timeout_ms: float | None = None,
            age_ms: float = 1000,
            **unknown: Any,
        ) -> None:
            refuse_unknown("Batcher", unknown, _KNOWN)
            options = Options(
                max_batch_size=max_batch_size,
                wait_ms=wait_ms,
                max_queue=max_queue,
                overflow=overflow,
                name=name,
                max_batch_cost=max_batch_cost,
                cost=cost,
                key=key,
                timeout_ms=timeout_ms,
                age_ms=age_ms,
            )
            self._station = Station(options, name or "Batcher", "thread", None)
            self._asks = asks_of(self._station.name, options, NO_CALL_OPTIONS)

    # --------------------------------------------------------------------------------- loops

    def next_batch(
        self, max_size: int | None = None, block: bool = True, timeout: float | None = None
    ) -> Batch[A, B] | None:
        """The next batch, of at most `max_size` requests; blocks, at most `timeout` seconds.

        None: nothing is due (`block=False`), the time is over, or the batcher is closed and drained.

        Raises:
            TypeError, ValueError: `max_size` is no positive int, or `timeout` no number from 0.
        """
        limit = timeout_ns("timeout", timeout)
        self._pulled = True
        return self._station.engine().next_batch(max_size_of(max_size), limit if block else 0)

    def __iter__(self) -> Iterator[Batch[A, B]]:
        """Batches until the batcher is closed and drained."""
        while (batch := self.next_batch()) is not None:
            yield batch
            # A batch that the loop has let go of must not live on in here.
            del batch

    async def anext_batch(self, max_size: int | None = None) -> Batch[A, B] | None:
        """`next_batch` for coroutines. None: closed and drained.

        Raises:
            TypeError, ValueError: `max_size` is no positive int.
        """
        size = max_size_of(max_size)
        self._pulled = True
        return await _pull(self._station.engine(), size)

    async def __aiter__(self) -> AsyncIterator[Batch[A, B]]:
        """Batches until the batcher is closed and drained."""
        while (batch := await self.anext_batch()) is not None:
            yield batch
            del batch

    # ------------------------------------------------------------------------------- the rest

    def _drains(self, kind: type[BaseException] | None) -> bool:
        # With nobody to take batches a drain would never end.
        return kind is None and self._pulled

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (self._station.options.given(),)

    def __repr__(self) -> str:
        return f"<carpool.Batcher {self.name!r}>"

    def __del__(self) -> None:
        station = getattr(self, "_station", None)
        engine = None if station is None else station._engine
        if engine is not None and engine.is_ours and not engine.closed:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
            engine.close(False)


max_size_of = max_size

#: What a batcher has not: options of a handler, and of its parameters.
_OF_HANDLERS = ("max_concurrent_batches", "executor", "setup", "context", "shared")
_KNOWN = tuple(name for name in Options.__dataclass_fields__ if name not in _OF_HANDLERS)


def _remake(options: dict[str, Any]) -> Batcher[Any, Any]:
    return Batcher(**options)


async def _pull(engine: Engine, size: int | None) -> Batch[Any, Any] | None:
    """Waits for a batch without blocking the event loop."""
    import asyncio

    event_loop = asyncio.get_running_loop()
    seat = engine.seat()
    try:
        while True:
            woken = event_loop.create_future()

            def wake(woken: asyncio.Future[None] = woken) -> None:
                try:
                    event_loop.call_soon_threadsafe(_set, woken)
                except RuntimeError:
                    # The loop is closed: the wake goes to the next in line.
                    seat.leave()

            found = seat.poll(wake, size)
            if found is False:
                return None
            if isinstance(found, Batch):
                return found
            timer = None if found is None else event_loop.call_later(found, _set, woken)
            try:
                await woken
            finally:
                if timer is not None:
                    timer.cancel()
    finally:
        seat.leave()


def _set(future: Any) -> None:
    if not future.done():
        future.set_result(None)
