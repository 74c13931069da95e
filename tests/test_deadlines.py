"""Deadlines: decided by a timer thread that never enters the interpreter, told in every caller's way."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, BatcherClosed, DeadlineExceeded, Future, QueueFull
from gates import Gate, auntil, batched_by, identity, in_thread, run_on, run_script, until

FAR = 3600 * 10**9
"""An hour, in nanoseconds: a deadline that no test lives to see."""


class Item:
    """Something that can be seen to go."""


class Busy:
    """A batcher whose only slot is taken: what comes now is pending."""

    def __init__(self, gate: Gate, way: str = "thread", **options: Any) -> None:
        self.gate = gate
        self.function = batched_by(way, gate, max_batch_size=1, **options)
        self.station = self.function._station
        self.engine = self.station.start() if way == "thread" else self.station.engine()

    def occupy(self) -> Future[Any]:
        future = self.function.submit("first")
        self.gate.entered()
        return future  # type: ignore[no-any-return]

    def call(self, item: Any, **terms: Any) -> Any:
        return self.engine.call(self.function, item, **terms)

    def acall(self, item: Any, **terms: Any) -> Any:
        return self.engine.acall(self.function, item, **terms)

    def submit(self, item: Any, **terms: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future._ticket = self.engine.submit(self.function, item, future, **terms)
        return future

    def soon(self) -> int:
        return self.engine.now() + 2_000_000  # type: ignore[no-any-return]


# ----------------------------------------------------------------------------- who is told, and how


@pytest.mark.parametrize("way", ["thread", "caller"])
def test_a_blocked_thread_learns_of_its_deadline_while_the_slot_is_busy(
    gate: Gate, way: str
) -> None:
    busy = Busy(gate, way)
    first = in_thread(busy.function, "first")
    gate.entered()
    with pytest.raises(DeadlineExceeded) as caught:
        busy.call("late", deadline_ns=busy.soon())
    assert isinstance(caught.value, TimeoutError)
    assert busy.engine.pending == 0
    gate.open()
    assert first.result() == ("answer", "first")
    assert gate.items == ["first"]
    stats = busy.function.stats
    assert (stats.failed, stats.answered) == (1, 1)
    assert identity(stats)


@pytest.mark.parametrize("way", ["thread", "loop"])
def test_an_awaiting_caller_learns_of_its_deadline(
    gate: Gate, way: str, run: Callable[..., Any]
) -> None:
    async def main() -> None:
        busy = Busy(gate, way)
        first = asyncio.ensure_future(busy.function.acall("first"))
        await gate.aentered()
        late = [asyncio.ensure_future(busy.acall(n, deadline_ns=busy.soon())) for n in range(5)]
        for outcome in await asyncio.gather(*late, return_exceptions=True):
            assert isinstance(outcome, DeadlineExceeded)
        assert busy.engine.pending == 0
        assert not first.done()
        gate.open()
        assert await first == ("answer", "first")
        assert gate.items == ["first"]

    run(main())


def test_a_future_learns_of_its_deadline(gate: Gate) -> None:
    busy = Busy(gate)
    first = busy.occupy()
    told: list[Any] = []
    late = busy.submit("late", deadline_ns=busy.soon())
    late.add_done_callback(lambda future: told.append(threading.current_thread()))
    with pytest.raises(DeadlineExceeded):
        late.result(20)
    until(lambda: told)
    assert told[0].daemon
    assert told[0] is not threading.current_thread()
    assert busy.engine.pending == 0
    assert not first.done()
    gate.open()
    assert first.result() == ("answer", "first")
    assert gate.items == ["first"]


def test_one_loop_is_told_once_of_many(gate: Gate) -> None:
    async def main() -> None:
        busy = Busy(gate)
        busy.occupy()
        deadline = busy.soon()
        late = [asyncio.ensure_future(busy.acall(n, deadline_ns=deadline)) for n in range(100)]
        outcomes = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(one, DeadlineExceeded) for one in outcomes)

    asyncio.run(main())


def test_each_gets_an_exception_of_its_own(gate: Gate) -> None:
    busy = Busy(gate)
    busy.occupy()
    late = [busy.submit(n, deadline_ns=busy.soon()) for n in range(2)]
    errors = [one.exception(20) for one in late]
    assert errors[0] is not errors[1]
    assert all(isinstance(error, DeadlineExceeded) for error in errors)


# --------------------------------------------------------------------------------------- what is freed


def test_the_place_is_free_and_the_item_gone_while_the_slot_is_busy(gate: Gate) -> None:
    busy = Busy(gate, max_queue=1)
    busy.occupy()
    items = [Item() for _ in range(3)]
    gone = [weakref.ref(item) for item in items]

    late = busy.submit(items[0], deadline_ns=busy.soon())
    with pytest.raises(DeadlineExceeded):
        late.result(20)
    with pytest.raises(DeadlineExceeded):
        busy.call(items[1], deadline_ns=busy.soon())

    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            await busy.acall(items[2], deadline_ns=busy.soon())

    asyncio.run(main())
    items.clear()
    until(lambda: [ref() for ref in gone] == [None] * 3)
    # Three had the only place, one after the other.
    stays = busy.submit("stays")
    with pytest.raises(QueueFull):
        busy.submit("too many")
    gate.open()
    assert stays.result() == ("answer", "stays")


def test_who_waits_for_room_expires_too(gate: Gate) -> None:
    busy = Busy(gate, max_queue=1, overflow="wait")
    busy.occupy()
    stays = busy.submit("stays")
    with pytest.raises(DeadlineExceeded):
        busy.call("blocked", deadline_ns=busy.soon())
    # Submitting blocks for room as long as the deadline allows.
    late = busy.submit("submitted", deadline_ns=busy.soon())
    with pytest.raises(DeadlineExceeded):
        late.result(20)
    gate.open()
    assert stays.result() == ("answer", "stays")
    assert gate.items == ["first", "stays"]


def test_a_deadline_that_is_over_already_is_refused_by_nobody_and_never_runs(gate: Gate) -> None:
    busy = Busy(gate)
    gate.open()
    for _ in range(50):
        with pytest.raises(DeadlineExceeded):
            busy.call("late", deadline_ns=1)
    assert gate.items == []


def test_a_deadline_in_time_changes_nothing(gate: Gate, run: Callable[..., Any]) -> None:
    busy = Busy(gate)
    gate.open()
    far = busy.engine.now() + FAR
    assert busy.call("blocked", deadline_ns=far) == ("answer", "blocked")
    assert busy.submit("future", deadline_ns=far).result() == ("answer", "future")

    async def main() -> None:
        assert await busy.acall("awaited", deadline_ns=far) == ("answer", "awaited")

    run(main())


def test_a_sealed_request_does_not_expire(gate: Gate) -> None:
    busy = Busy(gate)
    deadline = busy.soon() + 50_000_000
    future = busy.submit("first", deadline_ns=deadline)
    gate.entered()
    until(lambda: busy.engine.now() > deadline)
    gate.open()
    assert future.result() == ("answer", "first")


def test_a_cancelled_await_is_not_told(gate: Gate) -> None:
    async def main() -> None:
        busy = Busy(gate)
        busy.occupy()
        deadline = busy.soon()
        task = asyncio.ensure_future(busy.acall("late", deadline_ns=deadline))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await auntil(lambda: busy.engine.now() > deadline)
        assert busy.function.stats.cancelled == 1

    asyncio.run(main())


# --------------------------------------------------------------------------- custom loops that await


def test_a_close_is_told_of_by_the_last_deadline() -> None:
    async def main() -> None:
        batcher: Batcher[str, str] = Batcher(max_batch_size=8)
        engine = batcher._station.engine()
        future: Future[str] = Future()
        future._ticket = engine.submit(None, "late", future, deadline_ns=engine.now() + 2_000_000)
        # Nobody takes batches: only the deadline ends what the close waits for.
        assert await batcher.aclose(timeout=20)
        assert isinstance(future.exception(20), DeadlineExceeded)

    asyncio.run(main())


# ------------------------------------------------------------------------------------------ the bell


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc and calls libc")


@linux
def test_a_closed_loop_leaves_no_descriptor_behind(gate: Gate, run: Callable[..., Any]) -> None:
    busy = Busy(gate)
    busy.occupy()
    kept = []

    async def main() -> None:
        kept.append(asyncio.get_running_loop())
        for _ in range(3):
            with pytest.raises(DeadlineExceeded):
                await busy.acall("late", deadline_ns=busy.soon())

    run(main())
    before = descriptors()
    for _ in range(20):
        run(main())
    # The loops are kept; they are closed.
    assert descriptors() <= before + 1


@linux
def test_the_loop_is_rung_while_another_thread_holds_the_interpreter(gate: Gate) -> None:
    class Poll(ctypes.Structure):
        _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]

    # Through PyDLL a call keeps the interpreter to itself until it returns.
    libc = ctypes.PyDLL(None)

    async def main() -> None:
        busy = Busy(gate)
        busy.occupy()
        event_loop = asyncio.get_running_loop()
        rung: list[int] = []
        add_reader = event_loop.add_reader
        event_loop.add_reader = lambda fd, *args: (rung.append(fd), add_reader(fd, *args))  # type: ignore[method-assign,assignment]
        late = busy.acall("late", deadline_ns=busy.soon())
        (bell,) = rung
        poll = Poll(bell, 1, 0)
        # Returns only because somebody rings who does not need the interpreter.
        assert libc.poll(ctypes.byref(poll), 1, 20_000) == 1
        assert busy.engine.pending == 0
        with pytest.raises(DeadlineExceeded):
            await late

    asyncio.run(main())


def test_a_loop_that_cannot_be_rung_is_told_all_the_same(gate: Gate) -> None:
    class Proactor(asyncio.SelectorEventLoop):
        def add_reader(self, *args: Any) -> Any:
            raise NotImplementedError

    # Its own pipe is added by another name.
    async def main() -> None:
        busy = Busy(gate)
        busy.occupy()
        with pytest.raises(DeadlineExceeded):
            await busy.acall("late", deadline_ns=busy.soon())

    run_on(Proactor, main())


def test_a_loop_that_is_closed_while_a_deadline_comes(gate: Gate, run: Callable[..., Any]) -> None:
    busy = Busy(gate)
    busy.occupy()
    gone = []

    async def main(deadline: int) -> None:
        item = Item()
        gone.append(weakref.ref(item))
        # Submitted, awaited by a task that the end of the loop cancels.
        task = asyncio.ensure_future(busy.acall(item, deadline_ns=deadline))
        await asyncio.sleep(0)
        del task

    for n in range(30):
        run(main(busy.engine.now() + n * 20_000))

    def all_gone() -> bool:
        gc.collect()
        return not any(ref() for ref in gone)

    until(all_gone)
    assert busy.engine.pending == 0
    gate.open()


def test_the_context_of_the_first_caller_is_not_kept(gate: Gate) -> None:
    import contextvars

    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

    async def main() -> None:
        busy = Busy(gate)
        busy.occupy()
        items = [Item()]
        gone = weakref.ref(items[0])

        async def call() -> None:
            variable.set(items.pop())
            with pytest.raises(DeadlineExceeded):
                await busy.acall("late", deadline_ns=busy.soon())

        await asyncio.ensure_future(call())

        def is_gone() -> bool:
            gc.collect()
            return gone() is None

        await auntil(is_gone)

    asyncio.run(main())


# ------------------------------------------------------------------------------------ ends and forks


SCRIPT = """
from carpool import batched, Future
entered = threading.Event()
hold = threading.Event()

@batched(max_batch_size=1)
def f(items):
    entered.set()
    hold.wait()
    return items

engine = f._station.start()
first = f.submit("first")
entered.wait()

def submit(item, ns):
    future = Future()
    future._ticket = engine.submit(f, item, future, deadline_ns=engine.now() + ns)
    return future
"""


def test_the_process_ends_with_deadlines_armed() -> None:
    said = run_script(
        SCRIPT
        + """
late = submit("late", 1_000_000)
say(type(late.exception(20)).__name__)
futures = [submit(n, n * 1_000_000) for n in range(2000)]
atexit.register(hold.set)
say("end")
"""
    )
    assert said == ["DeadlineExceeded", "end"]


@linux
def test_no_thread_is_started_without_a_deadline() -> None:
    said = run_script(
        """
from carpool import batched
from gates import until
def threads():
    names = [open(f"/proc/self/task/{t}/comm").read().strip() for t in os.listdir("/proc/self/task")]
    return sorted(name for name in names if name.startswith("carpool"))
@batched
def f(items): return items
before = len(os.listdir("/proc/self/task"))
f(1)
say(len(os.listdir("/proc/self/task")) - before)
f._station.engine().call(f, 2, deadline_ns=2**62)
f._station.engine().call(f, 2, deadline_ns=2**61)
# A thread names itself, in its own time.
until(lambda: "carpool timer" in threads())
say(len(os.listdir("/proc/self/task")) - before)
"""
    )
    # The worker; then the timer and the thread of errands.
    assert said == ["1", "3"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_keeps_its_own_time() -> None:
    said = run_script(
        SCRIPT
        + """
late = submit("late", 1_000_000)
say("parent", type(late.exception(20)).__name__)
waits = submit("waits", 3600 * 10**9)
child = os.fork()
if child == 0:
    # Nothing of the parent's runs here: neither its timer nor its errands.
    hold.clear()
    entered.clear()
    engine = f._station.start()
    first = f.submit("first")
    entered.wait()
    late = submit("late", 1_000_000)
    say("child", type(late.exception(20)).__name__)
    async def main():
        try:
            await engine.acall(f, "late", deadline_ns=engine.now() + 1_000_000)
        except Exception as error:
            say("child", type(error).__name__)
    asyncio.run(main())
    hold.set()
    os._exit(0)
os.waitpid(child, 0)
late = submit("late", 1_000_000)
say("parent", type(late.exception(20)).__name__)
hold.set()
say(waits.result(20))
"""
    )
    late = "DeadlineExceeded"
    assert said == [f"parent {late}", f"child {late}", f"child {late}", f"parent {late}", "waits"]


def test_deadlines_and_answers_race(run: Callable[..., Any]) -> None:
    function = batched_by("thread", lambda items: items, max_batch_size=4)
    engine = function._station.start()

    async def main() -> None:
        for round in range(60):
            now = engine.now()
            terms = [now + n * 3_000 * (round % 10) for n in range(16)]
            calls = [
                asyncio.ensure_future(engine.acall(function, n, deadline_ns=terms[n]))
                for n in range(16)
            ]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            for n, outcome in enumerate(outcomes):
                assert outcome == n or isinstance(outcome, DeadlineExceeded)

    run(main())
    stats = function.stats
    assert stats.pending == stats.in_flight == 0
    assert identity(stats)
    assert stats.submitted == 60 * 16 == stats.answered + stats.failed


def test_a_failing_close_fails_what_has_a_deadline(gate: Gate) -> None:
    busy = Busy(gate)
    busy.occupy()
    future = busy.submit("waits", deadline_ns=busy.engine.now() + FAR)
    busy.engine.close(False)
    assert isinstance(future.exception(20), BatcherClosed)
    gate.open()
