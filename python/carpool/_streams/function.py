"""Streaming functions: decorated generator functions, whose callers get iterators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn

from carpool import _inline
from carpool._function import STREAMED, Decorated
from carpool._types import P, R_co

from .inline import AsyncInlineStream, InlineStream, Turns
from .readers import AsyncStream, Stream
from .running import StreamingHandler, Turn

if TYPE_CHECKING:
    from carpool._core import Steps

__all__ = ["AsyncStreamedFunction", "StreamedFunction"]


class _Streamed(Decorated):
    """A decorated generator function, or a method bound to an instance."""

    def _steps(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, blocks: bool) -> Any:
        if self._is_method:
            bound, args = self._of_instance(args)
            return bound._steps(args, kwargs, blocks=blocks)
        item = self._bind(*args, **kwargs)
        return self._open().stream(self, item, blocks=blocks, asks=self._asks)

    def acall(self, *args: Any, **kwargs: Any) -> Any:
        if self._runs_here():
            return AsyncInlineStream(*self._in_turns(args, kwargs, blocks=False))
        return AsyncStream(self._steps(args, kwargs, blocks=False))

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        if self._runs_here():
            return InlineStream(*self._in_turns(args, kwargs, blocks=True))
        return Stream(self._steps(args, kwargs, blocks=True))

    def _runs_here(self) -> bool:
        """In the inline mode: whoever reads runs the handler."""
        return _inline.is_on() and not self._plan.is_async

    def _in_turns(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, blocks: bool
    ) -> tuple[Steps, Turns | None]:
        if self._is_method:
            bound, args = self._of_instance(args)
            return bound._in_turns(args, kwargs, blocks=blocks)  # type: ignore[no-any-return]
        item = self._bind(*args, **kwargs)
        engine = self._open()
        # Both at once, so that nobody else's request is in the batch.
        with self._station.taking:
            steps = engine.stream(self, item, blocks=blocks, asks=self._asks)
            batch = engine.next_batch(None, 0)
        if batch is None:
            return steps, None
        handler = self._branch.handler
        assert isinstance(handler, StreamingHandler), "made so by the plan"
        return steps, Turns.of(Turn(batch, engine, self._binding, self._bound), handler)

    def _has_no(self, what: str) -> NoReturn:
        raise TypeError(
            f"{self.name} is a streaming function: its calls give iterators, and it has no {what}"
        )

    def warmup(self, *args: Any, **kwargs: Any) -> Any:
        self._has_no("warmup")

    def rows(self, features: Any) -> Any:
        self._has_no("rows")

    async def arows(self, features: Any) -> Any:
        self._has_no("arows")


class StreamedFunction(_Streamed, Generic[P, R_co]):
    """A generator function whose single calls run as batches; made by `batched`."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Stream[R_co]:
            """Submits one call; an iterator of its steps, which blocks for each.

            The request is submitted here, not at the first step.

            Raises:
                TypeError: the arguments do not fit.
                QueueFull, BatcherClosed, SetupError: it was refused.
                WouldDeadlock: it would wait for room where that can never come.
            """
            ...

        def acall(self, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R_co]:
            """Submits one call; an asynchronous iterator of its steps, from any event loop.

            Raises:
                TypeError: the arguments do not fit.
                QueueFull, BatcherClosed, SetupError: it was refused.
                WouldDeadlock: it would wait for itself.
            """
            ...

        def submit(self, *args: P.args, **kwargs: P.kwargs) -> Stream[R_co]:
            """As a plain call."""
            ...

    else:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.submit(*args, **kwargs)


class AsyncStreamedFunction(_Streamed, Generic[P, R_co]):
    """An asynchronous generator function whose single calls run as batches; made by `batched`."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R_co]:
            """As `acall`."""
            ...

        def acall(self, *args: P.args, **kwargs: P.kwargs) -> AsyncStream[R_co]:
            """As `acall` of a `StreamedFunction`."""
            ...

        def submit(self, *args: P.args, **kwargs: P.kwargs) -> Stream[R_co]:
            """Submits one call; an iterator of its steps, for threads.

            Raises:
                RuntimeError: the handler runs on event loops and none runs here.
                WouldDeadlock: (while iterating) it would block the loop that has to run the handler.
            """
            ...

    else:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.acall(*args, **kwargs)


#: How `decorate` finds them.
STREAMED[False] = StreamedFunction
STREAMED[True] = AsyncStreamedFunction
