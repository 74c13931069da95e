"""Timing: when a request went through its stations, the hook that hears of it, and slow handlers in the log."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import (
    BatchAbandoned,
    Batcher,
    BatcherClosed,
    DeadlineExceeded,
    QueueFull,
    RequestShed,
    RequestTooLarge,
    Stats,
    Timing,
    Trace,
    batched,
)
from carpool._core import note_padding
from carpool.testing import ManualClock
from gates import Gate, auntil, batched_by, identity, in_thread, run_script, until


class Heard:
    """A hook that keeps what it is called with."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []
        self.threads: list[int] = []

    def __call__(self, trace: Trace) -> None:
        self.threads.append(threading.get_ident())
        self.traces.append(trace)

    def wait(self, count: int) -> list[Trace]:
        until(lambda: len(self.traces) >= count)
        return self.traces


def now() -> float:
    """The batchers' clock, which other tests may have moved."""
    with ManualClock() as clock:
        return clock.now


def in_order(timing: Timing, *, before: float, after: float) -> bool:
    stations = [timing.arrived, timing.sealed, timing.started, timing.finished, timing.delivered]
    assert None not in stations
    moments = [before, *[one for one in stations if one is not None], after]
    return moments == sorted(moments)


def plain(items: list[Any]) -> list[Any]:
    return items


# -- on the future -----------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_a_future_knows_when_its_request_went_through(executor: Any, gate: Gate) -> None:
    f = batched(gate.handler, executor=executor)
    before = now()
    future = f.submit(1)
    gate.entered()
    assert future.timing is None
    gate.open()
    future.result(20)
    timing = future.timing
    assert timing is not None
    assert in_order(timing, before=before, after=now())
    assert timing.wait_ms == pytest.approx((timing.sealed - timing.arrived) * 1e3)  # type: ignore[operator]
    assert timing.run_ms == pytest.approx((timing.finished - timing.started) * 1e3)  # type: ignore[operator]
    assert timing.total_ms == pytest.approx((timing.delivered - timing.arrived) * 1e3)  # type: ignore[operator]
    f.close()


def test_with_a_context_on_a_loop_and_in_a_loop_of_ones_own(run: Callable[..., Any]) -> None:
    async def main() -> None:
        before = now()
        for f in (
            batched(plain, context=contextlib.nullcontext),
            batched(plain, executor="loop"),
        ):
            future = f.submit(1)
            assert await future == 1
            assert future.timing is not None
            assert in_order(future.timing, before=before, after=now())
            await f.aclose()
        batcher: Batcher[int, int] = Batcher()
        own = batcher.submit(1)
        batch = await batcher.anext_batch()
        assert batch is not None
        batch.complete([2])
        assert await own == 2
        assert own.timing is not None
        assert in_order(own.timing, before=before, after=now())
        await batcher.aclose()

    run(main())


def test_callbacks_find_the_timing_there(gate: Gate) -> None:
    found: list[Timing | None] = []
    f = batched(gate.handler)
    future = f.submit(1)
    gate.entered()
    future.add_done_callback(lambda done: found.append(done.timing))  # type: ignore[attr-defined]
    gate.open()
    until(lambda: found)
    assert found[0] is not None


def test_a_failed_request_has_its_timing_and_one_that_never_ran_has_none(gate: Gate) -> None:
    def handler(items: list[int]) -> list[int]:
        gate.run(items)
        raise ValueError("no")

    f = batched(handler, max_queue=2, max_batch_size=1)
    failed = f.submit(0)
    gate.entered()
    cancelled, expired = f.submit(1), f.options(timeout_ms=0).submit(2)
    with pytest.raises(DeadlineExceeded):
        expired.result(20)
    assert cancelled.cancel()
    gate.open()
    with pytest.raises(ValueError, match="no"):
        failed.result(20)
    assert failed.timing is not None
    assert (cancelled.timing, expired.timing) == (None, None)


def test_requests_of_one_batch_share_all_but_their_arrival(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=2)
    first = f.submit(0)
    gate.entered()
    others = [f.submit(item) for item in (1, 2)]
    gate.open()
    first.result(20)
    one, two = ((one.result(20), one.timing)[1] for one in others)
    assert one is not None
    assert two is not None
    assert one.arrived < two.arrived
    assert (one.sealed, one.started, one.finished, one.delivered) == (
        two.sealed,
        two.started,
        two.finished,
        two.delivered,
    )
    assert first.timing is not None
    assert first.timing.delivered is not None
    assert one.sealed is not None
    assert one.arrived < first.timing.delivered


# -- on what acall gives -----------------------------------------------------------------------


def test_an_awaitable_knows_its_timing_where_that_is_kept(
    way: str, run: Callable[..., Any]
) -> None:
    f = batched_by(way, plain, keep_timings=True, max_batch_size=2, wait_ms=60_000)

    async def main() -> None:
        before = now()
        calls = [f.acall(item) for item in (1, 2)]
        assert [call.timing for call in calls] == [None, None]
        assert await asyncio.gather(*calls) == [1, 2]
        one, two = (call.timing for call in calls)
        assert in_order(one, before=before, after=now())
        assert isinstance(one, Timing)
        assert one.arrived <= two.arrived
        assert (one.sealed, one.delivered) == (two.sealed, two.delivered)
        again = f.acall(3)
        f.flush()
        await again
        assert again.timing.arrived >= one.delivered
        await f.aclose()

    run(main())


def test_an_awaitable_that_failed_has_its_timing_and_one_that_never_ran_has_none(
    run: Callable[..., Any],
) -> None:
    def handler(items: list[int]) -> list[int]:
        raise ValueError("no")

    f: Any = batched(handler, keep_timings=True, wait_ms=60_000)

    async def main() -> None:
        late = f.options(timeout_ms=1).acall(1)
        with pytest.raises(DeadlineExceeded):
            await late
        gone = f.acall(2)
        assert gone.cancel("reason")
        fails = f.acall(3)
        f.flush()
        with pytest.raises(ValueError, match="no"):
            await fails
        with pytest.raises(asyncio.CancelledError, match="reason"):
            await gone
        assert (late.timing, gone.timing) == (None, None)
        assert fails.timing.run_ms >= 0
        await f.aclose()

    run(main())


def test_an_awaitable_of_a_loop_of_ones_own(run: Callable[..., Any]) -> None:
    async def main() -> None:
        batcher: Batcher[int, int] = Batcher(keep_timings=True)
        call, forsaken = batcher.acall(1), asyncio.ensure_future(batcher.acall(2))
        await asyncio.sleep(0)
        batch = await batcher.anext_batch()
        assert batch is not None
        forsaken.cancel()
        await asyncio.gather(forsaken, return_exceptions=True)
        batch.complete([2, 3])
        assert await call == 2
        assert call.timing is not None
        await batcher.aclose()

    run(main())


def test_nobody_asked_for_it() -> None:
    async def main() -> None:
        f: Any = batched(plain)
        call = f.acall(1)
        assert await call == 1
        assert call.timing is None
        await f.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [1, "yes", None])
def test_keep_timings_is_a_switch(wrong: Any) -> None:
    with pytest.raises(TypeError, match="keep_timings must be True or False"):
        batched(plain, keep_timings=wrong)


# -- the hook ----------------------------------------------------------------------------------


def test_the_hook_hears_of_every_request_whoever_runs_the_handler(
    way: str, run: Callable[..., Any]
) -> None:
    heard = Heard()
    f = batched_by(way, plain, max_batch_size=3, wait_ms=60_000, on_request=heard, name="watched")
    before = now()

    async def main() -> None:
        assert await asyncio.gather(*[f.acall(item) for item in range(3)]) == [0, 1, 2]
        await f.aclose()

    run(main())
    traces = heard.wait(3)
    assert len(traces) == 3
    for trace in traces:
        assert (trace.name, trace.outcome, trace.size, trace.reason) == (
            "watched",
            "answered",
            3,
            "full",
        )
        assert in_order(trace.timing, before=before, after=now())


@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_blocking_calls_too(executor: Any) -> None:
    heard = Heard()
    gate = Gate()
    f = batched(gate.handler, executor=executor, on_request=heard, max_batch_size=4)
    first = in_thread(f.options(priority=1), 0)
    gate.entered()
    others = [in_thread(f, item) for item in (1, 2)]
    until(lambda: f.stats.pending == 2)
    gate.open()
    for one in [first, *others]:
        one.result(20)
    sizes = sorted(trace.size or 0 for trace in heard.wait(3))
    assert sizes == [1, 2, 2]
    f.close()


def test_a_call_that_runs_alone_is_heard_of_too() -> None:
    heard = Heard()
    f = batched(plain, executor="caller", on_request=heard)
    assert f(1) == 1
    (trace,) = heard.traces
    assert (trace.outcome, trace.size, trace.reason) == ("answered", 1, "idle")
    assert heard.threads == [threading.get_ident()]


def test_it_hears_of_failures_of_those_who_gave_up_and_of_those_whose_time_was_over() -> None:
    heard = Heard()
    gate = Gate()

    def handler(items: list[int]) -> list[Any]:
        gate.run(items)
        return [ValueError("odd") if item % 2 else item for item in items]

    f = batched(handler, max_batch_size=3, on_request=heard)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = f.submit(0)
        gate.entered()
        with pytest.raises(DeadlineExceeded):
            await f.options(timeout_ms=1).acall(5)
        goes, fails, stays = (loop.create_task(f.acall(item)) for item in (2, 3, 4))
        await auntil(lambda: f.stats.pending == 3)
        gate.release()
        await first
        await gate.aentered(2)
        goes.cancel()
        await asyncio.gather(goes, return_exceptions=True)
        gate.open()
        assert await stays == 4
        with pytest.raises(ValueError, match="odd"):
            await fails

    asyncio.run(main())
    traces = heard.wait(5)
    outcomes = [trace.outcome for trace in traces]
    assert outcomes == ["expired", "answered", "cancelled", "failed", "answered"]
    expired = traces[0]
    assert (expired.size, expired.reason) == (None, None)
    timing = expired.timing
    assert (timing.sealed, timing.started, timing.finished) == (None, None, None)
    assert (timing.wait_ms, timing.run_ms) == (None, None)
    assert timing.total_ms is not None
    assert timing.total_ms > 0
    f.close()


def ends(heard: Heard) -> list[str]:
    return sorted(trace.outcome for trace in heard.traces)


def counted(stats: Stats) -> dict[str, int]:
    """What the hook is to have heard, as far as the figures tell apart."""
    return {
        "answered": stats.answered,
        "cancelled": stats.cancelled,
        "expired": stats.expired,
        "shed": stats.shed,
        "all": stats.submitted,
    }


def told(heard: Heard) -> dict[str, int]:
    outcomes = [trace.outcome for trace in heard.traces]
    kinds = ("answered", "cancelled", "expired", "shed")
    return {**{kind: outcomes.count(kind) for kind in kinds}, "all": len(outcomes)}


def test_requests_that_never_were_in_a_batch_are_heard_of(gate: Gate) -> None:
    heard = Heard()
    f = batched(gate.handler, on_request=heard, max_queue=2, overflow="shed")
    before = now()
    first = f.submit(0)
    gate.entered()
    goes, stays = f.submit(1), f.submit(2)
    urgent = f.options(priority=-1).submit(3)
    with pytest.raises(RequestShed):
        stays.result(20)
    with pytest.raises(RequestShed):
        f.options(priority=1)(4)
    assert ends(heard) == ["shed", "shed"]
    assert goes.cancel()
    assert goes.cancel()
    assert ends(heard) == ["cancelled", "shed", "shed"]
    closing = in_thread(lambda: f.close(drain=False))
    with pytest.raises(BatcherClosed):
        urgent.result(20)
    gate.open()
    first.result(20)
    assert closing.result(20)
    with pytest.raises(BatcherClosed):
        f.submit(5)
    assert ends(heard) == ["answered", "cancelled", "closed", "refused", "shed", "shed"]
    for trace in heard.traces:
        if trace.outcome != "answered":
            assert (trace.size, trace.reason) == (None, None)
            timing = trace.timing
            assert timing.delivered is not None
            assert before <= timing.arrived <= timing.delivered <= now()
            assert (timing.sealed, timing.started, timing.finished) == (None, None, None)
    assert told(heard) == counted(f.stats)


def test_refusals_are_heard_of_by_whom_they_meet(way: str, run: Callable[..., Any]) -> None:
    heard = Heard()
    f = batched_by(
        way,
        plain,
        on_request=heard,
        max_queue=1,
        wait_ms=60_000,
        max_batch_cost=5,
        cost=lambda n: n,
    )

    async def main() -> None:
        pending = asyncio.ensure_future(f.acall(1))
        await auntil(lambda: f.stats.pending == 1)
        with pytest.raises(RequestTooLarge):
            await f.acall(6)
        with pytest.raises(QueueFull):
            await f.acall(2)
        assert ends(heard) == ["refused", "refused"]
        assert heard.threads == [threading.get_ident()] * 2
        f.flush()
        assert await pending == 1
        await f.aclose()

    run(main())
    heard.wait(3)
    assert told(heard) == counted(f.stats)


def test_awaits_that_are_given_up_are_heard_of(way: str, run: Callable[..., Any]) -> None:
    heard = Heard()
    f = batched_by(way, plain, on_request=heard, wait_ms=60_000)

    async def main() -> None:
        cancelled = asyncio.ensure_future(f.acall(1))
        await auntil(lambda: f.stats.pending == 1)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert ends(heard) == ["cancelled"]
        # Nobody has ever awaited it.
        dropped = f.acall(2)
        del dropped
        gc.collect()
        assert ends(heard) == ["cancelled"] * 2
        await f.aclose()

    run(main())
    assert told(heard) == counted(f.stats)


def test_lists_streams_and_lost_batches_are_heard_of(gate: Gate) -> None:
    heard = Heard()
    f = batched(gate.handler, on_request=heard)
    first = f.submit(0)
    gate.entered()
    late = in_thread(lambda: list(f.options(timeout_ms=1).map([1, 2, 3])))
    with pytest.raises(DeadlineExceeded):
        late.result(20)
    until(lambda: f.stats.expired == 3)
    gate.open()
    first.result(20)
    f.close()
    assert ends(heard) == ["answered", *["expired"] * 3]

    heard = Heard()

    @batched(on_request=heard, wait_ms=60_000)
    def count(items: list[int]) -> Any:
        yield items

    with pytest.raises(DeadlineExceeded):
        list(count.options(timeout_ms=1)(1))
    count(2).close()
    assert ends(heard) == ["cancelled", "expired"]
    count.close()

    heard = Heard()
    batcher: Batcher[int, int] = Batcher(on_request=heard)
    lost = batcher.submit(1)
    batch = batcher.next_batch()
    del batch
    gc.collect()
    with pytest.raises(BatchAbandoned):
        lost.result(20)
    assert ends(heard) == ["failed"]
    batcher.close()


def test_under_load_every_request_is_heard_of_once() -> None:
    heard = Heard()

    @batched(on_request=heard, max_batch_size=7, max_queue=40, overflow="shed", timeout_ms=2)
    def f(items: list[int]) -> list[Any]:
        return [LookupError() if item % 5 == 0 else item for item in items]

    def hammer(base: int) -> None:
        for number in range(base, base + 700):
            try:
                future = f.options(priority=number % 3).submit(number)
            except QueueFull:
                continue
            if number % 3 == 0:
                future.cancel()
            elif number % 50 == 0:
                future.exception(20)

    callers = [in_thread(hammer, base) for base in (0, 10**6, 2 * 10**6)]
    for caller in callers:
        caller.result(60)
    assert f.close(timeout=20)
    until(lambda: len(heard.traces) >= f.stats.submitted)
    assert told(heard) == counted(f.stats)
    assert identity(f.stats)


def test_what_the_hook_raises_reaches_no_caller_that_gives_up_or_is_refused(
    caplog: pytest.LogCaptureFixture, gate: Gate
) -> None:
    def hook(trace: Trace) -> None:
        raise SystemExit(3)

    f = batched(gate.handler, on_request=hook, max_queue=1, name="hooked")
    with caplog.at_level(logging.ERROR, "carpool"):
        first = f.submit(0)
        gate.entered()
        goes = f.submit(1)
        with pytest.raises(QueueFull):
            f.submit(2)
        assert goes.cancel()
        gate.open()
        first.result(20)
        f.close()
    assert caplog.text.count("hooked: on_request raised") == 3


def test_expired_futures_and_blocking_calls_are_heard_of(gate: Gate) -> None:
    heard = Heard()
    f = batched(gate.handler, on_request=heard)
    first = f.submit(0)
    gate.entered()
    late = f.options(timeout_ms=1)
    with pytest.raises(DeadlineExceeded):
        late(1)
    with pytest.raises(DeadlineExceeded):
        late.submit(2).result(20)
    assert [trace.outcome for trace in heard.wait(2)] == ["expired", "expired"]
    gate.open()
    first.result(20)
    f.close()


def test_loops_of_ones_own_are_heard_of() -> None:
    heard = Heard()
    batcher: Batcher[int, int] = Batcher(on_request=heard, max_batch_size=2)
    futures = [batcher.submit(item) for item in range(2)]
    batch = batcher.next_batch()
    assert batch is not None
    batch.set(0, 5)
    assert [trace.outcome for trace in heard.traces] == ["answered"]
    batch.fail_item(1, ValueError("no"))
    assert [trace.outcome for trace in heard.traces] == ["answered", "failed"]
    assert futures[0].result(20) == 5
    with pytest.raises(ValueError, match="no"):
        futures[1].result(20)
    batcher.close()


def test_a_sample_hears_of_its_share() -> None:
    heard = Heard()
    f = batched(plain, on_request=heard, sample_rate=0.1, max_batch_size=50)
    futures = [f.submit(item) for item in range(2000)]
    for future in futures:
        future.result(20)
    f.close()
    assert 120 < len(heard.traces) < 280


@pytest.mark.parametrize(
    "error", [ValueError("oops"), SystemExit(3), GeneratorExit(), asyncio.CancelledError()]
)
def test_what_the_hook_raises_hurts_nobody(
    error: BaseException, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def hook(trace: Trace) -> None:
        calls.append(trace)
        raise error

    f = batched_by(way, plain, on_request=hook, name="hooked")

    async def main() -> None:
        with caplog.at_level(logging.ERROR, "carpool"):
            assert await f.acall(1) == 1
            assert await f.acall(2) == 2
            await f.aclose()

    asyncio.run(main())
    until(lambda: len(calls) == 2)
    assert "hooked: on_request raised" in caplog.text
    assert identity(f.stats)


def test_a_hook_that_calls_the_function_is_told_that_it_cannot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done = threading.Event()

    def hook(trace: Trace) -> None:
        try:
            f(2)
        finally:
            done.set()

    f: Any = batched(plain, on_request=hook, name="selfish")
    with caplog.at_level(logging.ERROR, "carpool"):
        assert f(1) == 1
        assert done.wait(20)
        f.close()
    assert "WouldDeadlock" in caplog.text


def test_the_hook_comes_after_the_caller_was_told(gate: Gate) -> None:
    answered = threading.Event()

    def hook(trace: Trace) -> None:
        assert answered.wait(20)

    f = batched(plain, on_request=hook)
    assert f(1) == 1
    answered.set()
    f.close()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupt_in_the_hook_reaches_the_users_code() -> None:
    said = run_script("""
from carpool import batched
# Whoever runs this in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
def hook(trace):
    if not told:
        told.append(1)
        signal.raise_signal(signal.SIGINT)
told = []
f = batched(lambda items: items, executor="caller", on_request=hook)
try:
    say(f(1))
    for _ in range(1000): time.monotonic()
    say("no interrupt")
except KeyboardInterrupt:
    say("interrupted")
say(f(2))
""")
    assert said[-2:] == ["interrupted", "2"]
    assert signal.SIGINT


def test_without_a_hook_nothing_is_kept_of_a_request() -> None:
    class Item:
        pass

    f = batched(plain)
    item = Item()
    gone = weakref.ref(item)
    future = f.submit(item)
    future.result(20)
    del item, future
    f.close()
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        ({"on_request": 3}, TypeError, "on_request must be callable"),
        ({"on_request": print, "sample_rate": 0}, ValueError, "more than 0"),
        ({"on_request": print, "sample_rate": 1.5}, ValueError, "at most 1"),
        ({"on_request": print, "sample_rate": math.nan}, ValueError, "at most 1"),
        ({"on_request": print, "sample_rate": True}, TypeError, "a number from 0 to 1"),
        ({"on_request": print, "sample_rate": "1"}, TypeError, "a number from 0 to 1"),
        ({"sample_rate": 0.5}, ValueError, "give an on_request"),
        ({"slow_ms": 0}, ValueError, "more than 0"),
        ({"slow_ms": -1}, ValueError, "from 0 to"),
        ({"slow_ms": math.inf}, ValueError, "from 0 to"),
        ({"slow_ms": math.nan}, ValueError, "from 0 to"),
        ({"slow_ms": "1"}, TypeError, "number of milliseconds"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        batched(plain, **given)
    with pytest.raises(kind, match=text):
        Batcher(**given)


# -- slow handlers -----------------------------------------------------------------------------


def test_a_slow_handler_is_logged_once_a_minute(way: str, caplog: pytest.LogCaptureFixture) -> None:
    f = batched_by(way, plain, slow_ms=0.0001, name="sleepy")

    async def main() -> None:
        with caplog.at_level(logging.WARNING, "carpool"):
            for item in range(5):
                assert await f.acall(item) == item
            await f.aclose()

    asyncio.run(main())
    (record,) = caplog.records
    assert "sleepy: a batch took" in record.getMessage()
    assert "which is more than slow_ms=0.0001" in record.getMessage()
    assert f.stats.slow == 5


def test_a_lone_call_can_be_slow(caplog: pytest.LogCaptureFixture) -> None:
    f = batched(plain, executor="caller", slow_ms=0.00001, name="sleepy")
    with caplog.at_level(logging.WARNING, "carpool"):
        assert f(1) == 1
    assert "sleepy: a batch took" in caplog.text


def test_a_quick_handler_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    f = batched(plain, slow_ms=60_000)
    with caplog.at_level(logging.WARNING, "carpool"):
        assert f(1) == 1
        f.close()
    assert not caplog.records
    assert f.stats.slow == 0


# -- the figures -------------------------------------------------------------------------------


def test_the_figures_say_what_expired_and_how_full_it_was(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=2, max_queue=3)
    assert f.stats.slots == 1
    assert f.stats.peak == 0
    assert f.stats.oldest_ms == 0.0
    assert f.stats.padding is None
    first = f.submit(0)
    gate.entered()
    others = [f.submit(item) for item in (1, 2, 3)]
    with pytest.raises(QueueFull):
        f.submit(4)
    assert f.stats.oldest_ms > 0
    assert others[2].cancel()
    with pytest.raises(DeadlineExceeded):
        f.options(timeout_ms=1)(5)
    gate.open()
    for future in [first, *others[:2]]:
        future.result(20)
    f.close()
    stats = f.stats
    assert identity(stats)
    assert (stats.expired, stats.failed, stats.rejected) == (1, 1, 1)
    assert stats.peak == 3
    assert stats.oldest_ms == 0.0
    assert 0 < stats.busy_ms <= stats.open_ms
    assert stats.slot_use is not None
    assert 0 < stats.slot_use <= 1
    assert stats.shed == 0


def test_a_loop_of_ones_own_has_no_slots_to_count() -> None:
    batcher: Batcher[int, int] = Batcher()
    assert batcher.stats.slots is None
    assert batcher.stats.slot_use is None
    batcher.close()


@pytest.mark.parametrize("options", [{}, {"context": contextlib.nullcontext}])
def test_padding_is_the_share_that_was_of_no_use(options: dict[str, Any]) -> None:
    def handler(items: list[int]) -> list[int]:
        note_padding(items[0], 40)
        return items

    f = batched(handler, **options)
    assert f(30) == 30
    assert f.stats.padding == 0.25
    assert f(10) == 10
    assert f.stats.padding == 0.5
    f.close()
    note_padding(1, 100)
    assert f.stats.padding == 0.5


def test_filling_up_to_a_size_is_padding() -> None:
    f = batched(plain, batch_sizes=[4], max_batch_size=4, wait_ms=60_000)
    futures = [f.submit(item) for item in range(3)]
    f.flush()
    for future in futures:
        future.result(20)
    f.close()
    assert f.stats.padding == 0.25


def test_padded_arrays_are_counted_by_their_elements() -> None:
    np = pytest.importorskip("numpy")
    from carpool.collate import Pad

    @batched(collate=Pad(), max_batch_size=3, wait_ms=60_000)
    def f(rows: Any) -> Any:
        return rows.sum(axis=1)

    for _ in range(3):
        futures = [f.submit(np.ones(length)) for length in (1, 2, 6)]
        assert [future.result(20) for future in futures] == [1, 2, 6]
    f.close()
    assert f.stats.padding == 0.5


def test_what_is_slow_and_how_many_are_heard_of_can_be_changed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = Heard()
    f = batched(plain, executor="caller", on_request=heard, sample_rate=1e-9)
    with caplog.at_level(logging.WARNING, "carpool"):
        assert f(1) == 1
        assert not heard.traces
        assert not caplog.records
        f.configure(sample_rate=1, slow_ms=0.0001)
        assert f(2) == 2
        assert len(heard.traces) == 1
        assert "slow_ms=0.0001" in caplog.text
        f.configure(slow_ms=None)
        assert f(3) == 3
    assert f.stats.slow == 1
