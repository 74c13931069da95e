"""Latency targets, live: Poisson arrivals by the clock on the wall, a handler that sleeps, and four ways to batch.

    python benches/live_target.py [--seconds 4] [--loads 30 70 90] [--seed 1]

A batch of n takes 5 ms and 0.2 ms per request, the largest is 64, the target 50 ms. What is compared in virtual
time at length (`make bench-target`) is seen here through threads, timers and the interpreter. The others: fixed
settings; AIMD (one more after each full batch in time, a tenth less after a late one); a fit of `a·n + b`, which
holds while that gains and refuses what by the fit would be late, looked at every millisecond.
"""

from __future__ import annotations

import argparse
import functools
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from carpool import Batcher, batched

FIXED, EACH, MOST, TARGET = 0.005, 0.0002, 64, 0.050
CAPACITY = MOST / (FIXED + EACH * MOST)


class Handler:
    """Sleeps, and notes for how long in all and how many requests it had."""

    def __init__(self) -> None:
        self.busy = 0.0
        self.answers = 0

    def __call__(self, items: list[float]) -> list[float]:
        start = time.perf_counter()
        time.sleep(FIXED + EACH * len(items))
        self.busy += time.perf_counter() - start
        self.answers += len(items)
        return items


Submit = Callable[[float], Any]


def carpool(**options: Any) -> tuple[Handler, Submit, Callable[[], None]]:
    handler = Handler()

    decorate: Any = batched(max_batch_size=MOST, max_queue=10**6, **options)
    run = decorate(lambda items: handler(items))

    def close() -> None:
        run.close(timeout=20)

    return handler, run.submit, close


def aimd() -> tuple[Handler, Submit, Callable[[], None]]:
    handler = Handler()
    batcher: Batcher[float, float] = Batcher(max_batch_size=MOST, max_queue=10**6)

    def work() -> None:
        limit = 1.0
        while (batch := batcher.next_batch(max_size=int(limit))) is not None:
            start = time.perf_counter()
            batch.complete(handler(batch.items))
            if time.perf_counter() - start > TARGET:
                limit = max(1.0, limit * 0.9)
            elif len(batch) >= int(limit):
                limit = min(limit + 1, MOST)

    threading.Thread(target=work, daemon=True).start()

    def close() -> None:
        batcher.close(timeout=20)

    return handler, batcher.submit, close


def fit() -> tuple[Handler, Submit, Callable[[], None]]:
    handler = Handler()
    queue: deque[tuple[float, Future[Any]]] = deque()
    samples: deque[tuple[int, float, float]] = deque(maxlen=50)
    closing = threading.Event()

    def line() -> tuple[float, float, float]:
        if len(samples) < 3:
            return 0.0, 0.0, 0.001
        count = len(samples)
        size = sum(n for n, _, _ in samples) / count
        run = sum(one for _, one, _ in samples) / count
        spread = sum((n - size) ** 2 for n, _, _ in samples)
        joint = sum((n - size) * (one - run) for n, one, _ in samples)
        a = max(0.0, joint / spread) if spread else 0.0
        return a, max(0.0, run - a * size), sum(wait for _, _, wait in samples) / count

    def work() -> None:
        while queue or not closing.is_set():
            if not queue:
                time.sleep(0.001)
                continue
            a, b, usual = line()
            now, n = time.perf_counter(), len(queue)
            if n > 1 and now - queue[0][0] + a * n + b >= TARGET:
                queue.popleft()[1].cancel()
                continue
            if n < MOST and n * (now - queue[-1][0] + 0.001 + a) <= usual * 0.95:
                time.sleep(0.001)
                continue
            batch = [queue.popleft() for _ in range(min(n, MOST))]
            start = time.perf_counter()
            handler([item for item, _ in batch])
            samples.append((len(batch), time.perf_counter() - start, start - batch[0][0]))
            for item, future in batch:
                future.set_result(item)

    def submit(item: float) -> Future[Any]:
        future: Future[Any] = Future()
        queue.append((item, future))
        return future

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def close() -> None:
        closing.set()
        thread.join(20)

    return handler, submit, close


SCHEMES: dict[str, Callable[[], tuple[Handler, Submit, Callable[[], None]]]] = {
    "target_ms=50": lambda: carpool(target_ms=TARGET * 1e3),
    "fixed, no wait": lambda: carpool(),
    "fixed, wait_ms=10": lambda: carpool(wait_ms=10),
    "AIMD": aimd,
    "a·n + b": fit,
}


def _note(latencies: list[float], arrived: float, future: Any) -> None:
    if not future.cancelled():
        latencies.append(time.perf_counter() - arrived)


def play(name: str, load: float, seconds: float, seed: int) -> str:
    """One line: what came of `seconds` of arrivals."""
    dice = random.Random(seed)
    handler, submit, close = SCHEMES[name]()
    latencies: list[float] = []
    futures = []
    start = moment = time.perf_counter()
    while moment < start + seconds:
        moment += dice.expovariate(load * CAPACITY)
        while (left := moment - time.perf_counter()) > 0:
            time.sleep(left)
        arrived = time.perf_counter()
        future = submit(arrived)
        future.add_done_callback(functools.partial(_note, latencies, arrived))
        futures.append(future)
    close()
    dropped = sum(future.cancelled() for future in futures)
    latencies.sort()
    late = sum(one > TARGET for one in latencies) + dropped
    rank = -(-len(futures) * 99 // 100) - 1
    p99 = f"{1e3 * latencies[rank]:8.1f}" if rank < len(latencies) else "    none"
    return (
        f"{name:20} {load:4.0%} {p99} {1 - late / len(futures):9.2%} {dropped / len(futures):9.2%}"
        f" {handler.answers / handler.busy:12.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--loads", type=int, nargs="+", default=[30, 70, 90])
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{'':20} load   p99 ms   in time   dropped   per busy s")
    for load in given.loads:
        for name in SCHEMES:
            print(play(name, load / 100, given.seconds, given.seed), flush=True)


if __name__ == "__main__":
    main()
