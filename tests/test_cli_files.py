"""Files that a run must not spoil, and values and rows that no file was expected to hold."""

from __future__ import annotations

import csv
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from carpool.cli import _run
from carpool.cli._run import Asked
from carpool.cli._trouble import Trouble
from gates import LIMIT

HANDLERS = """
import datetime, decimal, os, sys, threading

def same(rows):
    return rows

def length(rows):
    return [len(str(row)) for row in rows]

def broken_line(rows):
    return ["a\\rb" for row in rows]

def long(rows):
    return ["x" * 200_000 for row in rows]

def not_a_number(rows):
    return [float("nan") for row in rows]

def values(rows):
    return [
        {
            "day": datetime.date(2024, 2, 29), "price": decimal.Decimal("1.10"), "raw": b"ab",
        }
        for row in rows
    ]

def day(rows):
    return [datetime.date(2024, 2, 29) for row in rows]

class Unshown(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def unshown(rows):
    return [Unshown() for row in rows]

def half(rows):
    return [ValueError("\\ud800") for row in rows]

def odd(rows):
    return [ValueError("odd") if row["a"] % 2 else row["a"] for row in rows]

def fails(rows):
    raise ValueError("never")

def prints(rows):
    print("from python")
    os.write(1, b"from below\\n")
    return rows

def waits(rows):
    sys.stderr.write("entered\\n")
    sys.stderr.flush()
    threading.Event().wait()

async def awaits(rows):
    import asyncio
    sys.stderr.write("entered\\n")
    sys.stderr.flush()
    await asyncio.Event().wait()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "filed.py").write_text(HANDLERS)
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "filed", raising=False)
    return tmp_path


def run(handler: str, source: str, output: str, **more: Any) -> int:
    return _run.run(Asked(f"filed:{handler}", source, output, **more))[0]


def trouble(handler: str, source: str, output: str, **more: Any) -> Trouble:
    with pytest.raises(Trouble) as caught:
        run(handler, source, output, **more)
    return caught.value


def got(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def carpool(*words: str, **how: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "carpool", "run", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **how)


# ----------------------------------------------------------------------- what must not be spoiled


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_input_is_never_written_to(here: Path, overwrite: bool) -> None:
    text = '{"a": 1}\n{"a": 2}'
    (here / "in.jsonl").write_text(text)
    (here / "link.jsonl").symlink_to("in.jsonl")
    os.link("in.jsonl", "hard.jsonl")
    for output in ("in.jsonl", "./in.jsonl", "link.jsonl", "hard.jsonl"):
        error = trouble("length", "in.jsonl", output, overwrite=overwrite)
        assert error.status == 2
        assert "the output is the input" in str(error)
    error = trouble("fails", "in.jsonl", "o.jsonl", errors="link.jsonl", overwrite=overwrite)
    assert "the errors file is the input" in str(error)
    os.rename("in.jsonl", "o.parquet.rows.jsonl")
    error = trouble("length", "o.parquet.rows.jsonl", "o.parquet", overwrite=overwrite)
    assert "the output is the input" in str(error)
    assert (here / "o.parquet.rows.jsonl").read_text() == text
    assert not (here / "o.jsonl").exists()


def test_two_things_are_not_written_to_one_file(here: Path) -> None:
    assert "the errors file is the output" in str(
        trouble("fails", "in.jsonl", "o.jsonl", errors="./o.jsonl")
    )
    assert not (here / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("o.jsonl", "dear diary"),
        ("o.jsonl", "dear diary\nsecond line\n"),
        ("o.jsonl", '{"a": 1, "result": 8}\nnot of ours'),
        ("o.csv", "dear diary, without an end"),
        ("o.csv", "a,other\n1,2\n"),
    ],
)
def test_a_file_of_something_else_is_left_alone(here: Path, name: str, text: str) -> None:
    (here / name).write_text(text)
    error = trouble("length", "in.jsonl", name)
    assert error.status == 4
    assert "something else" in str(error)
    assert (here / name).read_text() == text
    assert run("length", "in.jsonl", name, overwrite=True) == 0


def test_a_parquet_file_of_something_else_is_left_alone(here: Path) -> None:
    pytest.importorskip("pyarrow")
    (here / "o.parquet").write_text("dear diary")
    assert trouble("length", "in.jsonl", "o.parquet").status == 4
    assert (here / "o.parquet").read_text() == "dear diary"
    assert run("length", "in.jsonl", "o.parquet", overwrite=True) == 0


@pytest.mark.parametrize("handler", ["nothing", "no_such:module"])
def test_nothing_is_cut_off_before_there_is_a_handler(here: Path, handler: str) -> None:
    assert run("odd", "in.jsonl", "o.jsonl") == 1
    before = {name: (here / name).read_bytes() for name in ("o.jsonl", "o.jsonl.errors.jsonl")}
    with pytest.raises(Trouble):
        run(handler, "in.jsonl", "o.jsonl", overwrite=True)
    assert before == {name: (here / name).read_bytes() for name in before}


# ---------------------------------------------------------------------------------- rows to be read


def test_a_field_that_the_input_has_too(here: Path) -> None:
    rows = [{"result": n, "a": n} for n in range(6)]
    (here / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("length", "in.jsonl", "o.jsonl", limit=3) == 0
    assert run("length", "in.jsonl", "o.jsonl") == 0
    assert [row["a"] for row in got(here / "o.jsonl")] == list(range(6))


def test_rows_that_are_hard_to_read(here: Path) -> None:
    (here / "in.jsonl").write_text("[" * 100_000 + '\n{"a": "\\ud800"}\n')
    assert run("same", "in.jsonl", "o.jsonl") == 1
    assert got(here / "o.jsonl") == [{"a": "\ud800", "result": {"a": "\ud800"}}]
    assert "no JSON" in got(here / "o.jsonl.errors.jsonl")[0]["error"]


def test_an_unreadable_row_of_csv_fails_alone(here: Path) -> None:
    (here / "in.csv").write_bytes(b'a,b\n1,2\n\xff,2\n"x"y,3\n4,5\nonly one\n6,7\n')
    assert run("same", "in.csv", "o.jsonl") == 1
    assert [row["a"] for row in got(here / "o.jsonl")] == ["1", "4", "6"]
    failed = got(here / "o.jsonl.errors.jsonl")
    assert [row["row"] for row in failed] == [2, 3, 5]
    for row, text in zip(failed, ["no UTF-8", "line 4", "1 values for 2"], strict=True):
        assert text in row["error"]
    assert run("same", "in.csv", "o.jsonl") == 1
    assert len(got(here / "o.jsonl")) == 3
    (here / "open.csv").write_text('a,b\n1,2\n"3,4\n5,6\n')
    error = trouble("same", "open.csv", "open.jsonl")
    assert error.status == 3
    assert "line 3" in str(error)
    assert [row["a"] for row in got(here / "open.jsonl")] == ["1"]
    (here / "names.csv").write_bytes(b"a,\xff\n1,2\n")
    assert "no UTF-8" in str(trouble("same", "names.csv", "names.jsonl"))


def test_marks_at_the_beginning_of_a_file_are_no_part_of_it(here: Path) -> None:
    for name, text in [("in.csv", "a\nx\n"), ("in.txt", "x\n"), ("in.jsonl", '"x"\n')]:
        (here / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        out = f"{name}.jsonl"
        assert run("same", name, out, column="a" if name == "in.csv" else None) == 0
        assert got(here / out)[0]["result"] == "x"


def test_a_damaged_parquet_file(here: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"a": range(20_000)}), "in.parquet", row_group_size=5000)
    data = bytearray((here / "in.parquet").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(byte ^ 0xFF for byte in data[middle : middle + 2000])
    (here / "bad.parquet").write_bytes(data)
    error = trouble("length", "bad.parquet", "o.jsonl")
    assert error.status == 3
    assert "cannot read bad.parquet" in str(error)
    written = len(got(here / "o.jsonl"))
    assert 0 < written < 20_000
    assert run("length", "in.parquet", "o.jsonl") == 0
    assert [row["a"] for row in got(here / "o.jsonl")] == list(range(20_000))


# -------------------------------------------------------------------------------- values to be written


def test_breaks_and_long_cells_in_csv(here: Path) -> None:
    (here / "in.csv").write_text("a\n1\n2\n" + "y" * 200_000 + "\n")
    for handler, result in [("broken_line", "a\rb"), ("long", "x" * 200_000)]:
        out = here / f"{handler}.csv"
        assert run(handler, "in.csv", out.name) == 0
        whole = out.read_bytes()
        with out.open(newline="") as file:
            assert [row["result"] for row in csv.DictReader(file)] == [result] * 3
        assert run(handler, "in.csv", out.name) == 0
        assert out.read_bytes() == whole
        out.write_bytes(whole[:-5])
        assert run(handler, "in.csv", out.name) == 0
        assert out.read_bytes() == whole


def test_values_that_json_does_not_know(here: Path) -> None:
    assert run("values", "in.jsonl", "o.jsonl") == 0
    assert got(here / "o.jsonl")[0]["result"] == {
        "day": "2024-02-29",
        "price": "1.10",
        "raw": "YWI=",
    }
    assert run("day", "in.jsonl", "o.csv") == 0
    assert (here / "o.csv").read_text() == "a,result\n" + "".join(
        f"{n},2024-02-29\n" for n in (1, 2, 3)
    )


def test_errors_that_cannot_be_shown(here: Path) -> None:
    assert run("unshown", "in.jsonl", "o.jsonl") == 1
    assert "cannot be shown" in got(here / "o.jsonl.errors.jsonl")[0]["error"]
    assert run("half", "in.jsonl", "h.jsonl") == 1
    assert got(here / "h.jsonl.errors.jsonl")[0]["error"] == "ValueError: \ud800"


def test_parquet_with_times_bytes_and_what_is_no_number(here: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    day = datetime.date(2024, 2, 29)
    parquet.write_table(pyarrow.table({"day": [day], "raw": [b"ab"]}), "in.parquet")
    assert run("length", "in.parquet", "o.jsonl") == 0
    assert got(here / "o.jsonl")[0]["day"] == "2024-02-29"
    assert run("length", "in.parquet", "o.csv") == 0
    assert (here / "o.csv").read_text().startswith("day,raw,result\n2024-02-29,YWI=,")
    assert run("not_a_number", "in.parquet", "o.parquet") == 0
    (row,) = parquet.read_table("o.parquet").to_pylist()
    assert row["day"] == day
    assert row["result"] != row["result"]


def test_parquet_of_rows_of_different_columns(here: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (here / "in.jsonl").write_text('{"a": 1}\n{"a": 2, "b": 3}\n')
    assert run("length", "in.jsonl", "o.parquet") == 0
    rows = parquet.read_table("o.parquet").to_pylist()
    assert rows == [{"a": 1, "b": None, "result": 8}, {"a": 2, "b": 3, "result": 16}]
    (here / "in.jsonl").write_text('{"a": 1}\n{"a": "two"}\n')
    assert "all rows are in" in str(trouble("length", "in.jsonl", "mixed.parquet"))
    (here / "in.jsonl").write_text(f'{{"a": {10**30}}}\n')
    assert "all rows are in" in str(trouble("length", "in.jsonl", "large.parquet"))
    assert got(here / "large.parquet.rows.jsonl")[0]["value"]["a"] == 10**30
    assert not (here / "large.parquet.tmp").exists()


@pytest.mark.parametrize("source", ["in.jsonl", "in.parquet"])
def test_a_parquet_file_goes_on_too(here: Path, source: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"a": n, "more": {"x": n} if n else {"y": n}} for n in range(10)]
    if source == "in.jsonl":
        (here / source).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), source)
    out = here / "o.parquet"
    assert run("odd", source, "o.parquet", limit=5) == 1
    assert [row["a"] for row in parquet.read_table(out).to_pylist()] == [0, 2, 4]
    first = out.read_bytes()
    assert run("odd", source, "o.parquet", limit=6) == 1
    assert out.read_bytes() == first
    assert run("odd", source, "o.parquet") == 1
    found = parquet.read_table(out).to_pylist()
    assert [(row["a"], row["result"]) for row in found] == [(n, n) for n in range(0, 10, 2)]
    assert found[1]["more"]["x"] == 2
    assert not (here / "o.parquet.rows.jsonl").exists()
    assert _run.run(Asked("filed:odd", source, "o.parquet"))[1].startswith("nothing left to do")


# -------------------------------------------------------------------------------------------- pipes


def test_what_a_handler_prints_is_no_row(here: Path) -> None:
    process = carpool("filed:prints", "-i", "in.jsonl", "-o", "-", stdout=subprocess.PIPE)
    out, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, told
    assert [json.loads(line)["a"] for line in out.splitlines()] == [1, 2, 3]
    assert b"from python" in told
    assert b"from below" in told


def test_errors_to_standard_error(here: Path) -> None:
    process = carpool("filed:odd", "-i", "in.jsonl", "-o", "o.jsonl", "--errors", "-")
    _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert b'"ValueError: odd"' in told
    assert {*os.listdir(here)} - {"__pycache__"} == {"filed.py", "in.jsonl", "o.jsonl"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_named_pipes(here: Path) -> None:
    os.mkfifo("in.pipe")
    process = carpool(
        *("filed:length", "-i", "in.pipe", "--input-format", "jsonl", "-o", "o.csv", "--progress")
    )
    with open("in.pipe", "w") as pipe:
        pipe.write('{"a": 1}\n{"a": 2}\n')
    _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, told
    assert (here / "o.csv").read_text() == "a,result\n1,8\n2,8\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_nobody_reads_the_named_pipe(here: Path) -> None:
    os.mkfifo("out.pipe")
    (here / "in.jsonl").write_text(2000 * ('{"a": "' + "x" * 1000 + '"}\n'))
    process = carpool(
        *("filed:same", "-i", "in.jsonl", "-o", "out.pipe", "--output-format", "jsonl")
    )
    with open("out.pipe", "rb") as pipe:
        pipe.read(10)
    _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 141, told
    assert told == b""


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of a shell")
@pytest.mark.parametrize(
    ("closed", "status", "text"),
    [(0, 3, b"cannot read standard input"), (1, 4, b"cannot write standard output"), (2, 0, b"")],
)
def test_what_is_closed(here: Path, closed: int, status: int, text: bytes) -> None:
    words = ["filed:same", "-i", "-" if closed == 0 else "in.jsonl"]
    words += ["-o", "-" if closed == 1 else "o.jsonl"]
    process = carpool(*words, stdin=subprocess.DEVNULL, preexec_fn=lambda: os.close(closed))
    _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == status
    assert text in told
    assert b"Traceback" not in told


# --------------------------------------------------------------------------------------- interrupts


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("handler", ["waits", "awaits"])
def test_an_interrupt_does_not_wait_for_the_handler(here: Path, handler: str) -> None:
    process = carpool(
        *(f"filed:{handler}", "-i", "in.jsonl", "-o", "o.jsonl"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"entered\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 130, told
    assert b"stopped, 0 rows written" in told
    assert b"Traceback" not in told


def test_an_interrupt_while_the_handler_is_loaded(here: Path) -> None:
    (here / "filed.py").write_text("raise KeyboardInterrupt")
    status, said = _run.run(Asked("filed:any", "in.jsonl", "o.jsonl"))
    assert status == 130
    assert "stopped" in said


def test_a_module_that_exits(here: Path) -> None:
    (here / "filed.py").write_text("raise SystemExit(0)")
    assert trouble("any", "in.jsonl", "o.jsonl").status == 5


def test_it_is_not_in_the_main_thread_only(here: Path) -> None:
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.append(run("length", "in.jsonl", "o.jsonl")))
    thread.start()
    thread.join(LIMIT)
    assert got == [0]
