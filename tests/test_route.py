"""Route: each outcome to its caller, a private exception for everyone, one wake per loop and batch."""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import dataclasses
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, HandlerError, batched
from gates import Gate, auntil, batched_by, in_thread, until


def failures(error: BaseException, callers: int = 3) -> list[BaseException]:
    """What so many callers of one batch get when its handler raises this."""
    b: Batcher[int, int] = Batcher(max_batch_size=callers)
    futures = [b.submit(number) for number in range(callers)]
    b.next_batch().fail(error)
    b.close()
    return [future.exception(20) for future in futures]  # type: ignore[misc]


def depth(error: BaseException) -> int:
    frames, traceback = 0, error.__traceback__
    while traceback:
        frames, traceback = frames + 1, traceback.tb_next
    return frames


# -- private exceptions ------------------------------------------------------------------------


class Plain(Exception):
    pass


class Rich(Exception):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text, code)
        self.code = code

    def __str__(self) -> str:
        return f"{self.args[0]} (code {self.code})"


class Demanding(Exception):
    """Its constructor wants what its args do not hold."""

    def __init__(self, *, key: str, tries: int) -> None:
        super().__init__(f"{key} failed after {tries}")
        self.key, self.tries = key, tries


class Counting(Exception):
    made = 0

    def __init__(self, text: str) -> None:
        type(self).made += 1
        if type(self).made > 1:
            raise RuntimeError("only one of these may be made")
        super().__init__(text)


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code = code

    def __str__(self) -> str:
        return f"slotted {self.code}"


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """Refuses assignments, also those of a traceback or a cause."""

    code: int
    text: str = "cold"

    def __str__(self) -> str:
        return f"{self.text} {self.code}"


class Unreproducible(Exception):
    def __new__(cls, *args: Any, token: object = None) -> Unreproducible:
        if token is None:
            raise TypeError("made by its maker only")
        return super().__new__(cls, *args)

    def __init__(self, *args: Any, token: object = None) -> None:
        super().__init__(*args)


def rich() -> BaseException:
    error = Rich("rich", 7)
    error.extra = ["attribute"]  # type: ignore[attr-defined]
    return error


def unicode_error() -> BaseException:
    with pytest.raises(UnicodeDecodeError) as caught:
        b"\xff".decode("utf-8")
    return caught.value


def json_error() -> BaseException:
    import json

    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("[1, 2,, 3]")
    return caught.value


MADE: dict[str, Callable[[], BaseException]] = {
    "plain": lambda: Plain(),
    "with args": lambda: Plain("text", 2, None),
    "rich": rich,
    "demanding": lambda: Demanding(key="k", tries=3),
    "counting": lambda: Counting("once"),
    "slotted": lambda: Slotted(9),
    "frozen": lambda: Frozen(9),
    "unreproducible": lambda: Unreproducible("text", token=object()),
    "key": lambda: KeyError("missing"),
    "file": lambda: FileNotFoundError(2, "No such file or directory", "model.bin"),
    "import": lambda: ImportError("no module", name="torch", path="/nowhere"),
    "attribute": lambda: AttributeError("no attribute", name="x", obj=3),
    "name": lambda: NameError("no name", name="y"),
    "unicode": unicode_error,
    "json": json_error,
    "syntax": lambda: SyntaxError("bad", ("file.py", 3, 4, "text")),
    "stop": lambda: StopIteration(3),
    "interrupt": lambda: KeyboardInterrupt("now"),
}
if sys.version_info >= (3, 11):
    MADE["group"] = lambda: builtins.ExceptionGroup("several", [ValueError(1), KeyError(2)])
    MADE["base group"] = lambda: builtins.BaseExceptionGroup("several", [KeyboardInterrupt()])

FAITHFUL = (
    "plain",
    "with args",
    "rich",
    "frozen",
    "key",
    "file",
    "import",
    "attribute",
    "name",
    "unicode",
    "syntax",
    "group",
)


@pytest.mark.parametrize("kind", MADE)
def test_reproduced_faithfully_or_wrapped_but_private_and_linked_always(kind: str) -> None:
    if kind == "counting":
        Counting.made = 0
    original = MADE[kind]()
    errors = failures(original)
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert error is not original
        assert error.__cause__ is original
        assert isinstance(error, Exception)
        if type(error) is HandlerError:
            assert type(original).__name__ in str(error)
        else:
            assert type(error) is type(original)
            assert error.args == original.args
            assert str(error) == str(original)
            assert vars(error) == vars(original)
            assert getattr(error, "code", None) == getattr(original, "code", None)


@pytest.mark.parametrize("kind", [kind for kind in FAITHFUL if kind in MADE])
def test_what_can_be_reproduced_is(kind: str) -> None:
    original = MADE[kind]()
    assert {type(error) for error in failures(original)} == {type(original)}


@pytest.mark.parametrize("kind", ["stop", "interrupt", "unreproducible", "base group"])
def test_what_cannot_or_must_not_be_reproduced_is_wrapped(kind: str) -> None:
    if kind in MADE:
        assert {type(error) for error in failures(MADE[kind]())} == {HandlerError}


@pytest.mark.parametrize("suspends", [False, True])
def test_an_exception_that_refuses_assignments_kills_nobody(way: str, suspends: bool) -> None:
    if way in ("loop", "thread-async"):

        async def handler(items: list[int]) -> list[int]:
            if suspends:
                await asyncio.sleep(0)
            raise Frozen(9)

    else:

        def handler(items: list[int]) -> list[int]:  # type: ignore[misc]
            raise Frozen(9)

    async def main() -> None:
        f = batched(handler, executor=way.removesuffix("-async"))
        with pytest.raises(Frozen, match="cold 9"):
            await asyncio.wait_for(f.acall(1), 20)

    asyncio.run(main())


def test_changing_one_s_own_exception_changes_nobody_else_s() -> None:
    first, second, third = failures(rich())
    first.extra2 = 1  # type: ignore[attr-defined]
    del first.code  # type: ignore[attr-defined]
    first.__cause__ = None
    first.args = ()
    if hasattr(first, "add_note"):
        first.add_note("mine")
    for other in (second, third):
        assert not hasattr(other, "extra2")
        assert not hasattr(other, "__notes__")
        assert other.code == 7  # type: ignore[attr-defined]
        assert other.args == ("rich", 7)
        assert isinstance(other.__cause__, Rich)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with 3.11")
def test_notes_travel() -> None:
    original = Plain("x")
    original.add_note("seen in the third layer")
    assert all(error.__notes__ == ["seen in the third layer"] for error in failures(original))


def test_a_private_exception_can_be_pickled() -> None:
    for error in failures(ValueError("x", 2)):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.args) == (ValueError, ("x", 2))


def test_tracebacks_do_not_grow_with_the_number_of_callers() -> None:
    def handler(items: list[int]) -> list[int]:
        raise Plain("deep")

    f = batched(handler, max_batch_size=1000, wait_ms=3_600_000)
    futures = [f.submit(number) for number in range(1000)]

    def raised(future: Any) -> BaseException:
        with pytest.raises(Plain) as caught:
            future.result(20)
        return caught.value

    errors = [raised(future) for future in futures]
    assert len({id(error) for error in errors}) == 1000
    assert {depth(error) for error in errors} == {depth(errors[0])}
    cause = errors[0].__cause__
    assert cause is not None
    assert depth(cause) <= 5  # the handler, and whoever called it
    assert {id(error.__cause__) for error in errors} == {id(cause)}
    assert all(error.__context__ in (None, cause) for error in errors)
    for _ in range(20):  # asked for again, one's own grows by nothing but one's own frames
        again = raised(futures[0])
        assert again is errors[0]
    assert depth(cause) <= 5


def test_tracebacks_do_not_grow_when_awaited_or_blocked_in_threads(gate: Gate) -> None:
    error = Plain("wide")

    def handler(items: list[Any]) -> Any:
        gate.run(items)
        raise error

    f = batched(handler, max_batch_size=200)
    f.submit("first")
    gate.entered()
    threads = [in_thread(f, number) for number in range(64)]

    async def main() -> list[BaseException]:
        async def caller(number: int) -> int:
            try:
                await f.acall(number)
            except Plain as caught:
                return depth(caught)
            raise AssertionError("it had to fail")

        calls = [asyncio.ensure_future(caller(number)) for number in range(100)]
        await asyncio.sleep(0)
        gate.open()
        return await asyncio.gather(*calls)

    assert len(set(asyncio.run(main()))) == 1
    caught = [thread.exception(20) for thread in threads]
    assert len({id(one) for one in caught}) == 64
    assert len({depth(one) for one in caught}) == 1
    assert depth(error) <= 5


def test_the_original_shows_where_the_handler_failed(way: str) -> None:
    def where_it_happened(items: list[int]) -> list[int]:
        raise Plain("here")

    async def main() -> None:
        f = batched_by(way, where_it_happened)
        with pytest.raises(Plain) as caught:
            await f.acall(1)
        traceback = caught.value.__cause__.__traceback__  # type: ignore[union-attr]
        names = []
        while traceback:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert "where_it_happened" in names

    asyncio.run(main())


def test_the_handler_s_own_chain_is_kept() -> None:
    def handler(items: list[int]) -> list[int]:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise Plain("outer") from inner

    with pytest.raises(Plain) as caught:
        batched(handler)(1)
    assert isinstance(caught.value.__cause__, Plain)
    assert isinstance(caught.value.__cause__.__cause__, KeyError)


# -- one wake per loop and batch ---------------------------------------------------------------


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often another thread wakes it, in its own way or by a descriptor it reads from, and how often its
    selector returns with something."""

    def __init__(self) -> None:
        super().__init__()
        self.wakes = 0
        self.turns = 0

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != self._thread_id:  # type: ignore[attr-defined]
            self.wakes += 1
        return super().call_soon_threadsafe(*args, **kwargs)

    def _add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        def read(*args: Any) -> Any:
            self.wakes += 1
            return callback(*args)

        own = callback == self._read_from_self  # type: ignore[attr-defined]
        return super()._add_reader(fd, callback if own else read, *args)  # type: ignore[misc]

    def _process_events(self, events: Any) -> None:
        self.turns += bool(events)
        super()._process_events(events)  # type: ignore[misc]


@pytest.mark.parametrize("way", ["thread", "thread-async"])
def test_a_loop_is_woken_once_per_batch(way: str) -> None:
    loop = CountingLoop()

    async def main() -> None:
        # A batch leaves when its last caller has come, so no wake can be for a part of one.
        f = batched_by(
            way, lambda items: [-item for item in items], max_batch_size=200, wait_ms=3_600_000
        )
        assert await asyncio.gather(*[f.acall(number) for number in range(200)]) == [
            -number for number in range(200)
        ]
        for _ in range(30):
            loop.wakes = loop.turns = 0
            calls = [asyncio.ensure_future(one(f, number)) for number in range(200)]
            assert await asyncio.gather(*calls) == [-number for number in range(200)]
            assert loop.wakes <= 1
            assert loop.turns <= 2
        assert f.stats.batches == 31

    run_counting(loop, main())


async def one(f: Any, item: Any) -> Any:
    return await f.acall(item)


def run_counting(loop: CountingLoop, main: Any) -> None:
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


def test_awaited_futures_share_one_wake_too() -> None:
    loop = CountingLoop()

    async def main() -> None:
        f = batched(lambda items: items, max_batch_size=100, wait_ms=3_600_000)

        async def wait(number: int) -> Any:
            return await f.submit(number)

        for round_ in range(5):
            loop.wakes = 0
            assert await asyncio.gather(*[wait(number) for number in range(100)]) == list(
                range(100)
            )
            # Their callbacks run one by one, and the loop may have begun on the first of them.
            assert loop.wakes <= 5, round_

    run_counting(loop, main())


def test_each_loop_of_a_batch_is_woken_once(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_size=90)
    loops = [CountingLoop() for _ in range(3)]
    ready = threading.Barrier(4)

    def serve(loop: CountingLoop) -> None:
        async def main() -> None:
            calls = [asyncio.ensure_future(one(f, number)) for number in range(30)]
            await auntil(lambda: f.stats.submitted == 91)
            loop.wakes = 0
            await loop.run_in_executor(None, ready.wait, 20)  # one wake is this one's
            assert await asyncio.gather(*calls) == [("answer", number) for number in range(30)]
            assert loop.wakes <= 2

        run_counting(loop, main())

    f.submit("first")
    gate.entered()
    threads = [in_thread(serve, loop) for loop in loops]
    ready.wait(20)
    gate.open()
    for thread in threads:
        thread.result(20)
    assert [len(batch) for batch in gate.batches] == [1, 90]


# -- the others of the batch -------------------------------------------------------------------


def test_a_loop_closed_before_its_result_hurts_nobody(run: Callable[..., Any], gate: Gate) -> None:
    f = batched(gate.handler)

    kept = []

    async def leave_in_flight() -> None:
        kept.append(f.acall("kept"))
        asyncio.ensure_future(one(f, "cut short"))
        await gate.aentered()

    async def leave_pending() -> None:
        kept.append(f.acall("kept"))

    run(leave_in_flight())
    run(leave_pending())
    neighbour = f.submit("neighbour")
    blocked = in_thread(f, "blocked")
    gate.open()
    assert neighbour.result(20) == ("answer", "neighbour")
    assert blocked.result(20) == ("answer", "blocked")
    assert f("after") == ("answer", "after")
    assert f.healthy
    assert run(one(f, "next loop")) == ("answer", "next loop")
    kept.clear()


def test_a_loop_closed_under_an_awaited_future_hurts_nobody(
    run: Callable[..., Any], gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    f = batched(gate.handler)
    left, neighbour = f.submit("left"), f.submit("neighbour")

    async def wait() -> Any:
        return await left

    async def leave() -> None:
        asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    run(leave())
    gate.open()
    assert left.result(20) == ("answer", "left")
    assert neighbour.result(20) == ("answer", "neighbour")
    assert f("after") == ("answer", "after")
    assert caplog.records == []


def test_every_kind_of_waiter_in_one_batch(gate: Gate) -> None:
    f = batched(gate.handler)
    f.submit("first")
    gate.entered()
    called: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future, callback = f.submit("future"), f.submit("callback")
    callback.add_done_callback(lambda done: called.set_result(done.result()))
    blocked = in_thread(f, "thread")
    looped = [in_thread(asyncio.run, one(f, f"loop {number}")) for number in range(2)]
    until(lambda: f.stats.pending == 5)
    gate.open()
    assert future.result(20) == ("answer", "future")
    assert called.result(20) == ("answer", "callback")
    assert blocked.result(20) == ("answer", "thread")
    assert [thread.result(20) for thread in looped] == [("answer", "loop 0"), ("answer", "loop 1")]
    assert len(gate.batches) == 2
