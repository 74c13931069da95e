"""A frozen snapshot of a batcher's figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

__all__ = ["Histogram", "Stats"]

#: Of a `Stats`: what only ever grows, by kind.
_COUNTED = (
    *("submitted", "answered", "failed", "expired", "cancelled", "rejected", "shed", "batches"),
    *("open_ms", "slow", "useful", "given", "replayed", "eager"),
)
_DISTRIBUTED = ("batch_sizes", "wait_ms", "run_ms", "inside")


@dataclass(frozen=True)
class Histogram:
    """How a figure was distributed. Percentiles are within 1/16 of the value; the rest is exact."""

    count: int = 0
    mean: float = 0.0
    min: float = 0.0
    max: float = 0.0
    #: (value, count) pairs by rising value; each value stands for those within 1/16 of it.
    buckets: tuple[tuple[float, int], ...] = field(default=(), repr=False)

    def percentile(self, p: float, /) -> float:
        """The value that `p` per cent (0 to 100) of all do not exceed; 0.0 without any.

        Nearest rank. Raises ValueError for a `p` out of range.
        """
        if not 0 <= p <= 100:
            raise ValueError(f"a percentile is from 0 to 100, not {p!r}")
        rank = min(max(math.ceil(p / 100 * self.count), 1), self.count)
        if rank == self.count:
            return self.max
        if rank == 1:
            return self.min
        seen = 0
        for value, count in self.buckets:
            seen += count
            if seen >= rank:
                return min(max(value, self.min), self.max)
        return 0.0

    def since(self, earlier: Histogram) -> Histogram:
        """What was added since an earlier picture of the same; also `min` and `max` may be off by 1/16 then.

        Raises ValueError where the earlier one is none.
        """
        counts = dict(self.buckets)
        for value, count in earlier.buckets:
            counts[value] = counts.get(value, 0) - count
        if min(counts.values(), default=0) < 0:
            raise ValueError(
                "since must be an earlier picture of the same figure; this one counts more"
            )
        buckets = tuple((value, count) for value, count in counts.items() if count)
        if not earlier.count or not buckets:
            return self if buckets else Histogram()
        count = self.count - earlier.count
        return Histogram(
            count=count,
            mean=max(0.0, self.mean * self.count - earlier.mean * earlier.count) / count,
            min=self.min if self.min < earlier.min else max(self.min, buckets[0][0]),
            max=self.max if self.max > earlier.max else min(self.max, buckets[-1][0]),
            buckets=buckets,
        )

    @property
    def p50(self) -> float:
        """The median."""
        return self.percentile(50)

    @property
    def p90(self) -> float:
        """The 90th percentile."""
        return self.percentile(90)

    @property
    def p99(self) -> float:
        """The 99th percentile."""
        return self.percentile(99)


@dataclass(frozen=True)
class Stats:
    """All figures of one batcher at one moment; times in milliseconds.

    ``submitted == answered + failed + cancelled + rejected + pending + in_flight`` always.
    """

    #: Every request so far.
    submitted: int = 0
    #: Ended with a result.
    answered: int = 0
    #: Ended with an error.
    failed: int = 0
    #: Of those that failed: their time was over before they were in a batch.
    expired: int = 0
    #: Given up by their callers.
    cancelled: int = 0
    #: Refused at the call: queue full, or closed.
    rejected: int = 0
    #: Gave way at a full queue: of those that were pending (counted in `failed`) and of newcomers (in `rejected`).
    shed: int = 0
    #: In the queue, waiting for a batch; those that wait for room are not in it yet.
    pending: int = 0
    #: In a batch, unanswered.
    in_flight: int = 0
    #: Batches sealed.
    batches: int = 0
    #: Batches by why they left: full, wait, cost, idle, gather, flush, close.
    reasons: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    #: Requests per batch.
    batch_sizes: Histogram = Histogram()
    #: From submit to seal, per request.
    wait_ms: Histogram = Histogram()
    #: From seal to the last answer, per batch.
    run_ms: Histogram = Histogram()
    #: How long the oldest pending request has waited; 0.0 without one. Not compared by `==`.
    oldest_ms: float = field(default=0.0, compare=False)
    #: How many requests were inside at once, waiting or in flight, as seen whenever some were answered; but not of
    #: a blocking call that found nobody else and ran its handler at once.
    inside: Histogram = Histogram()
    #: How many batches may run at once; None for a loop of one's own.
    slots: int | None = None
    #: How long this batcher has been there in this process. Not compared by `==`.
    open_ms: float = field(default=0.0, compare=False)
    #: Batches that took longer than `slow_ms`.
    slow: int = 0
    #: Of what handlers were given, how much was of use, and how much it was in all, where something is padded: in
    #: items, or in elements of rows.
    useful: int = 0
    given: int = 0
    #: With `graphs=True`: batches for which a CUDA graph was replayed.
    replayed: int = 0
    #: With `graphs=True`: batches that ran as they are, because no graph fits them.
    eager: int = 0

    @property
    def peak(self) -> int:
        """Most requests that were inside at once."""
        return max(round(self.inside.max), min(self.batches, 1))

    @property
    def padding(self) -> float | None:
        """What share of what handlers were given was padding, from 0 to 1; None where nothing is padded."""
        return 1 - self.useful / self.given if self.given else None

    @property
    def busy_ms(self) -> float:
        """How long batches have run, added up over all slots; those in flight count once they have ended."""
        return self.run_ms.mean * self.run_ms.count

    @property
    def slot_use(self) -> float | None:
        """What share of the slots' time batches ran in, from 0 to 1; None for a loop of one's own."""
        if not self.slots or not self.open_ms:
            return None
        return min(1.0, self.busy_ms / (self.slots * self.open_ms))

    def since(self, earlier: Stats) -> Stats:
        """What came after an earlier picture of the same batcher.

        What is counted, added up or distributed is that of the time in between; what is of a moment (`pending`,
        `in_flight`, `oldest_ms`, `slots`) is as in this one, so that the sum above need not hold.

        Raises:
            TypeError: it is no `Stats`.
            ValueError: it is none of this batcher, or a later one.
        """
        if not isinstance(earlier, Stats):
            raise TypeError(f"since must be a Stats, as f.stats gives it, not {earlier!r}")
        both = [(name, getattr(self, name), getattr(earlier, name)) for name in _COUNTED]
        reasons = {why: count - earlier.reasons.get(why, 0) for why, count in self.reasons.items()}
        if any(now < then for _, now, then in both) or min(reasons.values(), default=0) < 0:
            raise ValueError(
                "since must be an earlier picture of the same batcher; this one counts more"
            )
        return replace(
            self,
            **{name: now - then for name, now, then in both},
            reasons=MappingProxyType(reasons),
            **{name: getattr(self, name).since(getattr(earlier, name)) for name in _DISTRIBUTED},
        )

    @classmethod
    def from_core(cls, raw: Mapping[str, Any]) -> Stats:
        """Of the core's raw figures: counts, and histograms of nanoseconds."""
        raw = dict(raw)
        useful, given = raw.pop("padding")
        inside = raw.pop("inside")
        return cls(
            reasons=MappingProxyType(dict(raw.pop("reasons"))),
            batch_sizes=_histogram(raw.pop("batch_sizes"), 1),
            wait_ms=_histogram(raw.pop("wait_ns"), 1e6),
            run_ms=_histogram(raw.pop("run_ns"), 1e6),
            oldest_ms=raw.pop("oldest_ns") / 1e6,
            open_ms=raw.pop("open_ns") / 1e6,
            inside=_histogram(inside, 1),
            useful=useful,
            given=given,
            **raw,
        )


def _histogram(raw: tuple[int, float, int, int, list[tuple[float, int]]], unit: float) -> Histogram:
    count, mean, least, most, buckets = raw
    return Histogram(
        count=count,
        mean=mean / unit,
        min=least / unit,
        max=most / unit,
        buckets=tuple((value / unit, n) for value, n in buckets),
    )
