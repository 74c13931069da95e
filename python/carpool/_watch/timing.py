"""When a request went through the stations of its way, and the hook that is told of it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from . import events

__all__ = ["Outcome", "Timing", "Trace"]

Outcome = Literal["answered", "failed", "cancelled", "expired", "shed", "closed", "refused"]


@dataclass(frozen=True)
class Timing:
    """When a request went through the stations of its way: seconds on the clock of `time.monotonic()`.

    None where it never came: one that was refused, or ended while it was pending, was never sealed.
    """

    #: It was submitted.
    arrived: float
    #: Its batch was closed.
    sealed: float | None = None
    #: The handler was called.
    started: float | None = None
    #: The answers of the batch, or its own, were there.
    finished: float | None = None
    #: Its caller was told.
    delivered: float | None = None

    @property
    def wait_ms(self) -> float | None:
        """Milliseconds from submit to seal."""
        return _between(self.arrived, self.sealed)

    @property
    def run_ms(self) -> float | None:
        """Milliseconds from the call of the handler to its answers."""
        return _between(self.started, self.finished)

    @property
    def total_ms(self) -> float | None:
        """Milliseconds from submit to the answer."""
        return _between(self.arrived, self.delivered)


@dataclass(frozen=True)
class Trace:
    """What became of one request; what `on_request` is called with."""

    #: The name of its batcher.
    name: str
    #: "answered", or "failed" by the handler; "cancelled": its caller gave up, before it was in a batch or while it
    #: was; "expired": its time was over before it was in one; "shed": it gave way at a full queue; "closed": it was
    #: pending when the batcher was closed without a drain, or died; "refused": it was not let in.
    outcome: Outcome
    #: When it went through the stations of its way.
    timing: Timing
    #: How many requests its batch held; None for one that was in none.
    size: int | None = None
    #: Why its batch left; None for one that was in none.
    reason: str | None = None


def _between(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else (end - begin) * 1e3


def timing_of(moments: tuple[float, ...]) -> Timing:
    """Of the core's moments, in which what never came is no number."""
    return Timing(*[None if math.isnan(one) else one for one in moments])  # type: ignore[arg-type]


def tell(
    hook: Callable[[Trace], object],
    name: str,
    outcome: Outcome,
    batch: tuple[int, str] | None,
    moments: tuple[float, ...],
) -> bool:
    """Calls the hook; whatever it raises is logged and hurts nobody. True after an interrupt in the main thread,
    which is meant for the user's code."""
    try:
        size, reason = (None, None) if batch is None else batch
        hook(Trace(name, outcome, timing_of(moments), size, reason))
    except BaseException as error:
        events.hook_failed(name, error)
        in_main_thread = threading.current_thread() is threading.main_thread()
        return isinstance(error, KeyboardInterrupt) and in_main_thread
    return False
