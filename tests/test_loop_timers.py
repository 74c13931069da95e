"""Waits on event loops: timed by the kernel, one timer for all batchers of a loop, closed with it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from carpool import batched
from gates import run_on, run_script

linux = pytest.mark.skipif(sys.platform != "linux", reason="a timerfd is Linux's own")


def echo(wait_ms: float, **options: Any) -> tuple[Any, list[list[int]]]:
    """A batcher on its callers' loop, and the batches it has seen."""
    seen: list[list[int]] = []

    @batched(wait_ms=wait_ms, **options)
    async def handler(items: list[int]) -> list[int]:
        seen.append(items)
        return items

    return handler, seen


def waited(handler: Any) -> Any:
    return handler.stats.wait_ms


@pytest.mark.parametrize("wait_ms", [0.3, 1.5, 4])
def test_a_lone_request_leaves_when_its_wait_is_over_and_not_before(
    wait_ms: float, run: Callable[..., Any]
) -> None:
    handler, seen = echo(wait_ms)

    async def main() -> None:
        for number in range(5):
            assert await handler(number) == number

    run(main())
    assert seen == [[number] for number in range(5)]
    assert handler.stats.reasons["wait"] == 5
    assert waited(handler).min >= wait_ms


@linux
def test_no_timer_of_the_loop_is_used() -> None:
    handler, _ = echo(wait_ms=2)

    async def main() -> None:
        event_loop = asyncio.get_running_loop()

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("asyncio's timers end on whole milliseconds")

        event_loop.call_later = event_loop.call_at = refuse  # type: ignore[method-assign]
        assert await handler(1) == 1
        assert await handler(2) == 2

    asyncio.run(main())


def test_batchers_of_one_loop_leave_each_in_its_time(run: Callable[..., Any]) -> None:
    order: list[float] = []
    waits = [12.0, 3.0, 8.0]

    def made(wait_ms: float) -> Any:
        @batched(wait_ms=wait_ms)
        async def handler(items: list[int]) -> list[int]:
            order.append(wait_ms)
            return items

        return handler

    handlers = [made(wait_ms) for wait_ms in waits]

    async def main() -> None:
        await asyncio.gather(*(handler(1) for handler in handlers))

    run(main())
    assert sorted(order) == sorted(waits)
    for handler, wait_ms in zip(handlers, waits, strict=True):
        assert waited(handler).min >= wait_ms


def test_a_full_batch_and_a_flush_do_not_wait_for_the_timer(run: Callable[..., Any]) -> None:
    handler, seen = echo(wait_ms=60_000, max_batch_size=2)

    async def main() -> None:
        assert await asyncio.gather(handler(1), handler(2)) == [1, 2]
        alone = handler(3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        handler.flush()
        assert await alone == 3

    run(main())
    assert seen == [[1, 2], [3]]
    assert handler.stats.reasons["full"] == handler.stats.reasons["flush"] == 1


def test_a_wait_that_others_cut_short_is_waited_anew(run: Callable[..., Any]) -> None:
    handler, seen = echo(wait_ms=5, max_batch_size=2)

    async def main() -> None:
        for number in range(10):
            # The first waits, the second fills the batch; the third waits its own time, from its arrival.
            await asyncio.gather(handler(number), later(number))
            assert await handler(number) == number

    async def later(number: int) -> None:
        await asyncio.sleep(0)
        await handler(number)

    run(main())
    assert seen == [[number] * count for number in range(10) for count in (2, 1)]
    assert handler.stats.reasons["wait"] == handler.stats.reasons["full"] == 10


@linux
def test_closed_loops_leave_no_descriptor_behind(run: Callable[..., Any]) -> None:
    handler, _ = echo(wait_ms=0.2)
    kept = []

    async def main() -> None:
        kept.append(asyncio.get_running_loop())
        assert await handler(1) == 1

    run(main())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        run(main())
    # The loops are kept; they are closed.
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_loop_that_cannot_watch_descriptors_uses_its_own_timers() -> None:
    class Proactor(asyncio.SelectorEventLoop):
        def add_reader(self, *args: Any) -> Any:
            raise NotImplementedError

    handler, seen = echo(wait_ms=2)

    async def main() -> None:
        assert await handler(1) == 1
        assert await asyncio.gather(handler(2), handler(3)) == [2, 3]

    run_on(Proactor, main())
    assert seen == [[1], [2, 3]]
    assert waited(handler).min >= 2


def test_a_loop_that_is_closed_while_a_request_waits(run: Callable[..., Any]) -> None:
    handler, seen = echo(wait_ms=60_000)
    left = []

    async def leave() -> None:
        left.append(asyncio.get_running_loop().create_task(handler(1)))
        await asyncio.sleep(0)

    async def main() -> None:
        other, others = echo(wait_ms=1)
        assert await other(2) == 2
        assert others == [[2]]

    run(leave())
    run(main())
    assert left[0].cancelled()
    assert seen == []


@linux
def test_a_forked_child_has_timers_of_its_own() -> None:
    said = run_script("""
from carpool import batched
@batched(wait_ms=2)
async def f(items): return items
async def main():
    assert await f(1) == 1
    return "answered"
say(asyncio.run(main()))
child = os.fork()
if child == 0:
    say("child", asyncio.run(main()))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
say("parent", asyncio.run(main()))
""")
    assert said == ["answered", "child answered", "parent answered"]
