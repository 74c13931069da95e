"""The front door of Ray Serve's batching: async generators, whose steps go to the callers of their batch."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import carpool
from carpool.compat.ray_serve import RayServeException, batch
from gates import auntil

NEVER_S = 1000


def counting(steps: int, **settings: Any) -> Any:
    settings = {"max_batch_size": 2, "batch_wait_timeout_s": NEVER_S, **settings}

    @batch(**settings)
    async def count(a: list[Any], b: list[Any]) -> AsyncIterator[list[Any]]:
        for step in range(steps):
            yield [(step, x, y) for x, y in zip(a, b, strict=True)]

    return count


class Talker:
    def __init__(self, word: str) -> None:
        self.word = word

    @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    async def talk(self, names: list[str]) -> AsyncIterator[list[str]]:
        for step in range(3):
            await asyncio.sleep(0)
            yield [f"{self.word} {name} {step}" for name in names]


async def all_of(steps: AsyncIterator[Any]) -> list[Any]:
    return [step async for step in steps]


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("way", ["position", "name", "mixed", "other order"])
def test_every_caller_gets_its_steps(run: Callable[..., Any], way: str, steps: int) -> None:
    async def main() -> None:
        count = counting(steps)
        streams = {
            "position": lambda: (count(1, 2), count(3, 4)),
            "name": lambda: (count(a=1, b=2), count(a=3, b=4)),
            "mixed": lambda: (count(1, b=2), count(3, b=4)),
            "other order": lambda: (count(b=2, a=1), count(b=4, a=3)),
        }[way]()
        for (a, b), stream in zip([(1, 2), (3, 4)], streams, strict=True):
            assert await all_of(stream) == [(step, a, b) for step in range(steps)]

    run(main())


def test_the_bare_decorator(run: Callable[..., Any]) -> None:
    @batch
    async def twice(items: list[int]) -> AsyncIterator[list[int]]:
        yield items
        yield items

    async def main() -> None:
        assert await all_of(twice(7)) == [7, 7]

    run(main())


def test_what_ray_serve_looks_for_in_a_stream(run: Callable[..., Any]) -> None:
    """A deployment may return the stream of a batched method: Ray takes nothing but async generators."""

    async def main() -> None:
        for stream in (counting(1, max_batch_size=1)(1, 2), Talker("hello").talk("a")):
            assert inspect.isasyncgen(stream)
            await stream.aclose()

    run(main())


def test_a_request_is_on_its_way_before_the_first_step_is_asked_for(
    run: Callable[..., Any],
) -> None:
    async def main() -> None:
        count = counting(1)
        streams = [count(1, 2), count(3, 4)]
        await auntil(lambda: count._free.stats.submitted == 2 and not count._free.stats.pending)
        assert await asyncio.gather(*map(all_of, streams)) == [[(0, 1, 2)], [(0, 3, 4)]]

    run(main())


def test_a_stream_thrown_into_frees_its_place(run: Callable[..., Any]) -> None:
    """As Ray does when a client goes away."""

    async def main() -> None:
        stopped = asyncio.Event()

        @batch(max_batch_size=1)
        async def endless(items: list[int]) -> AsyncIterator[list[int]]:
            try:
                while True:
                    yield items
            finally:
                stopped.set()

        stream = endless(1)
        assert await anext(stream) == 1
        with pytest.raises(asyncio.CancelledError):
            await stream.athrow(asyncio.CancelledError())
        await asyncio.wait_for(stopped.wait(), 20)

    run(main())


def test_methods(run: Callable[..., Any]) -> None:
    async def main() -> None:
        hello, bye = Talker("hello"), Talker("bye")
        streams = [hello.talk("a"), bye.talk("a"), hello.talk("b"), bye.talk("b")]
        told = await asyncio.gather(*map(all_of, streams))
        words = [("hello", "a"), ("bye", "a"), ("hello", "b"), ("bye", "b")]
        assert told == [[f"{word} {name} {n}" for n in range(3)] for word, name in words]

    run(main())


def test_loops_on_several_threads(run: Callable[..., Any]) -> None:
    @batch(max_batch_size=8, batch_wait_timeout_s=0.001, max_concurrent_batches=2)
    async def steps_of(items: list[int]) -> AsyncIterator[list[int]]:
        for step in range(5):
            await asyncio.sleep(0)
            yield [item + step for item in items]

    async def main(start: int) -> list[list[int]]:
        streams = [steps_of(n) for n in range(start, start + 40)]
        return await asyncio.gather(*map(all_of, streams))

    with ThreadPoolExecutor(4) as threads:
        loops = [threads.submit(run, main(1000 * n)) for n in range(4)]
        for n, loop in enumerate(loops):
            expected = [[i + step for step in range(5)] for i in range(1000 * n, 1000 * n + 40)]
            assert loop.result(30) == expected


@pytest.mark.parametrize("stop", [StopIteration, StopAsyncIteration])
def test_a_sentinel_ends_one_caller_at_once(run: Callable[..., Any], stop: type) -> None:
    ended: list[int] = []

    async def main() -> None:
        go_on = asyncio.Event()

        @batch(max_batch_size=3, batch_wait_timeout_s=NEVER_S)
        async def one_by_one(items: list[int]) -> AsyncIterator[list[Any]]:
            for finished in range(1, 4):
                go_on.clear()
                yield [stop] * finished + items[finished:]
                await go_on.wait()

        streams = [one_by_one(n) for n in range(3)]
        for n, stream in enumerate(streams):
            assert await all_of(stream) == [n] * n
            ended.append(n)
            go_on.set()

    run(main())
    assert ended == [0, 1, 2]


def test_a_step_arrives_before_the_next_is_made(run: Callable[..., Any]) -> None:
    told: list[Any] = []

    @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    async def never_waits(items: list[int]) -> AsyncIterator[list[int]]:
        for step in range(3):
            told.append(("made", step))
            yield [step] * len(items)

    async def read(stream: AsyncIterator[int]) -> None:
        async for step in stream:
            told.append(("read", step))

    async def main() -> None:
        await asyncio.gather(read(never_waits(1)), read(never_waits(2)))

    run(main())
    assert told == [(what, n) for n in range(3) for what in ("made", "read", "read")]


def test_values_that_compare_by_element(run: Callable[..., Any]) -> None:
    np = pytest.importorskip("numpy")

    @batch(max_batch_size=1)
    async def rows(items: list[int]) -> AsyncIterator[Any]:
        yield np.ones((len(items), 3))

    async def main() -> None:
        (row,) = await all_of(rows(1))
        assert row.tolist() == [1.0, 1.0, 1.0]

    run(main())


@pytest.mark.parametrize("way", ["raised", "length", "no list"])
def test_an_error_comes_after_the_steps_before_it(run: Callable[..., Any], way: str) -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    async def breaking(items: list[int]) -> AsyncIterator[Any]:
        yield items
        yield items
        if way == "raised":
            raise LookupError("broken")
        yield items * 2 if way == "length" else None

    async def main() -> None:
        errors = []
        for stream in [breaking(0), breaking(1)]:
            assert await stream.__anext__() == await stream.__anext__()
            with pytest.raises(LookupError if way == "raised" else RayServeException) as caught:
                await stream.__anext__()
            errors.append(caught.value)
            with pytest.raises(StopAsyncIteration):
                await stream.__anext__()
        assert errors[0] is not errors[1]

    run(main())


def test_an_error_before_the_first_step(run: Callable[..., Any]) -> None:
    @batch(max_batch_size=1)
    async def failing(items: list[int]) -> AsyncIterator[list[int]]:
        raise LookupError("no step")
        yield items

    async def main() -> None:
        with pytest.raises(LookupError):
            await all_of(failing(1))
        with pytest.raises(TypeError):
            failing(1, 2)

    run(main())


def test_a_cancelled_reader_that_waits_for_its_batch(run: Callable[..., Any]) -> None:
    async def main() -> None:
        count = counting(3)
        lonely = asyncio.create_task(count(1, 2).__anext__())
        await auntil(lambda: count._free.stats.pending == 1)
        lonely.cancel()
        with pytest.raises(asyncio.CancelledError):
            await lonely
        await auntil(lambda: count._free.stats.pending == 0)
        left = count(1, 2)
        await left.aclose()
        await auntil(lambda: count._free.stats.pending == 0)
        both = await asyncio.gather(all_of(count(1, 2)), all_of(count(3, 4)))
        assert [len(steps) for steps in both] == [3, 3]

    run(main())


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="drops at once")
def test_an_iterator_that_is_dropped_frees_its_place(run: Callable[..., Any]) -> None:
    async def main() -> None:
        count = counting(3)
        count(1, 2)
        gc.collect()
        await auntil(lambda: count._free.stats.pending == 0)
        both = await asyncio.gather(all_of(count(1, 2)), all_of(count(3, 4)))
        assert [len(steps) for steps in both] == [3, 3]

    run(main())


def test_the_handler_stops_when_nobody_reads_any_more(run: Callable[..., Any]) -> None:
    async def main() -> None:
        stopped, go_on = asyncio.Event(), asyncio.Event()
        steps = 0

        @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
        async def endless(items: list[int]) -> AsyncIterator[list[int]]:
            nonlocal steps
            try:
                while True:
                    steps += 1
                    yield items
                    await go_on.wait()
            finally:
                stopped.set()

        first, second = endless(1), endless(2)
        assert await first.__anext__() == 1
        await first.aclose()
        go_on.set()
        for _ in range(5):
            assert await second.__anext__() == 2
        assert not stopped.is_set()
        await second.aclose()
        await asyncio.wait_for(stopped.wait(), 20)
        assert steps >= 5

    run(main())


def test_setters_while_a_batch_streams(run: Callable[..., Any]) -> None:
    async def main() -> None:
        count = counting(3)
        old = [count(1, 2), count(3, 4)]
        for stream in old:
            await stream.__anext__()
        count.set_max_batch_size(3)
        new = [count(n, n) for n in range(3)]
        assert [len(steps) for steps in await asyncio.gather(*map(all_of, old))] == [2, 2]
        assert [len(steps) for steps in await asyncio.gather(*map(all_of, new))] == [3, 3, 3]

    run(main())


def test_sizes_with_steps(run: Callable[..., Any]) -> None:
    batches: list[list[int]] = []

    @batch(max_batch_size=10, batch_wait_timeout_s=0.001, batch_size_fn=sum)
    async def twice(items: list[int]) -> AsyncIterator[list[int]]:
        batches.append(items)
        yield items
        yield items

    async def main() -> None:
        streams = [twice(n) for n in (1, 6, 2, 5)]
        assert await asyncio.gather(*map(all_of, streams)) == [[n] * 2 for n in (1, 6, 2, 5)]
        with pytest.raises(RuntimeError, match="Size of item is greater"):
            twice(11)

    run(main())
    assert all(sum(items) <= 10 for items in batches)


def test_one_stream_may_be_read_after_the_other(run: Callable[..., Any]) -> None:
    async def main() -> None:
        count = counting(1000)
        for stream in [count(1, 2), count(3, 4)]:
            assert len(await all_of(stream)) == 1000

    run(main())


def test_a_closed_batcher_tells_its_callers(run: Callable[..., Any]) -> None:
    async def main() -> None:
        count = counting(3)
        waiting = asyncio.create_task(all_of(count(1, 2)))
        await auntil(lambda: count._free.stats.pending == 1)
        await count._free.aclose(drain=False)
        with pytest.raises(carpool.BatcherClosed):
            await waiting

    run(main())
