"""Latency under open load: Poisson arrivals at 30, 60 and 90 % of capacity, beside the ideal batcher.

The handler stands for a device: 2 ms and 20 µs per item, without the GIL, to the microsecond (`timer.py`). A
timerfd on the loop starts each caller at its drawn time whether or not earlier ones were answered (open
loop); each caller notes the clock as it submits and as it wakes with its answer. The submit times so noted,
not the drawn ones, are the arrivals given to the simulation of the ideal batcher (`ideal.py`), twice:

- with the nominal run time of each batch: the floor; the ratio to it holds everything, also how late the
  machine woke the handler from its wait;
- with the overshoot of the handler's runs, as measured and in their order, added: what the batcher itself
  loses.

    python benches/poisson.py [--quick] [--loop asyncio|uvloop] [--json PATH]
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import statistics
import threading
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any

import contest
import floors
import ideal
from timer import Timer

MAX_BATCH_SIZE = 32
WAIT_NS = 2_000_000
BASE_NS = 2_000_000
PER_ITEM_NS = 20_000
LOADS = (30, 60, 90)
BUSY_US = 400  # p99 of a quiet machine is below 150
LEAD_IN = 64  # requests before the trace, one after the other: threads, pages and caches come up


def nominal(size: int) -> int:
    """Nanoseconds the device needs for a batch."""
    return BASE_NS + PER_ITEM_NS * size


CAPACITY = MAX_BATCH_SIZE / nominal(MAX_BATCH_SIZE) * 1e9


class Device:
    """The handler: waits as long as the batch takes, and keeps (entered, left, items) of each run."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int, list[int]]] = []
        self._own = threading.local()

    def __call__(self, items: list[int]) -> list[int]:
        entered = time.monotonic_ns()
        timer: Timer | None = getattr(self._own, "timer", None)
        if timer is None:
            timer = self._own.timer = Timer(blocking=True)
        timer.wait_until(entered + nominal(len(items)))
        self.runs.append((entered, time.monotonic_ns(), items))
        return [item + 1 for item in items]


class Trace:
    """Sends a caller off at each drawn time and keeps when it arrived and when it was answered."""

    def __init__(
        self, call: Callable[[int], Awaitable[int]], rate: float, count: int, seed: int
    ) -> None:
        rng = random.Random(seed)
        gaps = (rng.expovariate(rate) * 1e9 for _ in range(count))
        self.drawn = array("q", (round(at) for at in accumulate(gaps)))
        self.arrived = array("q", bytes(8 * count))
        self.answered = array("q", bytes(8 * count))
        self.wrong = 0
        self._call = call
        self._running: set[asyncio.Task[None]] = set()

    async def play(self) -> None:
        """Runs the whole trace; returns when all are answered."""
        loop = asyncio.get_running_loop()
        timer = Timer(blocking=False)
        self._sent, self._left = 0, len(self.drawn)
        self._ended = loop.create_future()
        begin = time.monotonic_ns() + 5_000_000
        for number, offset in enumerate(self.drawn):
            self.drawn[number] = begin + offset

        def due() -> None:
            timer.rang()
            while self._sent < len(self.drawn) and self.drawn[self._sent] <= time.monotonic_ns():
                caller = loop.create_task(self._caller(self._sent))
                self._running.add(caller)
                caller.add_done_callback(self._running.discard)
                self._sent += 1
            if self._sent < len(self.drawn):
                timer.arm(self.drawn[self._sent])

        loop.add_reader(timer.fd, due)
        timer.arm(self.drawn[0])
        await self._ended
        loop.remove_reader(timer.fd)
        timer.close()

    async def _caller(self, number: int) -> None:
        self.arrived[number] = time.monotonic_ns()
        answer = await self._call(number)
        self.answered[number] = time.monotonic_ns()
        self.wrong += answer != number + 1
        self._left -= 1
        if not self._left:
            self._ended.set_result(None)


def enter(
    contender: str, device: Device, loop: asyncio.AbstractEventLoop
) -> tuple[Callable[[int], Awaitable[int]], Callable[[], Any]]:
    """One contender, ready to be called from the loop, and how it is closed."""
    if contender == "hand":
        hand = floors.HandThread(loop, device, max_batch_size=MAX_BATCH_SIZE, wait_s=WAIT_NS / 1e9)
        return hand, hand.close
    import carpool

    @carpool.batched(max_batch_size=MAX_BATCH_SIZE, wait_ms=WAIT_NS / 1e6, max_queue=1_000_000)
    def serve(items: list[int]) -> list[int]:
        return device(items)

    return serve.acall, serve.close


def one(order: dict[str, Any]) -> contest.Run:
    """One run, in the process made for it."""
    if order["loop"] == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    device = Device()
    call, close = enter(order["contender"], device, loop)
    rate = CAPACITY * order["load"] / 100
    trace = Trace(
        call, rate, round(rate * order["seconds"]), seed=order["repetition"] * 1000 + order["load"]
    )

    async def run() -> float:
        for item in range(LEAD_IN):
            trace.wrong += await call(item) != item + 1
        device.runs.clear()
        # What stands now would only make the collector's walks longer, for every contender alike.
        gc.collect()
        gc.freeze()
        before = time.process_time()
        await trace.play()
        return time.process_time() - before

    cpu = loop.run_until_complete(run())
    close()
    loop.close()
    return {"wrong": trace.wrong, "cpu_us": cpu * 1e6 / len(trace.drawn), **judge(trace, device)}


def judge(trace: Trace, device: Device) -> contest.Run:
    """Latencies, those of the ideal batcher on the same arrivals, and where the difference arose."""
    arrivals = list(trace.arrived)
    latency = [after - before for before, after in zip(arrivals, trace.answered, strict=True)]
    overshoot = [left - entered - nominal(len(items)) for entered, left, items in device.runs]
    limits: dict[str, Any] = {"max_batch_size": MAX_BATCH_SIZE, "wait": WAIT_NS}
    floor = ideal.simulate(arrivals, lambda number, size: nominal(size), **limits)
    fair = ideal.simulate(
        arrivals, lambda number, size: nominal(size) + overshoot[number % len(overshoot)], **limits
    )
    late, back, unordered, idle = stages(arrivals, trace.answered, device)
    run: contest.Run = {
        "requests": len(arrivals),
        "mean_batch": len(arrivals) / len(device.runs),
        "ideal_mean_batch": ideal.mean_size(floor),
        "unordered": unordered,
    }
    for name, values in (
        ("latency", latency),
        ("ideal", ideal.latencies(arrivals, floor)),
        ("fair", ideal.latencies(arrivals, fair)),
        ("arrival_late", [at - drawn for at, drawn in zip(arrivals, trace.drawn, strict=True)]),
        ("dispatch_late", late),
        ("idle_gap", idle),
        ("overshoot", overshoot),
        ("way_back", back),
    ):
        ordered = sorted(values)
        for p in (50, 99, 99.9):
            run[f"{name}_p{p:g}_us"] = contest.percentile(ordered, p) / 1000
        run[f"{name}_mean_us"] = statistics.fmean(ordered) / 1000 if ordered else float("nan")
    for against in ("ideal", "fair"):
        for rank in ("p50", "p99", "p99.9"):
            run[f"{rank}_over_{against}"] = run[f"latency_{rank}_us"] / run[f"{against}_{rank}_us"]
    return run


def stages(
    arrivals: Sequence[int], answered: Sequence[int], device: Device
) -> tuple[list[int], list[int], int, list[int]]:
    """Per batch: how late its handler was entered after it could have been, and how long after its end the
    last of its callers woke; batches that broke the order of arrival; and, of the first, those where the
    device stood idle with a due batch waiting."""
    late: list[int] = []
    back: list[int] = []
    idle: list[int] = []
    unordered = first = previous = 0
    for entered, left, items in device.runs:
        unordered += items != list(range(first, first + len(items)))
        due = ideal.due(arrivals, first, MAX_BATCH_SIZE, WAIT_NS)
        late.append(entered - round(max(due, previous)))
        if previous >= due:
            idle.append(entered - previous)
        back.append(max(answered[item] for item in items) - left)
        first += len(items)
        previous = left
    return late, back, unordered, idle


def summarise(
    runs: Sequence[contest.Run], cells: Sequence[dict[str, Any]], contenders: Sequence[str]
) -> list[dict[str, Any]]:
    """Medians over the rounds, of every figure; ratios are taken in each run before."""
    rows = []
    for cell in cells:
        for contender in contenders:
            own = contest.of(runs, contender=contender, **cell)
            figures = [key for key in own[0] if key not in ("order", "wrong")]
            rows.append(
                {
                    **cell,
                    "contender": contender,
                    **{key: contest.middle(own, key) for key in figures},
                }
            )
    return rows


def show(rows: Sequence[dict[str, Any]]) -> str:
    percentiles = ("p50", "p99", "p99.9")
    answers = contest.table(
        (
            *("load %", "contender", "batch", "ideal", "p50 ms", "p99", "p99.9"),
            *(
                "p50/ideal",
                "p99/ideal",
                "p99.9/ideal",
                "p50/fair",
                "p99/fair",
                "p99.9/fair",
                "CPU µs",
            ),
        ),
        [
            (
                f"{row['load']}",
                row["contender"],
                f"{row['mean_batch']:.2f}",
                f"{row['ideal_mean_batch']:.2f}",
                *(f"{row[f'latency_{p}_us'] / 1000:.2f}" for p in percentiles),
                *(f"{row[f'{p}_over_ideal']:.3f}" for p in percentiles),
                *(f"{row[f'{p}_over_fair']:.3f}" for p in percentiles),
                f"{row['cpu_us']:.1f}",
            )
            for row in rows
        ],
    )
    named = ("arrival_late", "dispatch_late", "idle_gap", "overshoot", "way_back")
    lost = contest.table(
        ("load %", "contender", *(f"{name.replace('_', ' ')} p50 / p99 µs" for name in named)),
        [
            (
                f"{row['load']}",
                row["contender"],
                *(f"{row[f'{name}_p50_us']:.0f} / {row[f'{name}_p99_us']:.0f}" for name in named),
            )
            for row in rows
        ],
    )
    return f"{answers}\n\nWhere the time went, per request (arrival) and per batch (the others):\n\n{lost}"


def busy(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Loads at which even the best contender saw callers start late: no batcher does that."""
    best = {
        load: min(row["arrival_late_p99_us"] for row in rows if row["load"] == load)
        for load in LOADS
    }
    return [load for load in LOADS if best[load] > BUSY_US]


def main() -> None:
    command = contest.parser(
        "Latency under Poisson load, against the ideal batcher.", "poisson", repetitions=5
    )
    command.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    command.add_argument("--seconds", type=float, default=None, help="length of a run (default 6)")
    asked = command.parse_args()
    if asked.one:
        contest.answer(one(json.loads(asked.one)))
    contenders = contest.taking_part(("carpool", "hand"), asked.only)
    seconds = asked.seconds or (1.5 if asked.quick else 6)
    cells = [{"load": load, "loop": asked.loop, "seconds": seconds} for load in LOADS]
    before = contest.machine()
    runs = contest.rounds(
        __file__, cells, contenders, asked.repetitions or (3 if asked.quick else 5)
    )
    rows = summarise(runs, cells, contenders)
    print(
        f"Poisson arrivals, {asked.loop}; handler 2 ms + 20 µs per item without the GIL, max batch"
    )
    print(
        f"{MAX_BATCH_SIZE}, wait 2 ms: capacity {CAPACITY:.0f}/s. ideal: the simulation on the same arrivals;"
    )
    print("fair: the same with what the handler's own wait overshot.\n")
    print(show(rows))
    for load in busy(rows):
        print(
            f"\nnote: at {load} % every contender's callers started late: other programs had the machine,"
        )
        print(
            "and these latencies are theirs as much as the batchers'. Run again when it is quiet."
        )
    contest.write(asked.json, runs, rows, before)


if __name__ == "__main__":
    main()
