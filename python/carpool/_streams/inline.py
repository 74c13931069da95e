"""Streams in the inline mode: whoever reads runs the handler, in his own thread, as far as the step he reads.

The request goes the ordinary way and is a batch of its own; only its generator is not run by a worker. A handler that
is an asynchronous generator runs on the loop of its caller as ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from carpool._types import R_co

from .readers import AsyncStream, Stream

if TYPE_CHECKING:
    import contextvars

    from carpool._core import Steps

    from .running import StreamingHandler, Turn

__all__ = ["AsyncInlineStream", "InlineStream", "Turns"]


class Turns:
    """A handler that is run as far as its next step, again and again, each time in the thread that asks."""

    def __init__(self, context: contextvars.Context, turns: Generator[None, None, None]) -> None:
        self._context = context
        self._turns = turns
        self.over = False

    @classmethod
    def of(cls, turn: Turn, handler: StreamingHandler) -> Turns:
        """Of one batch; its handler has not begun."""
        return cls(handler.desk.context.copy(), handler.in_turns(turn))

    def go_on(self) -> None:
        """As far as the next step, or to the end. Only KeyboardInterrupt is raised."""
        try:
            self._context.run(next, self._turns)
        except StopIteration:
            self.over = True
        except BaseException:
            self.over = True
            raise

    def end(self) -> None:
        """Closes the generator where it stands."""
        self.over = True
        # It may be what is running: it was given up from inside.
        with contextlib.suppress(ValueError):
            self._context.run(self._turns.close)


class InlineStream(Stream[R_co]):
    """A stream whose reader runs the handler."""

    def __init__(self, steps: Steps, turns: Turns | None) -> None:
        super().__init__(steps)
        self._turns = turns

    def __next__(self) -> R_co:
        self._check_process()
        found = _next(self._steps, self._turns)
        if found is False:
            raise StopIteration
        return found[0]  # type: ignore[no-any-return]

    def close(self) -> None:
        super().close()
        _end(self._turns)


class AsyncInlineStream(AsyncStream[R_co]):
    """The same for coroutines."""

    def __init__(self, steps: Steps, turns: Turns | None) -> None:
        super().__init__(steps)
        self._turns = turns

    async def __anext__(self) -> R_co:
        self._check_process()
        found = _next(self._steps, self._turns)
        if found is False:
            raise StopAsyncIteration
        return found[0]  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        await super().aclose()
        _end(self._turns)


def _next(steps: Steps, turns: Turns | None) -> Any:
    """A step in a tuple of one; False at the end."""
    while (found := steps.poll()) is None:
        if turns is None or turns.over:
            # Nobody runs it: what ended it is on its way.
            return steps.wait()
        turns.go_on()
    return found


def _end(turns: Turns | None) -> None:
    if turns is not None and not turns.over:
        turns.end()
