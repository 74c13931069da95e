"""What an option costs: instructions per awaited call with it on, one at a time, and with all of them.

    python benches/prices.py [--only NAME ...] [--callers 512] [--markdown PATH]

512 callers on one event loop, an `async def` handler on it, batches of 64. Callgrind counts (see `check.py`), so figures
repeat where times do not; each is the difference of two runs with few and with many calls. The handler and the callers
are the same in all, but for `shared`, where calls have a second argument, and options that a call gives itself.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import carpool
import check
import document

BATCH = 64
#: Long enough for a program that runs under a counter.
LONG_MS = 600_000


def hear(trace: carpool.Trace) -> None:
    """A hook that does nothing with what it hears."""


def one(item: int, scale: int = 1) -> int:
    return 1


def key_of(item: int, scale: int = 1) -> int:
    return item % 4


def length_of(item: int, scale: int = 1) -> int:
    return item % 32


#: Options by what the table calls them.
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "`max_batch_cost`, `cost` an int": {"max_batch_cost": 10_000, "cost": 2},
    "`max_batch_cost`, `cost` a function": {"max_batch_cost": 10_000, "cost": one},
    "... with `padded_cost`": {"max_batch_cost": 10_000, "cost": one, "padded_cost": True},
    "... with `look_ahead`": {"max_batch_cost": 10_000, "cost": one, "look_ahead": 8},
    "`key`, four of them": {"key": key_of},
    "`length`": {"length": length_of},
    "`shared`": {"shared": ("scale",)},
    "`timeout_ms`": {"timeout_ms": LONG_MS},
    "`timeout_ms`, `refuse_late`": {"timeout_ms": LONG_MS, "refuse_late": True},
    "`overflow='shed'`": {"overflow": "shed"},
    "`max_concurrent_batches=4`": {"max_concurrent_batches": 4},
    "`batch_sizes`": {"batch_sizes": [8, 16, 32, 64]},
    "`target_ms`": {"target_ms": 2_000},
    "`on_error='isolate'`, `retries`": {"on_error": "isolate", "retries": 2, "retry_on": OSError},
    "`slow_ms`": {"slow_ms": LONG_MS},
    "`on_request`, none in the sample": {"on_request": hear, "sample_rate": 1e-12},
    "`on_request`, `sample_rate=0.01`": {"on_request": hear, "sample_rate": 0.01},
    "`on_request`, every request": {"on_request": hear},
    "`keep_timings`": {"keep_timings": True},
    "`keep_contexts`": {"keep_contexts": True},
}
PRIORITY = "`priority` of the call"
ALL = "all of them"
TOGETHER: dict[str, Any] = {
    name: value for given in OPTIONS.values() for name, value in given.items()
}


def run(name: str, callers: int, requests: int) -> None:
    """So many calls under these options."""
    given = TOGETHER if name == ALL else OPTIONS.get(name, {})

    async def plain(items: list[int]) -> list[int]:
        return [item + 1 for item in items]

    async def scaled(items: list[int], scale: int) -> list[int]:
        return [item + scale for item in items]

    shares = "shared" in given
    decorate: Any = carpool.batched(max_batch_size=BATCH, **given)
    f: Any = decorate(scaled if shares else plain)
    call: Callable[..., Awaitable[int]] = f.options(priority=1) if name in (PRIORITY, ALL) else f

    async def caller(each: int) -> None:
        if shares:
            for item in range(each):
                assert await call(item, 1) == item + 1
        else:
            for item in range(each):
                assert await call(item) == item + 1

    async def main() -> None:
        await asyncio.gather(*(caller(requests // callers) for _ in range(callers)))

    asyncio.run(main())
    assert f.stats.answered == requests


def counted(count: check.Counter, name: str, callers: int) -> float:
    """Instructions per call."""
    python = [sys.executable, str(Path(__file__)), "--run", name, "--callers", str(callers)]
    few, many = (count([*python, "--requests", str(times * callers)]) for times in (8, 24))
    return (many - few) / (16 * callers)


def table(figures: dict[str, float]) -> str:
    """A row per option, and what it adds to none."""
    rows = ["| options | instructions | more than none |", "|---|---|---|"]
    base = figures.get("none")
    for name, instructions in figures.items():
        more = "" if base is None or name == "none" else f"{(instructions / base - 1) * 100:+.1f} %"
        rows.append(f"| {name} | {f'{instructions:,.0f}'.replace(',', ' ')} | {more} |")
    return "\n".join(rows)


def main() -> int:
    """Counts, or (asked by itself) runs."""
    command = argparse.ArgumentParser(description="What an option costs.")
    command.add_argument("--only", nargs="*", default=None, help="names as in the table")
    command.add_argument("--callers", type=int, default=512)
    command.add_argument("--markdown", type=Path, default=None, help="a document for the figures")
    command.add_argument("--run", default=None, help=argparse.SUPPRESS)
    command.add_argument("--requests", type=int, default=0, help=argparse.SUPPRESS)
    asked = command.parse_args()
    if asked.run is not None:
        gc.disable()  # when it runs depends on more than the calls
        run(asked.run, asked.callers, asked.requests)
        return 0
    counter = check.counter()
    if counter is None:
        raise SystemExit("it needs valgrind, or perf with counters")
    names = [*OPTIONS, PRIORITY, ALL]
    unknown = set(asked.only or ()) - set(names)
    if unknown:
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}")
    figures = {}
    for name in names:
        if asked.only is None or name in asked.only:
            figures[name] = counted(counter[1], name, asked.callers)
            print(f"{figures[name]:10.0f}  {name}", file=sys.stderr, flush=True)
    print(table(figures))
    if asked.markdown:
        document.put(asked.markdown, {"prices": table(figures)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
