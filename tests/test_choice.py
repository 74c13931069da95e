"""Which requests share a batch: padded budgets, a look ahead of a misfit, similar lengths; and for how long
anybody can be passed over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, RequestTooLarge, batched
from gates import Gate, batched_by, let_pass

HOUR = 3_600_000.0


def drained(batcher: Batcher[Any, Any]) -> list[list[Any]]:
    """All batches that are due, answered."""
    batches = []
    while (batch := batcher.next_batch(block=False)) is not None:
        batches.append(batch.items)
        batch.complete(batch.items)
    return batches


# ------------------------------------------------------------------------------------ padded budgets


def test_a_padded_budget_counts_as_many_times_the_largest() -> None:
    with Batcher[str, str](max_batch_cost=12, cost=len, padded_cost=True) as batcher:
        items = ["aaa", "bb", "c", "d", "eeee", "ffff", "gggg", "h", "i" * 12, "j"]
        futures = [batcher.submit(item) for item in items]
        assert drained(batcher) == [
            ["aaa", "bb", "c", "d"],
            ["eeee", "ffff", "gggg"],
            ["h"],
            ["i" * 12],
            ["j"],
        ]
        assert [future.result(0) for future in futures] == items
        assert batcher.stats.reasons["cost"] >= 3
        with pytest.raises(RequestTooLarge, match=r"\b13\b.*\b12\b"):
            batcher.submit("k" * 13)


@pytest.mark.parametrize("seed", range(4))
def test_no_padded_batch_exceeds_the_budget(seed: int) -> None:
    draw = random.Random(seed)
    options: dict[str, Any] = {"max_batch_size": 9, "look_ahead": draw.choice([0, 3, 50])}
    with Batcher[int, int](
        max_batch_cost=40, cost=lambda n: n, padded_cost=True, **options
    ) as batcher:
        items = [min(40, int(draw.lognormvariate(1.5, 1))) for _ in range(400)]
        for item in items:
            batcher.submit(item)
        batches = drained(batcher)
        assert all(len(batch) * max(batch) <= 40 and len(batch) <= 9 for batch in batches)
        assert sorted(n for batch in batches for n in batch) == sorted(items)


def test_a_batch_whose_padded_budget_is_used_up_leaves_at_once(gate: Gate) -> None:
    """A waiting worker is told of the one request that makes the others dear."""
    gate.open()
    f = batched(gate.handler, wait_ms=HOUR, max_batch_cost=12, cost=lambda n: n, padded_cost=True)
    small = [f.submit(1) for _ in range(3)]
    large = f.submit(4)
    # 1 + 1 + 1 and 4 are far from 12, but four times 4 is beyond it.
    assert [one.result(20)[1] for one in small] == [1, 1, 1]
    assert not large.done()
    f.flush()
    assert large.result(20) == ("answer", 4)


# ---------------------------------------------------------------------------------------- look ahead


def test_later_requests_fill_the_room_that_is_left() -> None:
    with Batcher[str, str](max_batch_cost=10, cost=len, look_ahead=3) as batcher:
        for item in ["aaaaaa", "bbbbbbb", "cc", "ddddd", "ee", "f"]:
            batcher.submit(item)
        # "f" would fit, too, but is the fourth behind the misfit.
        assert drained(batcher) == [["aaaaaa", "cc", "ee"], ["bbbbbbb", "f"], ["ddddd"]]


def test_the_misfit_opens_the_next_batch_whatever_comes(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=8, max_batch_cost=10, cost=len, look_ahead=100)
    first = f.submit("first")
    gate.entered()
    misfits = ["aaaaaa", "bbbbbb", "cccccc"]
    futures = [f.submit(item) for item in misfits]
    small = [f.submit("d") for _ in range(40)]
    for number in range(2, 5):
        gate.release()
        gate.entered(number)
        futures.append(f.submit("e"))
    gate.open()
    for future in [first, *futures, *small]:
        future.result(20)
    assert [batch[0] for batch in gate.batches[1:4]] == misfits
    assert gate.batches[1] == ["aaaaaa", "d", "d", "d", "d"]


def test_a_misfit_waits_for_no_longer_than_it_would() -> None:
    """What fills the batch before it may leave it without company, but not for more than `wait_ms`."""
    wait_ms = 20.0
    with Batcher[str, str](wait_ms=wait_ms, max_batch_cost=10, cost=len, look_ahead=10) as batcher:
        batcher.submit("aaaaaa")
        batcher.submit("bbbbbbb")
        came = time.monotonic()
        batcher.submit("ccc")
        batch = batcher.next_batch(block=False)
        assert batch is not None
        assert batch.items == ["aaaaaa", "ccc"]
        batch.complete(batch.items)
        batch = batcher.next_batch(timeout=20)
        assert batch is not None
        assert batch.items == ["bbbbbbb"]
        assert batch.waited_ms >= wait_ms
        # It left when its time was over: nobody else came.
        assert time.monotonic() - came < 20
        batch.complete(batch.items)


# ------------------------------------------------------------------------------------ similar lengths


def test_similar_lengths_share_a_batch() -> None:
    with Batcher[str, str](max_batch_size=2, length=len, age_ms=HOUR) as batcher:
        for item in ["a" * 5, "b" * 90, "c" * 6, "d" * 91, "e" * 40, "f" * 41]:
            batcher.submit(item)
        names = [[item[0] for item in batch] for batch in drained(batcher)]
        assert names == [["a", "c"], ["b", "d"], ["e", "f"]]


def test_the_oldest_always_leaves() -> None:
    with Batcher[int, int](max_batch_size=4, length=lambda n: n, age_ms=HOUR) as batcher:
        draw = random.Random(3)
        waiting: list[int] = []
        for _ in range(40):
            for _ in range(8):
                n = draw.randrange(10**9)
                waiting.append(n)
                batcher.submit(n)
            batch = batcher.next_batch(block=False)
            assert batch is not None
            assert batch.items[0] == waiting[0]
            for n in batch.items:
                waiting.remove(n)
            batch.complete(batch.items)
        drained(batcher)


def test_who_has_waited_for_the_age_is_passed_over_no_more() -> None:
    with Batcher[int, int](max_batch_size=2, length=lambda n: n, age_ms=5) as batcher:
        start = time.monotonic()
        for n in (1, 1000):
            batcher.submit(n)
        let_pass(0.006, start)
        for n in (2, 3, 1001, 1002):
            batcher.submit(n)
        # 2 would be nearer to 1, but 1000 is old enough.
        assert drained(batcher)[0] == [1, 1000]


def test_no_further_than_the_window() -> None:
    with Batcher[int, int](
        max_batch_size=2, length=lambda n: n, length_window=2, age_ms=HOUR
    ) as batcher:
        for n in (5, 90, 91, 92, 5):
            batcher.submit(n)
        # Two batches' worth: the second 5 is not among them.
        assert drained(batcher) == [[5, 90], [91, 92], [5]]
        batcher.configure(length_window=3)
        for n in (5, 90, 91, 92, 5):
            batcher.submit(n)
        assert drained(batcher) == [[5, 5], [90, 91], [92]]


def test_sorting_never_moves_the_moment_of_sealing() -> None:
    """With and without lengths the same number leaves at the same call."""
    draw = random.Random(5)
    plain: Batcher[int, int] = Batcher(max_batch_size=3)
    sorting: Batcher[int, int] = Batcher(max_batch_size=3, length=lambda n: n)
    with plain, sorting:
        for _ in range(500):
            for _ in range(draw.randrange(6)):
                n = draw.randrange(1000)
                plain.submit(n)
                sorting.submit(n)
            batches = [one.next_batch(block=False) for one in (plain, sorting)]
            sizes = [0 if batch is None else len(batch.items) for batch in batches]
            assert sizes[0] == sizes[1]
            for batch in batches:
                if batch is not None:
                    batch.complete(batch.items)
        drained(plain)
        drained(sorting)


def test_priorities_come_before_lengths() -> None:
    with Batcher[int, int](max_batch_size=2, length=lambda n: n, age_ms=HOUR) as batcher:
        for n in (5, 90, 6):
            batcher.submit(n)
        urgent = batcher.options(priority=-1)
        for n in (50, 7, 51):
            urgent.submit(n)
        assert drained(batcher) == [[50, 51], [7, 5], [90, 6]]


def test_lengths_with_a_padded_budget() -> None:
    """The usual way for tokens: as many as fit, whatever their number, and of one size."""
    draw = random.Random(11)
    items = [max(1, min(500, int(draw.lognormvariate(3, 1)))) for _ in range(2000)]

    def padding(**options: Any) -> float:
        with Batcher[int, int](
            max_batch_size=64, max_batch_cost=2000, cost=lambda n: n, padded_cost=True, **options
        ) as batcher:
            for n in items:
                batcher.submit(n)
            batches = drained(batcher)
        assert sorted(n for batch in batches for n in batch) == sorted(items)
        assert all(len(batch) * max(batch) <= 2000 for batch in batches)
        return sum(len(batch) * max(batch) - sum(batch) for batch in batches)

    assert padding(length=lambda n: n, age_ms=HOUR) < 0.4 * padding()


def test_lengths_of_single_calls() -> None:
    with Batcher[str, str](max_batch_size=2, length=len, age_ms=HOUR) as batcher:
        batcher.submit("a")
        batcher.submit("bb")
        batcher.options(length=90).submit("c")
        batcher.options(length=lambda item: 91).submit("d")
        batcher.options(length=None).submit("e" * 50)
        batcher.submit("f" * 89)
        assert [[item[0] for item in batch] for batch in drained(batcher)] == [
            ["a", "e"],
            ["b", "f"],
            ["c", "d"],
        ]


def test_every_way_of_running(gate: Gate, way: str, run: Callable[..., Any]) -> None:
    import asyncio

    async def main() -> None:
        f = batched_by(way, gate, max_batch_size=2, length=len, age_ms=HOUR)
        first = asyncio.ensure_future(f.acall("first"))
        await gate.aentered()
        items = ["a" * 5, "b" * 90, "c" * 6, "d" * 91]
        calls = [asyncio.ensure_future(f.acall(item)) for item in items]
        await asyncio.sleep(0)
        gate.open()
        assert await asyncio.gather(first, *calls) == [
            ("answer", item) for item in ["first", *items]
        ]
        assert [[item[0] for item in batch] for batch in gate.batches[1:]] == [
            ["a", "c"],
            ["b", "d"],
        ]

    run(main())


def test_lengths_are_measured_in_the_caller_and_their_errors_are_its_own(gate: Gate) -> None:
    gate.open()

    def length(item: Any) -> Any:
        if item == "bad":
            raise LookupError("no length")
        return item

    f = batched(gate.handler, length=length, name="rows")
    for item, error in (
        (-1, ValueError),
        (1.5, TypeError),
        (True, TypeError),
        ("bad", LookupError),
    ):
        with pytest.raises(error, match=r"rows: the result of length|no length"):
            f(item)
    assert f.stats.submitted == 0
    assert f(10**40) == ("answer", 10**40)


# ----------------------------------------------------------------------------------------- as options


def plain(items: list[Any]) -> list[Any]:
    return items


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"padded_cost": True}, ValueError, "padded_cost=True .*max_batch_cost"),
        ({"padded_cost": 1, "max_batch_cost": 5}, TypeError, "padded_cost .*1"),
        ({"look_ahead": 3}, ValueError, "look_ahead=3 .*max_batch_cost"),
        ({"look_ahead": -1, "max_batch_cost": 5}, ValueError, "look_ahead .*-1"),
        ({"look_ahead": 1.5, "max_batch_cost": 5}, TypeError, "look_ahead .*1.5"),
        ({"look_ahead": True, "max_batch_cost": 5}, TypeError, "look_ahead .*True"),
        ({"length": 5}, TypeError, "length .*5"),
        ({"length": "len"}, TypeError, "length .*'len'"),
        ({"length_window": 0}, ValueError, "length_window .*0"),
        ({"length_window": 1.5}, TypeError, "length_window .*1.5"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], told: str) -> None:
    for make in (lambda: batched(plain, **options), lambda: Batcher(**options)):
        with pytest.raises(error, match=told):
            make()


def test_wrong_lengths_of_a_call() -> None:
    f = batched(plain, length=lambda n: n)
    for length, error in ((-1, ValueError), (True, TypeError), (1.5, TypeError), ("5", TypeError)):
        with pytest.raises(error, match="length"):
            f.options(length=length)
    with pytest.raises(ValueError, match=r"length=5 .*compared with nothing"):
        batched(plain).options(length=5)
    assert batched(plain).options(length=None)(1) == 1


def test_what_can_be_changed() -> None:
    f = batched(plain, max_batch_cost=10, length=lambda n: n)
    f(1)
    f.configure(look_ahead=5, length_window=2)
    with pytest.raises(TypeError, match="padded_cost cannot be changed"):
        f.configure(padded_cost=True)
    with pytest.raises(TypeError, match="length cannot be changed"):
        f.configure(length=len)
    without = batched(plain)
    with pytest.raises(ValueError, match=r"length_window .*nobody measures"):
        without.configure(length_window=2)
    with pytest.raises(ValueError, match=r"look_ahead=2 .*max_batch_cost"):
        without.configure(look_ahead=2)
