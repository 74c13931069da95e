"""What type checkers make of what watches and tests batchers.

Read by mypy and pyright, never run: `make types`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from contextvars import Context
from typing import TYPE_CHECKING, Literal

from carpool import Batcher, CurrentRequest, Timing, Trace, batched, current_batch
from carpool.testing import Gate, ManualClock, inline

if TYPE_CHECKING:
    from typing_extensions import assert_type

Outcome = Literal["answered", "failed", "cancelled", "expired", "shed", "closed", "refused"]


def hook(trace: Trace) -> None:
    assert_type(trace.outcome, Outcome)
    assert_type(trace.timing, Timing)
    assert_type(trace.timing.arrived, float)
    assert_type(trace.timing.total_ms, float | None)
    assert_type(trace.size, int | None)


@batched(on_request=hook, sample_rate=0.1, slow_ms=50, keep_contexts=True)
def lengths(texts: list[str]) -> list[int]:
    batch = current_batch()
    assert_type(batch.size, int)
    assert_type(batch.requests, tuple[CurrentRequest, ...])
    for request in batch.requests:
        assert_type(request.context, Context | None)
        assert_type(request.deadline, float | None)
        assert_type(request.left_ms, float | None)
        assert_type(request.priority, int)
        assert_type(request.cancelled, bool)
    return [len(text) for text in texts]


def ask(batcher: Batcher[str, int]) -> None:
    assert_type(lengths("a"), int)
    assert_type(lengths.submit("a").timing, Timing | None)
    assert_type(lengths.explain(), str)
    assert_type(lengths.stats.slot_use, float | None)
    assert_type(lengths.stats.padding, float | None)
    assert_type(batcher.explain(), str)
    lengths.configure(slow_ms=None, sample_rate=1)
    for batch in batcher:
        assert_type(batch.requests, tuple[CurrentRequest, ...])


async def control() -> None:
    with ManualClock() as clock, Gate() as gate, inline():
        assert_type(clock, ManualClock)
        assert_type(clock.now, float)
        clock.advance(ms=1.5)
        clock.advance(seconds=2)
        assert_type(gate, Gate)
        gate.entered(2)
        await gate.aentered()
        await gate.ahold()
