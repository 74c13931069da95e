"""Deadlock: what looks like one and is none must be left alone."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, HandlerError, WouldDeadlock, batched
from gates import WAYS, Gate, batched_by, in_thread


def attempt(call: Callable[[], Any]) -> Any:
    """Its result, or the WouldDeadlock it raised."""
    try:
        return call()
    except WouldDeadlock as error:
        return error


async def aattempt(call: Callable[[], Any]) -> Any:
    try:
        return await call()
    except WouldDeadlock as error:
        return error


# -- what is no deadlock -----------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_submitting_without_waiting_is_fine(way: str) -> None:
    async def main() -> None:
        submitted: list[Any] = []

        def handler(items: list[Any]) -> list[Any]:
            submitted.extend(f.submit((item[0] + 1,)) for item in items if item[0] < 5)
            return items

        f = batched_by(way, handler)
        assert await f.acall((0,)) == (0,)
        for number in range(5):
            assert await submitted[number] == (number + 1,)
        assert f.stats.answered == 6

    asyncio.run(main())


def test_a_callback_in_the_handler_is_no_wait(gate: Gate) -> None:
    got: list[Any] = []
    ended = threading.Event()

    @batched
    def f(items: list[Any]) -> list[Any]:
        if items == ["outer"]:
            f.submit("inner").add_done_callback(
                lambda done: (got.append(done.result()), ended.set())
            )
        return items

    assert f("outer") == "outer"
    assert ended.wait(20)
    assert got == ["inner"]


def test_a_finished_future_of_one_s_own_can_be_read_in_the_handler() -> None:
    earlier: list[Any] = []

    @batched
    def f(items: list[Any]) -> list[Any]:
        return [earlier[0].result() if item == "look" else item for item in items]

    earlier.append(f.submit("early"))
    assert earlier[0].result(20) == "early"
    assert f("look") == "early"


def test_work_that_outlives_its_handler_may_wait_on_a_loop() -> None:
    async def main() -> None:
        left: list[Any] = []
        ended = asyncio.Event()

        @batched
        async def f(items: list[Any]) -> list[Any]:
            if items == ["outer"]:
                left.append(asyncio.create_task(afterwards()))
            return items

        async def afterwards() -> Any:
            await ended.wait()
            return await f("inner")

        assert await f("outer") == "outer"
        ended.set()
        assert await left[0] == "inner"

    asyncio.run(main())


def test_work_that_outlives_its_handler_may_wait_in_a_thread() -> None:
    left: list[Any] = []
    ended = threading.Event()

    @batched
    def f(items: list[Any]) -> list[Any]:
        if items == ["outer"]:
            context = contextvars.copy_context()  # as asyncio.to_thread would carry it along
            left.append(in_thread(context.run, afterwards))
        return items

    def afterwards() -> Any:
        ended.wait(20)
        return f("inner")

    assert f("outer") == "outer"
    ended.set()
    assert left[0].result(20) == "inner"


def test_an_unrelated_thread_may_wait_while_the_handler_runs(gate: Gate) -> None:
    f = batched(gate.handler)
    first = in_thread(f, "first")
    gate.entered()
    other = in_thread(f, "other")
    gate.open()
    assert first.result(20) == ("answer", "first")
    assert other.result(20) == ("answer", "other")


def test_an_unrelated_caller_may_wait_on_the_loop_while_the_handler_runs(
    new_gate: Callable[..., Gate],
) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched(gate.ahandler)
        first = f("first")
        await gate.aentered()
        other = f("other")  # on the same loop, even in the same thread, but not from the handler
        gate.open()
        assert await asyncio.gather(first, other) == [("answer", "first"), ("answer", "other")]

    asyncio.run(main())


def test_a_chain_without_a_circle_is_fine(way: str) -> None:
    async def main() -> None:
        c = batched(lambda items: [item + 1 for item in items])
        b = batched(lambda items: [c(item) + 10 for item in items])
        if way in ("loop", "thread-async"):

            async def handler(items: list[int]) -> list[int]:
                return [await b.acall(item) + await c.acall(item) for item in items]

        else:

            def handler(items: list[int]) -> list[int]:  # type: ignore[misc]
                return [b(item) + c(item) for item in items]

        a = batched(handler, executor=way.removesuffix("-async"))
        assert await asyncio.gather(*[a.acall(number) for number in range(5)]) == [
            number * 2 + 12 for number in range(5)
        ]

    asyncio.run(main())


def test_a_request_that_arose_in_a_handler_may_be_waited_for_outside() -> None:
    arisen: list[Any] = []

    @batched
    def f(items: list[Any]) -> list[Any]:
        if items == ["outer"]:
            arisen.append(f.submit("inner"))
        return items

    assert f("outer") == "outer"
    assert arisen[0].result(20) == "inner"


def test_after_a_fire_and_forget_the_other_handler_is_not_taken_for_part_of_a_chain() -> None:
    """A has ended when B's handler, which A's request began, calls A: nothing to wait for in vain."""
    a_ended = threading.Event()
    got: list[Any] = []
    b_ended = threading.Event()

    @batched
    def a(items: list[Any]) -> list[Any]:
        if items == ["start"]:
            b.submit("from a")
        return items

    @batched
    def b(items: list[Any]) -> list[Any]:
        a_ended.wait(20)
        got.append(attempt(lambda: a("again")))
        b_ended.set()
        return items

    assert a("start") == "start"
    a_ended.set()
    assert b_ended.wait(20)
    assert got == ["again"]


def test_a_custom_loop_that_calls_itself_between_batches_is_not_a_handler() -> None:
    b: Batcher[int, int] = Batcher()

    def serve() -> None:
        for batch in b:
            follow = b.submit(batch.items[0] + 1) if batch.items[0] < 3 else None
            batch.complete(batch.items)
            if follow is None:
                break

    serving = in_thread(serve)
    assert b.submit(0).result(20) == 0
    serving.result(20)
    b.close(drain=False)


def test_many_handlers_calling_each_other_downwards_only() -> None:
    def above(below: Any) -> Any:
        return batched(lambda items: [below(item) for item in items], max_batch_size=4)

    top: Any = batched(lambda items: items)
    for _ in range(5):
        top = above(top)
    callers = [in_thread(top, number) for number in range(20)]
    assert [caller.result(20) for caller in callers] == list(range(20))


def test_raised_where_it_happened_not_as_a_wrapped_error() -> None:
    assert not issubclass(WouldDeadlock, HandlerError)
