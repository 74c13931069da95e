"""The figures as the rules look at them, and from where on something is worth a word."""

from __future__ import annotations

from dataclasses import dataclass

from carpool._options import Options
from carpool._watch.stats import Stats

#: From which share on a reason is worth a word.
WORTH = 0.15
#: From which share of the largest batch on batches count as well filled.
FILLED = 0.75
#: From which share of their time on slots count as busy.
BUSY = 0.8
#: From which share on refused, expired, failed or forsaken requests and padding are worth a word.
NOTED = 0.01
MUCH_PADDING = 0.2
#: How many times the usual run the oldest may have waited before that is strange, and how long at least, in ms.
STUCK = 20
STUCK_MS = 1000.0

WHY = {
    "full": "they were full",
    "wait": "`wait_ms` was over",
    "cost": "the next request would have been more than `max_batch_cost`",
    "idle": "a slot was free and nothing held them (`wait_ms=0`)",
    "gather": "the callers that were expected back had come, or their time was over (`gather`)",
    "flush": "`flush()` sent them",
    "close": "the batcher was being closed",
    "target": "`target_ms` allowed to hold them no longer, or nobody else was expected",
}


#: Reasons of batches that had room left for more.
NOT_FULL = ("wait", "idle", "gather", "target")


@dataclass(frozen=True)
class Facts:
    """What the rules look at."""

    stats: Stats
    options: Options
    #: Who runs the handler; None for a loop of one's own.
    executor: str | None

    def share_of(self, reason: str) -> float:
        """What share of the batches left for a reason."""
        return self.stats.reasons.get(reason, 0) / max(1, self.stats.batches)

    @property
    def lead(self) -> str:
        """Why most of them left."""
        return max(WHY, key=self.share_of)

    @property
    def most(self) -> int:
        """The largest batch that there may be."""
        return self.options.max_batch_size

    @property
    def fill(self) -> float:
        """How full batches are, from 0 to 1."""
        return self.stats.batch_sizes.mean / self.most

    @property
    def is_small(self) -> bool:
        """Batches could hold many more."""
        return self.fill < FILLED and self.stats.batch_sizes.mean + 1 < self.most

    @property
    def few_callers(self) -> bool:
        """There were never enough requests for a full batch."""
        return self.stats.peak < self.most

    @property
    def is_busy(self) -> bool:
        """The slots hardly rest."""
        return self.stats.slot_use is not None and self.stats.slot_use >= BUSY

    def of_all(self, count: int) -> float:
        """A number of requests as a share of all."""
        return count / max(1, self.stats.submitted)
