#!/usr/bin/env python3
"""Instructions per request with few and with many pending, counted by valgrind.

    python3 rust/carpool-core/benches/instructions.py [PENDING ...]

A request is submitted, sealed into a batch of 64, answered, and its answer taken. Counts do not
depend on what else the machine does. Exits with 1 when a request costs more than 1.5 times as much
with the most pending as with the fewest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
REQUESTS = 64 * 200
MOST = 1.5


def count(pending: int, requests: int) -> int:
    command = [
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        str(TARGET / "release" / "examples" / "steady"),
        str(pending),
        str(requests),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        sys.exit(f"valgrind said nothing of instructions:\n{done.stderr}")
    return int(found[1])


def main() -> int:
    sizes = sorted(int(word) for word in sys.argv[1:]) or [10, 1000, 100_000, 1_000_000]
    build = ["cargo", "build", "--quiet", "--release", "-p", "carpool-core", "--example", "steady"]
    subprocess.run(build, cwd=ROOT, check=True)
    costs = []
    for pending in sizes:
        # The first rounds fill the buffers.
        few, many = count(pending, REQUESTS), count(pending, 3 * REQUESTS)
        costs.append((many - few) / (2 * REQUESTS))
        ratio = costs[-1] / costs[0]
        print(f"{pending:>9} pending: {costs[-1]:7.1f} instructions per request, {ratio:4.2f}x")
    return int(costs[-1] > MOST * costs[0])


if __name__ == "__main__":
    sys.exit(main())
