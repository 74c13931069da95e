"""Worker: one persistent thread, what sets it up, and the context around each batch."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import gc
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from carpool import HandlerError, SetupError, batched
from gates import WAYS, Gate, auntil, batched_by, identity, in_thread, let_pass, until

# -- the worker --------------------------------------------------------------------------------


def test_one_persistent_thread_runs_all_batches() -> None:
    threads: set[Any] = set()

    @batched(name="embedder")
    def f(items: list[int]) -> list[int]:
        threads.add(threading.current_thread())
        return items

    for number in range(20):
        assert f(number) == number
    for one in [in_thread(f, number) for number in range(5)]:
        one.result(20)
    (worker,) = threads
    assert worker is not threading.current_thread()
    assert "embedder" in worker.name
    assert worker.daemon


@pytest.fixture
def unhurried() -> Iterator[None]:
    """A thread keeps the interpreter until it lets go of it itself."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("unhurried")
def test_a_due_batch_does_not_wait_for_the_callers_of_the_last(run: Callable[..., Any]) -> None:
    """Unless the handler is seen to compute."""
    events: list[Any] = []
    held = threading.Event()

    @batched(max_batch_size=2)
    def f(items: list[str]) -> list[str]:
        events.append(items)
        if "hold" in items:
            assert held.wait(20)
        return items

    async def ask(item: str) -> None:
        await f.acall(item)
        events.append(f"{item} heard")

    async def main() -> None:
        for _ in range(40):  # by now it is known what the handler does, and how to wake this loop
            await f.acall("first")
        events.clear()
        calls = [asyncio.ensure_future(ask("hold"))]
        await auntil(lambda: f.stats.in_flight == 1)
        calls += [asyncio.ensure_future(ask(item)) for item in ("a", "b", "c", "d")]
        await asyncio.sleep(0)
        held.set()
        await asyncio.gather(*calls)

    run(main())
    assert events[:3] == [["hold"], ["a", "b"], ["c", "d"]]
    assert sorted(events[3:]) == [f"{item} heard" for item in ("a", "b", "c", "d", "hold")]


def test_as_many_threads_as_slots_and_no_more(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=1, max_concurrent_batches=3)
    futures = [f.submit(number) for number in range(10)]
    gate.entered(3)
    gate.open()
    for future in futures:
        future.result(20)
    assert 2 <= len(set(gate.threads)) <= 3 == gate.most_running


def test_nothing_starts_with_the_decoration() -> None:
    before = set(threading.enumerate())
    functions = [batched(lambda items: items, name=f"never used {number}") for number in range(50)]
    for f in functions:
        assert f.stats.submitted == 0
        assert f.healthy
    assert set(threading.enumerate()) <= before


def test_a_dropped_function_takes_its_worker_with_it() -> None:
    workers: list[Any] = []

    def make() -> tuple[Any, Any]:
        class Weight:
            pass

        weight = Weight()

        @batched
        def f(items: list[int]) -> list[int]:
            assert weight
            workers.append(threading.current_thread())
            return items

        f(1)
        return weakref.ref(weight), weakref.ref(f)

    watches = make()
    until(lambda: gc.collect() is None or all(watch() is None for watch in watches))
    until(lambda: not any(worker.is_alive() for worker in workers))


def test_a_dropped_function_still_answers_what_it_took(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=1)
    futures = [f.submit(number) for number in range(5)]
    del f
    gc.collect()
    gate.open()
    assert [future.result(20)[1] for future in futures] == list(range(5))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_an_idle_worker_is_never_woken() -> None:
    native: list[int] = []

    @batched(wait_ms=1)
    def f(items: list[int]) -> list[int]:
        native.append(threading.get_native_id())
        return items

    def switches() -> int:
        lines = Path(f"/proc/self/task/{native[0]}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)

    f(1)
    # Idleness can only be seen by letting time go by: some for it to come to rest, then the test.
    let_pass(0.05, since=time.monotonic())
    before = switches()
    let_pass(0.3, since=time.monotonic())
    assert switches() == before
    assert f(2) == 2


def test_a_worker_that_is_struck_from_outside_is_logged_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    struck: list[int] = []

    @batched(name="struck")
    def f(items: list[int]) -> list[int]:
        struck.append(threading.get_ident())
        return items

    assert f(1) == 1
    with caplog.at_level(logging.WARNING, logger="carpool"):
        # The one way to raise something in another thread: it shows when that thread next runs Python.
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(struck[0]), ctypes.py_object(SystemExit)
        )
        future = f.submit(2)
        assert future.exception(20) is not None or future.result() == 2
        assert f(3) == 3
    assert f.healthy
    assert identity(f.stats)
    assert "struck" in caplog.text


# -- setup and context -------------------------------------------------------------------------


def test_setup_runs_once_before_the_first_batch_on_the_worker(way: str) -> None:
    events: list[Any] = []

    def handler(items: list[int]) -> list[int]:
        events.append(("batch", threading.get_ident()))
        return items

    async def main() -> None:
        f = batched_by(way, handler, setup=lambda: events.append(("setup", threading.get_ident())))
        assert events == []
        for number in range(4):
            assert await f.acall(number) == number

    asyncio.run(main())
    assert [what for what, _ in events] == ["setup"] + ["batch"] * 4
    assert len({thread for _, thread in events}) == 1


def test_setup_runs_once_on_each_of_several_workers(gate: Gate) -> None:
    threads: list[int] = []
    f = batched(
        gate.handler,
        max_batch_size=1,
        max_concurrent_batches=3,
        setup=lambda: threads.append(threading.get_ident()),
    )
    futures = [f.submit(number) for number in range(6)]
    gate.entered(3)
    gate.open()
    for future in futures:
        future.result(20)
    assert len(threads) == len(set(threads))
    assert set(gate.threads) <= set(threads)


def test_context_is_entered_around_every_batch_on_the_worker(way: str) -> None:
    events: list[Any] = []

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        events.append(("enter", threading.get_ident()))
        yield
        events.append(("exit", threading.get_ident()))

    def handler(items: list[int]) -> list[int]:
        events.append(("batch", threading.get_ident()))
        return items

    async def main() -> None:
        f = batched_by(way, handler, context=context)
        for number in range(3):
            assert await f.acall(number) == number
        await f.aclose()

    asyncio.run(main())
    assert [what for what, _ in events] == ["enter", "batch", "exit"] * 3
    assert len({thread for _, thread in events}) == 1


def test_context_sees_what_the_handler_raises(way: str) -> None:
    seen: list[Any] = []

    class Context:
        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
            seen.append(kind)

    def handler(items: list[Any]) -> list[Any]:
        if items == ["bad"]:
            raise LookupError("bad")
        return items

    async def main() -> None:
        f = batched_by(way, handler, context=Context)
        with pytest.raises(LookupError):
            await f.acall("bad")
        assert await f.acall("good") == "good"
        await f.aclose()

    asyncio.run(main())
    assert seen == [LookupError, None]


@pytest.mark.parametrize("where", ["call", "enter", "exit"])
@pytest.mark.parametrize("error", [OSError("context"), SystemExit(4)], ids=repr)
def test_a_context_that_fails_fails_its_batch_and_no_other(
    way: str, where: str, error: BaseException
) -> None:
    broken = [True]

    def fail(here: str) -> None:
        if broken[0] and here == where:
            raise error

    class Context:
        def __init__(self) -> None:
            fail("call")

        def __enter__(self) -> None:
            fail("enter")

        def __exit__(self, *_: Any) -> None:
            fail("exit")

    async def main() -> None:
        f = batched_by(
            way, lambda items: items, context=Context, max_batch_size=2, wait_ms=3_600_000
        )
        errors = await asyncio.gather(f.acall(1), f.acall(2), return_exceptions=True)
        expected = OSError if isinstance(error, OSError) else HandlerError
        assert [type(one) for one in errors] == [expected] * 2
        assert errors[0] is not errors[1]
        broken[0] = False
        assert await asyncio.gather(f.acall(3), f.acall(4)) == [3, 4]
        assert f.healthy

    asyncio.run(main())


def test_a_context_that_swallows_the_error_leaves_nobody_waiting(way: str) -> None:
    def handler(items: list[int]) -> list[int]:
        if items == [1]:
            raise LookupError("swallowed")
        return items

    async def main() -> None:
        f = batched_by(way, handler, context=lambda: contextlib.suppress(LookupError))
        (error,) = await asyncio.gather(f.acall(1), return_exceptions=True)
        assert isinstance(error, Exception)
        assert await f.acall(2) == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    "error",
    [OSError("no such device"), SystemExit(3), KeyboardInterrupt(), StopIteration()],
    ids=repr,
)
def test_a_setup_that_fails_tells_every_pending_and_later_caller(
    way: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def setup() -> None:
        calls.append(1)
        raise error

    def handler(items: list[int]) -> list[int]:
        raise AssertionError("a handler without its setup must not run")

    async def main() -> None:
        f = batched_by(way, handler, setup=setup, max_batch_size=2, name="unequipped")
        errors = await asyncio.gather(
            *[f.acall(number) for number in range(5)], return_exceptions=True
        )
        assert [type(one) for one in errors] == [SetupError] * 5
        assert all(one.__cause__ is error for one in errors)
        assert len({id(one) for one in errors}) == 5
        with pytest.raises(SetupError) as later:
            await f.acall("later")
        assert later.value.__cause__ is error
        assert not f.healthy
        assert identity(f.stats)
        await f.aclose()

    with caplog.at_level(logging.WARNING, logger="carpool"):
        asyncio.run(main())
    assert calls == [1]
    assert any(record.name.startswith("carpool") for record in caplog.records)
    assert "unequipped" in caplog.text


def test_a_setup_that_fails_tells_blocked_threads_and_futures() -> None:
    started, fail = threading.Event(), threading.Event()

    def setup() -> None:
        started.set()
        fail.wait(20)
        raise OSError("no such device")

    f = batched(lambda items: items, setup=setup, max_batch_size=1)
    future = f.submit("future")
    assert started.wait(20)
    blocked = [in_thread(f, number) for number in range(3)]
    until(lambda: f.stats.submitted == 4)
    fail.set()
    for failed in [future, *blocked]:
        error = failed.exception(20)
        assert isinstance(error, SetupError)
        assert isinstance(error.__cause__, OSError)
    with pytest.raises(SetupError):
        f("later")
    with pytest.raises(SetupError):
        f.submit("later").result(20)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "loop"])
def test_setup_and_context_share_the_handler_s_thread(way: str) -> None:
    local = threading.local()

    def setup() -> None:
        local.model = "loaded"

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        local.mode = "inference"
        yield
        local.mode = None

    async def main() -> None:
        f = batched_by(
            way,
            lambda items: [(local.model, local.mode) for _ in items],
            setup=setup,
            context=context,
        )
        for number in range(3):
            assert await f.acall(number) == ("loaded", "inference")

    asyncio.run(main())


TAG: contextvars.ContextVar[str] = contextvars.ContextVar("TAG", default="nobody's")


def test_what_setup_sets_in_the_context_is_there_for_every_batch(way: str) -> None:
    def handler(items: list[str]) -> list[str]:
        seen = TAG.get()
        TAG.set("an earlier batch's")
        return [seen] * len(items)

    async def main() -> None:
        TAG.set("a caller's")
        f = batched_by(way, handler, setup=lambda: TAG.set("setup's"))
        for _ in range(3):
            assert await f.acall("x") == "setup's"
        assert TAG.get() == "a caller's"

    asyncio.run(main())


def test_a_runner_s_context_does_not_reach_the_batch_it_runs() -> None:
    f = batched(lambda items: [TAG.get() for _ in items], executor="caller")

    def call() -> str:
        TAG.set("the runner's")
        return str(f(1))

    assert contextvars.copy_context().run(call) == "nobody's"
