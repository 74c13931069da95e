"""`batched.aio.dynamically` and `AsyncBatchProcessor`: callers are coroutines, on any event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, get_origin, overload

from carpool.compat._front import await_all, is_coroutine_function
from carpool.compat.batched._checks import check_cache, whole
from carpool.compat.batched._features import length_of
from carpool.compat.batched._handler import Shape
from carpool.compat.batched._processor import BatchedMethod, Processor, decorator_of
from carpool.compat.batched.types import AsyncCache, BatchProcessorStats, PriorityStrategy

from .batch_generator import AsyncBatchItem

if TYPE_CHECKING:
    from carpool._types import Rows

__all__ = ["AsyncBatchProcessor", "dynamically"]

S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")
U = TypeVar("U")


class AsyncProcessor(Processor):
    """What asynchronous processors share: cache, strategy, lengths, items of the program's own class."""

    cache: AsyncCache[Any, Any] | None
    max_batch_length: int | None
    priority_strategy: PriorityStrategy
    batch_item_cls: type[AsyncBatchItem[Any, Any]]

    def _be(self, function: Callable[..., Any], inner: Any, settings: dict[str, Any]) -> None:
        super()._be(function, inner, settings)
        self.cache = settings["cache"]
        self.max_batch_length = settings["max_batch_length"]
        self.priority_strategy = settings["priority_strategy"]
        self.batch_item_cls = settings["batch_item_cls"]

    @classmethod
    def _checked(cls, settings: dict[str, Any]) -> dict[str, Any]:
        settings = super()._checked(settings)
        check_cache(settings["cache"])
        most = settings["max_batch_length"]
        given = settings["batch_item_cls"]
        kind = get_origin(given) or given
        if not isinstance(kind, type) or not issubclass(kind, AsyncBatchItem):
            raise TypeError(f"batch_item_cls must be a subclass of AsyncBatchItem, not {given!r}")
        strategy = PriorityStrategy(settings["priority_strategy"])
        return {
            **settings,
            "max_batch_length": None if most is None else whole("max_batch_length", most),
            "batch_item_cls": kind,
            "priority_strategy": strategy,
        }

    @classmethod
    def _shape(cls, settings: dict[str, Any]) -> Shape:
        shape = super()._shape(settings)
        if settings["batch_item_cls"] is AsyncBatchItem:
            return shape
        arguments, rows = shape
        return Shape(lambda items: arguments([item.content for item in items]), rows)

    @classmethod
    def _options(cls, settings: dict[str, Any], handler: Callable[..., Any]) -> dict[str, Any]:
        options = super()._options(settings, handler)
        options["executor"] = "loop" if is_coroutine_function(handler) else "thread"
        most, own = settings["max_batch_length"], settings["batch_item_cls"] is not AsyncBatchItem
        if most is not None:
            length: Callable[[Any], int] = len if own else length_of
            # What is too long for any batch goes alone.
            options["cost"] = lambda item: min(length(item), most)
            options["max_batch_cost"] = most
        if own and "key" in options:
            key = options["key"]
            options["key"] = lambda item: key(item.content)
        return options

    async def _all(self, items: list[Any]) -> list[Any]:
        """The results of the items of one call, in their order."""
        return await (self._run(items) if self.cache is None else self._look_up(self.cache, items))

    async def _look_up(self, cache: AsyncCache[Any, Any], items: list[Any]) -> list[Any]:
        """The results of the items, from the cache where it has them; what is new is told it, in the background."""
        results = await asyncio.gather(*(cache.get(item) for item in items))
        missing = [at for at, result in enumerate(results) if result is None]
        found = await self._run([items[at] for at in missing])
        for at, result in zip(missing, found, strict=True):
            results[at] = result
            if result is not None:
                setting = asyncio.ensure_future(cache.set(items[at], result))
                self._own.background.add(setting)
                setting.add_done_callback(self._own.background.discard)
        return results

    async def _run(self, items: list[Any]) -> list[Any]:
        """The results of the items, from batches."""
        inner, level, order = self._plan(items)
        rows = await self._rows(inner, level, [items[at] for at in order])
        results: list[Any] = [None] * len(items)
        for at, row in zip(order, rows, strict=True):
            results[at] = row
        return results

    def _plan(self, items: list[Any]) -> tuple[Any, int, list[int]]:
        """Who takes the items of a call, as what, and in which order."""
        order = list(range(len(items)))
        none = self.priority_strategy is PriorityStrategy.NONE
        if none or len(items) <= self.small_batch_threshold:
            return self._inner, 0, order
        if self.priority_strategy is PriorityStrategy.LENGTH:
            lengths = [length_of(item) for item in items]
            order.sort(key=lambda at: -lengths[at])
        return self._inner.options(priority=1), 1, order

    async def _rows(self, inner: Any, level: int, items: list[Any]) -> list[Any]:
        if self.batch_item_cls is not AsyncBatchItem:
            return await await_all(self._ask(inner, level), items)
        if len(items) == 1:
            return [await inner.acall(items[0])]
        return [row async for row in inner.amap(items)]

    def _ask(self, inner: Any, level: int) -> Callable[[Any], Any]:
        event_loop = asyncio.get_running_loop()

        def ask(content: Any) -> Any:
            item = self.batch_item_cls(
                content=content, priority=level, future=event_loop.create_future()
            )
            own = inner if item.priority == level else inner.options(priority=item.priority)
            answer = own.acall(item)

            def deliver(answer: Any) -> None:
                if answer.cancelled():
                    item.future.cancel()
                    return
                error = answer.exception()
                try:
                    if error is None:
                        item.set_result(answer.result())
                    else:
                        item.set_exception(error)
                except Exception as own:
                    # The class is the program's: its caller is answered all the same.
                    if not item.future.done():
                        item.future.set_exception(own)

            answer.add_done_callback(deliver)
            # Cancelled, or answered by other ways: nothing that has ended takes notice.
            item.future.add_done_callback(lambda _: answer.cancel())
            return item.future

        return ask

    @property
    def stats(self) -> BatchProcessorStats:
        """Figures since the last `clear_stats`."""
        cache = None if self.cache is None else self.cache.stats()
        return BatchProcessorStats.between(self._own.cleared, self._inner.stats, cache)

    def clear_stats(self) -> None:
        """Figures begin anew."""
        self._own.cleared = self._inner.stats

    async def shutdown(self) -> None:
        """Takes no more calls, and waits until what was accepted is answered. Nothing before the first call."""
        if self._inner.stats.submitted:
            await self._inner.aclose()


class AsyncBatchProcessor(AsyncProcessor, Generic[T, U]):
    """Runs single calls, and calls with a list, as batches, for coroutines on any event loop.

    Args:
        func: takes a list of items and returns as many rows. `async def` runs on the callers' loop, `def` on a worker
            thread.
        batch_size: most items in one batch.
        timeout_ms: longest time an item waits for company while no batch runs, in milliseconds.
        small_batch_threshold: what `priority_strategy` takes for a small call.
        cache: asked for every item before it is queued, told every result that is not None; see `AsyncCache`.
        max_batch_length: most that the lengths of the items of one batch come to; what is longer goes alone.
        priority_strategy: which items are taken first; see `PriorityStrategy`.
        batch_item_cls: a subclass of `AsyncBatchItem`, made of every item.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    def __init__(
        self,
        func: Callable[[list[T]], Rows[U] | Coroutine[Any, Any, Rows[U]]],
        *,
        batch_size: int = 32,
        timeout_ms: float = 5.0,
        small_batch_threshold: int = 8,
        cache: AsyncCache[T, U] | None = None,
        max_batch_length: int | None = None,
        priority_strategy: PriorityStrategy = PriorityStrategy.NONE,
        batch_item_cls: type[AsyncBatchItem[T, U]] = AsyncBatchItem,
    ) -> None:
        super().__init__(
            func,
            batch_size=batch_size,
            timeout_ms=timeout_ms,
            small_batch_threshold=small_batch_threshold,
            cache=cache,
            max_batch_length=max_batch_length,
            priority_strategy=priority_strategy,
            batch_item_cls=batch_item_cls,
        )

    @overload
    async def __call__(self, items: list[T]) -> list[U]: ...
    @overload
    async def __call__(self, items: T) -> U: ...
    async def __call__(self, items: Any) -> Any:
        """The result of one item, or of each item of a list.

        Raises:
            BatchOutputLengthError: the handler's output was of another length than its input.
            carpool.BatcherClosed: it was shut down.
            Exception: what the handler raised, as an exception of the caller's own.
        """
        if isinstance(items, list):
            return await self._all(items)
        if self.cache is None and self.batch_item_cls is AsyncBatchItem:
            return await self._inner.acall(items)
        return (await self._all([items]))[0]

    acall = __call__


if TYPE_CHECKING:

    class Dynamically(Protocol):
        """What `dynamically(...)` returns."""

        @overload
        def __call__(
            self, func: Callable[[list[T]], Coroutine[Any, Any, Rows[U]]], /
        ) -> AsyncBatchProcessor[T, U]: ...
        @overload
        def __call__(
            self, func: Callable[[S_contra, list[T]], Coroutine[Any, Any, Rows[U]]], /
        ) -> BatchedMethod[S_contra, AsyncBatchProcessor[T, U]]: ...
        @overload
        def __call__(self, func: Callable[[list[T]], Rows[U]], /) -> AsyncBatchProcessor[T, U]: ...
        @overload
        def __call__(
            self, func: Callable[[S_contra, list[T]], Rows[U]], /
        ) -> BatchedMethod[S_contra, AsyncBatchProcessor[T, U]]: ...


@overload
def dynamically(
    func: Callable[[list[T]], Coroutine[Any, Any, Rows[U]]], /
) -> AsyncBatchProcessor[T, U]: ...
@overload
def dynamically(
    func: Callable[[S_contra, list[T]], Coroutine[Any, Any, Rows[U]]], /
) -> BatchedMethod[S_contra, AsyncBatchProcessor[T, U]]: ...
@overload
def dynamically(func: Callable[[list[T]], Rows[U]], /) -> AsyncBatchProcessor[T, U]: ...
@overload
def dynamically(
    func: Callable[[S_contra, list[T]], Rows[U]], /
) -> BatchedMethod[S_contra, AsyncBatchProcessor[T, U]]: ...
@overload
def dynamically(
    func: None = None,
    /,
    *,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
    max_batch_length: int | None = None,
    priority_strategy: PriorityStrategy = PriorityStrategy.NONE,
    cache: AsyncCache[Any, Any] | None = None,
    batch_item_cls: type[AsyncBatchItem[Any, Any]] = AsyncBatchItem,
) -> Dynamically: ...
def dynamically(
    func: Any = None,
    /,
    *,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
    max_batch_length: int | None = None,
    priority_strategy: PriorityStrategy = PriorityStrategy.NONE,
    cache: AsyncCache[Any, Any] | None = None,
    batch_item_cls: type[AsyncBatchItem[Any, Any]] = AsyncBatchItem,
) -> Any:
    """Makes an `AsyncBatchProcessor` of a function of a list; of a method, one for each instance.

    Bare or with settings, which are those of `AsyncBatchProcessor`.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """
    settings = {
        "batch_size": batch_size,
        "timeout_ms": timeout_ms,
        "small_batch_threshold": small_batch_threshold,
        "max_batch_length": max_batch_length,
        "priority_strategy": priority_strategy,
        "cache": cache,
        "batch_item_cls": batch_item_cls,
    }
    decorate = decorator_of(cast("type[Processor]", AsyncBatchProcessor), settings)
    return decorate if func is None else decorate(func)
