"""Running a batch again: out of memory, after a pause (`retries`), and never again where the device is lost."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import BatcherClosed, BatcherDead, DeadlineExceeded, HandlerError, batched
from carpool._handler import recovery
from carpool._handler.faults import is_lost, is_out_of_memory
from carpool._handler.recovery import Pauses, Verdict, pause_after, verdict
from carpool._options import Options
from carpool.testing import ManualClock
from gates import LIMIT, WAYS, Gate, auntil, batched_by, identity, in_thread, until

LONG = 600_000


class Flaky(Exception):
    """Worth another try."""


class Clock:
    """Time that only pauses make pass."""

    def __init__(self) -> None:
        self.moment = 100.0
        self.pauses: list[float] = []
        #: Called in each pause, with its number from 0.
        self.meanwhile: Callable[[int], object] = lambda number: None

    def now(self, station: Any) -> float:
        return self.moment

    def sleep(self, pauses: Pauses, seconds: float) -> None:
        self.pauses.append(seconds)
        self.meanwhile(len(self.pauses) - 1)
        self.moment += seconds

    async def asleep(self, pauses: Pauses, seconds: float) -> None:
        self.sleep(pauses, seconds)
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(recovery, "now", clock.now)
    monkeypatch.setattr(Pauses, "sleep", lambda self, seconds: clock.sleep(self, seconds))
    monkeypatch.setattr(Pauses, "asleep", lambda self, seconds: clock.asleep(self, seconds))
    return clock


def outcomes(f: Any, count: int) -> list[Any]:
    async def main() -> list[Any]:
        calls = [f.acall(n) for n in range(count)]
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), LIMIT)

    return asyncio.run(main())


def kinds(ended: list[Any]) -> list[str]:
    return [type(one).__name__ if isinstance(one, BaseException) else "answer" for one in ended]


# -------------------------------------------------------------------------------- the decision


OutOfMemoryOfTorch = type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})
LOST = RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ...")
MEMORY = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    ("error", "size", "tries", "options", "expected"),
    [
        (Flaky(), 4, 0, {}, Verdict.FAIL),
        (Flaky(), 4, 0, {"on_error": "isolate"}, Verdict.HALVE),
        (Flaky(), 1, 0, {"on_error": "isolate"}, Verdict.FAIL),
        (Flaky(), 4, 0, {"retries": 2}, Verdict.AGAIN),
        (Flaky(), 4, 1, {"retries": 2}, Verdict.AGAIN),
        (Flaky(), 4, 2, {"retries": 2}, Verdict.FAIL),
        (ValueError(), 4, 0, {"retries": 2}, Verdict.FAIL),
        (Flaky(), 4, 1, {"retries": 2, "on_error": "isolate"}, Verdict.AGAIN),
        (Flaky(), 4, 2, {"retries": 2, "on_error": "isolate"}, Verdict.HALVE),
        (Flaky(), 1, 1, {"retries": 2, "on_error": "isolate"}, Verdict.AGAIN),
        (ValueError(), 4, 0, {"retries": 2, "on_error": "isolate"}, Verdict.HALVE),
        (MEMORY, 4, 0, {}, Verdict.FAIL),
        (MEMORY, 4, 0, {"on_error": "isolate"}, Verdict.HALVE),
        (MEMORY, 4, 0, {"retries": 2, "retry_on": RuntimeError}, Verdict.AGAIN),
        (
            MEMORY,
            4,
            0,
            {"retries": 2, "retry_on": RuntimeError, "on_error": "isolate"},
            Verdict.HALVE,
        ),
        (MEMORY, 1, 0, {"on_error": "isolate"}, Verdict.FAIL),
        (LOST, 4, 0, {}, Verdict.FAIL_ALL),
        (LOST, 4, 0, {"on_error": "isolate"}, Verdict.FAIL_ALL),
        (LOST, 4, 0, {"retries": 2, "retry_on": Exception}, Verdict.FAIL_ALL),
        (KeyboardInterrupt(), 4, 0, {"on_error": "isolate"}, Verdict.FAIL_ALL),
        (asyncio.CancelledError(), 4, 0, {"on_error": "isolate"}, Verdict.FAIL_ALL),
        (SystemExit(), 4, 0, {"retries": 2, "retry_on": Exception}, Verdict.FAIL_ALL),
    ],
)
def test_what_follows_from_an_error(
    error: BaseException, size: int, tries: int, options: dict[str, Any], expected: Verdict
) -> None:
    if "retries" in options:
        options = {"retry_on": Flaky, **options}
    assert verdict(error, size, tries, Options(**options)) is expected


def test_pauses_double_up_to_a_minute() -> None:
    options = Options(retries=3, retry_on=Flaky, retry_ms=250)
    assert [pause_after(tries, options) for tries in range(5)] == [0.25, 0.5, 1, 2, 4]
    assert pause_after(10**6, options) == 60
    assert pause_after(0, Options(retry_on=Flaky, retry_ms=0)) == 0
    assert pause_after(0, Options(retry_on=Flaky, retry_ms=LONG)) == 60


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryOfTorch("anything"),
        MEMORY,
        RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"),
        RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."
        ),
    ],
)
def test_too_little_memory_is_known(error: BaseException) -> None:
    assert is_out_of_memory(error)
    assert not is_lost(error)
    wrapped = ValueError("inference failed")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        LOST,
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("HIP error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: misaligned address"),
        RuntimeError("CUDA error: an illegal instruction was encountered"),
        RuntimeError("CUDA error: the launch timed out and was terminated"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("cudaErrorLaunchFailure: unspecified launch failure"),
        RuntimeError("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS"),
        type("CudaAPIError", (Exception,), {"__module__": "numba.cuda.cudadrv.driver"})(
            "[700] Call to cuMemcpyDtoH results in CUDA_ERROR_ILLEGAL_ADDRESS"
        ),
    ],
)
def test_a_lost_device_is_known(error: BaseException) -> None:
    assert is_lost(error)
    assert not is_out_of_memory(error)
    wrapped = ValueError("inference failed")
    wrapped.__cause__ = error
    assert is_lost(wrapped)


class Mute(RuntimeError):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("CUDA error: device-side assert triggered"),  # of whatever told this
        RuntimeError("device-side assert triggered in the assertion library"),
        RuntimeError("CUDA error: invalid argument"),
        RuntimeError("shape mismatch"),
        ValueError("the queue is out of memory slots"),
        type("OutOfMemoryError", (Exception,), {"__module__": "shop.stock"})("sold out"),
        Mute(),
        KeyError(3),
    ],
)
def test_other_errors_are_neither(error: BaseException) -> None:
    assert not is_lost(error)
    assert not is_out_of_memory(error)


def test_a_ring_of_causes_ends() -> None:
    one, other = ValueError(), ValueError()
    one.__cause__, other.__cause__ = other, one
    assert not is_lost(one)
    assert not is_out_of_memory(one)


# ------------------------------------------------------------------------------------- memory


class Memory:
    """A handler with memory for so many items at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.runs: list[int] = []

    def __call__(self, items: list[int]) -> list[int]:
        self.runs.append(len(items))
        if len(items) > self.room:
            raise OutOfMemoryOfTorch(f"CUDA out of memory with {len(items)}")
        return items


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_fit_runs_in_halves_and_later_batches_are_smaller(way: str) -> None:
    memory = Memory(room=5)
    f = batched_by(way, memory, max_batch_size=32, wait_ms=LONG, on_error="isolate")
    assert outcomes(f, 32) == list(range(32))
    # 32 and 16 and 8 do not fit; what is larger than is known to fit is not tried.
    assert memory.runs == [32, 16, 8] + [4] * 8
    assert outcomes(f, 8) == list(range(8))
    assert memory.runs[11:] == [4, 4]
    assert f._station.options.max_batch_size == 32
    f.close()


def test_larger_batches_are_tried_again_slowly(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory(room=5)
    f = batched(memory, max_batch_size=8, wait_ms=LONG, on_error="isolate")
    with caplog.at_level(logging.WARNING, "carpool"):
        outcomes(f, 8)
    assert "out of memory with 8 requests in a run; batches of at most 4" in caplog.text
    for _ in range(16):
        outcomes(f, 4)
    assert memory.runs[3:] == [4] * 16
    outcomes(f, 5)
    assert memory.runs[-1] == 5
    memory.room = 100
    for size in [5] * 15 + [6] * 16 + [7] * 16 + [8] * 3:
        outcomes(f, size)
        assert memory.runs[-1] == size
    f.close()


@pytest.mark.parametrize("way", WAYS)
def test_with_a_budget_the_cost_that_fits_is_remembered(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[tuple[int, int]] = []

    def handler(items: list[int]) -> list[int]:
        runs.append((len(items), sum(items)))
        if sum(items) > 600:
            raise MemoryError
        return items

    f = batched_by(
        way,
        handler,
        max_batch_cost=1000,
        cost=int,
        wait_ms=LONG,
        max_batch_size=40,
        on_error="isolate",
    )

    async def call(*items: int) -> list[Any]:
        calls = [f.acall(item) for item in items]
        f.flush()
        return await asyncio.gather(*calls, return_exceptions=True)

    async def calls() -> None:
        with caplog.at_level(logging.WARNING, "carpool"):
            assert await call(*[100] * 10) == [100] * 10
        assert "with 10 requests in a run; batches that cost at most 500 for now" in caplog.text
        del runs[:]
        # Many small ones need no more than few large ones.
        assert await call(*[5] * 40) == [5] * 40
        assert runs == [(40, 200)]
        assert await call(*[100] * 10) == [100] * 10
        assert runs[1:] == [(5, 500), (5, 500)]
        # What costs more leaves alone, and is not refused.
        assert await call(550) == [550]
        (failed,) = await call(900)
        assert isinstance(failed, MemoryError)
        await f.aclose()

    asyncio.run(calls())


def test_one_that_is_too_large_alone_fails_alone() -> None:
    def handler(items: list[int]) -> list[int]:
        if 3 in items:
            raise MemoryError(len(items))
        return items

    f = batched(handler, max_batch_size=8, wait_ms=LONG, on_error="isolate")
    ended = outcomes(f, 8)
    error = ended.pop(3)
    assert (type(error), error.args) == (MemoryError, (1,))
    assert ended == [0, 1, 2, 4, 5, 6, 7]
    f.close()


def test_without_isolate_too_little_memory_is_an_error_like_others() -> None:
    memory = Memory(room=1)
    f = batched(memory, max_batch_size=4, wait_ms=LONG)
    assert kinds(outcomes(f, 4)) == ["OutOfMemoryError"] * 4
    assert memory.runs == [4]
    f.close()


@pytest.mark.parametrize("way", WAYS)
def test_the_frames_of_what_did_not_fit_are_freed_before_the_next_run(way: str) -> None:
    class Tensor:
        pass

    kept: list[weakref.ref[Tensor]] = []
    hoard: list[BaseException] = []

    def handler(items: list[int]) -> list[int]:
        assert [one() for one in kept] == [None] * len(kept)
        tensor = Tensor()
        kept.append(weakref.ref(tensor))
        if len(items) > 1 or items == [0]:
            try:
                raise MemoryError
            except MemoryError as error:
                # A cycle, and in somebody's hands.
                tensor.error = error  # type: ignore[attr-defined]
                hoard.append(error)
                raise ValueError("wrapped") from error
        return items

    gc.disable()
    try:
        f = batched_by(way, handler, max_batch_size=4, wait_ms=LONG, on_error="isolate")
        assert kinds(outcomes(f, 4)) == ["ValueError", "answer", "answer", "answer"]
    finally:
        gc.enable()
    f.close()


# ------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_is_run_again_for_the_errors_it_was_told_of(way: str, clock: Clock) -> None:
    runs: list[list[int]] = []

    def handler(items: list[int]) -> list[int]:
        runs.append(list(items))
        if len(runs) < 4:
            raise Flaky(len(runs))
        return items

    f = batched_by(way, handler, max_batch_size=2, wait_ms=LONG, retries=3, retry_on=Flaky)
    assert outcomes(f, 2) == [0, 1]
    assert runs == [[0, 1]] * 4
    assert clock.pauses == pytest.approx([0.1, 0.2, 0.4])
    assert f.stats.batches == 1
    f.close()


@pytest.mark.parametrize("way", WAYS)
def test_the_last_error_is_the_callers(way: str, clock: Clock) -> None:
    runs = []

    def handler(items: list[int]) -> list[int]:
        runs.append(items)
        raise Flaky(len(runs))

    f = batched_by(
        way,
        handler,
        max_batch_size=2,
        wait_ms=LONG,
        retries=2,
        retry_on=(OSError, Flaky),
        retry_ms=0,
    )
    assert [error.args for error in outcomes(f, 2)] == [(3,), (3,)]
    assert clock.pauses == []
    f.close()


def test_other_errors_are_not_tried_again(clock: Clock) -> None:
    runs = []

    def handler(items: list[int]) -> list[int]:
        runs.append(items)
        raise ValueError if len(runs) == 2 else Flaky

    f = batched(handler, max_batch_size=2, wait_ms=LONG, retries=9, retry_on=Flaky)
    assert kinds(outcomes(f, 2)) == ["ValueError"] * 2
    assert len(runs) == 2
    f.close()


def test_what_was_tried_again_is_halved_then_and_no_more_retried(clock: Clock) -> None:
    runs = []

    def handler(items: list[int]) -> list[int]:
        runs.append(list(items))
        if 1 in items:
            raise Flaky(1)
        return items

    f = batched(
        handler, max_batch_size=4, wait_ms=LONG, retries=2, retry_on=Flaky, on_error="isolate"
    )
    assert kinds(outcomes(f, 4)) == ["answer", "Flaky", "answer", "answer"]
    assert runs == [[0, 1, 2, 3]] * 3 + [[0, 1], [0], [1], [2, 3]]
    f.close()


@pytest.mark.parametrize("way", ["loop", "thread"])
def test_who_gives_up_in_a_pause_is_not_run_again(way: str, clock: Clock) -> None:
    runs: list[list[int]] = []
    calls: list[Any] = []

    def handler(items: list[int]) -> list[int]:
        runs.append(list(items))
        if len(runs) == 1:
            raise Flaky
        return items

    f = batched_by(way, handler, max_batch_size=3, wait_ms=LONG, retries=1, retry_on=Flaky)

    async def main() -> list[Any]:
        async def call(n: int) -> Any:
            return await f.acall(n)

        loop = asyncio.get_running_loop()
        calls.extend(asyncio.ensure_future(call(n)) for n in range(3))
        cancelled = threading.Event()

        def cancel() -> None:
            calls[1].cancel()
            loop.call_soon(cancelled.set)

        def meanwhile(number: int) -> None:
            if way == "loop":
                calls[1].cancel()
            else:
                loop.call_soon_threadsafe(cancel)
                assert cancelled.wait(LIMIT)

        clock.meanwhile = meanwhile
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), LIMIT)

    assert kinds(asyncio.run(main())) == ["answer", "CancelledError", "answer"]
    assert runs == [[0, 1, 2], [0, 2]]
    assert identity(f.stats)
    f.close()


def test_who_is_overdue_in_a_pause_learns_of_it_then() -> None:
    # By the clock: a deadline of the core in a pause of the interpreter's.
    runs: list[list[int]] = []

    def handler(items: list[int]) -> list[int]:
        runs.append(list(items))
        raise Flaky

    f = batched(handler, max_batch_size=2, wait_ms=LONG, retries=1, retry_on=Flaky, retry_ms=50_000)
    hasty, patient = f.options(timeout_ms=30).submit(0), f.submit(1)
    with pytest.raises(DeadlineExceeded):
        hasty.result(LIMIT)
    assert (runs, patient.done()) == ([[0, 1]], False)
    # Nothing is run again after a close that does not drain: the pause ends here.
    assert f.close(drain=False)
    assert type(patient.exception(LIMIT)) is Flaky
    assert len(runs) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_close_that_does_not_drain_ends_the_pause(way: str) -> None:
    ran = threading.Event()

    def handler(items: list[int]) -> list[int]:
        ran.set()
        raise Flaky

    f = batched_by(way, handler, retries=9, retry_on=Flaky, retry_ms=LONG)

    def call() -> None:
        async def main() -> None:
            await f.acall(1)

        asyncio.run(main())

    caller = in_thread(call)
    assert ran.wait(LIMIT)
    f.close(drain=False)
    assert type(caller.exception(LIMIT)) is Flaky


def test_a_close_whose_time_is_over_ends_the_pause() -> None:
    gate = Gate()

    def handler(items: list[int]) -> list[int]:
        gate.run(items)
        raise Flaky

    f = batched(handler, retries=9, retry_on=Flaky, retry_ms=LONG)
    call = f.submit(1)
    gate.entered()
    gate.open()
    assert not f.close(timeout=0.01)
    assert type(call.exception(LIMIT)) is Flaky


def test_a_pause_blocks_no_loop() -> None:
    runs = []
    paused = asyncio.Event()

    async def handler(items: list[int]) -> list[int]:
        runs.append(items)
        if len(runs) == 1:
            asyncio.get_running_loop().call_soon(paused.set)
            raise Flaky
        return items

    f = batched(handler, retries=1, retry_on=Flaky, retry_ms=20)

    async def main() -> None:
        call = f.acall(1)
        await asyncio.wait_for(paused.wait(), LIMIT)
        turns = 0
        while not call.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 10
        assert await call == 1

    asyncio.run(main())
    f.close()


def test_an_interrupted_pause_hits_the_runner_alone(clock: Clock) -> None:
    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    clock.meanwhile = interrupt

    def handler(items: list[int]) -> list[int]:
        raise Flaky

    f = batched(
        handler, executor="caller", max_batch_size=2, wait_ms=LONG, retries=1, retry_on=Flaky
    )
    callers = [in_thread(f, n) for n in range(2)]
    errors = {type(caller.exception(LIMIT)).__name__ for caller in callers}
    assert errors == {"KeyboardInterrupt", "HandlerError"}
    assert identity(f.stats)
    f.close()


def test_a_task_that_is_cancelled_in_a_pause_fails_the_batch() -> None:
    async def handler(items: list[int]) -> list[int]:
        raise Flaky

    f = batched(handler, retries=1, retry_on=Flaky, retry_ms=LONG)

    async def main() -> None:
        call = f.acall(1)
        before = asyncio.all_tasks()
        await auntil(lambda: f._station.pauses._wakes)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        (ended,) = await asyncio.wait_for(asyncio.gather(call, return_exceptions=True), LIMIT)
        assert isinstance(ended, BaseException)

    asyncio.run(main())
    assert identity(f.stats)
    f.close()


def test_retries_change_while_it_runs(clock: Clock) -> None:
    runs = []

    def handler(items: list[int]) -> list[int]:
        runs.append(items)
        raise Flaky

    f = batched(handler, retry_on=Flaky)
    for retries in (0, 3, 1):
        f.configure(retries=retries, retry_ms=10)
        runs.clear()
        with pytest.raises(Flaky):
            f(1)
        assert len(runs) == 1 + retries
    f.close()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"retries": 1}, ValueError, "retries=1 needs retry_on"),
        ({"retries": -1, "retry_on": OSError}, ValueError, "retries must be 0 or more"),
        ({"retries": 1.0, "retry_on": OSError}, TypeError, "retries must be an int"),
        ({"retries": True, "retry_on": OSError}, TypeError, "retries must be an int"),
        ({"retry_on": ()}, ValueError, "retry_on must name a class"),
        ({"retry_on": OSError()}, TypeError, "retry_on must be a subclass of Exception"),
        ({"retry_on": KeyboardInterrupt}, TypeError, "retry_on must be a subclass of Exception"),
        ({"retry_on": [OSError]}, TypeError, "retry_on must be a subclass of Exception"),
        ({"retry_on": OSError, "retry_ms": -1}, ValueError, "retry_ms must be from 0"),
        ({"retry_on": OSError, "retry_ms": float("nan")}, ValueError, "retry_ms must be from 0"),
        ({"on_error": None}, TypeError, "on_error must be one of"),
    ],
)
def test_what_the_options_may_be(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        batched(lambda items: items, **options)


# ---------------------------------------------------------------------------------------- death


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"on_error": "isolate"},
        {"retries": 5, "retry_on": RuntimeError},
        {"context": lambda: threading.Lock()},
    ],
)
def test_after_a_lost_device_nothing_runs_any_more(way: str, options: dict[str, Any]) -> None:
    runs = []

    def handler(items: list[int]) -> list[int]:
        runs.append(items)
        raise RuntimeError("CUDA error: device-side assert triggered\nmore lines")

    f = batched_by(way, handler, name="model", max_batch_size=2, wait_ms=LONG, **options)
    ended = outcomes(f, 2)
    assert kinds(ended) == ["RuntimeError"] * 2
    assert len(runs) == 1
    assert not f.healthy
    text = (
        "model: its handler raised RuntimeError, .* start another: CUDA error: device-side assert"
    )

    async def later() -> None:
        await f.acall(3)

    with pytest.raises(BatcherDead, match=text) as dead:
        asyncio.run(later())
    assert isinstance(dead.value, BatcherClosed)
    assert type(dead.value.__cause__) is RuntimeError
    assert len(runs) == 1
    assert identity(f.stats)
    assert f.close()


def test_a_lone_call_finds_out_too() -> None:
    def handler(items: list[int]) -> list[int]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    f = batched(handler, executor="caller")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        f(1)
    with pytest.raises(BatcherDead):
        f(2)


def test_who_is_pending_fails_and_other_slots_are_not_tried_again() -> None:
    gate = Gate()

    def handler(items: list[str]) -> list[str]:
        gate.run(items)
        raise Flaky if items == ["flaky"] else LOST

    f = batched(
        handler,
        max_batch_size=1,
        max_concurrent_batches=2,
        retries=9,
        retry_on=Flaky,
        retry_ms=LONG,
    )
    flaky = f.submit("flaky")
    gate.entered()
    lost = f.submit("lost")
    gate.entered(2)
    pending = f.submit("pending")
    gate.release(1)
    # The first is in its pause by now, or soon.
    until(lambda: gate.running == 1)
    gate.open()
    assert type(lost.exception(LIMIT)) is RuntimeError
    assert type(pending.exception(LIMIT)) is BatcherDead
    assert type(flaky.exception(LIMIT)) is Flaky
    assert sorted(gate.items) == ["flaky", "lost"]
    assert f.close()


def test_each_caller_has_a_dead_error_of_its_own() -> None:
    f = batched(lambda items: items)
    engine = f._station.engine()
    error = BatcherDead("gone")
    error.__cause__ = LOST
    engine.die(error)
    raised: list[BaseException] = []
    for _ in range(2):
        with pytest.raises(BatcherDead, match="gone") as dead:
            f(1)
        raised.append(dead.value)
    assert raised[0] is not raised[1]
    assert raised[0].__cause__ is raised[1].__cause__ is LOST


@pytest.mark.parametrize("way", ["thread", "thread-async", "loop"])
def test_a_manual_clock_moves_pauses_too(way: str) -> None:
    runs: list[list[int]] = []

    def handler(items: list[int]) -> list[int]:
        runs.append(items)
        if len(runs) < 3:
            raise Flaky
        return items

    f = batched_by(way, handler, retries=2, retry_on=Flaky, retry_ms=LONG / 10)

    async def main() -> None:
        with ManualClock() as clock:
            call = f.acall(1)
            for run in (1, 2):
                await auntil(lambda: f._station.pauses._wakes)
                clock.advance(seconds=59)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert len(runs) == run
                await auntil(lambda: f._station.pauses._wakes)
                clock.advance(seconds=1)
                await auntil(lambda run=run: len(runs) > run)
            assert await call == 1

    asyncio.run(main())
    f.close()


# --------------------------------------------------------------------------------------- pauses


def test_a_pause_lasts_as_long_as_it_should_or_until_it_is_cut() -> None:
    pauses = Pauses()
    pauses.sleep(0)
    sleeper = in_thread(pauses.sleep, LONG)
    until(lambda: pauses._wakes)
    pauses.end()
    sleeper.result(LIMIT)
    pauses.sleep(LONG)
    asyncio.run(pauses.asleep(LONG))
    assert not pauses._wakes


def test_a_pause_on_a_loop_is_cut_from_another_thread() -> None:
    pauses = Pauses()

    async def main() -> None:
        await pauses.asleep(0)
        await pauses.asleep(LONG)

    sleeper: concurrent.futures.Future[None] = in_thread(asyncio.run, main())
    until(lambda: pauses._wakes)
    pauses.end()
    sleeper.result(LIMIT)
    assert not pauses._wakes


# ------------------------------------------------------------------- exceptions that are out of the ordinary


class NoTrace(RuntimeError):
    @property
    def __traceback__(self) -> Any:
        raise ValueError("no trace")


class NoCause(RuntimeError):
    @property
    def __cause__(self) -> Any:
        raise ValueError("no cause")


class Nothing(RuntimeError):
    def __getattribute__(self, name: str) -> Any:
        raise ValueError(f"no {name}")


@pytest.mark.parametrize("options", [{}, {"on_error": "isolate"}])
@pytest.mark.parametrize("kind", [NoTrace, NoCause, Nothing])
@pytest.mark.parametrize("way", WAYS)
def test_exceptions_that_do_not_let_themselves_be_looked_at_end_no_worker(
    way: str, kind: type[Exception], options: dict[str, Any]
) -> None:
    def handler(items: list[int]) -> list[int]:
        if -1 in items:
            raise kind
        return items

    f = batched_by(way, handler, **options)

    async def calls() -> None:
        for _ in range(3):
            raised: type[BaseException] | None = None
            try:
                await f.acall(-1)
            except Exception as error:  # pytest and others would look at it
                raised = type(error)
            # Of its own kind, where it could be copied.
            assert raised in (kind, HandlerError)
            assert await asyncio.wait_for(f.acall(2), LIMIT) == 2
        assert f.healthy
        await f.aclose()

    asyncio.run(calls())


class Group(Exception):
    """As groups look before CPython 3.11, in the package of that name."""

    def __init__(self, text: str, exceptions: tuple[BaseException, ...]) -> None:
        super().__init__(text)
        self.exceptions = exceptions


Group.__name__ = "BaseExceptionGroup"


def raised_while(handled: BaseException, silent: bool) -> BaseException:
    try:
        try:
            raise handled
        except BaseException:
            if silent:
                raise KeyError(1) from None
            raise KeyError(1)  # noqa: B904
    except KeyError as error:
        return error


@pytest.mark.parametrize(("is_it", "like"), [(is_lost, LOST), (is_out_of_memory, MemoryError())])
def test_what_was_handled_and_what_is_in_a_group_counts(
    is_it: Callable[[BaseException], bool], like: BaseException
) -> None:
    assert is_it(raised_while(like, silent=False))
    assert not is_it(raised_while(like, silent=True))
    assert is_it(Group("several", (KeyError(1), ValueError(2), like)))
    assert is_it(Group("nested", (Group("several", (like,)),)))
    assert not is_it(Group("several", (KeyError(1), ValueError(2))))
