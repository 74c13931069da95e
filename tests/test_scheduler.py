"""Scheduler: when a batch is sealed, and what is in it (late sealing, the wait, FIFO)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, batched
from gates import WAYS, Gate, batched_by, let_pass

HOUR_MS = 3_600_000


# -- late sealing ------------------------------------------------------------------------------


def test_while_the_only_slot_is_busy_all_arrivals_become_one_batch(
    way: str, new_gate: Callable[..., Gate]
) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched_by(way, gate, wait_ms=0)
        first = f.acall("first")
        await gate.aentered()
        calls = [f.acall(number) for number in range(20)]
        assert f.stats.pending == 20
        gate.open()
        assert await asyncio.gather(first, *calls) == [
            ("answer", item) for item in ["first", *range(20)]
        ]
        assert gate.batches == [["first"], list(range(20))]

    asyncio.run(main())


def test_a_batch_is_not_sealed_by_its_wait_while_the_slot_is_busy(gate: Gate) -> None:
    f = batched(gate.handler, wait_ms=1)
    first = f.submit("first")
    gate.entered()
    futures = []
    for number in range(5):  # each arrives after the wait of the one before is over
        arrived = time.monotonic()
        futures.append(f.submit(number))
        let_pass(0.003, since=arrived)
    gate.open()
    assert [future.result()[1] for future in [first, *futures]] == ["first", *range(5)]
    assert gate.batches == [["first"], list(range(5))]
    assert f.stats.reasons["wait"] == 2


def test_a_full_batch_is_not_sealed_while_the_slot_is_busy(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=4)
    f.submit("first")
    gate.entered()
    futures = [f.submit(number) for number in range(4)]
    assert futures[0].cancel()  # full, but still open: a place can be given up and taken
    late = f.submit("late")
    gate.open()
    late.result()
    assert gate.batches == [["first"], [1, 2, 3, "late"]]


# -- leaving at once ---------------------------------------------------------------------------


def test_a_lone_request_leaves_at_once_without_a_wait(way: str) -> None:
    async def main() -> None:
        f = batched_by(way, lambda items: items)
        assert await f.acall("lone") == "lone"
        assert dict(f.stats.reasons)["idle"] == 1
        assert sum(f.stats.reasons.values()) == 1

    asyncio.run(main())


def test_a_full_batch_does_not_wait(way: str) -> None:
    async def main() -> None:
        f = batched_by(way, lambda items: items, max_batch_size=3, wait_ms=HOUR_MS)
        assert await asyncio.gather(*[f.acall(number) for number in range(6)]) == list(range(6))
        assert f.stats.batches == 2
        assert f.stats.reasons["full"] == 2

    asyncio.run(main())


def test_the_one_that_fills_a_batch_that_is_waited_for_sends_it_off(gate: Gate) -> None:
    gate.open()
    f = batched(gate.handler, max_batch_size=3, wait_ms=HOUR_MS)
    futures = [f.submit(number) for number in range(2)]
    assert f.stats.batches == 0
    futures.append(f.submit(2))
    assert [future.result(20)[1] for future in futures] == [0, 1, 2]
    assert gate.batches == [[0, 1, 2]]


def test_a_batch_of_one_is_always_full() -> None:
    with Batcher(max_batch_size=1, wait_ms=HOUR_MS) as b:
        b.submit("a")
        b.submit("b")
        for expected in "ab":
            batch = b.next_batch(block=False)
            assert (batch.items, batch.reason) == ([expected], "full")
            batch.complete(["done"])


# -- the wait ----------------------------------------------------------------------------------


def test_nothing_leaves_before_its_wait_is_over() -> None:
    with Batcher(wait_ms=HOUR_MS) as b:
        b.submit("early")
        for _ in range(1000):
            assert b.next_batch(block=False) is None
        assert b.next_batch(timeout=0.01) is None
        assert b.stats.pending == 1
        b.close(drain=False)


@pytest.mark.parametrize("wait_ms", [0.5, 3, 20, 40.5])
def test_the_wait_is_never_cut_short(wait_ms: float) -> None:
    entered: list[float] = []

    def handler(items: list[Any]) -> list[Any]:
        entered.append(time.monotonic())
        return items

    f = batched(handler, wait_ms=wait_ms)
    for number in range(5):
        before = time.monotonic()
        f(number)
        assert entered[-1] - before >= wait_ms / 1000
    assert f.stats.reasons["wait"] == 5
    assert f.stats.wait_ms.min >= wait_ms


def test_the_wait_is_never_cut_short_on_a_loop(run: Callable[..., Any]) -> None:
    async def main() -> None:
        entered: list[float] = []

        @batched(wait_ms=7.5)
        async def f(items: list[int]) -> list[int]:
            entered.append(time.monotonic())
            return items

        for number in range(4):
            before = time.monotonic()
            await f(number)
            assert entered[-1] - before >= 0.0075
        assert f.stats.reasons["wait"] == 4

    run(main())


def test_the_wait_runs_from_the_arrival_not_from_the_free_slot() -> None:
    with Batcher(wait_ms=20) as b:
        before = time.monotonic()
        b.submit("a")
        let_pass(0.021, since=time.monotonic())
        batch = b.next_batch(block=False)  # nobody asked before, and yet it is due
        assert batch is not None
        assert (batch.items, batch.reason) == (["a"], "wait")
        assert 20 <= batch.waited_ms <= (time.monotonic() - before) * 1000
        batch.complete([None])


def test_the_wait_runs_from_the_oldest_not_from_the_newest() -> None:
    with Batcher(wait_ms=20) as b:
        b.submit("old")
        let_pass(0.021, since=time.monotonic())
        b.submit("new")
        batch = b.next_batch(block=False)
        assert batch is not None
        assert (batch.items, batch.reason) == (["old", "new"], "wait")
        batch.complete([None, None])


def test_when_the_oldest_is_cancelled_the_next_oldest_sets_the_time() -> None:
    with Batcher(wait_ms=60) as b:
        old = b.submit("old")
        let_pass(0.061, since=time.monotonic())
        b.submit("new")
        assert old.cancel()
        batch = b.next_batch(block=False)
        # Only a machine that stood still for 60 ms may bring it now, and then rightly so.
        assert batch is None or batch.waited_ms >= 60
        if batch is None:
            batch = b.next_batch()
        assert (batch.items, batch.reason) == (["new"], "wait")
        assert batch.waited_ms >= 60
        batch.complete([None])


def test_the_wait_of_those_left_over_counts_from_their_own_arrival() -> None:
    with Batcher(wait_ms=40, max_batch_size=2) as b:
        b.submit("a")
        let_pass(0.041, since=time.monotonic())
        b.submit("b")
        b.submit("c")
        first = b.next_batch(block=False)
        assert (first.items, first.reason) == (["a", "b"], "full")
        second = b.next_batch(block=False)
        assert second is None or second.waited_ms >= 40
        second = second or b.next_batch()
        assert (second.items, second.reason) == (["c"], "wait")
        assert second.waited_ms >= 40
        first.complete([1, 2])
        second.complete([3])


def test_a_slot_that_waits_is_given_the_batch_when_it_is_due(gate: Gate) -> None:
    gate.open()
    f = batched(gate.handler, wait_ms=15)
    futures = [f.submit(number) for number in range(3)]
    assert [future.result(20)[1] for future in futures] == [0, 1, 2]
    assert gate.batches == [[0, 1, 2]]
    assert dict(f.stats.reasons)["wait"] == 1


def test_a_wait_that_was_abandoned_by_cancellation_starts_anew_with_the_next(gate: Gate) -> None:
    gate.open()
    f = batched(gate.handler, wait_ms=10)
    for number in range(20):
        assert f.submit(number).cancel()
    before = time.monotonic()
    assert f("next") == ("answer", "next")
    assert time.monotonic() - before >= 0.010
    assert gate.batches == [["next"]]


# -- flush -------------------------------------------------------------------------------------


def test_flush_sends_off_what_is_pending_now() -> None:
    with Batcher(wait_ms=HOUR_MS) as b:
        b.submit("a")
        b.submit("b")
        b.flush()
        batch = b.next_batch(block=False)
        assert (batch.items, batch.reason) == (["a", "b"], "flush")
        batch.complete([1, 2])
        b.submit("c")
        assert b.next_batch(block=False) is None  # the flush was for those before it
        b.close(drain=False)


def test_flush_wakes_the_slot_that_waits(way: str) -> None:
    async def main() -> None:
        f = batched_by(way, lambda items: items, wait_ms=HOUR_MS)
        calls = [f.acall(number) for number in range(3)]
        f.flush()
        assert await asyncio.gather(*calls) == [0, 1, 2]
        assert dict(f.stats.reasons)["flush"] == f.stats.batches == 1

    asyncio.run(main())


def test_flush_of_more_than_a_batch_sends_all_of_it() -> None:
    with Batcher(wait_ms=HOUR_MS, max_batch_size=4) as b:
        for number in range(10):
            b.submit(number)
        b.flush()
        batches = [b.next_batch(block=False) for _ in range(3)]
        assert [batch.items for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert batches[-1].reason == "flush"
        assert b.next_batch(block=False) is None
        for batch in batches:
            batch.complete(batch.items)


def test_flush_with_nothing_pending_does_nothing(gate: Gate) -> None:
    f = batched(gate.handler, wait_ms=HOUR_MS)
    f.flush()
    future = f.submit("later")
    assert f.stats.pending == 1
    assert not future.done()
    f.flush()
    gate.open()
    assert future.result(20) == ("answer", "later")
    f.flush()
    assert f.stats.batches == 1


def test_flush_does_not_break_the_limit_of_slots(gate: Gate) -> None:
    f = batched(gate.handler, wait_ms=HOUR_MS)
    first = f.submit("first")
    f.flush()
    gate.entered()
    second = f.submit("second")
    f.flush()
    third = f.submit("third")
    f.flush()
    assert len(gate.batches) == 1
    gate.open()
    assert [future.result(20)[1] for future in (first, second, third)] == [
        "first",
        "second",
        "third",
    ]
    assert gate.most_running == 1


# -- size and order ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1, 2, 3, 32])
def test_no_batch_exceeds_its_size_and_none_is_smaller_than_need_be(
    way: str, size: int, new_gate: Callable[..., Gate]
) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched_by(way, gate, max_batch_size=size)
        calls = [f.acall("first")]
        await gate.aentered()
        calls += [f.acall(number) for number in range(100)]
        gate.open()
        await asyncio.gather(*calls)
        assert gate.items == ["first", *range(100)]
        full, rest = divmod(100, size)
        assert [len(batch) for batch in gate.batches[1:]] == [size] * full + [rest] * bool(rest)
        assert f.stats.reasons["full"] == full + (size == 1)

    asyncio.run(main())


def test_the_default_size_is_32(gate: Gate) -> None:
    f = batched(gate.handler)
    f.submit("first")
    gate.entered()
    futures = [f.submit(number) for number in range(40)]
    gate.open()
    futures[-1].result()
    assert [len(batch) for batch in gate.batches] == [1, 32, 8]


def test_cancelled_requests_leave_no_holes() -> None:
    with Batcher(max_batch_size=4) as b:
        futures = [b.submit(number) for number in range(12)]
        for number in (0, 1, 2, 5, 7, 11):
            assert futures[number].cancel()
        assert b.stats.pending == 6
        first, second = b.next_batch(block=False), b.next_batch(block=False)
        assert (first.items, first.reason) == ([3, 4, 6, 8], "full")
        assert (second.items, second.reason) == ([9, 10], "idle")
        first.complete(first.items)
        second.complete(second.items)


def test_no_batch_is_made_of_cancelled_requests_alone() -> None:
    with Batcher() as b:
        for future in [b.submit(number) for number in range(50)]:
            future.cancel()
        assert b.next_batch(block=False) is None
        assert b.next_batch(timeout=0.01) is None
        assert b.stats.batches == 0
        b.submit("live")
        batch = b.next_batch()
        assert batch.items == ["live"]
        batch.complete([1])


def test_a_cancelled_request_does_not_make_a_batch_full() -> None:
    with Batcher(max_batch_size=2, wait_ms=HOUR_MS) as b:
        gone = b.submit("gone")
        b.submit("a")
        assert gone.cancel()
        assert b.next_batch(block=False) is None
        b.submit("b")
        batch = b.next_batch(block=False)
        assert (batch.items, batch.reason) == (["a", "b"], "full")
        batch.complete([1, 2])
