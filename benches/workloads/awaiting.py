"""W1 and W1o: what awaiting one request costs. A closed loop of callers on one event loop, a trivial handler.

K callers each await one request after the other; the handler adds one to each item, so that nearly all the
time is the batcher's own. Figures are CPU time of the whole process (all threads) per request, and wall time;
the caller's own loop and its check of each answer are in every contender's figure alike. How many requests a run makes
follows from a short lap before it: slow contenders are measured for as long as fast ones.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence

import contest
import peers

from .workload import Cell, Order, Table, Workload, grid, loops, new_loop, run_on

CALLERS = (1, 8, 64, 512, 4096)
MAX_BATCH_SIZE = 64
GATHERED = 512
LONG_S, QUICK_S = 0.3, 0.12


class Counted:
    """The trivial handler; counts its batches."""

    def __init__(self) -> None:
        self.batches = 0

    def handler(self) -> peers.Handler:
        def served(items: list[int]) -> list[int]:
            self.batches += 1
            return [item + 1 for item in items]

        return served


class Lap:
    """`each` requests of every caller, timed between a start line that all have reached and the last answer."""

    def __init__(self, call: Callable[[int], Awaitable[int]], order: Order) -> None:
        self._call = call
        self._callers: int = order["callers"]
        self._gathers = order["shape"] == "gather"
        self._first = 1_000
        self.wrong = 0

    async def run(self, each: int) -> tuple[float, float]:
        """CPU and wall seconds."""
        loop = asyncio.get_running_loop()
        start = loop.create_future()
        end = loop.create_future()
        lone = 1 if self._gathers else self._callers
        waiting = running = lone

        async def caller(base: int) -> None:
            nonlocal waiting, running
            waiting -= 1
            if not waiting:
                loop.call_soon(start.set_result, None)
            try:
                await start
                if self._gathers:
                    await self._gather(base, each)
                else:
                    await self._one_by_one(base, each)
            except Exception as error:
                if not end.done():
                    end.set_exception(error)
            running -= 1
            if not running and not end.done():
                end.set_result(None)

        cpu = wall = 0.0

        def go(_: object) -> None:
            nonlocal cpu, wall
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()

        start.add_done_callback(go)  # before any caller awaits it, so that the clock starts first
        share = each * (self._callers if self._gathers else 1)
        tasks = [loop.create_task(caller(self._first + number * share)) for number in range(lone)]
        self._first += lone * share
        await end
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        await asyncio.gather(*tasks)
        return cpu, wall

    async def _one_by_one(self, base: int, each: int) -> None:
        call = self._call
        bad = 0
        for item in range(base, base + each):
            if await call(item) != item + 1:
                bad += 1
        self.wrong += bad

    async def _gather(self, base: int, each: int) -> None:
        call, width = self._call, self._callers
        for first in range(base, base + each * width, width):
            items = range(first, first + width)
            answers = await asyncio.gather(*[call(item) for item in items])
            if answers != list(range(first + 1, first + width + 1)):
                self.wrong += 1


async def measure(order: Order, counted: Counted) -> contest.Run:
    """Two laps to get going and to learn the pace, then the one that counts."""
    door = peers.ALL[order["contender"]].open(
        peers.Asked(
            form=order["form"],
            handler=counted.handler(),
            max_batch_size=MAX_BATCH_SIZE,
            wait_ms=order["wait_ms"],
            loop=asyncio.get_running_loop(),
        )
    )
    callers = order["callers"]
    lap = Lap(door.call, order)

    async def paced(each: int, seconds: float) -> int:
        _, wall = await lap.run(each)
        return max(3, min(int(each * seconds / max(wall, 1e-9)), 200_000))

    each = await paced(3, order["seconds"] / 6)
    each = await paced(each, order["seconds"])
    batches = counted.batches
    cpu, wall = await lap.run(each)
    ran = counted.batches - batches
    requests = callers * each
    door.close()
    return {
        "cpu_us": cpu * 1e6 / requests,
        "wall_us": wall * 1e6 / requests,
        "mean_batch": requests / ran if ran else None,
        "requests": requests,
        "wrong": lap.wrong,
    }


def one(order: Order) -> contest.Run:
    return run_on(new_loop(order["loop"]), measure(order, Counted()))


def cells(form: peers.Form, quick: bool) -> list[Cell]:
    seconds = QUICK_S if quick else LONG_S

    def cell(loop: str, wait_ms: int, callers: int, shape: str = "callers") -> Cell:
        return {
            "form": form,
            "loop": loop,
            "wait_ms": wait_ms,
            "callers": callers,
            "shape": shape,
            "seconds": seconds,
        }

    if quick:
        return [cell("asyncio", 0, count) for count in (1, 64, 512)]
    made = []
    for loop in loops():
        # With the handler on a thread the loop has a small part: one kind of loop for the whole range.
        whole = form == "loop" or loop == "asyncio"
        made += [cell(loop, 0, count) for count in (CALLERS if whole else (64, 512))]
        made += [cell(loop, 1, count) for count in ((1, 64, 512) if whole else (512,))]
        made.append(cell(loop, 0, GATHERED, "gather"))
    return made


def tables(runs: Sequence[contest.Run], contenders: Sequence[str]) -> list[Table]:
    keys = {"loop": "loop", "wait_ms": "wait ms", "callers": "callers", "shape": "shape"}
    over = [("carpool", "hand"), ("carpool", "bare")]
    made = [grid("CPU µs per request", runs, contenders, keys, "cpu_us", over)]
    if any(run["order"]["form"] == "thread" for run in runs):
        made.append(grid("Wall µs per request", runs, contenders, keys, "wall_us", over))
    served = [run for run in runs if run.get("mean_batch")]
    made.append(grid("Mean batch", served, contenders, keys, "mean_batch", [], detail=True))
    return made


def refuses(contender: peers.Contender, cell: Cell) -> str | None:
    few = cell["loop"] == "asyncio" and not cell["wait_ms"] and cell["callers"] in (1, 64, 512)
    if contender.big and not few:
        return "a part of the cells is enough, for the time it takes"
    return contender.refuses(cell["form"], cell["wait_ms"])


def workload(name: str, form: peers.Form, title: str, others: tuple[str, ...]) -> Workload:
    floors = ("hand", "bare") if form == "loop" else ("hand",)
    return Workload(
        name=name,
        title=title,
        contenders=("carpool", *floors, *others),
        floors=floors,
        cells=lambda quick: cells(form, quick),
        one=one,
        tables=tables,
        refuses=refuses,
    )


LIBRARIES: tuple[str, ...] = (
    "batched-aio",
    "async-batcher",
    "aiodataloader",
    "ray-serve",
    "bentoml",
)

ON_LOOP = workload("W1", "loop", "Awaiting, the handler on the loop", LIBRARIES)
OFF_LOOP = workload(
    "W1o", "thread", "Awaiting, the handler on a worker thread", ("batched", *LIBRARIES)
)
