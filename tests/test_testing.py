"""carpool.testing: a clock that tests move, gates, and calls that run their handlers in place."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import gc
import logging
import math
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carpool import (
    STOP,
    Batcher,
    BatcherClosed,
    BatchLengthError,
    DeadlineExceeded,
    RequestTooLarge,
    Trace,
    batched,
    current_batch,
)
from carpool.testing import Gate, ManualClock, inline
from gates import LIMIT, auntil, batched_by, identity, in_thread, run_script, until


def plain(items: list[Any]) -> list[Any]:
    return items


# -- the clock ---------------------------------------------------------------------------------


def test_a_wait_ends_when_the_clock_says_so(way: str, run: Callable[..., Any]) -> None:
    f = batched_by(way, plain, wait_ms=50)

    async def main() -> None:
        with ManualClock() as clock:
            # More than once: what a worker or a loop waits by is set anew each time.
            for _ in range(3):
                before = f.stats.batches
                call = asyncio.ensure_future(f.acall(1))
                await auntil(lambda: f.stats.pending == 1)
                clock.advance(ms=49.999)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert (f.stats.pending, f.stats.batches) == (1, before)
                clock.advance(ms=0.001)
                assert await asyncio.wait_for(call, LIMIT) == 1
        await f.aclose()

    run(main())
    assert f.stats.wait_ms.min == f.stats.wait_ms.max == pytest.approx(50)


@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_blocking_calls_and_futures_too(executor: Any) -> None:
    f = batched(plain, executor=executor, wait_ms=10)
    with ManualClock() as clock:
        call = in_thread(f, 1)
        until(lambda: f.stats.pending == 1)
        clock.advance(ms=4)
        future = f.submit(2)
        clock.advance(ms=5)
        assert f.stats.batches == 0
        clock.advance(ms=1)
        assert (call.result(LIMIT), future.result(LIMIT)) == (1, 2)
        timing = future.timing
        assert timing is not None
        assert timing.wait_ms == pytest.approx(6)
    f.close()
    assert f.stats.batch_sizes.max == 2


def test_the_main_thread_may_wait_for_the_clock_that_another_moves() -> None:
    f = batched(plain, executor="caller", wait_ms=10)

    def move() -> None:
        until(lambda: f.stats.pending == 1)
        clock.advance(ms=10)

    with ManualClock() as clock:
        mover = in_thread(move)
        assert f(1) == 1
        mover.result(LIMIT)
    f.close()


def test_a_deadline_passes_when_the_clock_says_so(way: str, run: Callable[..., Any]) -> None:
    f = batched_by(way, plain, wait_ms=1_000, timeout_ms=2_000)

    async def main() -> None:
        with ManualClock() as clock:
            late = asyncio.ensure_future(f.options(timeout_ms=30).acall(1))
            stays = asyncio.ensure_future(f.acall(2))
            await auntil(lambda: f.stats.pending == 2)
            clock.advance(ms=29)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not late.done()
            clock.advance(ms=1)
            with pytest.raises(DeadlineExceeded):
                await asyncio.wait_for(late, LIMIT)
            assert f.stats.pending == 1
            clock.advance(seconds=1)
            assert await asyncio.wait_for(stays, LIMIT) == 2
        await f.aclose()

    run(main())
    assert identity(f.stats)
    assert f.stats.expired == 1


def test_a_deadline_of_a_blocked_call_and_of_a_future() -> None:
    with Gate() as gate, ManualClock() as clock:

        def handler(items: list[int]) -> list[int]:
            gate.hold()
            return items

        f = batched(handler, timeout_ms=100)
        first = f.submit(0)
        gate.entered()
        blocked, future = in_thread(f, 1), f.submit(2)
        until(lambda: f.stats.pending == 2)
        clock.advance(ms=100)
        for one in (blocked, future):
            with pytest.raises(DeadlineExceeded):
                one.result(LIMIT)
        gate.open()
        assert first.result(LIMIT) == 0
        f.close()


def test_a_handler_may_move_it_to_take_its_time(caplog: pytest.LogCaptureFixture) -> None:
    with ManualClock() as clock:

        @batched(slow_ms=100, name="sleepy")
        def f(items: list[float]) -> list[float]:
            clock.advance(ms=items[0])
            return items

        with caplog.at_level(logging.WARNING, "carpool"):
            took = [99, 100, 150, 120]
            for ms in took:
                assert f(ms) == ms
            until(lambda: f.stats.slow == 3)
            clock.advance(seconds=60)
            f(200)
            f.close()
        assert f.stats.run_ms.max == pytest.approx(200)
    texts = [record.getMessage() for record in caplog.records]
    assert texts == [
        "sleepy: a batch took 100.0 ms, which is more than slow_ms=100",
        "sleepy: a batch took 200.0 ms, which is more than slow_ms=100, "
        "the longest of 3 since this was said last",
    ]


def test_loops_of_ones_own_wait_by_it(run: Callable[..., Any]) -> None:
    batcher: Batcher[int, int] = Batcher(wait_ms=20)
    with ManualClock() as clock:
        pulling = in_thread(batcher.next_batch)
        future = batcher.submit(1)
        until(lambda: batcher.stats.pending == 1)
        clock.advance(ms=19)
        assert batcher.next_batch(block=False) is None
        clock.advance(ms=1)
        batch = pulling.result(LIMIT)
        assert batch.waited_ms == pytest.approx(20)
        batch.complete([2])
        assert future.result(LIMIT) == 2

        async def main() -> None:
            pull = asyncio.ensure_future(batcher.anext_batch())
            own = batcher.submit(3)
            for _ in range(20):
                await asyncio.sleep(0)
            clock.advance(ms=19)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not pull.done()
            clock.advance(ms=1)
            batch = await asyncio.wait_for(pull, LIMIT)
            assert batch is not None
            batch.complete([4])
            assert await own == 4

        run(main())
    batcher.close()


def test_limits_that_a_caller_states_are_real() -> None:
    with Gate() as gate, ManualClock():

        @batched
        def f(items: list[int]) -> list[int]:
            gate.hold()
            return items

        future = f.submit(1)
        gate.entered()
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(0.001)
        assert f.close(timeout=0.001) is False
        batcher: Batcher[int, int] = Batcher()
        assert batcher.next_batch(timeout=0.001) is None
        batcher.close()


def test_priorities_age_by_it() -> None:
    with Gate() as gate, ManualClock() as clock:
        order: list[str] = []

        def handler(items: list[str]) -> list[str]:
            gate.hold()
            order.extend(items)
            return items

        f = batched(handler, max_batch_size=1, age_ms=100)
        futures = [f.submit("first")]
        gate.entered()
        futures.append(f.options(priority=1).submit("old and less urgent"))
        clock.advance(ms=101)
        futures.append(f.submit("new and urgent"))
        gate.open()
        for future in futures:
            future.result(LIMIT)
        f.close()
    assert order == ["first", "old and less urgent", "new and urgent"]


def test_what_was_used_before_is_driven_and_used_after() -> None:
    f = batched(plain, wait_ms=0.01)
    assert f(1) == 1
    with ManualClock() as clock:
        future = f.submit(2)
        until(lambda: f.stats.pending == 1)
        assert f.stats.batches == 1
        clock.advance(ms=0.01)
        assert future.result(LIMIT) == 2
    assert f(3) == 3
    f.close()


def test_what_is_left_pending_leaves_with_the_clock() -> None:
    f = batched(plain, wait_ms=600_000)
    with ManualClock() as clock:
        clock.advance(seconds=3600)
        future = f.submit(1)
    assert future.result(LIMIT) == 1
    f.close()


def test_time_never_goes_back() -> None:
    f = batched(plain, wait_ms=1)
    with ManualClock() as clock:
        clock.advance(seconds=3600)
        inside = clock.now
    # Held for company as ever, by the time that runs on.
    before = f.submit(1)
    before.result(LIMIT)
    timing = before.timing
    assert timing is not None
    assert timing.arrived >= inside
    assert timing.wait_ms is not None
    assert timing.wait_ms >= 1
    with ManualClock() as clock:
        assert clock.now >= inside
    f.close()


def test_a_loop_that_waits_meanwhile_is_woken_in_time(run: Callable[..., Any]) -> None:
    f = batched_by("loop", plain, wait_ms=600_000)

    async def main() -> None:
        call = asyncio.ensure_future(f.acall(1))
        await auntil(lambda: f.stats.pending == 1)
        await asyncio.sleep(0)
        with ManualClock() as clock:
            clock.advance(seconds=599)
            assert f.stats.pending == 1
            clock.advance(seconds=1)
            assert await asyncio.wait_for(call, LIMIT) == 1
        await f.aclose()

    run(main())


def test_a_deadline_that_was_given_while_it_stood_is_kept_afterwards() -> None:
    with Gate() as gate:

        @batched
        def f(items: list[int]) -> list[int]:
            gate.hold()
            return items

        with ManualClock():
            first = f.submit(0)
            gate.entered()
            late = f.options(timeout_ms=1).submit(1)
            until(lambda: f.stats.pending == 1)
        with pytest.raises(DeadlineExceeded):
            late.result(LIMIT)
        gate.open()
        assert first.result(LIMIT) == 0
        f.close()


def test_one_at_a_time_and_only_while_entered() -> None:
    clock = ManualClock()
    for call in (clock.advance, lambda: clock.now):
        with pytest.raises(RuntimeError, match="runs"):
            call()
    with clock:
        with pytest.raises(RuntimeError, match="stands still already"), ManualClock():
            pass
        now = clock.now
        clock.advance(seconds=1.5)
        assert clock.now == pytest.approx(now + 1.5)
    with clock:
        pass


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (-1, ValueError),
        (math.inf, ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
def test_it_goes_forward_only(wrong: Any, kind: type[Exception]) -> None:
    with ManualClock() as clock, pytest.raises(kind, match="ms must be"):
        clock.advance(ms=wrong)


# -- gates -------------------------------------------------------------------------------------


def test_a_gate_holds_until_it_is_told() -> None:
    with Gate() as gate:

        @batched(max_batch_size=1)
        def f(items: list[int]) -> list[int]:
            gate.hold()
            return items

        futures = [f.submit(item) for item in range(3)]
        gate.entered()
        assert (gate.came, gate.held) == (1, 1)
        gate.release()
        assert futures[0].result(LIMIT) == 0
        gate.entered(2)
        assert not futures[1].done()
        gate.open()
        assert [future.result(LIMIT) for future in futures] == [0, 1, 2]
        assert (gate.came, gate.held) == (3, 0)
        f.close()


def test_a_gate_for_async_handlers(run: Callable[..., Any]) -> None:
    async def main() -> None:
        with Gate() as gate:

            @batched
            async def f(items: list[int]) -> list[int]:
                await gate.ahold()
                return items

            call = asyncio.ensure_future(f(1))
            await gate.aentered()
            assert gate.held == 1
            gate.release()
            assert await call == 1
            await f.aclose()

    run(main())


def test_a_gate_gives_up_after_a_while(run: Callable[..., Any]) -> None:
    gate = Gate(patience=0.001)
    with pytest.raises(TimeoutError, match=r"came 0 times, not 1 within 0\.001 s"):
        gate.entered()
    with pytest.raises(TimeoutError, match="not let go"):
        gate.hold()

    async def main() -> None:
        with pytest.raises(TimeoutError, match="came 1 times, not 2"):
            await gate.aentered(2)
        with pytest.raises(TimeoutError, match="not let go"):
            await gate.ahold()

    run(main())


# -- inline ------------------------------------------------------------------------------------


class Here:
    """A handler that keeps in which thread it ran, and with what."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.batches: list[list[Any]] = []

    def __call__(self, items: list[Any]) -> list[Any]:
        self.threads.append(threading.get_ident())
        self.batches.append(items)
        return [item * 2 for item in items]

    def only_here(self) -> bool:
        return set(self.threads) == {threading.get_ident()}


OPTIONS: list[dict[str, Any]] = [
    {},
    {"wait_ms": 60_000, "max_batch_size": 8},
    {"executor": "caller"},
    {"executor": "loop"},
    {"keep_contexts": True, "key": lambda item: item, "timeout_ms": 90_000, "wait_ms": 60_000},
    {"max_batch_cost": 9, "cost": 1, "max_concurrent_batches": 2},
    {"batch_sizes": [4, 8], "max_batch_size": 8},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
def test_each_call_runs_the_handler_in_the_callers_thread(options: dict[str, Any]) -> None:
    here = Here()
    f = batched(here, **options)
    before = set(threading.enumerate())
    with inline():
        assert f(1) == 2
        future = f.submit(2)
        assert future.done()
        assert future.result() == 4
        assert f.options(priority=3)(3) == 6

        async def main() -> None:
            assert await f.acall(4) == 8
            assert await asyncio.gather(f.acall(5), f.acall(6)) == [10, 12]

        asyncio.run(main())
        assert here.batches == [[item] for item in range(1, 7)]
        assert here.only_here()
        assert identity(f.stats)
        assert f.stats.answered == 6
        started = {one.name for one in set(threading.enumerate()) - before}
        assert not {name for name in started if f.name in name}
    f.close()


def test_maps_and_methods_and_several_parameters() -> None:
    here = Here()

    class Model:
        @batched(wait_ms=60_000)
        def run(self, items: list[int]) -> list[int]:
            return here(items)

        @batched
        def add(self, xs: list[int], ys: list[int]) -> list[int]:
            here(xs)
            return [x + y for x, y in zip(xs, ys, strict=True)]

    model = Model()
    with inline():
        assert list(model.run.map(range(5))) == [0, 2, 4, 6, 8]
        assert model.add(1, ys=2) == 3
        assert here.only_here()
        assert {len(batch) for batch in here.batches} == {1}


def test_the_caller_is_on_the_stack_of_the_handler() -> None:
    names: list[str] = []

    @batched
    def f(items: list[int]) -> list[int]:
        names.extend(frame.name for frame in traceback.extract_stack())
        return items

    def the_caller() -> int:
        return f(1)

    with inline():
        the_caller()
    assert names.index("the_caller") < names.index("f")
    f.close()


def test_async_handlers_run_on_the_callers_loop_a_batch_per_call(run: Callable[..., Any]) -> None:
    here = Here()

    async def main() -> None:
        @batched(wait_ms=60_000, executor="thread")
        async def f(items: list[int]) -> list[int]:
            await asyncio.sleep(0)
            assert current_batch().size == 1
            return here(items)

        with inline():
            assert await asyncio.gather(f(1), f(2), f.acall(3)) == [2, 4, 6]
        assert here.only_here()
        assert sorted(here.batches) == [[1], [2], [3]]
        f.close()

    run(main())


def test_errors_and_limits_are_as_ever() -> None:
    @batched(max_batch_cost=5, cost=lambda item: item, setup=lambda: ready.append(1))
    def f(items: list[int]) -> list[int]:
        if items[0] == 0:
            raise ValueError("zero")
        return items

    ready: list[int] = []
    with inline():
        with pytest.raises(RequestTooLarge):
            f(6)
        with pytest.raises(ValueError, match="zero"):
            f(0)
        with pytest.raises(ValueError, match="zero"):
            f.submit(0).result()
        assert f(5) == 5
        assert ready == [1]
        f.close()
        with pytest.raises(BatcherClosed):
            f(1)
    with pytest.raises(BatcherClosed):
        f(1)


def test_hooks_and_contexts_work_there_too() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    traces: list[Trace] = []

    @batched(on_request=traces.append, keep_contexts=True)
    def f(items: list[int]) -> list[str]:
        (request,) = current_batch().requests
        assert request.context is not None
        return [request.context[who]]

    who.set("ada")
    with inline():
        assert f(1) == "ada"
        assert [trace.outcome for trace in traces] == ["answered"]
    f.close()


def test_a_handler_may_call_itself_there() -> None:
    @batched
    def factorial(numbers: list[int]) -> list[int]:
        return [1 if n == 0 else n * factorial(n - 1) for n in numbers]

    with inline():
        assert factorial(10) == 3628800
    factorial.close()


def test_many_threads_each_run_their_own() -> None:
    threads: dict[int, int] = {}

    @batched
    def f(items: list[int]) -> list[int]:
        threads[items[0]] = threading.get_ident()
        return items

    def call(item: int) -> bool:
        assert f(item) == item
        return threads[item] == threading.get_ident()

    with inline():
        calls = [in_thread(call, item) for item in range(20)]
        assert [one.result(LIMIT) for one in calls] == [True] * 20
    f.close()


def test_it_ends_with_the_block_and_the_batcher_goes_on() -> None:
    here = Here()
    f = batched(here)
    assert f(1) == 2
    (worker,) = here.threads
    assert worker != threading.get_ident()
    with inline():
        with inline():
            assert f(2) == 4
        assert f(3) == 6
        assert f.stats.answered == 2
    assert f(4) == 8
    assert here.threads == [worker, threading.get_ident(), threading.get_ident(), worker]
    assert f.stats.answered == 2
    f.configure(wait_ms=0.01)
    with inline():
        f.configure(max_batch_size=8)
        assert f(5) == 10
        assert here.threads[-1] == threading.get_ident()
    assert f(6) == 12
    f.close()


def test_a_loop_of_ones_own_stays_as_it_is() -> None:
    with inline():
        batcher: Batcher[int, int] = Batcher(max_batch_size=2)
        futures = [batcher.submit(item) for item in range(2)]
        batch = batcher.next_batch()
        assert batch is not None
        assert len(batch) == 2
        batch.complete([1, 2])
        assert [future.result(LIMIT) for future in futures] == [1, 2]
        batcher.close()


def test_futures_of_coroutine_handlers_run_on_the_loop_of_their_caller_or_on_one_of_their_own(
    run: Callable[..., Any],
) -> None:
    async def handler(items: list[Any]) -> list[Any]:
        await asyncio.sleep(0)
        return [KeyError("no") if item is None else threading.get_ident() for item in items]

    here = threading.get_ident()

    async def main() -> None:
        with inline():
            for executor in ("loop", "thread"):
                f: Any = batched(handler, executor=executor)  # type: ignore[call-overload]
                assert await f.submit(1) == here
                assert {await one for one in [f.submit(item) for item in range(5)]} == {here}

    run(main())
    with inline():
        f: Any = batched(handler, executor="thread")
        done = f.submit(1)
        assert done.done()
        assert done.result() == here
        assert done.timing is not None
        with pytest.raises(KeyError, match="no"):
            f.submit(None).result(LIMIT)
        assert identity(f.stats)
        with pytest.raises(RuntimeError, match="no running event loop"):
            batched(handler).submit(1)


def test_an_asynchronous_stream_that_threads_read_stays_with_its_worker() -> None:
    @batched(executor="thread")
    async def f(items: list[int]) -> Any:
        yield items
        yield items

    with inline():
        assert list(f.submit(3)) == [3, 3]
    f.close()


class Turns:
    """A streaming handler that notes where it runs, and how far it has come."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.steps = 0
        self.closed = 0
        self.inside = 0

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def __call__(self, ends: list[int]) -> Iterator[list[Any]]:
        try:
            for n in range(max(ends)):
                self.threads.append(threading.get_ident())
                assert current_batch().size == 1
                self.steps += 1
                yield [n for _ in ends]
        finally:
            self.closed += 1


def test_who_reads_a_stream_runs_its_handler_as_far_as_he_reads() -> None:
    turns = Turns()
    f: Any = batched(turns, context=turns.context)
    with inline():
        stream = f(1000)
        assert turns.steps == 0
        other = f(3)
        assert [next(stream), next(stream)] == [0, 1]
        assert turns.steps == 2
        assert list(other) == [0, 1, 2]
        assert next(stream) == 2
        stream.close()
        assert (turns.steps, turns.closed, turns.inside) == (6, 2, 0)
        assert list(stream) == []
        with f.submit(9) as stream:
            next(stream)
        assert turns.closed == 3
        dropped = f(9)
        next(dropped)
        del dropped
        gc.collect()
        assert (turns.closed, turns.inside) == (4, 0)
        assert set(turns.threads) == {threading.get_ident()}
        assert identity(f.stats)
        assert f.stats.in_flight == f.stats.pending == 0
    before = len(turns.threads)
    assert list(f(3)) == [0, 1, 2]
    assert threading.get_ident() not in turns.threads[before:]
    f.close()


def test_coroutines_read_streams_in_place_too(run: Callable[..., Any]) -> None:
    turns = Turns()
    f: Any = batched(turns)
    places: list[int] = []

    @batched(wait_ms=60_000)
    async def asynchronous(items: list[int]) -> Any:
        for item in range(items[0]):
            places.append(threading.get_ident())
            yield [item]

    async def main() -> None:
        with inline():
            assert [step async for step in f.acall(3)] == [0, 1, 2]
            async with f.acall(10) as stream:
                assert await stream.__anext__() == 0
            assert (turns.steps, turns.closed) == (4, 2)
            # Nobody waits for company.
            assert [step async for step in asynchronous(3)] == [0, 1, 2]

    run(main())
    assert set(turns.threads) | set(places) == {threading.get_ident()}


def test_what_goes_wrong_in_a_stream_is_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    @batched(max_batch_cost=5, cost=lambda item: item)
    def f(items: list[int]) -> Any:
        yield items
        if items[0] == 1:
            raise KeyError("handler")
        if items[0] == 2:
            yield [LookupError("row")]
        if items[0] == 3:
            yield [1, 2, 3]
        yield [STOP]
        raise AssertionError("nobody reads any more")

    def read(stream: Any) -> list[Any]:
        steps: list[Any] = []
        try:
            for step in stream:
                steps.append(step)
        except Exception as error:
            steps.append(type(error))
        return steps

    with inline():
        assert read(f(1)) == [1, KeyError]
        assert read(f(2)) == [2, LookupError]
        assert read(f(3)) == [3, BatchLengthError]
        assert list(f(4)) == [4]
        with pytest.raises(RequestTooLarge):
            f(6)
        assert read(f.options(timeout_ms=0)(1)) == [DeadlineExceeded]
        assert identity(f.stats)


def test_streams_of_methods_and_of_many_threads_at_once() -> None:
    class Model:
        @batched
        def count(self, ends: list[int]) -> Any:
            here = threading.get_ident()
            for n in range(max(ends)):
                yield [(n, here)]

    model = Model()

    def read(end: int) -> bool:
        here = threading.get_ident()
        return list(model.count(end)) == [(n, here) for n in range(end)]

    with inline():
        readers = [in_thread(read, end) for end in range(1, 30)]
        assert all(reader.result(LIMIT) for reader in readers)


@pytest.mark.parametrize(("value", "expected"), [("1", "True"), ("0", "False"), ("", "False")])
def test_the_environment_switches_it_on(value: str, expected: str) -> None:
    said = run_script(f"""
os.environ["CARPOOL_INLINE"] = {value!r}
from carpool import batched
f = batched(lambda items: [threading.get_ident()])
say(f(1) == threading.get_ident())
say(f.submit(1).result() == threading.get_ident())
""")
    assert said == [expected, expected]


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_goes_on_in_the_mode_it_was_forked_in() -> None:
    said = run_script("""
from carpool import batched
from carpool.testing import inline
f = batched(lambda items: [threading.get_ident()])
f(1)
with inline():
    f(1)
    child = os.fork()
    if child == 0:
        say(f(1) == threading.get_ident())
        os._exit(0)
    os.waitpid(child, 0)
child = os.fork()
if child == 0:
    say(f(1) == threading.get_ident())
    os._exit(0)
os.waitpid(child, 0)
""")
    assert said == ["True", "False"]
