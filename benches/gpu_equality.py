"""The first part of `gpu.py`: are answers, bit by bit, those of synchronous copies, whatever is late?

The way to the device is the real one, with pauses of random length put on each of its streams, so that copies,
computing and copies back overlap differently in every batch. A place that were written too soon, or an answer read
too soon, shows as a wrong number: every item is a different one.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch

from carpool import batched
from carpool._handler import device as way
from carpool.collate import Pad, Stack

__all__ = ["differing", "differing_from_device"]

#: The longest pause, in cycles of the card's clock: a tenth of a millisecond.
LONGEST = 200_000
#: How often there is one.
SHARE = 0.05
#: Items are drawn from so many.
KINDS = 4096
OPEN = 1024


def pause(chance: random.Random) -> None:
    """Now and then, holds the current stream up; on a CPU nothing runs beside anything."""
    if torch.cuda.is_available() and chance.random() < SHARE:
        torch.cuda._sleep(chance.randrange(1, LONGEST))


class Late:
    """The lanes of a device, with pauses before copies."""

    def __init__(self, lanes: Any) -> None:
        self._lanes = lanes
        self._chance = random.Random(2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lanes, name)

    def upload(self, staged: Any) -> Any:
        self._hold("up")
        return self._lanes.upload(staged)

    def download(self, tensor: Any, place: Any) -> Any:
        self._hold("down")
        return self._lanes.download(tensor, place)

    def _hold(self, lane: str) -> None:
        streams = getattr(self._lanes, "_streams", None)
        if streams is not None:
            with torch.cuda.stream(streams[lane]):
                pause(self._chance)


class Delays:
    """Inside, batches go over lanes that are late."""

    def __enter__(self) -> None:
        self._before = before = vars(way)["lanes_of"]
        vars(way)["lanes_of"] = lambda device: Late(before(device))

    def __exit__(self, *error: object) -> None:
        vars(way)["lanes_of"] = self._before


def differing(device: str, batches: int) -> tuple[int, int]:
    """How many answers differ, and of how many batches: items of main memory, of many lengths."""
    chance = random.Random(1)
    rows = [torch.randn(chance.randrange(1, 300)) for _ in range(KINDS)]
    expected = [work(row.to(device)).cpu() for row in rows]

    @batched(max_batch_size=4, collate=Pad(0, unpad=True), device=device, max_queue=2 * OPEN)
    def handler(batch: Any) -> Any:
        pause(chance)
        return work(batch)

    def sent() -> Iterator[tuple[Any, Any]]:
        while True:
            at = chance.randrange(KINDS)
            yield handler.submit(rows[at]), expected[at]

    with Delays():
        return _compared(handler, sent(), batches)


def differing_from_device(device: str, batches: int) -> tuple[int, int]:
    """The same of items that are on the device already, made on a stream of the caller's that is late, too."""
    chance = random.Random(3)
    numbers = [torch.full((257,), float(at)) for at in range(KINDS)]
    expected = [work(row.to(device)).cpu() for row in numbers]
    there = [row.to(device) for row in numbers]
    side: Any = torch.cuda.Stream(device) if there[0].is_cuda else None

    @batched(max_batch_size=4, collate=Stack(), device=device, max_queue=2 * OPEN)
    def handler(batch: Any) -> Any:
        return work(batch)

    def sent() -> Iterator[tuple[Any, Any]]:
        while True:
            at = chance.randrange(KINDS)
            if side is None:
                yield handler.submit(there[at].clone()), expected[at]
                continue
            with torch.cuda.stream(side):
                pause(chance)
                future = handler.submit(there[at].clone())
            yield future, expected[at]

    if side is not None:
        side.wait_stream(torch.cuda.current_stream())
    with Delays():
        return _compared(handler, sent(), batches)


def work(batch: Any) -> Any:
    """What is computed: exact whatever the batch, so that answers can be compared bit by bit."""
    return (batch * 3 + 1).abs()


def _compared(handler: Any, sent: Iterator[tuple[Any, Any]], batches: int) -> tuple[int, int]:
    waiting: deque[tuple[Any, Any]] = deque()
    wrong = 0

    def look(until: int) -> None:
        nonlocal wrong
        while len(waiting) > until:
            future, expected = waiting.popleft()
            wrong += not _same(future.result(60), expected)

    while handler.stats.batches < batches:
        for _ in range(256):
            waiting.append(next(sent))
        look(OPEN)
    look(0)
    done = handler.stats.batches
    handler.close()
    return wrong, done


_bits: Callable[[Any], Any] = lambda row: row.view(torch.int32)  # noqa: E731


def _same(one: Any, other: Any) -> bool:
    return bool(one.shape == other.shape and torch.equal(_bits(one), _bits(other)))
