"""Close: draining, aborting, time limits; racing with submit; whoever is forgotten."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, BatcherClosed, CarpoolError, batched
from gates import Gate, auntil, batched_by, identity, in_thread, until

HOUR_MS = 3_600_000


def test_draining_answers_everything_first(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=2)
    futures = [f.submit(number) for number in range(7)]
    gate.entered()
    closing = in_thread(f.close)
    gate.open()
    assert closing.result(20) is True
    assert all(future.done() for future in futures)
    assert [future.result() for future in futures] == [("answer", number) for number in range(7)]
    assert f.stats.answered == 7


def test_draining_does_not_wait_for_company(way: str) -> None:
    async def main() -> None:
        f = batched_by(way, lambda items: items, wait_ms=HOUR_MS)
        calls = [f.acall(number) for number in range(3)]
        assert await f.aclose() is True
        assert await asyncio.gather(*calls) == [0, 1, 2]
        assert dict(f.stats.reasons)["close"] == 1

    asyncio.run(main())


def test_aborting_refuses_the_pending_and_lets_the_running_finish(gate: Gate) -> None:
    f = batched(gate.handler)
    running = f.submit("running")
    gate.entered()
    pending = [f.submit(number) for number in range(5)]
    closing = in_thread(lambda: f.close(drain=False))
    errors = [future.exception(20) for future in pending]  # at once, while the handler still runs
    assert [type(error) for error in errors] == [BatcherClosed] * 5
    assert len({id(error) for error in errors}) == 5
    assert not running.done()
    gate.open()
    assert running.result(20) == ("answer", "running")
    assert closing.result(20) is True
    assert gate.items == ["running"]
    assert identity(f.stats)


def test_a_drain_whose_time_is_over(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    f = batched(gate.handler, name="slow to close")
    running = f.submit("running")
    gate.entered()
    pending = f.submit("pending")
    before = time.monotonic()
    with caplog.at_level(logging.DEBUG, logger="carpool"):
        assert f.close(drain=True, timeout=0.02) is False
    assert time.monotonic() - before >= 0.02
    assert isinstance(pending.exception(20), BatcherClosed)
    assert not running.done()
    assert "slow to close" in caplog.text
    assert any(record.levelno >= logging.WARNING for record in caplog.records)
    gate.open()
    assert running.result(20) == ("answer", "running")
    assert f.close() is True
    assert gate.items == ["running"]


def test_an_abort_whose_time_is_over(gate: Gate) -> None:
    f = batched(gate.handler)
    running = f.submit("running")
    gate.entered()
    assert f.close(drain=False, timeout=0.01) is False
    gate.open()
    assert running.result(20) == ("answer", "running")
    assert f.close(timeout=20) is True


def test_closing_one_that_was_never_used() -> None:
    f = batched(lambda items: items)
    assert f.healthy
    assert f.close() is True
    assert not f.healthy
    with pytest.raises(BatcherClosed):
        f(1)


def test_closing_again_is_harmless(gate: Gate) -> None:
    gate.open()
    f = batched(gate.handler)
    assert f(1) == ("answer", 1)
    for drain in (True, False, True):
        assert f.close(drain=drain) is True
        assert f.close(drain=drain, timeout=0) is True
    assert asyncio.run(f.aclose()) is True


def test_closing_from_several_threads_at_once(gate: Gate) -> None:
    f = batched(gate.handler)
    futures = [f.submit(number) for number in range(3)]
    gate.entered()
    closing = [in_thread(f.close) for _ in range(8)]
    gate.open()
    assert [one.result(20) for one in closing] == [True] * 8
    assert all(future.done() for future in futures)


@pytest.mark.parametrize("kind", ["call", "submit", "acall"])
def test_after_closing_every_call_says_so(kind: str, way: str) -> None:
    async def main() -> None:
        f = batched_by(way, lambda items: items, name="gone home")
        assert await f.acall(1) == 1
        await f.aclose()
        for _ in range(3):
            with pytest.raises(BatcherClosed, match="gone home"):
                {"call": f, "submit": f.submit, "acall": f.acall}[kind](2)
        assert identity(f.stats)
        assert not f.healthy
        f.flush()

    asyncio.run(main())


def test_calls_while_it_drains_are_refused_and_the_accepted_are_kept(gate: Gate) -> None:
    f = batched(gate.handler, max_queue=10**6)
    accepted = [f.submit("running")]
    gate.entered()
    closing = in_thread(f.close)
    refused = 0
    while not refused:
        try:
            accepted.append(f.submit(len(accepted)))
        except BatcherClosed:
            refused += 1
    assert not closing.done()
    gate.open()
    assert closing.result(20) is True
    assert [future.result(0)[1] for future in accepted] == ["running", *range(1, len(accepted))]


@pytest.mark.parametrize("drain", [True, False])
@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_close_races_submit_accepted_is_answered_or_told(drain: bool, executor: str) -> None:
    for _ in range(30):
        seen: list[int] = []

        def handler(items: list[int], seen: list[int] = seen) -> list[int]:
            seen.extend(items)
            return [-item for item in items]

        f = batched(lambda items: handler(items), executor=executor, max_batch_size=4)
        start = threading.Barrier(5)

        def submit(base: int, f: Any = f, start: threading.Barrier = start) -> list[Any]:
            start.wait(20)
            accepted = []
            for step in range(1000):
                try:
                    accepted.append((base + step, f.submit(base + step)))
                except BatcherClosed:
                    return accepted
            return accepted

        submitting = [in_thread(submit, base * 10_000) for base in range(4)]
        start.wait(20)
        assert f.close(drain=drain, timeout=20) is True
        for one in submitting:
            for number, future in one.result(20):
                assert future.done() or not drain
                error = future.exception(20)
                if error is None:
                    assert future.result() == -number
                    assert number in seen
                else:
                    assert not drain
                    assert type(error) is BatcherClosed
                    assert number not in seen
        assert identity(f.stats)
        assert f.stats.pending == f.stats.in_flight == 0


def test_closing_wakes_blocked_callers_and_awaiting_ones(gate: Gate) -> None:
    f = batched(gate.handler)
    f.submit("running")
    gate.entered()
    blocked = [in_thread(f, number) for number in range(3)]

    async def wait() -> Any:
        return await f.acall("awaited")

    looped = in_thread(asyncio.run, wait())
    until(lambda: f.stats.pending == 4)
    closing = in_thread(lambda: f.close(drain=False))
    for one in [*blocked, looped]:
        assert isinstance(one.exception(20), BatcherClosed)
    gate.open()
    assert closing.result(20) is True


# -- on a loop ---------------------------------------------------------------------------------


def test_aclose_drains_without_holding_the_loop(
    way: str, run: Callable[..., Any], new_gate: Callable[..., Gate]
) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched_by(way, gate, max_batch_size=2)
        calls = [f.acall(number) for number in range(5)]
        await gate.aentered()
        closing = asyncio.ensure_future(f.aclose())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not closing.done()
        gate.open()
        assert await asyncio.gather(*calls) == [("answer", number) for number in range(5)]
        assert await closing is True
        assert await f.aclose() is True

    run(main())


def test_aclose_whose_time_is_over(way: str, new_gate: Callable[..., Gate]) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched_by(way, gate)
        running = f.acall("running")
        await gate.aentered()
        pending = f.acall("pending")
        assert await f.aclose(timeout=0.01) is False
        with pytest.raises(BatcherClosed):
            await pending
        gate.open()
        assert await running == ("answer", "running")
        assert await f.aclose(drain=True, timeout=20) is True

    asyncio.run(main())


def test_aclose_that_aborts(way: str, new_gate: Callable[..., Gate]) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched_by(way, gate)
        running = f.acall("running")
        await gate.aentered()
        pending = [f.acall(number) for number in range(3)]
        closing = asyncio.ensure_future(f.aclose(drain=False))
        errors = await asyncio.gather(*pending, return_exceptions=True)
        assert [type(error) for error in errors] == [BatcherClosed] * 3
        gate.open()
        assert await running == ("answer", "running")
        assert await closing is True
        assert gate.items == ["running"]

    asyncio.run(main())


def test_a_cancelled_aclose_has_closed_all_the_same(gate: Gate) -> None:
    async def main() -> None:
        f = batched(gate.handler)
        running = f.acall("running")
        await gate.aentered()
        closing = asyncio.ensure_future(f.aclose())
        await auntil(lambda: refuses(f))
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(BatcherClosed):
            f.acall("late")
        gate.open()
        assert await running == ("answer", "running")
        assert await f.aclose() is True

    asyncio.run(main())


def test_an_aclose_whose_loop_is_gone_hurts_nobody(
    gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    f = batched(gate.handler)
    running = f.submit("running")
    gate.entered()

    async def main() -> None:
        asyncio.ensure_future(f.aclose())
        await auntil(lambda: refuses(f))

    asyncio.run(main())
    gate.open()
    assert running.result(20) == ("answer", "running")
    assert f.close(timeout=20) is True
    assert "Traceback" not in capfd.readouterr().err


def test_closing_by_every_way_at_once(gate: Gate) -> None:
    async def main() -> None:
        f = batched(gate.handler)
        running = f.acall("running")
        await gate.aentered()
        closing = [asyncio.ensure_future(f.aclose()) for _ in range(3)]
        blocking = in_thread(f.close)
        await auntil(lambda: refuses(f))
        gate.open()
        assert await asyncio.gather(*closing) == [True] * 3
        assert await asyncio.wrap_future(blocking) is True
        assert await running == ("answer", "running")

    asyncio.run(main())


def refuses(f: Any) -> bool:
    try:
        f.submit("probe").cancel()
    except BatcherClosed:
        return True
    return False


# -- context managers --------------------------------------------------------------------------


def test_a_with_block_drains_at_its_end(gate: Gate) -> None:
    gate.open()
    with batched(gate.handler, wait_ms=HOUR_MS) as f:
        futures = [f.submit(number) for number in range(3)]
    assert [future.result(0)[1] for future in futures] == [0, 1, 2]
    with pytest.raises(BatcherClosed):
        f(1)


def test_an_error_in_a_with_block_gets_out(gate: Gate) -> None:
    gate.open()
    f = batched(gate.handler)
    futures = []

    def fail() -> None:
        with f:
            futures.append(f.submit(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert futures[0].done()
    assert not f.healthy


def test_an_async_with_block_drains_at_its_end(way: str, run: Callable[..., Any]) -> None:
    async def main() -> None:
        async with batched_by(way, lambda items: items, wait_ms=HOUR_MS) as f:
            calls = [f.acall(number) for number in range(3)]
        assert await asyncio.gather(*calls) == [0, 1, 2]
        with pytest.raises(BatcherClosed):
            f.acall(1)

    run(main())


def test_a_with_block_hands_out_what_it_closes() -> None:
    f = batched(lambda items: items)
    with f as same:
        assert same is f
    b: Batcher[int, int] = Batcher()
    with b as also:
        assert also is b


# -- a batcher ---------------------------------------------------------------------------------


def test_closing_a_batcher_with_batches_out(gate: Gate) -> None:
    b: Batcher[str, str] = Batcher(max_batch_size=1)
    one, two = b.submit("one"), b.submit("two")
    first = b.next_batch()
    closing = in_thread(b.close)
    second = b.next_batch()
    assert second.items == ["two"]
    second.complete(["second"])
    assert two.result(20) == "second"
    assert not closing.done()
    first.complete(["first"])
    assert one.result(20) == "first"
    assert closing.result(20) is True
    assert b.next_batch() is None


def test_aborting_a_batcher_without_any_loop() -> None:
    b: Batcher[int, int] = Batcher()
    futures = [b.submit(number) for number in range(3)]
    assert b.close(drain=False) is True
    assert [type(future.exception(0)) for future in futures] == [BatcherClosed] * 3
    with pytest.raises(BatcherClosed):
        b.submit(4)
    assert not b.healthy


def test_a_batcher_nobody_serves_drains_until_its_time_is_over() -> None:
    b: Batcher[int, int] = Batcher()
    future = b.submit(1)
    assert b.close(timeout=0.01) is False
    assert isinstance(future.exception(0), BatcherClosed)
    assert b.close(timeout=20) is True


def forgotten(make: Callable[[], Any]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
        gc.collect()
    return [one for one in caught if issubclass(one.category, ResourceWarning)]


def test_a_forgotten_batcher_warns_and_fails_its_callers() -> None:
    futures = []

    def forget() -> None:
        b: Batcher[int, int] = Batcher(name="lost property")
        futures.append(b.submit(1))

    (warning,) = forgotten(forget)
    assert "lost property" in str(warning.message)
    assert "close" in str(warning.message)
    assert isinstance(futures[0].exception(20), CarpoolError)


def test_a_closed_batcher_and_a_decorated_function_do_not_warn(gate: Gate) -> None:
    def close() -> None:
        b: Batcher[int, int] = Batcher()
        b.submit(1)
        b.close(drain=False)

    def leave() -> None:
        with Batcher():
            pass

    def decorate() -> None:
        f = batched(lambda items: items)
        f(1)

    assert forgotten(close) == forgotten(leave) == forgotten(decorate) == []


def test_the_worker_s_thread_ends_with_closing() -> None:
    threads: list[threading.Thread] = []

    @batched
    def f(items: list[int]) -> list[int]:
        threads.append(threading.current_thread())
        return items

    f(1)
    assert f.close() is True
    until(lambda: not threads[0].is_alive())
    f.close()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"timeout": "1"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"drain": 5}, TypeError),
        ({"drain": None}, TypeError),
    ],
)
def test_nonsense_closes_nothing(arguments: dict[str, Any], error: type[Exception]) -> None:
    f = batched(lambda items: items)
    named = next(iter(arguments))
    with pytest.raises(error, match=named):
        f.close(**arguments)
    with pytest.raises(error, match=named):
        asyncio.run(f.aclose(**arguments))
    assert f(1) == 1
    assert f.healthy
