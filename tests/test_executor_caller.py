"""executor="caller": the thread whose call closes the batch runs it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import BatchLengthError, HandlerError, WouldDeadlock, batched
from gates import Gate, identity, in_thread, until


def caller(handler: Callable[[list[Any]], Any], **options: Any) -> Any:
    def f(items: list[Any]) -> Any:
        return handler(items)

    return batched(f, executor="caller", **options)


def test_a_lone_call_runs_the_handler_itself() -> None:
    threads: list[int] = []

    def handler(items: list[int]) -> list[int]:
        threads.append(threading.get_ident())
        return [item + 1 for item in items]

    before = threading.active_count()
    f = caller(handler)
    assert [f(number) for number in range(5)] == [1, 2, 3, 4, 5]
    assert set(threads) == {threading.get_ident()}
    assert threading.active_count() == before
    assert f.stats.answered == f.stats.batches == 5


def test_arrivals_during_a_run_share_the_next_batch(gate: Gate) -> None:
    f = caller(gate.run)
    runner = in_thread(f, "runner")
    gate.entered()
    callers = [in_thread(f, number) for number in range(20)]
    until(lambda: f.stats.pending == 20)
    gate.open()
    assert runner.result(20) == ("answer", "runner")
    assert [one.result(20) for one in callers] == [("answer", number) for number in range(20)]
    assert [len(batch) for batch in gate.batches] == [1, 20]
    assert len(set(gate.threads)) == 2  # the second batch was run by one of its own callers


def test_a_runner_serves_its_own_batch_only(gate: Gate) -> None:
    f = caller(gate.run)
    runner = in_thread(f, "runner")
    gate.entered()
    second = in_thread(f, "second")
    until(lambda: f.stats.pending == 1)
    gate.release()
    gate.entered(2)
    assert runner.result(20) == ("answer", "runner")  # not held by the batch of the others
    assert not second.done()
    gate.open()
    assert second.result(20) == ("answer", "second")


def test_nobody_is_stranded_when_no_further_call_comes(gate: Gate) -> None:
    f = caller(gate.run, max_batch_size=1)
    callers = [in_thread(f, number) for number in range(10)]
    gate.entered()
    until(lambda: f.stats.pending == 9)
    gate.open()
    assert [one.result(20) for one in callers] == [("answer", number) for number in range(10)]
    assert gate.most_running == 1


def test_the_one_that_fills_the_batch_runs_it_for_all() -> None:
    threads: list[int] = []

    def handler(items: list[Any]) -> list[Any]:
        threads.append(threading.get_ident())
        return [(item, len(items)) for item in items]

    f = caller(handler, max_batch_size=3, wait_ms=3_600_000)
    parked = [in_thread(f, "a"), in_thread(f, "b")]
    until(lambda: f.stats.pending == 2)
    assert f("c") == ("c", 3)
    assert threads == [threading.get_ident()]
    assert [one.result(20) for one in parked] == [("a", 3), ("b", 3)]


def test_a_parked_caller_keeps_the_time() -> None:
    f = caller(lambda items: items, wait_ms=5)
    assert f("alone") == "alone"
    pair = [in_thread(f, "a"), in_thread(f, "b")]
    assert [one.result(20) for one in pair] == ["a", "b"]
    assert f.stats.wait_ms.max >= 5


def test_flush_lets_a_parked_caller_run() -> None:
    f = caller(lambda items: items, wait_ms=3_600_000)
    parked = [in_thread(f, "a"), in_thread(f, "b")]
    until(lambda: f.stats.pending == 2)
    f.flush()
    assert [one.result(20) for one in parked] == ["a", "b"]
    assert f.stats.reasons["flush"] == 1


def test_interrupting_the_handler_reaches_its_runner_raw_and_the_others_wrapped() -> None:
    interrupt = KeyboardInterrupt("by hand")

    def handler(items: list[Any]) -> list[Any]:
        if len(items) == 3:
            raise interrupt
        return items

    f = caller(handler, max_batch_size=3, wait_ms=3_600_000)
    others = [in_thread(f, "a"), in_thread(f, "b")]
    until(lambda: f.stats.pending == 2)
    with pytest.raises(KeyboardInterrupt) as caught:
        f("the runner")
    assert caught.value is interrupt
    for one in others:
        error = one.exception(20)
        assert type(error) is HandlerError
        assert error.__cause__ is interrupt
    assert f.stats.failed == 3
    again = [in_thread(f, "a"), in_thread(f, "b")]
    until(lambda: f.stats.pending == 2)
    f.flush()
    assert [one.result(20) for one in again] == ["a", "b"]


@pytest.mark.parametrize(
    "error", [ValueError("x", 1), SystemExit(3), StopIteration(4), GeneratorExit()], ids=repr
)
def test_what_the_handler_raises_reaches_runner_and_others_alike(error: BaseException) -> None:
    def handler(items: list[Any]) -> list[Any]:
        raise error

    f = caller(handler, max_batch_size=2, wait_ms=3_600_000)
    other = in_thread(f, "a")
    until(lambda: f.stats.pending == 1)
    expected: type[BaseException] = ValueError if isinstance(error, ValueError) else HandlerError
    with pytest.raises(expected) as caught:
        f("b")
    assert type(other.exception(20)) is expected
    assert caught.value is not other.exception()
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("wrong", [None, [], [1, 2, 3], "ab", {}])
def test_wrong_results_reach_everyone(wrong: Any) -> None:
    f = caller(lambda items: wrong, max_batch_size=2, wait_ms=3_600_000)
    other = in_thread(f, "a")
    until(lambda: f.stats.pending == 1)
    with pytest.raises(BatchLengthError):
        f("b")
    assert isinstance(other.exception(20), BatchLengthError)


def test_an_exception_in_a_place_fails_that_caller_alone() -> None:
    f = caller(
        lambda items: [LookupError(item) if item == "bad" else item for item in items],
        max_batch_size=2,
        wait_ms=3_600_000,
    )
    other = in_thread(f, "bad")
    until(lambda: f.stats.pending == 1)
    assert f("good") == "good"
    assert isinstance(other.exception(20), LookupError)
    other = in_thread(f, "good")
    until(lambda: f.stats.pending == 1)
    with pytest.raises(LookupError):
        f("bad")
    assert other.result(20) == "good"


def test_submit_and_acall_start_a_worker() -> None:
    threads: list[int] = []

    def handler(items: list[int]) -> list[int]:
        threads.append(threading.get_ident())
        return [item * 2 for item in items]

    f = caller(handler)
    assert f.submit(1).result(20) == 2

    async def main() -> None:
        assert await asyncio.gather(*[f.acall(number) for number in range(5)]) == [0, 2, 4, 6, 8]

    asyncio.run(main())
    assert threading.get_ident() not in threads
    assert f(10) == 20
    assert identity(f.stats)


def test_calls_futures_and_awaitables_share_its_batches(gate: Gate) -> None:
    f = caller(gate.run)
    runner = in_thread(f, "runner")
    gate.entered()
    future = f.submit("future")
    blocked = in_thread(f, "blocked")
    until(lambda: f.stats.pending == 2)

    async def main() -> Any:
        awaitable = f.acall("awaitable")
        gate.open()
        return await awaitable

    assert asyncio.run(main()) == ("answer", "awaitable")
    assert future.result(20) == ("answer", "future")
    assert blocked.result(20) == ("answer", "blocked")
    assert runner.result(20) == ("answer", "runner")
    assert sorted(gate.items) == ["awaitable", "blocked", "future", "runner"]
    assert gate.most_running == 1


def test_a_submitted_one_can_be_cancelled_before_it_is_run(gate: Gate) -> None:
    f = caller(gate.run)
    runner = in_thread(f, "runner")
    gate.entered()
    future = f.submit("cancelled")
    assert future.cancel()
    gate.open()
    assert runner.result(20) == ("answer", "runner")
    assert f("after") == ("answer", "after")
    assert "cancelled" not in gate.items


def test_several_slots_are_run_by_several_callers(gate: Gate) -> None:
    f = caller(gate.run, max_concurrent_batches=2, max_batch_size=1)
    callers = [in_thread(f, number) for number in range(6)]
    gate.entered(2)
    assert gate.running == 2
    assert len(set(gate.threads)) == 2
    gate.open()
    assert sorted(one.result(20)[1] for one in callers) == list(range(6))
    assert gate.most_running == 2


def test_calling_itself_from_its_handler_is_found_out() -> None:
    caught: list[BaseException] = []

    def handler(items: list[int]) -> list[int]:
        for call in (f, lambda item: f.submit(item).result()) if items == [1] else ():
            try:
                call(99)
            except WouldDeadlock as error:
                caught.append(error)
        return items

    f = caller(handler)
    assert f(1) == 1
    assert len(caught) == 2


def test_threads_in_a_closed_circle_all_get_their_own() -> None:
    f = caller(lambda items: [-item for item in items], max_batch_size=8)
    start = threading.Barrier(16)

    def circle(base: int) -> None:
        start.wait(20)
        for step in range(200):
            assert f(base + step) == -(base + step)

    for one in [in_thread(circle, 1000 * number) for number in range(16)]:
        one.result(40)
    assert f.stats.answered == 3200
    assert f.stats.batch_sizes.max <= 8
    assert f.stats.pending == f.stats.in_flight == 0


def test_closing_lets_parked_callers_go() -> None:
    f = caller(lambda items: items, wait_ms=3_600_000)
    parked = [in_thread(f, "a"), in_thread(f, "b")]
    until(lambda: f.stats.pending == 2)
    assert f.close() is True
    assert [one.result(20) for one in parked] == ["a", "b"]
    assert f.stats.reasons["close"] == 1


# -- gathering ---------------------------------------------------------------------------------


def hold(seconds: float) -> None:
    """Computes for so long, holding the interpreter."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def closed_circle(f: Any, threads: int, calls: int) -> None:
    """So many threads, each calling again as soon as it has its answer."""
    start = threading.Barrier(threads)

    def circle(base: int) -> None:
        start.wait(20)
        for step in range(calls):
            assert f(base + step) == base + step

    for one in [in_thread(circle, 10_000 * number) for number in range(threads)]:
        one.result(60)


def test_threads_that_come_back_are_gathered() -> None:
    def handler(items: list[int]) -> list[int]:
        hold(0.002)
        return items

    f = caller(handler, max_batch_size=8)
    closed_circle(f, threads=4, calls=60)
    assert f.stats.answered == 240
    assert f.stats.reasons["gather"] > 0
    assert identity(f.stats)


def test_gathering_can_be_switched_off() -> None:
    def handler(items: list[int]) -> list[int]:
        hold(0.0005)
        return items

    f = caller(handler, gather=False)
    closed_circle(f, threads=4, calls=40)
    assert f.stats.answered == 160
    assert f.stats.reasons["gather"] == 0


def test_a_single_caller_gathers_nobody() -> None:
    def handler(items: list[int]) -> list[int]:
        hold(0.0002)
        return items

    f = caller(handler)
    assert [f(number) for number in range(20)] == list(range(20))
    assert f.stats.reasons["idle"] == f.stats.batches == 20


# -- alone -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError("x", 1), SystemExit(3), StopIteration(4), GeneratorExit()], ids=repr
)
def test_what_the_handler_raises_reaches_a_lone_caller(error: BaseException) -> None:
    def handler(items: list[Any]) -> list[Any]:
        raise error

    f = caller(handler)
    expected: type[BaseException] = ValueError if isinstance(error, ValueError) else HandlerError
    with pytest.raises(expected) as caught:
        f("alone")
    assert caught.value is not error
    assert caught.value.__cause__ is error
    trace = error.__traceback__
    assert trace is not None
    assert trace.tb_frame.f_code.co_name == "f"
    assert f.stats.failed == f.stats.batches == f.stats.run_ms.count == 1
    assert identity(f.stats)


def test_interrupting_a_lone_caller_reaches_it_raw() -> None:
    interrupt = KeyboardInterrupt("by hand")

    def handler(items: list[Any]) -> list[Any]:
        raise interrupt

    f = caller(handler)
    with pytest.raises(KeyboardInterrupt) as caught:
        f("alone")
    assert caught.value is interrupt
    assert (f.stats.failed, f.stats.in_flight) == (1, 0)


@pytest.mark.parametrize("wrong", [None, [], [1, 2], "a", {}])
def test_wrong_results_reach_a_lone_caller(wrong: Any) -> None:
    f = caller(lambda items: wrong)
    with pytest.raises(BatchLengthError):
        f("alone")
    assert f.stats.failed == 1


def test_any_row_reaches_a_lone_caller() -> None:
    assert caller(lambda items: (7,))("alone") == 7
    with pytest.raises(LookupError):
        caller(lambda items: [LookupError(3)])("alone")


def test_a_lone_call_is_counted_like_any_batch() -> None:
    f = caller(lambda items: items)
    for number in range(5):
        assert f(number) == number
    stats = f.stats
    assert (stats.submitted, stats.answered, stats.batches) == (5, 5, 5)
    assert (stats.reasons["idle"], stats.batch_sizes.count, stats.batch_sizes.max) == (5, 5, 1)
    assert (stats.wait_ms.count, stats.wait_ms.max, stats.run_ms.count) == (5, 0, 5)
    assert stats.run_ms.min > 0


def test_who_calls_while_another_runs_alone_waits_for_the_slot(gate: Gate) -> None:
    f = caller(gate.run)
    alone = in_thread(f, "alone")
    gate.entered()
    assert (f.stats.in_flight, f.stats.pending) == (1, 0)
    other = in_thread(f, "other")
    until(lambda: f.stats.pending == 1)
    gate.open()
    assert (alone.result(20), other.result(20)) == (("answer", "alone"), ("answer", "other"))
    assert gate.most_running == 1


def test_a_close_waits_for_a_lone_call(gate: Gate) -> None:
    f = caller(gate.run)
    alone = in_thread(f, "alone")
    gate.entered()
    assert f.close(timeout=0) is False
    gate.open()
    assert alone.result(20) == ("answer", "alone")
    assert f.close() is True


variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default="nothing")


@pytest.mark.parametrize("executor", ["caller", "thread"])
def test_a_run_finds_what_setup_has_set_and_nothing_of_the_last_run_or_the_caller(
    executor: Any,
) -> None:
    found: list[Any] = []

    @batched(executor=executor, setup=lambda: variable.set("setup"))
    def f(items: list[Any]) -> list[Any]:
        found.append(variable.get())
        if items[0] is not None:
            variable.set(items[0])
        return items

    variable.set("caller")
    for item in (None, "first", None, "second", "third", None):
        assert f(item) == item
    assert variable.get() == "caller"
    assert found == ["setup"] * 6


def test_what_outlives_a_run_may_call_while_another_runs() -> None:
    """Its context came from a run that is over; that another one is under way is none of its business."""
    left: list[contextvars.Context] = []
    outcomes: list[Any] = []

    def handler(items: list[Any]) -> list[Any]:
        if items == ["leave"]:
            left.append(contextvars.copy_context())
        if items == ["meet"]:
            # Not in this run, but in what is left of the last.
            outcomes.append(left[0].run(other, 5))
        return items

    f = caller(handler)
    other = caller(lambda items: [g(item) for item in items])
    g = caller(lambda items: [item + 1 for item in items])
    assert f("leave") == "leave"
    assert f("meet") == "meet"
    assert outcomes == [6]

    inside: list[Any] = []

    def calls(items: list[Any]) -> list[Any]:
        if items == ["leave"]:
            left.append(contextvars.copy_context())
        elif items == ["meet"]:
            with pytest.raises(WouldDeadlock):
                h("inside")
            thread = in_thread(left[-1].run, h, "from before")
            until(lambda: h.stats.pending == 1)
            inside.append(thread)
        return items

    h = caller(calls)
    assert h("leave") == "leave"
    assert h("meet") == "meet"
    assert inside[0].result(20) == "from before"


def test_a_lone_call_keeps_nothing_alive() -> None:
    class Item:
        pass

    f = caller(lambda items: items)
    item = Item()
    gone = weakref.ref(item)
    assert f(item) is item
    del item
    assert gone() is None


def test_a_method_runs_alone_on_its_instance() -> None:
    class Model:
        def __init__(self, step: int) -> None:
            self.step = step

        @batched(executor="caller")
        def add(self, numbers: list[int]) -> list[int]:
            return [number + self.step for number in numbers]

    model = Model(3)
    assert (model.add(1), Model.add(model, 2), Model(10).add(1)) == (4, 5, 11)
    assert model.add.stats.batches == 2
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
