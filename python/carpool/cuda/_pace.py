"""When to stage the next batch: so late that as many as possible are in it, and in time for the device.

Pure numbers; time is an argument.
"""

from __future__ import annotations

import statistics
from collections import deque

__all__ = ["Pace"]

#: How many batches are remembered.
MEMORY = 9
#: Staging begins so many times its usual duration before the device is expected to be free.
MARGIN = 2.0


class Pace:
    """Learns how long staging and running take; medians of the last batches, in seconds."""

    def __init__(self) -> None:
        self._staging: deque[float] = deque(maxlen=MEMORY)
        self._running: deque[float] = deque(maxlen=MEMORY)
        #: Since when the device has been at its present batch; None while it has none.
        self._since: float | None = None

    def staged(self, seconds: float) -> None:
        """A batch has been collated and put on its way."""
        self._staging.append(seconds)

    def begun(self, now: float) -> None:
        """The device has got a batch; it begins when it is through with those before."""
        if self._since is None:
            self._since = now

    def ended(self, now: float, others: bool) -> None:
        """The device is through with a batch; it goes on if there are others."""
        if self._since is not None:
            self._running.append(now - self._since)
        self._since = now if others else None

    def hold(self, now: float) -> float:
        """How many seconds to wait before the next batch is sealed; 0 where nothing is known yet."""
        if self._since is None or not self._running or not self._staging:
            return 0.0
        end = self._since + statistics.median(self._running)
        return max(0.0, end - MARGIN * statistics.median(self._staging) - now)
