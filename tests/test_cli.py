"""`carpool run`: formats, columns, failures, and what it says where it cannot go on."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

HANDLERS = """
from carpool import STOP, batched

sizes = []

@batched(max_batch_size=4)
def upper(rows):
    return [row["text"].upper() for row in rows]

def lengths(texts):
    return [len(text) for text in texts]

def joined(first, last, sep="-"):
    return [f"{a}{s}{b}" for a, b, s in zip(first, last, sep)]

async def awaited(rows):
    return [row["n"] for row in rows]

def odd(rows):
    return [ValueError(f"{row['n']} is odd") if row["n"] % 2 else row["n"] for row in rows]

def shapes(rows):
    kinds = {"list": [1, 2], "nan": float("nan"), "object": object(), "break": "a\\nb"}
    return [kinds[row] for row in rows]

def arrays(rows):
    import numpy
    return numpy.arange(len(rows) * 2).reshape(-1, 2)

def streaming(rows):
    yield rows

def broken():
    raise OSError("no device")

@batched(setup=broken)
def unready(rows):
    return rows

seen = set()
def flaky(rows):
    new = [row for row in rows if str(row) not in seen]
    seen.update(map(str, new))
    return [ConnectionError("again") if row in new else len(seen) for row in rows]

class Model:
    @batched
    def embed(self, texts):
        return [text[::-1] for text in texts]

    def plain(self, texts):
        return texts

model = Model()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "handlers", raising=False)
    return tmp_path


def carpool(*words: Any, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "carpool", *map(str, words)],
        input=stdin,
        capture_output=True,
        timeout=50,
        check=False,
    )


def ran(*words: str, stdin: bytes = b"", status: int = 0) -> bytes:
    """Runs it, between files in this process; what it wrote to its standard output."""
    if "-" not in words:
        said(*words, status=status)
        return b""
    done = carpool("run", *words, stdin=stdin)
    assert done.returncode == status, done.stderr.decode()
    return done.stdout


def said(*words: str, status: int) -> str:
    """Runs it in this process; what it said."""
    from carpool.cli._app import app

    told = io.StringIO()
    with contextlib.redirect_stderr(told):
        ended = app(["run", *words], standalone_mode=False)
    assert ended == status, told.getvalue()
    return told.getvalue()


def put(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def got(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


TEXTS = [{"id": n, "text": f"text {n}"} for n in range(10)]


# -------------------------------------------------------------------------------------- formats


def test_json_lines(here: Path) -> None:
    put(here / "in.jsonl", TEXTS)
    ran("handlers:upper", "--input", "in.jsonl", "--output", "out.jsonl")
    assert got(here / "out.jsonl") == [{**row, "result": row["text"].upper()} for row in TEXTS]
    assert not (here / "out.jsonl.errors.jsonl").exists()
    assert {*os.listdir(here)} - {"__pycache__"} == {"handlers.py", "in.jsonl", "out.jsonl"}


def test_pipes(here: Path) -> None:
    lines = "".join(json.dumps(row) + "\n\n" for row in TEXTS).encode()
    out = ran("handlers:upper", "-i", "-", "-o", "-", "--field", "loud", stdin=lines)
    assert [json.loads(line)["loud"] for line in out.splitlines()] == [
        row["text"].upper() for row in TEXTS
    ]
    out = ran(
        "handlers:lengths", "-i", "-", "-o", "-", "--input-format=text", stdin=b"a\nbcd\n\nef"
    )
    assert [json.loads(line) for line in out.splitlines()] == [
        {"input": "a", "result": 1},
        {"input": "bcd", "result": 3},
        {"input": "", "result": 0},
        {"input": "ef", "result": 2},
    ]


def test_csv(here: Path) -> None:
    (here / "in.csv").write_text('first,last\nada,"love\nlace"\n"a,b",c\n')
    ran("handlers:joined", "-i", "in.csv", "-o", "out.csv")
    rows = list(csv.DictReader(io.StringIO((here / "out.csv").read_text())))
    assert rows == [
        {"first": "ada", "last": "love\nlace", "result": "ada-love\nlace"},
        {"first": "a,b", "last": "c", "result": "a,b-c"},
    ]
    put(here / "in.jsonl", TEXTS)
    ran("handlers:upper", "-i", "in.jsonl", "-o", "of_json.csv")
    rows = list(csv.DictReader(io.StringIO((here / "of_json.csv").read_text())))
    assert rows[3] == {"id": "3", "text": "text 3", "result": "TEXT 3"}


def test_text(here: Path) -> None:
    (here / "in.txt").write_text("a\nbcd\n")
    ran("handlers:lengths", "-i", "in.txt", "-o", "out.jsonl")
    assert got(here / "out.jsonl") == [{"input": "a", "result": 1}, {"input": "bcd", "result": 3}]
    ran("handlers:lengths", "-i", "in.txt", "-o", "out.txt")
    assert (here / "out.txt").read_text() == "1\n3\n"


def test_parquet(here: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import datetime

    parquet = pytest.importorskip("pyarrow.parquet")
    day = datetime.date(2024, 2, 29)
    table = pyarrow.table({"n": list(range(50)), "day": [day] * 50})
    parquet.write_table(table, here / "in.parquet")
    ran("handlers:odd", "-i", "in.parquet", "-o", "out.parquet", status=1)
    out = parquet.read_table(here / "out.parquet")
    assert out.to_pylist() == [{"n": n, "day": day, "result": n} for n in range(0, 50, 2)]
    assert out.schema.field("day").type == table.schema.field("day").type
    assert [row["row"] for row in got(here / "out.parquet.errors.jsonl")] == list(range(2, 51, 2))
    assert "nothing left to do" in said(
        "handlers:odd", "-i", "in.parquet", "-o", "out.parquet", status=1
    )
    put(here / "in.jsonl", TEXTS)
    ran("handlers:upper", "-i", "in.jsonl", "-o", "of_json.parquet")
    rows = parquet.read_table(here / "of_json.parquet").to_pylist()
    assert rows == [{**row, "result": row["text"].upper()} for row in TEXTS]


# -------------------------------------------------------------------------------------- handlers


def test_who_gets_what(here: Path) -> None:
    put(
        here / "in.jsonl",
        [{"first": "a", "last": "b", "n": 1}, {"first": "c", "last": "d", "n": 2}],
    )
    for handler, options, results in [
        ("handlers:lengths", ["--column", "first"], [1, 1]),
        ("handlers:joined", [], ["a-b", "c-d"]),
        ("handlers:awaited", [], [1, 2]),
        ("handlers:awaited", ["--workers", "2", "--max-batch-size", "1"], [1, 2]),
        ("handlers:model.embed", ["--column", "last"], ["b", "d"]),
        ("handlers:model.plain", ["--column", "last", "--max-batch-size", "1"], ["b", "d"]),
        ("handlers:upper", ["--column", "nothing", "--limit", "0"], []),
    ]:
        out = ran(handler, "-i", "in.jsonl", "-o", "-", *options)
        assert [json.loads(line)["result"] for line in out.splitlines()] == results


def test_max_batch_size_and_limit(here: Path) -> None:
    (here / "sizes.py").write_text(
        "from carpool import batched\n"
        "@batched(max_batch_size=100)\n"
        "def sizes(rows):\n"
        "    return [len(rows)] * len(rows)\n"
    )
    put(here / "in.jsonl", list(range(30)))
    out = ran("sizes:sizes", "-i", "in.jsonl", "-o", "-", "--max-batch-size=3", "--limit", "7")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["input"] for row in rows] == list(range(7))
    assert [row["result"] for row in rows] == [3] * 6 + [1]


def test_retries(here: Path) -> None:
    put(here / "in.jsonl", [1, 2, 3])
    ran("handlers:flaky", "-i", "in.jsonl", "-o", "-", "--retries", "1")
    ran("handlers:flaky", "-i", "in.jsonl", "-o", "-", status=1)


def test_arrays_are_lists(here: Path) -> None:
    pytest.importorskip("numpy")
    put(here / "in.jsonl", [1, 2])
    out = ran("handlers:arrays", "-i", "in.jsonl", "-o", "-")
    assert [json.loads(line)["result"] for line in out.splitlines()] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("handler", "status", "text"),
    [
        ("handlers", 2, "module:function"),
        ("no_such_module:f", 5, "cannot import no_such_module"),
        ("handlers:lenghts", 5, "did you mean 'lengths'?"),
        ("handlers:model", 5, "decorates a function"),
        ("handlers:streaming", 5, "streaming"),
        ("handlers:unready", 5, "no device"),
    ],
)
def test_a_handler_that_cannot_run(here: Path, handler: str, status: int, text: str) -> None:
    put(here / "in.jsonl", TEXTS)
    told = said(handler, "-i", "in.jsonl", "-o", "out.jsonl", status=status)
    assert text in told
    assert (here / "out.jsonl").read_bytes() == b""


# -------------------------------------------------------------------------------------- failures


def test_failed_rows_go_to_a_file_of_their_own(here: Path) -> None:
    put(here / "in.jsonl", [{"n": n} for n in range(6)])
    told = said("handlers:odd", "-i", "in.jsonl", "-o", "out.jsonl", status=1)
    assert "3 rows written, 3 failed: see out.jsonl.errors.jsonl" in told
    assert [row["n"] for row in got(here / "out.jsonl")] == [0, 2, 4]
    assert got(here / "out.jsonl.errors.jsonl") == [
        {"row": n + 1, "error": f"ValueError: {n} is odd", "input": {"n": n}} for n in (1, 3, 5)
    ]
    said("handlers:odd", "-i", "in.jsonl", "-o", "o.jsonl", "--errors", "e.jsonl", status=1)
    assert (here / "e.jsonl").read_text() == (here / "out.jsonl.errors.jsonl").read_text()


def test_unreadable_rows_and_missing_columns(here: Path) -> None:
    (here / "in.jsonl").write_bytes(
        b'{"text": "a"}\n{"text": \n{"no": 1}\n[1]\n\xff\n{"text": "b"}\n'
    )
    ran("handlers:lengths", "-i", "in.jsonl", "-o", "o.jsonl", "--column", "text", status=1)
    assert got(here / "o.jsonl") == [{"text": "a", "result": 1}, {"text": "b", "result": 1}]
    failed = got(here / "o.jsonl.errors.jsonl")
    assert [row["row"] for row in failed] == [2, 3, 4, 5]
    assert "no JSON" in failed[0]["error"]
    assert failed[0]["input"] == '{"text": '
    assert "no column 'text'" in failed[1]["error"]
    assert "it is a list" in failed[2]["error"]
    assert "no JSON" in failed[3]["error"]
    (here / "in.csv").write_text("first,last\na,b\nc\nd,e\n")
    ran("handlers:joined", "-i", "in.csv", "-o", "o.csv", status=1)
    assert "1 values for 2 columns" in got(here / "o.csv.errors.jsonl")[0]["error"]


def test_results_that_cannot_be_written(here: Path) -> None:
    put(here / "in.jsonl", ["list", "nan", "object", "break"])
    ran("handlers:shapes", "-i", "in.jsonl", "-o", "o.jsonl", status=1)
    assert [row["result"] for row in got(here / "o.jsonl")] == [[1, 2], "a\nb"]
    assert [row["row"] for row in got(here / "o.jsonl.errors.jsonl")] == [2, 3]
    ran("handlers:shapes", "-i", "in.jsonl", "-o", "o.txt", status=1)
    assert (here / "o.txt").read_text() == "[1, 2]\n"
    assert "line break" in got(here / "o.txt.errors.jsonl")[-1]["error"]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["-i", "nowhere.jsonl", "-o", "o.jsonl"], 3, "cannot read nowhere.jsonl: No such file"),
        (["-i", ".", "-o", "o.jsonl", "--input-format", "text"], 3, "Is a directory"),
        (["-i", "in.dat", "-o", "o.jsonl"], 2, "--input-format"),
        (["-i", "in.jsonl", "-o", "o.jsonl", "--input-format", "xml"], 2, "one of jsonl"),
        (["-i", "in.jsonl", "-o", "no/folder/o.jsonl"], 4, "cannot write no/folder/o.jsonl"),
        (["-i", "in.csv", "-o", "o.jsonl", "--column", "txt"], 3, "did you mean 'text'?"),
        (["-i", "empty.csv", "-o", "o.jsonl"], 3, "empty"),
        (["-i", "bad.parquet", "-o", "o.jsonl"], 3, "cannot read bad.parquet"),
        (["-i", "in.jsonl", "-o", "-", "--output-format", "parquet"], 2, "pipe"),
    ],
)
def test_what_it_says_where_it_cannot_go_on(
    here: Path, words: list[str], status: int, text: str
) -> None:
    put(here / "in.jsonl", TEXTS)
    (here / "in.csv").write_text("id,text\n1,a\n")
    (here / "empty.csv").write_text("")
    (here / "bad.parquet").write_text("no parquet at all")
    if "bad.parquet" in words:
        pytest.importorskip("pyarrow")
    told = said("handlers:lengths", *words, status=status)
    assert text in told
    assert "Traceback" not in told


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(here: Path) -> None:
    put(here / "in.jsonl", TEXTS)
    told = said(
        "handlers:upper", "-i", "in.jsonl", "-o", "/dev/full", "--output-format=jsonl", status=4
    )
    assert "cannot write /dev/full: No space left on device" in told


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_a_disk_that_becomes_full_loses_nothing(here: Path) -> None:
    put(here / "in.jsonl", [{"text": "x" * 100, "n": n} for n in range(200)])
    run = [
        sys.executable,
        "-m",
        "carpool",
        "run",
        "handlers:upper",
        "-i",
        "in.jsonl",
        "-o",
        "o.jsonl",
    ]
    limited = textwrap.dedent(
        f"""
        import resource, signal, subprocess, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_050, 10_050))
        sys.exit(subprocess.run({run!r}, env={{**__import__('os').environ, 'PYTHONDONTWRITEBYTECODE': '1'}}).returncode)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", limited], capture_output=True, timeout=50, check=False
    )
    assert done.returncode == 4, done.stderr
    assert b"cannot write o.jsonl: File too large" in done.stderr
    written = got(here / "o.jsonl")
    assert 0 < len(written) < 200
    ran("handlers:upper", "-i", "in.jsonl", "-o", "o.jsonl")
    assert [row["n"] for row in got(here / "o.jsonl")] == list(range(200))


def test_nobody_reads_the_pipe(here: Path) -> None:
    put(here / "in.jsonl", [{"text": "x" * 1000}] * 2000)
    process = subprocess.Popen(
        [sys.executable, "-m", "carpool", "run", "handlers:upper", "-i", "in.jsonl", "-o", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_progress_is_drawn(here: Path) -> None:
    put(here / "in.jsonl", TEXTS)
    told = said("handlers:upper", "-i", "in.jsonl", "-o", "o.jsonl", "--progress", status=0)
    assert "10/10" in told


def test_without_the_extra_it_says_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "typer.py").write_text("raise ModuleNotFoundError('no typer', name='typer')\n")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, '.'); from carpool.cli import main; main()",
        ],
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 2
    assert b"pip install 'carpool[cli]'" in done.stderr


def test_the_version_and_help() -> None:
    assert carpool("--version").stdout.startswith(b"carpool 0.")
    assert b"--max-batch-size" in carpool("run", "--help").stdout
