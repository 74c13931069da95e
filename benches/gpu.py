"""The handoff to a GPU, checked and measured: one run of under ten minutes on a machine with one GPU.

    python benches/gpu.py [--quick] [--device cpu]

1. Every answer is bit by bit what a synchronous copy gives, over 100 000 batches under random delays of all streams, and
   over a tenth as many of items that are on the device already.
2. What the card can do: copies up, down and both ways at once, and a matmul.
3. A small, a medium and a large model: a plain `.to("cuda")` ... `.cpu()` handler, a hand-written loop with two buffers and
   no callers, carpool, and carpool with CUDA graphs.

A short table comes last. "busy" is the time that the device was at the model's work, by events around each batch, over
the time of the run; "of best" the requests per second over those that the longer of copying and computing, each alone,
would allow: its target is 97 %. Without a GPU it says so and ends; with `--device cpu` everything runs in main memory,
with tiny models, to see that it does.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from carpool import batched
from carpool.collate import Stack
from gpu_equality import differing, differing_from_device
from gpu_models import MODELS, Model

BATCH = 32
#: Requests that wait for their answers at any time, in batches.
AHEAD = 4


class Line(NamedTuple):
    """One line of the table."""

    model: str
    handler: str
    busy: float
    of_best: float
    rate: float
    p99_ms: float | None
    replayed: str


class Clock:
    """Time on a device, by events; on a CPU by the clock."""

    def __init__(self, device: str) -> None:
        self.is_gpu = device != "cpu"

    def mark(self) -> Any:
        """A moment on the current stream."""
        if not self.is_gpu:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Until the device has nothing to do."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def between(self, begin: Any, end: Any) -> float:
        """Seconds between two moments that have come."""
        return float(begin.elapsed_time(end)) / 1e3 if self.is_gpu else end - begin

    def seconds_of(self, work: Callable[[], object], times: int) -> float:
        """The median time of some work."""
        found = []
        for _ in range(times + 2):
            begin = self.mark()
            work()
            end = self.mark()
            self.wait()
            found.append(self.between(begin, end))
        return statistics.median(found[2:])


class Meter:
    """How long the device is at the work of batches: entered around each as their `context`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pairs: deque[tuple[Any, Any]] = deque()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with torch.inference_mode():
            begin = self._clock.mark()
            yield
            self._pairs.append((begin, self._clock.mark()))

    def begin(self) -> None:
        """Forgets what has been."""
        self._clock.wait()
        self._pairs.clear()

    def seconds(self) -> float:
        """How long, since then."""
        self._clock.wait()
        return sum(self._clock.between(*pair) for pair in self._pairs)


def ceilings(device: str, quick: bool) -> dict[str, float]:
    """GB/s of copies, and TFLOP/s of a bf16 matmul."""
    clock = Clock(device)
    size, width = (1 << 20, 128) if quick and not clock.is_gpu else (256 << 20, 8192)
    times = 5 if quick else 20
    host = [torch.empty(size, dtype=torch.uint8, pin_memory=clock.is_gpu) for _ in range(2)]
    there = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2)]
    square = torch.randn(width, width, device=device, dtype=torch.bfloat16)
    streams: list[Any] = [torch.cuda.Stream() if clock.is_gpu else None for _ in range(2)]

    def both() -> None:
        for at, (to, of) in enumerate(((there[0], host[0]), (host[1], there[1]))):
            if streams[at] is None:
                to.copy_(of)
                continue
            streams[at].wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(streams[at]):
                to.copy_(of, non_blocking=True)
        for stream in filter(None, streams):
            torch.cuda.current_stream().wait_stream(stream)

    def up() -> None:
        there[0].copy_(host[0], non_blocking=True)

    def down() -> None:
        host[1].copy_(there[1], non_blocking=True)

    return {
        "up GB/s": size / clock.seconds_of(up, times) / 1e9,
        "down GB/s": size / clock.seconds_of(down, times) / 1e9,
        "both ways GB/s": 2 * size / clock.seconds_of(both, times) / 1e9,
        "bf16 TFLOP/s": 2 * width**3 / clock.seconds_of(lambda: square @ square, times) / 1e12,
    }


def offered(
    call: Callable[[Any], Any], rows: Sequence[Any], seconds: float
) -> tuple[float, float, float]:
    """Requests per second with some batches always waiting, the 99th percentile of a request in ms, and how long."""
    waiting: deque[tuple[float, Any]] = deque()
    took: list[float] = []
    at, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        while len(waiting) < AHEAD * BATCH:
            waiting.append((time.perf_counter(), call(rows[at % len(rows)])))
            at += 1
        since, future = waiting.popleft()
        future.result(60)
        took.append(time.perf_counter() - since)
    while waiting:
        since, future = waiting.popleft()
        future.result(60)
        took.append(time.perf_counter() - since)
    elapsed = time.perf_counter() - begin
    return len(took) / elapsed, sorted(took)[len(took) * 99 // 100] * 1e3, elapsed


def double_buffered(
    model: Any, rows: Sequence[Any], device: str, seconds: float, meter: Meter
) -> tuple[float, float]:
    """Requests per second of a loop by hand, without callers, and how long: two pinned buffers and two streams."""
    gpu = device != "cpu"
    streams: list[Any] = [torch.cuda.Stream() if gpu else None for _ in range(2)]
    like = torch.stack(list(rows[:BATCH]))
    hosts = [torch.empty_like(like, pin_memory=gpu) for _ in range(2)]
    with torch.inference_mode():
        out = model(like.to(device))
    outs = [torch.empty(out.shape, dtype=out.dtype, pin_memory=gpu) for _ in range(2)]
    done: list[Any] = [None, None]
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        at = count % 2
        if done[at] is not None:
            done[at].synchronize()
        torch.stack(list(rows[:BATCH]), out=hosts[at])
        with torch.cuda.stream(streams[at]) if gpu else contextlib.nullcontext():
            there = hosts[at].to(device, non_blocking=True)
            with meter():
                answers = model(there)
            outs[at].copy_(answers, non_blocking=True)
            if gpu:
                done[at] = torch.cuda.Event(blocking=True)
                done[at].record()
        count += 1
    if gpu:
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - begin
    return count * BATCH / elapsed, elapsed


def measured(kind: Model, device: str, seconds: float) -> list[Line]:
    """The lines of one model."""
    clock, seed = Clock(device), torch.Generator().manual_seed(4)
    model = kind.make().to(device, torch.bfloat16).eval()
    rows = [kind.item(seed) for _ in range(8 * BATCH)]
    host = torch.stack(rows[:BATCH])
    host = host.pin_memory() if clock.is_gpu else host
    there = host.to(device)
    with torch.inference_mode():
        compute = clock.seconds_of(lambda: model(there), 20)
    back = torch.empty_like(host, device=device)
    copy = clock.seconds_of(lambda: back.copy_(host, non_blocking=True), 20)
    best = BATCH / max(compute, copy)
    meter = Meter(clock)
    common: dict[str, Any] = {
        "max_batch_size": BATCH,
        "wait_ms": 1,
        "context": meter,
        "collate": Stack(),
        "max_queue": 2 * AHEAD * BATCH,
    }

    def plain(batch: Any) -> Any:
        return model(batch.to(device)).cpu()

    def handed(batch: Any) -> Any:
        return model(batch)

    by: Any = batched
    sizes = {"batch_sizes": [BATCH], "graphs": True}
    lines = []
    contenders: list[tuple[str, Any]] = [
        ("plain", by(**common)(plain)),
        ("by hand", None),
        ("carpool", by(**common, device=device)(handed)),
        ("graphs", by(**common, device=device, **sizes)(handed)),
    ]
    for label, function in contenders:
        p99: float | None = None
        share = ""
        if function is None:
            double_buffered(model, rows, device, seconds / 4, meter)
            meter.begin()
            rate, elapsed = double_buffered(model, rows, device, seconds, meter)
        else:
            function.warmup(rows[0])
            offered(function.submit, rows, seconds / 4)
            meter.begin()
            rate, p99, elapsed = offered(function.submit, rows, seconds)
            stats = function.stats
            if label == "graphs":
                share = f"{stats.replayed} of {stats.batches}"
            function.close()
        busy = meter.seconds() / elapsed
        lines.append(Line(kind.name, label, busy, rate / best, rate, p99, share))
    return lines


def table(lines: list[Line]) -> str:
    """The short table."""
    head = f"{'model':<8} {'handler':<8} {'busy':>7} {'of best':>8} {'req/s':>9} {'p99 ms':>8}  replayed"
    made = [head]
    for line in lines:
        p99 = "-" if line.p99_ms is None else f"{line.p99_ms:.2f}"
        made.append(
            f"{line.model:<8} {line.handler:<8} {line.busy:7.1%} {line.of_best:8.1%} {line.rate:9.0f} "
            f"{p99:>8}  {line.replayed}"
        )
    return "\n".join([*made, "(of best: the target is 97 %)"])


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few batches, short runs")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args(given)
    device, quick = options.device, options.quick
    if device == "cuda" and not torch.cuda.is_available():
        print(
            f"no CUDA device here (torch {torch.__version__}): nothing is measured; `--device cpu` runs the same"
        )
        return 0
    card = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {platform.processor()}"
    print(f"{time.strftime('%Y-%m-%d')}, {card}, torch {torch.__version__}", flush=True)
    batches = (200 if device == "cpu" else 2000) if quick else 100_000
    wrong = 0
    for told, look, count in (
        ("items in main memory", differing, batches),
        ("items on the device", differing_from_device, batches // 10),
    ):
        found, done = look(device, count)
        wrong += found
        print(f"answers that differ, {told}: {found} (of {done} batches)", flush=True)
    for name, value in ceilings(device, quick).items():
        print(f"{name}: {value:.1f}", flush=True)
    lines: list[Line] = []
    for kind in MODELS[device]:
        lines += measured(kind, device, (0.2 if device == "cpu" else 1.0) if quick else 10.0)
        print(f"{kind.name} model measured", flush=True)
    print(f"\n{table(lines)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
