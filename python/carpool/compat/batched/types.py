"""The types of the front door `batched`: figures, caches, strategies, and its one error."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

import carpool

if TYPE_CHECKING:
    from carpool import Stats

__all__ = [
    "AsyncCache",
    "BatchOutputLengthError",
    "BatchProcessorStats",
    "CacheStats",
    "Feature",
    "PriorityStrategy",
]

T_contra = TypeVar("T_contra", contravariant=True)
U = TypeVar("U")

#: The values of one feature, a row per item: an array, a tensor, or a list of either.
Feature = Any


class BatchOutputLengthError(carpool.BatchLengthError, AssertionError):
    """The handler's output has not one row per item. An AssertionError too, which `batched` raises."""


class PriorityStrategy(int, enum.Enum):
    """Which items an `aio` processor takes first."""

    #: In order of arrival.
    NONE = 1
    #: Calls of more than `small_batch_threshold` items after smaller ones, their items by falling length.
    LENGTH = 2
    #: Calls of more than `small_batch_threshold` items after smaller ones.
    PRIORITY = 3


@dataclass
class CacheStats:
    """Figures of a cache; times in seconds."""

    gets: int = 0
    hits: int = 0
    sets: int = 0
    total_get_time: float = 0.0
    total_hit_time: float = 0.0
    total_set_time: float = 0.0

    @property
    def avg_get_time(self) -> float:
        """Seconds per look-up; 0.0 before the first."""
        return self.total_get_time / self.gets if self.gets else 0.0

    @property
    def avg_hit_time(self) -> float:
        """Seconds per look-up that found something; 0.0 before the first."""
        return self.total_hit_time / self.hits if self.hits else 0.0

    @property
    def avg_set_time(self) -> float:
        """Seconds per entry made; 0.0 before the first."""
        return self.total_set_time / self.sets if self.sets else 0.0

    def update_get(self, *, hit: bool, time_taken: float) -> None:
        """Counts a look-up of `time_taken` seconds."""
        self.gets += 1
        self.total_get_time += time_taken
        if hit:
            self.hits += 1
            self.total_hit_time += time_taken

    def update_set(self, *, time_taken: float) -> None:
        """Counts an entry of `time_taken` seconds."""
        self.sets += 1
        self.total_set_time += time_taken


@dataclass
class BatchProcessorStats:
    """Figures of a processor at one moment."""

    #: Items that wait for a batch.
    queue_size: int = 0
    #: Items whose batch has ended, with a result or an error.
    total_processed: int = 0
    total_batches: int = 0
    avg_batch_size: float = 0.0
    #: Seconds per batch.
    avg_processing_time: float = 0.0
    cache_stats: CacheStats | None = None

    @classmethod
    def between(
        cls, then: Stats | None, now: Stats, cache_stats: CacheStats | None = None
    ) -> BatchProcessorStats:
        """What happened to a batcher from one snapshot (or its beginning) to another."""
        processed = now.answered + now.failed
        batches = now.run_ms.count
        spent_ms = now.run_ms.mean * batches
        if then is not None:
            processed -= then.answered + then.failed
            batches -= then.run_ms.count
            spent_ms -= then.run_ms.mean * then.run_ms.count
        return cls(
            queue_size=now.pending,
            total_processed=processed,
            total_batches=batches,
            avg_batch_size=processed / batches if batches else 0.0,
            avg_processing_time=spent_ms / batches / 1000 if batches else 0.0,
            cache_stats=cache_stats,
        )


@runtime_checkable
class AsyncCache(Protocol, Generic[T_contra, U]):
    """What `cache=` takes: results by item. None stands for "not there"."""

    async def get(self, key: T_contra) -> U | None:
        """The result of an item, or None."""
        ...

    async def set(self, key: T_contra, value: U) -> None:
        """Keeps the result of an item."""
        ...

    async def clear(self) -> None:
        """Forgets all."""
        ...

    def stats(self) -> CacheStats:
        """Its figures."""
        ...
