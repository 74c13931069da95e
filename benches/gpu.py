"""The handoff to a GPU, checked and measured: one run of under ten minutes on a machine with one GPU.

    python benches/gpu.py [--quick]

1. Every answer is bit by bit what a synchronous copy gives, over 100 000 batches under random delays.
2. What the card can do: copies up and down, and a matmul.
3. A small, a medium and a large model: busy share (device time over the longer of copying and computing),
   requests per second and p99, for a plain `.to("cuda")` ... `.cpu()` handler, a hand-written loop with two buffers,
   carpool, and carpool with CUDA graphs.

A short table comes last. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from carpool import batched
from carpool.collate import Stack

BATCH = 32
#: Width of the model, and how many layers.
MODELS = {"small": (256, 2), "medium": (2048, 8), "large": (8192, 8)}


def equality(batches: int) -> int:
    """How many answers differ from what they should be, over so many batches."""

    @batched(max_batch_size=4, collate=Stack(), device="cuda", max_queue=100_000)
    def twice(batch: Any) -> Any:
        if random.random() < 0.05:
            torch.cuda._sleep(random.randrange(1, 200_000))
        return batch * 2

    chance, wrong = random.Random(1), 0
    pending: deque[tuple[Any, Any]] = deque()
    while twice.stats.batches < batches:
        for _ in range(256):
            row = torch.full((7,), chance.randrange(1 << 20))
            pending.append((row, twice.submit(row)))
        while len(pending) > 1024:
            row, future = pending.popleft()
            wrong += not torch.equal(future.result(60), row * 2)
    while pending:
        row, future = pending.popleft()
        wrong += not torch.equal(future.result(60), row * 2)
    twice.close()
    return wrong


def seconds_of(work: Callable[[], object], times: int = 20) -> float:
    """The median time of some work on the device, by events."""
    found = []
    for _ in range(times):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end) / 1e3)
    return float(statistics.median(found))


def ceilings() -> dict[str, float]:
    """GB/s up and down, and TFLOP/s of a bf16 matmul."""
    size = 256 << 20
    host, there = (
        torch.empty(size, dtype=torch.uint8, pin_memory=True),
        torch.empty(size, dtype=torch.uint8, device="cuda"),
    )
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return {
        "up GB/s": size / seconds_of(lambda: there.copy_(host, non_blocking=True)) / 1e9,
        "down GB/s": size / seconds_of(lambda: host.copy_(there, non_blocking=True)) / 1e9,
        "bf16 TFLOP/s": 2 * 8192**3 / seconds_of(lambda: square @ square) / 1e12,
    }


def model_of(width: int, layers: int) -> Any:
    parts = [torch.nn.Linear(width, width) for _ in range(layers)]
    return torch.nn.Sequential(*parts).to("cuda", torch.bfloat16).eval()


def offered(call: Callable[[Any], Any], rows: list[Any], seconds: float) -> tuple[float, float]:
    """Requests per second with two batches always waiting, and the 99th percentile of a request in ms."""
    waiting: deque[tuple[float, Any]] = deque()
    took: list[float] = []
    at, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        while len(waiting) < 4 * BATCH:
            waiting.append((time.perf_counter(), call(rows[at % len(rows)])))
            at += 1
        since, future = waiting.popleft()
        future.result(60)
        took.append(time.perf_counter() - since)
    elapsed = time.perf_counter() - begin
    for _, future in waiting:
        future.result(60)
    return len(took) / elapsed, sorted(took)[len(took) * 99 // 100] * 1e3


def double_buffered(model: Any, rows: list[Any], seconds: float) -> float:
    """Requests per second of a loop by hand, without callers: two pinned buffers and two streams."""
    streams = [torch.cuda.Stream() for _ in range(2)]
    hosts = [
        torch.empty(BATCH, len(rows[0]), dtype=rows[0].dtype, pin_memory=True) for _ in range(2)
    ]
    outs = [torch.empty_like(host, pin_memory=True) for host in hosts]
    events: list[Any] = [None, None]
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        at = count % 2
        if events[at] is not None:
            events[at].synchronize()
        torch.stack(rows[:BATCH], out=hosts[at])
        with torch.cuda.stream(streams[at]), torch.inference_mode():
            outs[at].copy_(model(hosts[at].to("cuda", non_blocking=True)), non_blocking=True)
        events[at] = torch.cuda.Event(blocking=True)
        events[at].record(streams[at])
        count += 1
    torch.cuda.synchronize()
    return count * BATCH / (time.perf_counter() - begin)


def measured(name: str, width: int, layers: int, seconds: float) -> list[tuple[str, ...]]:
    """The lines of one model."""
    model = model_of(width, layers)
    rows = [torch.randn(width).to(torch.bfloat16) for _ in range(256)]
    host = torch.stack(rows[:BATCH]).pin_memory()
    there = host.to("cuda")
    with torch.inference_mode():
        compute = seconds_of(lambda: model(there))
        copy = seconds_of(lambda: host.to("cuda", non_blocking=True))
    best = BATCH / max(compute, copy)
    common: dict[str, Any] = {
        "max_batch_size": BATCH,
        "wait_ms": 1,
        "context": torch.inference_mode,
    }

    @batched(**common, collate=Stack())
    def plain(batch: Any) -> Any:
        return model(batch.to("cuda")).cpu()

    @batched(**common, collate=Stack(), device="cuda")
    def handed(batch: Any) -> Any:
        return model(batch)

    @batched(**common, collate=Stack(), device="cuda", batch_sizes=[BATCH], graphs=True)
    def replayed(batch: Any) -> Any:
        return model(batch)

    lines: list[tuple[str, ...]] = []
    for label, function in (("plain", plain), ("carpool", handed), ("graphs", replayed)):
        function.warmup(rows[0])
        offered(function.submit, rows, seconds / 4)
        rate, p99 = offered(function.submit, rows, seconds)
        lines.append((name, label, f"{rate / best:6.1%}", f"{rate:9.0f}", f"{p99:7.2f}"))
        function.close()
    rate = double_buffered(model, rows, seconds)
    lines.insert(1, (name, "by hand", f"{rate / best:6.1%}", f"{rate:9.0f}", "      -"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="a hundredth of the batches, short runs"
    )
    quick = parser.parse_args().quick
    if not torch.cuda.is_available():
        print(f"no CUDA device here (torch {torch.__version__}): nothing is measured")
        return
    print(f"{time.strftime('%Y-%m-%d')}, {torch.cuda.get_device_name()}, torch {torch.__version__}")
    batches = 1_000 if quick else 100_000
    print(f"answers that differ, of {batches} batches: {equality(batches)}", flush=True)
    for name, value in ceilings().items():
        print(f"{name}: {value:.1f}", flush=True)
    lines: list[tuple[str, ...]] = []
    for name, (width, layers) in MODELS.items():
        lines += measured(name, width, layers, 1.0 if quick else 10.0)
    print(
        f"\n{'model':<8} {'handler':<9} {'busy':>6} {'req/s':>9} {'p99 ms':>7}   (busy: target 97 %)"
    )
    for line in lines:
        print(f"{line[0]:<8} {line[1]:<9} {line[2]} {line[3]} {line[4]}")


if __name__ == "__main__":
    main()
