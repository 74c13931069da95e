"""Collating beside one memory copy of the same bytes.

    python benches/collate.py

Three workloads: 32 and 256 requests of dicts of two int64 arrays with lengths log-normal between 8 and 512, and 64
images of 3x224x224 uint8; each as numpy arrays and as torch tensors. The measure is the time of a batch over the
time that `numpy.copyto` takes for as many bytes, both into memory that has been written before. Then small
batches, in microseconds. Rounds of both take turns, and the best of each counts: what else the machine does only
ever adds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from carpool.collate import Pad, Stack

#: What each workload should cost at most, in copies of its bytes.
TARGETS = {"32 dicts": 2.5, "256 dicts": 2.0, "64 images": 1.2}
SMALL_US = 5.0


def dicts(count: int, kind: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """`count` items of two keys, with lengths log-normal between 8 and 512."""
    random = np.random.default_rng(7)
    lengths = np.clip(random.lognormal(4.4, 0.8, count), 8, 512).astype(int)
    return [
        {key: kind(random.integers(0, 9, n)) for key in ("input_ids", "types")} for n in lengths
    ]


def images(kind: Callable[[Any], Any]) -> list[Any]:
    """64 images of 3x224x224 uint8."""
    random = np.random.default_rng(7)
    return [kind(random.integers(0, 256, (3, 224, 224), "uint8")) for _ in range(64)]


def bytes_of(batch: Any) -> int:
    """How many bytes a batch has."""
    parts = batch.values() if isinstance(batch, dict) else [batch]
    return sum(part.nbytes for part in parts)


def best(one: Callable[[], object], other: Callable[[], object], seconds: float) -> list[float]:
    """The shortest time of each, in seconds, taking turns."""
    found = [float("inf"), float("inf")]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for at, call in enumerate((one, other)):
            start = time.perf_counter()
            call()
            found[at] = min(found[at], time.perf_counter() - start)
    return found


def copies(collator: Any, items: list[Any], seconds: float) -> tuple[float, float]:
    """A batch's time in microseconds, and in copies of its bytes."""
    size = bytes_of(collator.collate(items))
    source, target = np.ones(size, "uint8"), np.zeros(size, "uint8")
    batch, copy = best(lambda: collator.collate(items), lambda: np.copyto(target, source), seconds)
    return batch * 1e6, batch / copy


def kinds() -> dict[str, Callable[[Any], Any]]:
    """What arrays are made as: numpy's, and torch's where it is installed."""
    found: dict[str, Callable[[Any], Any]] = {"numpy": lambda array: array}
    try:
        import torch
    except ImportError:
        return found
    return {**found, "torch": torch.from_numpy}


def apart(items: list[Any], seconds: float) -> tuple[float, float]:
    """Rows of one shape: microseconds of a batch in one go, and of its rows each in a call of its own.

    The second is the least that rows would cost which their callers write into an open batch themselves, when
    they submit; the first is what a batch would save by that when it leaves.
    """
    stack = Stack()
    stack.collate(items)

    def one_by_one() -> None:
        for item in items:
            stack.collate([item])

    whole, rows = best(lambda: stack.collate(items), one_by_one, seconds)
    return whole * 1e6, rows * 1e6


def main(seconds: float = 1.0) -> None:
    print(f"{'workload':<12} {'items':<6} {'us':>8} {'copies':>7} {'target':>7}")
    for name, kind in kinds().items():
        pad = Pad({"input_ids": 0, "types": 0})
        workloads = {
            "32 dicts": (pad, dicts(32, kind)),
            "256 dicts": (pad, dicts(256, kind)),
            "64 images": (Stack(), images(kind)),
        }
        for label, (collator, items) in workloads.items():
            micros, ratio = copies(collator, items, seconds)
            print(f"{label:<12} {name:<6} {micros:8.1f} {ratio:7.2f} {TARGETS[label]:7.1f}")
        rows = [kind(np.arange(n)) for n in (3, 9, 5, 7)]
        small = {
            "4 rows": (Pad(0), rows),
            "4 dicts": (Pad(0), [{"ids": row} for row in rows]),
            "4 masked": (Pad(0, mask="mask"), [{"ids": row} for row in rows]),
        }
        for label, (collator, items) in small.items():
            micros, _ = copies(collator, items, seconds / 4)
            print(f"{label:<12} {name:<6} {micros:8.2f} {'':>7} {SMALL_US:>5.0f} us")
        for label, items in (
            ("32 rows", [kind(np.arange(256)) for _ in range(32)]),
            ("64 images", images(kind)),
        ):
            whole, single = apart(items, seconds)
            print(f"{label:<12} {name:<6} {whole:8.1f} in one go, {single:.1f} row by row")


if __name__ == "__main__":
    main()
