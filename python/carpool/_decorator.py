"""`@batched`: makes single calls of a function of lists run as batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, cast

from ._function import decorate
from ._options import Options, refuse_unknown
from ._streams import function as _streamed  # noqa: F401 (streaming functions are made by it)

if TYPE_CHECKING:
    from ._signatures import Decorator
    from ._types import Collate, Entered, Executor, OnError, Overflow
    from ._watch.timing import Trace

__all__ = ["batched"]


def _typed(function: Callable[..., Any]) -> Decorator:
    """For type checkers `batched` is a `Decorator`; at run time it is itself."""
    return cast("Decorator", function)


_KNOWN = tuple(Options.__dataclass_fields__)


@_typed
def batched(
    func: Callable[..., Any] | None = None,
    /,
    *,
    max_batch_size: int = 32,
    wait_ms: float = 0,
    max_queue: int = 10_000,
    overflow: Overflow = "raise",
    max_concurrent_batches: int = 1,
    executor: Executor | None = None,
    gather: bool = True,
    setup: Callable[[], object] | None = None,
    context: Callable[[], Entered] | None = None,
    name: str | None = None,
    max_batch_cost: int | None = None,
    cost: Callable[..., int] | int | None = None,
    padded_cost: bool = False,
    look_ahead: int = 0,
    length: Callable[..., int] | None = None,
    length_window: int = 8,
    key: Callable[..., Hashable] | None = None,
    shared: Sequence[str] = (),
    collate: Collate | None = None,
    device: str | Sequence[str] | None = None,
    depth: int = 2,
    graphs: bool = False,
    timeout_ms: float | None = None,
    age_ms: float = 1000,
    on_error: OnError = "raise",
    retries: int = 0,
    retry_on: type[Exception] | tuple[type[Exception], ...] | None = None,
    retry_ms: float = 100,
    keep_contexts: bool = False,
    keep_timings: bool = False,
    batch_sizes: Sequence[int] | None = None,
    target_ms: float | None = None,
    refuse_late: bool = False,
    on_request: Callable[[Trace], object] | None = None,
    sample_rate: float = 1.0,
    slow_ms: float | None = None,
    buffer_steps: int = 16,
    stall_ms: float | None = 10_000,
    **unknown: Any,
) -> Any:
    """Makes single calls of a function of lists run as batches.

    The handler takes a list per parameter and returns as many rows: `def f(xs: list[A]) -> list[B]` is
    called as `f(x) -> B`, `await f.acall(x)` or `f.submit(x)`; with `async def`, `await f(x)`. Works bare
    or with options, on functions, `async def`, methods (a batcher per instance), static and class methods.

    A generator, or an asynchronous one, streams: it yields a list per step, with a row per request, and `STOP` for
    a row that is finished. Its callers get iterators of their rows.

    Args:
        max_batch_size: most requests in one batch.
        wait_ms: longest time the oldest request is held for company while a slot is free, in
            milliseconds, from its arrival. A full batch leaves at once.
        max_queue: most pending requests.
        overflow: what a request meets at a full queue: "raise" QueueFull, "wait" for room, or "shed": the least
            urgent gives way, with RequestShed.
        max_concurrent_batches: how many batches may run at once.
        executor: who runs the handler: "thread" (a persistent worker thread; the default for `def`), "loop"
            (the callers' event loop; the default for `async def`) or "caller" (the thread whose call closes
            the batch).
        gather: with executor="caller" and wait_ms=0, a caller about to run a batch waits for those who were
            there last time, at most half as long as the last run took.
        setup: called before the first batch, once in each worker thread, or once in all where there is
            none; if it raises, every pending and later caller gets SetupError.
        context: called once per batch; the handler runs inside the context manager it returns. That of
            an `async def` handler may be asynchronous.
        name: in statistics, threads and log lines; default the function's.
        max_batch_cost: most cost in one batch; of calls that cost 1 each, or
        cost: what one call costs: a function that takes its arguments and returns an int from 0, or an int for
            every call. A call above `max_batch_cost` raises RequestTooLarge.
        padded_cost: the cost of a batch is as many times the largest as it has calls, not the sum: what a batch
            costs that is padded to its longest row.
        look_ahead: how many calls behind the first one that no longer fits `max_batch_cost` are looked at for some that
            do. The one passed over opens the next batch.
        length: a function that takes the arguments of one call and returns an int from 0; of the calls that wait, those
            of similar length share a batch. A batch leaves no sooner or later for it, always with the oldest; nobody is
            passed over for its length once it has waited for `age_ms`.
        length_window: how many batches' worth of the oldest calls are looked at for those of similar length.
        key: a function that takes the arguments of one call; calls share a batch only where what it returns is
            equal. It must be hashable; None is no key.
        shared: names of parameters that reach the handler as one plain value; calls share a batch only where
            their values are equal. They must be hashable.
        collate: what makes one batch of the items of each parameter, and rows of what the handler returns:
            `Stack()`, `Pad(...)` or `Ragged()` of `carpool.collate`, or an object with `collate(items)` and
            `split(output, n, batch)`. An item that does not fit the others fails with CollateError, alone.
            The handler may return a dict or a tuple of arrays, each with a row per item.
        device: "cuda", "cuda:1", several of these, or "cpu": the handler gets the batch as tensors there, under a stream of
            its own, and what it returns there is copied back; copies and other batches' work overlap. Each device
            has one worker. Needs `collate` and torch.
        depth: with `device`, how many batches may be on their way, from staging to delivery.
        graphs: with `device` and `batch_sizes`, replay the handler as one CUDA graph per form of batch.
        timeout_ms: a call that is not in a batch so many milliseconds after it was made fails with
            DeadlineExceeded and never reaches the handler. Time in the queue and for room in it counts.
        age_ms: what one level of `priority` (see `BatchedFunction.options`) is worth, in milliseconds of waiting.
        on_error: what a failing batch is: "raise" gives its error to all its callers; "isolate" runs its halves,
            until whatever made it fail stands alone, and has smaller batches after one that ran out of memory.
        retries: how often a batch is run again that failed with an error of `retry_on`,
        retry_on: a class of exceptions or a tuple of them;
        retry_ms: how long after the first such failure, in milliseconds; twice as long after each further one, a
            minute at most. The batch keeps its slot meanwhile.
        keep_contexts: keep a copy of the `contextvars` context of every caller, for `current_batch` in the
            handler.
        keep_timings: have what `acall` gives know when its request went through the stations of its way: its `timing`, as
            that of a `Future`.
        batch_sizes: the sizes that the handler may see, such as [1, 2, 4, 8]: its lists are filled up to the next of them
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
        buffer_steps: of a streaming handler, how many steps a stream holds that its reader has not taken.
        stall_ms: of a streaming handler, how long a reader may leave that full before its stream fails with
            StreamStalled, in milliseconds; None for no limit. The handler waits meanwhile.

    Raises:
        TypeError, ValueError: an option is unknown, of the wrong type or out of range, or the function
            is none that can be batched.

    ```python
    @batched(max_batch_size=8, wait_ms=2)
    def double(numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]

    assert double(21) == 42
    ```
    """
    refuse_unknown("batched", unknown, _KNOWN)
    options = Options(
        max_batch_size=max_batch_size,
        wait_ms=wait_ms,
        max_queue=max_queue,
        overflow=overflow,
        max_concurrent_batches=max_concurrent_batches,
        executor=executor,
        gather=gather,
        setup=setup,
        context=context,
        name=name,
        max_batch_cost=max_batch_cost,
        cost=cost,
        padded_cost=padded_cost,
        look_ahead=look_ahead,
        length=length,
        length_window=length_window,
        key=key,
        shared=shared,
        collate=collate,
        device=device,
        depth=depth,
        graphs=graphs,
        timeout_ms=timeout_ms,
        age_ms=age_ms,
        on_error=on_error,
        retries=retries,
        retry_on=retry_on,
        retry_ms=retry_ms,
        keep_contexts=keep_contexts,
        keep_timings=keep_timings,
        batch_sizes=batch_sizes,
        target_ms=target_ms,
        refuse_late=refuse_late,
        on_request=on_request,
        sample_rate=sample_rate,
        slow_ms=slow_ms,
        buffer_steps=buffer_steps,
        stall_ms=stall_ms,
    )
    if func is None:
        return functools.partial(decorate, options=options)
    return decorate(func, options)
