"""`on_error="isolate"`: a failing batch is halved until whatever made it fail stands alone."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import pickle
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carpool import Batcher, BatchLengthError, DeadlineExceeded, batched, current_batch
from gates import LIMIT, WAYS, Gate, batched_by, identity, in_thread, until

LONG = 600_000


class Poisoned(Exception):
    """Of a batch that holds poison."""


def poisoned_by(*poison: Any) -> tuple[Callable[[list[Any]], list[Any]], list[list[Any]]]:
    """A handler that fails where poison is among its items, and what it was called with."""
    runs: list[list[Any]] = []

    def handler(items: list[Any]) -> list[Any]:
        runs.append(list(items))
        found = [item for item in items if item in poison]
        # Whoever is run again gets a list of its own.
        items.clear()
        if found:
            raise Poisoned(*found)
        return [("answer", item) for item in runs[-1]]

    return handler, runs


def outcomes(f: Any, count: int) -> list[Any]:
    """Of so many calls, which leave together."""

    async def main() -> list[Any]:
        calls = [f.acall(n) for n in range(count)]
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), LIMIT)

    return asyncio.run(main())


# ------------------------------------------------------------------------------------- halves


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("poison", [0, 31, 63])
def test_of_64_only_the_poison_fails_in_13_runs(way: str, poison: int) -> None:
    handler, runs = poisoned_by(poison)
    f = batched_by(way, handler, max_batch_size=64, wait_ms=LONG, on_error="isolate")
    ended = outcomes(f, 64)
    error = ended.pop(poison)
    assert type(error) is Poisoned
    assert error.args == (poison,)
    assert ended == [("answer", n) for n in range(64) if n != poison]
    assert len(runs) == 13
    assert sorted(len(run) for run in runs) == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64]
    stats = f.stats
    assert (stats.answered, stats.failed, stats.batches, stats.in_flight) == (63, 1, 1, 0)
    assert identity(stats)
    f.close()


@pytest.mark.parametrize("way", WAYS)
def test_everybody_gets_an_answer_of_their_own_whatever_is_poison(way: str) -> None:
    dice = random.Random(7)
    for _ in range(8):
        size = dice.randrange(1, 20)
        poison = {n for n in range(size) if dice.random() < 0.3}
        handler, runs = poisoned_by(*poison)
        f = batched_by(way, handler, max_batch_size=size, wait_ms=LONG, on_error="isolate")
        for n, ended in enumerate(outcomes(f, size)):
            if n in poison:
                assert (type(ended), ended.args) == (Poisoned, (n,))
            else:
                assert ended == ("answer", n)
        # In order, whatever is left out: every run holds neighbours.
        assert all(run == sorted(run) for run in runs)
        f.close()


def test_by_default_a_batch_fails_as_one() -> None:
    handler, runs = poisoned_by(2)
    f = batched(handler, max_batch_size=4, wait_ms=LONG)
    assert [type(error) for error in outcomes(f, 4)] == [Poisoned] * 4
    assert runs == [[0, 1, 2, 3]]
    f.close()


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_are_missing_are_looked_for_too(way: str) -> None:
    def handler(items: list[int]) -> Any:
        return [item for item in items if item != 5]

    f = batched_by(way, handler, max_batch_size=8, wait_ms=LONG, on_error="isolate")
    ended = outcomes(f, 8)
    assert type(ended.pop(5)) is BatchLengthError
    assert ended == [0, 1, 2, 3, 4, 6, 7]
    f.close()


def test_an_exception_in_a_row_is_an_answer() -> None:
    runs = []

    def handler(items: list[int]) -> list[Any]:
        runs.append(list(items))
        return [Poisoned(item) if item == 1 else item for item in items]

    f = batched(handler, max_batch_size=3, wait_ms=LONG, on_error="isolate")
    ended = outcomes(f, 3)
    assert (ended[0], type(ended[1]), ended[2], len(runs)) == (0, Poisoned, 2, 1)
    f.close()


@pytest.mark.parametrize("way", ["thread", "loop"])
def test_what_is_no_exception_of_a_handlers_is_not_halved(way: str) -> None:
    runs = []

    class Stop(BaseException):
        pass

    def handler(items: list[int]) -> list[Any]:
        runs.append(list(items))
        raise Stop

    f = batched_by(way, handler, max_batch_size=4, wait_ms=LONG, on_error="isolate")
    ended = outcomes(f, 4)
    assert all(type(error.__cause__) is Stop for error in ended)
    assert len(runs) == 1
    f.close()


def test_an_interrupt_hits_the_runner_alone_and_nothing_is_run_again() -> None:
    runs = []

    def handler(items: list[int]) -> list[Any]:
        runs.append(list(items))
        raise KeyboardInterrupt if len(runs) == 2 else Poisoned

    f = batched(handler, max_batch_size=4, wait_ms=LONG, on_error="isolate", executor="caller")
    callers = [in_thread(f, n) for n in range(4)]
    errors = [caller.exception(LIMIT) for caller in callers]
    assert sorted(type(error).__name__ for error in errors) == [
        "HandlerError",
        "HandlerError",
        "HandlerError",
        "KeyboardInterrupt",
    ]
    assert len(runs) == 2
    f.close()


# ------------------------------------------------------------------------------ setup, context


@pytest.mark.parametrize("way", WAYS)
def test_each_run_is_inside_the_context_and_setup_runs_once(way: str) -> None:
    log: list[str] = []
    mine: contextvars.ContextVar[str] = contextvars.ContextVar("mine", default="none")

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        log.append("in")
        try:
            yield
        finally:
            log.append("out")

    def setup() -> None:
        log.append("setup")
        mine.set("set up")

    def handler(items: list[int]) -> list[Any]:
        assert mine.get() == "set up", "a run sees what another has set"
        mine.set("run")
        log.append(str(len(items)))
        if 1 in items:
            raise Poisoned(1)
        return items

    options: dict[str, Any] = {"context": context, "setup": setup}
    f = batched_by(way, handler, max_batch_size=2, wait_ms=LONG, on_error="isolate", **options)
    ended = outcomes(f, 2)
    assert (ended[0], type(ended[1])) == (0, Poisoned)
    assert log == ["setup", "in", "2", "out", "in", "1", "out", "in", "1", "out"]
    f.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_run_knows_its_own_part(way: str) -> None:
    seen = []

    def handler(items: list[int]) -> list[int]:
        batch = current_batch()
        seen.append((batch.size, len(batch.requests)))
        if 2 in items:
            raise Poisoned(2)
        return items

    f = batched_by(way, handler, max_batch_size=3, wait_ms=LONG, on_error="isolate")
    outcomes(f, 3)
    assert seen == [(3, 3), (2, 2), (1, 1)]
    f.close()


def test_methods_and_several_parameters_are_isolated_as_well() -> None:
    class Model:
        @batched(max_batch_size=4, wait_ms=LONG, on_error="isolate", shared=("scale",))
        def divide(self, xs: list[int], ys: list[int], scale: int) -> list[float]:
            return [scale * x / y for x, y in zip(xs, ys, strict=True)]

    model = Model()
    calls = [model.divide.submit(8, ys=y, scale=2) for y in (1, 2, 0, 4)]
    assert type(calls.pop(2).exception(LIMIT)) is ZeroDivisionError
    assert [call.result(LIMIT) for call in calls] == [16, 8, 4]
    model.divide.close()


# ------------------------------------------------------------------------------ who is left out


@pytest.mark.parametrize("way", ["thread", "loop", "thread-async"])
def test_who_gives_up_meanwhile_is_not_run_again(way: str) -> None:
    gate = Gate()
    handler = gate.run

    def failing(items: list[int]) -> list[Any]:
        handler(items)
        if len(gate.batches) == 1:
            raise Poisoned
        return [("answer", item) for item in items]

    async def afailing(items: list[int]) -> list[Any]:
        await gate.arun(items)
        if len(gate.batches) == 1:
            raise Poisoned
        return [("answer", item) for item in items]

    f = batched(
        failing if way == "thread" else afailing,
        max_batch_size=4,
        wait_ms=LONG,
        on_error="isolate",
        executor=way.removesuffix("-async"),
    )

    async def main() -> None:
        async def call(n: int) -> Any:
            return await f.acall(n)

        calls = [asyncio.ensure_future(call(n)) for n in range(4)]
        await gate.aentered()
        calls[0].cancel()
        calls[2].cancel()
        await asyncio.sleep(0)
        gate.open()
        ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), LIMIT)
        assert [type(one) for one in (ended[0], ended[2])] == [asyncio.CancelledError] * 2
        assert (ended[1], ended[3]) == (("answer", 1), ("answer", 3))

    asyncio.run(main())
    assert gate.batches == [[0, 1, 2, 3], [1], [3]]
    assert identity(f.stats)
    f.close()


def test_who_is_overdue_meanwhile_is_not_run_again() -> None:
    gate = Gate()

    def handler(items: list[int]) -> list[Any]:
        gate.run(items)
        if len(gate.batches) == 1:
            raise Poisoned
        return items

    f = batched(handler, max_batch_size=2, wait_ms=LONG, on_error="isolate")
    hasty = f.options(timeout_ms=5).submit(1)
    engine = f._station.engine()
    end = engine.now() + 5_000_000
    patient = f.submit(2)
    gate.entered()
    until(lambda: engine.now() > end)
    gate.open()
    assert patient.result(LIMIT) == 2
    with pytest.raises(DeadlineExceeded):
        hasty.result(LIMIT)
    assert gate.batches == [[1, 2], [2]]
    assert identity(f.stats)
    f.close()


def test_a_failed_run_keeps_nothing_while_the_next_runs() -> None:
    class Tensor:
        pass

    kept: list[weakref.ref[Tensor]] = []
    alive = []

    def handler(items: list[int]) -> list[int]:
        alive.append([one() is not None for one in kept])
        tensor = Tensor()
        kept.append(weakref.ref(tensor))
        if 0 in items:
            raise Poisoned(0)
        return items

    gc.disable()
    try:
        f = batched(handler, max_batch_size=4, wait_ms=LONG, on_error="isolate")
        outcomes(f, 4)
    finally:
        gc.enable()
    # The error of the poison alone, the third run, is its caller's by now, with all it refers to.
    assert [[one for at, one in enumerate(run) if at != 2] for run in alive] == [
        [False] * (n - (n > 2)) for n in range(5)
    ]
    f.close()


# --------------------------------------------------------------------------------------- ends


def test_a_drain_waits_for_all_parts() -> None:
    gate = Gate()

    def handler(items: list[int]) -> list[Any]:
        gate.run(items)
        if 0 in items:
            raise Poisoned(0)
        return items

    f = batched(handler, max_batch_size=2, wait_ms=LONG, on_error="isolate")
    calls = [f.submit(n) for n in range(2)]
    gate.entered()
    closing = in_thread(f.close)
    gate.release()
    gate.entered(2)
    assert not closing.done()
    gate.open()
    assert closing.result(LIMIT)
    assert (type(calls[0].exception(LIMIT)), calls[1].result(LIMIT)) == (Poisoned, 1)


def test_the_slot_is_free_with_the_last_part_and_others_go_on() -> None:
    gate = Gate()

    def handler(items: list[int]) -> list[Any]:
        gate.run(items)
        if 0 in items:
            raise Poisoned(0)
        return items

    f = batched(handler, max_batch_size=2, wait_ms=LONG, on_error="isolate")
    calls = [f.submit(n) for n in range(4)]
    gate.entered()
    gate.release(2)
    gate.entered(3)
    assert gate.batches == [[0, 1], [0], [1]]
    gate.open()
    assert [call.result(LIMIT) for call in calls[1:]] == [1, 2, 3]
    assert gate.batches[3:] == [[2, 3]]
    assert gate.most_running == 1
    f.close()


def test_several_slots_isolate_at_once() -> None:
    handler, _ = poisoned_by(*range(0, 200, 10))
    f = batched(handler, max_batch_size=16, wait_ms=1, on_error="isolate", max_concurrent_batches=3)
    barrier = threading.Barrier(4)

    def call(start: int) -> list[Any]:
        barrier.wait(LIMIT)
        calls = [f.submit(n) for n in range(start, start + 50)]
        return [call.exception(LIMIT) or call.result(LIMIT) for call in calls]

    threads = [in_thread(call, start) for start in range(0, 200, 50)]
    ended = [one for thread in threads for one in thread.result(LIMIT)]
    for n, one in enumerate(ended):
        if n % 10 == 0:
            assert (type(one), one.args) == (Poisoned, (n,))
        else:
            assert one == ("answer", n)
    assert (f.stats.answered, f.stats.failed, f.stats.in_flight) == (180, 20, 0)
    f.close()


def test_it_pickles_and_a_batcher_of_ones_own_has_no_handler_to_isolate() -> None:
    with pytest.raises(TypeError, match="on_error"):
        Batcher(on_error="isolate")  # type: ignore[call-arg]
    cloudpickle = pytest.importorskip("cloudpickle")
    handler, _ = poisoned_by(1)
    f = batched(handler, on_error="isolate", retries=2, retry_on=OSError)
    again = pickle.loads(cloudpickle.dumps(f))
    options = again._station.options
    assert (options.on_error, options.retries, options.retry_on) == ("isolate", 2, (OSError,))


@pytest.mark.parametrize(
    "options", [{"on_error": "isolate"}, {"retry_on": OSError}, {"retries": 1, "retry_on": OSError}]
)
def test_a_stream_is_not_run_again(options: dict[str, Any]) -> None:
    def stream(items: list[int]) -> Iterator[list[int]]:
        yield items

    with pytest.raises(TypeError, match="may have given steps away"):
        batched(stream, **options)


def test_what_on_error_may_be() -> None:
    with pytest.raises(ValueError, match="on_error must be one of 'raise', 'isolate'"):
        batched(lambda items: items, on_error="ignore")  # type: ignore[call-overload]
