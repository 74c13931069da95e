"""Memory per pending request, and what an idle batcher does: wake-ups of its threads.

Pending: so many requests are made and none is answered; what the process has grown by (resident memory, and
the blocks Python and malloc have handed out) is divided by their number; then all are answered and checked. "call":
what the call itself returns is kept in a list; "task": each call stands in a task, as a web handler does. A
call that is a coroutine is pending only in a task.

Idle: the batcher serves some requests and is left alone; the voluntary context switches of all threads over a
window say how often one woke up and went to sleep again. Polling shows as hundreds per second.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contest
import peers

from .workload import (
    Cell,
    Order,
    Table,
    Workload,
    cells_in,
    figures,
    grid,
    new_loop,
    number,
    present,
    run_on,
)

PENDING = 100_000
COROUTINE = "its call is a coroutine: nothing is pending before a task runs it"
COROUTINES = ("batched", "batched-aio", "async-batcher", "ray-serve", "bentoml")


def resident() -> int:
    """Bytes of memory this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def malloced() -> int:
    """Bytes in use by malloc; Python's small objects lie in arenas, which are not malloc's."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return 0
    ask.restype = _Mallinfo2
    info = ask()
    return int(info.uordblks + info.hblkhd)


class Gate:
    """The trivial handler. On the loop nothing runs while requests are made; on a thread a gate holds it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()

    def serve(self, items: list[int]) -> list[int]:
        self.open.wait()
        return [item + 1 for item in items]


async def pending(order: Order) -> contest.Run:
    gate = Gate()
    held: asyncio.Event = asyncio.Event()
    held.set()
    count, contender = order["pending"], order["contender"]
    loop = asyncio.get_running_loop()
    door = peers.ALL[contender].open(peers.Asked(order["form"], gate.serve, 64, 0, loop))

    async def caller(item: int) -> int:
        answer: int = await door.call(item)
        return answer

    items = list(range(1_000, 1_000 + count))
    kept: list[Any] = [None] * count
    for item in items[:200]:  # threads, pages, free lists
        assert await caller(item) == item + 1
    gate.open.clear()
    gc.collect()
    gc.disable()
    before, before_malloc = resident(), malloced()
    if order["held"] == "task":
        for number_, item in enumerate(items):
            kept[number_] = loop.create_task(caller(item))
        # One turn of the loop: every task makes its call. A handler on the loop must not run in it.
        await asyncio.sleep(0)
    else:
        for number_, item in enumerate(items):
            kept[number_] = door.call(item)
    grown, grown_malloc = resident() - before, malloced() - before_malloc
    gc.enable()
    gate.open.set()
    answers = await asyncio.gather(*kept)
    wrong = sum(answer != item + 1 for answer, item in zip(answers, items, strict=True))
    door.close()
    return {
        "wrong": wrong,
        "bytes": grown / count,
        "malloc_bytes": grown_malloc / count,
        "object_bytes": sys.getsizeof(kept[0]),
    }


async def submitted(order: Order) -> contest.Run:
    """carpool's `submit` from a thread: a concurrent future per request."""
    import carpool

    gate = Gate()
    served: Any = carpool.batched(max_batch_size=64, max_queue=2 * order["pending"])(gate.serve)
    count = order["pending"]
    items = list(range(1_000, 1_000 + count))
    kept: list[Any] = [None] * count
    for item in items[:200]:
        assert served.submit(item).result() == item + 1
    gate.open.clear()
    gc.collect()
    gc.disable()
    before, before_malloc = resident(), malloced()
    for number_, item in enumerate(items):
        kept[number_] = served.submit(item)
    grown, grown_malloc = resident() - before, malloced() - before_malloc
    gc.enable()
    gate.open.set()
    wrong = sum(future.result() != item + 1 for future, item in zip(kept, items, strict=True))
    served.close()
    return {
        "wrong": wrong,
        "bytes": grown / count,
        "malloc_bytes": grown_malloc / count,
        "object_bytes": sys.getsizeof(kept[0]),
    }


def switches() -> int:
    """Voluntary context switches so far of every thread of this process but the calling one."""
    own, total = threading.get_native_id(), 0
    for status in Path("/proc/self/task").glob("*/status"):
        if status.parent.name == str(own):
            continue
        lines = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
        total += int(lines["voluntary_ctxt_switches"])
    return total


def idle(order: Order) -> contest.Run:
    """A batcher used, left alone, watched from this thread; a loop runs in a thread of its own."""
    contender = peers.ALL[order["contender"]]
    form: peers.Form = order["form"]
    loop = new_loop("asyncio")
    runner: threading.Thread | None = None
    if form != "blocking":
        runner = threading.Thread(target=loop.run_forever, daemon=True)
        runner.start()

    async def opened() -> peers.Door:
        return contender.open(peers.Asked(form, Gate().serve, 8, 2, loop))

    async def ask(item: int) -> int:
        answer: int = await door.call(item)
        return answer

    if runner is None:
        door = contender.open(peers.Asked(form, Gate().serve, 8, 2))
        wrong = sum(door.call(item) != item + 1 for item in range(20))
    else:
        door = asyncio.run_coroutine_threadsafe(opened(), loop).result()
        wrong = sum(
            asyncio.run_coroutine_threadsafe(ask(item), loop).result() != item + 1
            for item in range(20)
        )
    time.sleep(0.3)  # threads that go to rest after their last request
    before, cpu = switches(), time.process_time()
    time.sleep(order["window_s"])
    woken, cpu = switches() - before, time.process_time() - cpu
    return {
        "wrong": wrong,
        "wakeups_per_s": woken / order["window_s"],
        "cpu_percent": cpu * 100 / order["window_s"],
    }


def one(order: Order) -> contest.Run:
    if order["what"] == "idle":
        return idle(order)
    if order["contender"] == "carpool" and order["held"] == "submit":
        return run_on(new_loop("asyncio"), submitted(order))
    return run_on(new_loop("asyncio"), pending(order))


def cells(quick: bool) -> list[Cell]:
    held: list[tuple[peers.Form, str]] = [("loop", "call"), ("thread", "task")]
    forms: list[peers.Form] = ["blocking", "loop"]
    if not quick:
        held += [("loop", "task"), ("thread", "call"), ("thread", "submit")]
        forms += ["thread"]
    count = PENDING // 10 if quick else PENDING
    window_s = 0.5 if quick else 3
    return [
        *({"what": "pending", "form": form, "held": how, "pending": count} for form, how in held),
        *({"what": "idle", "form": form, "window_s": window_s} for form in forms),
    ]


def tables(runs: Sequence[contest.Run], contenders: Sequence[str]) -> list[Table]:
    made = []
    if waiting := contest.of(runs, what="pending"):
        keys = {"form": "handler on", "held": "kept as"}
        over = [("carpool", "hand"), ("carpool", "bare")]
        made.append(
            grid(
                "Bytes of resident memory per pending request",
                waiting,
                contenders,
                keys,
                "bytes",
                over,
            )
        )
        made.append(grid("Bytes of malloc in it", waiting, contenders, keys, "malloc_bytes", []))
    if resting := contest.of(runs, what="idle"):
        names = present(resting, contenders)
        rows = []
        for cell in cells_in(resting, "form"):
            own = figures(resting, names, **cell)
            rows.append(
                [
                    cell["form"],
                    *(
                        number(contest.middle(own[name], "wakeups_per_s"), 1)
                        if name in own
                        else "-"
                        for name in names
                    ),
                ]
            )
        made.append(
            Table("Wake-ups per second of an idle batcher, wait 2 ms", ["form", *names], rows)
        )
    return made


def refuses(contender: peers.Contender, cell: Cell) -> str | None:
    if cell["what"] == "idle":
        wait_ms = 0 if contender.name == "aiodataloader" else 2
        return contender.refuses(cell["form"], wait_ms)
    if cell["held"] == "submit" and contender.name != "carpool":
        return "carpool's own"
    if cell["held"] == "call" and contender.name in COROUTINES:
        return COROUTINE
    return contender.refuses(cell["form"], 0)


MEMORY = Workload(
    name="memory",
    title="Memory and rest",
    contenders=(
        *("carpool", "carpool-caller", "hand", "bare"),
        *("batched", "batched-aio", "async-batcher", "aiodataloader", "ray-serve", "bentoml"),
    ),
    floors=("hand", "bare"),
    cells=cells,
    one=one,
    tables=tables,
    refuses=refuses,
    repetitions=2,
)
