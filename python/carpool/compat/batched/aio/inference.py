"""`batched.aio.inference`: batches of arrays and tensors, padded, for coroutines."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from carpool.compat.batched._features import stack_rows
from carpool.compat.batched._processor import Processor, decorator_of
from carpool.compat.batched.inference import ModelProcessor, one_of_two, rows_of_call
from carpool.compat.batched.types import AsyncCache, Feature, PriorityStrategy

from ._processor import AsyncProcessor
from .batch_generator import AsyncBatchItem

__all__ = ["AsyncModelBatchProcessor", "dynamically"]

U = TypeVar("U")


class AsyncModelBatchProcessor(AsyncProcessor, ModelProcessor, Generic[U]):
    """Runs calls with dicts of arrays or tensors as padded batches, for coroutines on any event loop.

    Args:
        _func: takes a dict of the features of a batch, each of shape (n, ...), and returns an array or tensor with n
            rows, a list of those (heads) or a dict of those. `async def` runs on the callers' loop, `def` on a worker
            thread.
        batch_size, timeout_ms, small_batch_threshold, cache, max_batch_length, priority_strategy, batch_item_cls: see
            `AsyncBatchProcessor`. The length of a row is that of its first feature.
        pad_tokens, padding_side, spread_kwargs, pad_token: see `carpool.compat.batched.inference.ModelBatchProcessor`.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    def __init__(
        self,
        _func: Callable[..., U | Coroutine[Any, Any, U]],
        *,
        batch_size: int = 32,
        timeout_ms: float = 5.0,
        small_batch_threshold: int = 8,
        cache: AsyncCache[Any, Any] | None = None,
        max_batch_length: int | None = None,
        pad_tokens: Mapping[str, Any] | None = None,
        padding_side: str = "right",
        priority_strategy: PriorityStrategy = PriorityStrategy.NONE,
        batch_item_cls: type[AsyncBatchItem[Any, Any]] = AsyncBatchItem,
        spread_kwargs: bool = False,
        pad_token: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            _func,
            batch_size=batch_size,
            timeout_ms=timeout_ms,
            small_batch_threshold=small_batch_threshold,
            cache=cache,
            max_batch_length=max_batch_length,
            pad_tokens=one_of_two(pad_tokens, pad_token),
            padding_side=padding_side,
            priority_strategy=priority_strategy,
            batch_item_cls=batch_item_cls,
            spread_kwargs=spread_kwargs,
        )

    @overload
    async def __call__(self, features: Mapping[str, Feature], /) -> U: ...
    @overload
    async def __call__(self, **features: Feature) -> U: ...
    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output of all rows of the call, stacked.

        Raises:
            TypeError, ValueError: the features are no dict of arrays with as many rows each.
            BatchOutputLengthError: the handler's output had another number of rows than its input.
            carpool.BatcherClosed: it was shut down.
            Exception: what the handler raised, as an exception of the caller's own.
        """
        return stack_rows(await self._all(rows_of_call(args, kwargs)))

    acall = __call__


class Dynamically(Protocol):
    """What `dynamically(...)` returns; of a method, a processor for each instance."""

    @overload
    def __call__(
        self, func: Callable[..., Coroutine[Any, Any, U]], /
    ) -> AsyncModelBatchProcessor[U]: ...
    @overload
    def __call__(self, func: Callable[..., U], /) -> AsyncModelBatchProcessor[U]: ...


@overload
def dynamically(func: Callable[..., Coroutine[Any, Any, U]], /) -> AsyncModelBatchProcessor[U]: ...
@overload
def dynamically(func: Callable[..., U], /) -> AsyncModelBatchProcessor[U]: ...
@overload
def dynamically(
    func: None = None,
    /,
    *,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
    max_batch_length: int | None = None,
    pad_tokens: Mapping[str, Any] | None = None,
    padding_side: str = "right",
    priority_strategy: PriorityStrategy = PriorityStrategy.NONE,
    cache: AsyncCache[Any, Any] | None = None,
    batch_item_cls: type[AsyncBatchItem[Any, Any]] = AsyncBatchItem,
    spread_kwargs: bool = False,
    pad_token: Mapping[str, Any] | None = None,
) -> Dynamically: ...
def dynamically(
    func: Any = None,
    /,
    *,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
    max_batch_length: int | None = None,
    pad_tokens: Mapping[str, Any] | None = None,
    padding_side: str = "right",
    priority_strategy: PriorityStrategy = PriorityStrategy.NONE,
    cache: AsyncCache[Any, Any] | None = None,
    batch_item_cls: type[AsyncBatchItem[Any, Any]] = AsyncBatchItem,
    spread_kwargs: bool = False,
    pad_token: Mapping[str, Any] | None = None,
) -> Any:
    """Makes an `AsyncModelBatchProcessor` of a function of features; of a method, one for each instance.

    Bare or with settings, which are those of `AsyncModelBatchProcessor`.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """
    settings = {
        "batch_size": batch_size,
        "timeout_ms": timeout_ms,
        "small_batch_threshold": small_batch_threshold,
        "max_batch_length": max_batch_length,
        "pad_tokens": one_of_two(pad_tokens, pad_token),
        "padding_side": padding_side,
        "priority_strategy": priority_strategy,
        "cache": cache,
        "batch_item_cls": batch_item_cls,
        "spread_kwargs": spread_kwargs,
    }
    decorate = decorator_of(cast("type[Processor]", AsyncModelBatchProcessor), settings)
    return decorate if func is None else decorate(func)
