"""A run that is killed goes on where it was: no row is lost, none is written twice."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carpool.cli import _run
from carpool.cli._outputs import Appender, Csv, JsonLines
from carpool.cli._resume import number_of
from carpool.cli._run import Asked
from carpool.cli._trouble import Trouble
from gates import LIMIT

HANDLER = """
import time

def squares(rows):
    {pause}
    return [ValueError("a seven") if row["n"] % 7 == 3 else row["n"] ** 2 for row in rows]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "squared.py").write_text(HANDLER.format(pause="pass"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "squared", raising=False)
    return tmp_path


def put(path: Path, count: int) -> None:
    path.write_text("".join(f'{{"n": {n}}}\n' for n in range(count)))


def expected(count: int) -> tuple[list[Any], list[int]]:
    rows = [{"n": n, "result": n**2} for n in range(count) if n % 7 != 3]
    return rows, [n + 1 for n in range(count) if n % 7 == 3]


def found(out: Path) -> tuple[list[Any], list[int]]:
    errors = Path(f"{out}.errors.jsonl")
    failed = errors.read_text().splitlines() if errors.exists() else []
    return (
        [json.loads(line) for line in out.read_text().splitlines()],
        [json.loads(line)["row"] for line in failed],
    )


ASKED = Asked("squared:squares", "in.jsonl", "out.jsonl", max_batch_size=4)


# ------------------------------------------------------------------------------ every way to be cut


def writes(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What a run writes, in order: file and data."""
    seen: list[tuple[str, bytes]] = []
    original = Appender.write

    def write(self: Appender, data: bytes) -> None:
        seen.append((self.path, data))
        original(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Appender, "write", write)
        _run.run(ASKED)
    return seen


def cuts(seen: list[tuple[str, bytes]]) -> Iterator[dict[str, bytes]]:
    """The files where a run may have been killed: before, in and after each write."""
    files: dict[str, bytes] = {}
    for path, data in seen:
        before = files.get(path, b"")
        for length in sorted({*range(0, len(data) + 1, 2), 1, len(data) - 1, len(data)}):
            yield {**files, path: before + data[:length]}
        files[path] = before + data


def test_wherever_it_is_cut(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is on the disk is not asked here, and asking takes its time.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    put(here / "in.jsonl", 11)
    seen = writes(here, monkeypatch)
    assert len({path for path, _ in seen}) == 2
    assert len(seen) >= 5
    count = 0
    for files in cuts(seen):
        for name in ("out.jsonl", "out.jsonl.errors.jsonl"):
            Path(name).unlink(missing_ok=True)
        for name, data in files.items():
            Path(name).write_bytes(data)
        _run.run(ASKED)
        assert found(here / "out.jsonl") == expected(11), files
        count += 1
    assert count > 100


def test_which_row_is_the_next() -> None:
    assert number_of(0, set()) == 0
    assert number_of(5, set()) == 5
    assert number_of(5, {3, 6, 9}) == 7
    assert number_of(1, {1, 2, 3}) == 4
    assert number_of(0, {1, 2}) == 0
    assert number_of(2, {4}) == 2
    for seed in range(200):
        dice = random.Random(seed)
        failed = {n for n in range(1, 40) if dice.random() < 0.3}
        left = [n for n in range(1, 80) if n not in failed]
        written = dice.randrange(1, 30)
        assert number_of(written, failed) == left[written - 1]


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (JsonLines(), [{"a": "x\ny"}, {"a": 1}]),
        (Csv(["a", "b"]), [{"a": "x\n,y", "b": 1}, {"a": '"', "b": "\n"}, {"a": "", "b": [1]}]),
    ],
    ids=["jsonl", "csv"],
)
def test_a_row_without_its_end_is_cut_off(tmp_path: Path, kind: Any, rows: list[Any]) -> None:
    path = tmp_path / "out"
    ends = [len(kind.header)]
    whole = kind.header
    for row in rows:
        whole += kind.encode(row)
        ends.append(len(whole))
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        appender = Appender(str(path), kind)
        kept = sum(end <= length for end in ends[1:])
        assert appender.before == kept
        assert path.read_bytes() == whole[:length], "nothing is cut off before it is known"
        appender.begin()
        appender.close()
        # The header is written again where it was cut.
        assert path.read_bytes() == whole[: ends[kept]]


# --------------------------------------------------------------------------------------- kill -9


def rows_in(out: Path) -> list[Any]:
    """What stands in an output of any format, as `expected` has it."""
    if out.suffix == ".parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
        return list(rows)
    if out.suffix == ".csv":
        with out.open(newline="") as file:
            return [{name: int(row[name]) for name in row} for row in csv.DictReader(file)]
    if out.suffix == ".txt":
        results = [int(line) for line in out.read_text().splitlines()]
        return [{"n": round(result**0.5), "result": result} for result in results]
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("suffix", "most"), [("jsonl", 6000), ("csv", 2000), ("txt", 1200), ("parquet", 9000)]
)
def test_killed_at_random_moments(here: Path, suffix: str, most: int) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow.parquet")
    count, dice = 800, random.Random(suffix)
    (here / "squared.py").write_text(HANDLER.format(pause="time.sleep(0.002)"))
    put(here / "in.jsonl", count)
    out = here / f"out.{suffix}"
    grows = here / "out.parquet.rows.jsonl" if suffix == "parquet" else out
    command = [sys.executable, "-m", "carpool", "run", "squared:squares"]
    command += ["-i", "in.jsonl", "-o", out.name, "--max-batch-size", "4"]

    def size() -> int:
        try:
            return grows.stat().st_size
        except FileNotFoundError:  # not made yet, or made into the Parquet file just now
            return 0

    kills = 0
    while True:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        # Once it has come a little further, and then at any moment.
        wanted = size() + dice.randrange(1, most)
        end = time.monotonic() + LIMIT
        while process.poll() is None and size() < wanted:
            assert time.monotonic() < end
            time.sleep(0)
        if process.poll() is not None:
            break
        time.sleep(dice.random() * dice.choice([0.005, 0.1]))
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
        kills += 1
    assert process.returncode == 1, "some rows have failed"
    failed = Path(f"{out}.errors.jsonl").read_text().splitlines()
    assert (rows_in(out), [json.loads(line)["row"] for line in failed]) == expected(count)
    assert kills >= 3


@pytest.mark.parametrize("step", ["replace", "unlink"])
def test_cut_off_while_the_parquet_file_is_made(
    here: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    put(here / "in.jsonl", 20)
    asked = Asked("squared:squares", "in.jsonl", "out.parquet", max_batch_size=4)
    for limit in (10, None):

        def cut(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, step, cut)
            assert _run.run(Asked(**{**vars(asked), "limit": limit}))[0] == 130
    assert _run.run(asked)[0] == 1
    assert parquet.read_table("out.parquet").to_pylist() == expected(20)[0]
    assert not (here / "out.parquet.rows.jsonl").exists()


def test_an_interrupt_writes_what_is_there(here: Path) -> None:
    (here / "squared.py").write_text(HANDLER.format(pause="time.sleep(0.01)"))
    put(here / "in.jsonl", 2000)
    command = [sys.executable, "-m", "carpool", "run", "squared:squares"]
    command += ["-i", "in.jsonl", "-o", "out.jsonl", "--max-batch-size", "4"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    out, end = here / "out.jsonl", time.monotonic() + LIMIT
    while not out.exists() or not out.stat().st_size:
        assert time.monotonic() < end
        time.sleep(0)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert b"stopped" in told
    assert b"goes on from here" in told
    rows, failed = found(out)
    whole_rows, whole_failed = expected(2000)
    assert rows == whole_rows[: len(rows)]
    assert failed == whole_failed[: len(failed)]


# ------------------------------------------------------------------------------ what is not its own


def test_more_rows_and_a_limit(here: Path) -> None:
    put(here / "in.jsonl", 10)
    assert _run.run(Asked(**{**vars(ASKED), "limit": 5}))[0] == 1
    assert found(here / "out.jsonl")[0] == expected(5)[0]
    assert _run.run(ASKED)[0] == 1
    assert found(here / "out.jsonl") == expected(10)
    put(here / "in.jsonl", 20)
    _, said = _run.run(ASKED)
    assert "10 were there before" in said
    assert found(here / "out.jsonl") == expected(20)
    assert _run.run(ASKED)[1].startswith("nothing left to do")
    assert _run.run(Asked(**{**vars(ASKED), "overwrite": True}))[0] == 1
    assert found(here / "out.jsonl") == expected(20)


def test_an_output_of_another_input_is_left_alone(here: Path) -> None:
    put(here / "in.jsonl", 10)
    _run.run(ASKED)
    before = (here / "out.jsonl").read_bytes()
    (here / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(100, 120)))
    with pytest.raises(Trouble, match="of another input"):
        _run.run(ASKED)
    put(here / "in.jsonl", 3)
    with pytest.raises(Trouble, match="of another input"):
        _run.run(ASKED)
    (here / "out.jsonl.errors.jsonl").write_text("something else\n")
    with pytest.raises(Trouble, match="something else"):
        _run.run(ASKED)
    assert (here / "out.jsonl").read_bytes() == before


def test_two_runs_do_not_mix(here: Path) -> None:
    pytest.importorskip("fcntl")
    put(here / "in.jsonl", 10)
    other = Appender("out.jsonl", JsonLines())
    with pytest.raises(Trouble, match="another run"):
        _run.run(ASKED)
    other.close()
    assert _run.run(ASKED)[0] == 1


def test_csv_and_parquet_go_on_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "in.csv").write_text("a,b\n" + "".join(f"{n},{n}\n" for n in range(20)))
    (here / "added.py").write_text(
        "def added(a, b):\n    return [f'{x}\\n{y}' for x, y in zip(a, b)]\n"
    )
    monkeypatch.delitem(sys.modules, "added", raising=False)
    asked = Asked("added:added", "in.csv", "out.csv", max_batch_size=4)
    _run.run(asked)
    whole = (here / "out.csv").read_bytes()
    for length in (0, 3, 20, len(whole) // 2, len(whole) - 1):
        (here / "out.csv").write_bytes(whole[:length])
        _run.run(asked)
        assert (here / "out.csv").read_bytes() == whole
    parquet = pytest.importorskip("pyarrow.parquet")
    asked = Asked("squared:squares", "in.jsonl", "out.parquet", max_batch_size=4)
    put(here / "in.jsonl", 30)
    _run.run(Asked(**{**vars(asked), "output": "out.jsonl", "limit": 12}))
    rows, failed = expected(12)
    numbers = [n for n in range(1, 13) if n not in failed]
    (here / "out.parquet.rows.jsonl").write_text(
        "".join(
            json.dumps({"row": number, "value": row}) + "\n"
            for number, row in zip(numbers, rows, strict=True)
        )
        + '{"row": 99, "val'
    )
    os.rename("out.jsonl.errors.jsonl", "out.parquet.errors.jsonl")
    _run.run(asked)
    assert parquet.read_table("out.parquet").to_pylist() == expected(30)[0]
    assert not (here / "out.parquet.rows.jsonl").exists()
