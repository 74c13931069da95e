"""Quiet hours: wake-ups of an idle batcher, and how late a lone request leaves.

Wake-ups: a batcher of each kind serves a few requests and is then left alone; the voluntary context switches
of every thread of the process over a window say how often a thread woke up and went to sleep again. Polling
would show as hundreds per second; the target is none.

Lateness: lone requests on an idle batcher with `wait_ms` of 2, 5 and 10, one after the other with pauses of
uneven length. The decision is late by `batch.waited_ms - wait_ms` (the batcher's own clock, `Batcher` loop);
the handler by the time from the call to its first line, less the wait; the answer by what the caller saw
after the handler's last line. Never early: none of the first two below zero.

    python benches/idle.py [--quick] [--json PATH]
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import contest
import floors

WAITS_MS = (2, 5, 10)
KINDS = ("thread", "loop", "caller", "Batcher")


def switches() -> dict[str, int]:
    """Voluntary context switches so far of every thread of this process but the calling one."""
    own = threading.get_native_id()
    counts: dict[str, int] = {}
    for status in Path("/proc/self/task").glob("*/status"):
        if status.parent.name == str(own):
            continue
        lines = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
        counts[f"{lines['Name'].strip()} {status.parent.name}"] = int(
            lines["voluntary_ctxt_switches"]
        )
    return counts


def on_a_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    started = threading.Thread(target=target, name=name, daemon=True)
    started.start()
    return started


def open_batcher(kind: str) -> tuple[Callable[[int], int], Callable[[], None]]:
    """A carpool batcher of this kind: a blocking call to it, and how it is closed."""
    import carpool

    options: dict[str, Any] = {"max_batch_size": 8, "wait_ms": 2}

    def plain(items: list[int]) -> list[int]:
        return [item + 1 for item in items]

    if kind == "loop":
        loop = asyncio.new_event_loop()

        async def awaited(items: list[int]) -> list[int]:
            return plain(items)

        on_loop: Any = carpool.batched(**options)(awaited)

        async def ask(item: int) -> int:
            answer: int = await on_loop(item)
            return answer

        runner = on_a_thread("loop", loop.run_forever)

        def stop() -> None:
            asyncio.run_coroutine_threadsafe(on_loop.aclose(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            runner.join()

        return lambda item: asyncio.run_coroutine_threadsafe(ask(item), loop).result(), stop
    if kind == "Batcher":
        batcher: Any = carpool.Batcher(**options)

        def serve() -> None:
            for batch in batcher:
                batch.complete(plain(batch.items))

        on_a_thread("serving", serve)
        return batcher, batcher.close
    options["executor"] = kind
    served: Any = carpool.batched(**options)(plain)
    return served, served.close


def wakeups(kind: str, window_s: float) -> contest.Run:
    """One batcher: used, left alone, watched."""
    ask, close = open_batcher(kind)
    wrong = sum(ask(item) != item + 1 for item in range(20))
    time.sleep(0.2)  # threads that go to rest after their last request
    before = switches()
    time.sleep(window_s)
    after = switches()
    woken = {name: count - before.get(name, 0) for name, count in after.items()}
    close()
    return {"wrong": wrong, "wakeups": sum(woken.values()), "threads": woken, "window_s": window_s}


class Entered:
    """A handler that keeps when it was entered and left."""

    def __init__(self) -> None:
        self.at = self.left = 0

    def __call__(self, items: list[int]) -> list[int]:
        self.at = time.monotonic_ns()
        results = [item + 1 for item in items]
        self.left = time.monotonic_ns()
        return results


def lone(contender: str, wait_ms: int, requests: int) -> contest.Run:
    """Lone requests: lateness of decision, handler and answer in microseconds."""
    entered = Entered()
    waited: list[float] = []
    if contender == "hand":
        ask, close = lone_hand(entered, wait_ms)
    else:
        ask, close = lone_carpool(entered, wait_ms, waited)
    rng = random.Random(wait_ms)
    wrong = 0
    handler: list[float] = []
    answer: list[float] = []
    for item in range(requests):
        time.sleep(rng.uniform(0.0005, 0.003))
        asked = time.monotonic_ns()
        wrong += ask(item) != item + 1
        answered = time.monotonic_ns()
        handler.append((entered.at - asked) / 1e3 - wait_ms * 1e3)
        answer.append((answered - entered.left) / 1e3)
    close()
    decision = [(ms - wait_ms) * 1e3 for ms in waited]
    run: contest.Run = {"wrong": wrong}
    for name, values in (("decision", decision), ("handler", handler), ("answer", answer)):
        ordered = sorted(values)
        run[f"{name}_min_us"] = ordered[0] if ordered else float("nan")
        for p in (50, 99):
            run[f"{name}_p{p}_us"] = contest.percentile(ordered, p)
    return run


def lone_carpool(
    entered: Entered, wait_ms: int, waited: list[float]
) -> tuple[Callable[[int], int], Callable[[], None]]:
    import carpool

    batcher: Any = carpool.Batcher(max_batch_size=8, wait_ms=wait_ms)

    def serve() -> None:
        for batch in batcher:
            results = entered(batch.items)
            waited.append(batch.waited_ms)
            batch.complete(results)

    on_a_thread("serving", serve)
    return batcher, batcher.close


def lone_hand(entered: Entered, wait_ms: int) -> tuple[Callable[[int], int], Callable[[], None]]:
    """The hand-written thread answers a loop; a loop on a thread asks it for the blocking caller."""
    loop = asyncio.new_event_loop()
    runner = on_a_thread("loop", loop.run_forever)
    hand = floors.HandThread(loop, entered, max_batch_size=8, wait_s=wait_ms / 1000)

    async def ask(item: int) -> int:
        answer: int = await hand(item)
        return answer

    def stop() -> None:
        hand.close()
        loop.call_soon_threadsafe(loop.stop)
        runner.join()

    return lambda item: asyncio.run_coroutine_threadsafe(ask(item), loop).result(), stop


def one(order: dict[str, Any]) -> contest.Run:
    if order["what"] == "wakeups":
        return wakeups(order["kind"], order["window_s"])
    return lone(order["contender"], order["wait_ms"], order["requests"])


def show_wakeups(runs: Sequence[contest.Run]) -> str:
    rows = [
        (
            run["order"]["kind"],
            f"{run['wakeups']}",
            f"{run['window_s']:g}",
            ", ".join(
                f"{name.rpartition(' ')[0]} {count}" for name, count in run["threads"].items()
            )
            or "none",
        )
        for run in runs
    ]
    return contest.table(("batcher", "wake-ups", "in s", "by thread"), rows)


def show_lone(runs: Sequence[contest.Run], contenders: Sequence[str]) -> str:
    names = ("decision", "handler", "answer")
    rows = []
    for wait_ms in WAITS_MS:
        for contender in contenders:
            own = contest.of(runs, contender=contender, wait_ms=wait_ms)
            figures = (
                " / ".join(
                    f"{contest.middle(own, f'{name}_{rank}_us'):.0f}"
                    for rank in ("min", "p50", "p99")
                )
                for name in names
            )
            rows.append(
                (
                    f"{wait_ms}",
                    contender,
                    *(text.replace("nan / nan / nan", "-") for text in figures),
                )
            )
    return contest.table(
        ("wait ms", "contender", *(f"{name} min / p50 / p99 µs" for name in names)), rows
    )


def main() -> None:
    command = contest.parser("Wake-ups and lateness of an idle batcher.", "idle", repetitions=3)
    asked = command.parse_args()
    if asked.one:
        contest.answer(one(json.loads(asked.one)))
    contenders = contest.taking_part(("carpool", "hand"), asked.only)
    repetitions = asked.repetitions or (1 if asked.quick else 3)
    before = contest.machine()
    watched: list[contest.Run] = []
    if "carpool" in contenders:
        quiet = [
            {"what": "wakeups", "kind": kind, "window_s": 1 if asked.quick else 5} for kind in KINDS
        ]
        watched = contest.rounds(__file__, quiet, ("carpool",), 1)
        print(f"Wake-ups while idle.\n\n{show_wakeups(watched)}\n")
    cells = [
        {"what": "lone", "wait_ms": wait_ms, "requests": 100 if asked.quick else 400}
        for wait_ms in WAITS_MS
    ]
    runs = contest.rounds(__file__, cells, contenders, repetitions)
    print(
        "Lone requests: how late the decision, the handler's entry and the answer were; medians of runs.\n"
    )
    print(show_lone(runs, contenders))
    contest.write(asked.json, [*watched, *runs], None, before)


if __name__ == "__main__":
    main()
