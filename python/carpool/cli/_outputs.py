"""Where rows are written, and what a run that was killed has left there.

Rows are appended in the order of the input, each whole by its line end. So what stands in a file says how far the run
has come, and a last row without its end was never written: it is cut off. Nothing else is kept on the side.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import dataclasses
import decimal
import errno
import io
import json
import os
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from ._trouble import OUTPUT, Trouble, of_output

__all__ = ["Appender", "encoder_of", "jsonl"]


class Unwritable(ValueError):
    """A result does not fit the format of the output."""


def plain(value: Any) -> Any:
    """What JSON can hold instead of a value that it cannot.

    Arrays and tensors become lists, times as in ISO 8601, decimal numbers and UUIDs text, bytes base64.
    """
    for way in ("tolist", "model_dump", "_asdict", "isoformat"):
        if hasattr(value, way) and not isinstance(value, type):
            return getattr(value, way)()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    raise Unwritable(f"a result of type {type(value).__name__} cannot be written")


def jsonl(row: Any, *, nan: bool = False) -> bytes:
    """A row as a line of JSON; `nan` allows numbers that JSON does not know.

    Raises:
        ValueError, TypeError: it cannot be written so.
    """
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=nan, default=plain).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can say and UTF-8 cannot.
        line = json.dumps(row, allow_nan=nan, default=plain).encode()
    return line + b"\n"


class JsonLines:
    """Rows as JSON lines."""

    header = b""

    def encode(self, row: Any) -> bytes:
        """One row."""
        return jsonl(row)

    def rows(self, file: io.BufferedIOBase) -> Iterator[tuple[int, Any]]:
        """Each whole row of a file: where it ends, and what stands there.

        Raises:
            ValueError: what stands in the file was not written so.
        """
        end = 0
        for line in file:
            if not line.endswith(b"\n"):
                self.check_tail(line)
                return
            end += len(line)
            yield end, line

    def check_tail(self, tail: bytes) -> None:
        """Raises ValueError if this cannot be the beginning of a row."""
        if tail[:2] != b'{"'[: len(tail)]:
            raise ValueError("no JSON object")

    def decode(self, line: Any) -> Any:
        """A row as it was given."""
        return json.loads(line)


class Text(JsonLines):
    """The results alone, each on a line of its own."""

    def __init__(self, field: str) -> None:
        self._field = field

    def encode(self, row: Any) -> bytes:
        result = row[self._field]
        line = result if isinstance(result, str) else jsonl(result)[:-1].decode()
        if "\n" in line or "\r" in line:
            raise Unwritable("the result has a line break, which a line of text cannot hold")
        return line.encode() + b"\n"

    def check_tail(self, tail: bytes) -> None:
        """Any text may be one."""

    def decode(self, line: Any) -> Any:
        return None


class Csv:
    """Rows as CSV, columns by name; what is no str and no number stands there as JSON."""

    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self.header: bytes = self._line(columns)

    def encode(self, row: Any) -> bytes:
        """One row."""
        if more := [name for name in row if name not in self._columns]:
            raise Unwritable(f"the row has a column {more[0]!r}, which the first row has not")
        return self._line([cell(row.get(name)) for name in self._columns])

    def _line(self, cells: list[Any]) -> bytes:
        text = io.StringIO()
        # Only what is part of the line end is put in quotes by every version of the module.
        csv.writer(text, lineterminator="\r\n").writerow(cells)
        return text.getvalue().removesuffix("\r\n").encode() + b"\n"

    def rows(self, file: io.BufferedIOBase) -> Iterator[tuple[int, Any]]:
        """Each whole row of a file: where it ends, and what stands there.

        Raises:
            ValueError: what stands in the file was not written so.
        """
        there = file.read(len(self.header))
        if there != self.header[: len(there)]:
            raise ValueError(f"no line of the columns {', '.join(self._columns)}")
        if len(there) < len(self.header):
            return
        end = len(there)

        def lines() -> Iterator[str]:
            nonlocal end
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                yield line.decode()

        # A row that was cut inside of quotes has no end.
        with contextlib.suppress(csv.Error):
            for row in csv.reader(lines(), strict=True):
                yield end, row

    def decode(self, row: Any) -> Any:
        """A row as it was given, but every cell a str."""
        return dict(zip(self._columns, row, strict=True))


def cell(value: Any) -> Any:
    """A value in a cell."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    text = jsonl(value)[:-1].decode()
    # What JSON holds as text is text here, without its quotes.
    return json.loads(text) if text.startswith('"') else text


def encoder_of(format: str, field: str, names: Callable[[], list[str]]) -> Any:
    """How rows are written in a format; `names` gives the columns of the input.

    Raises:
        Trouble: the format needs columns, and the input has none.
    """
    if format == "csv":
        return Csv([*(name for name in names() if name != field), field])
    return Text(field) if format == "text" else JsonLines()


class Appender:
    """A file that rows are appended to; with `-`, standard output.

    Opening it changes nothing of what stands there: `begin()` does, once it is known to be of this run.

    Raises:
        Trouble: it cannot be opened, is no output of such a run, or another run writes to it.
    """

    def __init__(self, path: str, encoder: Any, *, overwrite: bool = False) -> None:
        self.path = path
        self.name = "standard output" if path == "-" else path
        self._encoder = encoder
        #: Whole rows that were there before.
        self.before = 0
        #: The last of them, as it was given; None without one.
        self.last: Any = None
        self._is_file = False
        self._descriptor = -1
        #: How much of it stands for ever.
        self._size = 0
        self._open(overwrite)

    def _open(self, overwrite: bool) -> None:
        try:
            if self.path == "-":
                self._descriptor = _taken()
                return
            self._descriptor = os.open(self.path, _flags(self.path), 0o666)
            self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            if self._is_file:
                self._lock()
                if not overwrite:
                    self._look()
        except (OSError, Trouble) as error:
            self._shut()
            if isinstance(error, Trouble):
                raise
            raise of_output(self.name, error) from error

    def _lock(self) -> None:
        """Two runs would mix their rows."""
        try:
            import fcntl
        except ImportError:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Trouble(OUTPUT, f"{self.name}: another run is writing to it") from error

    def _look(self) -> None:
        """Counts what is there."""
        last = None
        try:
            with open(self.path, "rb") as file:
                for end, row in self._encoder.rows(file):
                    self._size, last = end, row
                    self.before += 1
            if last is not None:
                self.last = self._encoder.decode(last)
        except ValueError as error:
            raise Trouble(
                OUTPUT,
                f"{self.name} holds something else than rows of such a run: {error} "
                "(--overwrite begins anew)",
            ) from error

    def begin(self) -> None:
        """Cuts off what has no end, or all of it to begin anew.

        Raises:
            Trouble: it cannot be written.
        """
        if self._is_file:
            try:
                os.ftruncate(self._descriptor, self._size)
                os.lseek(self._descriptor, 0, os.SEEK_END)
            except OSError as error:
                raise of_output(self.name, error) from error
        if not self._size and self._encoder.header:
            self.write(self._encoder.header)

    def encode(self, row: Any) -> bytes:
        """A row as it will stand there.

        Raises:
            Exception: it cannot be written so.
        """
        return self._encoder.encode(row)  # type: ignore[no-any-return]

    def write(self, data: bytes) -> None:
        """Appends whole rows; where that fails, what was half written is taken back.

        Raises:
            Trouble: the disk is full, or whatever else the system says.
        """
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            if self._is_file:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
            raise of_output(self.name, error) from error
        self._size += len(data)

    def close(self) -> None:
        """Closes it, with all that was written on the disk."""
        try:
            if self._is_file:
                os.fsync(self._descriptor)
            self._shut()
        except OSError as error:
            raise of_output(self.name, error) from error

    def _shut(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if self.path == "-":
            _give_back(descriptor)
        os.close(descriptor)


def _flags(path: str) -> int:
    """How a path is opened: a pipe that was opened for reading too would never say that nobody reads it."""
    flags = os.O_WRONLY
    if not os.path.exists(path) or os.path.isfile(path):
        flags = os.O_RDWR | os.O_CREAT
    return flags | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def _taken() -> int:
    """Standard output, for the rows alone: what a handler prints there goes to standard error meanwhile.

    Raises:
        OSError: it is closed.
    """
    # sys.stdout and sys.stderr are None then.
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    taken = os.dup(sys.stdout.fileno())
    sys.stdout.flush()
    if sys.stderr is not None:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return taken


def _give_back(taken: int) -> None:
    sys.stdout.flush()
    os.dup2(taken, sys.stdout.fileno())
