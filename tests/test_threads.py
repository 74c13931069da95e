"""Threads and loops: one queue for all of them, one worker thread, its setup and its contexts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from carpool import batched
from gates import Gate, auntil, batched_by, identity, in_thread, until


def test_64_threads_and_three_loops_on_one_function(run: Callable[..., Any]) -> None:
    seen: list[int] = []

    @batched(max_batch_size=16)
    def f(items: list[int]) -> list[int]:
        seen.extend(items)
        return [-item for item in items]

    start = threading.Barrier(67)

    def thread(base: int) -> None:
        start.wait(20)
        for step in range(10):
            assert f(base + step) == -(base + step)

    def loop(base: int) -> None:
        async def one(number: int) -> None:
            for step in range(5):
                assert await f.acall(number + step) == -(number + step)
            assert await f.submit(number + 5) == -(number + 5)

        async def main() -> None:
            await asyncio.gather(*[one(base + 10 * number) for number in range(40)])

        start.wait(20)
        run(main())

    callers = [in_thread(thread, 1000 * number) for number in range(64)]
    callers += [in_thread(loop, 1_000_000 * number) for number in range(1, 4)]
    for caller in callers:
        caller.result(40)
    assert len(seen) == len(set(seen)) == 64 * 10 + 3 * 40 * 6
    assert f.stats.answered == len(seen)
    assert f.stats.batch_sizes.max <= 16
    assert identity(f.stats)


def test_asyncio_run_again_and_again(way: str, run: Callable[..., Any]) -> None:
    f = batched_by(way, lambda items: [item + 1 for item in items])

    async def main(base: int) -> None:
        assert await asyncio.gather(*[f.acall(base + number) for number in range(10)]) == [
            base + number + 1 for number in range(10)
        ]

    for base in range(0, 60, 10):
        run(main(base))
    assert f.stats.answered == 60


def test_several_loops_share_a_batch(gate: Gate) -> None:
    f = batched(gate.handler)
    f.submit("first")
    gate.entered()

    async def main(name: str) -> Any:
        return await f.acall(name)

    loops = [in_thread(asyncio.run, main(name)) for name in "abc"]
    until(lambda: f.stats.pending == 3)
    gate.open()
    assert [loop.result(20) for loop in loops] == [("answer", name) for name in "abc"]
    assert [sorted(batch) for batch in gate.batches] == [["first"], ["a", "b", "c"]]


def test_several_loops_share_an_async_handler_of_the_loop_executor() -> None:
    loops: list[Any] = []

    @batched
    async def f(items: list[int]) -> list[int]:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return [item * 3 for item in items]

    mine: list[Any] = []

    async def main(base: int) -> None:
        mine.append(asyncio.get_running_loop())
        assert await asyncio.gather(*[f(base + number) for number in range(20)]) == [
            (base + number) * 3 for number in range(20)
        ]

    for caller in [in_thread(asyncio.run, main(base)) for base in (0, 100, 200)]:
        caller.result(20)
    assert set(loops) <= set(mine)


def test_a_stopped_loop_blocks_nobody_on_the_loop_executor(
    run: Callable[..., Any], new_gate: Callable[..., Gate]
) -> None:
    gate = new_gate()
    f = batched(gate.ahandler)
    kept: list[Any] = []

    async def leave_at_once() -> None:
        kept.append(f("left before its batch ran"))

    async def leave_in_flight() -> None:
        kept.append(f("left in flight"))
        await auntil(lambda: "left in flight" in gate.items)

    async def stay(item: Any) -> Any:
        return await f(item)

    run(leave_at_once())
    run(leave_in_flight())
    gate.open()
    assert run(stay("a")) == ("answer", "a")
    assert run(stay("b")) == ("answer", "b")
    assert identity(f.stats)


def test_loops_are_woken_independently(run: Callable[..., Any]) -> None:
    """What a woken caller does on its loop, even blocking it, holds up no other loop's waking."""
    f = batched(lambda items: items)
    woken, other_was_answered = threading.Event(), threading.Event()

    async def blocking() -> Any:
        result = await f.acall("blocking")
        woken.set()
        assert other_was_answered.wait(20)
        return result

    async def other() -> Any:
        return await f.acall("other"), await f.submit("other too")

    blocked = in_thread(lambda: run(blocking()))
    assert woken.wait(20)
    try:
        assert in_thread(lambda: run(other())).result(10) == ("other", "other too")
    finally:
        other_was_answered.set()
    assert blocked.result(20) == "blocking"


def test_a_loop_that_stands_still_does_not_hold_up_the_batch_of_the_others(gate: Gate) -> None:
    f = batched(gate.handler)
    f.submit("first")
    gate.entered()
    proceed = threading.Event()
    submitted = threading.Event()

    async def sleeper() -> Any:
        awaitable = f.acall("on the loop that stands still")
        submitted.set()
        proceed.wait(20)  # holds its loop, not just its caller
        return await awaitable

    still = in_thread(asyncio.run, sleeper())
    assert submitted.wait(20)
    neighbour = f.submit("neighbour")
    gate.open()
    assert neighbour.result(20) == ("answer", "neighbour")
    assert f("after") == ("answer", "after")
    proceed.set()
    assert still.result(20) == ("answer", "on the loop that stands still")
