"""The ideal batcher, as a discrete-event simulation: late sealing, no time lost anywhere.

A batch is sealed when a slot is free and the batch is due: full, or its oldest request has waited
`wait` since it arrived. It takes what has arrived by then, oldest first, at most `max_batch_size`. Sealing,
handing over and answering take no time; only the handler does. No batcher that keeps to these rules can
answer a given request of a given trace sooner, as long as its handler is no faster: this is the floor for
latency. (`test_ideal.py` checks it against a reference that steps through time.)
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Service = Callable[[int, int], float]
"""Run time of a batch from its number (counted from 0) and its size, in the unit of the arrivals."""


@dataclass(frozen=True)
class Ride:
    """One batch of the simulation: requests `first` to `first + size - 1`."""

    first: int
    size: int
    sealed: float
    ended: float


def due(arrivals: Sequence[float], first: int, max_batch_size: int, wait: float) -> float:
    """When the batch that starts with request `first` may leave, if a slot is free."""
    oldest_waited = arrivals[first] + wait
    last = first + max_batch_size - 1
    return min(oldest_waited, arrivals[last]) if last < len(arrivals) else oldest_waited


def simulate(
    arrivals: Sequence[float], service: Service, *, max_batch_size: int, wait: float, slots: int = 1
) -> list[Ride]:
    """The batches of the ideal batcher, in the order in which they are sealed.

    `arrivals` rise; `wait` and what `service` returns are in their unit.
    """
    if any(later < earlier for earlier, later in itertools.pairwise(arrivals)):
        raise ValueError("arrivals must rise: sort them by time first")
    free = [float("-inf")] * slots
    rides: list[Ride] = []
    first = 0
    while first < len(arrivals):
        sealed = max(heapq.heappop(free), due(arrivals, first, max_batch_size, wait))
        size = min(max_batch_size, bisect_right(arrivals, sealed, lo=first) - first)
        ended = sealed + service(len(rides), size)
        heapq.heappush(free, ended)
        rides.append(Ride(first, size, sealed, ended))
        first += size
    return rides


def latencies(arrivals: Sequence[float], rides: Sequence[Ride]) -> list[float]:
    """From arrival to answer, per request."""
    return [
        ride.ended - arrivals[request]
        for ride in rides
        for request in range(ride.first, ride.first + ride.size)
    ]


def mean_size(rides: Sequence[Ride]) -> float:
    """Requests per batch."""
    return sum(ride.size for ride in rides) / len(rides) if rides else float("nan")
