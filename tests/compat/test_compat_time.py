"""Front doors `batched` and `ray_serve`: what they decide by time, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carpool.compat import batched
from carpool.compat.batched import aio, inference
from carpool.compat.batched.types import PriorityStrategy
from carpool.compat.ray_serve import batch
from carpool.testing import ManualClock
from gates import Gate, auntil, in_thread, until


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    with ManualClock() as moved:
        yield moved


# ------------------------------------------------------------------------------------- batched


@pytest.mark.parametrize("item", [7, [7, 8]], ids=["one", "list"])
def test_batched_waits_from_arrival(clock: ManualClock, item: Any) -> None:
    echo = batched.dynamically(batch_size=4, timeout_ms=50)(lambda items: items)
    call = in_thread(echo, item)
    until(lambda: echo.stats.queue_size > 0)
    clock.advance(ms=49.9)
    assert echo.stats.queue_size > 0
    clock.advance(ms=0.1)
    assert call.result(20) == item


def test_batched_has_waited_while_the_worker_was_busy(clock: ManualClock, gate: Gate) -> None:
    held = batched.dynamically(batch_size=2, timeout_ms=50)(lambda items: gate.run(items))
    first = in_thread(held, ["a", "b"])
    gate.entered()
    second = in_thread(held, "c")
    until(lambda: held.stats.queue_size == 1)
    clock.advance(ms=50)
    assert len(gate.batches) == 1
    gate.open()
    first.result(20)
    # Not another 50 ms from when the worker was free.
    assert second.result(20) == ("answer", "c")


@pytest.mark.parametrize("later_ms", [0, 1001])
def test_batched_lets_a_large_call_be_passed_for_a_second(
    clock: ManualClock, gate: Gate, later_ms: float
) -> None:
    held = batched.dynamically(batch_size=1, timeout_ms=0, small_batch_threshold=1)(
        lambda items: gate.run(items)
    )
    calls = [in_thread(held, "first")]
    gate.entered()
    calls.append(in_thread(held, ["large 1", "large 2"]))
    until(lambda: held.stats.queue_size == 2)
    clock.advance(ms=later_ms)
    calls.append(in_thread(held, "small"))
    until(lambda: held.stats.queue_size == 3)
    gate.open()
    for call in calls:
        call.result(20)
    assert gate.items[1] == ("large 1" if later_ms else "small")


@pytest.mark.parametrize("later_ms", [0, 1001])
@pytest.mark.parametrize("strategy", [PriorityStrategy.PRIORITY, PriorityStrategy.LENGTH])
def test_aio_lets_a_large_call_be_passed_for_a_second(
    run: Callable[..., Any],
    clock: ManualClock,
    gate: Gate,
    strategy: PriorityStrategy,
    later_ms: float,
) -> None:
    held = aio.dynamically(
        batch_size=1, timeout_ms=0, small_batch_threshold=1, priority_strategy=strategy
    )(gate.ahandler)

    async def main() -> None:
        calls: list[Any] = [asyncio.create_task(held("first"))]
        await gate.aentered()
        calls.append(asyncio.create_task(held(["a", "bb"])))
        await auntil(lambda: held.stats.queue_size == 2)
        clock.advance(ms=later_ms)
        calls.append(asyncio.create_task(held("small")))
        await auntil(lambda: held.stats.queue_size == 3)
        gate.open()
        await asyncio.gather(*calls)

    run(main())
    large = ["bb", "a"] if strategy is PriorityStrategy.LENGTH else ["a", "bb"]
    assert gate.items[1] == (large[0] if later_ms else "small")


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_aio_waits_from_arrival(run: Callable[..., Any], clock: ManualClock, kind: str) -> None:
    async def aecho(items: list[int]) -> list[int]:
        return items

    echo: Any = aio.dynamically(batch_size=4, timeout_ms=50)(
        aecho if kind == "async def" else lambda items: items
    )

    async def main() -> None:
        calls = [asyncio.create_task(echo(1))]
        await auntil(lambda: echo.stats.queue_size == 1)
        clock.advance(ms=30)
        calls.append(asyncio.create_task(echo([2, 3])))
        await auntil(lambda: echo.stats.queue_size == 3)
        clock.advance(ms=19.9)
        assert echo.stats.queue_size == 3
        clock.advance(ms=0.1)
        assert await asyncio.gather(*calls) == [1, [2, 3]]
        assert echo.stats.total_batches == 1

    run(main())


def test_inference_waits_from_arrival(clock: ManualClock) -> None:
    np = pytest.importorskip("numpy")
    model = inference.dynamically(batch_size=4, timeout_ms=50)(lambda features: features["x"])
    calls = [in_thread(model, {"x": np.ones((1, 2))})]
    until(lambda: model.stats.queue_size == 1)
    clock.advance(ms=49.9)
    calls.append(in_thread(model, {"x": np.ones((2, 2))}))
    until(lambda: model.stats.queue_size == 3)
    clock.advance(ms=0.1)
    assert [len(call.result(20)) for call in calls] == [1, 2]
    assert model.stats.total_batches == 1


# ----------------------------------------------------------------------------------- Ray Serve


@pytest.mark.parametrize("streams", [False, True])
def test_ray_serve_waits_from_arrival(
    run: Callable[..., Any], clock: ManualClock, streams: bool
) -> None:
    sizes: list[int] = []

    @batch(max_batch_size=4, batch_wait_timeout_s=0.05)
    async def echo(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    @batch(max_batch_size=4, batch_wait_timeout_s=0.05)
    async def steps(items: list[int]) -> Any:
        sizes.append(len(items))
        yield items

    made: Any = steps if streams else echo

    async def call(item: int) -> int:
        if streams:
            (answer,) = [step async for step in made(item)]
            return answer  # type: ignore[no-any-return]
        return await made(item)  # type: ignore[no-any-return]

    async def main() -> None:
        calls = [asyncio.create_task(call(1))]
        await auntil(lambda: made._free.stats.pending == 1)
        clock.advance(ms=49.9)
        calls.append(asyncio.create_task(call(2)))
        await auntil(lambda: made._free.stats.pending == 2)
        assert sizes == []
        clock.advance(ms=0.1)
        assert await asyncio.gather(*calls) == [1, 2]

    run(main())
    assert sizes == [2]


def test_ray_serve_has_waited_while_a_batch_ran(
    run: Callable[..., Any], clock: ManualClock, gate: Gate
) -> None:
    held = batch(max_batch_size=2, batch_wait_timeout_s=0.05)(gate.ahandler)

    async def main() -> None:
        calls = [asyncio.create_task(held(n)) for n in range(2)]
        await gate.aentered()
        calls.append(asyncio.create_task(held(2)))
        await auntil(lambda: held._free.stats.pending == 1)
        clock.advance(ms=50)
        gate.open()
        assert await asyncio.gather(*calls) == [("answer", n) for n in range(3)]

    run(main())
    assert gate.batches == [[0, 1], [2]]


def test_ray_serve_waits_as_long_as_was_set(run: Callable[..., Any], clock: ManualClock) -> None:
    class Some:
        @batch(max_batch_size=4, batch_wait_timeout_s=0.05)
        async def echo(self, items: list[int]) -> list[int]:
            return items

    method: Any = Some.echo

    async def main() -> None:
        some: Any = Some()
        first = asyncio.create_task(some.echo(1))
        stats = method._method.__get__(some)
        await auntil(lambda: stats.stats.pending == 1)
        clock.advance(ms=50)
        assert await first == 1
        some.echo.set_batch_wait_timeout_s(0.2)
        second = asyncio.create_task(some.echo(2))
        await auntil(lambda: stats.stats.pending == 1)
        clock.advance(ms=199.9)
        assert not second.done()
        clock.advance(ms=0.1)
        assert await second == 2
        some.echo.set_batch_wait_timeout_s(0)
        assert await some.echo(3) == 3

    run(main())
