"""`timeout_ms`: how long a request may take to get into a batch, per batcher and per call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, DeadlineExceeded, QueueFull, batched
from gates import Gate, batched_by, identity, in_thread, until

HOUR = 3_600_000


def test_it_is_over_while_the_slot_is_busy(gate: Gate, way: str, run: Callable[..., Any]) -> None:
    async def main() -> None:
        f = batched_by(way, gate, timeout_ms=20)
        first = asyncio.ensure_future(f.options(timeout_ms=None).acall("first"))
        await gate.aentered()
        late = [f.acall("awaited"), f.options(priority=-1).acall("urgent"), f.submit("future")]
        unlimited = asyncio.ensure_future(f.options(timeout_ms=None).acall("unlimited"))
        longer = asyncio.ensure_future(f.options(timeout_ms=HOUR).acall("longer"))
        for one in late:
            with pytest.raises(DeadlineExceeded) as caught:
                await one
            assert isinstance(caught.value, TimeoutError)
        assert not first.done()
        assert f.stats.pending == 2
        gate.open()
        ends = await asyncio.gather(first, unlimited, longer)
        assert ends == [("answer", item) for item in ("first", "unlimited", "longer")]
        assert gate.items == ["first", "unlimited", "longer"]
        stats = f.stats
        assert (stats.failed, stats.answered) == (3, 3)
        assert identity(stats)

    run(main())


@pytest.mark.parametrize("way", ["thread", "caller"])
def test_a_blocking_call_has_it_too(gate: Gate, way: str) -> None:
    f = batched_by(way, gate, timeout_ms=20)
    first = in_thread(f.options(timeout_ms=None), "first")
    gate.entered()
    with pytest.raises(DeadlineExceeded):
        f("late")
    gate.open()
    assert first.result(20) == ("answer", "first")
    assert gate.items == ["first"]


@pytest.mark.parametrize("way", ["thread", "caller"])
def test_the_time_for_room_in_the_queue_counts(gate: Gate, way: str) -> None:
    f = batched_by(way, gate, timeout_ms=20, max_queue=1, overflow="wait")
    patient = f.options(timeout_ms=None)
    first = in_thread(patient, "first")
    gate.entered()
    stays = patient.submit("stays")
    with pytest.raises(DeadlineExceeded):
        f("blocked")
    with pytest.raises(DeadlineExceeded):
        f.submit("submitted").result(20)

    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            await f.acall("awaited")

    asyncio.run(main())
    gate.open()
    assert first.result(20) == ("answer", "first")
    assert stays.result(20) == ("answer", "stays")
    assert gate.items == ["first", "stays"]


def test_the_place_in_the_queue_is_free_again(gate: Gate) -> None:
    f = batched(gate.handler, max_queue=1)
    first = f.submit("first")
    gate.entered()
    for n in range(3):
        with pytest.raises(DeadlineExceeded):
            f.options(timeout_ms=1)(n)
    stays = f.submit("stays")
    with pytest.raises(QueueFull):
        f.options(timeout_ms=HOUR)("too many")
    gate.open()
    assert (first.result(20), stays.result(20)) == (("answer", "first"), ("answer", "stays"))
    assert gate.items == ["first", "stays"]


def test_no_time_at_all(gate: Gate, way: str, run: Callable[..., Any]) -> None:
    async def main() -> None:
        f = batched_by(way, gate)
        gate.open()
        with pytest.raises(DeadlineExceeded):
            await f.options(timeout_ms=0).acall("late")
        assert await f.acall("plain") == ("answer", "plain")
        assert gate.items == ["plain"]

    run(main())


def test_in_time_nothing_changes(gate: Gate, way: str, run: Callable[..., Any]) -> None:
    async def main() -> None:
        f = batched_by(way, gate, timeout_ms=HOUR)
        gate.open()
        assert await asyncio.gather(*(f.acall(n) for n in range(50))) == [
            ("answer", n) for n in range(50)
        ]
        assert f.stats.failed == 0

    run(main())


def test_a_batcher_s_loop_never_sees_it() -> None:
    with Batcher[str, str](timeout_ms=5) as batcher:
        late = batcher.submit("late")
        kept = batcher.options(timeout_ms=None).submit("kept")
        assert isinstance(late.exception(20), DeadlineExceeded)
        batch = batcher.next_batch(block=False)
        assert batch is not None
        assert batch.items == ["kept"]
        batch.complete(["answer"])
        assert kept.result(0) == "answer"


def test_a_request_held_for_company_expires_as_well(gate: Gate) -> None:
    f = batched(gate.handler, wait_ms=HOUR)
    with pytest.raises(DeadlineExceeded):
        f.options(timeout_ms=1)("alone")
    until(lambda: f.stats.pending == 0)
    assert gate.items == []


def plain(items: list[Any]) -> list[Any]:
    return items


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        (-1, ValueError),
        (0, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        ("1", TypeError),
        (True, TypeError),
        ([], TypeError),
    ],
)
def test_wrong_timeouts(timeout: Any, error: type[Exception]) -> None:
    for make in (
        lambda: batched(plain, timeout_ms=timeout),
        lambda: Batcher(timeout_ms=timeout),
    ):
        with pytest.raises(error, match="timeout_ms") as caught:
            make()
        assert repr(timeout) in str(caught.value)
    if timeout != 0 or timeout is False:
        for made in (batched(plain), Batcher[Any, Any]()):
            with pytest.raises(error, match="timeout_ms"):
                made.options(timeout_ms=timeout)


@pytest.mark.parametrize("timeout", [1, 4.9, 5])
def test_a_lone_request_must_be_able_to_leave_in_time(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"timeout_ms .*wait_ms \(5\)"):
        batched(plain, wait_ms=5, timeout_ms=timeout)
    batched(plain, wait_ms=5, timeout_ms=5.1)
