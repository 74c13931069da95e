"""carpool beside other batchers and hand-written floors, on workloads that tell them apart.

    python benches/compare.py [--quick] [--only W1,W2] [--contenders carpool,hand] [--markdown PATH] [--picture PATH]

Each contender runs in a process of its own, interleaved with the others (`contest.py`); each run checks that
every caller got its own answer. What is not installed is named and left out: `pip install --group peers` for
the small ones, `--group peers-big` for Ray Serve and BentoML.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contest
import document
import peers
import workloads

PACKAGES = (
    *("carpool", "uvloop", "numpy"),
    *("batched", "async-batcher", "aiodataloader", "ray", "bentoml"),
)
RUN_LIMIT_S = 120


def options() -> argparse.Namespace:
    command = argparse.ArgumentParser(description="carpool beside other batchers.")
    command.add_argument("--quick", action="store_true", help="fewer cells, well under two minutes")
    command.add_argument("--only", default=None, help=f"workloads: {', '.join(workloads.ALL)}")
    command.add_argument("--contenders", default=None, help=f"of {', '.join(peers.ALL)}")
    command.add_argument(
        "--repetitions", type=int, default=None, help="rounds (default 2 or 3, quick 1)"
    )
    command.add_argument("--json", type=Path, default=contest.RESULTS / "compare.json")
    command.add_argument(
        "--markdown", type=Path, default=None, help="a document to put the tables into"
    )
    command.add_argument("--picture", type=Path, default=None, help="a PNG of the main figures")
    command.add_argument(
        "--from", dest="kept", type=Path, nargs="+", default=None, help="show kept numbers"
    )
    command.add_argument("--one", default=None, help=argparse.SUPPRESS)
    return command.parse_args()


def chosen(asked: str | None, there: Sequence[str], what: str) -> list[str]:
    """Those named in `asked`, in the order they have here."""
    if asked is None:
        return list(there)
    names = asked.split(",")
    for name in names:
        if name not in there:
            raise SystemExit(f"unknown {what} {name!r}: choose from {', '.join(there)}")
    return [name for name in there if name in names]


def skipped(names: Sequence[str]) -> dict[str, str]:
    """Contenders that cannot take part here, and why."""
    why = {name: peers.ALL[name].missing() for name in names}
    return {name: reason for name, reason in why.items() if reason}


def heats(
    workload: workloads.Workload, names: Sequence[str], quick: bool
) -> tuple[list[list[workloads.Order]], dict[str, str]]:
    """Per cell the orders of all that take part in it, and why others take part in none."""
    made, reasons, taking = [], {}, set()
    for cell in workload.cells(quick):
        heat = []
        for name in workload.contenders:
            if name not in names:
                continue
            why = workload.refuses(peers.ALL[name], cell)
            if why:
                reasons[name] = why
                continue
            taking.add(name)
            heat.append({**cell, "workload": workload.name, "contender": name})
        made.append(heat)
    return made, {name: why for name, why in reasons.items() if name not in taking}


def compare(asked: argparse.Namespace) -> dict[str, Any]:
    """Measures; everything that was, as it goes into the JSON file."""
    names = chosen(asked.contenders, list(peers.ALL), "contender")
    if asked.quick and asked.contenders is None:
        # Their imports alone take a second per run.
        names = [name for name in names if not peers.ALL[name].big]
    absent = skipped(names)
    for name, why in absent.items():
        print(f"skipped: {name}: {why}")
    there = [name for name in names if name not in absent]
    kept: dict[str, Any] = {
        "machine": contest.machine(PACKAGES),
        "quick": asked.quick,
        "skipped": absent,
        "workloads": {},
    }
    forgiven = [name for name in there if isinstance(peers.ALL[name], peers.Peer)]
    for workload_name in chosen(asked.only, list(workloads.ALL), "workload"):
        workload = workloads.ALL[workload_name]
        orders, unfit = heats(workload, there, asked.quick)
        started = time.monotonic()
        runs = contest.interleaved(
            __file__,
            orders,
            asked.repetitions or (1 if asked.quick else workload.repetitions),
            forgiven,
            RUN_LIMIT_S,
        )
        kept["workloads"][workload_name] = {
            "unfit": unfit,
            "seconds": round(time.monotonic() - started),
            "runs": runs,
        }
        print(f"\n{workload_name}: {workload.title}\n", flush=True)
        print(told(workload_name, kept["workloads"][workload_name]), flush=True)
        kept["load_after"] = os.getloadavg()[0]
        # After each: what was measured stays when the rest is broken off.
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def told(workload_name: str, kept: dict[str, Any], *, details: bool = True) -> str:
    """One workload's tables, as Markdown, and whoever has no part in them."""
    workload = workloads.ALL[workload_name]
    runs = [run for run in kept["runs"] if "failed" not in run]
    tables = workload.tables(runs, workload.contenders)
    parts = [table.markdown() for table in tables if details or not table.detail]
    asides = [f"No part in it: {name} ({why})." for name, why in kept["unfit"].items()]
    failed = {run["order"]["contender"]: run["failed"] for run in kept["runs"] if "failed" in run}
    asides += [f"Failed: {name}: {why}." for name, why in failed.items()]
    return "\n\n".join([*parts, *asides])


def heading(kept: dict[str, Any]) -> str:
    """What the numbers hold for."""
    machine = kept["machine"]
    versions = ", ".join(f"{name} {has}" for name, has in machine["versions"].items() if has)
    text = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}; {machine['python']}; {versions}."
    for name, why in kept["skipped"].items():
        text += f"\n\nSkipped: {name}: {why}."
    return text


def together(files: Sequence[Path]) -> dict[str, Any]:
    """Kept numbers as one comparison: each workload from the last file that has it, with its own label."""
    whole: dict[str, Any] = {}
    measured: dict[str, Any] = {}
    for file in files:
        whole = json.loads(file.read_text())
        for name, its in whole["workloads"].items():
            measured[name] = {"label": label(whole["machine"]), "quick": whole["quick"], **its}
    return {
        **whole,
        "workloads": {name: measured[name] for name in workloads.ALL if name in measured},
    }


def label(machine: dict[str, Any]) -> str:
    """Of which commit and hour figures are."""
    return f"Commit {machine['commit']}, {machine['when']}, load average {machine['load']:.1f}."


def blocks(kept: dict[str, Any]) -> dict[str, str]:
    """What goes into a document, by the names of its places; each says of which commit it is, and of how much."""
    made = {"machine": heading(kept)}
    for name, its in kept["workloads"].items():
        rounds = 1 + max(run["order"]["repetition"] for run in its["runs"])
        much = f"Rounds: {rounds}{', quick' if its.get('quick', kept['quick']) else ''}."
        said = its.get("label") or label(kept["machine"])
        made[name] = f"{said} {much}\n\n{told(name, its, details=False)}"
    return made


def main() -> None:
    asked = options()
    if asked.one:
        order = json.loads(asked.one)
        contest.answer(workloads.ALL[order["workload"]].one(order))
    if asked.kept:
        kept = together(asked.kept)
        print(heading(kept))
        for name in chosen(asked.only, list(kept["workloads"]), "workload"):
            print(f"\n{name}: {workloads.ALL[name].title}\n")
            print(told(name, kept["workloads"][name]))
    else:
        kept = compare(asked)
        print(f"\n{heading(kept)}\n{label(kept['machine'])}\n\nnumbers in {asked.json}")
    if asked.markdown:
        document.put(asked.markdown, blocks(kept))
    if asked.picture:
        import picture

        picture.draw(kept, asked.picture)
        print(f"picture in {asked.picture}")


if __name__ == "__main__":
    main()
