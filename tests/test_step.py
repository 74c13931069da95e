"""The first step of a handler on a loop: taken at once, and nobody can tell that it had no task.

Every test runs twice: with the short way, and with a `context`, which asks for a task of its own from the
start.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import HandlerError, batched
from carpool._core import first_step
from gates import auntil

since_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="came with Python 3.11")

TAG: contextvars.ContextVar[Any] = contextvars.ContextVar("TAG", default=None)

Decorator = Callable[[Callable[..., Any]], Any]


@pytest.fixture(params=["short", "long"])
def batch_it(request: pytest.FixtureRequest) -> Decorator:
    if request.param == "short":
        return batched
    return batched(context=contextlib.nullcontext)


async def suspend() -> None:
    """Gives way once, to be woken by a future."""
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future


def test_the_current_task_is_a_task(run: Callable[..., Any], batch_it: Decorator) -> None:
    seen: dict[str, Any] = {}

    @batch_it
    async def handler(items: list[int]) -> list[int]:
        task = asyncio.current_task()
        assert task is not None
        assert isinstance(task, asyncio.Task)
        seen.update(name=task.get_name(), loop=task.get_loop(), done=task.done())
        assert task in asyncio.all_tasks()
        assert asyncio.current_task() is task
        seen["task"] = task
        return items

    async def main() -> None:
        assert await handler(1) == 1
        assert seen["name"]
        assert seen["loop"] is asyncio.get_running_loop()
        assert seen["done"] is False
        await auntil(seen["task"].done)
        assert seen["task"].exception() is None
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_it_stays_the_same_after_a_suspension(run: Callable[..., Any], batch_it: Decorator) -> None:
    @batch_it
    async def handler(items: list[int]) -> list[bool]:
        first = asyncio.current_task()
        await suspend()
        second = asyncio.current_task()
        await asyncio.sleep(0)
        return [first is second is asyncio.current_task() is not None for _ in items]

    async def main() -> bool:
        return bool(await handler(1))

    assert run(main())


def test_a_task_nobody_looked_at_is_begun_by_a_suspension(
    run: Callable[..., Any], batch_it: Decorator
) -> None:
    @batch_it
    async def handler(items: list[int]) -> list[bool]:
        await suspend()
        task = asyncio.current_task()
        return [task in asyncio.all_tasks() for _ in items]

    async def main() -> bool:
        return bool(await handler(1))

    assert run(main())


def test_a_task_that_is_kept_ends(run: Callable[..., Any], batch_it: Decorator) -> None:
    kept: list[Any] = []

    @batch_it
    async def handler(items: list[int]) -> list[int]:
        kept.append(asyncio.current_task())
        return items

    async def main() -> None:
        assert await handler(1) == 1
        await auntil(kept[0].done)
        assert await handler(2) == 2
        assert kept[0] is not kept[1]
        await auntil(kept[1].done)
        assert not any(task.cancelled() for task in kept)

    run(main())


def test_a_task_that_nobody_keeps_goes(run: Callable[..., Any], batch_it: Decorator) -> None:
    references: list[weakref.ref[Any]] = []

    @batch_it
    async def handler(items: list[int]) -> list[int]:
        references.append(weakref.ref(asyncio.current_task()))  # type: ignore[arg-type]
        return items

    async def main() -> None:
        assert await handler(1) == 1
        await auntil(lambda: references[0]() is None)

    run(main())


def test_between_batches_there_is_no_current_task_of_theirs(
    run: Callable[..., Any], batch_it: Decorator
) -> None:
    @batch_it
    async def handler(items: list[int]) -> list[int]:
        return items

    async def main() -> None:
        own = asyncio.current_task()
        assert await handler(1) == 1
        assert asyncio.current_task() is own
        with pytest.raises(RuntimeError, match="no handler"):
            first_step()

    run(main())


@since_311
def test_timeouts_end_what_they_guard(run: Callable[..., Any], batch_it: Decorator) -> None:
    @batch_it
    async def handler(items: list[float]) -> list[str]:
        try:
            async with asyncio.timeout(items[0]):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return ["over" for _ in items]
        raise AssertionError("never")

    async def main() -> None:
        for seconds in (0, 0.001):
            assert await handler(seconds) == "over"

    run(main())


@since_311
def test_task_groups_work(run: Callable[..., Any], batch_it: Decorator) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    @batch_it
    async def handler(items: list[int]) -> list[int]:
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(double(item)) for item in items]
        return [one.result() for one in made]

    @batch_it
    async def failing(items: list[int]) -> list[int]:
        async with asyncio.TaskGroup() as group:
            group.create_task(double(1))
            raise ValueError("in the group")
        return items

    async def main() -> None:
        assert await handler(1) == 2
        with pytest.raises(BaseException) as caught:
            await failing(1)
        assert "ExceptionGroup" in repr(type(caught.value)) or isinstance(
            caught.value, HandlerError
        )

    run(main())


@pytest.mark.parametrize("waits_for", ["future", "sleep", "task", "nothing"])
def test_a_handler_that_cancels_itself(
    run: Callable[..., Any], batch_it: Decorator, waits_for: str
) -> None:
    """The cancellation comes with its next wait, and what it waits for is cancelled too."""
    seen: list[Any] = []

    async def child() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("child")
            raise

    @batch_it
    async def handler(items: list[int]) -> list[int]:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        made = loop.create_task(child()) if waits_for == "task" else None
        if made is not None:
            await asyncio.sleep(0)
        task.cancel("on my own")
        try:
            if waits_for == "future":
                await loop.create_future()
            elif waits_for == "sleep":
                await asyncio.sleep(0)
            elif made is not None:
                await made
        except asyncio.CancelledError:
            seen.append("handler")
            await asyncio.sleep(0)
        return items

    async def main() -> None:
        assert await handler(1) == 1
        if waits_for == "task":
            await auntil(lambda: len(seen) == 2)
        assert seen[-1:] == ([] if waits_for == "nothing" else ["handler"])

    run(main())


def test_a_handler_that_lets_its_cancellation_through_fails_its_callers(
    run: Callable[..., Any], batch_it: Decorator
) -> None:
    @batch_it
    async def handler(items: list[int]) -> list[int]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.get_running_loop().create_future()
        return items

    async def main() -> None:
        with pytest.raises(HandlerError):
            await handler(1)

    run(main())


def test_a_task_is_cancelled_from_outside(run: Callable[..., Any], batch_it: Decorator) -> None:
    tasks: list[asyncio.Task[Any]] = []

    @batch_it
    async def handler(items: list[int]) -> list[str]:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError as error:
            return [f"cancelled: {error}" for _ in items]
        raise AssertionError("never")

    async def main() -> None:
        waiting = asyncio.ensure_future(_await(handler(1)))
        await auntil(lambda: tasks)
        tasks[0].cancel("from outside")
        assert (await waiting).startswith("cancelled")
        await auntil(tasks[0].done)

    run(main())


async def _await(awaitable: Any) -> Any:
    return await awaitable


def test_a_context_variable_can_be_reset_after_a_suspension(
    run: Callable[..., Any], batch_it: Decorator
) -> None:
    @batch_it
    async def handler(items: list[int]) -> list[Any]:
        assert TAG.get() is None
        token = TAG.set("mine")
        await suspend()
        assert TAG.get() == "mine"
        TAG.reset(token)
        return [TAG.get() for _ in items]

    async def main() -> None:
        TAG.set("the caller's")
        assert await handler(1) is None
        assert await handler(1) is None
        assert TAG.get() == "the caller's"

    run(main())


@pytest.mark.parametrize("how", ["future", "task", "coroutine"])
def test_a_handler_that_returns_any_awaitable(
    run: Callable[..., Any], batch_it: Decorator, how: str
) -> None:
    async def double(items: list[int]) -> list[int]:
        return [2 * item for item in items]

    @batch_it
    @functools.wraps(double)
    def handler(items: list[int]) -> Any:
        if how == "coroutine":
            return double(items)
        if how == "task":
            return asyncio.ensure_future(double(items))
        future = asyncio.get_running_loop().create_future()
        future.set_result([2 * item for item in items])
        return future

    async def main() -> None:
        assert await handler(1) == 2

    run(main())


def test_what_a_handler_yields_that_is_no_future_is_its_error(
    run: Callable[..., Any], batch_it: Decorator
) -> None:
    class Odd:
        def __await__(self) -> Any:
            yield "odd"

    @batch_it
    async def handler(items: list[int]) -> list[int]:
        await Odd()
        return items

    async def main() -> None:
        with pytest.raises(RuntimeError, match="bad yield"):
            await handler(1)

    run(main())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("late", [False, True])
def test_what_a_handler_raises_is_its_callers(
    run: Callable[..., Any], batch_it: Decorator, error: type[BaseException], late: bool
) -> None:
    @batch_it
    async def handler(items: list[int]) -> list[int]:
        if late:
            await suspend()
        raise error("mine")

    async def main() -> None:
        with pytest.raises(ValueError if error is ValueError else HandlerError) as caught:
            await handler(1)
        trace = caught.value.__traceback__ if error is ValueError else None
        while trace is not None:
            assert "carpool/_" not in trace.tb_frame.f_code.co_filename
            trace = trace.tb_next
        assert "mine" in str(caught.value)

    run(main())


def test_a_task_factory_is_asked(run: Callable[..., Any], batch_it: Decorator) -> None:
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        made.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **options)

    @batch_it
    async def handler(items: list[int]) -> list[int]:
        return items

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        assert await handler(1) == 1
        asyncio.get_running_loop().set_task_factory(None)
        assert await handler(2) == 2

    run(main())
    assert len(made) == 1


def test_methods_get_their_instance(run: Callable[..., Any], batch_it: Decorator) -> None:
    class Model:
        factor = 3

        @batch_it
        async def times(self, items: list[int]) -> list[int]:
            return [self.factor * item for item in items]

    async def main() -> None:
        assert await Model().times(2) == 6

    run(main())


def test_setup_comes_first(run: Callable[..., Any]) -> None:
    seen: list[str] = []

    @batched(setup=lambda: seen.append("setup"))
    async def handler(items: list[int]) -> list[int]:
        seen.append("handler")
        return items

    async def main() -> None:
        assert await handler(1) == 1
        assert await handler(2) == 2

    run(main())
    assert seen == ["setup", "handler", "handler"]
