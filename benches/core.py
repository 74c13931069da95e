"""The criterion benches of the core as a table, out of what `cargo bench` has left.

cargo bench -p carpool-core && python benches/core.py [--markdown docs/performance.md]
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import contest
import document

ROOT = Path(__file__).parent.parent


def rows(kept: Path) -> list[tuple[str, str, str, str]]:
    """Group, case, time of one turn, and time per request where a turn holds several."""
    made = []
    for estimates in sorted(kept.glob("**/new/estimates.json")):
        its = json.loads((estimates.parent / "benchmark.json").read_text())
        nanoseconds = json.loads(estimates.read_text())["median"]["point_estimate"]
        case = " ".join(part for part in (its["function_id"], its["value_str"]) if part)
        many = (its["throughput"] or {}).get("Elements", 1)
        each = spelt(nanoseconds / many) if many > 1 else ""
        made.append((its["group_id"], case, spelt(nanoseconds), each))
    return made


def spelt(nanoseconds: float) -> str:
    """Three figures that matter, in a fitting unit."""
    for unit, size in (("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"


def main() -> None:
    command = argparse.ArgumentParser(description="The criterion benches of the core as a table.")
    command.add_argument("--markdown", type=Path, default=None, help="a document to put it into")
    asked = command.parse_args()
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    found = rows(target / "criterion")
    if not found:
        raise SystemExit("nothing measured yet: cargo bench -p carpool-core")
    table = contest.table(("bench", "case", "time", "per request"), found)
    print(table)
    if asked.markdown:
        document.put(asked.markdown, {"core": f"Commit {contest.commit()}.\n\n{table}"})


if __name__ == "__main__":
    main()
