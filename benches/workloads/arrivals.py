"""W3: latency under open load. Poisson arrivals at 30, 60 and 90 % of capacity, beside the ideal batcher.

The handler stands for a device: 2 ms and 20 µs per item, without the GIL, to a few microseconds (`device.py`). A
timerfd on the loop starts each caller at its drawn time whether or not earlier ones were answered (open
loop); each caller notes the clock as it submits and as it wakes with its answer. The submit times so noted,
not the drawn ones, are the arrivals given to the simulation of the ideal batcher (`ideal.py`), twice:

- with the nominal run time of each batch: the floor; the ratio to it holds everything, also how late the
  machine woke the handler from its wait;
- with the overshoot of the handler's runs, as measured and in their order, added ("fair"): what the batcher
  itself loses.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Sequence
from typing import Any

import contest
import ideal
import peers

from .device import CAPACITY, MAX_BATCH_SIZE, WAIT_NS, Device, Trace, nominal
from .workload import (
    Cell,
    Order,
    Table,
    Workload,
    cells_in,
    figures,
    loops,
    new_loop,
    number,
    present,
    run_on,
)

LOADS = (30, 60, 90)
BUSY_US = 400  # p99 of a quiet machine is below 150
LEAD_IN = 64  # requests before the trace, one after the other: threads, pages and caches come up
PATIENCE_S = 3.0
PERCENTILES = ("p50", "p99", "p99.9")


async def play(order: Order, device: Device) -> tuple[Trace, int, float]:
    """One trace: what it was, how many had no answer, CPU seconds."""
    door = peers.ALL[order["contender"]].open(
        peers.Asked(
            form="thread",
            handler=device.serve,
            max_batch_size=MAX_BATCH_SIZE,
            wait_ms=WAIT_NS / 1e6,
            loop=asyncio.get_running_loop(),
        )
    )
    rate = CAPACITY * order["load"] / 100
    seed = order["repetition"] * 1000 + order["load"]
    trace = Trace(door.call, rate, round(rate * order["seconds"]), seed=seed)
    for item in range(LEAD_IN):
        trace.wrong += await door.call(item) != item + 1
    device.runs.clear()
    # What stands now would only make the collector's walks longer, for every contender alike.
    gc.collect()
    gc.freeze()
    before = time.process_time()
    unanswered = await trace.play(PATIENCE_S)
    cpu = time.process_time() - before
    if not unanswered:
        door.close()
    return trace, unanswered, cpu


def one(order: Order) -> contest.Run:
    device = Device()
    trace, unanswered, cpu = run_on(new_loop(order["loop"]), play(order, device))
    answered = len(trace.drawn) - unanswered
    return {
        "wrong": trace.wrong,
        "unanswered": unanswered,
        "cpu_us": cpu * 1e6 / max(answered, 1),
        **judge(trace, list(device.runs)),
    }


Served = tuple[int, int, list[int]]


def judge(trace: Trace, served: list[Served]) -> contest.Run:
    """Latencies, those of the ideal batcher on the same arrivals, and where the difference arose."""
    arrivals = list(trace.arrived)
    latency = [after - before for before, after in zip(arrivals, trace.answered, strict=True)]
    overshoot = [left - entered - nominal(len(items)) for entered, left, items in served]
    limits: dict[str, Any] = {"max_batch_size": MAX_BATCH_SIZE, "wait": WAIT_NS}
    floor = ideal.simulate(arrivals, lambda number, size: nominal(size), **limits)
    fair = ideal.simulate(
        arrivals, lambda number, size: nominal(size) + overshoot[number % len(overshoot)], **limits
    )
    late, back, idle = stages(arrivals, trace.answered, served)
    run: contest.Run = {
        "requests": len(arrivals),
        "mean_batch": statistics.fmean(len(items) for _, _, items in served),
        "ideal_mean_batch": ideal.mean_size(floor),
        # What the device lost while a due batch waited for it, as a share of its time.
        "idle_share": sum(late) / max(served[-1][1] - served[0][0], 1),
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
        for rank in PERCENTILES:
            run[f"{rank}_over_{against}"] = run[f"latency_{rank}_us"] / run[f"{against}_{rank}_us"]
    return run


def stages(
    arrivals: Sequence[int], answered: Sequence[int], served: Sequence[Served]
) -> tuple[list[int], list[int], list[int]]:
    """Per batch: how late its handler was entered after some batch could have been, and how long after its
    end the last of its callers woke; and, of the first, those where the device stood idle with a due batch waiting.

    A batch is due for the oldest that are not served yet, whichever the contender then took.
    """
    late: list[int] = []
    back: list[int] = []
    idle: list[int] = []
    gone = bytearray(len(arrivals))
    oldest = previous = 0
    for entered, left, items in served:
        while gone[oldest]:
            oldest += 1
        # Of those that were not served, the one that fills a batch.
        filling, count = oldest, 1
        while count < MAX_BATCH_SIZE and filling + 1 < len(arrivals):
            filling += 1
            count += not gone[filling]
        due = arrivals[oldest] + WAIT_NS
        if count == MAX_BATCH_SIZE:
            due = min(due, arrivals[filling])
        late.append(max(0, entered - max(due, previous)))
        if previous >= due:
            idle.append(max(0, entered - previous))
        back.append(max(answered[item] for item in items) - left)
        for item in items:
            gone[item] = 1
        previous = left
    return late, back, idle


def cells(quick: bool) -> list[Cell]:
    # uvloop differs little where the device dominates: one loop is enough.
    return [
        {"loop": loops()[0], "load": load, "seconds": 1.0 if quick else 4.0}
        for load in ((60,) if quick else LOADS)
    ]


def tables(runs: Sequence[contest.Run], contenders: Sequence[str]) -> list[Table]:
    names = present(runs, contenders)
    answers, lost = [], []
    stages_shown = ("dispatch_late", "idle_gap", "overshoot", "way_back", "arrival_late")
    notes = []
    for cell in cells_in(runs, "load"):
        own = figures(runs, names, **cell)
        for name, its in own.items():
            unanswered = contest.middle(its, "unanswered")

            def ms(figure: str, its: list[contest.Run] = its) -> str:
                return number(contest.middle(its, figure) / 1000, 2)

            answers.append(
                [
                    str(cell["load"]),
                    name,
                    f"{contest.middle(its, 'mean_batch'):.1f}",
                    *(ms(f"latency_{p}_us") for p in PERCENTILES),
                    *(f"{contest.middle(its, f'{p}_over_ideal'):.3f}" for p in PERCENTILES),
                    f"{contest.middle(its, 'p99_over_fair'):.3f}",
                    f"{contest.middle(its, 'cpu_us'):.1f}",
                    f"{unanswered:.0f}" if unanswered else "",
                ]
            )
            lost.append(
                [
                    str(cell["load"]),
                    name,
                    *(
                        f"{contest.middle(its, f'{stage}_p50_us'):.0f} / {contest.middle(its, f'{stage}_p99_us'):.0f}"
                        for stage in stages_shown
                    ),
                    f"{contest.middle(its, 'idle_share') * 100:.1f}",
                ]
            )
        first = next(iter(own.values()))
        answers.append(
            [
                str(cell["load"]),
                "ideal",
                f"{contest.middle(first, 'ideal_mean_batch'):.1f}",
                *(number(contest.middle(first, f"ideal_{p}_us") / 1000, 2) for p in PERCENTILES),
                *("1" for _ in PERCENTILES),
                *("", "", ""),
            ]
        )
        late = min(contest.middle(its, "arrival_late_p99_us") for its in own.values())
        if late > BUSY_US:
            notes.append(
                f"At {cell['load']} % every contender's callers started late (p99 {late:.0f} µs): other programs had "
                "the machine, and these latencies are theirs as much as the batchers'."
            )
    head = (
        *("load %", "contender", "mean batch", "p50 ms", "p99", "p99.9"),
        *("p50 / ideal", "p99 / ideal", "p99.9 / ideal", "p99 / fair", "CPU µs", "unanswered"),
    )
    stage_heads = (f"{name.replace('_', ' ')} p50 / p99 µs" for name in stages_shown)
    return [
        Table("Latency", head, answers, "\n".join(notes)),
        Table(
            "Where the time went, per batch", ("load %", "contender", *stage_heads, "lost %"), lost
        ),
    ]


def refuses(contender: peers.Contender, cell: Cell) -> str | None:
    # One that knows no wait is let in where its own rule still makes batches.
    wait_ms = 0 if contender.name == "aiodataloader" else WAIT_NS / 1e6
    return contender.refuses("thread", wait_ms)


ARRIVALS = Workload(
    name="W3",
    title="Open load",
    contenders=(
        *("carpool", "hand", "batched", "batched-aio"),
        *("async-batcher", "aiodataloader", "ray-serve", "bentoml"),
    ),
    floors=("hand",),
    cells=cells,
    one=one,
    tables=tables,
    refuses=refuses,
)
