"""`refuse_late`: who cannot be answered in time any more, by what batches have taken, is refused at once, and told so.

The reckoning is tested in the core, in virtual time. Here a batch takes what a gate lets it take.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from carpool import Batcher, DeadlineExceeded, TooLate, batched
from gates import LIMIT, Gate, let_pass


def slow(items: list[Any]) -> list[Any]:
    """Fifty milliseconds."""
    let_pass(0.05, time.monotonic())
    return items


def taught(gate: Gate, **options: Any) -> Any:
    """A function whose batches are known to take fifty milliseconds, and one of which is in flight."""

    def handler(items: list[Any]) -> list[Any]:
        return gate.run(items) if "gate" in items else slow(items)

    f = batched(handler, max_batch_size=2, refuse_late=True, **options)
    for number in range(3):
        assert f(number) == number
    held = f.submit("gate")
    gate.entered()
    return f, held


def test_who_would_be_late_is_refused_at_once() -> None:
    gate = Gate(lambda item: item)
    f, held = taught(gate)
    with pytest.raises(TooLate, match=r"about \d+\.\d ms.*refuse_late=True") as caught:
        f.options(timeout_ms=20)("late")
    assert isinstance(caught.value, DeadlineExceeded)
    with pytest.raises(TooLate):
        f.options(timeout_ms=20).submit("late")

    async def main() -> None:
        with pytest.raises(TooLate):
            f.options(timeout_ms=20).acall("late")

    asyncio.run(main())
    in_time = f.options(timeout_ms=60_000).submit("in time")
    forever = f.submit("no limit")
    gate.open()
    assert [one.result(LIMIT) for one in (held, in_time, forever)] == [
        "gate",
        "in time",
        "no limit",
    ]
    assert f.stats.rejected == 3
    f.close()


def test_of_a_list_those_are_refused_that_would_be_late() -> None:
    gate = Gate(lambda item: item)
    f, held = taught(gate)
    late = f.options(timeout_ms=20)
    outcomes = list(late.map(range(6), return_exceptions=True))
    assert [type(one) for one in outcomes] == [TooLate] * 6
    assert len({id(one) for one in outcomes}) == 6
    with pytest.raises(TooLate, match="refuse_late=True"):
        list(late.starmap([(1,), (2,)]))

    async def main() -> list[Any]:
        return [one async for one in late.amap(range(3), return_exceptions=True)]

    assert [type(one) for one in asyncio.run(main())] == [TooLate] * 3
    assert f.stats.rejected == 6 + 2 + 3
    gate.open()
    assert held.result(LIMIT) == "gate"
    # Nobody is before these: two go at once, two after them, and then it would be too late.
    some = list(f.options(timeout_ms=120).map(range(8), window=16, return_exceptions=True))
    assert some[:2] == [0, 1]
    assert type(some[-1]) is TooLate
    f.close()


def test_without_it_nobody_is_refused() -> None:
    gate = Gate(lambda item: item)
    f = batched(gate.handler, timeout_ms=60_000)
    first = f.submit(1)
    gate.entered()
    second = f.options(timeout_ms=20_000).submit(2)
    gate.open()
    assert (first.result(LIMIT), second.result(LIMIT)) == (1, 2)
    f.close()


def test_an_idle_batcher_tries() -> None:
    f = batched(slow, timeout_ms=10, refuse_late=True)
    assert [f(number) for number in range(4)] == [0, 1, 2, 3]
    f.close()


def test_a_custom_loop_refuses_too() -> None:
    batcher: Batcher[int, int] = Batcher(refuse_late=True, max_batch_size=1)
    with batcher:
        for number in range(3):
            future = batcher.submit(number)
            batch = batcher.next_batch()
            assert batch is not None
            batch.complete(slow(batch.items))
            assert future.result() == number
        first = batcher.submit(1)
        batch = batcher.next_batch()
        assert batch is not None
        with pytest.raises(TooLate):
            batcher.options(timeout_ms=20).submit(2)
        batch.complete(batch.items)
        assert first.result() == 1


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_it_is_a_switch(value: Any) -> None:
    for make in (lambda: batched(slow, refuse_late=value), lambda: Batcher(refuse_late=value)):
        with pytest.raises(TypeError, match="refuse_late"):
            make()
