"""Priority: who goes first, in order within a level, and for how long the rest can be overtaken."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, batched
from gates import Gate, batched_by, let_pass

HOUR = 3_600_000.0


def drained(batcher: Batcher[Any, Any]) -> list[Any]:
    order = []
    while (batch := batcher.next_batch(block=False)) is not None:
        order += batch.items
        batch.complete(batch.items)
    return order


def test_smaller_goes_first_and_equals_in_order() -> None:
    with Batcher[Any, Any](max_batch_size=3, age_ms=HOUR) as batcher:
        levels = [0, 2, -1, 0, 1, -100, 2, -1, 100, 0, 1, 100]
        for n, level in enumerate(levels):
            batcher.options(priority=level).submit((level, n))
        order = drained(batcher)
        assert order == sorted(order)
        assert len(order) == len(levels)


def test_no_priority_is_level_zero() -> None:
    with Batcher[Any, Any](max_batch_size=1, age_ms=HOUR) as batcher:
        batcher.options(priority=1).submit("late")
        batcher.submit("plain")
        batcher.options(priority=0).submit("zero")
        batcher.options(timeout_ms=None).submit("no limit")
        batcher.options(priority=-1).submit("soon")
        assert drained(batcher) == ["soon", "plain", "zero", "no limit", "late"]


def test_who_has_waited_long_enough_is_overtaken_no_more() -> None:
    with Batcher[Any, Any](max_batch_size=1, age_ms=5) as batcher:
        batcher.options(priority=3).submit("old")
        # Three levels are worth 15 ms of waiting.
        let_pass(0.016, time.monotonic())
        batcher.submit("plain")
        assert drained(batcher) == ["old", "plain"]


def test_an_age_of_zero_is_the_order_of_arrival() -> None:
    with Batcher[Any, Any](age_ms=0) as batcher:
        for n, level in enumerate([0, 5, -5, 100, -100]):
            batcher.options(priority=level).submit(n)
        assert drained(batcher) == [0, 1, 2, 3, 4]


def test_the_largest_age_and_the_furthest_levels_keep_their_order() -> None:
    with Batcher[Any, Any](max_batch_size=1, age_ms=864_000_000.0) as batcher:
        for level in (100, 0, -100, 99, -99):
            for n in range(3):
                batcher.options(priority=level).submit((level, n))
        order = drained(batcher)
        assert order == sorted(order)


def test_keys_and_priorities_together() -> None:
    def first_of(item: Any) -> Any:
        return item[0]

    with Batcher[Any, Any](key=first_of, age_ms=HOUR) as batcher:
        for n in range(3):
            batcher.submit(("a", n))
            batcher.submit(("b", n))
        batcher.options(priority=-1).submit(("b", "soon"))
        batches = []
        while (batch := batcher.next_batch(block=False)) is not None:
            batches.append(batch.items)
            batch.complete(batch.items)
        # The key with the most urgent request goes first, and takes its others along.
        assert batches == [
            [("b", "soon"), ("b", 0), ("b", 1), ("b", 2)],
            [("a", 0), ("a", 1), ("a", 2)],
        ]


def test_every_way_of_running(gate: Gate, way: str, run: Callable[..., Any]) -> None:
    async def main() -> None:
        f = batched_by(way, gate, max_batch_size=2, age_ms=HOUR)
        first = asyncio.ensure_future(f.acall("first"))
        await gate.aentered()
        levels = [1, 0, -1, 0, 1, -1]
        calls = [
            asyncio.ensure_future(f.options(priority=level).acall((level, n)))
            for n, level in enumerate(levels)
        ]
        gate.open()
        await asyncio.gather(first, *calls)
        assert gate.items[1:] == sorted(gate.items[1:])

    run(main())


def plain(items: list[Any]) -> list[Any]:
    return items


@pytest.mark.parametrize(
    ("priority", "error"),
    [
        (None, TypeError),
        (1.0, TypeError),
        ("1", TypeError),
        (True, TypeError),
        (101, ValueError),
        (-101, ValueError),
        (10**30, ValueError),
    ],
)
def test_wrong_priorities(priority: Any, error: type[Exception]) -> None:
    for made in (batched(plain), Batcher[Any, Any]()):
        with pytest.raises(error, match="priority") as caught:
            made.options(priority=priority)
        assert repr(priority) in str(caught.value)


@pytest.mark.parametrize(
    ("age", "error"),
    [
        (-1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (None, TypeError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
def test_wrong_ages(age: Any, error: type[Exception]) -> None:
    for make in (lambda: batched(plain, age_ms=age), lambda: Batcher(age_ms=age)):
        with pytest.raises(error, match="age_ms"):
            make()


def test_a_priority_is_no_option_of_a_batcher() -> None:
    for make in (lambda: batched(plain, priority=1), lambda: Batcher(priority=1)):
        with pytest.raises(TypeError, match=r"\.options\(priority=\.\.\.\)"):
            make()
