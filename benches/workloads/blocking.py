"""W2: what a blocking call costs. T threads call in a closed loop; the handler is trivial, sleeps or computes.

Threads run until a bell rings, so that slow contenders take no longer than fast ones. Beside CPU per
request and the mean batch each thread keeps its longest gap between two answers: a batcher can be good on average while
single callers starve behind the GIL.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence

import contest
import peers

from .workload import Cell, Order, Table, Workload, grid

THREADS = (1, 4, 32, 128)
HANDLERS = ("trivial", "sleeps 1 ms", "computes 100 µs")
MAX_BATCH_SIZE = 64
LONG_S, QUICK_S = 0.8, 0.25


def calibrated(microseconds: float) -> int:
    """Turns of `spin` that take so long on this machine, this minute: the fastest of many looks."""
    turns, best = 2_000, float("inf")
    for _ in range(300):
        start = time.perf_counter()
        spin(turns)
        best = min(best, time.perf_counter() - start)
    return max(1, round(turns * microseconds / (best * 1e6)))


def spin(turns: int) -> int:
    """Computes with the GIL held."""
    total = 0
    for number in range(turns):
        total += number
    return total


class Counted:
    """The handler of one kind; counts what it was given."""

    def __init__(self, kind: str, turns: int) -> None:
        self.batches = self.items = 0
        self._turns = turns if kind.startswith("computes") else 0
        self._sleeps = kind.startswith("sleeps")

    def handler(self) -> peers.Handler:
        turns, sleeps = self._turns, self._sleeps

        def served(items: list[int]) -> list[int]:
            self.batches += 1
            self.items += len(items)
            if sleeps:
                time.sleep(0.001)
            elif turns:
                spin(turns)
            return [item + 1 for item in items]

        return served


class Caller(threading.Thread):
    """Calls until told to stop; keeps its count, its longest gap and its wrong answers."""

    def __init__(self, door: peers.Door, base: int, line: threading.Event) -> None:
        super().__init__(daemon=True)
        self._line = line
        self._call = door.call
        self._base = base
        self.stop = False
        self.answered = self.wrong = 0
        self.counted_from = 0
        self.gap = 0.0
        self.error: BaseException | None = None

    def run(self) -> None:
        call, clock, item = self._call, time.perf_counter, self._base
        # Without a start line a hundred threads that run already make each new one wait for its turn.
        self._line.wait()
        try:
            last = clock()
            while not self.stop:
                if call(item) != item + 1:
                    self.wrong += 1
                item += 1
                self.answered += 1
                now = clock()
                if now - last > self.gap:
                    self.gap = now - last
                last = now
        except BaseException as error:
            self.error = error


def one(order: Order) -> contest.Run:
    counted = Counted(order["handler"], order["turns"])
    door = peers.ALL[order["contender"]].open(
        peers.Asked("blocking", counted.handler(), MAX_BATCH_SIZE, order["wait_ms"])
    )
    line = threading.Event()
    callers = [Caller(door, (number + 1) * 100_000_000, line) for number in range(order["threads"])]
    for caller in callers:
        caller.start()
    gc.collect()
    line.set()
    time.sleep(order["seconds"] / 4)
    for caller in callers:
        caller.gap = 0.0
        caller.counted_from = caller.answered
    batches, items = counted.batches, counted.items
    cpu, wall = time.process_time(), time.perf_counter()
    time.sleep(order["seconds"])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    requests = sum(caller.answered - caller.counted_from for caller in callers)
    batches, items = counted.batches - batches, counted.items - items
    for caller in callers:
        caller.stop = True
    for caller in callers:
        caller.join()
        if caller.error is not None:
            raise caller.error
    door.close()
    return {
        "cpu_us": cpu * 1e6 / max(requests, 1),
        "wall_us": wall * 1e6 / max(requests, 1),
        "mean_batch": items / max(batches, 1),
        # A caller that never came back in the whole window counts with all of it.
        "gap_ms": max(caller.gap for caller in callers) * 1e3,
        "requests": requests,
        "wrong": sum(caller.wrong for caller in callers),
    }


def cells(quick: bool) -> list[Cell]:
    turns = calibrated(100)  # once: the same work for all
    seconds = QUICK_S if quick else LONG_S
    places = [(handler, threads) for handler in HANDLERS for threads in THREADS]
    if quick:
        places = [("trivial", 1), *((handler, 32) for handler in HANDLERS)]
    return [
        {"turns": turns, "handler": handler, "threads": threads, "wait_ms": 0, "seconds": seconds}
        for handler, threads in places
    ]


def tables(runs: Sequence[contest.Run], contenders: Sequence[str]) -> list[Table]:
    keys = {"handler": "handler", "threads": "threads"}
    over = [("carpool-caller", "leader"), ("carpool", "hand")]
    return [
        grid("CPU µs per request", runs, contenders, keys, "cpu_us", over),
        grid("Wall µs per request, all threads together", runs, contenders, keys, "wall_us", over),
        grid("Mean batch", runs, contenders, keys, "mean_batch", []),
        grid(
            "Longest gap of one caller between two answers, ms",
            runs,
            contenders,
            keys,
            "gap_ms",
            [],
        ),
    ]


def refuses(contender: peers.Contender, cell: Cell) -> str | None:
    return contender.refuses("blocking", cell["wait_ms"])


FLOORS = ("direct", "leader", "hand")
BLOCKING = Workload(
    name="W2",
    title="Blocking calls",
    contenders=("carpool-caller", "carpool", *FLOORS, "batched"),
    floors=FLOORS,
    cells=cells,
    one=one,
    tables=tables,
    refuses=refuses,
)
