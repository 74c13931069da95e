"""Where rows are written, and what a run that was killed has left there.

Rows are appended in the order of the input, each whole by its line end. So what stands in a file says how far the run
has come, and a last row without its end was never written: it is cut off. Nothing else is kept on the side.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ._trouble import OUTPUT, Trouble, of_output

__all__ = ["Appender", "encoder_of", "jsonl"]


class Unwritable(ValueError):
    """A result does not fit the format of the output."""


def plain(value: Any) -> Any:
    """What JSON can hold instead of a value that it cannot: arrays and tensors as lists."""
    for way in ("tolist", "model_dump", "_asdict"):
        if hasattr(value, way) and not isinstance(value, type):
            return getattr(value, way)()
    raise Unwritable(f"a result of type {type(value).__name__} cannot be written")


def jsonl(row: Any) -> bytes:
    """A row as a line of JSON.

    Raises:
        ValueError, TypeError: it cannot be written so.
    """
    return json.dumps(row, ensure_ascii=False, allow_nan=False, default=plain).encode() + b"\n"


class JsonLines:
    """Rows as JSON lines."""

    header = b""

    def encode(self, row: Any) -> bytes:
        """One row."""
        return jsonl(row)

    def rows(self, file: io.BufferedIOBase) -> Iterator[tuple[int, Any]]:
        """Each whole row of a file: where it ends, and what stands there."""
        end = 0
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield end, line

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
        csv.writer(text, lineterminator="\n").writerow(cells)
        return text.getvalue().encode()

    def rows(self, file: io.BufferedIOBase) -> Iterator[tuple[int, Any]]:
        """Each whole row of a file: where it ends, and what stands there."""
        end = 0

        def lines() -> Iterator[str]:
            nonlocal end
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                yield line.decode()

        reader = csv.reader(lines(), strict=True)
        # A row that was cut inside of quotes has no end.
        with contextlib.suppress(csv.Error):
            header = next(reader, None)
            if header is not None and header != self._columns:
                raise Trouble(
                    OUTPUT,
                    f"the output has the columns {header}, and not {self._columns}: "
                    f"it is not of this run (--overwrite begins anew)",
                )
            for row in reader:
                yield end, row

    def decode(self, row: Any) -> Any:
        """A row as it was given, but every cell a str."""
        return dict(zip(self._columns, row, strict=False))


def cell(value: Any) -> Any:
    """A value in a cell."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    return jsonl(value)[:-1].decode()


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

    Raises:
        Trouble: it cannot be opened, or another run writes to it.
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
        if path == "-":
            self._descriptor = sys.stdout.fileno()
        else:
            self._open(overwrite)
        self._size = os.fstat(self._descriptor).st_size if self._is_file else 0
        if not self._size and encoder.header:
            self.write(encoder.header)

    def _open(self, overwrite: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            try:
                self._descriptor = os.open(self.path, flags, 0o666)
            except OSError as error:
                # Devices and pipes may be for writing alone.
                if not os.path.exists(self.path) or os.path.isfile(self.path):
                    raise
                del error
                self._descriptor = os.open(self.path, os.O_WRONLY)
            self._is_file = os.path.isfile(self.path)
            if not self._is_file:
                return
            self._lock()
            if overwrite:
                os.ftruncate(self._descriptor, 0)
            self._look()
            os.lseek(self._descriptor, 0, os.SEEK_END)
        except (OSError, Trouble) as error:
            if self._descriptor >= 0:
                os.close(self._descriptor)
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
        """Counts what is there, and cuts off what has no end."""
        end, last = 0, None
        with open(self.path, "rb") as file:
            for row_end, row in self._encoder.rows(file):
                end, last = row_end, row
                self.before += 1
        if last is not None:
            with contextlib.suppress(ValueError):
                self.last = self._encoder.decode(last)
        if end == 0 and os.fstat(self._descriptor).st_size >= len(self._encoder.header):
            # At most the header.
            end = len(self._encoder.header)
        os.ftruncate(self._descriptor, min(end, os.fstat(self._descriptor).st_size))

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
        if self.path == "-":
            return
        try:
            if self._is_file:
                os.fsync(self._descriptor)
            os.close(self._descriptor)
        except OSError as error:
            raise of_output(self.name, error) from error
