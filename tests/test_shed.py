"""overflow="shed": who gives way at a full queue, who learns of it and how, and what is left of it."""

from __future__ import annotations

import asyncio
import gc
import pickle
import random
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, BatcherClosed, QueueFull, RequestShed, batched
from gates import Gate, auntil, batched_by, identity, in_thread, until

HOUR = 3_600_000.0


def busy(gate: Gate, way: str = "thread", **options: Any) -> Any:
    """A batcher whose only slot is taken, with nothing pending."""
    f = batched_by(way, gate, **{"max_queue": 3, "overflow": "shed", "age_ms": HOUR, **options})
    f.first = f.submit("first")
    gate.entered()
    return f


def test_the_least_urgent_gives_way(gate: Gate) -> None:
    f = busy(gate, name="crowded")
    plain = f.submit("plain")
    late, later = (f.options(priority=level).submit(level) for level in (1, 2))
    urgent = f.options(priority=-1).submit("urgent")
    with pytest.raises(RequestShed, match=r"crowded: .*max_queue=3.*more urgent one") as caught:
        later.result(20)
    assert isinstance(caught.value, QueueFull)
    same = f.submit(
        "same"
    )  # as urgent as "plain", and it came later; but 1 is less urgent than both
    with pytest.raises(RequestShed):
        late.result(20)
    gate.open()
    assert [one.result(20)[1] for one in (plain, urgent, same)] == ["plain", "urgent", "same"]
    assert gate.batches[1] == ["urgent", "plain", "same"]


def test_possibly_the_newcomer(gate: Gate) -> None:
    f = busy(gate, name="crowded")
    pending = [f.submit(n) for n in range(3)]
    for call in (f, f.submit, f.options(priority=1), f.options(priority=1).submit):
        with pytest.raises(RequestShed, match=r"crowded: 3 .*max_queue=3.*it gives way"):
            call("newcomer")
    gate.open()
    assert [one.result(20)[1] for one in pending] == [0, 1, 2]
    assert gate.items == ["first", 0, 1, 2]


def test_among_equals_the_latest_deadline(gate: Gate) -> None:
    f = busy(gate)
    soon, late, none = (
        f.options(timeout_ms=limit).submit(limit) for limit in (HOUR, 2 * HOUR, None)
    )
    sooner = f.options(timeout_ms=HOUR / 2).submit("sooner")
    with pytest.raises(RequestShed):
        none.result(20)
    soonest = f.options(timeout_ms=HOUR / 4).submit("soonest")
    with pytest.raises(RequestShed):
        late.result(20)
    with pytest.raises(RequestShed):
        f.options(timeout_ms=3 * HOUR)("later than all")
    gate.open()
    assert [one.result(20)[1] for one in (soon, sooner, soonest)] == [HOUR, "sooner", "soonest"]


@pytest.mark.parametrize("kind", ["call", "acall", "submit"])
@pytest.mark.parametrize("way", ["thread", "loop", "caller"])
def test_whoever_waits_is_told(way: str, kind: str, gate: Gate, run: Callable[..., Any]) -> None:
    """A blocked thread, an awaiting coroutine and a future, whoever runs the handler."""
    if way == "loop" and kind == "call":
        pytest.skip("no thread can block on a handler of its loop")

    async def main() -> None:
        f = batched_by(way, gate, max_queue=1, overflow="shed", age_ms=HOUR)
        first = asyncio.ensure_future(f.acall("first"))
        await gate.aentered()
        patient = f.options(priority=1)
        if kind == "call":
            victim = asyncio.ensure_future(asyncio.to_thread(patient, "victim"))
        elif kind == "acall":
            victim = asyncio.ensure_future(patient.acall("victim"))
        else:
            victim = asyncio.ensure_future(asyncio.wrap_future(patient.submit("victim")))
        await auntil(lambda: f.stats.pending)
        urgent = asyncio.ensure_future(f.acall("urgent"))
        with pytest.raises(RequestShed, match="gave way"):
            await asyncio.wait_for(victim, 20)
        gate.open()
        assert await asyncio.gather(first, urgent) == [("answer", "first"), ("answer", "urgent")]
        stats = f.stats
        assert (stats.shed, stats.failed, stats.rejected, stats.answered) == (1, 1, 0, 2)
        assert identity(stats)

    run(main())


def test_each_has_an_error_of_its_own(gate: Gate) -> None:
    f = busy(gate)
    victims = [f.options(priority=1).submit(n) for n in range(3)]
    for n in range(3):
        f.submit(n)
    errors = [victim.exception(20) for victim in victims]
    assert [type(error) for error in errors] == [RequestShed] * 3
    assert len({id(error) for error in errors}) == 3
    assert str(pickle.loads(pickle.dumps(errors[0]))) == str(errors[0])
    gate.open()


def test_a_callback_of_the_one_that_gave_way_may_use_the_batcher(gate: Gate) -> None:
    f = busy(gate, max_queue=1)
    victim = f.options(priority=5).submit("victim")
    outcomes: list[Any] = []

    def again(_: object) -> None:
        try:
            outcomes.append(f.options(priority=-2).submit("again"))
        except QueueFull as error:
            outcomes.append(error)

    victim.add_done_callback(again)
    newcomer = f.submit("newcomer")
    # It came back more urgent, so the newcomer gave way in its turn.
    assert isinstance(newcomer.exception(20), RequestShed)
    gate.open()
    assert outcomes[0].result(20) == ("answer", "again")


def test_the_figures(gate: Gate) -> None:
    f = busy(gate)
    for n in range(5):
        try:
            f.options(priority=1).submit(n)
        except RequestShed:
            assert n >= 3
    for n in range(4):
        try:
            f.submit(n)
        except RequestShed:
            assert n == 3
    stats = f.stats
    assert (stats.shed, stats.failed, stats.rejected, stats.pending) == (6, 3, 3, 3)
    assert identity(stats)
    gate.open()


def test_a_closed_batcher_sheds_nobody(gate: Gate) -> None:
    f = busy(gate, max_queue=1)
    pending = f.options(priority=5).submit("pending")
    closing = in_thread(f.close)
    until(lambda: f._station.engine().closed)
    with pytest.raises(BatcherClosed):
        f.options(priority=-5).submit("too late")
    gate.open()
    assert closing.result(20) is True
    assert pending.result(20) == ("answer", "pending")


def test_what_gave_way_is_not_kept(gate: Gate) -> None:
    class Item:
        pass

    f = busy(gate, max_queue=50)
    alive: weakref.WeakSet[Item] = weakref.WeakSet()
    futures = []
    for n in range(2000):
        item = Item()
        alive.add(item)
        try:
            futures.append(f.options(priority=100 - n % 200).submit(item))
        except RequestShed:
            pass
        del item
    del futures
    gc.collect()
    assert len(alive) == f.stats.pending == 50
    assert f.stats.shed == 1950
    gate.open()
    f.close()
    gate.batches.clear()
    gc.collect()
    assert len(alive) == 0


def test_a_model_of_it() -> None:
    """Against a plain list, through a loop of one's own."""
    draw = random.Random(7)
    batcher: Batcher[int, int] = Batcher(
        max_batch_size=4, max_queue=10, overflow="shed", age_ms=HOUR
    )
    views = {
        (level, limit): batcher.options(priority=level, timeout_ms=limit)
        for level in (-1, 0, 1)
        for limit in (HOUR, 2 * HOUR, 3 * HOUR)
    }
    with batcher:
        model: list[tuple[int, float, int, Any]] = []
        for n in range(3000):
            if draw.random() < 0.12:
                batch = batcher.next_batch(block=False)
                expected = sorted(model, key=lambda one: (one[0], one[2]))[:4]
                assert (batch.items if batch else []) == [one[2] for one in expected]
                model = [one for one in model if one not in expected]
                if batch:
                    batch.complete(batch.items)
                continue
            # Within one limit the deadline is the order of arrival, far apart between limits.
            level, limit = draw.choice(list(views))
            last = max(model, key=lambda one: one[:3], default=None)
            gives_way = len(model) == 10 and last is not None and last[:3] < (level, limit, n)
            try:
                future = views[level, limit].submit(n)
            except RequestShed:
                assert gives_way
                continue
            assert not gives_way
            if len(model) == 10 and last is not None:
                assert isinstance(last[3].exception(0), RequestShed)
                model.remove(last)
            model.append((level, limit, n, future))
        batcher.close(drain=False)


def test_threads_against_a_small_queue() -> None:
    answered, shed = [], []
    lock = threading.Lock()

    @batched(max_batch_size=4, max_queue=8, overflow="shed", executor="thread")
    def f(items: list[int]) -> list[int]:
        return items

    views = [f.options(priority=level) for level in (-1, 0, 1)]

    def calls(seed: int) -> None:
        draw = random.Random(seed)
        futures = []
        for n in range(300):
            try:
                futures.append((n, draw.choice(views).submit(n)))
            except RequestShed as error:
                with lock:
                    shed.append(error)
        for n, future in futures:
            error = future.exception(20)
            with lock:
                if error is None:
                    assert future.result() == n
                    answered.append(n)
                else:
                    assert isinstance(error, RequestShed)
                    shed.append(error)

    threads = [in_thread(calls, seed) for seed in range(4)]
    for thread in threads:
        thread.result(60)
    assert len(answered) + len(shed) == 1200
    stats = f.stats
    assert (stats.answered, stats.shed, stats.pending) == (len(answered), len(shed), 0)
    assert identity(stats)
