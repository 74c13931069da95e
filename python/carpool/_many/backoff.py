"""When a failed item is tried again: exponential backoff with jitter, as a pure function, and the clock it needs."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from carpool._exceptions import BatcherClosed, RequestTooLarge, SetupError, WouldDeadlock

__all__ = ["PACE", "Pace", "backoff", "is_worth_another"]

#: The longest wait between two tries, in seconds.
LONGEST_S = 30.0

#: How often the main thread looks for signals while it waits: one that comes between the look and the sleep would
#: be noticed only when the wait ends.
SIGNALS_S = 0.05

#: What another try cannot change.
_FINAL = (BatcherClosed, RequestTooLarge, SetupError, WouldDeadlock)


def backoff(tries: int, base_s: float, chance: float) -> float:
    """Seconds to wait after `tries` failures (from 1), `chance` being from 0 to 1.

    Doubles with each try, up to `LONGEST_S`; the later half of it is left to chance, so that what failed
    together does not come back together ("equal jitter", Brooker, AWS Architecture Blog, 2015).
    """
    # 2.0 to a large power would overflow; the limit is reached long before.
    whole = min(base_s * 2.0 ** min(tries - 1, 60), LONGEST_S)
    return whole / 2 + whole / 2 * chance


def is_worth_another(error: BaseException) -> bool:
    """Whether the same item may succeed later."""
    return isinstance(error, Exception) and not isinstance(error, _FINAL)


class Pace:
    """Time and chance as maps see them; a test brings its own."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        return time.monotonic()

    def chance(self) -> float:
        """From 0 to 1."""
        return random.random()

    def get(self, done: queue.SimpleQueue[Any], until: float | None) -> Any:
        """The next of a queue; None when it is `until` before one comes, or a little earlier."""
        if until is None and threading.current_thread() is not threading.main_thread():
            return done.get()
        wait = SIGNALS_S if until is None else min(max(0.0, until - self.now()), SIGNALS_S)
        try:
            return done.get(timeout=wait)
        except queue.Empty:
            return None

    def call_at(self, event_loop: Any, until: float, callback: Callable[[], None]) -> Any:
        """Has the loop call back at `until`; what this returns has `cancel()`."""
        return event_loop.call_later(max(0.0, until - self.now()), callback)


PACE = Pace()
