"""Which format a file has, and the input as rows: one after the other, in bounded memory."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ._trouble import INPUT, Trouble, of_input

__all__ = ["FORMATS", "Entry", "Source", "format_of"]

FORMATS = ("jsonl", "csv", "parquet", "text")

_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".txt": "text",
    ".text": "text",
}


def format_of(path: str, given: str | None, what: str) -> str:
    """The format of a file, by its name where it is not given; of a pipe JSON lines.

    Raises:
        Trouble: it is not known.
    """
    if given is not None:
        if given not in FORMATS:
            raise Trouble(2, f"{what} must be one of {', '.join(FORMATS)}, not {given!r}")
        return given
    if path == "-":
        return "jsonl"
    suffix = Path(path).suffix.lower()
    if suffix not in _BY_SUFFIX:
        known = ", ".join(_BY_SUFFIX)
        raise Trouble(
            2, f"{path}: the format is not known from the name ({known}); say it with {what}"
        )
    return _BY_SUFFIX[suffix]


class Entry(NamedTuple):
    """One row of the input."""

    #: Counted from 1.
    number: int
    #: The row: a dict, for a line of text a str, for JSON lines whatever stands there.
    row: Any
    #: Why it cannot be read; then `row` is what stands there.
    error: Exception | None = None


class Unreadable(ValueError):
    """A row is not what its format says."""


class Source:
    """The rows of a file, or of standard input.

    Raises:
        Trouble: it cannot be opened, or read to its end.
    """

    def __init__(self, path: str, format: str) -> None:
        self.path = path
        self.format = format
        self.name = "standard input" if path == "-" else path
        #: The columns, where the format has them.
        self.columns: list[str] | None = None
        #: It can be read once only.
        self.is_pipe = path == "-" or (
            os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
        )
        self._file: BinaryIO | None = None
        #: Lines that were read to see what they are.
        self._seen: list[bytes] = []
        self._parquet: Any = None
        if format == "parquet":
            self._open_parquet()
        else:
            self._file = self._open()
        if format == "csv":
            assert self._file is not None
            text: Any = self._file
            # A cell may be as long as it likes, and bytes that are no UTF-8 concern their row alone.
            _any_length()
            self._text = io.TextIOWrapper(text, "utf-8-sig", "surrogateescape", newline="")
            self._reader = csv.reader(self._text, strict=True)
            try:
                self.columns = self._header()
            except Trouble:
                self.close()
                raise

    def _open(self) -> BinaryIO:
        try:
            if self.path != "-":
                return open(self.path, "rb")
            # sys.stdin is None where it is closed.
            if sys.stdin is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            return sys.stdin.buffer
        except OSError as error:
            raise of_input(self.name, error) from error

    def _open_parquet(self) -> None:
        try:
            import pyarrow.parquet
        except ModuleNotFoundError as error:
            raise Trouble(2, "Parquet needs pyarrow: pip install 'carpool[parquet]'") from error
        if self.is_pipe:
            raise Trouble(2, "Parquet cannot be read from a pipe: name a file")
        try:
            self._parquet = pyarrow.parquet.ParquetFile(self.path)
        except (OSError, pyarrow.ArrowException) as error:
            raise of_input(self.name, error) from error
        self.columns = self._parquet.schema_arrow.names

    def _header(self) -> list[str]:
        try:
            header = next(self._reader, None)
        except (OSError, ValueError, csv.Error) as error:
            raise of_input(self.name, error) from error
        if header is None:
            raise Trouble(
                INPUT, f"cannot read {self.name}: it is empty; the first line names the columns"
            )
        if wrong := [name for name in header if _is_no_text(name)]:
            raise Trouble(
                INPUT, f"cannot read {self.name}: a column's name is no UTF-8: {wrong[0]!r}"
            )
        twice = [name for name in header if header.count(name) > 1]
        if twice:
            raise Trouble(INPUT, f"cannot read {self.name}: two columns are named {twice[0]!r}")
        return header

    def entries(self, skip: int = 0) -> Iterator[Entry]:
        """The rows from number `skip` + 1 on. Those before are read over, and not looked into."""
        rows = {
            "jsonl": self._jsonl,
            "text": self._lines,
            "csv": self._csv,
            "parquet": self._rows_of_parquet,
        }[self.format]
        try:
            yield from rows(skip)
        except OSError as error:
            raise of_input(self.name, error) from error

    def _raw_lines(self) -> Iterable[bytes]:
        assert self._file is not None
        return chain(self._seen, self._file)

    def _jsonl(self, skip: int) -> Iterator[Entry]:
        number = 0
        for line in self._raw_lines():
            if line.isspace():
                continue
            number += 1
            if number > skip:
                try:
                    yield Entry(number, json.loads(line))
                except (ValueError, RecursionError) as error:
                    yield Entry(number, shown(line), Unreadable(f"no JSON: {error}"))

    def _lines(self, skip: int) -> Iterator[Entry]:
        for number, line in enumerate(self._raw_lines(), 1):
            if number > skip:
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                try:
                    yield Entry(number, line.decode("utf-8" if number > 1 else "utf-8-sig"))
                except UnicodeDecodeError as error:
                    yield Entry(number, shown(line), Unreadable(f"no UTF-8: {error}"))

    def _csv(self, skip: int) -> Iterator[Entry]:
        columns = self.columns
        assert columns is not None
        number = 0
        while True:
            first = self._reader.line_num + 1
            wrong: Exception | None = None
            values: list[str] | None
            try:
                values = next(self._reader, None)
            except csv.Error as error:
                if "end of data" in str(error):
                    # All that follows stands inside of its quotes.
                    raise Trouble(
                        INPUT,
                        f"cannot read {self.name}: quotes are opened in the row of line {first}, "
                        "and never closed",
                    ) from error
                values, wrong = [], Unreadable(f"line {self._reader.line_num}: {error}")
            if values is None:
                return
            if not values and wrong is None:
                continue
            number += 1
            if number <= skip:
                continue
            if wrong is None and len(values) != len(columns):
                wrong = Unreadable(f"{len(values)} values for {len(columns)} columns")
            if wrong is None and (value := next(filter(_is_no_text, values), None)) is not None:
                wrong = Unreadable(f"no UTF-8: {value!r}")
            if wrong is not None:
                yield Entry(number, values, wrong)
            else:
                yield Entry(number, dict(zip(columns, values, strict=True)))

    def _rows_of_parquet(self, skip: int) -> Iterator[Entry]:
        number = 0
        for batch in self._batches():
            if number + len(batch) <= skip:
                number += len(batch)
                continue
            for row in batch.to_pylist():
                number += 1
                if number > skip:
                    yield Entry(number, row)

    def _batches(self) -> Iterator[Any]:
        import pyarrow

        try:
            yield from self._parquet.iter_batches(batch_size=1024)
        except pyarrow.ArrowException as error:
            raise of_input(self.name, error) from error

    def names(self) -> list[str]:
        """What the columns of an output are called: those of the input, or of its first row.

        Raises:
            Trouble: there are none.
        """
        if self.columns is not None:
            return self.columns
        if self.format == "text":
            return ["input"]
        assert self._file is not None
        row: Any = None
        try:
            for line in self._file:
                self._seen.append(line)
                if not line.isspace():
                    with contextlib.suppress(ValueError, RecursionError):
                        row = json.loads(line)
                    break
        except OSError as error:
            raise of_input(self.name, error) from error
        if not isinstance(row, dict):
            raise Trouble(INPUT, f"CSV needs columns, and the first row of {self.name} has none")
        return list(row)

    def length(self) -> int | None:
        """About how many rows there are; None where that would take reading them."""
        if self._parquet is not None:
            return int(self._parquet.metadata.num_rows)
        if self.is_pipe:
            return None
        with open(self.path, "rb") as file:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
        return max(0, lines - 1) if self.format == "csv" else lines

    def close(self) -> None:
        """Closes what was opened."""
        if self._file is not None and self.path != "-":
            self._file.close()
        if self._parquet is not None:
            self._parquet.close()


def shown(line: bytes) -> str:
    """A line that cannot be read, for people."""
    return line.rstrip(b"\r\n").decode(errors="replace")


def _any_length() -> None:
    """Lets the csv module read cells of any length."""
    limit = sys.maxsize
    while True:
        try:
            csv.field_size_limit(limit)
        except OverflowError:  # a C long may be shorter
            limit >>= 16
        else:
            return


def _is_no_text(value: str) -> bool:
    """Whether there are bytes in it that are no UTF-8."""
    return not value.isascii() and any("\udc80" <= char <= "\udcff" for char in value)
