"""Has a hot path become dearer? Counts of instructions and ratios to floors, against `baseline.json`.

    python benches/check.py [--update] [--repetitions N] [--only instructions|ratios]

Instructions per request (callgrind, else `perf stat`) of four paths: the core's submit, seal and answer; an
awaited request among 64 callers; a lone call that runs the handler itself; a round trip through a worker. Counts repeat where
times do not. Ratios come from short interleaved runs of the comparison's own workloads. Each is repeated, and what
got worse by more than the noise of the repeats is named (`baseline.py`); then the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import baseline
import contest
import document
import peers
import workloads
from baseline import Figure

HERE = Path(__file__).parent
ROOT = HERE.parent
STORED = HERE / "baseline.json"

Counter = Callable[[Sequence[str]], int]

# The workload's cells measured for ratios: floor, figure, and what differs from the cell's defaults.
AWAITING = {"loop": "asyncio", "wait_ms": 0, "shape": "callers", "seconds": 0.15}
BLOCKING = {"wait_ms": 0, "seconds": 0.3, "turns": 0}
RATIOS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "await, 1 caller / hand": ("W1", "carpool", "hand", {"form": "loop", "callers": 1, **AWAITING}),
    "await, 64 callers / hand": (
        *("W1", "carpool", "hand"),
        {"form": "loop", "callers": 64, **AWAITING},
    ),
    "await, 64 callers / bare": (
        *("W1", "carpool", "bare"),
        {"form": "loop", "callers": 64, **AWAITING},
    ),
    "await, 512 callers / hand": (
        *("W1", "carpool", "hand"),
        {"form": "loop", "callers": 512, **AWAITING},
    ),
    "await, 512 callers, worker / hand": (
        *("W1o", "carpool", "hand"),
        {"form": "thread", "callers": 512, **AWAITING},
    ),
    "caller runs, 1 thread / leader": (
        *("W2", "carpool-caller", "leader"),
        {"handler": "trivial", "threads": 1, **BLOCKING},
    ),
    "caller runs, 32 threads, 1 ms / leader": (
        *("W2", "carpool-caller", "leader"),
        {"handler": "sleeps 1 ms", "threads": 32, **BLOCKING},
    ),
    "worker, 1 thread / hand": (
        *("W2", "carpool", "hand"),
        {"handler": "trivial", "threads": 1, **BLOCKING},
    ),
    "worker, 32 threads, 1 ms / hand": (
        *("W2", "carpool", "hand"),
        {"handler": "sleeps 1 ms", "threads": 32, **BLOCKING},
    ),
}


def callgrind(command: Sequence[str]) -> int:
    """Instructions of all threads in user space, one thread at a time."""
    told = run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command])
    found = re.search(r"Collected : (\d+)", told)
    if found is None:
        raise SystemExit(f"valgrind said nothing of instructions:\n{told}")
    return int(found[1])


def perf(command: Sequence[str]) -> int:
    """Instructions as the processor counts them."""
    told = run(["perf", "stat", "-x,", "-e", "instructions:u", *command])
    found = re.search(r"^(\d+),,instructions", told, re.MULTILINE)
    if found is None:
        raise SystemExit(f"perf counted no instructions:\n{told}")
    return int(found[1])


def run(command: Sequence[str]) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode:
        raise SystemExit(f"exit status {ended.returncode}: {' '.join(command)}\n{ended.stderr}")
    return ended.stderr


def counter() -> tuple[str, Counter] | None:
    """What can count instructions here."""
    if shutil.which("valgrind"):
        return "callgrind", callgrind
    if shutil.which("perf"):
        probe = ["perf", "stat", "-x,", "-e", "instructions:u", "true"]
        told = subprocess.run(probe, capture_output=True, text=True, check=False).stderr
        if re.search(r"^\d+,,instructions", told, re.MULTILINE):
            return "perf", perf
    return None


def count_paths(count: Counter, repeats: int) -> dict[str, Figure]:
    """Instructions per request of each path: the difference of two runs with few and many requests."""
    build = ["cargo", "build", "--quiet", "--release", "-p", "carpool-core", "--example", "steady"]
    subprocess.run(build, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    python = [sys.executable, str(HERE / "paths.py")]
    paths: dict[str, tuple[list[str], int]] = {
        "core: submit, seal, answer": ([str(target / "release/examples/steady"), "10"], 12_800),
        "await, 64 callers": ([*python, "await"], 6_400),
        "caller runs, one thread": ([*python, "caller"], 3_200),
        "worker round trip": ([*python, "worker"], 3_200),
    }
    figures = {}
    for name, (command, requests) in paths.items():
        costs = []
        for _ in range(repeats):
            few, many = (count([*command, str(times * requests)]) for times in (1, 3))
            costs.append((many - few) / (2 * requests))
        figures[name] = Figure.of("instructions", costs)
        print(f"counted: {name}", file=sys.stderr)
    return figures


def measure_ratios(repetitions: int) -> dict[str, Figure]:
    """CPU per request over that of the floor, repetition by repetition."""
    heats: dict[str, list[workloads.Order]] = {}
    for workload, one, floor, cell in RATIOS.values():
        heat = heats.setdefault(json.dumps([workload, cell]), [])
        for name in (one, floor):
            order = {**cell, "workload": workload, "contender": name}
            if order not in heat:
                heat.append(order)
    runs = contest.interleaved(str(HERE / "compare.py"), list(heats.values()), repetitions)
    figures = {}
    for name, (workload, one, floor, cell) in RATIOS.items():
        inside = contest.of(runs, workload=workload, **cell)
        pairs = zip(
            contest.of(inside, contender=one), contest.of(inside, contender=floor), strict=True
        )
        figures[name] = Figure.of("ratio", [own["cpu_us"] / its["cpu_us"] for own, its in pairs])
    return figures


def main() -> int:
    command = argparse.ArgumentParser(description="Has a hot path become dearer?")
    command.add_argument("--update", action="store_true", help=f"rewrite {STORED.name}")
    command.add_argument("--repetitions", type=int, default=7, help="of the ratios")
    command.add_argument("--only", choices=("instructions", "ratios"), default=None)
    command.add_argument("--markdown", type=Path, default=None, help="a document for the figures")
    asked = command.parse_args()
    if why := peers.ALL["carpool"].missing():
        raise SystemExit(why)

    counts = counter()
    here = {
        **contest.machine(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "counter": counts[0] if counts else None,
    }
    now: dict[str, Figure] = {}
    if asked.only != "ratios":
        if counts is None:
            print("no valgrind here, and no counters for perf: ratios only")
        else:
            now |= count_paths(counts[1], repeats=2)
    if asked.only != "instructions":
        now |= measure_ratios(asked.repetitions)

    kept = json.loads(STORED.read_text()) if STORED.exists() else {"holds_for": {}, "figures": {}}
    strange = baseline.foreign(kept["holds_for"], here)
    stored = baseline.read(kept)
    if asked.only:
        stored = {name: its for name, its in stored.items() if its.kind == now_kind(asked.only)}
    lines = baseline.compare(stored, now, counts_hold=not strange)
    if strange and stored:
        print("The stored figures belong to another place; only the ratios are compared.")
        print("\n".join(f"  {line}" for line in strange))
    print(baseline.table(lines))
    if asked.markdown:
        document.put(
            asked.markdown, {"check": f"Commit {here['commit']}.\n\n{baseline.table(lines)}"}
        )
    if asked.update:
        everything = {**baseline.read(kept), **now} if asked.only else now
        STORED.write_text(json.dumps(baseline.written(here, everything), indent=1) + "\n")
        print(f"{STORED} rewritten")
        return 0
    worse = [line for line in lines if line.verdict == "worse"]
    for line in worse:
        print(f"worse: {line.name}: {line.change * 100:+.1f} %, margin {line.margin * 100:.1f} %")
    print(
        f"{len(worse)} of {len(lines)} figures got worse, stored at {kept['holds_for'].get('commit')}"
    )
    return int(bool(worse))


def now_kind(only: str) -> baseline.Kind:
    return "instructions" if only == "instructions" else "ratio"


if __name__ == "__main__":
    sys.exit(main())
