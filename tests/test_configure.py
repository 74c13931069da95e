"""`configure`: numbers that change while a batcher runs; valid from the next decision on, all or none."""

from __future__ import annotations

import ast
import asyncio
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from carpool import Batcher, DeadlineExceeded, QueueFull, RequestTooLarge, _control, batched
from carpool._options import FOR_GOOD, LIVE, Options
from carpool._station import Station
from gates import LIMIT, WAYS, Gate, auntil, batched_by, in_thread, run_script, until
from picklable import double

LONG = 600_000
"""A wait, in milliseconds, that no test sees the end of."""


def sizes(gate: Gate) -> list[int]:
    return [len(batch) for batch in gate.batches]


async def settled(calls: list[Any]) -> list[Any]:
    return list(await asyncio.wait_for(asyncio.gather(*calls), LIMIT))


# --------------------------------------------------------------------------- who waits is told


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("change", [{"wait_ms": 0}, {"wait_ms": 0.001}, {"max_batch_size": 3}])
def test_what_is_due_by_the_new_numbers_leaves_at_once(way: str, change: dict[str, Any]) -> None:
    gate = Gate()
    gate.open()
    f = batched_by(way, gate, max_batch_size=8, wait_ms=LONG)

    async def main() -> None:
        calls = [f.acall(n) for n in range(3)]
        # Everybody waits by the old numbers by now: a loop's timer is set, a thread is parked.
        await auntil(lambda: f.stats.pending == 3)
        f.configure(**change)
        assert await settled(calls) == [("answer", n) for n in range(3)]

    asyncio.run(main())
    assert gate.batches == [[0, 1, 2]]
    f.close()


@pytest.mark.parametrize("way", WAYS)
def test_another_thread_may_change_them(way: str) -> None:
    gate = Gate()
    gate.open()
    f = batched_by(way, gate, wait_ms=LONG)

    async def main() -> None:
        call = f.acall(1)
        changer = in_thread(f.configure)
        changer.result(LIMIT)
        changer = in_thread(lambda: f.configure(wait_ms=0))
        assert await settled([call]) == [("answer", 1)]
        changer.result(LIMIT)

    asyncio.run(main())
    f.close()


def test_a_blocked_caller_that_keeps_the_time_keeps_the_new_one() -> None:
    f = batched(lambda items: items, executor="caller", wait_ms=LONG)
    callers = [in_thread(f, n) for n in range(2)]
    until(lambda: f.stats.pending == 2)
    f.configure(wait_ms=0)
    assert [caller.result(LIMIT) for caller in callers] == [0, 1]
    f.close()


def test_a_longer_wait_holds_who_is_not_there_yet() -> None:
    gate = Gate()
    gate.open()
    f = batched_by("thread", gate, max_batch_size=2)
    assert f(0) == ("answer", 0)
    f.configure(wait_ms=LONG)
    first = f.submit(1)
    until(lambda: f.stats.pending == 1)
    assert gate.batches == [[0]]
    second = f.submit(2)
    assert [first.result(LIMIT), second.result(LIMIT)] == [("answer", 1), ("answer", 2)]
    assert gate.batches == [[0], [1, 2]]
    f.close()


def test_batches_are_as_large_as_it_says_now() -> None:
    gate = Gate()
    f = batched_by("thread", gate, max_batch_size=2, max_queue=100)
    calls = [f.submit(0)]
    gate.entered()
    calls += [f.submit(n) for n in range(1, 13)]
    gate.release()
    gate.entered(2)
    f.configure(max_batch_size=7)
    gate.release()
    gate.entered(3)
    f.configure(max_batch_size=1)
    gate.open()
    for call in calls:
        call.result(LIMIT)
    assert sizes(gate) == [1, 2, 7, 1, 1, 1]
    f.close()


def test_a_larger_queue_lets_in_who_waits_for_room() -> None:
    gate = Gate()
    f = batched_by("thread", gate, max_queue=1, overflow="wait")
    running = f.submit(0)
    gate.entered()
    pending = f.submit(1)
    waiting = in_thread(f.submit, 2)
    f.configure(max_queue=2)
    let_in = waiting.result(LIMIT)
    assert f.stats.pending == 2
    gate.open()
    assert [one.result(LIMIT) for one in (running, pending, let_in)] == [
        ("answer", n) for n in range(3)
    ]
    f.close()


def test_a_smaller_queue_refuses_and_drops_nothing() -> None:
    gate = Gate()
    f = batched_by("thread", gate, max_queue=10)
    calls = [f.submit(0)]
    gate.entered()
    calls += [f.submit(n) for n in range(1, 6)]
    f.configure(max_queue=2)
    assert f.stats.pending == 5
    with pytest.raises(QueueFull, match="max_queue=2"):
        f.submit(9)
    gate.open()
    assert [call.result(LIMIT) for call in calls] == [("answer", n) for n in range(6)]
    assert f(7) == ("answer", 7)
    f.close()


@pytest.mark.parametrize("way", ["thread", "loop", "thread-async"])
def test_more_slots_run_more_at_once_and_fewer_fewer(way: str) -> None:
    gate = Gate()
    f = batched_by(way, gate, max_batch_size=1)

    async def main() -> None:
        calls = [f.acall(n) for n in range(4)]
        await gate.aentered(1)
        assert gate.running == 1
        f.configure(max_concurrent_batches=3)
        await gate.aentered(3)
        assert gate.running == 3
        f.configure(max_concurrent_batches=1)
        gate.release(3)
        await gate.aentered(4)
        gate.open()
        await settled(calls)
        calls = [f.acall(n) for n in range(4)]
        await settled(calls)

    asyncio.run(main())
    assert gate.most_running == 3
    f.close()


def test_fewer_slots_hold_for_those_that_end_from_now_on() -> None:
    gate = Gate()
    f = batched_by("thread", gate, max_batch_size=1, max_concurrent_batches=3)
    calls = [f.submit(n) for n in range(6)]
    gate.entered(3)
    f.configure(max_concurrent_batches=1)
    gate.release(2)
    for (first,) in gate.batches[:2]:
        calls[first].result(LIMIT)
    # Two have ended, one still runs: its slot is the only one.
    assert (f.stats.in_flight, f.stats.pending) == (1, 3)
    most = gate.most_running
    gate.most_running = 0
    gate.open()
    for call in calls:
        call.result(LIMIT)
    assert (most, gate.most_running) == (3, 1)
    f.close()


def test_callers_run_as_many_at_once_as_it_says_now() -> None:
    gate = Gate()
    f = batched_by("caller", gate, max_batch_size=1, gather=False)
    callers = [in_thread(f, n) for n in range(3)]
    gate.entered(1)
    until(lambda: f.stats.pending == 2)
    f.configure(max_concurrent_batches=3)
    gate.entered(3)
    gate.open()
    assert sorted(one.result(LIMIT)[1] for one in callers) == [0, 1, 2]
    f.close()


# ---------------------------------------------------------------------------------------- cost


def test_a_budget_changes_and_what_was_let_in_under_a_larger_one_leaves_alone() -> None:
    gate = Gate()
    f = batched_by("thread", gate, max_batch_cost=10, cost=lambda item: item, max_batch_size=9)
    calls = [f.submit(1)]
    gate.entered()
    calls += [f.submit(n) for n in (9, 2, 2, 3)]
    f.configure(max_batch_cost=4)
    with pytest.raises(RequestTooLarge, match="max_batch_cost=4"):
        f.submit(5)
    gate.open()
    for call in calls:
        call.result(LIMIT)
    assert gate.batches == [[1], [9], [2, 2], [3]]
    f.configure(max_batch_cost=20)
    assert f(20) == ("answer", 20)
    f.close()


def test_a_budget_is_not_switched_on_later() -> None:
    f = batched(lambda items: items)
    with pytest.raises(ValueError, match="max_batch_cost cannot be switched on later"):
        f.configure(max_batch_cost=5)
    g = batched(lambda items: items, max_batch_cost=5)
    g.configure(max_batch_cost=None)
    g.configure(wait_ms=0)
    assert g(1) == 1
    with pytest.raises(ValueError, match="counts against nothing"):
        batched(lambda items: items, max_batch_cost=5, cost=2).configure(max_batch_cost=None)
    g.close()


# ---------------------------------------------------------------------------------------- time


@pytest.mark.parametrize("way", WAYS)
def test_a_time_limit_holds_for_calls_from_then_on(way: str) -> None:
    gate = Gate()
    f = batched_by(way, gate, max_batch_size=1)
    patient = f.options(timeout_ms=None)
    ranked = f.options(priority=-1)

    async def main() -> None:
        calls = [f.acall(0)]
        await gate.aentered()
        calls.append(f.acall(1))
        f.configure(timeout_ms=0.001)
        hasty = [f.acall(2), ranked.acall(3)]
        calls.append(patient.acall(4))
        ended = await asyncio.gather(*hasty, return_exceptions=True)
        assert [type(error) for error in ended] == [DeadlineExceeded] * 2
        f.configure(timeout_ms=None)
        calls.append(f.acall(5))
        gate.open()
        assert await settled(calls) == [("answer", n) for n in (0, 1, 4, 5)]

    asyncio.run(main())
    assert gate.items == [0, 1, 4, 5]
    f.close()


def test_plain_calls_and_submits_are_limited_too() -> None:
    gate = Gate()
    f = batched_by("thread", gate, max_batch_size=1)
    running = f.submit(0)
    gate.entered()
    f.configure(timeout_ms=0.001)
    with pytest.raises(DeadlineExceeded):
        f(1)
    with pytest.raises(DeadlineExceeded):
        f.submit(2).result(LIMIT)
    gate.open()
    running.result(LIMIT)
    f.close()


def test_what_a_priority_is_worth_changes() -> None:
    gate = Gate()
    f = batched_by("thread", gate, max_batch_size=1, age_ms=0)
    later = f.options(priority=1)
    first = f.submit(0)
    gate.entered()
    # Worth nothing: in order of arrival.
    calls = [later.submit(1), f.submit(2)]
    gate.release(2)
    calls[0].result(LIMIT)
    gate.entered(3)
    f.configure(age_ms=LONG)
    calls += [later.submit(3), f.submit(4)]
    gate.open()
    for call in (first, *calls):
        call.result(LIMIT)
    assert gate.items == [0, 1, 2, 4, 3]
    f.close()


# ------------------------------------------------------------------------------- all, or none


@pytest.mark.parametrize(
    "changes",
    [
        {"max_batch_size": 0},
        {"max_batch_size": True},
        {"max_batch_size": "9"},
        {"wait_ms": -1},
        {"wait_ms": float("nan")},
        {"wait_ms": float("inf")},
        {"max_queue": 1.5},
        {"max_concurrent_batches": 0},
        {"timeout_ms": 1, "wait_ms": 2},
        {"age_ms": None},
        {"max_batch_cost": -3},
        {"executor": "loop"},
        {"max_batch_sizes": 3},
    ],
)
def test_what_is_refused_changes_nothing(changes: dict[str, Any]) -> None:
    gate = Gate()
    gate.open()
    f = batched_by("thread", gate, wait_ms=LONG, max_batch_size=2)
    call = f.submit(1)
    before = f._station.options
    with pytest.raises((TypeError, ValueError)):
        f.configure(**{"max_batch_size": 1, "wait_ms": 0, **changes})
    assert f._station.options is before
    assert f.stats.pending == 1
    assert call.cancel()
    f.close()


def test_what_cannot_change_says_why() -> None:
    f = batched(lambda items: items)
    for name, why in FOR_GOOD.items():
        with pytest.raises(TypeError, match=f"{name} cannot be changed .*{why}"):
            f.configure(**{name: getattr(f._station.options, name)})
    with pytest.raises(TypeError, match="no option 'wait': did you mean 'wait_ms'"):
        f.configure(wait=3)
    with pytest.raises(TypeError, match="no option 'max_concurrent_batches'"):
        Batcher().configure(max_concurrent_batches=3)


def test_every_option_either_changes_or_is_for_good() -> None:
    numbers = {
        name
        for name, kind in Options.__annotations__.items()
        if kind in ("int", "float", "int | None", "float | None")
    }
    assert numbers <= {*LIVE, *FOR_GOOD}
    assert not set(LIVE) & set(FOR_GOOD)


def test_type_checkers_know_every_option_that_changes() -> None:
    stated = ast.parse(Path(_control.__file__).read_text())
    configures = [
        node
        for node in ast.walk(stated)
        if isinstance(node, ast.FunctionDef) and node.name == "configure" and node.args.kwonlyargs
    ]
    assert [{one.arg for one in node.args.kwonlyargs} for node in configures] == [set(LIVE)]


def test_before_the_first_use_nothing_is_started() -> None:
    f = batched(lambda items: items, wait_ms=LONG)
    f.configure(wait_ms=0)
    assert f._station._engine is None
    assert f(1) == 1
    f.close()


def test_of_two_changes_at_once_both_hold() -> None:
    told: list[Any] = []
    station = Station(Options(), "f", "thread", 1)

    class Engine:
        """Meets another change in the midst of the first."""

        is_ours = True

        def configure(self, **numbers: Any) -> None:
            if not told:
                told.append(None)
                station.configure({"max_queue": 7}, LIVE)
            told.append((numbers["max_batch_size"], numbers["max_queue"]))

    station._engine = Engine()  # type: ignore[assignment]
    station.configure({"max_batch_size": 5}, LIVE)
    assert (station.options.max_batch_size, station.options.max_queue) == (5, 7)
    assert told[-1] == (5, 7)


def test_many_threads_change_it_while_it_serves() -> None:
    f = batched(lambda items: items, max_batch_size=4, max_queue=1000)
    go = threading.Event()

    def change(number: int) -> None:
        go.wait(LIMIT)
        for n in range(50):
            f.configure(max_batch_size=1 + (n + number) % 5, wait_ms=(n % 3) / 10)
            f.configure(max_concurrent_batches=1 + n % 3)

    def call(number: int) -> None:
        go.wait(LIMIT)
        assert [f(n) for n in range(100)] == list(range(100))

    threads = [in_thread(change, n) for n in range(2)] + [in_thread(call, n) for n in range(4)]
    go.set()
    for one in threads:
        one.result(LIMIT)
    f.configure(max_batch_size=3, wait_ms=0, max_concurrent_batches=2)
    assert f(1) == 1
    f.close()


# --------------------------------------------------------------------- methods, forks, pickles


class Model:
    @batched(max_batch_size=8, wait_ms=LONG)
    def double(self, items: list[int]) -> list[int]:
        return [2 * item for item in items]


def test_a_method_changes_for_its_instance_alone() -> None:
    one, other = Model(), Model()
    one.double.configure(wait_ms=0)
    assert one.double(4) == 8
    assert other.double._station.options.wait_ms == LONG
    with pytest.raises(TypeError, match="configure the method of an instance"):
        Model.double.configure(wait_ms=0)
    one.double.close()


def test_a_view_changes_the_batcher_it_is_one_of() -> None:
    f = batched(lambda items: items, wait_ms=LONG)
    f.options(priority=1).configure(wait_ms=0)
    assert f(1) == 1
    f.close()


def test_a_batcher_of_ones_own_changes() -> None:
    batcher: Batcher[int, int] = Batcher(max_batch_size=8, wait_ms=LONG)
    calls = [batcher.submit(n) for n in range(3)]
    puller = in_thread(batcher.next_batch)
    batcher.configure(max_batch_size=2)
    batch = puller.result(LIMIT)
    assert batch.items == [0, 1]
    batch.complete(batch.items)
    again = pickle.loads(pickle.dumps(batcher))
    assert again._station.options == batcher._station.options
    assert calls[2].cancel()
    batcher.close()


def test_pickled_by_value_it_takes_its_numbers_along_and_by_reference_it_does_not() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")

    def own(items: list[int]) -> list[int]:
        return items

    f = batched(own)
    f.configure(max_batch_size=5)
    assert cloudpickle.loads(cloudpickle.dumps(f))._station.options.max_batch_size == 5
    before = double._station.options
    assert pickle.loads(pickle.dumps(double)) is double
    assert double._station.options is before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_keeps_to_the_changed_numbers() -> None:
    said = run_script(
        """
from carpool import batched
f = batched(lambda items: items, wait_ms=600_000, max_concurrent_batches=1)
f.configure(wait_ms=0, max_concurrent_batches=2)
say(f(1))
child = os.fork()
if child == 0:
    say("child", f(2), len(f._station.workers))
    os._exit(0)
os.waitpid(child, 0)
f.close()
"""
    )
    assert said == ["1", "child 2 2"]
