"""Runs every contender in a process of its own, in interleaved rounds, and reports medians.

A bench script is both sides of this: without `--one` it is the referee, which starts itself again
for each run with `--one '{...}'`; that run prints one JSON object as its last line. Each round visits
every cell, and in a cell every contender right after the other, in an order that turns with the round:
slow changes of the machine meet all contenders alike.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

Run = dict[str, Any]
RESULTS = Path(__file__).parent / "results"


class RunFailed(Exception):
    """A run ended with an error, ran out of time, or gave a caller the wrong answer."""


def parser(description: str, name: str, repetitions: int) -> argparse.ArgumentParser:
    """The command line every bench has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--quick", action="store_true", help="fewer cells and rounds, well under a minute"
    )
    made.add_argument(
        "--repetitions", type=int, default=None, help=f"rounds (default {repetitions})"
    )
    made.add_argument("--only", default=None, help="contenders to run, separated by commas")
    made.add_argument(
        "--json", type=Path, default=RESULTS / f"{name}.json", help="where the numbers go"
    )
    made.add_argument("--one", default=None, help=argparse.SUPPRESS)
    return made


def carpool_missing() -> str | None:
    """Why carpool cannot take part, or None when it can."""
    if importlib.util.find_spec("carpool") is None:
        return "carpool is not installed in this Python"
    if importlib.util.find_spec("carpool._core") is None:
        return "carpool has no compiled extension here"
    return None


def taking_part(contenders: Sequence[str], only: str | None) -> list[str]:
    """The contenders asked for that can run here; says aloud who is missing."""
    chosen = list(contenders) if only is None else only.split(",")
    unknown = [name for name in chosen if name not in contenders]
    if unknown:
        raise SystemExit(f"unknown contender {unknown[0]!r}: choose from {', '.join(contenders)}")
    why = carpool_missing()
    if why and "carpool" in chosen:
        print(f"note: {why}: the floors run without it", file=sys.stderr)
        chosen.remove("carpool")
    return chosen


def answer(run: Run) -> NoReturn:
    """What a run says to the referee; ends the process."""
    print(json.dumps(run), flush=True)
    raise SystemExit(0)


def run_apart(script: str, order: Mapping[str, Any], limit_s: float = 300) -> Run:
    """One run in a fresh process."""
    command = [sys.executable, script, "--one", json.dumps(dict(order))]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    try:
        ended = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RunFailed(f"no end after {limit_s} s: {dict(order)}") from None
    if ended.returncode != 0:
        raise RunFailed(f"exit code {ended.returncode}: {dict(order)}")
    run: Run = json.loads(ended.stdout.splitlines()[-1])
    if run.get("wrong", 0):
        raise RunFailed(f"{run['wrong']} callers got another one's answer: {dict(order)}")
    return run


def rounds(
    script: str, cells: Sequence[Mapping[str, Any]], contenders: Sequence[str], repetitions: int
) -> list[Run]:
    """Every contender in every cell, `repetitions` times; each run carries its order under "order"."""
    heats = [[{**cell, "contender": name} for name in contenders] for cell in cells]
    return interleaved(script, heats, repetitions)


def interleaved(
    script: str,
    heats: Sequence[Sequence[Mapping[str, Any]]],
    repetitions: int,
    forgiven: Sequence[str] = (),
    limit_s: float = 300,
) -> list[Run]:
    """Runs each heat's orders one right after the other, in turning order, and all heats in every round.

    A failing run of a contender in `forgiven` ends nothing: it is kept as `{"failed": why}`, and the
    contender is left out of that heat from then on.
    """
    runs: list[Run] = []
    started = time.monotonic()
    total, done = repetitions * sum(map(len, heats)), 0
    out: set[tuple[int, str]] = set()
    for repetition in range(repetitions):
        for place, heat in enumerate(heats):
            turn = repetition % max(len(heat), 1)
            for order in (*heat[turn:], *heat[:turn]):
                done += 1
                name = order["contender"]
                full = {**order, "repetition": repetition}
                if (place, name) in out:
                    continue
                try:
                    runs.append({"order": full, **run_apart(script, full, limit_s)})
                except RunFailed as error:
                    if name not in forgiven:
                        raise
                    out.add((place, name))
                    runs.append({"order": full, "failed": str(error)})
                progress(done, total, time.monotonic() - started)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return runs


def progress(done: int, total: int, passed: float) -> None:
    """Says how far it is: always on a terminal, now and then elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} runs, {passed:.0f} s ", end="", file=sys.stderr, flush=True)
    elif done % max(total // 10, 1) == 0:
        print(f"{done}/{total} runs, {passed:.0f} s", file=sys.stderr, flush=True)


def of(runs: Iterable[Run], **order: Any) -> list[Run]:
    """The runs whose order has these values."""
    return [
        run for run in runs if all(run["order"].get(key) == value for key, value in order.items())
    ]


def middle(runs: Sequence[Run], read: str | Callable[[Run], float]) -> float:
    """The median of one figure over runs."""
    return statistics.median(
        float(run[read] if isinstance(read, str) else read(run)) for run in runs
    )


def spread(runs: Sequence[Run], figure: str) -> float:
    """Half the distance between the quartiles, as a share of the median: the noise of a figure."""
    return noise([float(run[figure]) for run in runs])


def noise(values: Sequence[float]) -> float:
    """The same of plain values; of fewer than four, half of what lies between the ends."""
    if len(values) < 4:
        return (max(values) - min(values)) / 2 / statistics.median(values)
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / statistics.median(values)


def ratio(runs: Sequence[Run], base: Sequence[Run], figure: str) -> float | None:
    """How many times the median of `base`; None where `base` did not run."""
    return middle(runs, figure) / middle(base, figure) if base else None


def times(value: float | None) -> str:
    """A ratio as the tables show it."""
    return "-" if value is None else f"{value:.2f}"


def percentile(ordered: Sequence[float], p: float) -> float:
    """The nearest-rank percentile of values in rising order."""
    if not ordered:
        return float("nan")
    rank = math.ceil(len(ordered) * p / 100)
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned so that it reads well in a terminal too."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return (
            "| "
            + " | ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            + " |"
        )

    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    return "\n".join([line(head), rule, *map(line, rows)])


def commit() -> str | None:
    """What is checked out here, with a plus where files differ from it."""
    asked = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+")
    try:
        ended = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return ended.stdout.strip() or None


def machine(packages: Sequence[str] = ("carpool", "uvloop")) -> dict[str, Any]:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [row for row in cpuinfo.read_text().splitlines() if row.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "cpu": model,
        "arch": platform.machine(),
        "cores": os.cpu_count(),
        "commit": commit(),
        "load": os.getloadavg()[0],
        "versions": versions,
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def write(path: Path, runs: Sequence[Run], summary: Any, before: Mapping[str, Any]) -> None:
    """Keeps the numbers: `before` is `machine()` as it was when the rounds began."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "machine": dict(before),
        "load_after": os.getloadavg()[0],
        "summary": summary,
        "runs": list(runs),
    }
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(
        f"\n{before['python']}, {before['cpu']}, {before['cores']} cores, load {before['load']:.1f} before, "
        f"{os.getloadavg()[0]:.1f} after; numbers in {path}"
    )
