"""What a whole data set costs per item, over the handler: a million items through one that returns its list.

    python benches/data_sets.py [ITEMS]

Processor time of the whole process and wall time, in nanoseconds per item; the growth of memory while it runs. The
handler alone, called with ready lists of the same size, is taken off.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from carpool import batched

SIZES = (32, 256)
PAGE_KB = resource.getpagesize() // 1024


def same(items: list[int]) -> list[int]:
    return items


async def asame(items: list[int]) -> list[int]:
    return items


def spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident_kb() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * PAGE_KB if statm.exists() else 0


def alone(items: int, size: int) -> float:
    """The handler by itself: seconds of processor time."""
    before = spent()
    for start in range(0, items, size):
        same(list(range(start, start + size)))
    return spent() - before


def drained(answers: Iterator[Any]) -> int:
    """The largest growth of memory on the way, in kB."""
    start = most = 0
    for number, _ in enumerate(answers):
        if number % 50_000 == 0:
            now = resident_kb()
            start = start or now
            most = max(most, now - start)
    return most


async def adrained(answers: AsyncIterator[Any]) -> int:
    start = most = number = 0
    async for _ in answers:
        number += 1
        if number % 50_000 == 1:
            now = resident_kb()
            start = start or now
            most = max(most, now - start)
    return most


def ways(size: int, items: int) -> dict[str, Callable[[], int]]:
    thread: Any = batched(max_batch_size=size)(same)
    caller: Any = batched(max_batch_size=size, executor="caller")(same)
    on_loop: Any = batched(max_batch_size=size)(asame)
    return {
        "map": lambda: drained(thread.map(range(items))),
        "map, ordered=False": lambda: drained(thread.map(range(items), ordered=False)),
        'map, executor="caller"': lambda: drained(caller.map(range(items))),
        "amap": lambda: asyncio.run(adrained(thread.amap(range(items)))),
        "amap, async def": lambda: asyncio.run(adrained(on_loop.amap(range(items)))),
    }


def main(items: int) -> None:
    print("| | batch | CPU ns | wall ns | growth kB |\n|---|---|---|---|---|")
    for size in SIZES:
        floor = alone(items, size)
        for name, way in ways(size, items).items():
            began, before = time.perf_counter(), spent()
            growth = way()
            cpu, wall = spent() - before - floor, time.perf_counter() - began - floor
            print(
                f"| {name} | {size} | {cpu / items * 1e9:.0f} | {wall / items * 1e9:.0f} | {growth} |"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
