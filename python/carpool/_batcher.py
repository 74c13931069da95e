"""`Batcher`, for loops of one's own."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from ._control import Lifecycle, set_done
from ._core import Batch, Engine
from ._options import NO_CALL_OPTIONS, Options, max_size, refuse_unknown, switch, timeout_ns
from ._station import Station
from ._submit.calls import Calls
from ._submit.terms import asks_of
from ._types import A, B, Overflow

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Hashable, Sequence

    from ._watch.timing import Trace

__all__ = ["Batcher"]


#: What a batcher has not: options of a handler, and of its parameters.
_OF_HANDLERS = (
    *(
        "max_concurrent_batches",
        "executor",
        "setup",
        "context",
        "shared",
        "collate",
        "device",
        "depth",
        "graphs",
    ),
    *("buffer_steps", "stall_ms"),
    *("on_error", "retries", "retry_on", "retry_ms"),
)
_KNOWN = tuple(name for name in Options.__dataclass_fields__ if name not in _OF_HANDLERS)


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
        overflow: what a request meets at a full queue: "raise" QueueFull, "wait" for room, or "shed": the least
            urgent gives way, with RequestShed.
        name: in statistics and log lines.
        max_batch_cost: most cost in one batch; of requests that cost 1 each, or
        cost: what one costs: a function of the item that returns an int from 0, or an int for all. A request
            above `max_batch_cost` raises RequestTooLarge in its caller.
        padded_cost: the cost of a batch is as many times the largest as it has requests, not the sum: what a batch
            costs that is padded to its longest row.
        look_ahead: how many requests behind the first one that no longer fits `max_batch_cost` are looked at for some that
            do. The one passed over opens the next batch.
        length: a function of the item that returns an int from 0; of the requests that wait, those of similar length
            share a batch. A batch leaves no sooner or later for it, always with the oldest; nobody is passed over for
            its length once it has waited for `age_ms`.
        length_window: how many batches' worth of the oldest requests are looked at for those of similar length.
        key: a function of the item; requests share a batch only where what it returns is equal. It must be
            hashable; None is no key.
        timeout_ms: a request that is not in a batch so many milliseconds after its call fails with
            DeadlineExceeded and never reaches the loop.
        age_ms: what one level of `priority` (see `options`) is worth, in milliseconds of waiting.
        keep_contexts: keep a copy of the `contextvars` context of every caller, for `batch.requests`.
        keep_timings: have what `acall` gives know when its request went where: `timing`, as a `Future` does.
        batch_sizes: the sizes that the loop may see, such as [1, 2, 4, 8]: `items` is filled up to the next of them
            with repeats of the last item, or requests are held back for the next batch, whichever the measured run
            times make cheaper. It must return a row per item; callers get only theirs. None above `max_batch_size`.
        target_ms: how long after its call each answer should be there, at the 99th percentile. The batcher learns what
            batches take, and holds requests for company as long as that allows and larger batches pay. It replaces
            `wait_ms`. Nothing is ever dropped for it.
        refuse_late: with `timeout_ms`, refuse (TooLate) at once what cannot be answered within it any more, by what
            batches have taken; the handler's time counts, too.
        on_request: called with a `Trace` of each request once it has ended, however that was: in the thread that ran
            its batch, after its caller was told; of one that was in none, where that is noticed. What it raises is logged.
        sample_rate: the share of the requests that `on_request` hears of, more than 0 and at most 1.
        slow_ms: a batch that takes as many milliseconds, from seal to the last answer, is logged, once a minute.

    Raises:
        TypeError, ValueError: an option is unknown, of the wrong type or out of range.
    """

    _pulled = False
    _known = _KNOWN

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
            padded_cost: bool = False,
            look_ahead: int = 0,
            length: Callable[[A], int] | None = None,
            length_window: int = 8,
            key: Callable[[A], Hashable] | None = None,
            timeout_ms: float | None = None,
            age_ms: float = 1000,
            keep_contexts: bool = False,
            keep_timings: bool = False,
            batch_sizes: Sequence[int] | None = None,
            target_ms: float | None = None,
            refuse_late: bool = False,
            on_request: Callable[[Trace], object] | None = None,
            sample_rate: float = 1.0,
            slow_ms: float | None = None,
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
            padded_cost: bool = False,
            look_ahead: int = 0,
            length: Any = None,
            length_window: int = 8,
            key: Any = None,
            timeout_ms: float | None = None,
            age_ms: float = 1000,
            keep_contexts: bool = False,
            keep_timings: bool = False,
            batch_sizes: Sequence[int] | None = None,
            target_ms: float | None = None,
            refuse_late: bool = False,
            on_request: Callable[[Trace], object] | None = None,
            sample_rate: float = 1.0,
            slow_ms: float | None = None,
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
                padded_cost=padded_cost,
                look_ahead=look_ahead,
                length=length,
                length_window=length_window,
                key=key,
                timeout_ms=timeout_ms,
                age_ms=age_ms,
                keep_contexts=keep_contexts,
                keep_timings=keep_timings,
                batch_sizes=batch_sizes,
                target_ms=target_ms,
                refuse_late=refuse_late,
                on_request=on_request,
                sample_rate=sample_rate,
                slow_ms=slow_ms,
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
            TypeError, ValueError: `max_size` is no positive int, `block` no bool, or `timeout` no number from 0.
        """
        switch("block", block)
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
                    event_loop.call_soon_threadsafe(set_done, woken)
                except RuntimeError:
                    # The loop is closed: the wake goes to the next in line.
                    seat.leave()

            found = seat.poll(wake, size)
            if found is False:
                return None
            if isinstance(found, Batch):
                return found
            timer = None if found is None else event_loop.call_later(found, set_done, woken)
            try:
                await woken
            finally:
                if timer is not None:
                    timer.cancel()
    finally:
        seat.leave()
