"""Whole data sets, for coroutines: plain and asynchronous sources, on both kinds of loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from carpool import Batcher, BatcherClosed, Progress, WouldDeadlock, batched
from carpool._many.async_pass import aover
from carpool._many.backoff import Pace
from carpool._many.sync_pass import How
from gates import Gate, auntil, batched_by, identity, in_thread

Run = Callable[..., Any]


def answers(*items: Any) -> list[Any]:
    return [("answer", item) for item in items]


async def collected(answers: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in answers]


async def counted(count: int) -> AsyncIterator[int]:
    """A source that never has to wait."""
    for item in range(count):
        yield item


async def turning(count: int) -> AsyncIterator[int]:
    """One that lets the loop turn before each item."""
    for item in range(count):
        await asyncio.sleep(0)
        yield item


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("source", [range, counted, turning])
def test_every_item_has_its_answer(
    run: Run, way: str, gate: Gate, source: Any, ordered: bool
) -> None:
    gate.open()
    function = batched_by(way, gate, max_batch_size=4, max_concurrent_batches=2)

    async def main() -> None:
        got = await collected(function.amap(source(103), ordered=ordered))
        assert (got if ordered else sorted(got)) == answers(*range(103))
        assert identity(function.stats)

    run(main())


def test_one_consumer_fills_the_batches(run: Run, way: str, gate: Gate) -> None:
    gate.open()
    function = batched_by(way, gate, max_batch_size=8)

    async def main() -> None:
        for source in (range(203), counted(203)):
            del gate.batches[:]
            await collected(function.amap(source))
            assert [len(batch) for batch in gate.batches] == [8] * 25 + [3]

    run(main())


def test_no_more_than_a_window_is_read(run: Run, gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=4)
    read = 0

    async def source() -> AsyncIterator[int]:
        nonlocal read
        for read in range(1, 301):
            yield read

    async def main() -> None:
        taken = 0
        async for _ in function.amap(source(), window=10):
            taken += 1
            assert read - taken <= 20
        assert taken == 300

    run(main())


def test_a_source_may_wait_for_the_answers(run: Run, way: str, gate: Gate) -> None:
    gate.open()
    function = batched_by(way, gate, max_batch_size=8)

    async def main() -> None:
        answered: asyncio.Queue[Any] = asyncio.Queue()

        async def source() -> AsyncIterator[int]:
            for item in range(20):
                yield item
                assert await answered.get() == ("answer", item)

        async for answer in function.amap(source()):
            answered.put_nowait(answer)

    run(main())


@pytest.mark.parametrize("source", [range, counted])
def test_a_break_cancels_what_is_in_flight(run: Run, way: str, gate: Gate, source: Any) -> None:
    gate.release()
    function = batched_by(way, gate, max_batch_size=1)

    async def main() -> None:
        async with contextlib.aclosing(function.amap(source(100))) as mapped:
            async for got in mapped:
                assert got == ("answer", 0)
                break
        assert function._station.engine().pending == 0
        gate.open()
        await auntil(lambda: function.stats.in_flight == 0)
        stats = function.stats
        assert identity(stats)
        assert stats.cancelled >= stats.submitted - 2
        assert len(gate.items) <= 2

    run(main())


def test_without_a_close_the_loop_does_it(run: Run, gate: Gate) -> None:
    gate.release()
    function = batched(gate.handler, max_batch_size=1)

    async def main() -> None:
        async for _ in function.amap(counted(100)):
            break
        await auntil(lambda: function._station.engine().pending == 0)
        gate.open()

    run(main())


def test_cancelling_the_consumer_cancels_it(run: Run, gate: Gate) -> None:
    function = batched(gate.handler, max_batch_size=2)
    ended = False

    async def source() -> AsyncIterator[int]:
        nonlocal ended
        try:
            for item in range(2):
                yield item
            await asyncio.Event().wait()
        finally:
            ended = True

    async def main() -> None:
        consumer = asyncio.create_task(collected(function.amap(source())))
        await gate.aentered()
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        await auntil(lambda: ended)
        gate.open()
        await auntil(lambda: function.stats.in_flight == 0)

    run(main())


def test_errors_in_their_places(run: Run) -> None:
    def odd(items: list[int]) -> list[Any]:
        return [ValueError(item) if item % 2 else item for item in items]

    function = batched(odd, max_batch_size=4)

    async def main() -> None:
        for source in (range, counted):
            got = await collected(function.amap(source(6), errors="return"))
            assert [repr(one) for one in got] == [
                "0",
                "ValueError(1)",
                "2",
                "ValueError(3)",
                "4",
                "ValueError(5)",
            ]
            assert await collected(function.amap(source(6), errors="skip")) == [0, 2, 4]
            mapped = function.amap(source(6))
            assert await mapped.__anext__() == 0
            with pytest.raises(ValueError, match="1"):
                await mapped.__anext__()

    run(main())


def test_an_error_of_the_source_comes_after_the_answers_before_it(run: Run, gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=2)

    async def source() -> AsyncIterator[int]:
        async for item in counted(7):
            yield item
        raise OSError("the line is dead")

    async def main() -> None:
        mapped = function.amap(source())
        assert [await mapped.__anext__() for _ in range(7)] == answers(*range(7))
        with pytest.raises(OSError, match="the line is dead"):
            await mapped.__anext__()

    run(main())


def test_what_was_cancelled_in_the_source_is_no_end(run: Run, gate: Gate) -> None:
    gate.open()

    async def source() -> AsyncIterator[int]:
        yield 1
        yield 2
        raise asyncio.CancelledError("of something it waits for")

    function = batched(gate.handler, max_batch_size=4)

    async def main() -> None:
        mapped = function.amap(source())
        assert [await mapped.__anext__(), await mapped.__anext__()] == answers(1, 2)
        with pytest.raises(asyncio.CancelledError, match="of something"):
            await mapped.__anext__()

    run(main())


def test_a_close_ends_it(run: Run, gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=1)

    async def endless() -> AsyncIterator[int]:
        while True:
            await asyncio.sleep(0)
            yield 1

    async def main() -> None:
        mapped = function.amap(endless())
        assert await mapped.__anext__() == ("answer", 1)
        await function.aclose()
        with pytest.raises(BatcherClosed):
            await collected(mapped)

    run(main())


class ByHand(Pace):
    def __init__(self) -> None:
        self.time = 0.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    def chance(self) -> float:
        return 1.0

    def call_at(self, event_loop: Any, until: float, callback: Callable[[], None]) -> Any:
        self.waits.append(until - self.time)

        def come() -> None:
            self.time = max(self.time, until)
            callback()

        # Long after all that is under way.
        return event_loop.call_later(0.2, come)


@pytest.mark.parametrize("ordered", [True, False])
def test_failed_items_are_tried_again(run: Run, ordered: bool) -> None:
    seen: dict[int, int] = {}

    async def handler(items: list[int]) -> list[Any]:
        for item in items:
            seen[item] = seen.get(item, 0) + 1
        return [OSError(item) if seen[item] <= item else item for item in items]

    function = batched(handler)
    pace = ByHand()
    told: list[Progress] = []

    async def main() -> None:
        how = How(retries=3, backoff_ms=500, ordered=ordered, progress=told.append)
        lot = function._lot(False)
        got = await collected(aover(lot, iter([1, 0, 2]), how, 3, pace))
        assert (got if ordered else sorted(got)) == ([1, 0, 2] if ordered else [0, 1, 2])
        assert pace.waits == [0.5, 1.0]
        assert (told[-1].done, told[-1].retried, told[-1].failed) == (3, 3, 0)

    run(main())


def test_starmap_methods_and_batchers(run: Run) -> None:
    class Model:
        @batched
        async def scale(self, numbers: list[int], factors: list[int]) -> list[int]:
            return [number * factor for number, factor in zip(numbers, factors, strict=True)]

    async def pairs() -> AsyncIterator[tuple[int, int]]:
        yield 1, 2
        yield 3, 4

    async def main() -> None:
        model = Model()
        assert await collected(model.scale.astarmap(pairs())) == [2, 12]
        assert await collected(Model.scale.astarmap(model, [(1, 2)])) == [2]
        async with Batcher[int, int]() as batcher:

            async def serve() -> None:
                async for batch in batcher:
                    batch.complete([2 * item for item in batch.items])

            serving = asyncio.create_task(serve())
            assert await collected(batcher.amap(counted(100))) == [2 * n for n in range(100)]
        await serving

    run(main())


def test_waiting_for_itself_is_found_out(run: Run) -> None:
    async def handler(items: list[Any]) -> list[Any]:
        return [await collected(function.amap([1]))]

    function = batched(handler)

    async def main() -> None:
        with pytest.raises(WouldDeadlock):
            await function(0)

    run(main())


def test_blocking_the_loop_of_the_handler_is_found_out(run: Run) -> None:
    async def handler(items: list[int]) -> list[int]:
        return items

    function = batched(handler)

    async def main() -> None:
        with pytest.raises(WouldDeadlock):
            list(function.map([1]))

    run(main())
    with pytest.raises(RuntimeError, match="running event loop"):
        list(function.map([1]))


def test_several_loops_and_threads_share_one_function(gate: Gate, way: str) -> None:
    gate.open()
    function = batched_by(way, gate, max_batch_size=8)

    def on_a_loop(start: int) -> list[Any]:
        return asyncio.run(collected(function.amap(range(start, start + 500))))

    threads = [in_thread(on_a_loop, start) for start in (0, 1000, 2000)]
    if way in ("thread", "caller"):
        threads.append(in_thread(lambda: list(function.map(range(3000, 3500)))))
    for number, thread in enumerate(threads):
        assert thread.result(30) == answers(*range(number * 1000, number * 1000 + 500))
