"""Caller: what `submit` returns, as a concurrent future and as an awaitable; cancelling it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Future, QueueFull, WouldDeadlock, batched
from gates import Gate, identity, in_thread, until


def test_it_is_a_concurrent_future(gate: Gate) -> None:
    f = batched(gate.handler)
    future = f.submit("a")
    assert type(future) is Future
    assert isinstance(future, concurrent.futures.Future)
    assert not future.done()
    gate.open()
    assert future.result(20) == ("answer", "a")
    assert future.exception() is None
    assert future.done()
    assert not future.cancelled()
    assert not future.running()
    assert future.result() == ("answer", "a")  # as often as one likes


def test_running_from_the_moment_it_is_sealed(gate: Gate) -> None:
    f = batched(gate.handler)
    first = f.submit("first")
    gate.entered()
    pending = f.submit("pending")
    assert first.running()
    assert not pending.running()
    gate.release()
    gate.entered(2)
    assert first.result(20) == ("answer", "first")
    assert not first.running()
    assert pending.running()


def test_a_result_that_does_not_come_in_time(gate: Gate) -> None:
    f = batched(gate.handler)
    future = f.submit("a")
    for ask in (future.result, future.exception):
        before = time.monotonic()
        with pytest.raises(concurrent.futures.TimeoutError):
            ask(timeout=0.02)
        assert time.monotonic() - before >= 0.02
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0)
    gate.open()  # the time limit was the caller's; the request goes on
    assert future.result(20) == ("answer", "a")
    assert identity(f.stats)


def test_wait_and_as_completed_of_concurrent_futures(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=1)
    futures = [f.submit(number) for number in range(4)]
    gate.entered()
    gate.release()
    done, left = concurrent.futures.wait(futures, 20, concurrent.futures.FIRST_COMPLETED)
    assert done == {futures[0]}
    assert left == set(futures[1:])
    gate.open()
    assert {future.result() for future in concurrent.futures.as_completed(futures, 20)} == {
        ("answer", number) for number in range(4)
    }
    assert concurrent.futures.wait(futures, 20).not_done == set()


def test_wait_for_the_first_exception() -> None:
    @batched
    def f(items: list[int]) -> list[Any]:
        return [ValueError(item) for item in items]

    future = f.submit(1)
    done, _ = concurrent.futures.wait([future], 20, concurrent.futures.FIRST_EXCEPTION)
    assert done == {future}
    assert isinstance(future.exception(), ValueError)


def test_callbacks_are_called_once_with_the_future_in_their_order(gate: Gate) -> None:
    f = batched(gate.handler)
    future = f.submit("a")
    called: list[Any] = []
    for number in range(3):
        future.add_done_callback(lambda done, number=number: called.append((number, done)))
    assert called == []
    gate.open()
    future.result(20)
    until(lambda: len(called) == 3)  # waiters may be told before callbacks
    future.add_done_callback(lambda done: called.append(("late", done)))  # at once
    assert called == [(0, future), (1, future), (2, future), ("late", future)]


def test_a_callback_that_raises_hurts_nobody(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    f = batched(gate.handler)
    bad, good = f.submit("bad"), f.submit("good")
    called: list[str] = []
    bad.add_done_callback(lambda _: 1 / 0)
    bad.add_done_callback(lambda _: called.append("after"))
    gate.open()
    assert bad.result(20) == ("answer", "bad")
    assert good.result(20) == ("answer", "good")
    assert f("next") == ("answer", "next")
    assert called == ["after"]
    assert any(
        record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records
    )


def test_a_callback_may_submit_again_and_look_around() -> None:
    f = batched(lambda items: [item + 1 for item in items], max_batch_size=2)
    chain: concurrent.futures.Future[int] = concurrent.futures.Future()

    def again(done: Any) -> None:
        assert identity(f.stats)
        if done.result() >= 50:
            chain.set_result(done.result())
        else:
            f.submit(done.result()).add_done_callback(again)

    f.submit(0).add_done_callback(again)
    assert chain.result(20) == 50


def test_a_callback_may_close(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=1)
    first, second = f.submit("first"), f.submit("second")
    first.add_done_callback(lambda _: f.close(drain=False))
    gate.entered()
    gate.release()
    concurrent.futures.wait([first, second], 20)
    gate.open()
    assert first.result() == ("answer", "first")
    assert second.done()
    until(lambda: f.stats.in_flight == 0)
    assert not f.healthy


@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_a_callback_on_the_worker_may_close_and_drain(executor: str, gate: Gate) -> None:
    f = batched(gate.handler, executor=executor)
    first, second = f.submit("first"), f.submit("second")
    closed: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def close(_: Any) -> None:
        try:  # the worker cannot wait for itself, so it either need not or is told
            closed.set_result(f.close())
        except WouldDeadlock as error:
            closed.set_result(error)

    first.add_done_callback(close)
    gate.open()
    assert first.result(20) == ("answer", "first")
    assert second.result(20) == ("answer", "second")
    assert closed.result(20) is not None
    assert f.close(timeout=20) is True


def test_a_callback_on_the_worker_that_calls_is_told_or_served(gate: Gate) -> None:
    f = batched(gate.handler)
    first = f.submit("first")
    called: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def call(_: Any) -> None:
        try:
            called.set_result(f("from the callback"))
        except WouldDeadlock as error:
            called.set_result(error)

    first.add_done_callback(call)
    gate.open()
    outcome = called.result(20)
    assert isinstance(outcome, WouldDeadlock) or outcome == ("answer", "from the callback")
    assert f("after") == ("answer", "after")


# -- cancelling --------------------------------------------------------------------------------


def test_cancelled_before_sealing_it_never_reaches_the_handler(gate: Gate) -> None:
    f = batched(gate.handler)
    first = f.submit("first")
    gate.entered()
    a, b, c = (f.submit(name) for name in "abc")
    called: list[Any] = []
    b.add_done_callback(called.append)
    assert b.cancel() is True
    assert b.cancelled()
    assert b.done()
    assert called == [b]
    assert b.cancel() is True  # as concurrent.futures has it
    with pytest.raises(concurrent.futures.CancelledError):
        b.result()
    with pytest.raises(concurrent.futures.CancelledError):
        b.exception()
    assert f.stats.pending == 2
    assert f.stats.cancelled == 1
    gate.open()
    assert [future.result(20)[1] for future in (first, a, c)] == ["first", "a", "c"]
    assert gate.batches == [["first"], ["a", "c"]]
    assert called == [b]


def test_sealed_it_is_not_cancelled_any_more(gate: Gate) -> None:
    f = batched(gate.handler)
    future = f.submit("a")
    gate.entered()
    assert future.cancel() is False
    assert not future.cancelled()
    gate.open()
    assert future.result(20) == ("answer", "a")
    assert future.cancel() is False
    assert f.stats.cancelled == 0


def test_cancelling_wakes_those_who_wait_for_it(gate: Gate) -> None:
    f = batched(gate.handler)
    f.submit("first")
    gate.entered()
    future = f.submit("a")
    blocked = in_thread(future.result)
    waiting = in_thread(concurrent.futures.wait, [future])
    completed = in_thread(lambda: list(concurrent.futures.as_completed([future])))
    assert future.cancel()
    assert isinstance(blocked.exception(20), concurrent.futures.CancelledError)
    assert waiting.result(20).done == {future}
    assert completed.result(20) == [future]


def test_a_cancelled_item_is_let_go_at_once(gate: Gate) -> None:
    class Item:
        pass

    f = batched(gate.handler)
    f.submit("first")
    gate.entered()
    item = Item()
    watch = weakref.ref(item)
    future = f.submit(item)
    del item
    assert watch() is not None
    assert future.cancel()
    gc.collect()
    assert watch() is None  # though the handler is still busy and the future alive


def test_cancelling_many_at_random_leaves_the_others_whole(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=7)
    f.submit("first")
    gate.entered()
    futures = [f.submit(number) for number in range(500)]
    gone = {number for number in range(500) if number * 7919 % 10 != 3}
    for number in sorted(gone, key=lambda number: number * 31 % 500):
        assert futures[number].cancel()
    gate.open()
    left = [number for number in range(500) if number not in gone]
    assert [futures[number].result(20) for number in left] == [
        ("answer", number) for number in left
    ]
    assert gate.items == ["first", *left]
    assert f.stats.cancelled == len(gone)


def test_cancel_against_sealing_either_wins_wholly() -> None:
    seen: list[int] = []

    @batched(max_batch_size=3)
    def f(items: list[int]) -> list[int]:
        seen.extend(items)
        return [-item for item in items]

    futures = {}
    cancelled = set()
    for number in range(3000):
        try:
            futures[number] = f.submit(number)
        except QueueFull:
            pytest.fail("the worker does not keep up")
        if number % 3 == 0 and futures[number].cancel():
            cancelled.add(number)
    for number, future in futures.items():
        if number in cancelled:
            assert future.cancelled()
        else:
            assert future.result(20) == -number
    assert seen == [number for number in range(3000) if number not in cancelled]
    stats = f.stats
    assert (stats.cancelled, stats.answered) == (len(cancelled), 3000 - len(cancelled))


# -- awaited -----------------------------------------------------------------------------------


def test_it_can_be_awaited_by_several_and_on_several_loops(
    run: Callable[..., Any], gate: Gate
) -> None:
    f = batched(gate.handler)
    future = f.submit("a")

    async def main() -> list[Any]:
        async def wait() -> Any:
            return await future

        waiting = [asyncio.create_task(wait()) for _ in range(3)]
        await asyncio.sleep(0)
        gate.open()
        return [*await asyncio.gather(*waiting), await future]

    async def other() -> Any:
        return await future

    blocked = in_thread(asyncio.run, other())
    assert run(main()) == [("answer", "a")] * 4
    assert blocked.result(20) == ("answer", "a")


def test_wrap_future_takes_it(run: Callable[..., Any]) -> None:
    f = batched(lambda items: [item * 2 for item in items])

    async def main() -> None:
        assert await asyncio.wrap_future(f.submit(4)) == 8
        assert await asyncio.wait_for(asyncio.wrap_future(f.submit(5)), 20) == 10

    run(main())


def test_awaiting_a_failed_one(run: Callable[..., Any]) -> None:
    f = batched(lambda items: [LookupError(item) for item in items])

    async def main() -> None:
        with pytest.raises(LookupError, match="7"):
            await f.submit(7)

    run(main())


def test_awaiting_a_cancelled_one_tells_it_from_being_cancelled_oneself(
    run: Callable[..., Any], gate: Gate
) -> None:
    f = batched(gate.handler)
    f.submit("first")
    gate.entered()

    async def main() -> None:
        future = f.submit("a")
        assert future.cancel()
        with pytest.raises((asyncio.CancelledError, concurrent.futures.CancelledError)):
            await future

    run(main())


def test_a_cancelled_await_only_stops_waiting(run: Callable[..., Any], gate: Gate) -> None:
    f = batched(gate.handler)
    f.submit("first")
    gate.entered()
    future = f.submit("a")  # still pending: it could be cancelled, but nobody asked for that

    async def main() -> None:
        async def wait() -> Any:
            return await future

        waiting, other = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not future.cancelled()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wait(), 0.001)
        assert not future.done()
        gate.open()
        assert await other == ("answer", "a")
        assert await future == ("answer", "a")

    run(main())


# -- dropping ----------------------------------------------------------------------------------


def test_dropping_a_future_does_not_cancel_it(gate: Gate) -> None:
    f = batched(gate.handler)
    f.submit("first")
    gate.entered()
    f.submit("dropped")
    gc.collect()
    assert f.stats.pending == 1
    gate.open()
    until(lambda: f.stats.answered == 2)
    assert gate.items == ["first", "dropped"]


def test_an_error_nobody_received_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @batched(name="lonely")
    def f(items: list[int]) -> list[Any]:
        return [LookupError("unheard") for _ in items]

    with caplog.at_level(logging.DEBUG, logger="carpool"):
        future = f.submit(1)
        concurrent.futures.wait([future], 20)
        del future
        gc.collect()
        until(lambda: (gc.collect(), caplog.records)[1])
    record = caplog.records[0]
    assert record.name.startswith("carpool")
    assert record.levelno >= logging.WARNING
    assert "unheard" in caplog.text


def test_an_error_somebody_received_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    @batched
    def f(items: list[int]) -> list[Any]:
        return [LookupError("heard") for _ in items]

    with caplog.at_level(logging.DEBUG, logger="carpool"):
        with pytest.raises(LookupError):
            f(1)
        with pytest.raises(LookupError):
            f.submit(2).result(20)
        assert isinstance(f.submit(3).exception(20), LookupError)

        async def main() -> None:
            with pytest.raises(LookupError):
                await f.acall(4)
            with pytest.raises(LookupError):
                await f.submit(5)

        asyncio.run(main())
        gc.collect()
    assert caplog.records == []


def test_items_results_and_errors_are_let_go_when_done() -> None:
    class Thing:
        pass

    class Failure(Exception):  # unlike the built-in ones, it can be watched
        pass

    @batched
    def f(items: list[Thing]) -> list[Any]:
        return [Thing() if item.good else Failure(item) for item in items]  # type: ignore[attr-defined]

    for good in (True, False):
        item = Thing()
        item.good = good  # type: ignore[attr-defined]
        future = f.submit(item)
        watches = [
            weakref.ref(item),
            weakref.ref(future.result(20) if good else future.exception(20)),
        ]
        del item, future
        until(
            lambda watches=watches: (
                gc.collect() is None or all(watch() is None for watch in watches)
            )
        )


def test_an_item_whose_end_calls_back_in_is_harmless(gate: Gate) -> None:
    after: list[Any] = []

    class Last:
        def __del__(self) -> None:
            after.append(f.submit("from the end"))
            assert identity(f.stats)

    f = batched(gate.handler)
    f.submit("first")
    gate.entered()
    assert f.submit(Last()).cancel()  # dropped by cancelling
    gc.collect()
    until(lambda: len(after) == 1)
    gate._answer = lambda item: None
    gate.open()
    assert after[0].result(20) is None
    f(Last())  # dropped after an answer
    gate.batches.clear()
    gc.collect()
    until(lambda: len(after) == 2)
    assert after[1].result(20) is None
