"""Deadlock: what could only wait for itself is told so at once; what could not is left alone."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from carpool import WouldDeadlock, batched
from gates import Gate, auntil, batched_by, identity, in_thread, run_script


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


# -- from inside the handler -------------------------------------------------------------------


WAITS: dict[str, Callable[[Any], Any]] = {
    "call": lambda f: f("inner"),
    "result": lambda f: f.submit("inner").result(),
    "exception": lambda f: f.submit("inner").exception(),
    "result in time": lambda f: f.submit("inner").result(timeout=3600),
}


@pytest.mark.parametrize("executor", ["thread", "caller"])
@pytest.mark.parametrize("wait", WAITS)
def test_waiting_for_oneself_in_a_handler(executor: str, wait: str) -> None:
    found: list[Any] = []

    def handler(items: list[Any]) -> list[Any]:
        if "outer" in items:
            found.append(attempt(lambda: WAITS[wait](f)))
        return items

    f = batched(handler, executor=executor, name="ouroboros")
    assert f("outer") == "outer"
    assert isinstance(found[0], WouldDeadlock)
    assert isinstance(found[0], RuntimeError)
    assert "ouroboros" in str(found[0])
    assert f("after") == "after"
    f.close()
    assert identity(f.stats)


AWAITS: dict[str, Callable[[Any], Any]] = {
    "acall": lambda f: f.acall("inner"),
    "call": lambda f: f("inner"),
    "future": lambda f: f.submit("inner"),
    "wait_for": lambda f: asyncio.wait_for(f.acall("inner"), 3600),
    "gather": lambda f: asyncio.gather(f.acall("inner")),
    "create": lambda f: asyncio.create_task(by_await(f)),
}


async def by_await(f: Any) -> Any:
    return await f.acall("inner")


@pytest.mark.parametrize("executor", ["loop", "thread"])
@pytest.mark.parametrize("wait", AWAITS)
def test_awaiting_oneself_in_an_async_handler(executor: str, wait: str) -> None:
    async def main() -> None:
        found: list[Any] = []

        async def handler(items: list[Any]) -> list[Any]:
            if "outer" in items:
                found.append(await aattempt(lambda: AWAITS[wait](f)))
            return items

        f = batched(handler, executor=executor)
        assert await f("outer") == "outer"
        assert isinstance(found[0], WouldDeadlock)
        assert await f("after") == "after"

    asyncio.run(main())


def test_uncaught_it_reaches_the_caller_as_its_own_type(way: str) -> None:
    async def main() -> None:
        if way in ("loop", "thread-async"):

            async def handler(items: list[Any]) -> list[Any]:
                return [await f.acall(item) for item in items]

        else:

            def handler(items: list[Any]) -> list[Any]:  # type: ignore[misc]
                return [f(item) for item in items]

        f = batched(handler, executor=way.removesuffix("-async"))
        with pytest.raises(WouldDeadlock):
            await f.acall(1)

    asyncio.run(main())


def test_a_circle_of_two() -> None:
    found: list[Any] = []

    @batched
    def a(items: list[Any]) -> list[Any]:
        return [b(item) for item in items]

    @batched
    def b(items: list[Any]) -> list[Any]:
        found.append(attempt(lambda: a("again")))
        return items

    assert a("start") == "start"
    assert isinstance(found[0], WouldDeadlock)
    found.clear()
    assert a("once more") == "once more"
    assert isinstance(found[0], WouldDeadlock)


@pytest.mark.parametrize("executor", ["loop", "thread"])
def test_a_circle_of_three_awaited(executor: str) -> None:
    async def main() -> None:
        found: list[Any] = []

        @batched(executor=executor)
        async def a(items: list[Any]) -> list[Any]:
            return [await b(item) for item in items]

        @batched(executor=executor)
        async def b(items: list[Any]) -> list[Any]:
            return list(await asyncio.gather(*[c.acall(item) for item in items]))

        @batched(executor=executor)
        async def c(items: list[Any]) -> list[Any]:
            found.append(await aattempt(lambda: a("again")))
            return items

        assert await a("start") == "start"
        assert isinstance(found[0], WouldDeadlock)

    asyncio.run(main())


def test_a_circle_through_different_executors() -> None:
    found: list[Any] = []

    @batched(executor="caller")
    def a(items: list[Any]) -> list[Any]:
        return [b(item) for item in items]

    @batched(executor="thread")
    def b(items: list[Any]) -> list[Any]:
        return [c.submit(item).result() for item in items]

    @batched(executor="thread")
    async def c(items: list[Any]) -> list[Any]:
        found.append(attempt(lambda: a("again")))
        return items

    assert a("start") == "start"
    assert isinstance(found[0], WouldDeadlock)


def test_a_second_slot_bears_one_more_level() -> None:
    depths: list[int] = []

    @batched(max_concurrent_batches=2)
    def down(items: list[int]) -> list[Any]:
        depths.extend(items)
        return [
            "bottom" if item == 0 else f"{attempt(lambda item=item: down(item - 1))}"
            for item in items
        ]

    assert down(0) == "bottom"
    assert down(1) == "bottom"
    assert depths == [0, 1, 0]
    assert "bottom" not in down(2)  # the third level has no slot left
    assert down(1) == "bottom"


INNER: dict[str, Callable[[Any], Any]] = {
    "call": lambda f: f("inner"),
    "result": lambda f: f.submit("inner").result(),
    "exception": lambda f: f.submit("inner").exception() or "inner",
}


@pytest.mark.parametrize("executor", ["thread", "caller"])
@pytest.mark.parametrize("wait", INNER)
def test_two_chains_that_hold_both_slots(executor: str, wait: str) -> None:
    """Each leaves a slot for its call; together they leave none."""
    both = threading.Barrier(2)

    def handler(items: list[Any]) -> list[Any]:
        if items == ["inner"]:
            return items
        both.wait(20)
        return [(attempt(lambda: INNER[wait](f)),)]

    f = batched(handler, executor=executor, max_batch_size=1, max_concurrent_batches=2)
    outer = [in_thread(f, name) for name in ("first", "second")]
    (refused,), (served,) = sorted((one.result(20) for one in outer), key=repr, reverse=True)
    assert isinstance(refused, WouldDeadlock)
    assert "2 slots" in str(refused)
    assert served == "inner"
    f.close()
    assert identity(f.stats)


AINNER: dict[str, Callable[[Any], Any]] = {
    "acall": lambda f: f.acall("inner"),
    "future": lambda f: f.submit("inner"),
    "wait_for": lambda f: asyncio.wait_for(f.acall("inner"), 3600),
}


@pytest.mark.parametrize("executor", ["loop", "thread"])
@pytest.mark.parametrize("wait", AINNER)
def test_two_chains_that_hold_both_slots_awaited(executor: str, wait: str) -> None:
    async def main() -> None:
        entered: list[Any] = []
        both = threading.Event()

        async def handler(items: list[Any]) -> list[Any]:
            if items == ["inner"]:
                return items
            entered.append(items)
            if len(entered) == 2:
                both.set()
            await auntil(both.is_set)
            return [(await aattempt(lambda: AINNER[wait](f)),)]

        f = batched(handler, executor=executor, max_batch_size=1, max_concurrent_batches=2)
        outer = asyncio.gather(f("first"), f("second"))
        answers = sorted(await asyncio.wait_for(outer, 20), key=repr, reverse=True)
        (refused,), (served,) = answers
        assert isinstance(refused, WouldDeadlock)
        assert "2 slots" in str(refused)
        assert served == "inner"
        await f.aclose()
        assert identity(f.stats)

    asyncio.run(main())


@pytest.mark.parametrize("ends", ["answered", "cancelled", "expired"])
def test_who_waits_no_more_stands_in_nobody_s_way(ends: str) -> None:
    """The first handler holds a slot, but what it had asked for has ended by now."""

    async def main() -> None:
        asked, asks, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

        @batched(max_batch_size=1, max_concurrent_batches=2)
        async def f(items: list[Any]) -> list[Any]:
            if items == ["first"]:
                one = f.options(timeout_ms=0).acall("one") if ends == "expired" else f.acall("one")
                if ends == "cancelled":
                    one.cancel()
                else:
                    await asyncio.wait([asyncio.create_task(by_itself(one))])
                asked.set()
                await go.wait()
            if items == ["second"]:
                two = f.acall("two")
                asks.set()
                return [await two]
            return items

        first = f.acall("first")
        await asked.wait()
        second = f.acall("second")
        await asks.wait()
        go.set()
        assert await asyncio.wait_for(second, 20) == "two"
        assert await first == "first"

    asyncio.run(main())


async def by_itself(one: Any) -> Any:
    return await one


def test_a_batch_of_several_remembers_where_each_arose() -> None:
    """Only one of the requests in B's batch comes from A's handler, and that one suffices."""
    found: list[Any] = []
    together = threading.Event()

    @batched
    def a(items: list[Any]) -> list[Any]:
        future = b.submit("from a")
        together.set()
        return [future.result()]

    @batched(max_batch_size=2, wait_ms=3_600_000)
    def b(items: list[Any]) -> list[Any]:
        found.append(attempt(lambda: a("again")))
        return items

    started = in_thread(a, "start")
    assert together.wait(20)
    assert b("a stranger") == "a stranger"
    assert started.result(20) == "from a"
    assert isinstance(found[0], WouldDeadlock)


@pytest.mark.parametrize("slots", [1, 2])
def test_waiting_for_oneself_in_a_setup(way: str, slots: int) -> None:
    """No slot can run anything before the setup has ended."""

    async def main() -> None:
        found: list[Any] = []

        def setup() -> None:
            found.append(attempt(lambda: f.submit("inner").result() if asks else f("inner")))

        asks = way in ("loop", "thread-async")
        f = batched_by(way, lambda items: items, setup=setup, max_concurrent_batches=slots)
        assert await f.acall("outer") == "outer"
        assert isinstance(found[0], WouldDeadlock)
        assert "setup" in str(found[0])

    asyncio.run(main())


def test_what_a_setup_has_started_may_call_when_it_is_over() -> None:
    tasks: list[contextvars.Context] = []
    f = batched(lambda items: items, setup=lambda: tasks.append(contextvars.copy_context()))
    assert f("outer") == "outer"
    assert tasks[0].run(f, "later") == "later"


# -- closing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_a_draining_close_in_the_handler(executor: str, slots: int) -> None:
    found: list[Any] = []

    def handler(items: list[Any]) -> list[Any]:
        found.append(attempt(f.close))
        return items

    f = batched(handler, executor=executor, max_concurrent_batches=slots)
    assert f(1) == 1
    assert isinstance(found[0], WouldDeadlock)
    assert f(2) == 2  # it has not been closed
    assert f.close() is True


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("executor", ["thread", "loop"])
def test_a_draining_aclose_in_the_handler(executor: str, slots: int) -> None:
    async def main() -> None:
        found: list[Any] = []

        async def handler(items: list[Any]) -> list[Any]:
            found.append(await aattempt(f.aclose))
            return items

        f = batched(handler, executor=executor, max_concurrent_batches=slots)
        assert await f(1) == 1
        assert isinstance(found[0], WouldDeadlock)
        assert await f(2) == 2  # it has not been closed
        assert await f.aclose() is True

    asyncio.run(main())


@pytest.mark.parametrize("slots", [1, 2])
def test_a_failing_close_in_the_handler_does_not_wait_for_it(slots: int) -> None:
    found: list[Any] = []

    def handler(items: list[Any]) -> list[Any]:
        found.append(f.close(drain=False))
        return items

    f = batched(handler, max_concurrent_batches=slots)
    assert f(1) == 1
    assert found == [False]
    assert f.close() is True


def test_a_draining_close_on_the_loop_that_must_run_the_handler() -> None:
    async def main() -> None:
        @batched
        async def f(items: list[int]) -> list[int]:
            return items

        call = f(1)
        assert isinstance(attempt(f.close), WouldDeadlock)
        assert isinstance(attempt(lambda: f.close(drain=True, timeout=3600)), WouldDeadlock)
        assert await call == 1
        assert await f(2) == 2  # refused means: not closed
        assert f.close() is True  # nothing outstanding, nothing to wait for

    asyncio.run(main())


def test_awaiting_the_close_on_that_loop_is_fine() -> None:
    async def main() -> None:
        @batched
        async def f(items: list[int]) -> list[int]:
            return items

        call = f(1)
        assert await f.aclose() is True
        assert await call == 1

    asyncio.run(main())


# -- blocking the loop that must run the handler -----------------------------------------------


def test_blocking_the_loop_that_must_run_the_handler(new_gate: Callable[..., Gate]) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched(gate.ahandler, max_queue=1)
        future = f.submit("a")
        for ask in (future.result, future.exception, lambda: future.result(timeout=3600)):
            assert isinstance(attempt(ask), WouldDeadlock)
        gate.open()
        assert await future == ("answer", "a")
        assert future.result() == ("answer", "a")  # done: nothing to wait for

    asyncio.run(main())


def test_waiting_for_room_on_the_loop_that_must_make_it(new_gate: Callable[..., Gate]) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched(gate.ahandler, max_queue=1, overflow="wait")
        running = f("running")
        await gate.aentered()
        pending = f.submit("pending")  # room: fine
        assert isinstance(attempt(lambda: f.submit("no room")), WouldDeadlock)
        waiting = f.acall("this one can wait")
        gate.open()
        assert await asyncio.gather(running, waiting) == [
            ("answer", "running"),
            ("answer", "this one can wait"),
        ]
        assert await pending == ("answer", "pending")
        assert "no room" not in gate.items
        assert identity(f.stats)

    asyncio.run(main())


def test_waiting_from_another_thread_is_fine(new_gate: Callable[..., Gate]) -> None:
    async def main() -> None:
        gate = new_gate()
        gate.open()
        f = batched(gate.ahandler)
        future = f.submit("a")
        assert await asyncio.to_thread(future.result) == ("answer", "a")

    asyncio.run(main())


@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_it_is_found_out_in_every_run_of_a_process_that_does_nothing_else(executor: str) -> None:
    said = run_script(
        f"""
from carpool import WouldDeadlock, batched

@batched(executor={executor!r})
def f(items):
    for item in items:
        if item:
            try:
                f(0)
            except WouldDeadlock:
                say("found out", item)
    return items

for item in (0, 0, 1, 0, 2, 3):
    assert f(item) == item
"""
    )
    assert said == ["found out 1", "found out 2", "found out 3"]
