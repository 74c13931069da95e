"""Statistics: a frozen snapshot in which every request is accounted for."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from carpool import Batcher, BatcherClosed, Histogram, QueueFull, Stats, batched
from gates import Gate, batched_by, identity, in_thread, let_pass

COUNTERS = (
    "submitted",
    "answered",
    "failed",
    "cancelled",
    "rejected",
    "pending",
    "in_flight",
    "batches",
)
REASONS = {"full", "wait", "cost", "idle", "gather", "flush", "close", "target"}


def counts(stats: Stats) -> dict[str, int]:
    return {name: getattr(stats, name) for name in COUNTERS if getattr(stats, name)}


def test_before_anything() -> None:
    for stats in (batched(lambda items: items).stats, unused()):
        assert isinstance(stats, Stats)
        assert counts(stats) == {}
        assert sum(stats.reasons.values()) == 0
        for histogram in (stats.batch_sizes, stats.wait_ms, stats.run_ms):
            assert isinstance(histogram, Histogram)
            assert histogram.count == 0
            histogram.percentile(50)  # a number or nan, but no error


def unused() -> Stats:
    with Batcher() as b:
        return b.stats


def test_it_is_a_frozen_snapshot() -> None:
    f = batched(lambda items: items)
    before = f.stats
    f(1)
    assert before.submitted == 0
    assert f.stats.submitted == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.submitted = 5  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.wait_ms.count = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        before.reasons["idle"] = 5  # type: ignore[index]
    assert isinstance(before.reasons, Mapping)
    for name in COUNTERS:
        assert type(getattr(before, name)) is int
    assert set(f.stats.reasons) <= REASONS


def test_each_request_moves_through_the_counters(gate: Gate) -> None:
    def handler(items: list[Any]) -> list[Any]:
        return [LookupError(item) if item == "bad" else item for item in gate.run(items) and items]

    f = batched(handler, max_queue=4)
    first = f.submit("first")
    gate.entered()
    assert counts(f.stats) == {"submitted": 1, "in_flight": 1, "batches": 1}
    pending = [f.submit(item) for item in ("good", "bad", "gone", "good")]
    assert counts(f.stats) == {"submitted": 5, "in_flight": 1, "pending": 4, "batches": 1}
    with pytest.raises(QueueFull):
        f.submit("refused")
    assert counts(f.stats) == {
        "submitted": 6,
        "in_flight": 1,
        "pending": 4,
        "rejected": 1,
        "batches": 1,
    }
    pending[2].cancel()
    assert counts(f.stats) == {
        "submitted": 6,
        "in_flight": 1,
        "pending": 3,
        "rejected": 1,
        "cancelled": 1,
        "batches": 1,
    }
    gate.release()
    gate.entered(2)
    first.result(20)
    assert counts(f.stats) == {
        "submitted": 6,
        "answered": 1,
        "in_flight": 3,
        "rejected": 1,
        "cancelled": 1,
        "batches": 2,
    }
    gate.open()
    pending[3].result(20)
    f.close()
    assert counts(f.stats) == {
        "submitted": 6,
        "answered": 3,
        "failed": 1,
        "rejected": 1,
        "cancelled": 1,
        "batches": 2,
    }
    assert dict(f.stats.reasons).get("idle") == 2


def test_what_was_told_by_then_is_counted_by_then(way: str) -> None:
    async def main() -> None:
        f = batched_by(way, lambda items: [LookupError() if item < 0 else item for item in items])
        for number in range(1, 50):
            await f.acall(number)
            assert f.stats.answered == number
        with pytest.raises(LookupError):
            await f.acall(-1)
        assert (f.stats.failed, f.stats.in_flight, f.stats.pending) == (1, 0, 0)

    asyncio.run(main())


def test_after_closing_nothing_is_left_open(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=1)
    f.submit("running")
    gate.entered()
    for number in range(5):
        f.submit(number)
    closing = in_thread(lambda: f.close(drain=False))
    gate.open()
    assert closing.result(20)
    with pytest.raises(BatcherClosed):
        f.submit("late")
    stats = f.stats
    assert stats.pending == stats.in_flight == 0
    assert stats.answered == 1
    assert identity(stats)


@pytest.mark.parametrize(
    ("options", "steps", "expected"),
    [
        ({}, "s p", ["idle"]),
        ({"max_batch_size": 2}, "s s s p p", ["full", "idle"]),
        ({"wait_ms": 3_600_000}, "s f p s s c p", ["flush", "close"]),
        ({"wait_ms": 3_600_000, "max_batch_size": 1}, "s p", ["full"]),
        ({"wait_ms": 1}, "s w p", ["wait"]),
    ],
)
def test_reasons(options: dict[str, Any], steps: str, expected: list[str]) -> None:
    b: Batcher[int, int] = Batcher(**options)
    reasons = []
    closing = None
    for step in steps.split():
        if step == "s":
            b.submit(1)
        elif step == "f":
            b.flush()
        elif step == "w":
            let_pass(0.002, since=time.monotonic())
        elif step == "c":
            closing = in_thread(b.close)
        else:
            batch = b.next_batch()
            reasons.append(batch.reason)
            batch.complete([1] * len(batch))
    assert reasons == expected
    assert {reason: number for reason, number in b.stats.reasons.items() if number} == {
        one: expected.count(one) for one in expected
    }
    assert b.stats.batches == len(expected)
    if closing:
        assert closing.result(20)
    b.close()


def test_the_histogram_of_batch_sizes_is_exact_at_its_ends() -> None:
    with Batcher(max_batch_size=1000) as b:
        sizes = [1, 1, 2, 3, 5, 8, 13, 100, 1000]
        for size in sizes:
            for number in range(size):
                b.submit(number)
            b.next_batch().complete([0] * size)
        histogram = b.stats.batch_sizes
        assert histogram.count == len(sizes)
        assert (histogram.min, histogram.max) == (1, 1000)
        assert histogram.mean == pytest.approx(sum(sizes) / len(sizes), rel=0.01)


def test_percentiles_rise_stay_inside_and_hit_their_mark() -> None:
    with Batcher(max_batch_size=100) as b:
        for size in range(1, 101):
            for number in range(size):
                b.submit(number)
            b.next_batch().complete([0] * size)
        histogram = b.stats.batch_sizes
        marks = [histogram.percentile(percent) for percent in range(101)]
        assert marks == sorted(marks)
        assert all(histogram.min <= mark <= histogram.max for mark in marks)
        assert histogram.percentile(100) == histogram.max == 100
        assert (histogram.p50, histogram.p90, histogram.p99) == tuple(
            histogram.percentile(p) for p in (50, 90, 99)
        )
        for percent in (25, 50, 75, 90, 99):
            assert histogram.percentile(percent) == pytest.approx(percent, rel=0.1, abs=1.5)
        assert isinstance(histogram.percentile(99.9), float)


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan")])
def test_a_percentile_outside_its_range(percent: float) -> None:
    f = batched(lambda items: items)
    f(1)
    with pytest.raises(ValueError, match="100"):
        f.stats.batch_sizes.percentile(percent)


def test_waits_and_runs_are_measured_in_milliseconds(gate: Gate) -> None:
    f = batched(gate.handler)
    first = f.submit("first")
    gate.entered()
    started = time.monotonic()
    waited = f.submit("waited")
    let_pass(0.025, since=time.monotonic())
    gate.open()
    first.result(20)
    waited.result(20)
    f.close()
    elapsed = (time.monotonic() - started) * 1000 + 1000
    stats = f.stats
    assert stats.wait_ms.count >= 2
    assert stats.run_ms.count == 2
    assert 25 * 0.9 <= stats.wait_ms.max <= elapsed  # at least what the second one waited
    assert 25 * 0.9 <= stats.run_ms.max <= elapsed  # at least what the first one was held
    assert 0 <= stats.run_ms.min <= stats.run_ms.mean <= stats.run_ms.max


def test_every_snapshot_taken_under_load_adds_up(run: Callable[..., Any]) -> None:
    stop = threading.Event()

    @batched(max_batch_size=7, max_queue=40)
    def f(items: list[int]) -> list[Any]:
        return [LookupError() if item % 5 == 0 else item for item in items]

    def hammer(base: int) -> None:
        number = base
        while not stop.is_set():
            number += 1
            try:
                future = f.submit(number)
            except QueueFull:
                continue
            if number % 3 == 0:
                future.cancel()
            elif number % 50 == 0:
                future.exception(20)

    def watch() -> int:
        last = f.stats
        for _ in range(1500):
            stats = f.stats
            assert identity(stats), stats
            assert 0 <= stats.pending <= 40
            assert 0 <= stats.in_flight <= 7
            for name in ("submitted", "answered", "failed", "cancelled", "rejected", "batches"):
                assert getattr(stats, name) >= getattr(last, name)
            last = stats
        return last.submitted

    async def loop() -> None:
        while not stop.is_set():
            await asyncio.gather(*[f.acall(number) for number in range(10)], return_exceptions=True)

    callers = [in_thread(hammer, base) for base in (0, 10**6)] + [
        in_thread(lambda: run(quiet(loop)))
    ]
    watching = [in_thread(watch) for _ in range(2)]
    try:
        submitted = [watcher.result(40) for watcher in watching]
    finally:
        stop.set()
    for caller in callers:
        caller.result(20)
    assert f.close(timeout=20)
    final = f.stats
    assert final.submitted >= max(submitted) > 0
    assert identity(final)
    assert final.pending == final.in_flight == 0
    assert sum(final.reasons.values()) == final.batches == final.batch_sizes.count


async def quiet(loop: Callable[[], Any]) -> None:
    """A full queue is part of the game."""
    while True:
        try:
            return await loop()
        except QueueFull:
            await asyncio.sleep(0)


def test_statistics_of_a_closed_one_remain() -> None:
    f = batched(lambda items: items)
    f(1)
    f.close()
    assert counts(f.stats) == {"submitted": 1, "answered": 1, "batches": 1}
