"""asyncio: giving up, by every way asyncio has for it, and what is let go then."""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, batched
from gates import WAYS, Gate, auntil, batched_by, identity, until

since_311 = pytest.mark.skipif(sys.version_info < (3, 11), reason="came with Python 3.11")

# -- cancelling --------------------------------------------------------------------------------


async def by_await(awaitable: Any) -> Any:
    return await awaitable


async def stopping(gate: Gate, way: str, stop: Callable[[Any], Any]) -> Any:
    """Let `stop` end the wait of one of three pending callers, before its batch is sealed."""
    f = batched_by(way, gate)
    first = f.acall("first")
    await gate.aentered()
    a, b, c = (f.acall(name) for name in "abc")
    await stop(b)
    await auntil(lambda: f.stats.pending == 2)
    gate.open()
    assert await asyncio.gather(first, a, c) == [("answer", name) for name in ("first", "a", "c")]
    assert gate.items == ["first", "a", "c"]
    assert f.stats.cancelled == 1
    assert identity(f.stats)


async def stop_itself(awaitable: Any) -> None:
    assert awaitable.cancel()
    with pytest.raises(asyncio.CancelledError):
        await awaitable
    assert awaitable.cancelled()
    assert not awaitable.cancel()


async def stop_its_awaiter(awaitable: Any) -> None:
    waiting = asyncio.ensure_future(by_await(awaitable))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def stop_its_wrapper(awaitable: Any) -> None:
    waiting = asyncio.create_task(awaitable)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def stop_by_wait_for(awaitable: Any) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(awaitable, 0.001)


async def stop_by_timeout(awaitable: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await awaitable


async def stop_by_group(awaitable: Any) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(awaitable)
            group.create_task(fail())
    except BaseException as error:
        failed = [type(each) for each in error.exceptions]  # type: ignore[attr-defined]
    assert failed == [ZeroDivisionError]


async def stop_by_gather(awaitable: Any) -> None:
    together = asyncio.gather(awaitable, asyncio.sleep(3600))
    await asyncio.sleep(0)
    together.cancel()
    with pytest.raises(asyncio.CancelledError):
        await together


STOPS: list[Any] = [
    stop_itself,
    stop_its_awaiter,
    stop_its_wrapper,
    stop_by_wait_for,
    stop_by_gather,
]
if sys.version_info >= (3, 11):
    STOPS += [stop_by_timeout, stop_by_group]


@pytest.mark.parametrize("stop", STOPS)
def test_cancelled_before_sealing_it_never_reaches_the_handler(
    run: Callable[..., Any], stop: Callable[[Any], Any], new_gate: Callable[..., Gate]
) -> None:
    async def main() -> None:
        for way in WAYS:
            await stopping(new_gate(), way, stop)

    run(main())


@pytest.mark.parametrize("stop", STOPS)
def test_cancelled_after_sealing_only_its_own_answer_is_dropped(
    run: Callable[..., Any], stop: Callable[[Any], Any], new_gate: Callable[..., Gate]
) -> None:
    async def main() -> None:
        for way in WAYS:
            gate = new_gate()
            f = batched_by(way, gate, max_batch_size=3, wait_ms=3_600_000)
            a, b, c = (f.acall(name) for name in "abc")
            await gate.aentered()
            await stop(b)
            gate.open()
            assert await asyncio.gather(a, c) == [("answer", "a"), ("answer", "c")]
            assert gate.batches == [["a", "b", "c"]]
            await auntil(lambda f=f: f.stats.in_flight == 0)
            assert identity(f.stats)
            assert f.stats.answered >= 2
            assert f.stats.failed == 0

    run(main())


def test_shielded_from_its_awaiter_it_goes_on(run: Callable[..., Any], gate: Gate) -> None:
    async def main() -> None:
        f = batched(gate.handler)
        first = f.acall("first")
        await gate.aentered()
        awaitable = f.acall("a")

        async def shielded() -> Any:
            return await asyncio.shield(awaitable)

        waiting = asyncio.create_task(shielded())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.open()
        assert await awaitable == ("answer", "a")
        assert await first == ("answer", "first")

    run(main())


def test_cancelling_the_caller_of_everything_frees_everything(
    run: Callable[..., Any], gate: Gate
) -> None:
    async def main() -> None:
        f = batched(gate.handler, max_queue=50)
        first = f.acall("first")
        await gate.aentered()
        for _ in range(5):
            together = asyncio.gather(*[f.acall(number) for number in range(50)])
            await asyncio.sleep(0)
            together.cancel()
            with pytest.raises(asyncio.CancelledError):
                await together
            await auntil(lambda: f.stats.pending == 0)
        gate.open()
        assert await first == ("answer", "first")
        assert gate.items == ["first"]
        assert f.stats.cancelled == 250

    run(main())


def test_dropping_what_nobody_awaited_cancels(run: Callable[..., Any], gate: Gate) -> None:
    async def main() -> None:
        f = batched(gate.handler)
        first = f.acall("first")
        await gate.aentered()
        f.acall("dropped")
        kept = f.acall("kept")
        gc.collect()
        assert f.stats.pending == 1
        gate.open()
        assert await kept == ("answer", "kept")
        assert await first == ("answer", "first")
        assert gate.items == ["first", "kept"]
        assert f.stats.cancelled == 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # unlike a coroutine, it needs no scolding
        run(main())


def test_what_was_waited_for_is_let_go(run: Callable[..., Any]) -> None:
    class Thing:
        pass

    async def main() -> None:
        f = batched(lambda items: [Thing() for _ in items])
        item = Thing()
        awaitable = f.acall(item)
        watches = [weakref.ref(item), weakref.ref(await awaitable)]
        del item, awaitable
        await auntil(lambda: gc.collect() is None or all(watch() is None for watch in watches))

    run(main())


def test_circles_through_what_was_waited_for_are_collected(run: Callable[..., Any]) -> None:
    class Thing:
        around: Any

    class Failure(Exception):
        around: Any

    async def main() -> None:
        @batched
        def f(items: list[int]) -> list[Any]:
            return [Thing() if item else Failure() for item in items]

        watches: list[weakref.ref[Any]] = []
        for item in (1, 0):
            for waits in (True, False):
                awaitable = f.acall(item)
                if waits:
                    await asyncio.gather(awaitable, return_exceptions=True)
                else:
                    await auntil(awaitable.done)
                outcome = awaitable.exception() or awaitable.result()
                outcome.around = awaitable
                watches.append(weakref.ref(outcome))
                del outcome, awaitable

        message = Thing()
        cancelled = f.acall(1)
        message.around = cancelled
        watches.append(weakref.ref(message))
        cancelled.cancel(message)
        del message, cancelled
        await auntil(lambda: gc.collect() is None or all(watch() is None for watch in watches))

    run(main())


@pytest.mark.parametrize("wakes", [0, 30])
def test_a_task_whose_loop_was_closed_is_collected(gate: Gate, wakes: int) -> None:
    """Nobody wakes it any more: it and what it waits for refer to each other. After many wakes a loop has a
    descriptor for them, which closes with it."""
    f, other = batched(gate.handler), batched(lambda items: items)
    loop = asyncio.new_event_loop()

    async def wake() -> None:
        for number in range(wakes):
            assert await other.acall(number) == number

    async def wait() -> None:
        await f.acall("never heard")

    loop.run_until_complete(wake())
    task = loop.create_task(wait())
    loop.run_until_complete(gate.aentered())
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    watch = weakref.ref(task)
    del task
    gate.open()
    until(lambda: gc.collect() is None or watch() is None)
    assert f.stats.answered + f.stats.cancelled == 1


def test_a_cancelled_item_is_let_go_at_once(run: Callable[..., Any], gate: Gate) -> None:
    class Thing:
        pass

    async def main() -> None:
        f = batched(gate.handler)
        first = f.acall("first")
        await gate.aentered()
        item = Thing()
        watch = weakref.ref(item)
        awaitable = f.acall(item)
        del item
        assert watch() is not None
        awaitable.cancel()
        gc.collect()
        assert watch() is None  # though the handler is still busy and the awaitable alive
        gate.open()
        assert await first == ("answer", "first")

    run(main())


def test_an_item_in_flight_lives_as_long_as_its_handler_needs_it(run: Callable[..., Any]) -> None:
    async def main() -> None:
        with Batcher() as b:
            awaitable = b.acall(["item"])
            batch = b.next_batch()
            awaitable.cancel()
            with pytest.raises(asyncio.CancelledError):
                await awaitable
            del awaitable
            gc.collect()
            assert batch.items == [["item"]]
            batch.complete(["nobody wants it"])

    run(main())


@since_311
def test_uncancel_and_a_second_try(run: Callable[..., Any], gate: Gate) -> None:
    async def main() -> None:
        f = batched(gate.handler)
        first = f.acall("first")
        await gate.aentered()
        try:
            async with asyncio.timeout(0.001):
                await f.acall("too slow")
        except TimeoutError:
            again = f.acall("again")
        gate.open()
        assert await again == ("answer", "again")
        assert await first == ("answer", "first")
        assert "too slow" not in gate.items

    run(main())


@pytest.mark.parametrize("message", [None, "why"])
def test_gather_that_returns_exceptions_returns_that_one_was_cancelled(
    run: Callable[..., Any], message: str | None
) -> None:
    f = batched(lambda items: items, max_batch_size=8, wait_ms=600_000)

    async def main() -> None:
        one = f.acall(1)
        both = asyncio.gather(one, f.acall(3), return_exceptions=True)
        await asyncio.sleep(0)
        assert one.cancel(message)
        f.flush()
        ended = await asyncio.wait_for(asyncio.shield(both), 20)
        assert isinstance(ended[0], asyncio.CancelledError)
        assert ended[0].args in ((), ("",)) if message is None else ended[0].args == (message,)
        assert ended[1] == 3

    run(main())
    f.close()
