"""What type checkers make of loops of one's own, and of what every batcher has.

Read by mypy and pyright, never run: `make types`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from carpool import (
    AsyncBatchedFunction,
    Batch,
    BatchedFunction,
    Batcher,
    Future,
    Histogram,
    Stats,
    batched,
)

if TYPE_CHECKING:
    from typing_extensions import assert_type


async def calls(batcher: Batcher[str, int]) -> None:
    assert_type(batcher("a"), int)
    assert_type(await batcher.acall("a"), int)
    assert_type(await asyncio.create_task(batcher.acall("a")), int)
    assert_type(batcher.submit("a"), Future[int])
    assert_type(batcher.submit("a").result(), int)
    assert_type(await batcher.submit("a"), int)
    assert_type(await batcher.options(priority=1).acall("a"), int)


def loop(batcher: Batcher[str, int]) -> None:
    for batch in batcher:
        assert_type(batch, Batch[str, int])
        assert_type(batch.items, list[str])
        assert_type(len(batch), int)
        assert_type(batch.waited_ms, float)
        assert_type(batch.done, bool)
        reason: str = batch.reason
        print(reason)
        batch.complete([len(item) for item in batch.items])
        batch.complete(tuple(len(item) for item in batch.items))
        slots: list[int | Exception] = [1, ValueError("a")]
        batch.complete(slots)
        batch.set(0, 1)
        for index, slot in enumerate(slots):
            batch.set(index, slot)
        batch.fail_item(1, ValueError("a"))
        batch.fail(ValueError("a"))


async def aloop(batcher: Batcher[str, int]) -> None:
    async for batch in batcher:
        assert_type(batch, Batch[str, int])
    assert_type(await batcher.anext_batch(), Batch[str, int] | None)
    assert_type(await batcher.anext_batch(max_size=8), Batch[str, int] | None)


def pulled(batcher: Batcher[str, int]) -> None:
    assert_type(batcher.next_batch(), Batch[str, int] | None)
    assert_type(batcher.next_batch(max_size=8, block=False), Batch[str, int] | None)
    assert_type(batcher.next_batch(timeout=0.5), Batch[str, int] | None)


def made() -> None:
    annotated: Batcher[str, int] = Batcher(max_batch_size=8, wait_ms=1.5)
    subscripted = Batcher[str, int](max_queue=10, overflow="wait", name="lengths")
    assert_type(annotated.submit("a"), Future[int])
    assert_type(subscripted, Batcher[str, int])
    scheduled = Batcher[str, int](
        max_batch_cost=100, cost=len, key=str.lower, timeout_ms=50, age_ms=10
    )
    assert_type(scheduled.options(priority=-1)("a"), int)
    similar = Batcher[str, int](
        overflow="shed",
        max_batch_cost=100,
        padded_cost=True,
        look_ahead=8,
        length=len,
        length_window=4,
    )
    assert_type(similar.options(length=3)("a"), int)
    similar.configure(look_ahead=2, length_window=3)
    assert_type(scheduled.options(timeout_ms=None, cost=3, key="a").submit("a"), Future[int])
    assert_type(scheduled.options(key=str.lower).options(cost=len)("a"), int)


def managed(batcher: Batcher[str, int]) -> None:
    with batcher as entered:
        assert_type(entered, Batcher[str, int])
    with Batcher[str, int]() as fresh:
        assert_type(fresh("a"), int)


@batched
def length(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@batched
async def alength(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


async def ended(batcher: Batcher[str, int]) -> None:
    assert_type(batcher.close(), bool)
    assert_type(batcher.close(drain=False, timeout=1.5), bool)
    assert_type(await batcher.aclose(drain=True, timeout=None), bool)
    assert_type(length.close(drain=True, timeout=5), bool)
    assert_type(await length.aclose(), bool)
    assert_type(alength.close(drain=False), bool)
    assert_type(await alength.aclose(timeout=1), bool)
    with length as entered:
        assert_type(entered, BatchedFunction[[str], int])
    async with alength as aentered:
        assert_type(aentered, AsyncBatchedFunction[[str], int])
    async with batcher as bentered:
        assert_type(bentered, Batcher[str, int])


def seen(batcher: Batcher[str, int]) -> None:
    assert_type(batcher.name, str)
    assert_type(batcher.healthy, bool)
    assert_type(batcher.stats, Stats)
    batcher.flush()
    assert_type(length.name, str)
    assert_type(length.healthy, bool)
    assert_type(length.stats, Stats)
    assert_type(length.__name__, str)
    length.flush()
    assert_type(alength.stats.batches, int)
    alength.flush()


def figures(stats: Stats) -> None:
    assert_type(stats.submitted, int)
    assert_type(stats.answered, int)
    assert_type(stats.failed, int)
    assert_type(stats.cancelled, int)
    assert_type(stats.rejected, int)
    assert_type(stats.pending, int)
    assert_type(stats.in_flight, int)
    assert_type(stats.batches, int)
    reasons: Mapping[str, int] = stats.reasons
    print(reasons)
    assert_type(stats.batch_sizes, Histogram)
    assert_type(stats.wait_ms, Histogram)
    assert_type(stats.run_ms, Histogram)
    assert_type(stats.run_ms.count, int)
    assert_type(stats.run_ms.mean, float)
    assert_type(stats.run_ms.min, float)
    assert_type(stats.run_ms.max, float)
    assert_type(stats.run_ms.percentile(99.9), float)
    assert_type(stats.run_ms.p50, float)
    assert_type(stats.run_ms.p90, float)
    assert_type(stats.run_ms.p99, float)
