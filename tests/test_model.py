"""A batcher against a plain model of it: any sequence of steps, and random storms of callers."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from carpool import (
    AlreadyAnswered,
    BatchAbandoned,
    Batcher,
    BatcherClosed,
    BatchLengthError,
    QueueFull,
    batched,
)
from gates import WAYS, batched_by, identity, in_thread

SIZE, ROOM = 4, 9
SEEDS = [int(seed) for seed in os.environ.get("CARPOOL_SEEDS", "1 2 3").split()]


class Model(RuleBasedStateMachine):
    """Plain lists beside a real batcher. Nothing waits here, so every step has one right outcome."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.b: Any = Batcher(max_batch_size=SIZE, max_queue=ROOM)
        self.number = 0
        self.futures: dict[int, Any] = {}
        self.pending: list[int] = []
        self.out: list[dict[str, Any]] = []
        self.expected: dict[int, Any] = {}
        self.rejected = self.batches = 0
        self.open = True

    @precondition(lambda self: self.open)
    @rule()
    def submit(self) -> None:
        self.number += 1
        if len(self.pending) == ROOM:
            with pytest.raises(QueueFull):
                self.b.submit(self.number)
            self.rejected += 1
            return
        self.futures[self.number] = self.b.submit(self.number)
        self.pending.append(self.number)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if not self.futures:
            return
        number = data.draw(st.sampled_from(sorted(self.futures)))
        could = number in self.pending
        assert self.futures[number].cancel() is (could or self.expected.get(number) == "cancelled")
        if could:
            self.pending.remove(number)
            self.expected[number] = "cancelled"

    @rule(target=taken, most=st.sampled_from([None, 1, 2, 100]))
    def take(self, most: int | None) -> Any:
        batch = self.b.next_batch(max_size=most, block=False)
        items = self.pending[: min(most or SIZE, SIZE)]
        del self.pending[: len(items)]
        if not items:
            assert batch is None
            return {"batch": None, "open": []}
        assert batch.items == items
        self.batches += 1
        entry = {"batch": batch, "items": items, "open": list(items)}
        self.out.append(entry)
        return entry

    def settle(self, entry: dict[str, Any], outcomes: dict[int, Any]) -> None:
        for number, outcome in outcomes.items():
            self.expected[number] = outcome
            entry["open"].remove(number)

    @rule(entry=taken, kind=st.sampled_from(["results", "errors", "mixed"]))
    def complete(self, entry: dict[str, Any], kind: str) -> None:
        batch = entry["batch"]
        if batch is None or entry["open"] != entry["items"]:
            return
        bad = {
            number: kind == "errors" or (kind == "mixed" and number % 2 == 0)
            for number in entry["items"]
        }
        batch.complete(
            [LookupError(number) if bad[number] else -number for number in entry["items"]]
        )
        self.settle(
            entry, {number: LookupError if bad[number] else -number for number in entry["items"]}
        )

    @rule(entry=taken, place=st.integers(0, SIZE), good=st.booleans())
    def answer_one(self, entry: dict[str, Any], place: int, good: bool) -> None:
        batch = entry["batch"]
        if batch is None:
            return
        act: Callable[[], Any] = (
            (lambda: batch.set(place, -place))
            if good
            else (lambda: batch.fail_item(place, KeyError(place)))
        )
        if place >= len(entry["items"]):
            with pytest.raises(IndexError):
                act()
        elif entry["items"][place] not in entry["open"]:
            with pytest.raises(AlreadyAnswered):
                act()
        else:
            act()
            self.settle(entry, {entry["items"][place]: -place if good else KeyError})

    @rule(entry=taken)
    def fail_all(self, entry: dict[str, Any]) -> None:
        batch = entry["batch"]
        if batch is None or entry["open"] != entry["items"]:
            return
        batch.fail(OSError("all"))
        self.settle(entry, dict.fromkeys(entry["items"], OSError))

    @rule(entry=taken, by=st.sampled_from([-1, 1]))
    def complete_wrongly(self, entry: dict[str, Any], by: int) -> None:
        batch = entry["batch"]
        if batch is None or not entry["open"]:
            return
        with pytest.raises(BatchLengthError):
            batch.complete([0] * (len(entry["items"]) + by))
        self.settle(entry, dict.fromkeys(list(entry["open"]), BatchLengthError))

    @rule(entry=taken)
    def drop(self, entry: dict[str, Any]) -> None:
        entry["batch"] = None
        gc.collect()
        self.settle(entry, dict.fromkeys(list(entry["open"]), BatchAbandoned))

    @rule()
    def flush(self) -> None:
        self.b.flush()

    @rule()
    def close_without_draining(self) -> None:
        outstanding = any(entry["open"] for entry in self.out)
        assert self.b.close(drain=False, timeout=0) is not outstanding
        self.open = False
        self.expected.update(dict.fromkeys(self.pending, BatcherClosed))
        self.pending.clear()
        with pytest.raises(BatcherClosed):
            self.b.submit(0)

    @invariant()
    def every_future_shows_its_outcome(self) -> None:
        for number, future in self.futures.items():
            expected = self.expected.get(number)
            assert future.done() is (number in self.expected)
            assert future.running() is (number not in self.expected and number not in self.pending)
            if expected == "cancelled":
                assert future.cancelled()
            elif isinstance(expected, type):
                assert type(future.exception(0)) is expected
            elif expected is not None:
                assert future.result(0) == expected

    @invariant()
    def the_statistics_agree(self) -> None:
        stats = self.b.stats
        assert identity(stats)
        outcomes = list(self.expected.values())
        assert stats.pending == len(self.pending)
        assert stats.in_flight == sum(len(entry["open"]) for entry in self.out)
        assert stats.cancelled == outcomes.count("cancelled")
        assert stats.answered == sum(isinstance(outcome, int) for outcome in outcomes)
        assert stats.batches == stats.batch_sizes.count == self.batches
        if self.open:
            assert stats.failed == sum(isinstance(outcome, type) for outcome in outcomes)
            assert stats.rejected == self.rejected
            assert stats.submitted == self.number

    @invariant()
    def its_batches_say_when_they_are_done(self) -> None:
        for entry in self.out:
            if entry["batch"] is not None:
                assert entry["batch"].done is (not entry["open"])

    def teardown(self) -> None:
        self.b.close(drain=False, timeout=0)


Model.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestModel = Model.TestCase


# -- storms ------------------------------------------------------------------------------------


def right(item: int, outcome: Any) -> bool:
    """Whether it is this item's own answer, or this item's own error."""
    if item % 11 == 0:
        return type(outcome) is LookupError and outcome.args == (item,)
    return bool(outcome == ("answer", item))


def outcome_of_call(f: Any, item: int) -> Any:
    try:
        return f(item)
    except LookupError as error:
        return error


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_of_awaiting_callers(way: str, seed: int, run: Callable[..., Any]) -> None:
    """Each gets its own answer or its own error, among cancellations, at random sizes and waits."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    seen: list[int] = []
    options = {
        "max_batch_size": chance.choice([1, 3, 16]),
        "wait_ms": chance.choice([0, 0.3, 1]),
        "max_concurrent_batches": chance.choice([1, 3]),
    }

    def handler(items: list[int]) -> list[Any]:
        assert len(items) <= options["max_batch_size"]
        seen.extend(items)
        if any(item % 101 == 0 for item in items):
            raise ArithmeticError(items)
        return [LookupError(item) if item % 11 == 0 else ("answer", item) for item in items]

    async def main() -> None:
        f = batched_by(way, handler, **options)
        cancelled = 0

        async def caller(item: int) -> Any:
            return await (f.acall(item) if item % 2 else f.submit(item))

        async def round_of(first: int) -> None:
            nonlocal cancelled
            callers = {
                item: asyncio.ensure_future(caller(item)) for item in range(first, first + 40)
            }
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            for item in chance.sample(sorted(callers), 8):
                callers[item].cancel()
            for item, one in callers.items():
                (outcome,) = await asyncio.gather(one, return_exceptions=True)
                if isinstance(outcome, asyncio.CancelledError):
                    cancelled += 1
                elif isinstance(outcome, ArithmeticError):  # of the whole batch it was in
                    assert item in outcome.args[0]
                    assert any(number % 101 == 0 for number in outcome.args[0])
                else:
                    assert right(item, outcome)

        for first in range(1, 600, 40):
            await round_of(first)
        assert 0 < cancelled <= 15 * 8
        assert await f.aclose() is True
        assert len(seen) == len(set(seen))  # nobody ran twice
        assert identity(f.stats)
        assert f.stats.pending == f.stats.in_flight == 0

    run(main())


@pytest.mark.parametrize("executor", ["thread", "caller"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_of_threads(executor: str, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    size = chance.choice([1, 4, 32])
    seen: list[int] = []

    def handler(items: list[int]) -> list[Any]:
        assert len(items) <= size
        seen.extend(items)
        return [LookupError(item) if item % 11 == 0 else ("answer", item) for item in items]

    f = batched(
        handler,
        executor=executor,
        max_batch_size=size,
        wait_ms=chance.choice([0, 0.2]),
        max_queue=chance.choice([5, 1000]),
        overflow="wait",
    )
    start = threading.Barrier(12)

    def caller(base: int) -> int:
        mine = random.Random(seed * 1000 + base)
        kept, cancelled = {}, 0
        start.wait(20)
        for item in range(base, base + 120):
            if mine.random() < 0.5:
                assert right(item, outcome_of_call(f, item))
            else:
                future = f.submit(item)
                if mine.random() < 0.3 and future.cancel():
                    cancelled += 1
                else:
                    kept[item] = future
        for item, future in kept.items():
            assert right(item, future.exception(20) or future.result())
        return cancelled

    callers = [in_thread(caller, 1000 * number + 1) for number in range(12)]
    cancelled = sum(one.result(50) for one in callers)
    assert f.close() is True
    assert len(seen) == len(set(seen)) == 12 * 120 - cancelled
    assert f.stats.cancelled == cancelled
    assert f.stats.answered + f.stats.failed == len(seen)
    assert f.stats.batch_sizes.max <= size
