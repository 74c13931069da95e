"""Ten times what a handler can do, for a minute: refusals, goodput, memory.

    python benches/overload.py [--seconds S] [--times N] [--overflow shed|raise]

A handler takes 20 ms for a batch, whatever its size. Threads submit at fixed moments (a slow batcher does not slow
the arrivals down), with three priorities and two time limits. Held against:

- refusals: the time from the call to the `QueueFull` in its caller, p99 at most 1 ms;
- goodput: answered requests, at least 90 % of what the handler does alone, batch after batch;
- memory: resident size over the second half of the run, flat: within 2 % or 4 MiB;
- everybody has an outcome, and the figures add up.

Exits with 1 if one of them does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from array import array
from pathlib import Path
from typing import Any, Literal

from carpool import Future, QueueFull, batched

BATCH = 32
RUN_S = 0.020
THREADS = 4
LONGEST_REFUSAL_MS = 1.0
LEAST_GOODPUT = 0.90
SLOWEST_US = 100_000


def handler(items: list[int]) -> list[int]:
    time.sleep(RUN_S)
    return items


def capacity(seconds: float) -> float:
    """Requests per second of the handler alone."""
    items, rounds, start = list(range(BATCH)), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        handler(items)
        rounds += 1
    return rounds * BATCH / (time.perf_counter() - start)


def resident() -> int:
    """Bytes of this process that are in memory."""
    with Path("/proc/self/statm").open() as pages:
        return int(pages.read().split()[1]) * 4096


class Caller:
    """One thread that submits at fixed moments, and what came of it."""

    def __init__(self, views: list[Any], rate: float, start: float, seconds: float) -> None:
        self.views, self.period = views, 1 / rate
        self.start, self.end = start, start + seconds
        #: By microseconds, the last for all that took longer: the same memory however many there are.
        self.refusals = array("Q", bytes(8 * (SLOWEST_US + 1)))
        self.accepted = self.behind = 0
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        clock, sleep = time.perf_counter, time.sleep
        due, number, views = self.start, 0, self.views
        while due < self.end:
            rest = due - clock()
            if rest > 0.0005:
                sleep(rest)
            elif rest < -0.1:
                # Python cannot submit as fast as that here: what was skipped is told.
                self.behind += 1
                due += self.period
                continue
            call = views[number % len(views)]
            began = clock()
            try:
                future = call.submit(number)
            except QueueFull:
                took = int(1e6 * (clock() - began))
                self.refusals[min(took, SLOWEST_US)] += 1
            else:
                self.accepted += 1
                future.add_done_callback(Future.exception)  # somebody received it
            number += 1
            due += self.period


def percentile_ms(counts: list[int], p: float) -> float:
    """Of counts by microseconds."""
    rank, seen = p / 100 * sum(counts), 0
    for microseconds, count in enumerate(counts):
        seen += count
        if seen >= rank and count:
            return (microseconds + 1) / 1e3
    return 0.0


def measure(seconds: float, times: float, overflow: Literal["shed", "raise"]) -> dict[str, Any]:
    alone = capacity(min(3.0, seconds))
    f: Any = batched(max_batch_size=BATCH, max_queue=512, overflow=overflow, timeout_ms=10_000)(
        handler
    )
    views = [
        f.options(priority=level, timeout_ms=limit)
        for level in (-1, 0, 1)
        for limit in (5_000, 10_000)
    ]
    start = time.perf_counter() + 0.2
    callers = [Caller(views, times * alone / THREADS, start, seconds) for _ in range(THREADS)]
    for caller in callers:
        caller.thread.start()
    sizes: list[int] = []
    answered_at_start = answered_at_end = 0
    while any(caller.thread.is_alive() for caller in callers):
        time.sleep(seconds / 100)
        if not sizes:
            answered_at_start, first = f.stats.answered, time.perf_counter()
        sizes.append(resident())
        answered_at_end, last = f.stats.answered, time.perf_counter()
    for caller in callers:
        caller.thread.join()
    f.close()
    stats = f.stats
    refusals = [sum(counts) for counts in zip(*(one.refusals for one in callers), strict=True)]
    refused = sum(refusals)
    accepted = sum(caller.accepted for caller in callers)
    second_half = sizes[len(sizes) // 2 :]
    return {
        "overflow": overflow,
        "seconds": seconds,
        "capacity_per_s": alone,
        "offered_per_s": (accepted + refused) / seconds,
        "skipped": sum(caller.behind for caller in callers),
        "refused": refused,
        "refusal_p50_ms": percentile_ms(refusals, 50),
        "refusal_p99_ms": percentile_ms(refusals, 99),
        "refusal_max_ms": percentile_ms(refusals, 100),
        "shed": stats.shed,
        "goodput": (answered_at_end - answered_at_start) / (last - first) / alone,
        "resident_mib": second_half[0] / 2**20,
        "grown_mib": (
            max(second_half[len(second_half) // 2 :]) - max(second_half[: len(second_half) // 2])
        )
        / 2**20,
        "accounted": stats.submitted
        == stats.answered + stats.failed + stats.rejected + stats.cancelled
        and stats.submitted == accepted + refused
        and stats.pending == stats.in_flight == 0,
    }


def faults(found: dict[str, Any]) -> list[str]:
    """What does not hold."""
    told = []
    if found["refusal_p99_ms"] > LONGEST_REFUSAL_MS:
        told.append(f"refusals take {found['refusal_p99_ms']:.2f} ms (p99)")
    if found["goodput"] < LEAST_GOODPUT:
        told.append(f"goodput is {found['goodput']:.1%} of the capacity")
    if found["grown_mib"] > max(4.0, 0.02 * found["resident_mib"]):
        told.append(f"memory has grown by {found['grown_mib']:.1f} MiB")
    if not found["accounted"]:
        told.append("the figures do not add up")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=10.0, help="offered load over capacity")
    parser.add_argument("--overflow", choices=("shed", "raise"), default="shed")
    arguments = parser.parse_args()
    found = measure(arguments.seconds, arguments.times, arguments.overflow)
    print(json.dumps(found, indent=2))
    told = faults(found)
    for fault in told:
        print(fault, file=sys.stderr)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
