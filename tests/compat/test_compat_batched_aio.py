"""The front door `batched.aio`: handlers of both kinds, caches, strategies, lengths, items of one's own."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from carpool.compat.batched import aio
from carpool.compat.batched.aio.batch_generator import AsyncBatchItem
from carpool.compat.batched.types import AsyncCache, CacheStats, PriorityStrategy
from gates import Gate, auntil

NEVER_MS = 60_000.0


class Cache(AsyncCache[Any, Any]):
    def __init__(self) -> None:
        self.kept: dict[Any, Any] = {}
        self.asked: list[Any] = []
        self.figures = CacheStats()

    async def get(self, key: Any) -> Any:
        self.asked.append(key)
        found = self.kept.get(key)
        self.figures.update_get(hit=found is not None, time_taken=0.5)
        return found

    async def set(self, key: Any, value: Any) -> None:
        await asyncio.sleep(0)
        self.kept[key] = value
        self.figures.update_set(time_taken=0.25)

    async def clear(self) -> None:
        self.kept.clear()

    def stats(self) -> CacheStats:
        return self.figures


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_both_kinds_of_handlers(run: Callable[..., Any], kind: str) -> None:
    async def asquares(items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return [item * item for item in items]

    def squares(items: list[int]) -> list[int]:
        return [item * item for item in items]

    async def main() -> None:
        made = aio.dynamically(batch_size=8)(squares if kind == "def" else asquares)
        assert await made(3) == 9
        assert await made([2, 3, 4]) == [4, 9, 16]
        assert await made([]) == []
        assert await made.acall(4) == 16
        assert await asyncio.create_task(made(5)) == 25
        assert await asyncio.gather(*map(made, range(50))) == [n * n for n in range(50)]
        assert made.stats.total_processed == 56

    run(main())


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_loops_on_several_threads_share_a_processor(run: Callable[..., Any], kind: str) -> None:
    class Model:
        async def triple(self, items: list[int]) -> list[int]:
            await asyncio.sleep(0)
            return [item * 3 for item in items]

        def plain(self, items: list[int]) -> list[int]:
            return [item * 3 for item in items]

    made = aio.dynamically(batch_size=16, timeout_ms=1, priority_strategy=PriorityStrategy.PRIORITY)
    function: Any = Model().triple if kind == "async def" else Model().plain
    tripled: Any = made(function)

    async def main(start: int) -> list[Any]:
        numbers = list(range(start, start + 60))
        one_by_one = asyncio.gather(*map(tripled, numbers))
        return [await one_by_one, *await asyncio.gather(tripled(numbers), tripled(numbers[:3]))]

    with ThreadPoolExecutor(4) as threads:
        loops = [threads.submit(run, main(1000 * n)) for n in range(4)]
        for n, loop in enumerate(loops):
            expected = [3 * i for i in range(1000 * n, 1000 * n + 60)]
            assert loop.result(30) == [expected, expected, expected[:3]]
    assert tripled.stats.total_processed == 4 * 123


def test_what_came_while_a_batch_ran_leaves_together(run: Callable[..., Any], gate: Gate) -> None:
    held = aio.dynamically(batch_size=32, timeout_ms=0)(gate.ahandler)

    async def main() -> None:
        calls = [asyncio.create_task(held("first"))]
        await gate.aentered()
        calls += [asyncio.create_task(held(n)) for n in range(8)]
        await auntil(lambda: held.stats.queue_size == 8)
        gate.open()
        await asyncio.gather(*calls)

    run(main())
    assert gate.batches == [["first"], list(range(8))]


def test_an_exception_among_the_rows_is_raised_for_its_item_alone(run: Callable[..., Any]) -> None:
    @aio.dynamically(batch_size=2, timeout_ms=NEVER_MS)
    async def halved(items: list[Any]) -> list[Any]:
        return [item / 2 if item else ValueError("nothing") for item in items]

    async def main() -> None:
        bad, good = await asyncio.gather(halved(0), halved(8), return_exceptions=True)
        assert isinstance(bad, ValueError)
        assert good == 4.0

    run(main())


def test_a_cancelled_call_never_reaches_the_handler(run: Callable[..., Any], gate: Gate) -> None:
    held = aio.dynamically(batch_size=1, timeout_ms=0)(gate.ahandler)

    async def main() -> None:
        first = asyncio.create_task(held(0))
        await gate.aentered()
        gone = [asyncio.create_task(held(1)), asyncio.create_task(held([2, 3]))]
        await auntil(lambda: held.stats.queue_size == 3)
        for call in gone:
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        await auntil(lambda: held.stats.queue_size == 0)
        gate.open()
        assert await first == ("answer", 0)
        assert await held(4) == ("answer", 4)

    run(main())
    assert gate.items == [0, 4]


def test_bare(run: Callable[..., Any]) -> None:
    @aio.dynamically
    async def echo(items: list[int]) -> list[int]:
        return items

    async def main() -> None:
        assert await echo(1) == 1

    run(main())


def test_wrong_lengths_and_errors(run: Callable[..., Any]) -> None:
    async def main() -> None:
        with pytest.raises(AssertionError, match="does not match batch input length"):
            await aio.dynamically(lambda items: items + items)([1, 2])
        with pytest.raises(ZeroDivisionError):
            await aio.dynamically(lambda items: [1 // item for item in items])([0])

    run(main())


def test_a_cache_is_asked_first_and_told_after(run: Callable[..., Any]) -> None:
    cache, seen = Cache(), []

    @aio.dynamically(cache=cache)
    async def lengths(items: list[str]) -> list[int | None]:
        seen.extend(items)
        return [len(item) or None for item in items]

    async def main() -> None:
        assert await lengths("abc") == 3
        await auntil(lambda: cache.kept == {"abc": 3})
        assert await lengths(["abc", "de", ""]) == [3, 2, None]
        await auntil(lambda: cache.kept == {"abc": 3, "de": 2})
        assert await lengths([""]) == [None]
        assert await lengths(["abc", "de"]) == [3, 2]
        stats = lengths.stats
        assert stats.cache_stats is cache.figures
        assert (stats.cache_stats.gets, stats.cache_stats.hits, stats.cache_stats.sets) == (7, 3, 2)
        assert stats.cache_stats.avg_get_time == stats.cache_stats.avg_hit_time == 0.5
        assert stats.cache_stats.avg_set_time == 0.25
        assert stats.total_processed == 4

    run(main())
    assert seen == ["abc", "de", "", ""]


def test_figures_of_an_unused_cache() -> None:
    assert (CacheStats().avg_get_time, CacheStats().avg_hit_time, CacheStats().avg_set_time) == (
        0.0,
        0.0,
        0.0,
    )


def test_an_error_of_the_cache_is_its_caller_s_alone(run: Callable[..., Any]) -> None:
    class Broken(Cache):
        async def get(self, key: Any) -> Any:
            if key == "bad":
                raise OSError("disk")
            return await super().get(key)

    async def main() -> None:
        echo = aio.dynamically(cache=Broken())(lambda items: items)
        bad, good = await asyncio.gather(echo("bad"), echo("good"), return_exceptions=True)
        assert isinstance(bad, OSError)
        assert good == "good"

    run(main())


def test_max_batch_length(run: Callable[..., Any]) -> None:
    batches: list[list[str]] = []

    @aio.dynamically(batch_size=100, max_batch_length=10, timeout_ms=1)
    async def echo(items: list[str]) -> list[str]:
        batches.append(items)
        return items

    items = ["a" * n for n in (4, 5, 3, 20, 10, 1, 9)]

    async def main() -> None:
        assert await echo(items) == items

    run(main())
    assert [item for batch in batches for item in batch] == items
    assert all(sum(map(len, batch)) <= 10 or len(batch) == 1 for batch in batches)
    assert ["a" * 4, "a" * 5] in batches
    assert ["a" * 20] in batches


def test_what_has_no_length_counts_one(run: Callable[..., Any]) -> None:
    sizes: list[int] = []

    @aio.dynamically(batch_size=100, max_batch_length=2, timeout_ms=1)
    async def echo(items: list[Any]) -> list[Any]:
        sizes.append(len(items))
        return items

    async def main() -> None:
        assert await echo([1, 2, 3, 4, None]) == [1, 2, 3, 4, None]

    run(main())
    assert max(sizes) <= 3  # None counts 0
    assert sum(sizes) == 5


@pytest.mark.parametrize("strategy", list(PriorityStrategy))
def test_strategies(run: Callable[..., Any], gate: Gate, strategy: PriorityStrategy) -> None:
    held = aio.dynamically(
        batch_size=1, timeout_ms=0, small_batch_threshold=2, priority_strategy=strategy
    )(gate.ahandler)
    large = ["bb", "dddd", "a", "ccc"]

    async def main() -> None:
        calls: list[Any] = [asyncio.create_task(held("first"))]
        await gate.aentered()
        # Of each list two batches stand in the queue, one item each here.
        for waiting, call in ((2, large), (4, ["x", "y"])):
            calls.append(asyncio.create_task(held(call)))
            await auntil(lambda waiting=waiting: held.stats.queue_size == waiting)
        gate.open()
        answers = await asyncio.gather(*calls)
        # Whatever the order of running, that of the answers is the caller's.
        assert [content for _, content in answers[1]] == large

    run(main())
    by_strategy = {
        PriorityStrategy.NONE: ["bb", "dddd", "x", "y", "a", "ccc"],
        PriorityStrategy.PRIORITY: ["x", "y", *large],
        PriorityStrategy.LENGTH: ["x", "y", "dddd", "ccc", "bb", "a"],
    }
    assert gate.items[1:] == by_strategy[strategy]


class Traced(aio.AsyncBatchItem[Any, Any]):
    made: ClassVar[list[Traced]] = []
    told: ClassVar[list[Any]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made.append(self)

    def set_result(self, result: Any) -> None:
        self.told.append(result)
        super().set_result(("traced", result))

    def set_exception(self, exception: Exception) -> None:
        self.told.append(type(exception))
        super().set_exception(exception)

    def __len__(self) -> int:
        return 2 * super().__len__()


@pytest.fixture(autouse=True)
def _nothing_traced() -> None:
    Traced.made.clear()
    Traced.told.clear()


def test_items_of_one_s_own_class(run: Callable[..., Any]) -> None:
    batches: list[list[str]] = []

    @aio.dynamically(batch_item_cls=Traced, max_batch_length=8, timeout_ms=1)
    async def echo(items: list[str]) -> list[str]:
        batches.append(items)
        if "bad" in items:
            raise ValueError("bad")
        return items

    async def main() -> None:
        assert await echo("one") == ("traced", "one")
        assert await echo(["aa", "bb", "cc"]) == [("traced", t) for t in ("aa", "bb", "cc")]
        assert batches == [["one"], ["aa", "bb"], ["cc"]]
        with pytest.raises(ValueError):
            await echo("bad")
        assert [item.content for item in Traced.made] == ["one", "aa", "bb", "cc", "bad"]
        assert all(item.done() for item in Traced.made)
        assert Traced.told == ["one", "aa", "bb", "cc", ValueError]

    run(main())


def test_a_cancelled_call_with_items_of_one_s_own_class(
    run: Callable[..., Any], gate: Gate
) -> None:
    held = aio.dynamically(batch_item_cls=Traced, batch_size=1, timeout_ms=0)(gate.ahandler)

    async def main() -> None:
        first = asyncio.create_task(held("first"))
        await gate.aentered()
        second = asyncio.create_task(held("second"))
        await auntil(lambda: held.stats.queue_size == 1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await auntil(lambda: held.stats.queue_size == 0)
        gate.open()
        assert await first == ("traced", ("answer", "first"))

    run(main())
    assert gate.items == ["first"]


def test_an_item_s_own_priority_counts(run: Callable[..., Any], gate: Gate) -> None:
    class Urgent(aio.AsyncBatchItem[Any, Any]):
        def __init__(self, content: Any, future: Any, priority: int) -> None:
            super().__init__(content, future, -1 if content == "now" else priority)

    held = aio.dynamically(batch_item_cls=Urgent, batch_size=1, timeout_ms=0)(gate.ahandler)

    async def main() -> None:
        calls = [asyncio.create_task(held("first"))]
        await gate.aentered()
        for waiting, content in ((1, "later"), (2, "now")):
            calls.append(asyncio.create_task(held(content)))
            await auntil(lambda waiting=waiting: held.stats.queue_size == waiting)
        gate.open()
        await asyncio.gather(*calls)

    run(main())
    assert gate.items == ["first", "now", "later"]


def test_items_are_compared_by_priority(run: Callable[..., Any]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        low, high = (aio.AsyncBatchItem("x", loop.create_future(), level) for level in (2, 0))
        assert high < low
        assert sorted([low, high]) == [high, low]
        assert low == aio.AsyncBatchItem("y", loop.create_future(), 2)
        assert bool(aio.AsyncBatchItem("", loop.create_future()))
        assert len(aio.AsyncBatchItem("abc", loop.create_future(), 1, lambda text: 7)) == 7

    run(main())


@dataclasses.dataclass(order=True)
class Labelled(aio.AsyncBatchItem[Any, Any]):
    label: str = dataclasses.field(default="none", compare=False)

    def set_result(self, result: Any) -> None:
        super().set_result((result, self.label))


def test_items_may_be_data_classes_and_generic(run: Callable[..., Any]) -> None:
    async def main() -> None:
        labelled = aio.dynamically(batch_item_cls=Labelled)(lambda items: items)
        assert await labelled(["a", "b"]) == [("a", "none"), ("b", "none")]
        plain: Any = aio.AsyncBatchItem[int, int]
        echo = aio.dynamically(batch_item_cls=plain)(lambda items: items)
        assert await echo([1]) == [1]
        assert echo.batch_item_cls is aio.AsyncBatchItem

    run(main())
    names = [field.name for field in dataclasses.fields(Labelled)]
    assert names == ["content", "future", "priority", "_len_fn", "label"]
    assert AsyncBatchItem is aio.AsyncBatchItem


@pytest.mark.parametrize("which", ["set_result", "set_exception"])
def test_an_item_that_fails_to_answer_is_answered(run: Callable[..., Any], which: str) -> None:
    def broken(self: Any, answer: Any) -> None:
        raise LookupError("the item's own")

    broken_class: Any = type("Broken", (aio.AsyncBatchItem,), {which: broken})

    @aio.dynamically(batch_item_cls=broken_class)
    async def echo(items: list[Any]) -> list[Any]:
        if which == "set_exception":
            raise ValueError("the handler's")
        return items

    async def main() -> None:
        with pytest.raises(LookupError, match="the item's own"):
            await echo(1)

    run(main())


def test_an_item_that_answers_itself_never_runs(run: Callable[..., Any], gate: Gate) -> None:
    made: list[Any] = []

    class Own(aio.AsyncBatchItem[Any, Any]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    held = aio.dynamically(batch_item_cls=Own, batch_size=1, timeout_ms=0)(gate.ahandler)

    async def main() -> None:
        first = asyncio.create_task(held("first"))
        await gate.aentered()
        second = asyncio.create_task(held("second"))
        await auntil(lambda: held.stats.queue_size == 1)
        made[1].set_result("known by other ways")
        assert await second == "known by other ways"
        await auntil(lambda: held.stats.queue_size == 0)
        gate.open()
        assert await first == ("answer", "first")

    run(main())
    assert gate.items == ["first"]


def test_figures_begin_anew(run: Callable[..., Any]) -> None:
    async def main() -> None:
        echo = aio.dynamically(lambda items: items)
        await echo([1, 2, 3])
        assert echo.stats.total_processed == 3
        echo.clear_stats()
        assert (echo.stats.total_processed, echo.stats.total_batches) == (0, 0)
        assert (echo.stats.avg_batch_size, echo.stats.avg_processing_time) == (0.0, 0.0)
        await echo([1, 2])
        assert echo.stats.total_processed == 2
        assert echo.stats.avg_processing_time > 0

    run(main())
