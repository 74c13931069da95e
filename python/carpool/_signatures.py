"""What a decorated handler becomes, for type checkers: `list[A] -> list[B]` is called as `A -> B`.

Nothing here runs. A handler is matched by how many lists it takes (one to five, with or without a
first parameter that is no list: a method) and by `def` or `async def`. The long forms come first: a
handler with defaults fits the short ones too. One parameter is exact; with two to five, positions
are checked and keywords pass unchecked, because `Callable` carries no names; beyond that parameters
are unchecked.

With `shared=` the parameters after the first one to three lists are taken for the shared ones: their names and
types are exact. (One in front of the lists would be taken for `self`.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._core import Awaitable
    from ._function import AsyncBatchedFunction, BatchedFunction
    from ._streams.function import AsyncStreamedFunction, StreamedFunction
    from ._streams.stop import Stop
    from ._submit.future import Future
    from ._types import (
        A1,
        A2,
        A3,
        A4,
        A5,
        Collate,
        Entered,
        Executor,
        F_co,
        OnError,
        Overflow,
        P,
        R,
        R_co,
        Rows,
        S,
        S_co,
        T,
    )
    from ._watch.timing import Trace

    C_co = TypeVar("C_co", covariant=True)  # what the call itself gives

    Results = Rows[
        R | Exception
    ]  # what a handler returns: an exception in a slot is raised for that slot, never returned
    AsyncResults = Coroutine[Any, Any, Rows[R | Exception]]
    # A list per step, with STOP for rows that are finished.
    StreamResults = Iterator[Rows[R | Exception | Stop]]
    AsyncStreamResults = AsyncIterator[Rows[R | Exception | Stop]]

    # Several parameters: positions are checked, keywords pass unchecked. Each position has a default because its
    # parameter may be given by keyword or have a default of its own; which, cannot be told from `Callable`.

    class Calls2(Generic[A1, A2, R_co, C_co]):
        def __call__(self, a1: A1 = ..., a2: A2 = ..., /, **names: Any) -> C_co: ...
        def acall(self, a1: A1 = ..., a2: A2 = ..., /, **names: Any) -> Awaitable[R_co]: ...
        def submit(self, a1: A1 = ..., a2: A2 = ..., /, **names: Any) -> Future[R_co]: ...

    class BatchedFunction2(Calls2[A1, A2, R_co, R_co], BatchedFunction[[A1, A2], R_co]): ...

    class AsyncBatchedFunction2(
        Calls2[A1, A2, R_co, Awaitable[R_co]], AsyncBatchedFunction[[A1, A2], R_co]
    ): ...

    class Calls3(Generic[A1, A2, A3, R_co, C_co]):
        def __call__(self, a1: A1 = ..., a2: A2 = ..., a3: A3 = ..., /, **names: Any) -> C_co: ...
        def acall(
            self, a1: A1 = ..., a2: A2 = ..., a3: A3 = ..., /, **names: Any
        ) -> Awaitable[R_co]: ...
        def submit(
            self, a1: A1 = ..., a2: A2 = ..., a3: A3 = ..., /, **names: Any
        ) -> Future[R_co]: ...

    class BatchedFunction3(Calls3[A1, A2, A3, R_co, R_co], BatchedFunction[[A1, A2, A3], R_co]): ...

    class AsyncBatchedFunction3(
        Calls3[A1, A2, A3, R_co, Awaitable[R_co]], AsyncBatchedFunction[[A1, A2, A3], R_co]
    ): ...

    class Calls4(Generic[A1, A2, A3, A4, R_co, C_co]):
        def __call__(
            self, a1: A1 = ..., a2: A2 = ..., a3: A3 = ..., a4: A4 = ..., /, **names: Any
        ) -> C_co: ...
        def acall(
            self, a1: A1 = ..., a2: A2 = ..., a3: A3 = ..., a4: A4 = ..., /, **names: Any
        ) -> Awaitable[R_co]: ...
        def submit(
            self, a1: A1 = ..., a2: A2 = ..., a3: A3 = ..., a4: A4 = ..., /, **names: Any
        ) -> Future[R_co]: ...

    class BatchedFunction4(
        Calls4[A1, A2, A3, A4, R_co, R_co], BatchedFunction[[A1, A2, A3, A4], R_co]
    ): ...

    class AsyncBatchedFunction4(
        Calls4[A1, A2, A3, A4, R_co, Awaitable[R_co]], AsyncBatchedFunction[[A1, A2, A3, A4], R_co]
    ): ...

    class Calls5(Generic[A1, A2, A3, A4, A5, R_co, C_co]):
        def __call__(
            self,
            a1: A1 = ...,
            a2: A2 = ...,
            a3: A3 = ...,
            a4: A4 = ...,
            a5: A5 = ...,
            /,
            **names: Any,
        ) -> C_co: ...
        def acall(
            self,
            a1: A1 = ...,
            a2: A2 = ...,
            a3: A3 = ...,
            a4: A4 = ...,
            a5: A5 = ...,
            /,
            **names: Any,
        ) -> Awaitable[R_co]: ...
        def submit(
            self,
            a1: A1 = ...,
            a2: A2 = ...,
            a3: A3 = ...,
            a4: A4 = ...,
            a5: A5 = ...,
            /,
            **names: Any,
        ) -> Future[R_co]: ...

    class BatchedFunction5(
        Calls5[A1, A2, A3, A4, A5, R_co, R_co], BatchedFunction[[A1, A2, A3, A4, A5], R_co]
    ): ...

    class AsyncBatchedFunction5(
        Calls5[A1, A2, A3, A4, A5, R_co, Awaitable[R_co]],
        AsyncBatchedFunction[[A1, A2, A3, A4, A5], R_co],
    ): ...

    class BatchedMethod(Generic[S_co, F_co]):
        """A method before it is bound: S is what it is bound to, F what it becomes.

        S counts as covariant, as `self` does in plain methods, so that subclasses can override; hence the two ignores
        (both checkers read them).
        """

        @overload  # a class method: S is the type of a class
        def __get__(
            self: BatchedMethod[type[T], F_co], instance: T | None, owner: type[T] | None = None
        ) -> F_co: ...
        @overload  # Class.m
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload  # obj.m
        def __get__(self, instance: S_co, owner: type | None = None) -> F_co: ...  # type: ignore[misc]
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...
        def __call__(
            self: BatchedMethod[S_co, Callable[P, R]],
            instance: S_co,  # type: ignore[misc]
            /,
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> R: ...

    class Decorator(Protocol):
        @overload
        def __call__(
            self,
            func: None = None,
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
        ) -> Decorator: ...
        @overload
        def __call__(
            self,
            func: None = None,
            /,
            *,
            shared: Sequence[str],
            max_batch_size: int = 32,
            wait_ms: float = 0,
            max_queue: int = 10_000,
            overflow: Overflow = "raise",
            max_concurrent_batches: int = 1,
            executor: Executor | None = None,
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
        ) -> SharingDecorator: ...
        @overload
        def __call__(
            self,
            func: None = None,
            /,
            *,
            collate: Collate,
            device: str | Sequence[str] | None = None,
            depth: int = 2,
            graphs: bool = False,
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
        ) -> CollatingDecorator: ...
        # def, functions
        @overload
        def __call__(
            self,
            func: Callable[
                [list[Any], list[Any], list[Any], list[Any], list[Any], list[Any]], Results[R]
            ],
            /,
        ) -> BatchedFunction[..., R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1], list[A2], list[A3], list[A4], list[A5]], Results[R]], /
        ) -> BatchedFunction5[A1, A2, A3, A4, A5, R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1], list[A2], list[A3], list[A4]], Results[R]], /
        ) -> BatchedFunction4[A1, A2, A3, A4, R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1], list[A2], list[A3]], Results[R]], /
        ) -> BatchedFunction3[A1, A2, A3, R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1], list[A2]], Results[R]], /
        ) -> BatchedFunction2[A1, A2, R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1]], Results[R]], /
        ) -> BatchedFunction[[A1], R]: ...
        # def, methods
        @overload
        def __call__(
            self,
            func: Callable[[S, list[A1], list[A2], list[A3], list[A4], list[A5]], Results[R]],
            /,
        ) -> BatchedMethod[S, BatchedFunction5[A1, A2, A3, A4, A5, R]]: ...
        @overload
        def __call__(
            self, func: Callable[[S, list[A1], list[A2], list[A3], list[A4]], Results[R]], /
        ) -> BatchedMethod[S, BatchedFunction4[A1, A2, A3, A4, R]]: ...
        @overload
        def __call__(
            self, func: Callable[[S, list[A1], list[A2], list[A3]], Results[R]], /
        ) -> BatchedMethod[S, BatchedFunction3[A1, A2, A3, R]]: ...
        @overload
        def __call__(
            self, func: Callable[[S, list[A1], list[A2]], Results[R]], /
        ) -> BatchedMethod[S, BatchedFunction2[A1, A2, R]]: ...
        @overload
        def __call__(
            self, func: Callable[[S, list[A1]], Results[R]], /
        ) -> BatchedMethod[S, BatchedFunction[[A1], R]]: ...
        # async def, functions
        @overload
        def __call__(
            self,
            func: Callable[
                [list[Any], list[Any], list[Any], list[Any], list[Any], list[Any]], AsyncResults[R]
            ],
            /,
        ) -> AsyncBatchedFunction[..., R]: ...
        @overload
        def __call__(
            self,
            func: Callable[[list[A1], list[A2], list[A3], list[A4], list[A5]], AsyncResults[R]],
            /,
        ) -> AsyncBatchedFunction5[A1, A2, A3, A4, A5, R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1], list[A2], list[A3], list[A4]], AsyncResults[R]], /
        ) -> AsyncBatchedFunction4[A1, A2, A3, A4, R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1], list[A2], list[A3]], AsyncResults[R]], /
        ) -> AsyncBatchedFunction3[A1, A2, A3, R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1], list[A2]], AsyncResults[R]], /
        ) -> AsyncBatchedFunction2[A1, A2, R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1]], AsyncResults[R]], /
        ) -> AsyncBatchedFunction[[A1], R]: ...
        # async def, methods
        @overload
        def __call__(
            self,
            func: Callable[[S, list[A1], list[A2], list[A3], list[A4], list[A5]], AsyncResults[R]],
            /,
        ) -> BatchedMethod[S, AsyncBatchedFunction5[A1, A2, A3, A4, A5, R]]: ...
        @overload
        def __call__(
            self, func: Callable[[S, list[A1], list[A2], list[A3], list[A4]], AsyncResults[R]], /
        ) -> BatchedMethod[S, AsyncBatchedFunction4[A1, A2, A3, A4, R]]: ...
        @overload
        def __call__(
            self, func: Callable[[S, list[A1], list[A2], list[A3]], AsyncResults[R]], /
        ) -> BatchedMethod[S, AsyncBatchedFunction3[A1, A2, A3, R]]: ...
        @overload
        def __call__(
            self, func: Callable[[S, list[A1], list[A2]], AsyncResults[R]], /
        ) -> BatchedMethod[S, AsyncBatchedFunction2[A1, A2, R]]: ...
        @overload
        def __call__(
            self, func: Callable[[S, list[A1]], AsyncResults[R]], /
        ) -> BatchedMethod[S, AsyncBatchedFunction[[A1], R]]: ...
        # generators: exact for one parameter
        @overload
        def __call__(
            self,
            func: Callable[
                [list[Any], list[Any], list[Any], list[Any], list[Any]], StreamResults[R]
            ],
            /,
        ) -> StreamedFunction[..., R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[Any], list[Any], list[Any], list[Any]], StreamResults[R]], /
        ) -> StreamedFunction[..., R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[Any], list[Any], list[Any]], StreamResults[R]], /
        ) -> StreamedFunction[..., R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[Any], list[Any]], StreamResults[R]], /
        ) -> StreamedFunction[..., R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1]], StreamResults[R]], /
        ) -> StreamedFunction[[A1], R]: ...
        @overload
        def __call__(
            self, func: Callable[[S, list[A1]], StreamResults[R]], /
        ) -> BatchedMethod[S, StreamedFunction[[A1], R]]: ...
        @overload
        def __call__(
            self, func: Callable[..., StreamResults[R]], /
        ) -> StreamedFunction[..., R]: ...
        # asynchronous generators
        @overload
        def __call__(
            self,
            func: Callable[
                [list[Any], list[Any], list[Any], list[Any], list[Any]], AsyncStreamResults[R]
            ],
            /,
        ) -> AsyncStreamedFunction[..., R]: ...
        @overload
        def __call__(
            self,
            func: Callable[[list[Any], list[Any], list[Any], list[Any]], AsyncStreamResults[R]],
            /,
        ) -> AsyncStreamedFunction[..., R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[Any], list[Any], list[Any]], AsyncStreamResults[R]], /
        ) -> AsyncStreamedFunction[..., R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[Any], list[Any]], AsyncStreamResults[R]], /
        ) -> AsyncStreamedFunction[..., R]: ...
        @overload
        def __call__(
            self, func: Callable[[list[A1]], AsyncStreamResults[R]], /
        ) -> AsyncStreamedFunction[[A1], R]: ...
        @overload
        def __call__(
            self, func: Callable[[S, list[A1]], AsyncStreamResults[R]], /
        ) -> BatchedMethod[S, AsyncStreamedFunction[[A1], R]]: ...
        @overload
        def __call__(
            self, func: Callable[..., AsyncStreamResults[R]], /
        ) -> AsyncStreamedFunction[..., R]: ...
        # any other parameters: unchecked
        @overload
        def __call__(
            self, func: Callable[..., AsyncResults[R]], /
        ) -> AsyncBatchedFunction[..., R]: ...
        @overload
        def __call__(self, func: Callable[..., Results[R]], /) -> BatchedFunction[..., R]: ...

    class SharingDecorator(Protocol):
        # A method's first parameter could be a list to a checker: the functions come first.
        # def, functions
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, func: Callable[Concatenate[list[A1], list[A2], list[A3], P], Results[R]], /
        ) -> BatchedFunction[Concatenate[A1, A2, A3, P], R]: ...
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, func: Callable[Concatenate[list[A1], list[A2], P], Results[R]], /
        ) -> BatchedFunction[Concatenate[A1, A2, P], R]: ...
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, func: Callable[Concatenate[list[A1], P], Results[R]], /
        ) -> BatchedFunction[Concatenate[A1, P], R]: ...
        # def, methods
        @overload
        def __call__(
            self, func: Callable[Concatenate[S, list[A1], list[A2], list[A3], P], Results[R]], /
        ) -> BatchedMethod[S, BatchedFunction[Concatenate[A1, A2, A3, P], R]]: ...
        @overload
        def __call__(
            self, func: Callable[Concatenate[S, list[A1], list[A2], P], Results[R]], /
        ) -> BatchedMethod[S, BatchedFunction[Concatenate[A1, A2, P], R]]: ...
        @overload
        def __call__(
            self, func: Callable[Concatenate[S, list[A1], P], Results[R]], /
        ) -> BatchedMethod[S, BatchedFunction[Concatenate[A1, P], R]]: ...
        # async def, functions
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, func: Callable[Concatenate[list[A1], list[A2], list[A3], P], AsyncResults[R]], /
        ) -> AsyncBatchedFunction[Concatenate[A1, A2, A3, P], R]: ...
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, func: Callable[Concatenate[list[A1], list[A2], P], AsyncResults[R]], /
        ) -> AsyncBatchedFunction[Concatenate[A1, A2, P], R]: ...
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, func: Callable[Concatenate[list[A1], P], AsyncResults[R]], /
        ) -> AsyncBatchedFunction[Concatenate[A1, P], R]: ...
        # async def, methods
        @overload
        def __call__(
            self,
            func: Callable[Concatenate[S, list[A1], list[A2], list[A3], P], AsyncResults[R]],
            /,
        ) -> BatchedMethod[S, AsyncBatchedFunction[Concatenate[A1, A2, A3, P], R]]: ...
        @overload
        def __call__(
            self, func: Callable[Concatenate[S, list[A1], list[A2], P], AsyncResults[R]], /
        ) -> BatchedMethod[S, AsyncBatchedFunction[Concatenate[A1, A2, P], R]]: ...
        @overload
        def __call__(
            self, func: Callable[Concatenate[S, list[A1], P], AsyncResults[R]], /
        ) -> BatchedMethod[S, AsyncBatchedFunction[Concatenate[A1, P], R]]: ...
        # generators: exact results
        @overload
        def __call__(
            self, func: Callable[..., StreamResults[R]], /
        ) -> StreamedFunction[..., R]: ...
        @overload
        def __call__(
            self, func: Callable[..., AsyncStreamResults[R]], /
        ) -> AsyncStreamedFunction[..., R]: ...
        # any other parameters: unchecked
        @overload
        def __call__(
            self, func: Callable[..., AsyncResults[R]], /
        ) -> AsyncBatchedFunction[..., R]: ...
        @overload
        def __call__(self, func: Callable[..., Results[R]], /) -> BatchedFunction[..., R]: ...

    class CollatingDecorator(Protocol):
        # What one item is to the batch that the handler takes, no checker can tell.
        @overload
        def __call__(  # pyright: ignore[reportOverlappingOverload]
            self, func: Callable[..., Coroutine[Any, Any, Any]], /
        ) -> AsyncBatchedFunction[..., Any]: ...
        @overload
        def __call__(self, func: Callable[..., Any], /) -> BatchedFunction[..., Any]: ...
