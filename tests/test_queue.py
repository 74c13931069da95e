"""Queue: its bound, what happens to the call that meets it full, and the order of the others."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, BatcherClosed, QueueFull, batched
from gates import WAYS, Gate, batched_by, identity, in_thread, until


class Item:
    """Something a weak reference can watch."""


def test_the_bound_counts_pending_requests_only(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=1, max_queue=3)
    running = f.submit("running")
    gate.entered()
    pending = [f.submit(name) for name in "abc"]
    assert f.stats.pending == 3
    with pytest.raises(QueueFull):
        f.submit("d")
    gate.release()
    assert running.result() == ("answer", "running")
    gate.entered(2)  # "a" has left the queue
    late = f.submit("e")
    gate.open()
    assert [future.result()[1] for future in [*pending, late]] == ["a", "b", "c", "e"]
    assert gate.items == ["running", "a", "b", "c", "e"]


@pytest.mark.parametrize("kind", ["call", "submit", "acall"])
def test_a_refusal_names_the_bound_and_what_to_do(kind: str, gate: Gate) -> None:
    f = batched(gate.handler, max_queue=7, name="crowded")
    f.submit("running")
    gate.entered()
    for number in range(7):
        f.submit(number)

    async def main() -> None:
        {"call": f, "submit": f.submit, "acall": f.acall}[kind]("one too many")

    with pytest.raises(QueueFull) as caught:
        asyncio.run(main())
    assert "7" in str(caught.value)
    assert "max_queue" in str(caught.value) or "overflow" in str(caught.value)
    assert f.stats.rejected == 1
    assert f.stats.submitted == 9
    assert identity(f.stats)


def test_a_refused_item_is_given_back_and_not_kept(gate: Gate) -> None:
    f = batched(gate.handler, max_queue=1)
    f.submit("running")
    gate.entered()
    kept = f.submit("pending")
    item = Item()
    watch = weakref.ref(item)
    with pytest.raises(QueueFull):
        f.submit(item)
    assert watch() is item
    del item
    gc.collect()
    assert watch() is None
    gate.open()
    kept.result()
    assert gate.items == ["running", "pending"]


def test_a_refusal_hurts_nobody_else(gate: Gate) -> None:
    f = batched(gate.handler, max_queue=2)
    futures = [f.submit("running")]
    gate.entered()
    futures += [f.submit("a"), f.submit("b")]
    for _ in range(100):
        with pytest.raises(QueueFull):
            f.submit("refused")
    gate.open()
    assert [future.result()[1] for future in futures] == ["running", "a", "b"]
    assert gate.batches == [["running"], ["a", "b"]]
    assert f.stats.rejected == 100


def test_cancelling_a_pending_request_frees_its_place(gate: Gate) -> None:
    f = batched(gate.handler, max_queue=2)
    f.submit("running")
    gate.entered()
    a, b = f.submit("a"), f.submit("b")
    assert a.cancel()
    c = f.submit("c")
    with pytest.raises(QueueFull):
        f.submit("d")
    gate.open()
    assert b.result() == ("answer", "b")
    assert c.result() == ("answer", "c")
    assert gate.items == ["running", "b", "c"]


def test_a_place_can_be_freed_any_number_of_times(gate: Gate) -> None:
    f = batched(gate.handler, max_queue=1)
    f.submit("running")
    gate.entered()
    for number in range(1000):  # dead handles do not fill the queue either
        assert f.submit(number).cancel()
    last = f.submit("last")
    with pytest.raises(QueueFull):
        f.submit("more")
    gate.open()
    assert last.result() == ("answer", "last")
    assert gate.items == ["running", "last"]
    assert f.stats.cancelled == 1000


def test_a_queue_larger_than_a_batch_leaves_in_order(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=10)
    f.submit("running")
    gate.entered()
    futures = [f.submit(number) for number in range(95)]
    gate.open()
    assert [future.result() for future in futures] == [("answer", number) for number in range(95)]
    assert gate.items == ["running", *range(95)]
    assert [len(batch) for batch in gate.batches] == [1] + [10] * 9 + [5]


def test_the_default_bound_is_ten_thousand() -> None:
    with Batcher() as b:
        futures = [b.submit(number) for number in range(10_000)]
        with pytest.raises(QueueFull, match=r"10.?000"):
            b.submit("one too many")
        assert b.next_batch().items == list(range(32))
        b.submit("room again")
        b.close(drain=False)
        assert all(future.done() for future in futures)


# -- overflow="wait" ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["call", "submit"])
def test_threads_wait_for_room_and_never_exceed_the_bound(kind: str, gate: Gate) -> None:
    f = batched(gate.handler, max_queue=1, overflow="wait")
    call: Callable[[Any], Any] = f if kind == "call" else lambda item: f.submit(item).result()
    running = in_thread(call, "running")
    gate.entered()
    waiting = [in_thread(call, number) for number in range(8)]
    for number in range(8):
        until(lambda: f.stats.pending)
        gate.release()
        gate.entered(number + 2)
    gate.open()
    assert running.result(20) == ("answer", "running")
    assert [caller.result(20) for caller in waiting] == [("answer", number) for number in range(8)]
    assert [len(batch) for batch in gate.batches] == [1] * 9  # a queue of one fills no batch of two
    assert f.stats.rejected == 0


def test_awaiting_callers_wait_for_room_without_holding_the_loop(gate: Gate) -> None:
    async def main() -> None:
        f = batched(gate.handler, max_queue=2, overflow="wait")
        running = f.acall("running")
        await gate.aentered()
        waiting = [asyncio.create_task(caller(f, number)) for number in range(9)]
        for _ in range(20):
            await asyncio.sleep(0)  # the loop turns
        for number in range(4):
            gate.release()
            await gate.aentered(number + 2)
            assert len(gate.batches[-1]) <= 2
        gate.open()
        assert await asyncio.gather(*waiting) == [("answer", number) for number in range(9)]
        assert await running == ("answer", "running")
        assert gate.items == ["running", *range(9)]  # admitted in the order of the calls
        assert f.stats.rejected == 0

    asyncio.run(main())


async def caller(f: Any, item: Any) -> Any:
    return await f.acall(item)


def test_those_who_wait_for_room_are_not_pending_yet(gate: Gate) -> None:
    async def main() -> None:
        f = batched(gate.handler, max_queue=2, overflow="wait")
        calls = [f.acall("running")]
        await gate.aentered()
        for number in range(9):
            calls.append(f.acall(number))
            assert f.stats.pending <= 2
            assert identity(f.stats)
        gate.open()
        await asyncio.gather(*calls)
        assert f.stats.submitted == f.stats.answered == 10

    asyncio.run(main())


def test_a_newcomer_does_not_overtake_those_who_wait_for_room(gate: Gate) -> None:
    async def main() -> None:
        f = batched(gate.handler, max_queue=1, overflow="wait")
        calls = [f.acall("running")]
        await gate.aentered()
        calls += [f.acall("a"), f.acall("b"), f.acall("c")]
        gate.release()
        await gate.aentered(2)
        calls += [f.acall("d"), f.acall("e")]
        gate.open()
        assert [result[1] for result in await asyncio.gather(*calls)] == [
            "running",
            "a",
            "b",
            "c",
            "d",
            "e",
        ]
        assert gate.items == ["running", "a", "b", "c", "d", "e"]

    asyncio.run(main())


@pytest.mark.parametrize("way", WAYS)
def test_cancelling_a_call_that_waits_for_room(way: str, new_gate: Callable[..., Gate]) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched_by(way, gate, max_queue=1, overflow="wait")
        running = f.acall("running")
        await gate.aentered()
        a, b, c = (asyncio.create_task(caller(f, name)) for name in "abc")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        b.cancel()
        with pytest.raises(asyncio.CancelledError):
            await b
        gate.open()
        assert await asyncio.gather(running, a, c) == [
            ("answer", name) for name in ("running", "a", "c")
        ]
        assert gate.items == ["running", "a", "c"]
        assert identity(f.stats)

    asyncio.run(main())


def test_cancelling_the_pending_one_admits_the_waiting_one(gate: Gate) -> None:
    f = batched(gate.handler, max_queue=1, overflow="wait")
    f.submit("running")
    gate.entered()
    pending = f.submit("pending")
    waiting = in_thread(f.submit, "waiting")
    assert pending.cancel()
    admitted = waiting.result(20)  # submit has returned: there was room
    assert gate.items == ["running"]
    gate.open()
    assert admitted.result() == ("answer", "waiting")
    assert gate.items == ["running", "waiting"]


@pytest.mark.parametrize("drain", [True, False])
def test_closing_ends_the_wait_for_room(drain: bool, gate: Gate) -> None:
    f = batched(gate.handler, max_queue=1, overflow="wait")
    f.submit("running")
    gate.entered()
    pending = f.submit("pending")
    waiting = [in_thread(f, number) for number in range(3)]
    closing = in_thread(f.close, drain)
    if not drain:  # the pending one is told while the handler still runs
        assert isinstance(pending.exception(20), BatcherClosed)
    gate.open()
    assert closing.result(20) is True
    if drain:
        assert pending.result(20) == ("answer", "pending")
    outcomes = [one.exception(20) for one in waiting]
    assert all(error is None or isinstance(error, BatcherClosed) for error in outcomes)
    assert [one for one in waiting if one.exception() is None] == [
        one for one, item in zip(waiting, range(3), strict=True) if item in gate.items
    ]
    assert identity(f.stats)


def test_a_batcher_that_waits_for_room_goes_on_when_a_batch_is_taken() -> None:
    with Batcher(max_queue=2, overflow="wait", max_batch_size=1) as b:
        futures = [b.submit("a"), b.submit("b")]
        waiting = in_thread(b.submit, "c")
        first = b.next_batch()
        assert first.items == ["a"]
        futures.append(waiting.result(20))
        for batch in (first, b.next_batch(), b.next_batch()):
            batch.complete([item.upper() for item in batch.items])
        assert [future.result() for future in futures] == ["A", "B", "C"]


def test_many_threads_against_a_small_queue_lose_nothing() -> None:
    f = batched(
        lambda items: [item * 2 for item in items], max_queue=3, max_batch_size=2, overflow="wait"
    )
    callers = [
        in_thread(lambda base: [f(base + step) for step in range(25)], base * 100)
        for base in range(16)
    ]
    for base, one in enumerate(callers):
        assert one.result(20) == [(base * 100 + step) * 2 for step in range(25)]
    assert f.stats.answered == 16 * 25
    assert f.stats.batch_sizes.max <= 2
