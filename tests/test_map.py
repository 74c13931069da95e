"""Whole data sets, in a thread: order, laziness, errors, tries, and what a `break` leaves behind."""

from __future__ import annotations

import gc
import itertools
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carpool import (
    BatchAbandoned,
    Batcher,
    BatcherClosed,
    DeadlineExceeded,
    Progress,
    RequestTooLarge,
    WouldDeadlock,
    batched,
)
from carpool._many.backoff import LONGEST_S, Pace, backoff, is_worth_another
from carpool._many.sync_pass import How, over
from gates import (
    Gate,
    batched_by,
    identity,
    in_thread,
    interrupt_script,
    run_script,
    start_script,
    until,
)


def answers(*items: Any) -> list[Any]:
    return [("answer", item) for item in items]


class Source:
    """Counts what is read of it."""

    def __init__(self, count: int) -> None:
        self.read = 0
        self._count = count

    def __iter__(self) -> Iterator[int]:
        for item in range(self._count):
            self.read += 1
            yield item


# ------------------------------------------------------------------------------- order, laziness


@pytest.mark.parametrize("way", ["thread", "thread-async", "caller"])
@pytest.mark.parametrize("ordered", [True, False])
def test_every_item_has_its_answer(gate: Gate, way: str, ordered: bool) -> None:
    gate.open()
    function = batched_by(way, gate, max_batch_size=4, max_concurrent_batches=2)
    got = list(function.map(iter(range(103)), ordered=ordered))
    assert (got if ordered else sorted(got)) == answers(*range(103))
    assert identity(function.stats)


@pytest.mark.parametrize("way", ["thread", "thread-async", "caller"])
def test_a_single_call_waits_for_two_batches_of_it_at_most(gate: Gate, way: str) -> None:
    function = batched_by(way, gate, max_batch_size=4)
    mapped = in_thread(list, function.map(range(200)))
    gate.entered()
    until(lambda: function.stats.pending == 8)
    single = function.submit("single")
    gate.open()
    assert single.result(20) == ("answer", "single")
    assert mapped.result(20) == answers(*range(200))
    assert gate.items.index("single") <= 3 * 4


def test_items_of_several_kinds_fill_their_batches(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=4, key=lambda item: item % 3)
    assert list(function.map(range(240), window=120)) == answers(*range(240))
    assert len(gate.batches) <= 1.25 * 240 / 4


def test_nothing_is_read_before_somebody_asks(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=2)
    source = Source(1000)
    mapped = function.map(source)
    assert source.read == 0
    assert function.stats.submitted == 0
    assert next(mapped) == ("answer", 0)
    assert 0 < source.read <= 8
    mapped.close()


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("window", [1, 3, 8, 50])
def test_no_more_than_a_window_lies_between(gate: Gate, ordered: bool, window: int) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=4)
    source = Source(200)
    taken = 0
    for taken, _ in enumerate(function.map(source, ordered=ordered, window=window)):
        # What was handed out as a list is with the consumer, item by item.
        assert source.read - taken <= 2 * window
    assert taken == 199


def test_one_consumer_fills_the_batches(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=8)
    assert list(function.map(range(203))) == answers(*range(203))
    sizes = [len(batch) for batch in gate.batches]
    assert sizes == [8] * 25 + [3]


def test_as_they_come(new_gate: Callable[..., Gate]) -> None:
    gate = new_gate()
    first = threading.Event()

    def handler(items: list[int]) -> list[int]:
        if 0 in items:
            assert first.wait(20)
        return items

    function = batched(handler, max_batch_size=2, max_concurrent_batches=2)
    mapped = function.map(range(8), ordered=False)
    early = [next(mapped) for _ in range(6)]
    assert sorted(early) == [2, 3, 4, 5, 6, 7]
    first.set()
    assert sorted(mapped) == [0, 1]
    gate.open()


def test_any_iterable_and_an_empty_one(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler)
    assert list(function.map(set())) == []
    assert list(function.map(item for item in "ab")) == answers("a", "b")
    with pytest.raises(TypeError, match="not iterable"):
        function.map(5)
    with pytest.raises(TypeError, match="one iterable"):
        function.map()


def test_it_is_longer_than_the_queue(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, max_batch_size=4, max_queue=4)
    assert list(function.map(range(500), window=100)) == answers(*range(500))


def test_memory_stays_flat() -> None:
    class Item:
        pass

    alive: weakref.WeakSet[Item] = weakref.WeakSet()

    def items() -> Iterator[Item]:
        for _ in range(20_000):
            item = Item()
            alive.add(item)
            yield item

    function = batched(lambda items: items, max_batch_size=8)
    most = 0
    gc.disable()  # nothing may have to wait for the collector
    try:
        for ordered in (True, False):
            for number, answer in enumerate(function.map(items(), ordered=ordered)):
                if number % 100 == 0:
                    most = max(most, len(alive))
                del answer
    finally:
        gc.enable()
    assert most <= 100


# -------------------------------------------------------------------------------------- errors


def odd(items: list[int]) -> list[Any]:
    return [ValueError(item) if item % 2 else item for item in items]


@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_is_raised_in_its_place(ordered: bool) -> None:
    function = batched(odd, max_batch_size=4)
    mapped = function.map([0, 2, 4, 5, 6], ordered=ordered)
    assert [next(mapped), next(mapped), next(mapped)] == [0, 2, 4]
    with pytest.raises(ValueError, match="5"):
        next(mapped)
    assert list(mapped) == []
    until(lambda: identity(function.stats) and function.stats.in_flight == 0)
    assert function.stats.pending == 0


@pytest.mark.parametrize("ordered", [True, False])
def test_or_returned_or_skipped(ordered: bool) -> None:
    function = batched(odd, max_batch_size=4)
    for how in ({"errors": "return"}, {"return_exceptions": True}):
        got = list(function.map(range(10), ordered=ordered, **how))
        assert [one for one in got if not isinstance(one, Exception)] == [0, 2, 4, 6, 8]
        assert [one.args[0] for one in got if isinstance(one, ValueError)] == [1, 3, 5, 7, 9]
        if ordered:
            assert [isinstance(one, Exception) for one in got] == [False, True] * 5
    assert list(function.map(range(10), ordered=ordered, errors="skip")) == [0, 2, 4, 6, 8]


def test_an_error_of_the_source_comes_after_the_answers_before_it(gate: Gate) -> None:
    gate.open()

    def source() -> Iterator[int]:
        yield from range(7)
        raise OSError("the disk is gone")

    function = batched(gate.handler, max_batch_size=2)
    mapped = function.map(source())
    assert list(itertools.islice(mapped, 7)) == answers(*range(7))
    with pytest.raises(OSError, match="the disk is gone"):
        next(mapped)


def test_a_close_ends_it(gate: Gate) -> None:
    function = batched(gate.handler, max_batch_size=1)
    mapped = function.map(range(100))
    first = in_thread(next, mapped)
    gate.entered()
    closing = in_thread(function.close, True)
    until(lambda: function._station.engine().closed)
    gate.open()
    assert closing.result(20)
    assert first.result(20) == ("answer", 0)
    with pytest.raises(BatcherClosed):
        list(mapped)
    assert len(gate.items) < 10


def test_wrong_options_are_refused_at_once(gate: Gate) -> None:
    function = batched(gate.handler)
    for how, kind, text in [
        ({"windows": 5}, TypeError, "did you mean 'window'"),
        ({"window": 0}, ValueError, "window must be at least 1"),
        ({"ordered": 1}, TypeError, "ordered"),
        ({"errors": "drop"}, ValueError, "'raise', 'return', 'skip'"),
        ({"errors": "skip", "return_exceptions": True}, ValueError, "return_exceptions"),
        ({"retries": -1}, ValueError, "retries"),
        ({"retries": 1.5}, TypeError, "retries"),
        ({"backoff_ms": "long"}, TypeError, "backoff_ms"),
        ({"progress": 3}, TypeError, "progress"),
        ({"timeout_ms": -1}, ValueError, "timeout_ms"),
    ]:
        with pytest.raises(kind, match=text):
            function.map([1], **how)
        with pytest.raises(kind, match=text):
            function.amap([1], **how)


# --------------------------------------------------------------------------------- leaving early


@pytest.mark.parametrize("ordered", [True, False])
def test_a_break_cancels_what_is_in_flight(gate: Gate, ordered: bool) -> None:
    gate.release()
    function = batched(gate.handler, max_batch_size=1)
    for got in function.map(range(100), ordered=ordered):
        assert got == ("answer", 0)
        break
    assert function._station.engine().pending == 0
    gate.open()
    until(lambda: function.stats.in_flight == 0)
    stats = function.stats
    assert identity(stats)
    assert stats.cancelled == stats.submitted - 1
    assert len(gate.items) <= 2


def test_an_interrupt_cancels_it_too() -> None:
    process = start_script(
        """
from carpool import batched
hold = threading.Event()
@batched(max_batch_size=2)
def f(items):
    say("ready")
    hold.wait()
    return items
try:
    list(f.map(range(100)))
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say("interrupted", f._station.engine().pending)
hold.set()
say(f.close())
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert interrupt_script(process) == ["interrupted 0", "True"]


def test_waiting_for_itself_is_found_out() -> None:
    def handler(items: list[Any]) -> list[Any]:
        return [list(function.map([1]))]

    function = batched(handler)
    with pytest.raises(WouldDeadlock):
        function(0)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_fork_does_not_wait_for_its_parents_map() -> None:
    said = run_script(
        """
import warnings
warnings.simplefilter("ignore")
from carpool import BatchAbandoned, batched
@batched(max_batch_size=1)
def f(items):
    return items
mapped = f.map(range(100))
next(mapped)
pid = os.fork()
if pid == 0:
    try:
        list(mapped)
    except BatchAbandoned as error:
        say("child:", "before the fork" in str(error))
    os._exit(0)
os.waitpid(pid, 0)
say("parent:", list(mapped) == list(range(1, 100)))
"""
    )
    assert said == ["child: True", "parent: True"]


# ------------------------------------------------------------------------------------- who maps


def test_several_parameters_and_their_defaults() -> None:
    @batched(max_batch_size=4)
    def scaled(numbers: list[int], factors: list[int] = 10) -> list[int]:  # type: ignore[assignment]
        return [number * factor for number, factor in zip(numbers, factors, strict=True)]

    assert list(scaled.map(range(6))) == [0, 10, 20, 30, 40, 50]
    assert list(scaled.starmap((n, 2) for n in range(6))) == [0, 2, 4, 6, 8, 10]
    got = list(scaled.starmap([(1, 2), (1, 2, 3), [4]], errors="return"))
    assert got[0] == 2
    assert isinstance(got[1], TypeError)
    assert got[2] == 40
    for ordered in (True, False):
        kept = list(scaled.starmap([(), (2,), 5], errors="skip", ordered=ordered))
        assert kept == [20]
    assert list(scaled.starmap([(), ()], errors="skip")) == []


def test_methods_static_methods_and_classes() -> None:
    class Model:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @batched
        def scale(self, numbers: list[int]) -> list[int]:
            return [self.factor * number for number in numbers]

        @batched
        @staticmethod
        def halve(numbers: list[int]) -> list[float]:
            return [number / 2 for number in numbers]

    assert list(Model(3).scale.map([1, 2])) == [3, 6]
    model = Model(4)
    assert list(Model.scale.map(model, [1, 2])) == [4, 8]
    assert list(Model.scale.starmap(model, [(1,), (2,)])) == [4, 8]
    assert list(Model.halve.map([1, 2])) == [0.5, 1.0]


def test_a_batcher_with_a_loop_of_ones_own() -> None:
    with Batcher[int, int](max_batch_size=4) as batcher:

        def serve() -> None:
            for batch in batcher:
                batch.complete([2 * item for item in batch.items])
                del batch

        serving = in_thread(serve)
        assert list(batcher.map(range(10))) == [2 * n for n in range(10)]
        assert list(batcher.starmap([(1,), (2,)])) == [2, 4]
        assert isinstance(next(batcher.starmap([(1, 2)], errors="return")), ValueError)
    serving.result(20)


def test_views_bring_their_options(gate: Gate) -> None:
    gate.open()
    function = batched(gate.handler, key=lambda item: item % 2, max_batch_size=4)
    assert list(function.map(range(20))) == answers(*range(20))
    assert all(len({item % 2 for item in batch}) == 1 for batch in gate.batches)
    del gate.batches[:]
    assert list(function.options(key=None).map(range(20))) == answers(*range(20))
    assert [len(batch) for batch in gate.batches] == [4] * 5


@pytest.mark.parametrize("ordered", [True, False])
def test_one_that_cannot_be_measured_fails_alone(ordered: bool) -> None:
    def cost(item: int) -> int:
        if item == 3:
            raise LookupError("no cost of 3")
        return item

    function = batched(lambda items: items, max_batch_cost=10, cost=cost, max_batch_size=4)
    got = list(function.map([1, 2, 3, 11, 4, 5], errors="return", ordered=ordered, retries=1))
    wrong = [one for one in got if isinstance(one, Exception)]
    assert [type(one) for one in wrong] == [LookupError, RequestTooLarge]
    assert sorted(one for one in got if not isinstance(one, Exception)) == [1, 2, 4, 5]
    if ordered:
        assert got.index(1) == 0
        assert isinstance(got[2], LookupError)
    assert [type(one) for one in function.map([3, 3], errors="return")] == [LookupError] * 2


@pytest.mark.parametrize("ordered", [True, False])
def test_one_that_is_too_large_is_counted_as_a_single_call_is(ordered: bool) -> None:
    function = batched(lambda items: items, max_batch_cost=10, cost=lambda item: item)
    with pytest.raises(RequestTooLarge):
        function(11)
    assert (function.stats.submitted, function.stats.rejected) == (1, 1)
    assert list(function.map([1, 12, 2, 13], errors="skip", ordered=ordered)) == [1, 2]
    stats = function.stats
    assert (stats.submitted, stats.rejected, stats.answered) == (5, 3, 2)
    assert identity(stats)


def test_a_time_for_each(gate: Gate) -> None:
    function = batched(gate.handler, max_batch_size=1)
    held = function.submit("held")
    gate.entered()
    got = list(function.map(range(5), timeout_ms=1, errors="return"))
    assert all(isinstance(one, DeadlineExceeded) for one in got)
    gate.open()
    assert held.result(20) == ("answer", "held")


# ------------------------------------------------------------------------------------ once more


class ByHand(Pace):
    """Time that passes only where the map waits for it."""

    def __init__(self) -> None:
        self.time = 100.0
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    def chance(self) -> float:
        return 0.5

    def get(self, done: queue.SimpleQueue[Any], until: float | None) -> Any:
        if until is None:
            return done.get(timeout=20)
        try:
            # What is on its way comes first: the batcher has nothing to do any more.
            return done.get(timeout=0.2 if self.time < until else 0)
        except queue.Empty:
            self.waits.append(round(until - self.time, 3))
            self.time = until
            return None


@pytest.mark.parametrize("ordered", [True, False])
def test_failed_items_are_tried_again(ordered: bool) -> None:
    seen: dict[int, int] = {}

    def handler(items: list[int]) -> list[Any]:
        for item in items:
            seen[item] = seen.get(item, 0) + 1
        # Item n fails n times.
        return [OSError(item) if seen[item] <= item else item for item in items]

    function = batched(handler, max_batch_size=8)
    pace = ByHand()
    how = How(retries=2, backoff_ms=1000, ordered=ordered, errors="return")
    got = list(over(function._lot(False), iter([0, 3, 1, 2]), how, None, pace))
    assert {repr(one) for one in got} == {"0", "OSError(3)", "1", "2"}
    if ordered:
        assert [repr(one) for one in got] == ["0", "OSError(3)", "1", "2"]
    assert seen == {0: 1, 1: 2, 2: 3, 3: 3}
    assert pace.waits == [0.75, 1.5]


def test_what_is_final_is_not_tried_again() -> None:
    function = batched(lambda items: items, max_batch_cost=5, cost=lambda item: item)
    got = list(function.map([9], retries=5, errors="return"))
    assert isinstance(got[0], RequestTooLarge)
    assert not is_worth_another(BatcherClosed())
    assert not is_worth_another(KeyboardInterrupt())
    assert is_worth_another(BatchAbandoned())


@pytest.mark.parametrize(
    ("tries", "chance", "seconds"),
    [(1, 0, 0.05), (1, 1, 0.1), (2, 1, 0.2), (3, 0.5, 0.3), (500, 1, LONGEST_S)],
)
def test_the_wait_doubles(tries: int, chance: float, seconds: float) -> None:
    assert backoff(tries, 0.1, chance) == pytest.approx(seconds)


# ------------------------------------------------------------------------------------- progress


@pytest.mark.parametrize("ordered", [True, False])
def test_progress_is_told(ordered: bool) -> None:
    function = batched(odd, max_batch_size=5)
    told: list[Progress] = []
    pace = ByHand()

    def tell(progress: Progress) -> None:
        told.append(progress)

    how = How(progress=tell, errors="skip", ordered=ordered)
    for _ in over(function._lot(False), iter(range(100)), how, 100, pace):
        pace.time += 0.1
    last = told[-1]
    assert (last.done, last.failed, last.retried, last.total) == (100, 50, 0, 100)
    assert last.batch_size == 5
    assert last.seconds == pytest.approx(5)
    assert last.rate == pytest.approx(20)
    assert [one.done for one in told] == sorted(one.done for one in told)
    middle = told[len(told) // 2]
    assert middle.remaining == pytest.approx((100 - middle.done) / middle.rate)
    assert len(told) > 5


def test_a_bar_is_drawn_by_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    function = batched(odd, name="half of them")
    pytest.importorskip("tqdm")
    assert len(list(function.map(range(10), progress=True, errors="skip"))) == 5
    shown = capfd.readouterr().err
    assert "half of them" in shown
    assert "10/10" in shown
    assert "5 failed" in shown
    monkeypatch.setitem(sys.modules, "tqdm", None)
    pytest.importorskip("rich")
    assert len(list(function.map(range(10), progress=True, errors="skip"))) == 5
    captured = capfd.readouterr()
    assert "10/10" in captured.out + captured.err
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(ImportError, match=r"carpool\[progress\]"):
        list(function.map([1], progress=True))
