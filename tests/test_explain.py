"""Explain: sentences from figures and options, one situation at a time; nothing runs."""

from __future__ import annotations

import re
import typing
from collections import Counter
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carpool import Batcher, Histogram, Stats, batched
from carpool._options import Options
from carpool._types import Reason
from carpool._watch.explain import explain
from carpool._watch.explain.facts import WHY
from carpool.testing import ManualClock


def even(value: float, count: int = 100) -> Histogram:
    """A figure that was always the same."""
    return Histogram(count, value, value, value, ((value, count),))


def figures(
    reasons: dict[str, int] | None = None,
    *,
    size: float = 16.0,
    wait: float = 1.0,
    run: float = 5.0,
    **more: Any,
) -> Stats:
    """100 batches that left because they were full, unless it is said otherwise."""
    reasons = {"full": 100} if reasons is None else reasons
    batches = sum(reasons.values())
    requests = round(size * batches)
    stats: dict[str, Any] = {
        "submitted": requests,
        "answered": requests,
        "batches": batches,
        "reasons": MappingProxyType(reasons),
        "batch_sizes": even(size, batches),
        "wait_ms": even(wait, requests),
        "run_ms": even(run, batches),
        "inside": even(100),
        "slots": 1,
        "open_ms": 10_000.0,
    }
    return Stats(**{**stats, **more})


def said(stats: Stats, executor: str | None = "thread", **options: Any) -> str:
    return explain(stats, Options(**options), executor)


# Each situation: its figures, its options, what is said of it and what is not.
SITUATIONS: dict[str, tuple[Stats, dict[str, Any], list[str], list[str]]] = {
    "nothing was called": (Stats(), {}, ["There was no request yet."], ["batch"]),
    "the first request is held": (
        Stats(submitted=1, pending=1),
        {"wait_ms": 50},
        ["1 request, and no batch yet: 1 pending, held for company for at most `wait_ms=50`."],
        ["refused"],
    ),
    "the first request is with the handler": (
        Stats(submitted=3, pending=3),
        {},
        ["3 requests, and no batch yet."],
        ["held"],
    ),
    "everything was refused": (
        Stats(submitted=3, rejected=3),
        {"max_queue": 5},
        ["3 requests, and no batch yet.", "100 % of the calls were refused", "`max_queue=5`"],
        [],
    ),
    "a pool of four": (
        figures({"wait": 94, "full": 6}, size=3.1, inside=even(4)),
        {"wait_ms": 2},
        [
            "100 batches of 3.1 of 32 requests on average; 94 % left because `wait_ms` was over.",
            "Never more than 4 requests were inside at once: is a thread pool of 4 calling?",
            "with `max_batch_size=4` they would leave as soon as all 4 are there",
        ],
        ["they were full", "too slowly", "`key`"],
    ),
    "one caller, one after the other": (
        figures({"wait": 100}, size=1, inside=even(1)),
        {"wait_ms": 2},
        ["never more than 1 request inside", "gets no company", "`submit` or `map`"],
        ["thread pool", "max_batch_size="],
    ),
    "few callers that nobody holds": (
        figures({"idle": 100}, size=2, inside=even(3)),
        {},
        ["a slot was free and nothing held them", "is a thread pool of 3 calling?"],
        ["`max_batch_size=3`", "`wait_ms` of up to"],
    ),
    "requests come slowly": (
        figures({"wait": 90, "full": 10}, size=9),
        {"wait_ms": 4},
        ["too slowly to fill a batch in 4 ms", "a larger `wait_ms` makes fuller batches"],
        ["thread pool", "they were full"],
    ),
    "two reasons": (
        figures({"wait": 60, "full": 40}, size=20),
        {"wait_ms": 4},
        ["60 % left because `wait_ms` was over, 40 % because they were full."],
        [],
    ),
    "almost full by waiting": (
        figures({"wait": 100}, size=31),
        {"wait_ms": 4},
        ["31 of 32"],
        ["slowly", "thread pool"],
    ),
    "busy with small batches": (
        figures({"idle": 100}, size=4, run=95),
        {},
        ["The slots were busy 95 % of the time, with small batches", "`wait_ms` of up to 95 ms"],
        ["little would be gained"],
    ),
    "idle and small": (
        figures({"idle": 100}, size=4, run=2),
        {},
        ["A slot was mostly free", "little would be gained by waiting"],
        ["with small batches:"],
    ),
    "many keys": (
        figures({"wait": 100}, size=2),
        {"wait_ms": 4, "key": len},
        ["only where their `key` is equal"],
        ["`shared`"],
    ),
    "many settings": (
        figures({"wait": 100}, size=2),
        {"wait_ms": 4, "shared": ("temperature",)},
        ["only where their `shared` is equal"],
        [],
    ),
    "keys, but full all the same": (figures(size=32), {"key": len}, [], ["`key`"]),
    "full and fine": (
        figures(size=32, wait=1, run=5),
        {},
        ["100 % left because they were full", "as full as they may be"],
        ["come faster"],
    ),
    "full and late": (
        figures(size=32, wait=50, run=5),
        {},
        [
            "Requests wait 50 ms for a batch that takes 5 ms: they come faster than the handler takes them.",
            "`max_concurrent_batches`",
        ],
        ["as full as they may be"],
    ),
    "a budget": (
        figures({"cost": 80, "wait": 20}, size=10),
        {"max_batch_cost": 4096, "wait_ms": 1},
        ["`max_batch_cost=4096` is what limits them", "with smaller ones (`look_ahead`)"],
        ["slowly"],
    ),
    "a budget, filled up": (
        figures({"cost": 80, "wait": 20}, size=10),
        {"max_batch_cost": 4096, "wait_ms": 1, "look_ahead": 8},
        ["more than `max_batch_cost`", "raise it if the handler bears more."],
        ["look_ahead"],
    ),
    "full and not full": (
        figures({"full": 50, "idle": 50}, size=16),
        {},
        ["50 % left because they were full, 50 % because a slot was free"],
        ["as full as they may be"],
    ),
    "callers gather": (
        figures({"gather": 100}, size=10),
        {"executor": "caller"},
        ["`gather=False` starts at once"],
        [],
    ),
    "a target that is met": (
        figures({"target": 70, "full": 30}, size=20, wait=30, run=10),
        {"target_ms": 50},
        [
            "70 % left because `target_ms` allowed to hold them no longer",
            "`target_ms=50`: at the 99th percentile waiting and running add up to 40 ms, within the target.",
        ],
        ["beyond", "too slowly"],
    ),
    "a target that the handler misses": (
        figures({"target": 100}, size=20, wait=1, run=70),
        {"target_ms": 50},
        ["add up to 71 ms. The handler alone takes longer than the target", "`max_batch_size`"],
        ["within"],
    ),
    "a target under overload": (
        figures({"full": 250}, size=32, wait=80, run=40),
        {"target_ms": 50},
        ["add up to 120 ms, with the slots busy: more comes in than the handler takes in time."],
        ["within"],
    ),
    "a target with time to spare": (
        figures({"target": 100}, size=20, wait=45, run=10),
        {"target_ms": 50},
        ["add up to 55 ms, which is beyond it."],
        ["within"],
    ),
    "a target, and nobody else comes": (
        figures({"idle": 100}, size=1, inside=even(40)),
        {"target_ms": 50},
        ["a slot was free and nobody else was expected (`target_ms`)"],
        ["`wait_ms", "little would be gained"],
    ),
    "flushed": (
        figures({"flush": 100}, size=3),
        {"wait_ms": 1000},
        ["`flush()` sent them", "if `flush()` were called less often"],
        [],
    ),
    "closed": (figures({"close": 1}, size=3), {}, ["1 batch of", "was being closed"], []),
    "waiting for a slot": (
        figures({"wait": 100}, size=20, wait=300, run=99),
        {"wait_ms": 5},
        ["They wait for a free slot, not for company", "`max_concurrent_batches`"],
        ["`wait_ms=5` is most of the time"],
    ),
    "waiting is most of it": (
        figures({"wait": 100}, size=31, wait=20, run=0.5),
        {"wait_ms": 20},
        ["`wait_ms=20` is most of the time that a call takes: the handler itself needs 0.5 ms."],
        ["free slot"],
    ),
    "times and slots": (
        figures(wait=1.5, run=250, slots=4, open_ms=12_500),
        {"max_concurrent_batches": 4},
        [
            "A request waited 1.5 ms at the median and 1.5 ms at the 99th percentile before its batch left, "
            "a batch took 250 ms",
            "the 4 slots were busy 50 % of the time",
        ],
        [],
    ),
    "the handler hangs": (
        figures(run=5, oldest_ms=60_000, pending=3, in_flight=32),
        {},
        ["has waited 60000 ms by now, with 32 in flight: does the handler hang?", "`timeout_ms`"],
        [],
    ),
    "the handler always takes long": (figures(run=6000, oldest_ms=9000), {}, [], ["hang"]),
    "slow batches": (
        figures(slow=3),
        {"slow_ms": 50},
        ["3 batches took longer than `slow_ms=50`."],
        [],
    ),
    "refused": (
        figures(rejected=160, submitted=1760),
        {},
        ["9 % of the calls were refused", "`max_queue=10000`", "`overflow='wait'`"],
        [],
    ),
    "refused though they would wait": (
        figures(rejected=160, submitted=1760),
        {"overflow": "wait"},
        ["9 % of the calls were refused"],
        ["makes callers wait"],
    ),
    "hardly anything was refused": (figures(rejected=1, submitted=1601), {}, [], ["refused"]),
    "shed": (
        figures(shed=800, failed=800, submitted=2400),
        {"overflow": "shed"},
        ["33 % gave way at a full queue"],
        [],
    ),
    "expired for want of a slot": (
        figures(run=95, expired=400, failed=400, submitted=2000),
        {"timeout_ms": 100},
        ["20 % ran out of time (`timeout_ms`)", "they waited for a slot"],
        ["failed"],
    ),
    "expired with slots free": (
        figures(run=1, expired=400, failed=400, submitted=2000),
        {"timeout_ms": 100},
        ["20 % ran out of time", "hardly longer than the wait"],
        ["failed"],
    ),
    "failed": (
        figures(answered=800, failed=800),
        {},
        ["50 % failed.", "with `on_error='isolate'` it fails only those"],
        ["ran out of time"],
    ),
    "failed, each for itself": (
        figures(answered=800, failed=800),
        {"on_error": "isolate"},
        ["50 % failed."],
        ["`on_error"],
    ),
    "given up": (
        figures(cancelled=400, submitted=2000),
        {},
        ["20 % were given up by their callers", "`current_batch().requests`"],
        [],
    ),
    "padding": (
        figures(given=100, useful=55),
        {},
        ["45 % of what the handler was given was padding", "with `length`, requests of similar"],
        ["`batch_sizes`", "`length_window`"],
    ),
    "padding in spite of lengths": (
        figures(given=100, useful=55),
        {"length": len},
        ["45 % of what the handler was given was padding", "a larger `length_window`"],
        ["with `length`"],
    ),
    "filled up to sizes": (
        figures(given=100, useful=70),
        {"batch_sizes": [1, 32]},
        ["30 % of what the handler was given was padding", "`batch_sizes`"],
        ["`length`"],
    ),
    "graphs that do not fit": (
        figures(replayed=30, eager=10),
        {},
        ["25 % of the batches ran without a CUDA graph", "`Pad(buckets=...)`"],
        ["padding"],
    ),
    "graphs that fit": (figures(replayed=40, eager=0), {}, [], ["CUDA graph"]),
    "little padding": (figures(given=100, useful=95), {}, [], ["padding"]),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation(name: str) -> None:
    stats, options, expected, unexpected = SITUATIONS[name]
    text = said(stats, **options)
    for one in expected:
        assert one in text, text
    for one in unexpected:
        assert one not in text, text


def test_who_runs_the_handler_decides_what_is_advised() -> None:
    late = figures(size=32, wait=50, run=5)
    assert "`max_concurrent_batches`" in said(late, "thread")
    assert "`max_concurrent_batches`" not in said(late, "loop")
    waits = figures({"wait": 100}, size=20, wait=300, run=99)
    assert "a faster handler shortens" in said(waits, "loop", wait_ms=5)
    pending = Stats(submitted=2, pending=2)
    assert "Does a loop take batches" in said(pending, None)


def test_every_reason_has_its_words() -> None:
    assert set(WHY) == set(typing.get_args(Reason))
    for reason in WHY:
        assert WHY[reason] in said(figures({reason: 10}))


KNOWN = {
    *Options.__dataclass_fields__,
    *("submit", "map", "flush", "next_batch", "current_batch"),
}


def histograms() -> st.SearchStrategy[Histogram]:
    return st.builds(even, st.floats(0, 1e7), st.integers(0, 10**6))


@given(
    st.builds(
        Stats,
        **{name: st.integers(0, 10**6) for name in ("submitted", "failed", "expired", "shed")},
        **{name: st.integers(0, 10**6) for name in ("cancelled", "rejected", "pending")},
        **{
            name: st.integers(0, 10**6)
            for name in ("in_flight", "batches", "slow", "replayed", "eager")
        },
        inside=st.builds(even, st.integers(0, 10**6), st.integers(0, 10**6)),
        reasons=st.dictionaries(st.sampled_from(sorted(WHY)), st.integers(0, 10**6)),
        batch_sizes=histograms(),
        wait_ms=histograms(),
        run_ms=histograms(),
        oldest_ms=st.floats(0, 1e9),
        open_ms=st.floats(0, 1e12),
        slots=st.none() | st.integers(1, 100),
        useful=st.integers(0, 50),
        given=st.sampled_from([0, 50]),
    ),
    st.sampled_from([None, "thread", "loop", "caller"]),
    st.floats(0, 1000),
)
def test_whatever_the_figures_it_is_sentences_that_name_what_there_is(
    stats: Stats, executor: str | None, wait_ms: float
) -> None:
    text = said(stats, executor, wait_ms=wait_ms, key=len, slow_ms=1)
    for line in text.split("\n"):
        assert line.endswith((".", "?"))
        assert "nan" not in line
    for name in re.findall(r"`([a-z_]+)", text):
        assert name in KNOWN | {"for"}, name


def test_a_batcher_explains_itself() -> None:
    f = batched(lambda items: items, wait_ms=0.01)
    assert f.explain() == "There was no request yet."
    assert f(1) == 1
    f.close()
    assert "1 batch of 1 of 32 requests on average" in f.explain()
    batcher: Batcher[int, int] = Batcher()
    future = batcher.submit(1)
    assert "Does a loop take batches" in batcher.explain()
    assert future.cancel()
    batcher.close()


def test_it_goes_by_the_options_of_now() -> None:
    f = batched(lambda items: items, max_batch_size=8)
    assert f(1) == 1
    assert "1 of 8 requests" in f.explain()
    f.configure(max_batch_size=4)
    assert "1 of 4 requests" in f.explain()
    f.close()


# -- since ---------------------------------------------------------------------------------------


def test_since_an_earlier_picture_what_was_before_counts_no_more() -> None:
    batcher: Batcher[int, int] = Batcher(max_batch_size=4, max_queue=4)

    def batch_of(size: int) -> None:
        futures = [batcher.submit(number) for number in range(size)]
        batch = batcher.next_batch()
        assert batch is not None
        batch.complete([1] * size)
        assert [future.result(20) for future in futures] == [1] * size

    for _ in range(50):
        batch_of(4)
    before = batcher.stats
    assert "4 of 4 requests on average; 100 % left because they were full" in batcher.explain()
    for _ in range(10):
        batch_of(1)
    assert "3.5 of 4 requests" in batcher.explain()
    said = batcher.explain(since=before)
    assert "10 batches of 1 of 4 requests on average; 100 % left because a slot was free" in said
    assert "never more than 1 request inside" in said
    assert "There was no request yet." in batcher.explain(since=batcher.stats)
    batcher.close()


def test_the_figures_since_an_earlier_picture() -> None:
    with ManualClock() as clock:
        batcher: Batcher[int, int] = Batcher(max_batch_size=100, max_queue=100)

        def batch_of(size: int, wait_ms: float, run_ms: float) -> None:
            futures = [batcher.submit(number) for number in range(size)]
            clock.advance(ms=wait_ms)
            batch = batcher.next_batch()
            assert batch is not None
            clock.advance(ms=run_ms)
            batch.complete([1] * size)
            assert [future.result(20) for future in futures] == [1] * size

        batch_of(100, wait_ms=500, run_ms=900)
        assert batcher.submit(1).cancel()
        before = batcher.stats
        assert before.since(Stats()) == before
        batch_of(2, wait_ms=10, run_ms=20)
        batch_of(6, wait_ms=30, run_ms=40)
        left = batcher.submit(1)
        since = batcher.stats.since(before)
        assert (since.submitted, since.answered, since.cancelled, since.pending) == (9, 8, 0, 1)
        assert (since.batches, since.reasons["idle"]) == (2, 2)
        assert (since.batch_sizes.count, since.batch_sizes.mean) == (2, 4)
        assert since.wait_ms.mean == pytest.approx((2 * 10 + 6 * 30) / 8)
        assert since.wait_ms.max == pytest.approx(30, rel=1 / 16)
        assert since.run_ms.min == pytest.approx(20, rel=1 / 16)
        assert since.run_ms.p99 == pytest.approx(40, rel=1 / 16)
        assert since.peak == 6
        assert since.open_ms == pytest.approx(100)
        assert since.busy_ms == pytest.approx(60)
        with pytest.raises(ValueError, match="earlier picture"):
            before.since(batcher.stats)
        assert left.cancel()
        batcher.close()


@given(st.lists(st.integers(0, 10**6)), st.lists(st.integers(0, 10**6)))
def test_a_histogram_since_an_earlier_one_is_that_of_what_came_after(
    first: list[int], later: list[int]
) -> None:
    def of(values: list[int]) -> Histogram:
        if not values:
            return Histogram()
        counts = Counter(float(value) for value in values)
        mean = sum(values) / len(values)
        return Histogram(len(values), mean, min(values), max(values), tuple(sorted(counts.items())))

    since, expected = of(first + later).since(of(first)), of(later)
    assert (since.count, since.buckets) == (expected.count, expected.buckets)
    assert (since.min, since.max) == (expected.min, expected.max)
    assert since.mean == pytest.approx(expected.mean, abs=1e-3)


@pytest.mark.parametrize("wrong", [5, "yesterday", {}, Histogram()])
def test_since_takes_figures_only(wrong: Any) -> None:
    f = batched(lambda items: items)
    with pytest.raises(TypeError, match="since must be a Stats"):
        f.explain(since=wrong)


def test_since_figures_of_another_is_refused() -> None:
    busy, idle = batched(lambda items: items), batched(lambda items: items)
    busy(1)
    with pytest.raises(ValueError, match="same batcher"):
        idle.explain(since=busy.stats)
    busy.close()
