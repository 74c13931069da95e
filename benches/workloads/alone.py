"""W4: a lone request on an idle batcher. How late does it leave after its wait, and how late is the answer?

Once on an idle machine and once with another Python thread that computes without end and so holds the GIL,
save when it is asked for it (every 5 ms). The decision is late by `batch.waited_ms - wait_ms`, the batcher's
own clock (a loop over carpool's `Batcher`); the handler by the time from the call to its first line, less the wait; the
answer by what the caller saw after the handler's last line. Never early: none of the first two may be below zero.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import contest
import peers

from .workload import Cell, Order, Table, Workload, cells_in, figures, new_loop, present, run_on

WAITS_MS = (2, 5, 10)
FORMS: tuple[peers.Form, ...] = ("blocking", "loop")
STAGES = ("decision", "handler", "answer")
RANKS = ("min", "p50", "p99")


class Entered:
    """A handler that keeps when it was entered and left."""

    def __init__(self) -> None:
        self.at = self.left = 0

    def serve(self, items: list[int]) -> list[int]:
        self.at = time.monotonic_ns()
        results = [item + 1 for item in items]
        self.left = time.monotonic_ns()
        return results


class Burning:
    """A thread that computes until told to stop."""

    def __init__(self, wanted: bool) -> None:
        self._stop = False
        self._thread = threading.Thread(target=self._burn, daemon=True) if wanted else None

    def __enter__(self) -> None:
        if self._thread is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop = True
        if self._thread is not None:
            self._thread.join()

    def _burn(self) -> None:
        number = 0
        while not self._stop:
            number += 1


class Lateness:
    """Collects what each lone request saw."""

    def __init__(self, entered: Entered, wait_ms: int) -> None:
        self._entered = entered
        self._wait_ms = wait_ms
        self.waited: list[float] = []
        self._handler: list[float] = []
        self._answer: list[float] = []
        self._wrong = 0

    def note(self, item: int, answer: int, asked: int, answered: int) -> None:
        self._wrong += answer != item + 1
        self._handler.append((self._entered.at - asked) / 1e3 - self._wait_ms * 1e3)
        self._answer.append((answered - self._entered.left) / 1e3)

    def run(self) -> contest.Run:
        decision = [(ms - self._wait_ms) * 1e3 for ms in self.waited]
        run: contest.Run = {"wrong": self._wrong}
        for name, values in zip(STAGES, (decision, self._handler, self._answer), strict=True):
            ordered = sorted(values)
            run[f"{name}_min_us"] = ordered[0] if ordered else float("nan")
            for p in (50, 99):
                run[f"{name}_p{p}_us"] = contest.percentile(ordered, p)
        return run


def batcher_loop(entered: Entered, order: Order, waited: list[float]) -> peers.Door:
    """carpool's `Batcher`, served by a thread here, which tells when the batch was sealed."""
    import carpool

    batcher: Any = carpool.Batcher(max_batch_size=8, wait_ms=order["wait_ms"])

    def serve() -> None:
        for batch in batcher:
            results = entered.serve(batch.items)
            waited.append(batch.waited_ms)
            batch.complete(results)

    threading.Thread(target=serve, name="serving", daemon=True).start()
    return peers.Door(batcher, batcher.close)


def asked(order: Order, entered: Entered) -> peers.Asked:
    loop = asyncio.get_running_loop() if order["form"] == "loop" else None
    return peers.Asked(order["form"], entered.serve, 8, order["wait_ms"], loop)


def blocking(order: Order) -> contest.Run:
    entered = Entered()
    late = Lateness(entered, order["wait_ms"])
    if order["contender"] == "carpool":
        door = batcher_loop(entered, order, late.waited)
    else:
        door = peers.ALL[order["contender"]].open(asked(order, entered))
    rng = random.Random(order["wait_ms"])
    door.call(0)
    late.waited.clear()
    with Burning(order["burning"]):
        for item in range(1, order["requests"] + 1):
            time.sleep(rng.uniform(0.0005, 0.003))
            begin = time.monotonic_ns()
            answer = door.call(item)
            late.note(item, answer, begin, time.monotonic_ns())
    door.close()
    return late.run()


async def awaiting(order: Order) -> contest.Run:
    entered = Entered()
    late = Lateness(entered, order["wait_ms"])
    door = peers.ALL[order["contender"]].open(asked(order, entered))
    rng = random.Random(order["wait_ms"])
    await door.call(0)
    with Burning(order["burning"]):
        for item in range(1, order["requests"] + 1):
            await asyncio.sleep(rng.uniform(0.0005, 0.003))
            begin = time.monotonic_ns()
            answer = await door.call(item)
            late.note(item, answer, begin, time.monotonic_ns())
    door.close()
    return late.run()


def one(order: Order) -> contest.Run:
    if order["form"] == "blocking":
        return blocking(order)
    return run_on(new_loop("asyncio"), awaiting(order))


def cells(quick: bool) -> list[Cell]:
    return [
        {
            "form": form,
            "burning": burning,
            "wait_ms": wait_ms,
            "requests": 40 if quick else 60 if burning else 200,
        }
        for form in FORMS
        for burning in (False, True)
        for wait_ms in ((2,) if quick else WAITS_MS)
    ]


def tables(runs: Sequence[contest.Run], contenders: Sequence[str]) -> list[Table]:
    names = present(runs, contenders)
    made = []
    for form, title in (
        ("blocking", "Blocking calls"),
        ("loop", "Awaited, the handler on the loop"),
    ):
        rows = []
        for cell in cells_in(contest.of(runs, form=form), "burning", "wait_ms"):
            for name, own in figures(runs, names, form=form, **cell).items():
                row = ["burns" if cell["burning"] else "idle", str(cell["wait_ms"]), name]
                row += [spelt(own, stage) for stage in STAGES]
                rows.append(row)
        head = (
            "machine",
            "wait ms",
            "contender",
            *(f"{s} late min / p50 / p99 µs" for s in STAGES),
        )
        if rows:
            made.append(Table(title, head, rows))
    return made


def spelt(own: Sequence[contest.Run], stage: str) -> str:
    values = [contest.middle(own, f"{stage}_{rank}_us") for rank in RANKS]
    return "-" if values[0] != values[0] else " / ".join(f"{value:.0f}" for value in values)


def refuses(contender: peers.Contender, cell: Cell) -> str | None:
    if contender.name == "bentoml":
        return "it learns its wait: there is none to be late for"
    return contender.refuses(cell["form"], cell["wait_ms"])


ALONE = Workload(
    name="W4",
    title="A lone request",
    contenders=(
        *("carpool", "carpool-caller", "hand"),
        *("batched", "batched-aio", "async-batcher", "ray-serve", "bentoml"),
    ),
    floors=("hand",),
    cells=cells,
    one=one,
    tables=tables,
    refuses=refuses,
    repetitions=2,
)
