"""`batched.dynamically` and `BatchProcessor`: a handler on a worker thread, callers on threads and event loops."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, overload

import carpool
from carpool.compat._front import UNBOUNDED, Front, PerInstance, batcher

from ._checks import checked
from ._handler import Shape, handler_of, is_method, plain_shape
from .types import BatchProcessorStats

if TYPE_CHECKING:
    from carpool._types import Rows

__all__ = ["BatchProcessor", "BatchedMethod", "decorator_of", "dynamically"]

S_contra = TypeVar("S_contra", contravariant=True)
T = TypeVar("T")
U = TypeVar("U")


class Own:
    """What one processor keeps beside its batcher; knows no instance."""

    def __init__(self) -> None:
        #: The figures at the last `clear_stats`.
        self.cleared: carpool.Stats | None = None
        #: What tells a cache of results.
        self.background: set[Any] = set()


class Processor(Front):
    """What all processors share: one carpool batcher, its figures, its end."""

    batch_func: Callable[..., Any]
    small_batch_threshold: int
    _inner: Any
    _own: Own
    #: Of a method, the instance.
    __self__: Any

    def __init__(self, function: Callable[..., Any], **settings: Any) -> None:
        settings = self._checked(settings)
        self._wear(function, settings)
        self._own = Own()
        self._be(function, self._batcher(function, settings, method=False), settings)

    def _be(self, function: Callable[..., Any], inner: Any, settings: dict[str, Any]) -> None:
        self.batch_func, self._inner = function, inner
        self.small_batch_threshold = settings["small_batch_threshold"]

    @classmethod
    def _bound(cls, method: BatchedMethod[Any, Any], instance: Any, owner: Any) -> Any:
        made = cls.__new__(cls)
        function = functools.partial(method._function, instance)
        made._wear(method._function, method._settings)
        made.__self__ = instance
        # First the batcher, which says what is wrong with instances that take no weak references.
        inner = method._inner.__get__(instance, owner)
        made._own = method._owns.of(instance)
        made._be(function, inner, method._settings)
        return made

    @classmethod
    def _batcher(
        cls, function: Callable[..., Any], settings: dict[str, Any], *, method: bool
    ) -> Any:
        handler = handler_of(function, cls._shape(settings), method=method)
        return batcher(
            handler,
            max_batch_size=settings["batch_size"],
            wait_ms=settings["timeout_ms"],
            max_queue=UNBOUNDED,
            **cls._options(settings, handler),
        )

    @classmethod
    def _checked(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings as they are kept.

        Raises:
            TypeError, ValueError: one is of the wrong type or out of range.
        """
        return checked(settings)

    @classmethod
    def _shape(cls, settings: dict[str, Any]) -> Shape:
        return plain_shape

    @classmethod
    def _options(cls, settings: dict[str, Any], handler: Callable[..., Any]) -> dict[str, Any]:
        return {"executor": "thread"}

    def _by_size(self, count: int) -> Any:
        """The batcher for calls of so many items: large ones are less urgent."""
        if count <= self.small_batch_threshold:
            return self._inner
        return self._inner.options(priority=1)

    @property
    def stats(self) -> Any:
        """Figures so far, a `BatchProcessorStats`."""
        return BatchProcessorStats.between(self._own.cleared, self._inner.stats)

    def __eq__(self, other: object) -> bool:
        """Of a method: whether it is the same one of the same instance, as with bound methods."""
        return self is other or (
            isinstance(other, Processor)
            and hasattr(self, "__self__")
            and self.__self__ is getattr(other, "__self__", None)
            and self._function is other._function
        )

    def __hash__(self) -> int:
        return hash((id(getattr(self, "__self__", self)), self._function))

    def __reduce__(self) -> Any:
        if hasattr(self, "__self__"):
            return getattr, (self.__self__, self._function.__name__)
        return super().__reduce__()


class BatchProcessor(Processor, Generic[T, U]):
    """Runs single calls, and calls with a list, as batches on a worker thread.

    Args:
        _func: takes a list of items and returns as many rows. `async def` runs on the worker's own event loop.
        batch_size: most items in one batch.
        timeout_ms: longest time an item waits for company while the worker is free, in milliseconds.
        small_batch_threshold: calls with more items than this let smaller ones pass, up to a second.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """

    def __init__(
        self,
        _func: Callable[[list[T]], Rows[U]],
        batch_size: int = 32,
        timeout_ms: float = 5.0,
        small_batch_threshold: int = 8,
    ) -> None:
        super().__init__(
            _func,
            batch_size=batch_size,
            timeout_ms=timeout_ms,
            small_batch_threshold=small_batch_threshold,
        )

    @overload
    def __call__(self, items: list[T]) -> list[U]: ...
    @overload
    def __call__(self, items: T) -> U: ...
    def __call__(self, items: Any) -> Any:
        """Blocks for the result of one item, or of each item of a list.

        Raises:
            BatchOutputLengthError: the handler's output was of another length than its input.
            carpool.BatcherClosed: it was shut down.
            Exception: what the handler raised, as an exception of the caller's own.
        """
        if isinstance(items, list):
            return list(self._by_size(len(items)).map(items))
        inner = self._by_size(1)
        if isinstance(inner, carpool.AsyncBatchedFunction):
            # To be awaited where it is called; here the call waits.
            return inner.submit(items).result()
        return inner(items)

    @overload
    async def acall(self, item: list[T]) -> list[U]: ...
    @overload
    async def acall(self, item: T) -> U: ...
    async def acall(self, item: Any) -> Any:
        """The same for coroutines, on any event loop. Cancelled while it waits, it never reaches the handler."""
        if isinstance(item, list):
            return [row async for row in self._by_size(len(item)).amap(item)]
        return await self._by_size(1).acall(item)

    def start(self) -> None:
        """Nothing: the worker starts with the first call."""

    def shutdown(self) -> None:
        """Takes no more calls, and waits until what was accepted is answered. Nothing before the first call."""
        if self._inner.stats.submitted:
            self._inner.close()


class BatchedMethod(Front, Generic[S_contra, T]):
    """A decorated method: each instance has a processor of its own, which goes with it. T is the processor."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> BatchedMethod[S_contra, T]: ...
        @overload
        def __get__(self, instance: S_contra, owner: type | None = None) -> T: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    else:

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return self if instance is None else self._kind._bound(self, instance, owner)

    def __init__(
        self, function: Callable[..., Any], kind: type[Processor], **settings: Any
    ) -> None:
        settings = kind._checked(settings)
        self._kind = kind
        self._wear(function, settings)
        self._inner = kind._batcher(function, settings, method=True)
        self._owns = PerInstance(Own)

    def __call__(self, instance: S_contra, /, *args: Any, **kwargs: Any) -> Any:
        """As `instance.method(...)`."""
        processor: Any = self.__get__(instance, type(instance))
        return processor(*args, **kwargs)

    def __reduce__(self) -> Any:
        made = super().__reduce__()
        if isinstance(made, str):
            return made
        remake, (own, function, settings) = made
        return remake, (own, function, {"kind": self._kind, **settings})


def decorator_of(kind: type[Processor], settings: dict[str, Any]) -> Callable[[Any], Any]:
    """What makes a processor of a function, or of a method one for each instance."""

    def decorate(function: Any) -> Any:
        if is_method(function):
            return BatchedMethod(function, kind=kind, **settings)
        return kind(function, **settings)

    return decorate


if TYPE_CHECKING:

    class Dynamically(Protocol):
        """What `dynamically(...)` returns."""

        @overload
        def __call__(self, func: Callable[[list[T]], Rows[U]], /) -> BatchProcessor[T, U]: ...
        @overload
        def __call__(
            self, func: Callable[[S_contra, list[T]], Rows[U]], /
        ) -> BatchedMethod[S_contra, BatchProcessor[T, U]]: ...


@overload
def dynamically(
    func: Callable[[list[T]], Rows[U]],
    /,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
) -> BatchProcessor[T, U]: ...
@overload
def dynamically(
    func: Callable[[S_contra, list[T]], Rows[U]],
    /,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
) -> BatchedMethod[S_contra, BatchProcessor[T, U]]: ...
@overload
def dynamically(
    func: None = None,
    /,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
) -> Dynamically: ...
def dynamically(
    func: Any = None,
    /,
    batch_size: int = 32,
    timeout_ms: float = 5.0,
    small_batch_threshold: int = 8,
) -> Any:
    """Makes a `BatchProcessor` of a function of a list; of a method, one for each instance.

    Bare or with settings, which are those of `BatchProcessor`.

    Raises:
        TypeError, ValueError: a setting is of the wrong type or out of range.
    """
    settings = {
        "batch_size": batch_size,
        "timeout_ms": timeout_ms,
        "small_batch_threshold": small_batch_threshold,
    }
    decorate = decorator_of(cast("type[Processor]", BatchProcessor), settings)
    return decorate if func is None else decorate(func)
