"""Streaming handlers: a list per step, an iterator per caller, and readers that come late, or never."""

from __future__ import annotations

import asyncio
import gc
import pickle
import random
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from carpool import (
    STOP,
    AsyncStream,
    BatcherClosed,
    BatchLengthError,
    DeadlineExceeded,
    QueueFull,
    SetupError,
    Stream,
    StreamStalled,
    WouldDeadlock,
    batched,
    current_batch,
)
from carpool._core import Giver
from carpool._streams import running
from gates import auntil, identity, in_thread, run_script, until

Run = Callable[..., Any]
KINDS = ("generator", "generator on a loop", "async generator", "async generator in a thread")


def stepping(kind: str, steps: Callable[[list[Any]], Iterator[Any]], **options: Any) -> Any:
    """A streaming function of these steps, run as `kind` says."""

    def plain(items: list[Any]) -> Iterator[Any]:
        yield from steps(items)

    async def asynchronous(items: list[Any]) -> AsyncIterator[Any]:
        for rows in steps(items):
            await asyncio.sleep(0)
            yield rows

    function: Any = asynchronous if kind.startswith("async") else plain
    executor = "loop" if kind in ("generator on a loop", "async generator") else "thread"
    return batched(function, executor=executor, **options)


def counting(items: list[int]) -> Iterator[list[Any]]:
    """Item n gets 0 … n - 1."""
    for step in range(max(items)):
        yield [step if step < item else STOP for item in items]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def collected(stream: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in stream]


# ---------------------------------------------------------------------------------------- steps


def test_each_caller_gets_its_own_steps(run: Run, kind: str) -> None:
    function = stepping(kind, counting, max_batch_size=8, wait_ms=50)

    async def main() -> None:
        numbers = [5, 0, 3, 1, 8, 2, 2, 7]
        got = await asyncio.gather(*(collected(function.acall(n)) for n in numbers))
        assert got == [list(range(n)) for n in numbers]
        stats = function.stats
        assert (stats.batches, stats.answered) == (1, 8)
        assert identity(stats)

    run(main())


@pytest.mark.parametrize("kind", ["generator", "async generator in a thread"])
def test_threads_iterate(kind: str) -> None:
    function = stepping(kind, counting, max_batch_size=4, wait_ms=5)
    threads = [in_thread(lambda n=n: list(function.submit(n))) for n in range(1, 9)]
    for number, thread in enumerate(threads, 1):
        assert thread.result(20) == list(range(number))
    assert identity(function.stats)


def test_threads_and_loops_share_a_batch(run: Run) -> None:
    function = stepping("generator", counting, max_batch_size=4, wait_ms=10_000)

    async def main() -> None:
        threads = [in_thread(lambda n=n: list(function(n))) for n in (2, 4)]
        await auntil(lambda: function.stats.pending == 2)
        got = await asyncio.gather(*(collected(function.acall(n)) for n in (3, 5)))
        assert got == [[0, 1, 2], [0, 1, 2, 3, 4]]
        assert [thread.result(20) for thread in threads] == [[0, 1], [0, 1, 2, 3]]
        assert function.stats.batches == 1

    run(main())


def test_a_step_comes_as_soon_as_it_is_given(run: Run) -> None:
    go_on = threading.Semaphore(0)

    def steps(items: list[int]) -> Iterator[list[int]]:
        for step in range(3):
            assert go_on.acquire(timeout=20)
            yield [step] * len(items)

    function = stepping("generator", steps)

    async def main() -> None:
        stream = function.acall(1)
        for step in range(3):
            waiting = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0)
            assert not waiting.done()
            go_on.release()
            assert await waiting == step
        assert [one async for one in stream] == []

    run(main())


def test_one_wake_for_a_loop_per_step(run: Run) -> None:
    go_on = threading.Semaphore(0)

    def steps(items: list[int]) -> Iterator[list[int]]:
        for step in range(10):
            assert go_on.acquire(timeout=20)
            yield [step] * len(items)

    function = stepping("generator", steps, max_batch_size=50, wait_ms=10_000)

    async def main() -> None:
        event_loop = asyncio.get_running_loop()
        wakes = 0
        original, add_reader = event_loop.call_soon_threadsafe, event_loop.add_reader

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return original(*args, **kwargs)

        def read(fd: Any, callback: Any, *args: Any) -> None:
            def called(*args: Any) -> None:
                nonlocal wakes
                wakes += 1
                callback(*args)

            add_reader(fd, called, *args)

        try:
            event_loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
            event_loop.add_reader = read  # type: ignore[method-assign]
        except AttributeError:
            pytest.skip("this loop's methods cannot be counted")
        streams = [function.acall(n) for n in range(50)]
        for step in range(10):
            waiting = [asyncio.ensure_future(stream.__anext__()) for stream in streams]
            await asyncio.sleep(0)
            wakes = 0
            go_on.release()
            assert await asyncio.gather(*waiting) == [step] * 50
            assert wakes == 1

    run(main())


def test_methods_several_parameters_and_shared_ones(run: Run) -> None:
    class Model:
        def __init__(self, name: str) -> None:
            self.name = name

        @batched(max_batch_size=4, wait_ms=20, shared=("sep",))
        def speak(
            self,
            words: list[str],
            times: list[int] = 1,
            sep: str = "",  # type: ignore[assignment]
        ) -> Iterator[list[Any]]:
            for step in range(max(times)):
                yield [
                    f"{self.name}{sep}{word}" if step < n else STOP
                    for word, n in zip(words, times, strict=True)
                ]

    model: Any = Model("m")
    assert list(model.speak("a")) == ["ma"]
    assert list(model.speak("a", times=2, sep="-")) == ["m-a", "m-a"]
    assert list(Model.speak(model, "b")) == ["mb"]  # type: ignore[arg-type]

    async def main() -> None:
        assert await collected(model.speak.acall("c", 3)) == ["mc"] * 3
        assert await collected(model.speak.options(priority=-1).acall("d")) == ["md"]

    run(main())


def test_arrays_are_rows_too() -> None:
    numpy = pytest.importorskip("numpy")

    @batched
    def doubled(items: list[int]) -> Iterator[Any]:
        yield numpy.array(items) * 2
        yield numpy.array([[item, item] for item in items])

    first, second = doubled(4)
    assert first == 8
    assert second.tolist() == [4, 4]


def test_nothing_at_all_is_an_end_too(run: Run, kind: str) -> None:
    function = stepping(kind, lambda items: iter(()))

    async def main() -> None:
        assert await collected(function.acall(1)) == []

    run(main())


def test_steps_of_finished_rows_go_nowhere(run: Run, kind: str) -> None:
    def steps(items: list[int]) -> Iterator[list[Any]]:
        yield [STOP, 1]
        yield ["late", 2]
        yield [ValueError("later"), STOP]

    function = stepping(kind, steps, max_batch_size=2, wait_ms=10_000)

    async def main() -> None:
        got = await asyncio.gather(collected(function.acall(0)), collected(function.acall(0)))
        assert got == [[], [1, 2]]

    run(main())


# --------------------------------------------------------------------------------------- errors


def test_an_exception_in_a_row_ends_that_row(run: Run, kind: str) -> None:
    def steps(items: list[int]) -> Iterator[list[Any]]:
        yield [0, 0]
        yield [ValueError("one"), 1]
        yield [2, 2]

    function = stepping(kind, steps, max_batch_size=2, wait_ms=10_000)

    async def main() -> None:
        one, other = function.acall(0), function.acall(1)
        got = asyncio.ensure_future(collected(other))
        assert await one.__anext__() == 0
        with pytest.raises(ValueError, match="one"):
            await one.__anext__()
        with pytest.raises(StopAsyncIteration):
            await one.__anext__()
        assert await got == [0, 1, 2]
        assert (function.stats.answered, function.stats.failed) == (1, 1)

    run(main())


def test_what_the_handler_raises_reaches_those_who_still_read(run: Run, kind: str) -> None:
    def steps(items: list[int]) -> Iterator[list[Any]]:
        yield [0, STOP, 0]
        raise RuntimeError("broken")

    function = stepping(kind, steps, max_batch_size=3, wait_ms=10_000)

    async def main() -> None:
        got = await asyncio.gather(
            *(collected(function.acall(n)) for n in range(3)), return_exceptions=True
        )
        assert got[1] == []
        assert [type(got[0]), type(got[2])] == [RuntimeError] * 2
        assert got[0] is not got[2], "each has its own"

    run(main())


@pytest.mark.parametrize("rows", [[1], [1, 2, 3], None, "ab", 5])
def test_a_wrong_step_fails_all_and_ends_the_handler(run: Run, kind: str, rows: Any) -> None:
    ended: list[str] = []

    def steps(items: list[int]) -> Iterator[Any]:
        try:
            yield [0, 0]
            yield rows
            yield [1, 1]
        finally:
            ended.append("closed")

    function = stepping(kind, steps, max_batch_size=2, wait_ms=10_000)

    async def main() -> None:
        got = await asyncio.gather(
            *(collected(function.acall(n)) for n in range(2)), return_exceptions=True
        )
        assert [type(one) for one in got] == [BatchLengthError] * 2
        gc.collect()
        await auntil(lambda: ended == ["closed"])

    run(main())


def test_an_error_on_the_way_out_is_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    @batched
    def function(items: list[int]) -> Iterator[list[Any]]:
        try:
            yield [STOP]
            yield [1]
        finally:
            raise RuntimeError("on the way out")

    assert list(function(1)) == []
    until(lambda: "after its last stream" in caplog.text)
    assert list(function(1)) == []


def test_setup_and_context_are_around_all_of_it(run: Run, kind: str) -> None:
    trail: list[str] = []

    class Around:
        def __enter__(self) -> None:
            trail.append("enter")

        def __exit__(self, *_: object) -> None:
            trail.append("exit")

    def steps(items: list[int]) -> Iterator[list[Any]]:
        trail.append("begin")
        yield [1]
        trail.append("end")

    function = stepping(kind, steps, setup=lambda: trail.append("setup"), context=Around)

    async def main() -> None:
        assert await collected(function.acall(1)) == [1]
        await auntil(lambda: len(trail) == 5)
        assert trail == ["setup", "enter", "begin", "end", "exit"]

    run(main())


def test_a_setup_that_fails(run: Run, kind: str) -> None:
    def broken() -> None:
        raise OSError("no device")

    function = stepping(kind, counting, setup=broken)

    async def main() -> None:
        with pytest.raises(SetupError):
            await collected(function.acall(1))

    run(main())


# -------------------------------------------------------------------------------------- leaving


def endless(seen: list[Any]) -> Callable[[list[Any]], Iterator[list[Any]]]:
    def steps(items: list[Any]) -> Iterator[list[Any]]:
        step = 0
        try:
            while True:
                gone = [one.cancelled for one in current_batch().requests]
                seen.append(gone)
                yield [step] * len(items)
                step += 1
        finally:
            seen.append("closed")

    return steps


def test_a_stream_that_is_given_up_frees_its_row(run: Run, kind: str) -> None:
    seen: list[Any] = []
    function = stepping(kind, endless(seen), max_batch_size=2, wait_ms=10_000, buffer_steps=2)

    async def main() -> None:
        one, other = function.acall(0), function.acall(1)
        assert await one.__anext__() == 0
        assert await other.__anext__() == 0
        await one.aclose()
        for step in range(1, 20):
            assert await other.__anext__() == step
        assert function.stats.in_flight == 1
        with pytest.raises(StopAsyncIteration):
            await one.__anext__()
        await other.aclose()
        await auntil(lambda: seen[-1] == "closed")
        await auntil(lambda: function.stats.in_flight == 0)
        assert identity(function.stats)

    run(main())


@pytest.mark.parametrize("way", ["close", "with", "drop", "cancel"])
def test_when_all_have_left_the_handler_is_stopped(run: Run, kind: str, way: str) -> None:
    seen: list[Any] = []
    function = stepping(kind, endless(seen), max_batch_size=3, wait_ms=10_000)

    async def leave(stream: AsyncStream[int]) -> None:
        if way == "with":
            async with stream:
                assert await stream.__anext__() == 0
        elif way == "cancel":
            reading = asyncio.ensure_future(collected(stream))
            await auntil(lambda: len(seen) > 2)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        else:
            assert await stream.__anext__() == 0
            if way == "close":
                await stream.aclose()

    async def main() -> None:
        await asyncio.gather(*(leave(function.acall(n)) for n in range(3)))
        await auntil(lambda: seen and seen[-1] == "closed")
        await auntil(lambda: function.stats.in_flight == 0)
        assert identity(function.stats)

    run(main())


@pytest.mark.parametrize("way", ["close", "with", "drop"])
def test_threads_leave_too(way: str) -> None:
    seen: list[Any] = []
    function = stepping("generator", endless(seen))
    stream = function(1)
    assert next(stream) == 0
    if way == "with":
        with stream:
            assert next(stream) == 1
    elif way == "close":
        stream.close()
        assert list(stream) == []
    else:
        del stream
    until(lambda: seen and seen[-1] == "closed")
    until(lambda: function.stats.in_flight == 0)
    assert identity(function.stats)


@pytest.mark.parametrize("executor", ["loop", "thread"])
@pytest.mark.parametrize("way", ["close", "drop", "cancel", "thread"])
@pytest.mark.parametrize("steps", [0, 1])
def test_a_handler_that_waits_for_nobody_is_stopped_at_once(
    run: Run, executor: Any, way: str, steps: int
) -> None:
    trail: list[str] = []

    @batched(max_batch_size=2, wait_ms=10_000, executor=executor)
    async def function(items: list[int]) -> AsyncIterator[list[int]]:
        try:
            for _ in range(steps):
                yield items
            trail.append("waits")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            trail.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            trail.append("closed")

    async def main() -> None:
        first, second = function.acall(1), function.acall(2)
        readings = [asyncio.ensure_future(collected(one)) for one in (first, second)]
        await auntil(lambda: trail == ["waits"])
        for stream, reading in zip((first, second), readings, strict=True):
            if way == "close":
                await stream.aclose()
            elif way == "thread":
                await asyncio.to_thread(stream._steps.cancel)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            if stream is first:
                await asyncio.sleep(0.01)
                assert trail == ["waits"], "the second still reads"
        del first, second, stream, reading
        readings.clear()
        await auntil(lambda: trail == ["waits", "cancelled", "closed"])
        await auntil(lambda: function.stats.in_flight == 0)
        stats = function.stats
        assert identity(stats)
        # And the next batch runs as ever.
        async with function.acall(3) as third, function.acall(4):
            if steps:
                assert await third.__anext__() == 3

    run(main())


def test_a_handler_that_will_not_be_stopped_may_go_on(run: Run) -> None:
    trail: list[str] = []

    @batched
    async def function(items: list[int]) -> AsyncIterator[list[int]]:
        try:
            trail.append("waits")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            trail.append("goes on")
        yield items
        trail.append("never")

    async def main() -> None:
        stream = function.acall(1)
        await auntil(lambda: trail == ["waits"])
        await stream.aclose()
        await auntil(lambda: function.stats.in_flight == 0)
        assert trail == ["waits", "goes on"]
        assert identity(function.stats)

    run(main())


def test_one_that_leaves_before_its_batch_never_runs(run: Run) -> None:
    hold, entered = threading.Event(), threading.Event()
    seen: list[Any] = []

    def steps(items: list[Any]) -> Iterator[list[Any]]:
        seen.extend(items)
        entered.set()
        assert hold.wait(20)
        yield items

    function = stepping("generator", steps)

    async def main() -> None:
        held = function.acall("held")
        await asyncio.to_thread(entered.wait, 20)
        gone = function.acall("gone")
        await gone.aclose()
        assert function.stats.pending == 0
        hold.set()
        assert await collected(held) == ["held"]
        assert seen == ["held"]
        assert function.stats.cancelled == 1

    run(main())


def test_nobody_is_kept_alive(run: Run) -> None:
    class Item:
        pass

    function = stepping("generator", lambda items: iter([[1]] * 3))

    async def main() -> None:
        item = Item()
        gone = weakref.ref(item)
        stream = function.acall(item)
        del item
        assert await collected(stream) == [1, 1, 1]
        del stream

        def is_gone() -> bool:
            gc.collect()
            return gone() is None

        await auntil(is_gone)

    run(main())


# -------------------------------------------------------------------------------- back-pressure


def test_a_slow_reader_sets_the_pace(run: Run, kind: str) -> None:
    given: list[int] = []

    def steps(items: list[int]) -> Iterator[list[int]]:
        for step in range(50):
            given.append(step)
            yield [step] * len(items)

    function = stepping(
        kind, steps, max_batch_size=2, wait_ms=10_000, buffer_steps=3, stall_ms=None
    )

    async def main() -> None:
        slow, fast = function.acall(0), function.acall(1)
        reading = asyncio.ensure_future(collected(fast))
        for step in range(50):
            assert await slow.__anext__() == step
            await asyncio.sleep(0)
            # Three in the buffer, one in hand, and the one that has just been taken.
            assert len(given) <= step + 6
        assert await reading == list(range(50))
        with pytest.raises(StopAsyncIteration):
            await slow.__anext__()

    run(main())


@pytest.mark.parametrize("stall_ms", [0, 300])
def test_one_that_stays_behind_fails_alone(run: Run, kind: str, stall_ms: float) -> None:
    def steps(items: list[int]) -> Iterator[list[int]]:
        for step in range(20):
            yield [step] * len(items)

    function = stepping(
        kind, steps, max_batch_size=2, wait_ms=10_000, buffer_steps=4, stall_ms=stall_ms
    )

    async def main() -> None:
        stalled, other = function.acall(0), function.acall(1)
        got: list[int] = []
        try:
            async for step in other:
                got.append(step)
        except StreamStalled:
            # With no patience at all a step may come before its reader had a turn; the other one has ample.
            assert stall_ms == 0
        else:
            assert got == list(range(20))
        assert [await stalled.__anext__() for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(StreamStalled, match="stall_ms"):
            await stalled.__anext__()
        assert function.stats.failed >= 1
        assert identity(function.stats)

    run(main())


@pytest.mark.parametrize("is_async", [False, True])
def test_those_who_stay_behind_together_cost_the_time_of_one(
    monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock, waits = Clock(), []

    class Timed:
        def __init__(self, batch: Any) -> None:
            self.giver = Giver(batch)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.giver, name)

        def wait_room(self, place: int, timeout_ns: int) -> bool:
            waits.append((place, timeout_ns / 1e6))
            clock.now += timeout_ns / 1e9
            return False

        def poll_room(self, place: int, callback: Any) -> bool:
            return False

    async def wait(rooms: Any, timeout: float) -> None:
        waits.append((len(waits), timeout * 1e3))
        clock.now += timeout

    monkeypatch.setattr(running, "Giver", Timed)
    monkeypatch.setattr(running, "time", clock)

    def steps(items: list[int]) -> Iterator[list[int]]:
        for step in range(3):
            yield [step] * len(items)

    kind = "async generator in a thread" if is_async else "generator"
    function = stepping(
        kind, steps, max_batch_size=4, wait_ms=10_000, buffer_steps=2, stall_ms=1000
    )
    monkeypatch.setattr(running, "wait", wait)
    streams = [function.submit(n) for n in range(4)]
    until(lambda: function.stats.failed == 4)
    assert waits[0] == (0, 1000)
    assert sum(time for _, time in waits) == 1000
    for stream in streams:
        with pytest.raises(StreamStalled):
            list(stream)


def test_a_reader_that_leaves_lets_the_handler_go_on(run: Run, kind: str) -> None:
    seen: list[Any] = []
    function = stepping(kind, endless(seen), buffer_steps=1, stall_ms=None)

    async def main() -> None:
        stream = function.acall(0)
        await auntil(lambda: len(seen) == 2)
        await stream.aclose()
        await auntil(lambda: seen[-1] == "closed")

    run(main())


def test_how_many_steps_a_stream_holds_changes_while_it_runs(run: Run, kind: str) -> None:
    seen: list[Any] = []
    function = stepping(kind, endless(seen), buffer_steps=1, stall_ms=None)

    async def main() -> None:
        stream = function.acall(0)
        await auntil(lambda: len(seen) == 2)
        function.configure(buffer_steps=4)
        assert await stream.__anext__() == 0
        # Four that nobody has taken, and one in the handler's hands.
        await auntil(lambda: len(seen) == 6)
        await stream.aclose()
        await auntil(lambda: seen[-1] == "closed")

    run(main())


# ------------------------------------------------------------------------------ around a stream


def test_a_close_lets_streams_end(run: Run, kind: str) -> None:
    function = stepping(kind, counting, buffer_steps=2)

    async def main() -> None:
        stream = function.acall(20)
        assert await stream.__anext__() == 0
        closing = asyncio.ensure_future(function.aclose())
        assert await collected(stream) == list(range(1, 20))
        assert await closing
        with pytest.raises(BatcherClosed):
            function.acall(1)

    run(main())


def test_a_close_fails_what_has_not_begun() -> None:
    hold, entered = threading.Event(), threading.Event()

    def steps(items: list[int]) -> Iterator[list[int]]:
        entered.set()
        assert hold.wait(20)
        yield items

    function = stepping("generator", steps)
    first = function(1)
    assert entered.wait(20)
    second = function(2)
    waiting = in_thread(list, second)
    assert not function.close(drain=False, timeout=0)
    with pytest.raises(BatcherClosed):
        waiting.result(20)
    hold.set()
    assert list(first) == [1]


def test_a_time_limit_counts_until_it_begins(run: Run, kind: str) -> None:
    hold = threading.Event()

    def steps(items: list[int]) -> Iterator[list[int]]:
        yield items
        while not hold.is_set():
            yield items

    function = stepping(kind, steps, buffer_steps=1, stall_ms=None)

    async def main() -> None:
        first = function.acall(1)
        assert await first.__anext__() == 1
        late = function.options(timeout_ms=1).acall(2)
        with pytest.raises(DeadlineExceeded):
            await late.__anext__()
        if "loop" not in kind and kind != "async generator":
            overdue = function.options(timeout_ms=1).submit(3)
            with pytest.raises(DeadlineExceeded):
                await asyncio.to_thread(next, overdue)
        hold.set()
        await collected(first)

    run(main())


def test_a_full_queue(run: Run) -> None:
    hold, entered = threading.Event(), threading.Event()

    def steps(items: list[int]) -> Iterator[list[int]]:
        entered.set()
        assert hold.wait(20)
        yield items

    function = stepping("generator", steps, max_queue=1, max_batch_size=1)
    streams = [function(1)]
    assert entered.wait(20)
    streams.append(function(2))
    with pytest.raises(QueueFull):
        function(3)

    async def main() -> None:
        with pytest.raises(QueueFull):
            function.acall(4)

    run(main())
    hold.set()
    assert [list(stream) for stream in streams] == [[1], [2]]

    waiting = stepping("generator", steps, max_queue=1, max_batch_size=1, overflow="wait")
    hold.clear()
    entered.clear()
    streams = [waiting(1)]
    assert entered.wait(20)
    streams.append(waiting(2))
    third = in_thread(waiting, 3)
    hold.set()
    assert [list(stream) for stream in [*streams, third.result(20)]] == [[1], [2], [3]]


def test_waiting_for_itself_is_found_out(run: Run) -> None:
    runs: list[list[int]] = []

    @batched
    def inner(items: list[int]) -> Iterator[list[Any]]:
        runs.append(items)
        yield [list(inner(2)) for _ in items]

    with pytest.raises(WouldDeadlock):
        list(inner(1))
    assert inner.close(timeout=20)
    assert runs == [[1]], "a stream whose reader may not wait is given up"

    @batched
    async def awaited(items: list[int]) -> AsyncIterator[list[Any]]:
        runs.append(items)
        async for step in awaited(4):
            yield [step]

    async def ask() -> None:
        with pytest.raises(WouldDeadlock):
            await awaited(3).__anext__()
        assert await awaited.aclose(timeout=20)

    run(ask())
    assert runs == [[1], [3]]

    @batched
    async def on_loop(items: list[int]) -> AsyncIterator[list[int]]:
        yield items

    async def main() -> None:
        with pytest.raises(WouldDeadlock):
            next(on_loop.submit(1))

    run(main())
    with pytest.raises(RuntimeError, match="event loop"):
        on_loop.submit(1)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_fork_does_not_wait_for_its_parents_stream() -> None:
    said = run_script(
        """
import warnings
warnings.simplefilter("ignore")
from carpool import BatchAbandoned, batched
@batched(buffer_steps=1, stall_ms=None)
def f(items):
    for step in range(5):
        yield [step]
stream = f(1)
next(stream)
pid = os.fork()
if pid == 0:
    try:
        next(stream)
    except BatchAbandoned as error:
        say("child:", "before the fork" in str(error), list(f(1)))
    del stream
    os._exit(0)
os.waitpid(pid, 0)
say("parent:", list(stream))
"""
    )
    assert said == ["child: True [0, 1, 2, 3, 4]", "parent: [1, 2, 3, 4]"]


def test_the_end_of_the_process_is_orderly() -> None:
    said = run_script(
        """
from carpool import batched
@batched(stall_ms=None, buffer_steps=1)
def f(items):
    while True:
        yield items
stream = f(1)
say(next(stream))
def read():
    try:
        for _ in stream: pass
    except Exception as error:
        pass
threading.Thread(target=read, daemon=True).start()
"""
    )
    assert said == ["1"]


def test_an_interrupt_of_a_reader() -> None:
    said = run_script(
        """
from carpool import batched
entered, hold = threading.Event(), threading.Event()
@batched
def f(items):
    entered.set()
    hold.wait()
    yield items
def interrupt():
    entered.wait()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
stream = f(1)
try:
    next(stream)
except KeyboardInterrupt:
    say("interrupted")
hold.set()
say(list(stream))
"""
    )
    assert said == ["interrupted", "[1]"]


# ------------------------------------------------------------------------------------ the rest


def test_what_does_not_go_together() -> None:
    def steps(items: list[int]) -> Iterator[list[int]]:
        yield items

    with pytest.raises(TypeError, match="streaming"):
        batched(steps, executor="caller")
    function: Any = batched(steps)
    for what in ("rows", "warmup"):
        with pytest.raises(TypeError, match="streaming"):
            getattr(function, what)([1])
    assert not hasattr(function, "map")
    for how, kind in (
        ({"buffer_steps": 0}, ValueError),
        ({"buffer_steps": "many"}, TypeError),
        ({"stall_ms": -1}, ValueError),
    ):
        with pytest.raises(kind):
            batched(steps, **how)  # type: ignore[call-overload]


def test_names_and_pickles() -> None:
    assert repr(STOP) == "carpool.STOP"
    assert pickle.loads(pickle.dumps(STOP)) is STOP
    assert type(STOP)() is STOP
    function = stepping("generator", counting, name="counter")
    stream = function(2)
    assert isinstance(stream, Stream)
    assert repr(stream) == "<carpool.Stream of counter>"
    assert list(stream) == [0, 1]
    assert "StreamedFunction counter" in repr(function)


# -------------------------------------------------------------------------------------- at random


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_each_gets_its_own(run: Run, kind: str, seed: int) -> None:
    """Rows of random length that end, fail or are left at random, read by coroutines and threads."""
    dice = random.Random(seed)

    def steps(items: list[tuple[int, int, str]]) -> Iterator[list[Any]]:
        for step in range(max(length for _, length, _ in items) + 1):
            rows: list[Any] = []
            for name, length, end in items:
                if step < length:
                    rows.append((name, step))
                else:
                    rows.append(STOP if end == "stop" else ValueError(name))
            yield rows

    function = stepping(
        kind, steps, max_batch_size=8, wait_ms=1, max_concurrent_batches=2, buffer_steps=2
    )
    plans = []
    for name in range(60):
        length = dice.randrange(0, 12)
        plans.append((name, length, dice.choice(["stop", "fail"]), dice.choice([None, None, 3, 0])))

    def check(plan: Any, got: list[Any], error: Exception | None) -> None:
        name, length, end, leaves = plan
        assert got == [(name, step) for step in range(len(got))]
        if leaves is not None and leaves <= length:
            assert len(got) == leaves
            return
        assert len(got) == length
        assert (error is not None) == (end == "fail")
        if error is not None:
            assert error.args == (name,)

    async def read(plan: Any) -> None:
        name, length, end, leaves = plan
        got: list[Any] = []
        failed: Exception | None = None
        async with function.acall((name, length, end)) as stream:
            try:
                while len(got) != leaves:
                    got.append(await stream.__anext__())
                    if dice.random() < 0.3:
                        await asyncio.sleep(0)
            except StopAsyncIteration:
                pass
            except ValueError as error:
                failed = error
        check(plan, got, failed)

    def read_in_thread(plan: Any) -> None:
        name, length, end, leaves = plan
        got: list[Any] = []
        failed: Exception | None = None
        with function.submit((name, length, end)) as stream:
            try:
                while len(got) != leaves:
                    got.append(next(stream))
            except StopIteration:
                pass
            except ValueError as error:
                failed = error
        check(plan, got, failed)

    async def main() -> None:
        threads = []
        if "thread" in kind or kind == "generator":
            threads = [in_thread(read_in_thread, plan) for plan in plans[:20]]
        await asyncio.gather(*(read(plan) for plan in plans[len(threads) :]))
        for thread in threads:
            await asyncio.to_thread(thread.result, 20)
        await auntil(lambda: function.stats.in_flight == 0)
        assert identity(function.stats)
        assert function.stats.submitted == 60

    run(main())
