"""Many at once: a list of items for one that waits, through the engine's own interface."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carpool import (
    BatchAbandoned,
    BatcherClosed,
    DeadlineExceeded,
    QueueFull,
    RequestTooLarge,
    WouldDeadlock,
    batched,
)
from gates import Gate, batched_by, identity, in_thread, run_script, until


def call_many(function: Any, items: Any, **terms: Any) -> list[Any]:
    return function._station.start().call_many(function, items, **terms)  # type: ignore[no-any-return]


def answers(*items: Any) -> list[Any]:
    return [("answer", item) for item in items]


@pytest.mark.parametrize("way", ["thread", "thread-async", "caller"])
def test_results_come_in_order(gate: Gate, way: str) -> None:
    gate.open()
    function = batched_by(way, gate, max_batch_size=4)
    assert call_many(function, range(30)) == answers(*range(30))
    assert all(len(batch) <= 4 for batch in gate.batches)
    assert gate.items == list(range(30))
    assert function.stats.answered == 30


def test_any_iterable_and_an_empty_one(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler)
    assert call_many(function, (n for n in range(3))) == answers(0, 1, 2)
    assert call_many(function, []) == []
    with pytest.raises(TypeError):
        call_many(function, 5)


def test_an_iterable_that_raises_submits_nothing(gate: Gate) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    function = batched(gate.handler)
    with pytest.raises(ValueError, match="no more"):
        call_many(function, items())
    assert function.stats.submitted == 0


def test_a_list_may_be_longer_than_the_queue(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=4, max_queue=8)
    assert call_many(function, range(1000)) == answers(*range(1000))


def test_exceptions_stand_in_their_places() -> None:
    def handler(items: list[int]) -> list[Any]:
        if 7 in items:
            raise RuntimeError("the whole batch")
        return [ValueError(item) if item == 2 else item for item in items]

    function = batched(handler, max_batch_size=3)
    got = call_many(function, range(9))
    assert [one for one in got if not isinstance(one, Exception)] == [0, 1, 3, 4, 5]
    assert isinstance(got[2], ValueError)
    lost = got[6:]
    assert all(isinstance(one, RuntimeError) for one in lost)
    assert len({id(one) for one in lost}) == 3, "each has its own"


def test_a_single_call_waits_for_two_batches_at_most(gate: Gate) -> None:
    function = batched(gate.handler, max_batch_size=2)
    many = in_thread(call_many, function, range(100))
    gate.entered()
    single = function.submit("single")
    gate.open()
    assert single.result(20) == ("answer", "single")
    assert many.result(20) == answers(*range(100))
    assert gate.items.index("single") <= 2 + 2 * 2


@pytest.mark.parametrize(
    "options",
    [{"cost": 10}, {"cost": lambda item: 10}, {"key": lambda item: item}],
    ids=["cost", "measured", "keys"],
)
def test_however_few_of_them_fit_a_batch(gate: Gate, options: dict[str, Any]) -> None:
    budget = {"max_batch_cost": 10} if "cost" in options else {}
    function = batched(gate.handler, max_batch_size=64, **budget, **options)
    many = in_thread(list, function.map(range(200)))
    gate.entered()
    until(lambda: function.stats.pending == 2)
    single = function.submit("single")
    gate.open()
    assert single.result(20) == ("answer", "single")
    assert many.result(20) == answers(*range(200))
    assert gate.items.index("single") <= 3


def test_a_list_does_not_take_all_the_room_of_single_calls(gate: Gate) -> None:
    function = batched(gate.handler, max_batch_size=4, max_queue=4)
    many = in_thread(call_many, function, range(50))
    gate.entered()
    until(lambda: function.stats.pending == 2)
    singles = [function.submit(f"single {n}") for n in range(2)]
    with pytest.raises(QueueFull):
        function.submit("too many")
    gate.open()
    for single in singles:
        single.result(20)
    assert many.result(20) == answers(*range(50))


def test_a_close_drains_the_list_or_fails_it(new_gate: Callable[..., Gate]) -> None:
    for drain in (True, False):
        gate = new_gate()
        function = batched(gate.handler, max_batch_size=2)
        many = in_thread(call_many, function, range(20))
        gate.entered()
        closing = in_thread(function.close, drain)
        until(lambda function=function: function._station.engine().closed)
        gate.open()
        assert closing.result(20)
        got = many.result(20)
        assert got[:2] == answers(0, 1)
        if drain:
            assert got == answers(*range(20))
        else:
            assert all(isinstance(one, BatcherClosed) for one in got[2:])
            assert len({id(one) for one in got[2:]}) == 18
        assert identity(function.stats)
        with pytest.raises(BatcherClosed):
            function._station.engine().call_many(function, [1])


def test_a_deadline_ends_what_is_not_in_a_batch(gate: Gate) -> None:
    function = batched(gate.handler, max_batch_size=2)
    engine = function._station.start()
    held = function.submit("held")
    gate.entered()
    got = call_many(function, range(20), deadline_ns=engine.now() + 2_000_000)
    assert len(got) == 20
    assert all(isinstance(one, DeadlineExceeded) for one in got)
    assert engine.pending == 0
    gate.open()
    assert held.result(20) == ("answer", "held")
    assert gate.items == ["held"]


def test_a_dropped_batch_is_an_error_of_its_own_items() -> None:
    from carpool import Batcher

    batcher: Batcher[int, int] = Batcher(max_batch_size=2)
    engine = batcher._station.engine()
    many = in_thread(engine.call_many, None, range(6))
    for n, batch in enumerate(batcher):
        if n != 1:
            batch.complete(batch.items)
        if n == 2:
            batcher.close(timeout=0)
        del batch
    got = many.result(20)
    assert got[:2] + got[4:] == [0, 1, 4, 5]
    assert all(isinstance(one, BatchAbandoned) for one in got[2:4])


def test_waiting_for_itself_is_found_out() -> None:
    def handler(items: list[Any]) -> list[Any]:
        return [call_many(function, [1])]

    function = batched(handler)
    with pytest.raises(WouldDeadlock):
        function(0)


def test_a_key_for_all_of_them(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler)
    assert call_many(function, range(3), key="k") == answers(0, 1, 2)
    with pytest.raises(TypeError):
        call_many(function, range(3), key=[])
    until(lambda: function._station.engine().keys == 0)


# ---------------------------------------------------------------------------------- without blocking


def test_what_is_asked_for_is_measured_on_each_item(gate: Gate) -> None:
    gate.open()
    function = batched(
        gate.handler, max_batch_cost=10, cost=lambda n: n, key=lambda n: n % 2, max_batch_size=8
    )
    items = [3, 4, 5, 6, 1, 2, 9, 10]
    assert call_many(function, items, asks=function._asks) == answers(*items)
    for batch in gate.batches:
        assert sum(batch) <= 10
        assert len({n % 2 for n in batch}) == 1
    assert function._station.engine().keys == 0

    urgent = function.options(priority=-1, timeout_ms=0)
    late = call_many(function, [2, 4], asks=urgent._asks)
    assert [type(one) for one in late] == [DeadlineExceeded, DeadlineExceeded]


def test_one_item_that_cannot_be_measured_submits_none(gate: Gate) -> None:
    def cost(item: Any) -> int:
        if item == "bad":
            raise LookupError("no price")
        return len(item)

    function = batched(gate.handler, max_batch_cost=3, cost=cost)
    for items, error, told in (
        (["a", "bad"], LookupError, "no price"),
        (["a", "abcd", "ab"], RequestTooLarge, r"costs 4,.*max_batch_cost=3"),
    ):
        with pytest.raises(error, match=told):
            call_many(function, items, asks=function._asks)
    assert gate.items == []
    # The list was refused whole.
    assert (function.stats.submitted, function.stats.rejected) == (3, 3)


def test_a_callback_comes_once_at_the_end(gate: Gate) -> None:
    function = batched(gate.handler, max_batch_size=2)
    engine = function._station.start()
    told: list[int] = []
    window = engine.submit_many(function, range(9), lambda: told.append(window.left))
    gate.entered()
    assert (len(window), window.left, window.take_all(), window.take(0)) == (9, 9, [], None)
    gate.release(3)
    until(lambda: window.left == 3)
    assert told == []
    assert window.take(1) == (("answer", 1),)
    gate.open()
    until(lambda: told)
    assert told == [0]
    assert window.take_all() == answers(0, *range(2, 9))


def test_or_at_each_batch(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=2)
    told: list[Any] = []
    ended = threading.Event()

    def tell() -> None:
        told.append(window.left)
        if window.left == 0:
            ended.set()

    engine = function._station.engine()
    window = engine.submit_many(function, range(9), tell, per_step=True)
    function._station.start()
    assert ended.wait(20)
    until(lambda: len(told) == len(gate.batches) == 5)


def test_awaited_through_a_callback(gate: Gate, run: Callable[..., Any]) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=4)
    engine = function._station.start()

    async def main() -> None:
        event_loop = asyncio.get_running_loop()
        over = asyncio.Event()
        window = engine.submit_many(
            function, range(40), lambda: event_loop.call_soon_threadsafe(over.set)
        )
        await over.wait()
        assert window.take_all() == answers(*range(40))

    run(main())


def test_a_cancel_ends_what_is_not_in_a_batch(gate: Gate) -> None:
    class Item:
        pass

    function = batched(gate.handler, max_batch_size=2)
    engine = function._station.start()
    items = [Item() for _ in range(20)]
    gone = [weakref.ref(item) for item in items[2:]]
    told: list[int] = []
    window = engine.submit_many(function, items, lambda: told.append(1))
    gate.entered()
    window.cancel()
    assert engine.pending == 0
    items.clear()

    def all_gone() -> bool:
        gc.collect()
        return not any(ref() for ref in gone)

    until(all_gone)
    gate.open()
    until(lambda: function.stats.in_flight == 0)
    stats = function.stats
    assert (stats.submitted, stats.cancelled) == (20, 20)
    assert len(gate.items) == 2
    assert told == []


def test_an_interrupted_caller_cancels_its_list() -> None:
    said = run_script(
        """
from carpool import batched
entered, hold, seen = threading.Event(), threading.Event(), []
@batched(max_batch_size=2)
def f(items):
    seen.extend(items)
    entered.set()
    hold.wait()
    return items
engine = f._station.start()
def interrupt():
    entered.wait()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    engine.call_many(f, range(100))
except KeyboardInterrupt:
    say("interrupted", engine.pending)
hold.set()
f.close()
say(seen, f.stats.cancelled)
"""
    )
    assert said == ["interrupted 0", "[0, 1] 100"]


def test_many_lists_at_once(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=8, max_queue=10)
    threads = [in_thread(call_many, function, range(n * 1000, n * 1000 + 300)) for n in range(4)]
    for n, thread in enumerate(threads):
        assert thread.result(20) == answers(*range(n * 1000, n * 1000 + 300))
    stats = function.stats
    assert stats.submitted == stats.answered == 1200
    assert identity(stats)
