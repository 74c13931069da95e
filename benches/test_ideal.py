"""The simulation against cases worked out by hand and against a reference that steps through time."""

from __future__ import annotations

import random

import pytest

from ideal import Ride, latencies, mean_size, simulate


def ten(number: int, size: int) -> float:
    return 10


def stepped(
    arrivals: list[int], service: list[int], max_batch_size: int, wait: int, slots: int
) -> list[Ride]:
    """The rules read literally, one tick at a time; shares nothing with `simulate`."""
    pending: list[int] = []
    running: list[int] = []
    rides: list[Ride] = []
    served = coming = now = 0
    while served < len(arrivals):
        running = [end for end in running if end > now]
        while coming < len(arrivals) and arrivals[coming] <= now:
            pending.append(arrivals[coming])
            coming += 1
        while len(running) < slots and pending:
            if len(pending) < max_batch_size and now - pending[0] < wait:
                break
            size = min(len(pending), max_batch_size)
            end = now + service[len(rides)]
            rides.append(Ride(served, size, now, end))
            running.append(end)
            served += size
            del pending[:size]
        now += 1
    return rides


def test_lone_request_leaves_at_once_without_wait() -> None:
    assert simulate([5], ten, max_batch_size=4, wait=0) == [Ride(0, 1, 5, 15)]


def test_lone_request_leaves_when_it_has_waited() -> None:
    assert simulate([5], ten, max_batch_size=4, wait=2) == [Ride(0, 1, 7, 17)]


def test_full_batch_leaves_at_once() -> None:
    assert simulate([0, 1, 2, 3], ten, max_batch_size=3, wait=50) == [
        Ride(0, 3, 2, 12),
        Ride(3, 1, 53, 63),
    ]


def test_batch_fills_while_the_slot_is_busy() -> None:
    # The second batch is due at 3 but sealed at 10, with all that came in between.
    rides = simulate([0, 1, 2, 9, 11], ten, max_batch_size=8, wait=2)
    assert rides == [Ride(0, 3, 2, 12), Ride(3, 2, 12, 22)]


def test_wait_runs_from_arrival_also_behind_a_busy_slot() -> None:
    rides = simulate([0, 9], ten, max_batch_size=8, wait=4)
    assert rides == [Ride(0, 1, 4, 14), Ride(1, 1, 14, 24)]
    assert latencies([0, 9], rides) == [14, 15]
    assert mean_size(rides) == 1


def test_second_slot_takes_the_second_batch() -> None:
    rides = simulate([0, 0, 0], ten, max_batch_size=2, wait=0, slots=2)
    assert rides == [Ride(0, 2, 0, 10), Ride(2, 1, 0, 10)]


def test_unsorted_arrivals_are_refused() -> None:
    with pytest.raises(ValueError, match="arrivals must rise"):
        simulate([2, 1], ten, max_batch_size=2, wait=0)


@pytest.mark.parametrize("seed", range(200))
def test_agrees_with_the_stepped_reference(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(1, 60)
    arrivals = sorted(rng.randint(0, rng.choice([20, 100, 400])) for _ in range(count))
    service = [rng.randint(1, 15) for _ in range(count)]
    max_batch_size, wait, slots = rng.randint(1, 8), rng.choice([0, 1, 3, 20]), rng.randint(1, 3)
    rides = simulate(
        arrivals,
        lambda number, size: service[number],
        max_batch_size=max_batch_size,
        wait=wait,
        slots=slots,
    )
    assert rides == stepped(arrivals, service, max_batch_size, wait, slots)
