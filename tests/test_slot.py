"""Slot: how many batches run at once, how slots come back, and the pull of custom loops."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

import pytest

from carpool import BatchAbandoned, Batcher, BatcherClosed, batched
from gates import WAYS, Gate, auntil, batched_by, in_thread, until


@pytest.mark.parametrize("way", [*WAYS])
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_so_many_batches_run_at_once_and_never_more(
    way: str, slots: int, new_gate: Callable[..., Gate]
) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched_by(way, gate, max_batch_size=1, max_concurrent_batches=slots)
        calls = [f.acall(number) for number in range(slots + 4)]
        await gate.aentered(slots)
        assert f.stats.in_flight == slots
        assert f.stats.pending == 4
        gate.release()
        await gate.aentered(slots + 1)
        assert gate.running <= slots
        gate.open()
        assert await asyncio.gather(*calls) == [("answer", number) for number in range(slots + 4)]
        assert gate.most_running == slots

    asyncio.run(main())


def test_the_first_slot_takes_all_that_is_there_not_a_share_of_it(gate: Gate) -> None:
    f = batched(gate.handler, max_concurrent_batches=2, max_batch_size=8)
    f.submit("a")
    gate.entered(1)
    f.submit("b")
    gate.entered(2)
    futures = [f.submit(number) for number in range(6)]
    gate.release()
    gate.entered(3)
    gate.open()
    futures[-1].result()
    assert gate.batches == [["a"], ["b"], list(range(6))]


def test_slots_come_back_after_every_kind_of_end(way: str) -> None:
    async def main() -> None:
        ends: list[Any] = [
            lambda items: items,
            lambda items: 1 / 0,
            lambda items: None,
            lambda items: [],
            lambda items: [ValueError() for _ in items],
            lambda items: (_ for _ in ()).throw(SystemExit(3)),
        ]
        f = batched_by(
            way, lambda items: ends[items[0]](items), max_batch_size=1, max_concurrent_batches=2
        )
        for _ in range(3):
            await asyncio.gather(
                *[f.acall(number) for number in range(len(ends))], return_exceptions=True
            )
        assert await f.acall(0) == 0
        assert (f.stats.answered, f.stats.failed) == (4, 15)

    asyncio.run(main())


# -- next_batch --------------------------------------------------------------------------------


def test_next_batch_waits_for_the_first_request() -> None:
    with Batcher() as b:
        taken = in_thread(b.next_batch)
        future = b.submit("a")
        batch = taken.result(20)
        assert batch.items == ["a"]
        batch.complete([1])
        assert future.result() == 1


def test_next_batch_without_blocking() -> None:
    with Batcher() as b:
        assert b.next_batch(block=False) is None
        b.submit("a")
        batch = b.next_batch(block=False)
        assert batch.items == ["a"]
        assert b.next_batch(block=False) is None
        batch.complete([1])


def test_next_batch_until_the_time_is_over() -> None:
    with Batcher() as b:
        before = time.monotonic()
        assert b.next_batch(timeout=0.03) is None
        assert time.monotonic() - before >= 0.03
        assert b.next_batch(timeout=0) is None
        b.submit("a")
        batch = b.next_batch(timeout=20)
        assert batch.items == ["a"]
        batch.complete([1])


def test_next_batch_takes_at_most_what_it_is_asked_for() -> None:
    with Batcher(max_batch_size=4) as b:
        for number in range(11):
            b.submit(number)
        taken = [
            b.next_batch(max_size=3),
            b.next_batch(max_size=100, block=False),
            b.next_batch(),
            b.next_batch(max_size=1, block=False),
        ]
        assert [batch.items for batch in taken if batch] == [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]
        assert taken[-1] is None
        for batch in taken[:-1]:
            batch.complete(batch.items)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_size": 0}, ValueError),
        ({"max_size": -1}, ValueError),
        ({"max_size": "3"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"timeout": float("nan")}, ValueError),
        ({"block": "no"}, TypeError),
    ],
)
def test_next_batch_refuses_nonsense(arguments: dict[str, Any], error: type[Exception]) -> None:
    with Batcher() as b:
        future = b.submit("a")
        with pytest.raises(error, match=next(iter(arguments))):
            b.next_batch(**arguments)
        batch = b.next_batch()  # nothing was lost by it
        batch.complete([1])
        assert future.result() == 1


def test_waiting_slots_each_get_their_batch_and_no_two_the_same() -> None:
    with Batcher(max_batch_size=1) as b:
        takers = [in_thread(b.next_batch) for _ in range(8)]
        futures = [b.submit(number) for number in range(8)]
        batches = [taker.result(20) for taker in takers]
        assert sorted(batch.items[0] for batch in batches) == list(range(8))
        for batch in batches:
            batch.complete([batch.items[0] * 10])
        assert [future.result() for future in futures] == [number * 10 for number in range(8)]


def test_many_loops_on_one_batcher_serve_each_request_once() -> None:
    b: Batcher[int, int] = Batcher(max_batch_size=5)
    served: list[list[int]] = []

    def serve() -> None:
        for batch in b:
            served.append(batch.items)
            batch.complete([item + 1 for item in batch.items])

    loops = [in_thread(serve) for _ in range(4)]
    futures = [b.submit(number) for number in range(500)]
    assert [future.result(20) for future in futures] == [number + 1 for number in range(500)]
    assert b.close() is True
    for loop in loops:
        loop.result(20)
    assert sorted(item for batch in served for item in batch) == list(range(500))
    assert max(map(len, served)) <= 5


def test_the_loop_ends_when_closed_and_drained() -> None:
    b: Batcher[str, str] = Batcher(wait_ms=3_600_000)
    futures = [b.submit("a"), b.submit("b")]
    closing = in_thread(b.close)
    reasons = []
    for batch in b:
        reasons.append(batch.reason)
        batch.complete([item.upper() for item in batch.items])
    assert closing.result(20) is True
    assert [future.result(0) for future in futures] == ["A", "B"]
    assert reasons == ["close"]
    assert b.next_batch() is None
    assert b.next_batch(block=False) is None
    assert list(b) == []


def test_a_loop_that_waits_holds_on_to_no_batch() -> None:
    b: Batcher[str, str] = Batcher()

    def serve() -> None:
        for batch in b:
            del batch  # let go unanswered, and then wait for the next

    serving = in_thread(serve)
    future = b.submit("let go")
    assert isinstance(future.exception(20), BatchAbandoned)
    b.close()
    serving.result(20)


def test_a_loop_on_an_event_loop_that_waits_holds_on_to_no_batch(run: Callable[..., Any]) -> None:
    async def main() -> None:
        b: Batcher[str, str] = Batcher()

        async def serve() -> None:
            async for batch in b:
                del batch

        serving = asyncio.create_task(serve())
        with pytest.raises(BatchAbandoned):
            await asyncio.wait_for(b.acall("let go"), 20)
        await b.aclose()
        await serving

    run(main())


def test_closing_wakes_every_waiting_loop() -> None:
    b: Batcher[int, int] = Batcher()
    loops = [in_thread(list, b) for _ in range(3)] + [in_thread(b.next_batch)]
    assert b.close() is True
    assert [loop.result(20) for loop in loops] == [[], [], [], None]


# -- async for ---------------------------------------------------------------------------------


def test_async_for_serves_and_ends(run: Callable[..., Any]) -> None:
    async def main() -> None:
        b: Batcher[int, int] = Batcher(max_batch_size=4)

        async def serve() -> int:
            served = 0
            async for batch in b:
                batch.complete([item * 2 for item in batch.items])
                served += 1
            return served

        serving = asyncio.create_task(serve())
        assert await asyncio.gather(*[b.acall(number) for number in range(10)]) == [
            number * 2 for number in range(10)
        ]
        assert await b.aclose() is True
        assert await serving == 3
        with pytest.raises(BatcherClosed):
            b.acall(1)

    run(main())


def test_anext_batch_waits_without_holding_the_loop(run: Callable[..., Any]) -> None:
    async def main() -> None:
        async with Batcher(max_batch_size=8) as b:
            waiting = asyncio.create_task(anext_batch(b))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not waiting.done()
            future = in_thread(b.submit, "from a thread").result(20)
            batch = await waiting
            assert batch.items == ["from a thread"]
            batch.complete(["ok"])
            assert await future == "ok"
            for number in range(5):
                b.submit(number)
            small = await b.anext_batch(max_size=2)
            assert small.items == [0, 1]
            rest = await b.anext_batch()
            assert rest.items == [2, 3, 4]
            small.complete([0, 0])
            rest.complete([0, 0, 0])

    run(main())


async def anext_batch(b: Any) -> Any:
    return await b.anext_batch()


def test_a_cancelled_anext_batch_takes_no_batch_with_it(run: Callable[..., Any]) -> None:
    async def main() -> None:
        async with Batcher() as b:
            for _ in range(20):
                waiting = asyncio.create_task(anext_batch(b))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            future = b.submit("a")
            batch = b.next_batch(block=False)
            assert batch is not None
            assert batch.items == ["a"]
            batch.complete([1])
            assert await future == 1

    run(main())


def test_a_batch_that_came_too_late_for_its_cancelled_loop_hangs_nobody(
    run: Callable[..., Any],
) -> None:
    async def main() -> None:
        async with Batcher() as b:
            waiting = asyncio.create_task(anext_batch(b))
            await asyncio.sleep(0)
            future = b.submit("a")  # sealed for the waiting one, or still pending
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            gc.collect()
            if not future.done():  # then another loop must be able to get it
                batch = await asyncio.wait_for(b.anext_batch(), 20)
                batch.complete(["second loop"])
            await auntil(future.done)
            assert b.stats.pending == b.stats.in_flight == 0

    run(main())


def test_anext_batch_ends_when_closed(run: Callable[..., Any]) -> None:
    async def main() -> None:
        b: Batcher[int, int] = Batcher()
        waiting = asyncio.create_task(anext_batch(b))
        await asyncio.sleep(0)
        assert await b.aclose() is True
        assert await waiting is None
        assert [batch async for batch in b] == []

    run(main())


def test_loops_in_threads_and_on_an_event_loop_share_one_batcher() -> None:
    b: Batcher[int, int] = Batcher(max_batch_size=3)

    def serve() -> None:
        for batch in b:
            batch.complete([-item for item in batch.items])

    async def main() -> list[int]:
        async def aserve() -> None:
            async for batch in b:
                batch.complete([-item for item in batch.items])

        serving = [asyncio.create_task(aserve()) for _ in range(2)]
        results = await asyncio.gather(*[b.acall(number) for number in range(200)])
        assert await b.aclose()
        await asyncio.gather(*serving)
        return results

    threads = [in_thread(serve) for _ in range(2)]
    assert asyncio.run(main()) == [-number for number in range(200)]
    for thread in threads:
        thread.result(20)
    until(lambda: b.stats.in_flight == 0)
    assert b.stats.answered == 200
