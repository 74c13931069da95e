"""Figures and end of a batcher: what decorated functions and batchers of one's own have in common."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from ._exceptions import WouldDeadlock
from ._options import switch, timeout_ns
from ._watch import events
from ._watch.explain import explain
from ._watch.stats import Stats

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from typing_extensions import Self

    from ._core import Engine
    from ._station import Station

__all__ = ["Lifecycle"]

#: After how many seconds a close that still waits says so.
SLOW_CLOSE_S = 5.0


class Lifecycle:
    """Figures and end of a batcher."""

    _station: Station
    #: The options it has.
    _known: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its name in statistics, threads and log lines."""
        return self._station.name

    @property
    def stats(self) -> Stats:
        """All figures now, frozen."""
        return Stats.from_core(self._station.figures())

    def explain(self, *, since: Stats | None = None) -> str:
        """Why the batches are as they are, by its figures, and which option would change it: a sentence per line.

        Args:
            since: an earlier `stats`; then it goes by what came after that alone.

        Raises:
            TypeError, ValueError: it is no earlier `stats` of this batcher in this process.
        """
        station = self._station
        stats = self.stats if since is None else self.stats.since(since)
        return explain(stats, station.options, station.executor if station.slots else None)

    @property
    def healthy(self) -> bool:
        """Whether it takes requests and can answer them: not closed, its workers alive."""
        engine = self._station.engine()
        return not engine.closed and all(one.is_alive() for one in self._station.workers)

    if TYPE_CHECKING:

        def configure(
            self,
            *,
            max_batch_size: int = ...,
            wait_ms: float = ...,
            max_queue: int = ...,
            max_concurrent_batches: int = ...,
            max_batch_cost: int | None = ...,
            look_ahead: int = ...,
            length_window: int = ...,
            timeout_ms: float | None = ...,
            age_ms: float = ...,
            retries: int = ...,
            retry_ms: float = ...,
            buffer_steps: int = ...,
            stall_ms: float | None = ...,
            target_ms: float | None = ...,
            sample_rate: float = ...,
            slow_ms: float | None = ...,
        ) -> None:
            """Changes numbers while it runs; from any thread, valid from the next decision on.

            All of what is given, or nothing where one value is refused. What is pending stays: a request that
            was let in under a larger `max_queue` or `max_batch_cost` still runs, one submitted under another
            `timeout_ms` keeps its deadline. Batches in flight beyond a lowered `max_concurrent_batches` end as
            they are.

            Raises:
                TypeError: an option is unknown, of the wrong type, or cannot be changed; or this is a method
                    of a class, whose batchers are those of its instances.
                ValueError: a value is out of range, or contradicts another option.
            """
            ...

    else:

        def configure(self, **changes: Any) -> None:
            self._station.configure(changes, self._known)

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
            TypeError, ValueError: `drain` is no bool, or `timeout` no number from 0.
        """
        switch("drain", drain)
        limit = timeout_ns("timeout", timeout)
        engine = self._station.engine()
        self._station.closed = True
        if engine.idle or limit == 0:
            self._end(engine, drain)
        elif drain:
            try:
                engine.check_end()
                engine.check_wait("a draining close")
            except WouldDeadlock:
                self._station.closed = engine.closed
                raise
            engine.close(True)
        else:
            self._station.fail(engine)
            try:
                engine.check_end()
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
            self._station.fail(engine)
        else:
            self._join(end)
        return ended

    async def aclose(self, drain: bool = True, timeout: float | None = None) -> bool:
        """`close` for coroutines: waits without blocking the event loop.

        Raises:
            WouldDeadlock: called with `drain` in the handler, which would wait for itself.
            TypeError, ValueError: `drain` is no bool, or `timeout` no number from 0.
        """
        import asyncio

        switch("drain", drain)
        limit = timeout_ns("timeout", timeout)
        engine = self._station.engine()
        would_deadlock = False
        if not engine.idle:
            try:
                engine.check_end()
            except WouldDeadlock:
                if drain:
                    raise
                would_deadlock = True
        self._station.closed = True
        self._end(engine, drain)
        event_loop = asyncio.get_running_loop()
        ended = event_loop.create_future()

        def wake() -> None:
            # A loop that is closed waits no more.
            with contextlib.suppress(RuntimeError):
                event_loop.call_soon_threadsafe(set_done, ended)

        started = time.monotonic()
        if not engine.poll_ended(wake):
            if would_deadlock:
                return False
            seconds = None if limit is None else limit / 1e9
            try:
                await asyncio.wait_for(ended, seconds)
            except asyncio.TimeoutError:
                self._say_slow(engine, started)
                self._station.fail(engine)
                return engine.wait_ended(0)
        self._join(0)
        return True

    def _end(self, engine: Engine, drain: bool) -> None:
        if drain:
            engine.close(True)
        else:
            self._station.fail(engine)

    def _say_slow(self, engine: Engine, started: float) -> None:
        stats = Stats.from_core(engine.stats())
        seconds = time.monotonic() - started
        events.slow_close(self.name, seconds, stats.pending, stats.in_flight)

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


def set_done(future: asyncio.Future[None]) -> None:
    """Ends a future that is waited for, unless that has been given up."""
    if not future.done():
        future.set_result(None)
