"""The task that an `async def` handler runs in, made where somebody could tell that there is none.

Most handlers end without having suspended. Their first step is taken at once, in the very call that sealed
the batch, in the name of a task that is only an empty shell: `asyncio.current_task()` gives it, and whoever
looks at it (asks for any attribute of it) finds a task like any other, because that look begins it. Also a
handler that suspends begins its task, which takes the rest of the steps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any

from carpool._core import first_step

from .worker import complete, fail

if TYPE_CHECKING:
    from carpool._core import Batch

    from .worker import Handler

__all__ = ["HandlerTask", "awaited", "go_on", "over"]

_get: Any = asyncio.Task.__getattribute__
#: With `context`, from CPython 3.11 on; the older do not come here.
_init: Any = asyncio.Task.__init__


class HandlerTask(asyncio.Task[None]):
    """The task of a handler; made without `__init__`, which comes with the first look at it."""

    def __getattribute__(self, name: str) -> Any:
        if _get(self, "_loop") is None:
            _begin(self)
        return _get(self, name)


class Rest:
    """What a handler's task does: from the handler's second step on, everything."""

    __slots__ = ("batch", "coroutine", "handler", "yielded")

    def __init__(self, handler: Handler, batch: Batch[Any, Any]) -> None:
        self.handler = handler
        self.batch = batch
        #: The handler's, once it has suspended, and what it waits for then.
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        self.yielded: Any = None

    async def run(self) -> None:
        """The task's own coroutine."""
        try:
            results = await self
        except BaseException as error:
            if self.coroutine is None:
                raise
            fail(self.batch, error)
        else:
            if self.coroutine is not None:
                with contextlib.suppress(KeyboardInterrupt):
                    complete(self.batch, results)
        finally:
            self.handler.tasks.pop(id(self.batch), None)

    def __await__(self) -> Generator[Any, Any, Any]:
        thrown: BaseException | None = None
        try:
            # Up to here the coroutine has come when its task is made, so that what is thrown into the
            # task before its first step reaches the handler.
            yield
        except BaseException as error:
            thrown = error
        coroutine, yielded = self.coroutine, self.yielded
        if coroutine is None:
            if thrown is not None:
                raise thrown
            return None
        if isinstance(thrown, asyncio.CancelledError) and _cancel(yielded):
            # As if the task had waited for it already: the cancellation comes from there.
            thrown = None
        while True:
            if thrown is not None:
                try:
                    yielded = coroutine.throw(thrown)
                except StopIteration as stop:
                    return stop.value
                thrown = None
            try:
                yield yielded
            except BaseException as error:
                thrown = error
            else:
                return (yield from coroutine.__await__())


def _cancel(waits_for: Any) -> bool:
    cancel = getattr(waits_for, "cancel", None)
    return cancel is not None and bool(cancel())


def _begin(task: HandlerTask) -> None:
    handler, batch, context, event_loop = first_step()
    rest = Rest(handler, batch)
    coroutine = rest.run()
    coroutine.send(None)
    _init(task, coroutine, loop=event_loop, context=context)
    # The loop holds its tasks weakly.
    handler.tasks[id(batch)] = task
    handler.rests[id(batch)] = rest


def go_on(task: HandlerTask, coroutine: Coroutine[Any, Any, Any], yielded: Any) -> None:
    """The handler has suspended: `task` goes on with it."""
    rest = _rest(task)
    rest.coroutine, rest.yielded = coroutine, yielded


def over(task: HandlerTask) -> None:
    """The handler has ended with its first step, but somebody keeps `task`: it ends as well."""
    _rest(task)


def _rest(task: HandlerTask) -> Rest:
    _ = task.done()
    handler, batch, _, _ = first_step()
    rest: Rest = handler.rests.pop(id(batch))
    return rest


async def awaited(awaitable: Any) -> Any:
    """For handlers that return an awaitable which is no coroutine."""
    return await awaitable
