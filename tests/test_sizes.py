"""`batch_sizes`: the handler sees allowed sizes only, callers get their rows only, and `warmup` shows each size once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from carpool import Batcher, BatchLengthError, RequestTooLarge, batched
from carpool._options import Options
from carpool._submit.warmup import sizes_of
from gates import LIMIT, WAYS, Gate, in_thread

SIZES = [1, 2, 4, 8]


def plain(items: list[Any]) -> list[Any]:
    return items


def test_lists_are_filled_up_with_repeats_of_the_last_item() -> None:
    gate = Gate()
    f = batched(gate.handler, batch_sizes=SIZES)
    first = f.submit("first")
    gate.entered()
    futures = [f.submit(number) for number in range(3)]
    gate.open()
    assert first.result() == ("answer", "first")
    assert [future.result() for future in futures] == [("answer", number) for number in range(3)]
    assert gate.batches == [["first"], [0, 1, 2, 2]]
    assert f.stats.batch_sizes.max == 3, "requests are counted, not rows"


def test_rows_that_fill_up_a_padded_batch_count_for_its_cost(gate: Gate) -> None:
    f = batched(gate.handler, batch_sizes=SIZES, max_batch_cost=1000, cost=len, padded_cost=True)
    first = f.submit("first")
    gate.entered()
    items = ["x" * length for length in (200, 200, 200, 200, 200, 90, 300, 90, 90, 90, 500, 1000)]
    futures = [f.submit(item) for item in items]
    gate.open()
    answers = [future.result(LIMIT) for future in [first, *futures]]
    assert [item for _, item in answers] == ["first", *items]
    assert max(len(batch) * max(map(len, batch)) for batch in gate.batches) <= 1000
    # Five would be filled up to eight.
    assert [len(batch) for batch in gate.batches[1:3]] == [4, 2]


def test_a_lone_request_is_filled_up_too() -> None:
    f = batched(plain, batch_sizes=[4, 8], max_batch_cost=1000, cost=len, padded_cost=True)
    assert f("x" * 250) == "x" * 250
    with pytest.raises(RequestTooLarge, match=r"costs 251.*smallest of batch_sizes each 250"):
        f("x" * 251)
    f.configure(max_batch_cost=1004)
    assert f("x" * 251) == "x" * 251
    assert list(f.map(["x" * 252, "x"], return_exceptions=True))[1] == "x"
    with pytest.raises(ValueError, match=r"batch of 4.*every call would be refused"):
        batched(plain, batch_sizes=[4, 8], max_batch_cost=1000, cost=251, padded_cost=True)
    with pytest.raises(ValueError, match="every call would be refused"):
        batched(plain, batch_sizes=[4, 8], max_batch_cost=3, padded_cost=True)


def test_every_parameter_is_filled_up_and_shared_ones_stay_one_value() -> None:
    seen: list[Any] = []
    gate = threading.Event()
    entered = threading.Event()

    @batched(batch_sizes=[1, 4], shared=("scale",))
    def f(xs: list[int], ys: list[int], scale: int) -> list[int]:
        entered.set()
        gate.wait()
        seen.append((xs, ys, scale))
        return [scale * (x + y) for x, y in zip(xs, ys, strict=True)]

    first = f.submit(0, 0, 1)
    entered.wait()
    futures = [f.submit(number, ys=10, scale=2) for number in range(2)]
    gate.set()
    assert first.result() == 0
    assert [future.result() for future in futures] == [20, 22]
    assert seen == [([0], [0], 1), ([0, 1, 1, 1], [10, 10, 10, 10], 2)]


@pytest.mark.parametrize("way", WAYS)
def test_every_executor_fills_up(way: str) -> None:
    seen: list[int] = []

    def handler(items: list[int]) -> list[int]:
        seen.append(len(items))
        return [2 * item for item in items]

    async def ahandler(items: list[int]) -> list[int]:
        return handler(items)

    executor: Any = "thread" if way == "thread-async" else way
    is_async = way in ("thread-async", "loop")
    f: Any = batched(batch_sizes=[4, 8], executor=executor)(ahandler if is_async else handler)

    async def main() -> list[int]:
        return list(await asyncio.gather(*(f.acall(number) for number in range(3))))

    if way == "caller":
        assert f(21) == 42
    else:
        assert asyncio.run(main()) == [0, 2, 4]
    assert set(seen) == {4}
    f.close()


def test_context_and_setup_go_with_it() -> None:
    import contextlib

    seen: list[int] = []

    @batched(batch_sizes=[2], max_batch_size=2, setup=lambda: None, context=contextlib.nullcontext)
    def f(items: list[int]) -> list[int]:
        seen.append(len(items))
        return items

    assert (f(1), seen) == (1, [2])


@pytest.mark.parametrize("rows", [3, 5, 0])
def test_the_handler_must_return_a_row_per_item_it_saw(rows: int) -> None:
    f = batched(lambda items: [1] * rows, name="model", batch_sizes=[4])  # type: ignore[misc]
    with pytest.raises(BatchLengthError, match=f"{rows} rows for a batch of 1 requests.*4 items"):
        f(1)
    nothing: Any = batched(lambda items: None, name="model", batch_sizes=[4])  # type: ignore[misc]
    with pytest.raises(BatchLengthError, match="4 rows, one per item"):
        nothing(1)


def test_an_exception_in_a_row_of_nobody_is_dropped() -> None:
    f = batched(lambda items: [*items[:1], *[ValueError()] * (len(items) - 1)], batch_sizes=[4])  # type: ignore[misc]
    assert f(1) == 1


def test_arrays_are_cut() -> None:
    numpy = pytest.importorskip("numpy")
    f = batched(lambda items: numpy.array(items) * 2.0, batch_sizes=[4])  # type: ignore[misc]
    assert f(21) == 42


def test_a_custom_loop_sees_the_same() -> None:
    batcher: Batcher[int, int] = Batcher(batch_sizes=[2, 4])
    with batcher:
        futures = [batcher.submit(number) for number in range(3)]
        batch = batcher.next_batch()
        assert batch is not None
        assert (len(batch), batch.padded_size, batch.items) == (3, 4, [0, 1, 2, 2])
        with pytest.raises(IndexError):
            batch.set(3, 9)
        batch.complete([10 * item for item in batch.items])
        assert [future.result() for future in futures] == [0, 10, 20]
        one = batcher.submit(5)
        batch = batcher.next_batch()
        assert batch is not None
        batch.set(0, 6)
        assert (one.result(), batch.done) == (6, True)


def test_a_split_batch_fills_up_its_parts() -> None:
    batcher: Batcher[int, int] = Batcher(batch_sizes=[2, 4])
    with batcher:
        futures = [batcher.submit(number) for number in range(4)]
        batch = batcher.next_batch()
        assert batch is not None
        rest = batch._split(1)
        assert (batch.items, rest.items) == ([0, 0], [1, 2, 3, 3])
        batch.complete(batch.items)
        rest.complete(rest.items)
        assert [future.result() for future in futures] == [0, 1, 2, 3]


def test_a_pull_of_few_gets_a_size_it_asked_for() -> None:
    batcher: Batcher[int, int] = Batcher(batch_sizes=SIZES)
    with batcher:
        futures = [batcher.submit(number) for number in range(8)]
        sizes = []
        while (batch := batcher.next_batch(max_size=5, block=False)) is not None:
            sizes.append((len(batch), batch.padded_size))
            batch.complete(batch.items)
        assert sizes == [(4, 4), (4, 4)]
        assert [future.result() for future in futures] == list(range(8))


def test_the_largest_size_is_the_largest_batch() -> None:
    batcher: Batcher[int, int] = Batcher(batch_sizes=[1, 3], wait_ms=60_000)
    with batcher:
        futures = [batcher.submit(number) for number in range(4)]
        batch = batcher.next_batch()
        assert batch is not None
        assert (len(batch), batch.reason) == (3, "full")
        batch.complete(batch.items)
        batcher.flush()
        batch = batcher.next_batch()
        assert batch is not None
        batch.complete(batch.items)
        assert [future.result() for future in futures] == list(range(4))


@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_warmup_runs_every_size_once(executor: Any) -> None:
    seen: list[list[str]] = []

    @batched(batch_sizes=[4, 1, 8], executor=executor)
    def f(items: list[str]) -> list[str]:
        seen.append(items)
        return items

    f.warmup("example")
    assert seen == [["example"] * 1, ["example"] * 4, ["example"] * 8]
    assert f.stats.submitted == 13
    f.close()


@pytest.mark.parametrize("executor", ["thread", "loop"])
@pytest.mark.parametrize("wait_ms", [0, 60_000])
def test_warmup_of_async_handlers_is_awaited(executor: Any, wait_ms: float) -> None:
    seen: list[int] = []

    @batched(batch_sizes=SIZES, executor=executor, wait_ms=wait_ms)
    async def f(items: list[int]) -> list[int]:
        seen.append(len(items))
        return items

    asyncio.run(f.warmup(1))
    assert seen == SIZES
    f.close()


def test_warmup_of_a_plain_handler_on_a_loop_is_awaited() -> None:
    seen: list[int] = []

    @batched(batch_sizes=SIZES, executor="loop")
    def f(items: list[int]) -> list[int]:
        seen.append(len(items))
        return items

    async def main() -> None:
        warming: Any = f.warmup(1)
        await warming

    asyncio.run(main())
    assert seen == SIZES


def test_warmup_keeps_to_itself_and_lets_others_go() -> None:
    seen: list[list[int]] = []

    @batched(batch_sizes=[2], wait_ms=60_000)
    def f(items: list[int]) -> list[int]:
        seen.append(items)
        return items

    other = f.submit(7)
    f.warmup(1)
    assert other.result() == 7
    assert sorted(seen) == [[1, 1], [7, 7]]


def test_warmup_binds_like_a_call_and_works_on_methods() -> None:
    class Model:
        def __init__(self) -> None:
            self.seen: list[tuple[list[int], list[int]]] = []

        @batched(batch_sizes=[1, 2])
        def run(self, xs: list[int], ys: list[int]) -> list[int]:
            self.seen.append((xs, ys))
            return xs

    model = Model()
    model.run.warmup(1, ys=2)
    Model.run.warmup(model, 3, 4)  # type: ignore[attr-defined]
    assert model.seen == [([1], [2]), ([1, 1], [2, 2]), ([3], [4]), ([3, 3], [4, 4])]
    with pytest.raises(TypeError):
        model.run.warmup()


def test_warmup_fits_the_budget() -> None:
    seen: list[int] = []

    @batched(batch_sizes=SIZES, max_batch_cost=10, cost=len)
    def f(items: list[str]) -> list[str]:
        seen.append(len(items))
        return items

    f.warmup("xxxxx")
    assert seen == SIZES


@pytest.mark.parametrize("overflow", ["raise", "wait", "shed"])
@pytest.mark.parametrize("executor", ["thread", "caller", "loop"])
@pytest.mark.parametrize(
    ("max_queue", "expected"), [(8, [1, 2, 4, 8]), (5, [1, 2, 4, 8]), (2, [1, 2])]
)
def test_warmup_runs_what_a_small_queue_can_hold(
    executor: Any, overflow: Any, max_queue: int, expected: list[int]
) -> None:
    seen: list[int] = []

    def handler(items: list[int]) -> list[int]:
        seen.append(len(items))
        return items

    f = batched(
        handler, executor=executor, batch_sizes=[1, 2, 4, 8], max_queue=max_queue, overflow=overflow
    )
    if executor == "loop":
        asyncio.run(f.warmup(1))
    else:
        f.warmup(1)
    assert seen == expected
    f.close()


@pytest.mark.parametrize("executor", ["thread", "loop"])
@pytest.mark.parametrize("refuse_late", [False, True])
def test_warmup_has_all_the_time_it_takes(executor: Any, refuse_late: bool) -> None:
    seen: list[int] = []
    slow = threading.Event()

    def handler(items: list[int]) -> list[int]:
        seen.append(len(items))
        slow.wait(0.02)  # longer than anybody may wait
        return items

    f = batched(
        handler,
        executor=executor,
        batch_sizes=[1, 2, 4],
        timeout_ms=1e-6,
        refuse_late=refuse_late,
    )
    if executor == "loop":
        asyncio.run(f.warmup(1))
    else:
        f.warmup(1)
    assert seen == [1, 2, 4]
    f.close()


def test_warmup_runs_the_sizes_of_now() -> None:
    seen: list[int] = []

    @batched(max_batch_size=2)
    def f(items: list[int]) -> list[int]:
        seen.append(len(items))
        return items

    f.configure(max_batch_size=5)
    f.warmup(1)
    assert seen == [1, 2, 4, 5]
    f.close()


def test_what_the_handler_raises_ends_the_warmup() -> None:
    seen: list[int] = []

    def handler(items: list[int]) -> list[int]:
        seen.append(len(items))
        if len(items) > 1:
            raise ValueError("too many")
        return items

    async def ahandler(items: list[int]) -> list[int]:
        return handler(items)

    with pytest.raises(ValueError, match="too many"):
        batched(handler, batch_sizes=SIZES).warmup(1)
    with pytest.raises(ValueError, match="too many"):
        asyncio.run(batched(ahandler, batch_sizes=SIZES).warmup(1))
    assert seen == [1, 2, 1, 2]


def test_without_sizes_warmup_runs_the_powers_of_two() -> None:
    assert sizes_of(Options(max_batch_size=1)) == (1,)
    assert sizes_of(Options(max_batch_size=6)) == (1, 2, 4, 6)
    assert sizes_of(Options(max_batch_size=8)) == (1, 2, 4, 8)
    assert sizes_of(Options(batch_sizes=[8, 1, 8])) == (1, 8)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ([], ValueError),
        ([0], ValueError),
        ([1, -4], ValueError),
        ([1, 33], ValueError),
        (4, TypeError),
        ("48", TypeError),
        ([1, "4"], TypeError),
        ([1, 2.0], TypeError),
        ([True], TypeError),
        ({1, 2}, TypeError),
    ],
)
def test_wrong_sizes_are_refused(value: Any, error: type[Exception]) -> None:
    for make in (lambda: batched(plain, batch_sizes=value), lambda: Batcher(batch_sizes=value)):
        with pytest.raises(error, match="batch_sizes"):
            make()


def test_a_contradiction_says_what_to_change() -> None:
    with pytest.raises(ValueError, match=r"has 64, but max_batch_size=32.*raise max_batch_size"):
        batched(plain, batch_sizes=[1, 64])
    assert batched(plain, batch_sizes=[1, 64], max_batch_size=64)(1) == 1


def test_cancelled_requests_are_no_rows() -> None:
    gate = Gate()
    f = batched(gate.handler, batch_sizes=[1, 2, 4])
    first = f.submit(0)
    gate.entered()
    futures = [f.submit(number) for number in (1, 2, 3)]
    assert futures[1].cancel()
    gate.open()
    assert [one.result() for one in (first, futures[0], futures[2])] == [
        ("answer", 0),
        ("answer", 1),
        ("answer", 3),
    ]
    assert gate.batches == [[0], [1, 3]]


def test_threads_get_their_own_rows_from_filled_up_batches() -> None:
    f = batched(
        lambda items: [item * 3 for item in items], batch_sizes=[1, 3, 8], executor="caller"
    )  # type: ignore[misc]

    def call(start: int) -> None:
        for number in range(start, start + 200):
            assert f(number) == 3 * number

    for outcome in [in_thread(call, 1000 * thread) for thread in range(6)]:
        outcome.result(LIMIT)
