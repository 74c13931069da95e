"""Current batch: what a handler can find out about the batch it runs, whoever runs it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import carpool
from carpool import Batcher, CurrentBatch, batched, current_batch
from carpool.testing import ManualClock
from gates import WAYS, Gate, auntil, batched_by, in_thread, run_script, until

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who")


class Seen:
    """A handler that keeps what `current_batch` says."""

    def __init__(self) -> None:
        self.batches: list[CurrentBatch] = []

    def __call__(self, items: list[Any]) -> list[Any]:
        self.batches.append(current_batch())
        assert len(items) == current_batch().size
        return items


# -- where it can be asked ---------------------------------------------------------------------


def test_outside_of_a_handler_it_is_an_error_that_says_so() -> None:
    with pytest.raises(RuntimeError, match="no batch runs here"):
        current_batch()


def test_size_and_reason_whoever_runs_the_handler(way: str, run: Callable[..., Any]) -> None:
    seen = Seen()
    f = batched_by(way, seen, max_batch_size=3, wait_ms=60_000)

    async def main() -> None:
        assert await asyncio.gather(*[f.acall(item) for item in range(3)]) == [0, 1, 2]
        await f.aclose()

    run(main())
    (batch,) = seen.batches
    assert (batch.size, len(batch), batch.reason) == (3, 3, "full")
    assert len(batch.requests) == 3
    assert 0 <= batch.waited_ms < 60_000
    assert repr(batch) == "<carpool.CurrentBatch of 3, full>"


def test_a_lone_call_is_a_batch_of_one() -> None:
    seen = Seen()
    f = batched(seen, executor="caller", name="lone")
    assert f("x") == "x"
    (batch,) = seen.batches
    assert (batch.size, batch.reason, batch.waited_ms) == (1, "idle", 0.0)
    (request,) = batch.requests
    assert (request.context, request.priority, request.deadline) == (None, 0, None)
    assert (request.left_ms, request.cancelled) == (None, False)


def test_batches_that_callers_run() -> None:
    gate, seen = Gate(), Seen()

    def handler(items: list[int]) -> list[Any]:
        seen(items)
        return gate.run(items)

    f = batched(handler, executor="caller", max_batch_size=2)
    first = in_thread(f, 0)
    gate.entered()
    others = [in_thread(f, item) for item in (1, 2)]
    until(lambda: f.stats.pending == 2)
    gate.open()
    for one in [first, *others]:
        one.result(20)
    assert [(batch.size, batch.reason) for batch in seen.batches] == [(1, "idle"), (2, "full")]
    assert len(seen.batches[1].requests) == 2


def test_with_a_context_and_with_several_parameters() -> None:
    sizes = []

    class Around:
        def __enter__(self) -> None:
            sizes.append(current_batch().size)

        def __exit__(self, *_: object) -> None:
            sizes.append(current_batch().size)

    @batched(context=Around)
    def add(xs: list[int], ys: list[int]) -> list[int]:
        sizes.append(current_batch().size)
        return [x + y for x, y in zip(xs, ys, strict=True)]

    assert add(1, 2) == 3
    assert sizes == [1, 1, 1]


def test_methods_too() -> None:
    class Model:
        @batched
        def run(self, items: list[int]) -> list[int]:
            return [current_batch().size for _ in items]

    assert Model().run(0) == 1


def test_setup_belongs_to_no_batch() -> None:
    found: list[str] = []

    def setup() -> None:
        try:
            current_batch()
        except RuntimeError as error:
            found.append(str(error))

    f = batched(Seen(), setup=setup)
    assert f(1) == 1
    assert "no batch runs here" in found[0]


def test_callbacks_on_a_worker_belong_to_no_batch(gate: Gate) -> None:
    found: list[object] = []

    def callback(_: object) -> None:
        try:
            found.append(current_batch())
        except RuntimeError:
            found.append("none")

    f = batched(gate.handler)
    future = f.submit(1)
    gate.entered()
    future.add_done_callback(callback)
    gate.open()
    until(lambda: found)
    assert found == ["none"]


def test_threads_with_a_copy_of_the_context_see_it_and_others_do_not() -> None:
    found: dict[str, object] = {}

    def look(name: str) -> None:
        try:
            found[name] = current_batch().size
        except RuntimeError:
            found[name] = "none"

    @batched
    def f(items: list[int]) -> list[int]:
        copy = contextvars.copy_context()
        for thread in (
            threading.Thread(target=copy.run, args=(look, "copied")),
            threading.Thread(target=contextvars.Context().run, args=(look, "bare")),
        ):
            thread.start()
            thread.join()
        return items

    assert f(1) == 1
    assert found == {"copied": 1, "bare": "none"}


def test_after_the_handler_it_is_over_for_what_it_left_behind(run: Callable[..., Any]) -> None:
    left: list[asyncio.Task[Any]] = []
    go = asyncio.Event

    async def main() -> None:
        gone = go()

        async def later() -> CurrentBatch:
            await gone.wait()
            return current_batch()

        @batched
        async def f(items: list[int]) -> list[int]:
            left.append(asyncio.get_running_loop().create_task(later()))
            return [current_batch().size for _ in items]

        assert await f(7) == 1
        gone.set()
        with pytest.raises(RuntimeError, match="no batch runs here"):
            await left[0]
        await f.aclose()

    run(main())


@pytest.mark.parametrize("way", ["loop", "thread-async"])
def test_async_handlers_see_it_after_they_have_waited(way: str, run: Callable[..., Any]) -> None:
    gate = Gate()
    sizes: list[int] = []

    async def handler(items: list[int]) -> list[int]:
        sizes.append(current_batch().size)
        await gate.arun(items)
        sizes.append(current_batch().size)
        sizes.append(await asyncio.ensure_future(inside()))
        return items

    async def inside() -> int:
        return current_batch().size

    f = batched(
        handler, executor="loop" if way == "loop" else "thread", max_batch_size=2, wait_ms=60_000
    )

    async def main() -> None:
        both = asyncio.gather(f.acall(1), f.acall(2))
        await gate.aentered()
        gate.open()
        await both
        await f.aclose()

    run(main())
    assert sizes == [2, 2, 2]


def test_a_handler_inside_another_sees_its_own(gate: Gate) -> None:
    outer: list[int] = []

    @batched(executor="caller")
    def inner(items: list[int]) -> list[int]:
        return [current_batch().size for _ in items]

    @batched(max_batch_size=2, wait_ms=60_000)
    def f(items: list[int]) -> list[int]:
        outer.append(inner(0))
        outer.append(current_batch().size)
        return items

    futures = [f.submit(item) for item in range(2)]
    assert [future.result(20) for future in futures] == [0, 1]
    assert outer == [1, 2]


def test_parts_of_a_batch_show_themselves() -> None:
    batcher: Batcher[int, int] = Batcher(max_batch_size=3, wait_ms=60_000)
    futures = [batcher.options(priority=item).submit(item) for item in range(3)]
    batch = batcher.next_batch()
    assert batch is not None
    rest = batch._split(1)
    found = {}
    for part in (batch, rest):
        context = contextvars.Context()
        context.run(carpool._core.running.set, part._run)
        view = context.run(current_batch)
        found[view.size] = [request.priority for request in view.requests]
    assert found == {1: [0], 2: [1, 2]}
    context = contextvars.Context()
    context.run(carpool._core.running.set, rest._run)
    rest.complete([1, 2])
    del part, rest
    with pytest.raises(RuntimeError, match="no batch runs here"):
        context.run(current_batch)
    batch.complete([0])
    assert [future.result(20) for future in futures] == [0, 1, 2]
    batcher.close()


# -- what is known of each request -------------------------------------------------------------


def test_priorities_and_deadlines(way: str, run: Callable[..., Any]) -> None:
    seen = Seen()
    f = batched_by(way, seen, max_batch_size=2, wait_ms=60_000)
    with ManualClock() as clock:
        before = clock.now

    async def main() -> None:
        urgent = f.options(priority=-3, timeout_ms=1e6)
        await asyncio.gather(urgent.acall("urgent"), f.acall("plain"))
        await f.aclose()

    run(main())
    (batch,) = seen.batches
    urgent, plain = batch.requests
    assert (urgent.priority, plain.priority) == (-3, 0)
    assert plain.deadline is None
    assert plain.left_ms is None
    assert urgent.deadline is not None
    with ManualClock() as clock:
        assert before + 1000 <= urgent.deadline <= clock.now + 1000
    assert urgent.left_ms is not None
    assert 0 < urgent.left_ms <= 1e6
    assert "priority -3, " in repr(urgent)
    assert "ms left" in repr(urgent)
    assert repr(plain) == "<carpool.CurrentRequest of priority 0>"


def test_contexts_of_callers_are_kept_when_asked_for(way: str, run: Callable[..., Any]) -> None:
    seen = Seen()
    f = batched_by(way, seen, max_batch_size=2, wait_ms=60_000, keep_contexts=True)

    async def call(name: str) -> None:
        WHO.set(name)
        await f.acall(name)

    async def main() -> None:
        await asyncio.gather(call("ada"), call("bob"))
        await f.aclose()

    run(main())
    (batch,) = seen.batches
    contexts = [request.context for request in batch.requests]
    assert [context and context[WHO] for context in contexts] == ["ada", "bob"]


@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_contexts_of_blocking_calls_and_of_futures(executor: Any) -> None:
    seen = Seen()
    f = batched(seen, executor=executor, keep_contexts=True)
    context = contextvars.Context()
    context.run(WHO.set, "ada")
    assert context.run(f, 1) == 1
    context.run(WHO.set, "bob")
    future = context.run(f.submit, 2)
    context.run(WHO.set, "not bob any more")
    assert future.result(20) == 2
    kept = [batch.requests[0].context for batch in seen.batches]
    assert [one and one[WHO] for one in kept] == ["ada", "bob"]
    f.close()


def test_without_the_option_no_context_is_kept() -> None:
    class Precious:
        pass

    variable: contextvars.ContextVar[Precious] = contextvars.ContextVar("precious")
    context = contextvars.Context()
    context.run(variable.set, Precious())
    gone = weakref.ref(context[variable])
    gate, seen = Gate(), Seen()

    def handler(items: list[int]) -> list[Any]:
        seen(items)
        return gate.run(items)

    f = batched(handler)
    future = context.run(f.submit, 1)
    gate.entered()
    del context
    gc.collect()
    assert gone() is None
    assert seen.batches[0].requests[0].context is None
    gate.open()
    future.result(20)


def test_a_context_goes_with_its_request(gate: Gate) -> None:
    class Precious:
        pass

    variable: contextvars.ContextVar[Precious] = contextvars.ContextVar("precious")
    f = batched(gate.handler, max_batch_size=1, keep_contexts=True)
    first = f.submit(0)
    gate.entered()
    context = contextvars.Context()
    context.run(variable.set, Precious())
    gone = weakref.ref(context[variable])
    pending = context.run(f.submit, 1)
    del context
    gc.collect()
    assert gone() is not None
    assert pending.cancel()
    gc.collect()
    assert gone() is None
    gate.open()
    first.result(20)


@pytest.mark.parametrize("way", WAYS)
def test_a_caller_that_gave_up_can_be_seen(way: str) -> None:
    gate = Gate()
    found: list[list[bool]] = []

    def look() -> None:
        found.append([request.cancelled for request in current_batch().requests])

    if way in ("loop", "thread-async"):

        async def ahandler(items: list[int]) -> list[int]:
            look()
            await gate.arun(items)
            look()
            return items

        f: Any = batched(
            ahandler,
            executor="loop" if way == "loop" else "thread",
            max_batch_size=2,
            wait_ms=60_000,
        )
    else:

        def handler(items: list[int]) -> list[int]:
            look()
            gate.run(items)
            look()
            return items

        f = batched(handler, executor=way, max_batch_size=2, wait_ms=60_000)  # type: ignore[call-overload]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stays, goes = (loop.create_task(f.acall(item)) for item in (1, 2))
        await gate.aentered()
        goes.cancel()
        await auntil(goes.done)
        gate.open()
        assert await stays == 1
        await f.aclose()

    asyncio.run(main())
    assert found == [[False, False], [False, True]]


def test_a_view_outlives_its_batch() -> None:
    seen = Seen()
    f = batched(seen, max_batch_size=2, wait_ms=60_000, keep_contexts=True)
    futures = [f.options(priority=item, timeout_ms=1e6).submit(item) for item in (1, 2)]
    assert [future.result(20) for future in futures] == [1, 2]
    f.close()
    (batch,) = seen.batches
    assert batch.size == 2
    assert [request.priority for request in batch.requests] == [1, 2]
    assert all(request.deadline is not None for request in batch.requests)
    assert not any(request.cancelled for request in batch.requests)


def test_loops_of_ones_own_ask_the_batch() -> None:
    batcher: Batcher[str, str] = Batcher(max_batch_size=2, wait_ms=60_000, keep_contexts=True)
    context = contextvars.Context()
    context.run(WHO.set, "ada")
    futures = [
        context.run(batcher.options(priority=-2, timeout_ms=1e6).submit, "a"),
        batcher.submit("b"),
    ]
    batch = batcher.next_batch()
    assert batch is not None
    first, second = batch.requests
    assert first.context is not None
    assert first.context[WHO] == "ada"
    assert (first.priority, second.priority) == (-2, 0)
    assert first.left_ms is not None
    assert second.deadline is None
    batch.complete(["A", "B"])
    assert batch.requests == ()
    assert [future.result(20) for future in futures] == ["A", "B"]
    batcher.close()


@pytest.mark.parametrize("wrong", [1, None, "yes"])
def test_keep_contexts_is_a_switch(wrong: Any) -> None:
    with pytest.raises(TypeError, match="keep_contexts must be True or False"):
        batched(Seen(), keep_contexts=wrong)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_child_that_a_handler_forked_can_ask() -> None:
    said = run_script("""
from carpool import batched, current_batch
def handler(items):
    child = os.fork()
    if child == 0:
        say(current_batch().size)
        os._exit(0)
    os.waitpid(child, 0)
    return items
assert batched(handler)(1) == 1
say("ended")
""")
    assert said == ["1", "ended"]


def test_of_many_each_has_the_context_of_the_caller_of_all() -> None:
    seen = Seen()
    f = batched(seen, max_batch_size=2, keep_contexts=True)
    context = contextvars.Context()
    context.run(WHO.set, "ada")
    many = f.options(priority=2)
    engine = f._station.start()
    assert context.run(lambda: engine.call_many(many, [1, 2], asks=many._asks)) == [1, 2]
    f.close()
    requests = [request for batch in seen.batches for request in batch.requests]
    assert [request.priority for request in requests] == [2, 2]
    assert [request.context and request.context[WHO] for request in requests] == ["ada", "ada"]
