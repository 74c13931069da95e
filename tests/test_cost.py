"""Cost: a budget per batch, what each call counts against it, and who learns of what is wrong with it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, RequestTooLarge, batched
from gates import Gate, batched_by, identity, until


def drained(batcher: Batcher[Any, Any]) -> list[list[Any]]:
    """All batches that are due, answered."""
    batches = []
    while (batch := batcher.next_batch(block=False)) is not None:
        batches.append(batch.items)
        batch.complete(batch.items)
    return batches


def costly(**options: Any) -> Batcher[Any, Any]:
    return Batcher(**{"max_batch_size": 100, "max_batch_cost": 10, "cost": len, **options})


def test_no_batch_exceeds_the_budget_and_a_misfit_opens_the_next() -> None:
    with costly() as batcher:
        items = ["aaaa", "bbbb", "cccc", "dddddddddd", "", "e", "f" * 9, "g"]
        futures = [batcher.submit(item) for item in items]
        assert drained(batcher) == [
            ["aaaa", "bbbb"],
            ["cccc"],
            ["dddddddddd", ""],
            ["e", "f" * 9],
            ["g"],
        ]
        assert [future.result(0) for future in futures] == items
        assert batcher.stats.reasons["cost"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_any_costs_in_any_order(seed: int) -> None:
    draw = random.Random(seed)
    with costly(max_batch_size=7) as batcher:
        items = ["x" * draw.choice([0, 1, 2, 5, 10]) for _ in range(300)]
        futures = [batcher.submit(item) for item in items]
        batches = drained(batcher)
        assert all(sum(map(len, batch)) <= 10 and len(batch) <= 7 for batch in batches)
        # Nothing is overtaken, and no batch could have taken the next one, too.
        assert [item for batch in batches for item in batch] == items
        for batch, after in itertools.pairwise(batches):
            assert len(batch) == 7 or sum(map(len, batch)) + len(after[0]) > 10
        assert all(future.done() for future in futures)


def test_one_above_the_budget_is_refused_alone(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_cost=10, cost=len, name="tokens")
    pending = f.submit("a" * 10)
    gate.entered()
    after = f.submit("b")
    for call in (f, f.submit, lambda item: asyncio.run(awaited(f, item))):
        with pytest.raises(RequestTooLarge, match=r"tokens: .*\b11\b.*max_batch_cost=10\b"):
            call("c" * 11)
    gate.open()
    assert pending.result(20) == ("answer", "a" * 10)
    assert after.result(20) == ("answer", "b")
    stats = f.stats
    assert (stats.rejected, stats.answered) == (3, 2)
    assert identity(stats)


async def awaited(f: Any, item: Any) -> Any:
    return await f.acall(item)


def test_a_cost_beyond_every_number_of_the_core_is_too_large() -> None:
    f = batched(lambda items: items, max_batch_cost=10, cost=lambda item: 10**40)
    with pytest.raises(RequestTooLarge):
        f(1)


def test_every_way_of_running_keeps_to_the_budget(
    gate: Gate, way: str, run: Callable[..., Any]
) -> None:
    async def main() -> None:
        f = batched_by(way, gate, max_batch_cost=10, cost=len)
        first = asyncio.ensure_future(f.acall("first"))
        await gate.aentered()
        items = ["aaaa", "bbbbbb", "cc", "dddddddddd"]
        calls = [asyncio.ensure_future(f.acall(item)) for item in items]
        with pytest.raises(RequestTooLarge):
            await f.acall("e" * 11)
        gate.open()
        assert await asyncio.gather(first, *calls) == [
            ("answer", item) for item in ["first", *items]
        ]
        assert gate.batches == [["first"], ["aaaa", "bbbbbb"], ["cc"], ["dddddddddd"]]

    run(main())


def test_without_cost_each_request_counts_one() -> None:
    with Batcher[int, int](max_batch_cost=3) as batcher:
        for n in range(7):
            batcher.submit(n)
        assert drained(batcher) == [[0, 1, 2], [3, 4, 5], [6]]


def test_an_int_is_the_cost_of_every_request() -> None:
    with Batcher[int, int](max_batch_cost=10, cost=4) as batcher:
        for n in range(5):
            batcher.submit(n)
        assert drained(batcher) == [[0, 1], [2, 3], [4]]


def test_what_costs_nothing_is_bounded_by_the_size_alone() -> None:
    with costly(max_batch_size=4) as batcher:
        for item in ["a" * 10, *[""] * 6]:
            batcher.submit(item)
        # The budget is used up, but nothing more is spent of it.
        assert drained(batcher) == [["a" * 10, "", "", ""], ["", "", ""]]


def test_a_single_call_may_cost_something_else() -> None:
    with costly() as batcher:
        batcher.submit("aaaaaaaa")
        batcher.options(cost=2).submit("bbbbbbbbbbbbbbbbbbbb")
        batcher.options(cost=lambda item: 9).submit("c")
        batcher.options(cost=None).submit("dddddddddddddddddddd")
        with pytest.raises(RequestTooLarge, match=r"\b11\b.*\b10\b"):
            batcher.options(cost=11).submit("")
        assert [len(batch) for batch in drained(batcher)] == [2, 2]


# -------------------------------------------------------------------------------------- its arguments


def test_it_gets_the_arguments_as_a_plain_call_binds_them(gate: Gate) -> None:
    gate.open()
    seen: list[Any] = []

    def cost(text: Any, n: Any, *, mode: Any) -> int:
        seen.append((text, n, mode))
        return 1

    @batched(max_batch_cost=10, cost=cost)
    def f(texts: list[Any], numbers: list[int] = 7, *, mode: list[str] = "slow") -> list[Any]:  # type: ignore[assignment]
        return texts

    assert f("a") == "a"
    assert f("b", mode="fast") == "b"
    assert f(numbers=1, texts="c") == "c"
    assert f.submit("d", 2).result(20) == "d"
    assert seen == [("a", 7, "slow"), ("b", 7, "fast"), ("c", 1, "slow"), ("d", 2, "slow")]


def test_a_method_s_is_not_given_the_instance() -> None:
    class Model:
        @batched(max_batch_cost=10, cost=len)
        def run(self, texts: list[str]) -> list[str]:
            return texts

        @classmethod
        @batched(max_batch_cost=10, cost=len)
        def of_class(cls, texts: list[str]) -> list[str]:
            return texts

        @staticmethod
        @batched(max_batch_cost=10, cost=len)
        def static(texts: list[str]) -> list[str]:
            return texts

    model = Model()
    for call in (model.run, model.of_class, model.static, Model.of_class, Model.static):
        assert call("a" * 10) == "a" * 10
        with pytest.raises(RequestTooLarge):
            call("a" * 11)
    with pytest.raises(RequestTooLarge):
        Model.run(model, "a" * 11)


# ------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("result", "error"),
    [(-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError), (None, TypeError)],
)
def test_a_result_that_is_no_cost_is_told_to_its_caller(
    result: Any, error: type[Exception]
) -> None:
    f = batched(lambda items: items, max_batch_cost=10, cost=lambda item: result, name="priced")
    with pytest.raises(error, match=r"priced: the result of cost") as caught:
        f(1)
    assert repr(result) in str(caught.value)
    assert f.stats.submitted == 0
    assert f.options(cost=1)(1) == 1


class Unheard(BaseException):
    pass


@pytest.mark.parametrize("kind", [ValueError, StopIteration, KeyboardInterrupt, Unheard])
def test_what_it_raises_reaches_its_caller_alone(gate: Gate, kind: type[BaseException]) -> None:
    def cost(item: Any) -> int:
        if item == "bad":
            raise kind("no price")
        return 1

    f = batched(gate.handler, max_batch_cost=10, cost=cost)
    first = f.submit("first")
    gate.entered()
    good = f.submit("good")
    for call in (f, f.submit):
        with pytest.raises(kind, match="no price"):
            call("bad")

    async def main() -> None:
        try:
            f.acall("bad")
        except kind:
            return
        raise AssertionError("it was submitted")

    asyncio.run(main())
    gate.open()
    assert first.result(20) == ("answer", "first")
    assert good.result(20) == ("answer", "good")
    assert f.stats.submitted == 2


def test_it_may_call_the_batcher_itself() -> None:
    depth: list[int] = []

    def cost(item: int) -> int:
        depth.append(item)
        return f(item - 1) + 1 if item else 0

    @batched(max_batch_cost=10, cost=cost)
    def f(items: list[int]) -> list[int]:
        return items

    assert f(3) == 3
    assert depth == [3, 2, 1, 0]
    until(lambda: f.stats.answered == 4)


# ------------------------------------------------------------------------------------------ as options


def plain(items: list[Any]) -> list[Any]:
    return items


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"max_batch_cost": 0}, ValueError, "max_batch_cost .*0"),
        ({"max_batch_cost": -1}, ValueError, "max_batch_cost .*-1"),
        ({"max_batch_cost": 1.5}, TypeError, "max_batch_cost .*1.5"),
        ({"max_batch_cost": True}, TypeError, "max_batch_cost .*True"),
        ({"max_batch_cost": 10, "cost": "5"}, TypeError, "cost .*'5'"),
        ({"max_batch_cost": 10, "cost": 1.5}, TypeError, "cost .*1.5"),
        ({"max_batch_cost": 10, "cost": True}, TypeError, "cost .*True"),
        ({"max_batch_cost": 10, "cost": -1}, ValueError, "cost .*-1"),
        ({"max_batch_cost": 10, "cost": 11}, ValueError, "cost=11.*max_batch_cost=10"),
        ({"cost": 1}, ValueError, "cost=1 .*max_batch_cost"),
        ({"cost": len}, ValueError, "cost=.*len.*max_batch_cost"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], told: str) -> None:
    for make in (lambda: batched(plain, **options), lambda: Batcher(**options)):
        with pytest.raises(error, match=told):
            make()


def test_wrong_options_of_a_call() -> None:
    f = batched(plain, max_batch_cost=10)
    for cost, error in ((-1, ValueError), (True, TypeError), (1.5, TypeError), ("5", TypeError)):
        with pytest.raises(error, match="cost"):
            f.options(cost=cost)
    with pytest.raises(ValueError, match="max_batch_cost"):
        batched(plain).options(cost=1)
    assert batched(plain).options(cost=None)(1) == 1
