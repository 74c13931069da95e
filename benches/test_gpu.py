"""The script for a GPU, run from end to end in main memory: that it is ready where there is one."""

from __future__ import annotations

import re
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import gpu  # noqa: E402
import gpu_equality  # noqa: E402


def test_it_runs_in_main_memory_and_ends_with_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--device", "cpu", "--quick"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"answers that differ, items in main memory: 0 \(of \d{3,} batches\)", said)
    assert re.search(r"answers that differ, items on the device: 0 \(of \d{2,} batches\)", said)
    assert re.search(r"bf16 TFLOP/s: \d", said)
    *_, head, table = said.partition("model    handler")
    lines = [line.split() for line in table.strip().splitlines()[1:-1]]
    assert head
    assert [tuple(line[:2]) for line in lines] == [
        (model, handler)
        for model in ("small", "medium", "large")
        for handler in ("plain", "by", "carpool", "graphs")
    ]
    # Main memory has no graphs: all batches ran as they are, and that is told.
    assert all("0 of" in " ".join(line) for line in lines if line[1] == "graphs")


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert gpu.main([]) == 0
    assert "no CUDA device here" in capsys.readouterr().out


def test_an_answer_that_differs_in_one_bit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def upload(self: Any, staged: Any) -> Any:
        seen.append(1)
        if len(seen) == 3:
            # Not the last one, which rounding may take away.
            staged.view(torch.int32)[0, 0] ^= 1 << 22
        return staged

    monkeypatch.setattr(gpu_equality.Late, "upload", upload)
    wrong, batches = gpu_equality.differing("cpu", 10)
    assert batches >= 10
    assert wrong == 1


def test_busy_time_is_that_between_the_marks_of_batches() -> None:
    times = iter([10.0, 11.0, 13.0, 13.5])

    class Clock(gpu.Clock):
        def mark(self) -> Any:
            return next(times)

    meter = gpu.Meter(Clock("cpu"))
    for _ in range(2):
        with meter():
            assert torch.is_inference_mode_enabled()
    assert meter.seconds() == 1.5
    meter.begin()
    assert meter.seconds() == 0
