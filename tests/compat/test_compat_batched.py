"""The front door `batched`: calls, lists, methods, figures, the end, errors, pickles. Rows of the guide's table."""

from __future__ import annotations

import asyncio
import collections
import gc
import inspect
import pickle
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import pytest

import carpool
from carpool.compat import batched
from carpool.compat.batched import aio, inference
from carpool.compat.batched.types import BatchOutputLengthError, BatchProcessorStats
from gates import Gate, auntil, in_thread, until

NEVER_MS = 60_000.0
"""A wait that no sound test sees the end of."""


@batched.dynamically(batch_size=64)
def doubled(items: list[int]) -> list[str]:
    """Doubles."""
    return [f"{item * 2}" for item in items]


class Scale:
    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.batches: list[list[int]] = []

    @batched.dynamically(batch_size=4)
    def times(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        return [item * self.factor for item in items]

    def __getstate__(self) -> dict[str, Any]:
        return {"factor": self.factor, "batches": []}


@aio.dynamically(batch_size=8)
async def atripled(items: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return [item * 3 for item in items]


# ------------------------------------------------------------------------------------- calls


def test_one_item_gives_one_result_and_a_list_a_list() -> None:
    assert doubled(2) == "4"
    assert doubled([2, 3, 4]) == ["4", "6", "8"]
    assert doubled([]) == []


def test_only_a_list_is_many_items() -> None:
    whole = batched.dynamically(lambda items: [repr(item) for item in items])
    assert whole((1, 2)) == "(1, 2)"
    assert whole([(1, 2), "ab"]) == ["(1, 2)", "'ab'"]
    assert whole([[1], [2]]) == ["[1]", "[2]"]


def test_bare_and_called() -> None:
    bare = batched.dynamically(lambda items: items)
    called = batched.dynamically()(lambda items: items)
    by_place = batched.dynamically(None, 3, 7.0, 2)(lambda items: items)
    assert (bare(1), called(2), by_place(3)) == (1, 2, 3)
    assert by_place.small_batch_threshold == 2
    assert isinstance(bare, batched.BatchProcessor)


def test_items_by_name(run: Callable[..., Any]) -> None:
    echo, aecho = batched.dynamically(lambda items: items), aio.dynamically(lambda items: items)

    async def main() -> None:
        assert await echo.acall(item=1) == 1
        assert await echo.acall(item=[1, 2]) == [1, 2]
        assert await aecho(items=1) == 1
        assert await aecho(items=[1, 2]) == [1, 2]

    assert echo(items=1) == 1
    assert echo(items=[1, 2]) == [1, 2]
    run(main())


def test_coroutine_functions_run_on_the_worker_s_own_loop(run: Callable[..., Any]) -> None:
    loops: set[Any] = set()

    @batched.dynamically(batch_size=4)
    async def squares(items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        loops.add(asyncio.get_running_loop())
        return [item * item for item in items]

    async def main() -> None:
        assert await squares.acall(3) == 9
        assert await squares.acall([2, 3]) == [4, 9]
        assert squares(4) == 16
        assert asyncio.get_running_loop() not in loops

    assert squares(3) == 9
    assert squares([2, 3]) == [4, 9]
    run(main())
    assert len(loops) == 1


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        collections.deque,
        collections.UserList,
        lambda results: {one: one for one in results}.values(),
    ],
    ids=["list", "tuple", "deque", "UserList", "values"],
)
def test_what_counts_as_a_list_of_results(kind: Callable[[list[int]], Any]) -> None:
    assert batched.dynamically(lambda items: kind([item + 1 for item in items]))([1, 2]) == [2, 3]


def test_a_list_longer_than_any_queue_of_carpool_s_own() -> None:
    echo = batched.dynamically(batch_size=1000)(lambda items: items)
    assert echo(list(range(25_000))) == list(range(25_000))


def test_it_looks_like_the_function() -> None:
    assert doubled.__name__ == "doubled"
    assert doubled.__doc__ == "Doubles."
    assert list(inspect.signature(doubled).parameters) == ["items"]
    assert doubled.batch_func([1]) == ["2"]


def test_calls_from_coroutines(run: Callable[..., Any]) -> None:
    async def main() -> None:
        assert await doubled.acall(2) == "4"
        assert await doubled.acall([2, 3]) == ["4", "6"]
        assert await doubled.acall([]) == []
        answers = await asyncio.gather(*(doubled.acall(n) for n in range(200)))
        assert answers == [str(2 * n) for n in range(200)]

    run(main())


def test_threads_and_loops_share_one_worker(run: Callable[..., Any]) -> None:
    threads: set[int] = set()

    @batched.dynamically(batch_size=16, timeout_ms=1)
    def squares(items: list[int]) -> list[int]:
        threads.add(threading.get_ident())
        return [item * item for item in items]

    async def main(start: int) -> list[int]:
        singles = await asyncio.gather(*(squares.acall(n) for n in range(start, start + 50)))
        return singles + await squares.acall(list(range(start, start + 50)))

    with ThreadPoolExecutor(8) as pool:
        loops = [pool.submit(run, main(100 * n)) for n in range(2)]
        lists = [pool.submit(squares, list(range(n, n + 70))) for n in range(3)]
        singles = [pool.submit(squares, n) for n in range(100)]
        for n, loop in enumerate(loops):
            assert loop.result(30) == [i * i for i in range(100 * n, 100 * n + 50)] * 2
        for n, many in enumerate(lists):
            assert many.result(30) == [i * i for i in range(n, n + 70)]
        assert [one.result(30) for one in singles] == [n * n for n in range(100)]
    assert len(threads) == 1


def test_two_event_loops_one_after_the_other(run: Callable[..., Any]) -> None:
    async def main() -> list[int]:
        return await atripled([1, 2])

    assert run(main()) == [3, 6]
    assert run(main()) == [3, 6]


# ---------------------------------------------------------------------------- when a batch leaves


def test_a_full_batch_leaves_at_once_and_none_is_larger() -> None:
    sizes: list[int] = []

    @batched.dynamically(batch_size=4, timeout_ms=NEVER_MS)
    def echo(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    assert echo(list(range(12))) == list(range(12))
    assert sizes == [4, 4, 4]


def test_what_came_while_a_batch_ran_leaves_together(gate: Gate) -> None:
    held = batched.dynamically(batch_size=32, timeout_ms=0)(lambda items: gate.run(items))
    calls = [in_thread(held, "first")]
    gate.entered()
    for n in range(1, 9):
        calls.append(in_thread(held, n))
        until(lambda n=n: held.stats.queue_size == n)
    gate.open()
    for call in calls:
        call.result(20)
    assert gate.batches == [["first"], list(range(1, 9))]


def test_a_lone_item_leaves_after_the_timeout() -> None:
    echo = batched.dynamically(batch_size=4, timeout_ms=1)(lambda items: items)
    assert echo(7) == 7
    assert echo._inner.stats.reasons["wait"] == 1


@pytest.mark.parametrize("threshold", [2, 5])
def test_small_calls_pass_large_ones(gate: Gate, threshold: int) -> None:
    held = batched.dynamically(batch_size=2, timeout_ms=0, small_batch_threshold=threshold)(
        lambda items: gate.run(items)
    )
    first = in_thread(held, "first")
    gate.entered()
    large = in_thread(held, ["a", "b", "c", "d"])
    until(lambda: held.stats.queue_size == 4)
    small = in_thread(held, ["x", "y"])
    until(lambda: held.stats.queue_size == 6)
    gate.open()
    for call in (first, large, small):
        call.result(20)
    passes = threshold == 2
    assert gate.batches[1] == (["x", "y"] if passes else ["a", "b"])


def test_equal_priorities_are_first_come_first_served(gate: Gate) -> None:
    held = batched.dynamically(batch_size=1, timeout_ms=0)(lambda items: gate.run(items))
    calls = [in_thread(held, 0)]
    gate.entered()
    for n in range(1, 8):
        calls.append(in_thread(held, n))
        until(lambda n=n: held.stats.queue_size == n)
    gate.open()
    for call in calls:
        call.result(20)
    assert gate.items == list(range(8))


def test_nothing_starts_before_the_first_call() -> None:
    before = threading.active_count()
    made = batched.BatchProcessor(lambda items: items)
    made.start()
    assert threading.active_count() <= before
    assert made(1) == 1


# ------------------------------------------------------------------------------------ methods


def test_a_processor_for_each_instance() -> None:
    two, ten = Scale(2), Scale(10)
    assert (two.times(3), ten.times(3), two.times([1, 2])) == (6, 30, [2, 4])
    assert [n for batch in two.batches for n in batch] == [3, 1, 2]
    assert two.times.stats.total_processed == 3
    assert Scale.times(ten, 4) == 40


def test_a_method_is_equal_to_itself() -> None:
    two, other = Scale(2), Scale(2)
    assert two.times == two.times
    assert len({two.times, two.times, other.times}) == 2
    assert two.times != other.times
    assert doubled == doubled
    assert doubled != atripled


def test_class_methods(run: Callable[..., Any]) -> None:
    class Model:
        @classmethod
        @batched.dynamically
        def named(cls, items: list[int]) -> list[Any]:
            return [(cls.__name__, item) for item in items]

    class Derived(Model):
        pass

    named: Any = Model.named
    assert named(1) == ("Model", 1)
    derived: Any = Derived().named
    assert derived([1]) == [("Derived", 1)]

    async def main() -> None:
        assert await derived.acall(2) == ("Derived", 2)

    run(main())


def test_the_class_gives_the_method_itself() -> None:
    assert Scale.times.__name__ == "times"  # type: ignore[attr-defined]


def test_an_instance_is_collected_with_its_processor() -> None:
    scale = Scale(2)
    assert scale.times(1) == 2
    gone = weakref.ref(scale)
    del scale
    until(lambda: gc.collect() >= 0 and gone() is None)


def test_instances_with_slots() -> None:
    class Slotted:
        __slots__ = ("__weakref__", "factor")

        def __init__(self) -> None:
            self.factor = 2

        @batched.dynamically
        def times(self, items: list[int]) -> list[int]:
            return [item * self.factor for item in items]

    assert Slotted().times(4) == 8

    class Refusing:
        __slots__ = ()

        @batched.dynamically
        def times(self, items: list[int]) -> list[int]:
            return items

    with pytest.raises(TypeError, match="'__weakref__' to the __slots__ of"):
        Refusing().times(1)


def test_methods_of_every_kind(run: Callable[..., Any]) -> None:
    class Model:
        def __init__(self, by: int) -> None:
            self.by = by

        @aio.dynamically(batch_size=4)
        async def plus(self, items: list[int]) -> list[int]:
            return [item + self.by for item in items]

        @aio.dynamically
        def minus(self, items: list[int]) -> list[int]:
            return [item - self.by for item in items]

        @staticmethod
        @batched.dynamically
        def doubled(items: list[int]) -> list[int]:
            return [item * 2 for item in items]

    async def main() -> None:
        one, two = Model(1), Model(2)
        assert await one.plus(1) == 2
        assert await two.plus([1, 2]) == [3, 4]
        assert await two.minus([1, 2]) == [-1, 0]
        assert await one.plus.acall(1) == 2
        one.plus.clear_stats()
        assert one.plus.stats.total_processed == 0
        assert two.plus.stats.total_processed == 2
        assert await Model(0).doubled.acall([4]) == [8]

    run(main())


# --------------------------------------------------------------------------- figures and the end


def test_figures_have_their_names() -> None:
    echo = batched.dynamically(batch_size=2, timeout_ms=0)(lambda items: items)
    assert echo.stats == BatchProcessorStats()
    echo([1, 2, 3, 4])
    stats = echo.stats
    assert (stats.queue_size, stats.total_processed) == (0, 4)
    assert stats.avg_batch_size == 4 / stats.total_batches
    assert stats.avg_processing_time > 0
    assert stats.cache_stats is None


def test_failed_items_count_as_processed() -> None:
    def fail(items: list[int]) -> list[int]:
        raise LookupError("no")

    failing = batched.dynamically(fail)
    with pytest.raises(LookupError):
        failing(1)
    assert failing.stats.total_processed == 1


def test_shutdown_answers_what_was_accepted_and_refuses_the_rest(gate: Gate) -> None:
    held = batched.dynamically(batch_size=1)(lambda items: gate.run(items))
    calls = [in_thread(held, "a")]
    gate.entered()
    calls.append(in_thread(held, "b"))
    until(lambda: held.stats.queue_size == 1)
    down = in_thread(held.shutdown)
    until(lambda: not held._inner.healthy)
    with pytest.raises(carpool.BatcherClosed):
        held("c")
    gate.open()
    assert [call.result(20) for call in calls] == [("answer", "a"), ("answer", "b")]
    down.result(20)
    held.shutdown()


def test_shutdown_before_the_first_call_is_nothing() -> None:
    echo = batched.dynamically(lambda items: items)
    echo.shutdown()
    assert echo(1) == 1


def test_shutdown_of_an_asynchronous_processor(run: Callable[..., Any]) -> None:
    async def main() -> None:
        echo = aio.dynamically(lambda items: items)
        await echo.shutdown()
        assert await echo(1) == 1
        await echo.shutdown()
        with pytest.raises(carpool.BatcherClosed):
            await echo(2)

    run(main())


# ------------------------------------------------------------------------------------- errors


def test_wrong_lengths_are_errors() -> None:
    short = batched.dynamically(timeout_ms=NEVER_MS, batch_size=3)(lambda items: items[1:])
    text = r"Batch output length \(2\) does not match batch input length \(3\)"
    with pytest.raises(AssertionError, match=text) as caught:
        short([1, 2, 3])
    assert isinstance(caught.value, BatchOutputLengthError)
    assert isinstance(caught.value, carpool.BatchLengthError)


@pytest.mark.parametrize("output", [None, 3, iter([1]), "a", {1: 2}, {1}])
def test_what_has_no_rows_is_an_error(output: Any) -> None:
    with pytest.raises(carpool.BatchLengthError):
        batched.dynamically(lambda items: output)(1)


def test_each_caller_has_an_exception_of_its_own() -> None:
    original = KeyError("which")

    def fail(items: list[int]) -> list[int]:
        raise original

    failing = batched.dynamically(fail, 2, NEVER_MS)
    calls = [in_thread(failing, n) for n in range(2)]
    errors = [call.exception(20) for call in calls]
    assert [type(error) for error in errors] == [KeyError, KeyError]
    assert len({id(error) for error in [*errors, original]}) == 3
    assert all(error is not None and error.__cause__ is original for error in errors)


def test_an_exception_among_the_rows_is_raised_for_its_item_alone() -> None:
    def halves(items: list[Any]) -> list[Any]:
        return [item / 2 if item else ValueError("nothing") for item in items]

    halved = batched.dynamically(halves, 2, NEVER_MS)
    calls = [in_thread(halved, n) for n in (0, 8)]
    assert isinstance(calls[0].exception(20), ValueError)
    assert calls[1].result(20) == 4.0
    with pytest.raises(ValueError, match="nothing"):
        halved([2, 0])


def test_an_error_in_a_list_fails_the_call_and_gives_up_the_rest(gate: Gate) -> None:
    def some(items: list[int]) -> list[int]:
        gate.run(items)
        if 1 in items:
            raise ValueError("one")
        return items

    failing = batched.dynamically(some, 1, 0.0)
    call = in_thread(failing, [0, 1, 2, 3])
    gate.release(2)
    assert isinstance(call.exception(20), ValueError)
    until(lambda: failing.stats.queue_size == 0)
    gate.open()
    assert failing(5) == 5
    assert 3 not in gate.items


def test_a_cancelled_call_never_reaches_the_handler(gate: Gate, run: Callable[..., Any]) -> None:
    held = batched.dynamically(batch_size=1)(lambda items: gate.run(items))

    async def main() -> None:
        first = asyncio.create_task(held.acall(0))
        await asyncio.to_thread(gate.entered)
        second = asyncio.create_task(held.acall([1, 2]))
        await auntil(lambda: held.stats.queue_size == 2)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.open()
        assert await first == ("answer", 0)
        assert await held.acall(3) == ("answer", 3)

    run(main())
    assert gate.items == [0, 3]


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be a whole number from 1, not 0"),
        ({"batch_size": "many"}, TypeError, "batch_size must be a whole number from 1, not 'many'"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be a whole number"),
        ({"batch_size": True}, TypeError, "batch_size must be a whole number"),
        ({"timeout_ms": -1}, ValueError, "timeout_ms must be a number of milliseconds from 0"),
        ({"timeout_ms": float("nan")}, ValueError, "timeout_ms must be a number of milliseconds"),
        ({"timeout_ms": "5"}, TypeError, "timeout_ms must be a number of milliseconds"),
        ({"small_batch_threshold": "a"}, TypeError, "small_batch_threshold must be a number"),
    ],
)
@pytest.mark.parametrize(
    "dynamically",
    [batched.dynamically, inference.dynamically, aio.dynamically, aio.inference.dynamically],
)
def test_settings_are_checked_at_once(
    dynamically: Any, settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        dynamically(**settings)(lambda items: items)

    def method(self: Any, items: Any) -> Any:
        return items

    with pytest.raises(error, match=text):
        dynamically(**settings)(method)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"max_batch_length": 0}, ValueError, "max_batch_length must be a whole number from 1"),
        ({"max_batch_length": "a"}, TypeError, "max_batch_length must be a whole number from 1"),
        ({"priority_strategy": "first"}, ValueError, "not a valid PriorityStrategy"),
        ({"cache": {}}, TypeError, "cache must have the methods of AsyncCache"),
        ({"batch_item_cls": int}, TypeError, "batch_item_cls must be a subclass of AsyncBatchItem"),
        ({"batch_item_cls": "a"}, TypeError, "batch_item_cls must be a subclass of AsyncBatchItem"),
    ],
)
@pytest.mark.parametrize("dynamically", [aio.dynamically, aio.inference.dynamically])
def test_settings_of_aio_are_checked_at_once(
    dynamically: Any, settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        dynamically(**settings)(lambda items: items)


def test_numbers_of_numpy_are_numbers() -> None:
    np = pytest.importorskip("numpy")
    sized = batched.dynamically(batch_size=np.int64(2), timeout_ms=np.float32(1))(lambda xs: xs)
    assert sized([1, 2, 3]) == [1, 2, 3]


# ------------------------------------------------------------------------- constructors, pickles


def test_constructors_by_position_and_name(run: Callable[..., Any]) -> None:
    np = pytest.importorskip("numpy")
    assert batched.BatchProcessor(lambda xs: xs, 4, 1.0, 2)([1, 2]) == [1, 2]
    model = inference.ModelBatchProcessor(
        lambda f: f["x"] * 2, batch_size=4, pad_tokens={"x": 1}, padding_side="left"
    )
    assert model({"x": np.ones((2, 3))}).tolist() == [[2.0] * 3] * 2
    assert (model.pad_tokens, model.padding_side, model.spread_kwargs) == ({"x": 1}, "left", False)

    async def main() -> None:
        plain = aio.AsyncBatchProcessor(func=lambda xs: xs, batch_size=4)
        assert await plain([1, 2]) == [1, 2]
        amodel = aio.inference.AsyncModelBatchProcessor(
            lambda x: x, spread_kwargs=True, max_batch_length=8
        )
        assert (await amodel(x=np.ones((2, 3)))).tolist() == [[1.0] * 3] * 2

    run(main())


@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=lambda one: one.__name__)
def test_pickles(pickler: Any) -> None:
    assert pickle.loads(pickler.dumps(doubled)) is doubled
    assert pickle.loads(pickler.dumps(Scale.times)) is Scale.times
    assert pickle.loads(pickler.dumps(Scale(3).times))(5) == 15


def test_cloudpickle_takes_what_has_no_place() -> None:
    factor = 3

    @batched.dynamically(batch_size=5)
    def local(items: list[int]) -> list[int]:
        return [item * factor for item in items]

    class Local:
        @batched.dynamically
        def local(self, items: list[int]) -> list[int]:
            return [item * factor for item in items]

    again = pickle.loads(cloudpickle.dumps(local))
    assert again is not local
    assert again([1, 2]) == [3, 6]
    assert pickle.loads(cloudpickle.dumps(Local))().local(2) == 6
