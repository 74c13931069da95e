"""asyncio: what `acall` gives works wherever an awaitable, a coroutine or a future is taken."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
import warnings
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from carpool import batched
from gates import WAYS, Gate, auntil, batched_by, run_script

since_312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="came with Python 3.12")

TAG: contextvars.ContextVar[Any] = contextvars.ContextVar("TAG", default=None)


async def by_await(awaitable: Any) -> Any:
    return await awaitable


async def by_create(awaitable: Any) -> Any:
    return await asyncio.create_task(awaitable)


async def by_ensure_future(awaitable: Any) -> Any:
    return await asyncio.ensure_future(awaitable)


async def by_gather(awaitable: Any) -> Any:
    first, second = await asyncio.gather(awaitable, asyncio.sleep(0, "other"))
    assert second == "other"
    return first


async def by_gather_returning_exceptions(awaitable: Any) -> Any:
    (only,) = await asyncio.gather(awaitable, return_exceptions=True)
    if isinstance(only, BaseException):
        raise only
    return only


async def by_wait_for(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, 20)


async def by_wait_for_without_limit(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, None)


async def by_shield(awaitable: Any) -> Any:
    return await asyncio.shield(awaitable)


async def by_as_completed(awaitable: Any) -> Any:
    for each in asyncio.as_completed([awaitable], timeout=20):
        return await each


async def by_wait(awaitable: Any) -> Any:
    done, pending = await asyncio.wait([asyncio.ensure_future(by_await(awaitable))], timeout=20)
    assert not pending
    return done.pop().result()


async def by_group(awaitable: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        made = group.create_task(awaitable)
    return made.result()


async def by_timeout(awaitable: Any) -> Any:
    async with asyncio.timeout(20):
        return await awaitable


async def by_two(awaitable: Any) -> Any:
    first, second = await asyncio.gather(by_await(awaitable), by_await(awaitable))
    assert first == second
    return second


async def by_late_await(awaitable: Any) -> Any:
    await auntil(awaitable.done)
    return await awaitable


async def by_hand(awaitable: Any) -> Any:
    class Wrapper:
        def __await__(self) -> Any:
            return awaitable.__await__()

    return await Wrapper()


FORMS: list[Any] = [
    by_await,
    by_create,
    by_ensure_future,
    by_gather,
    by_gather_returning_exceptions,
    by_wait_for,
    by_wait_for_without_limit,
    by_shield,
    by_as_completed,
    by_wait,
    by_two,
    by_late_await,
    by_hand,
]
if sys.version_info >= (3, 11):
    FORMS += [by_group, by_timeout]


def make(way: str) -> Any:
    return batched_by(
        way, lambda items: [LookupError(item) if item < 0 else item * 10 for item in items]
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("debug", [False, True])
def test_every_form_of_waiting(
    run: Callable[..., Any], form: Callable[[Any], Any], debug: bool
) -> None:
    async def main() -> None:
        for way in WAYS:
            f = make(way)
            assert await asyncio.gather(*[form(f.acall(number)) for number in range(5)]) == [
                0,
                10,
                20,
                30,
                40,
            ]
            assert await form(f.acall(7)) == 70
            assert f.stats.answered == 6

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main(), debug=debug)
        gc.collect()


@pytest.mark.parametrize("form", [form for form in FORMS if form is not by_two])
def test_every_form_of_waiting_for_a_failure(
    run: Callable[..., Any], form: Callable[[Any], Any]
) -> None:
    async def main() -> None:
        for way in WAYS:
            f = make(way)
            raised: BaseException | None = None
            try:
                await form(f.acall(-3))
            except LookupError as error:
                raised = error
            except BaseException as error:  # a group wraps it
                (raised,) = error.exceptions  # type: ignore[attr-defined]
            assert type(raised) is LookupError
            assert raised.args == (-3,)
            assert await form(f.acall(1)) == 10

    run(main())


@pytest.mark.parametrize("value", [None, (), (1, 2), ValueError, StopIteration, {}, 0], ids=repr)
@pytest.mark.parametrize("form", [by_await, by_create, by_two, by_late_await, by_gather])
def test_results_of_every_kind_arrive_whole(
    run: Callable[..., Any], form: Callable[[Any], Any], value: Any
) -> None:
    """A tuple or an exception as the value of StopIteration is where hand-made awaitables go wrong."""

    async def main() -> None:
        f = batched(lambda items: [value] * len(items))
        assert await form(f.acall(1)) is value

    run(main())


def test_what_it_is() -> None:
    async def main() -> None:
        f = make("thread")
        awaitable = f.acall(1)
        assert inspect.isawaitable(awaitable)
        assert isinstance(awaitable, Awaitable)
        assert not isinstance(awaitable, asyncio.Task)
        assert await awaitable == 10
        assert awaitable.done()
        assert not awaitable.cancelled()
        assert awaitable.result() == 10
        assert awaitable.exception() is None
        repr(awaitable)

    asyncio.run(main())


def test_asked_too_early(gate: Gate) -> None:
    async def main() -> None:
        f = batched(gate.handler)
        awaitable = f.acall(1)
        assert not awaitable.done()
        for ask in (awaitable.result, awaitable.exception):
            with pytest.raises(asyncio.InvalidStateError):
                ask()
        gate.open()
        await awaitable

    asyncio.run(main())


def test_callbacks_on_it_run_on_the_loop_in_their_context(
    run: Callable[..., Any], gate: Gate
) -> None:
    async def main() -> None:
        f = batched(gate.handler)
        awaitable = f.acall(1)
        context = contextvars.copy_context()
        context.run(TAG.set, "theirs")
        called: list[Any] = []
        removed: list[Any] = []
        awaitable.add_done_callback(lambda done: called.append((TAG.get(), done)), context=context)
        awaitable.add_done_callback(removed.append)
        assert awaitable.remove_done_callback(removed.append) == 1
        gate.open()
        await awaitable
        await auntil(lambda: called)
        awaitable.add_done_callback(lambda done: called.append(("late", done)))
        assert len(called) == 1  # never at once, always by the loop
        await auntil(lambda: len(called) == 2)
        assert called == [("theirs", awaitable), ("late", awaitable)]
        assert removed == []

    run(main())


# -- tasks that are woken ----------------------------------------------------------------------


def test_a_woken_caller_is_itself_in_its_own_context(run: Callable[..., Any]) -> None:
    async def main() -> None:
        f = make("thread")

        async def caller(number: int) -> None:
            TAG.set(number)
            me = asyncio.current_task()
            for step in range(5):
                assert await f.acall(number) == number * 10
                assert asyncio.current_task() is me
                assert TAG.get() == number, step

        await asyncio.gather(*[caller(number) for number in range(50)])
        assert TAG.get() is None

    run(main())
    run(main(), debug=True)


def test_a_woken_caller_that_raises_hurts_no_neighbour(run: Callable[..., Any]) -> None:
    async def main() -> None:
        f = make("thread")

        async def caller(number: int) -> Any:
            result = await f.acall(number)
            if number % 2:
                raise ArithmeticError(number)
            return result

        results = await asyncio.gather(
            *[caller(number) for number in range(20)], return_exceptions=True
        )
        assert [result if isinstance(result, int) else type(result) for result in results] == [
            ArithmeticError if number % 2 else number * 10 for number in range(20)
        ]

    run(main())


def test_a_woken_caller_that_interrupts_the_loop_leaves_the_others_whole() -> None:
    loop = asyncio.new_event_loop()
    f = batched(lambda items: items, max_batch_size=5, wait_ms=3_600_000)

    async def caller(number: int) -> int:
        result = await f.acall(number)
        if number == 2:
            raise KeyboardInterrupt
        return int(result)

    callers = [loop.create_task(caller(number)) for number in range(5)]
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.gather(*callers))
        others = [one for number, one in enumerate(callers) if number != 2]
        assert loop.run_until_complete(asyncio.gather(*others)) == [0, 1, 3, 4]
        assert isinstance(callers[2].exception(), KeyboardInterrupt)
    finally:
        loop.close()


def test_calls_made_by_woken_callers_form_the_next_batch(run: Callable[..., Any]) -> None:
    async def main() -> None:
        f = batched(lambda items: items, max_batch_size=64, wait_ms=3_600_000)

        async def caller(number: int) -> None:
            for step in range(10):
                assert await f.acall((number, step)) == (number, step)

        await asyncio.gather(*[caller(number) for number in range(64)])
        assert f.stats.batches == 10

    run(main())


def test_ten_thousand_callers(run: Callable[..., Any]) -> None:
    async def main() -> None:
        f = batched(lambda items: [-item for item in items], max_batch_size=500)
        assert await asyncio.gather(*[f.acall(number) for number in range(10_000)]) == [
            -number for number in range(10_000)
        ]
        assert f.stats.answered == 10_000

    run(main())


@since_312
def test_eager_callers() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        f = make("thread")
        assert await asyncio.gather(
            *[by_create(by_await(f.acall(number))) for number in range(5)]
        ) == [0, 10, 20, 30, 40]

    asyncio.run(main())


def test_the_pure_python_loop_machinery_can_wait_for_it_too() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(
            lambda loop, coroutine, **kwargs: asyncio.tasks._PyTask(coroutine, loop=loop, **kwargs)
        )  # type: ignore[attr-defined]
        f = make("thread")
        assert await asyncio.gather(
            *[by_create(by_await(f.acall(number))) for number in range(5)]
        ) == [0, 10, 20, 30, 40]
        assert await by_create(f.acall(6)) == 60

    asyncio.run(main())


def test_callbacks_get_the_awaitable_beside_a_task_that_waits() -> None:
    # A task is woken without being shown what it waited for; everybody else is shown it.
    @batched
    async def double(numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]

    async def main() -> None:
        awaitable = double(21)
        seen: list[object] = []
        waiting = asyncio.ensure_future(by_await(awaitable))
        awaitable.add_done_callback(seen.append)
        await asyncio.sleep(0)
        awaitable.add_done_callback(seen.append)
        assert await waiting == 42
        await asyncio.sleep(0)
        assert seen == [awaitable, awaitable]

    asyncio.run(main())


def test_an_answer_is_its_callers_alone(run: Callable[..., Any]) -> None:
    class Row:
        pass

    @batched
    async def rows(items: list[int]) -> list[Row]:
        return [Row() for _ in items]

    async def main() -> None:
        gone = []
        for number in range(3):
            row = await rows(number)
            gone.append(weakref.ref(row))
            del row
        await auntil(lambda: not any(reference() for reference in gone))

    run(main())


def test_what_ends_an_await_by_hand_is_kept(run: Callable[..., Any]) -> None:
    @batched
    async def double(numbers: list[int]) -> list[int]:
        return [2 * number for number in numbers]

    async def main() -> None:
        kept = []
        for number in range(3):
            awaitable = double(number)
            assert await awaitable == 2 * number
            for _ in range(2):
                with pytest.raises(StopIteration) as caught:
                    next(awaitable.__await__())
                kept.append(caught.value)
            assert await awaitable == 2 * number
        assert [error.value for error in kept] == [0, 0, 2, 2, 4, 4]

    run(main())


def test_an_error_that_nobody_received_goes_with_a_circle_of_garbage() -> None:
    """The collector may clear an error before it takes the awaitable that wants to show it."""
    said = run_script("""
import logging
from carpool import _core, batched
gc.disable()
told = []
class Log(logging.Handler):
    def emit(self, record): told.append(self.format(record))
logging.getLogger("carpool").addHandler(Log())
async def main():
    error, around = ValueError("lost"), []
    around.append(around)
    error.around = around
    @batched
    async def f(items): raise error
    awaitable = f.acall(1)
    around.append(awaitable)
    while not awaitable.done(): await asyncio.sleep(0)
for _ in range(3):  # memory of the first is used again
    asyncio.run(main())
    gc.collect()
say(len(told) == (3 if _core.RAW else 0), all("ValueError: lost" in one for one in told))
""")
    assert said == ["True True"]
