"""The handler of W3, which stands for a device, and the trace of arrivals it is fed with."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import subprocess
import threading
import time
from array import array
from collections.abc import Awaitable, Callable
from itertools import accumulate
from pathlib import Path

from timer import Timer

ROOT = Path(__file__).resolve().parents[2]
MAX_BATCH_SIZE = 32
WAIT_NS = 2_000_000
BASE_NS = 2_000_000
PER_ITEM_NS = 20_000


def nominal(size: int) -> int:
    """Nanoseconds the device needs for a batch."""
    return BASE_NS + PER_ITEM_NS * size


CAPACITY = MAX_BATCH_SIZE / nominal(MAX_BATCH_SIZE) * 1e9


def spinner() -> Callable[[int], None]:
    """Passes so many nanoseconds at work, without the GIL.

    Nothing in Python's library does that: it is a few lines of Rust, built at first use.
    """
    library = ROOT / "target" / "benches" / "libspin.so"
    source = ROOT / "benches" / "spin.rs"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        library.parent.mkdir(parents=True, exist_ok=True)
        made = library.with_suffix(f".{os.getpid()}")
        flags = ("--edition", "2024", "-O", "--crate-type", "cdylib", "-o", str(made))
        subprocess.run(["rustc", *flags, str(source)], check=True)
        made.replace(library)
    spin = ctypes.CDLL(str(library)).spin
    spin.argtypes, spin.restype = (ctypes.c_uint64,), None
    return spin


class Device:
    """Waits without the GIL as long as the batch takes, and keeps (entered, left, items) of each run.

    The last of a wait it spends at work: a machine that was idle wakes tens of microseconds late.
    """

    AWAKE_NS = 150_000

    def __init__(self) -> None:
        self.runs: list[tuple[int, int, list[int]]] = []
        self._own = threading.local()
        self._spin = spinner()

    def serve(self, items: list[int]) -> list[int]:
        entered = time.monotonic_ns()
        timer: Timer | None = getattr(self._own, "timer", None)
        if timer is None:
            timer = self._own.timer = Timer(blocking=True)
        end = entered + nominal(len(items))
        timer.wait_until(end - self.AWAKE_NS)
        self._spin(max(0, end - time.monotonic_ns()))
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

    async def play(self, patience_s: float) -> int:
        """Runs the whole trace; returns when all are answered, or so long after the last arrival.

        How many had no answer by then: they count as answered now, which flatters their contender.
        """
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
        limit = (self.drawn[-1] - time.monotonic_ns()) / 1e9 + patience_s
        # Not wait_for around it: a timer in the loop that never rings is the same for all.
        alarm = loop.call_later(limit, self._give_up)
        await self._ended
        alarm.cancel()
        loop.remove_reader(timer.fd)
        timer.close()
        now, unanswered = time.monotonic_ns(), 0
        for number, at in enumerate(self.answered):
            if not at:
                self.arrived[number] = self.arrived[number] or self.drawn[number]
                self.answered[number] = now
                unanswered += 1
        return unanswered

    def _give_up(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def _caller(self, number: int) -> None:
        self.arrived[number] = time.monotonic_ns()
        answer = await self._call(number)
        self.answered[number] = time.monotonic_ns()
        self.wrong += answer != number + 1
        self._left -= 1
        if not self._left and not self._ended.done():
            self._ended.set_result(None)
