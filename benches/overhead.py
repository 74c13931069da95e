"""What awaiting one request costs: a closed loop of callers on one event loop, and a trivial handler.

K callers each await one request after the other; the handler adds one to each item, so that nearly all the
time is the batcher's own. Figures are CPU time of the whole process (all its threads) per request, and wall
time; the caller's own loop and its check of each answer are in every contender's figure alike.

    python benches/overhead.py [--quick] [--handler async|plain|thread] [--json PATH]
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import contest
import floors

Call = Callable[[int], Awaitable[int]]
Close = Callable[[], Any]

CALLERS = (1, 8, 64, 512, 4096)
MAX_BATCH_SIZE = 64
HANDLERS = {
    "async": "async def handler on the loop",
    "plain": "plain handler, run on the loop",
    "thread": "plain handler on a worker thread",
}


class Counted:
    """The trivial handler in both colours; counts its batches."""

    def __init__(self) -> None:
        self.batches = 0

    def plain(self, items: list[int]) -> list[int]:
        self.batches += 1
        return [item + 1 for item in items]

    async def awaited(self, items: list[int]) -> list[int]:
        self.batches += 1
        return [item + 1 for item in items]


def enter(
    order: dict[str, Any], counted: Counted, loop: asyncio.AbstractEventLoop
) -> tuple[Call, Close]:
    """One contender, ready to be called, and how it is closed."""
    contender, handler = order["contender"], order["handler"]
    limits: dict[str, Any] = {"max_batch_size": MAX_BATCH_SIZE, "wait_s": order["wait_ms"] / 1000}
    if contender == "bare":
        return floors.BareFutures(loop), lambda: None
    if contender == "hand":
        if handler == "async":
            return floors.HandBatcher(loop, counted.awaited, **limits), lambda: None
        if handler == "plain":
            return floors.HandInline(loop, counted.plain, **limits), lambda: None
        threaded = floors.HandThread(loop, counted.plain, **limits)
        return threaded, threaded.close
    return enter_carpool(order, counted)


def enter_carpool(order: dict[str, Any], counted: Counted) -> tuple[Call, Close]:
    import carpool

    options: dict[str, Any] = {"max_batch_size": MAX_BATCH_SIZE, "wait_ms": order["wait_ms"]}

    async def awaited(items: list[int]) -> list[int]:
        counted.batches += 1
        return [item + 1 for item in items]

    def plain(items: list[int]) -> list[int]:
        counted.batches += 1
        return [item + 1 for item in items]

    if order["handler"] == "async":
        served: Any = carpool.batched(**options)(awaited)
        return served, served.close
    options["executor"] = "loop" if order["handler"] == "plain" else "thread"
    served = carpool.batched(**options)(plain)
    return served.acall, served.close


async def closed_loop(call: Call, callers: int, each: int, counted: Counted) -> contest.Run:
    """Warms up, lets every caller reach the start line, then times `each` requests of every caller."""
    loop = asyncio.get_running_loop()
    start, end = loop.create_future(), loop.create_future()
    ready = done = wrong = batches = 0
    cpu = wall = 0.0

    async def caller(number: int) -> None:
        nonlocal ready, done, wrong
        base = number * (each + warm)
        for item in range(base, base + warm):
            wrong += await call(item) != item + 1
        ready += 1
        if ready == callers:
            loop.call_soon(start.set_result, None)
        await start
        bad = 0
        for item in range(base + warm, base + warm + each):
            if await call(item) != item + 1:
                bad += 1
        wrong += bad
        done += 1
        if done == callers:
            end.set_result(None)

    warm = max(2, each // 20)
    running = [loop.create_task(caller(number)) for number in range(callers)]

    def go(_: object) -> None:
        nonlocal cpu, wall, batches
        gc.collect()
        batches = counted.batches
        cpu, wall = time.process_time(), time.perf_counter()

    start.add_done_callback(go)  # before any caller awaits it, so that the clock starts first
    await end
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await asyncio.gather(*running)
    requests = callers * each
    ran = counted.batches - batches
    return {
        "cpu_us": cpu * 1e6 / requests,
        "wall_us": wall * 1e6 / requests,
        "mean_batch": requests / ran if ran else None,
        "requests": requests,
        "wrong": wrong,
    }


def one(order: dict[str, Any]) -> contest.Run:
    """One run, in the process made for it."""
    if order["loop"] == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    counted = Counted()
    call, close = enter(order, counted, loop)
    run = loop.run_until_complete(closed_loop(call, order["callers"], order["each"], counted))
    close()
    loop.close()
    return run


def each_of(callers: int, wait_ms: float, handler: str, quick: bool) -> int:
    """Requests per caller: a run of some tenths of a second, also where every batch waits."""
    if wait_ms and callers < MAX_BATCH_SIZE:
        return 100 if quick else 250
    total = 240_000 if callers >= 64 else 60_000 if callers > 1 else 30_000
    if handler == "thread":
        total //= 2
    if quick:
        total //= 2
    return max(total // callers, 24)


def loops() -> tuple[str, ...]:
    return ("asyncio", "uvloop") if importlib.util.find_spec("uvloop") else ("asyncio",)


def cells_of(handler: str, quick: bool) -> list[dict[str, Any]]:
    callers = (1, 64, 512, 4096) if quick else CALLERS
    waits = (0,) if quick else (0, 1)
    return [
        {
            "handler": handler,
            "loop": loop,
            "wait_ms": wait_ms,
            "callers": count,
            "each": each_of(count, wait_ms, handler, quick),
        }
        for loop in loops()
        for wait_ms in waits
        for count in callers
    ]


def summarise(
    runs: Sequence[contest.Run], cells: Sequence[dict[str, Any]], contenders: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per cell and contender; ratios are medians over medians, of the same cell."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        hand = contest.of(runs, contender="hand", **cell)
        for contender in contenders:
            own = contest.of(runs, contender=contender, **cell)
            sizes = [run["mean_batch"] for run in own if run["mean_batch"]]
            rows.append(
                {
                    **cell,
                    "contender": contender,
                    "cpu_us": contest.middle(own, "cpu_us"),
                    "wall_us": contest.middle(own, "wall_us"),
                    "noise": contest.spread(own, "cpu_us"),
                    "mean_batch": sum(sizes) / len(sizes) if sizes else None,
                    "cpu_ratio": contest.ratio(own, hand, "cpu_us"),
                    "wall_ratio": contest.ratio(own, hand, "wall_us"),
                }
            )
    return rows


def show(rows: Sequence[dict[str, Any]]) -> str:
    head = (
        *("loop", "wait ms", "callers", "contender", "CPU µs", "± %", "wall µs", "batch"),
        *("CPU/hand", "wall/hand"),
    )
    lines = []
    for row in rows:
        lines.append(
            (
                row["loop"],
                f"{row['wait_ms']}",
                f"{row['callers']}",
                row["contender"],
                f"{row['cpu_us']:.3f}",
                f"{row['noise'] * 100:.0f}",
                f"{row['wall_us']:.3f}",
                "-" if row["mean_batch"] is None else f"{row['mean_batch']:.1f}",
                contest.times(row["cpu_ratio"]),
                contest.times(row["wall_ratio"]),
            )
        )
    return contest.table(head, lines)


def main() -> None:
    command = contest.parser("CPU per awaited request, closed loop.", "overhead", repetitions=5)
    command.add_argument(
        "--handler", choices=HANDLERS, default="async", help="where the handler runs"
    )
    asked = command.parse_args()
    if asked.one:
        contest.answer(one(json.loads(asked.one)))
    contenders = contest.taking_part(("carpool", "hand", "bare"), asked.only)
    cells = cells_of(asked.handler, asked.quick)
    before = contest.machine()
    runs = contest.rounds(
        __file__, cells, contenders, asked.repetitions or (3 if asked.quick else 5)
    )
    rows = summarise(runs, cells, contenders)
    print(
        f"CPU and wall time per awaited request; {HANDLERS[asked.handler]}, max batch {MAX_BATCH_SIZE}."
    )
    print(
        "/hand: ratio to the hand-written batcher of the cell; ±: half the distance of the quartiles.\n"
    )
    print(show(rows))
    contest.write(asked.json, runs, rows, before)


if __name__ == "__main__":
    main()
