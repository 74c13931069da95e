"""Several slots: free ones pull, none of them starves, and neither does a request."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from carpool import Batcher, WouldDeadlock, batched
from gates import LIMIT, Gate, batched_by, in_thread, until


class Stuck(Gate):
    """A gate that holds only the batches with "stuck" in them."""

    def run(self, items: list[Any]) -> list[Any]:
        if "stuck" in items:
            return super().run(items)
        self.batches.append(list(items))
        return list(items)

    async def arun(self, items: list[Any]) -> list[Any]:
        if "stuck" in items:
            return await super().arun(items)
        self.batches.append(list(items))
        await asyncio.sleep(0)
        return list(items)


@pytest.mark.parametrize("way", ["thread", "thread-async", "loop"])
def test_a_batch_that_hangs_holds_its_own_slot_alone(way: str) -> None:
    gate = Stuck()
    f = batched_by(way, gate, max_batch_size=2, max_concurrent_batches=2)

    async def main() -> None:
        stuck = f.acall("stuck")
        await gate.aentered()
        for n in range(20):
            assert await asyncio.wait_for(asyncio.gather(f.acall(n), f.acall(-n)), LIMIT)
        assert f.stats.in_flight == 1
        gate.open()
        await asyncio.wait_for(asyncio.gather(stuck), LIMIT)

    asyncio.run(main())
    assert f.stats.answered == 41
    f.close()


def test_a_caller_that_hangs_holds_its_own_slot_alone() -> None:
    gate = Stuck()
    f = batched_by("caller", gate, max_batch_size=2, max_concurrent_batches=2)
    stuck = in_thread(f, "stuck")
    gate.entered()
    others = [in_thread(lambda: [f(n) for n in range(20)]) for _ in range(3)]
    assert [other.result(LIMIT) for other in others] == [list(range(20))] * 3
    gate.open()
    stuck.result(LIMIT)
    f.close()


@pytest.mark.parametrize("way", ["thread", "thread-async"])
def test_idle_workers_take_turns(way: str) -> None:
    used: list[int] = []

    def handler(items: list[int]) -> list[int]:
        used.append(threading.get_ident())
        return items

    f = batched_by(way, handler, max_concurrent_batches=3)
    for n in range(60):
        assert f.submit(n).result(LIMIT) == n
    assert len(set(used)) == 3, "a worker was never asked"
    f.close()


def test_requests_leave_in_order_however_many_slots_there_are() -> None:
    # On one loop: the order in which handlers are called is that in which their batches leave.
    gate = Gate()
    f = batched_by("loop", gate, max_batch_size=2, max_concurrent_batches=3)

    async def main() -> None:
        calls = [f.acall(n) for n in range(30)]
        await gate.aentered(3)
        gate.open()
        await asyncio.wait_for(asyncio.gather(*calls), LIMIT)

    asyncio.run(main())
    assert gate.batches == [[n, n + 1] for n in range(0, 30, 2)]
    assert gate.most_running == 3
    f.close()


def test_a_loop_that_never_rests_leaves_room_for_another() -> None:
    running = threading.Event()
    enough = threading.Event()

    async def handler(items: list[Any]) -> list[Any]:
        await asyncio.sleep(0)
        return items

    f = batched(handler, max_batch_size=4)

    async def restless() -> None:
        async def caller() -> None:
            while not enough.is_set():
                await f(0)
                running.set()

        await asyncio.gather(*[caller() for _ in range(8)])

    async def other() -> None:
        for n in range(20):
            assert await asyncio.wait_for(f(n), LIMIT) == n

    first = in_thread(asyncio.run, restless())
    try:
        assert running.wait(LIMIT)
        in_thread(asyncio.run, other()).result(LIMIT)
    finally:
        enough.set()
    first.result(LIMIT)
    f.close()


def test_keys_share_the_slots() -> None:
    gate = Gate()
    f = batched_by(
        "thread", gate, max_batch_size=4, max_concurrent_batches=2, key=lambda item: item % 4
    )
    calls = [f.submit(n) for n in range(32)]
    gate.entered(2)
    assert gate.most_running == 2
    gate.open()
    assert [call.result(LIMIT) for call in calls] == [("answer", n) for n in range(32)]
    assert all(len({item % 4 for item in batch}) == 1 for batch in gate.batches)
    f.close()


def test_a_loop_of_ones_own_may_hold_any_number() -> None:
    batcher: Batcher[int, int] = Batcher(max_batch_size=1)
    calls = [batcher.submit(n) for n in range(5)]
    batches = [batcher.next_batch() for _ in range(5)]
    for batch in reversed(batches):
        assert batch is not None
        batch.complete(batch.items)
    assert [call.result(LIMIT) for call in calls] == list(range(5))
    batcher.close()


def test_with_another_slot_a_handler_may_call_itself_as_long_as_there_is_one() -> None:
    def handler(items: list[int]) -> list[int]:
        return [f(item - 1) + 1 if item else 0 for item in items]

    f: Any = batched(handler, max_batch_size=1)
    with pytest.raises(WouldDeadlock, match="the only slot"):
        f(1)
    f.configure(max_concurrent_batches=3)
    assert f(2) == 2
    with pytest.raises(WouldDeadlock, match="all 3 slots"):
        f(3)
    f.configure(max_concurrent_batches=1)
    with pytest.raises(WouldDeadlock, match="the only slot"):
        f(1)
    f.close()


def test_a_waiting_slot_is_used_the_moment_there_is_work() -> None:
    gate = Gate()
    f = batched_by("thread", gate, max_batch_size=1, max_concurrent_batches=4)
    for slots in range(1, 5):
        call = f.submit(slots)
        gate.entered(slots)
        assert gate.running == slots
    waiting = f.submit(5)
    assert (f.stats.pending, f.stats.in_flight) == (1, 4)
    gate.open()
    assert call.result(LIMIT)
    assert waiting.result(LIMIT)
    until(lambda: gate.running == 0)
    f.close()
