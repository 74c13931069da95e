"""One run: rows in, answers out, in the order of the input; and where to go on after a run that was ended.

A row of the input ends in the output or in the errors file. Failures of a stretch are written before the rows of the
same stretch, so that what stands in the two files says which row is the next, wherever a run was cut off: the output
holds the first rows that are not among the errors, without a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from carpool._exceptions import BatcherClosed, SetupError, WouldDeadlock
from carpool._many.async_pass import aover
from carpool._many.sync_pass import How, over

from ._formats import Entry, Source, format_of
from ._handlers import binder, load
from ._outputs import Appender, JsonLines, encoder_of, jsonl
from ._parquet import Numbered, finish, gathered_in
from ._trouble import FAILED_ROWS, HANDLER, INPUT, STOPPED, Trouble

__all__ = ["Asked", "run"]

#: Answers that have not been written are held no longer than so many seconds, while others come.
HELD_S = 0.2


@dataclass(frozen=True)
class Asked:
    """What the command line says."""

    handler: str
    input: str
    output: str
    input_format: str | None = None
    output_format: str | None = None
    errors: str | None = None
    column: str | None = None
    field: str = "result"
    max_batch_size: int | None = None
    workers: int | None = None
    retries: int = 0
    limit: int | None = None
    progress: bool = False
    overwrite: bool = False


@dataclass
class Tally:
    """What became of the rows."""

    before: int = 0
    written: int = 0
    failed: int = 0


class Sink:
    """Takes outcomes in the order of their rows and writes them, a stretch at a time."""

    def __init__(
        self,
        output: Appender,
        errors: Errors,
        tally: Tally,
        shape: Any,
        stretch: int,
    ) -> None:
        self.waiting: deque[Entry] = deque()
        self._output = output
        self._errors = errors
        self._tally = tally
        self._shape = shape
        self._stretch = stretch
        self._held: list[bytes] = []
        self._wrong: list[bytes] = []
        self._since = time.monotonic()

    def noted(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """The entries, noted as they are read."""
        for entry in entries:
            self.waiting.append(entry)
            yield entry

    def take(self, outcome: Any) -> None:
        """The outcome of the row that was noted first.

        Raises:
            Trouble: it cannot be written, or no other row would fare better.
        """
        entry = self.waiting[0]
        if isinstance(outcome, (SetupError, BatcherClosed, WouldDeadlock)):
            raise Trouble(HANDLER, str(outcome)) from outcome
        self.waiting.popleft()
        if not isinstance(outcome, BaseException):
            try:
                self._held.append(self._output.encode(self._shape(entry, outcome)))
            except Exception as error:  # of the user's values: anything may come
                outcome = error
        if isinstance(outcome, BaseException):
            self._wrong.append(self._errors.line(entry, outcome))
        if len(self._held) + len(self._wrong) >= self._stretch or (
            time.monotonic() - self._since >= HELD_S
        ):
            self.flush()

    def flush(self) -> None:
        """Writes what is held: failures first."""
        wrong, held = self._wrong, self._held
        self._wrong, self._held = [], []
        if wrong:
            self._errors.write(b"".join(wrong))
            self._tally.failed += len(wrong)
        if held:
            self._output.write(b"".join(held))
            self._tally.written += len(held)
        self._since = time.monotonic()


class Errors:
    """The errors file: a JSON line for each row that failed. Made by the first; with None, standard error."""

    def __init__(self, path: str | None, overwrite: bool) -> None:
        self.path = path
        self._appender: Appender | None = None
        self.numbers: set[int] = set()
        if path is None:
            return
        try:
            with open(path, "rb") as file:
                there = not overwrite and bool(file.read(1))
        except FileNotFoundError:
            return
        except OSError:
            there = True  # opening it for writing says why
        if there:
            self._read(path)
        self._appender = Appender(path, JsonLines(), overwrite=overwrite)

    def _read(self, path: str) -> None:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return  # it was cut off, and will be
                try:
                    self.numbers.add(int(json.loads(line)["row"]))
                except (ValueError, TypeError, LookupError) as error:
                    raise Trouble(
                        INPUT, f"{path}, line {number}: not a row that failed; is it another file?"
                    ) from error

    def line(self, entry: Entry, error: BaseException) -> bytes:
        """How a failure is written."""
        what = {"row": entry.number, "error": f"{type(error).__name__}: {error}"}
        try:
            return jsonl({**what, "input": entry.row})
        except Exception:  # of the user's values: anything may come
            return jsonl({**what, "input": repr(entry.row)})

    def write(self, data: bytes) -> None:
        """Appends failures."""
        if self.path is None:
            sys.stderr.buffer.write(data)
            sys.stderr.flush()
            return
        if self._appender is None:
            self._appender = Appender(self.path, JsonLines())
        self._appender.write(data)

    def close(self) -> None:
        if self._appender is not None:
            self._appender.close()


def run(asked: Asked) -> tuple[int, str]:
    """Runs it. The exit status, and what to say at the end.

    Raises:
        Trouble: it could not go on. What was written stays, and the same command goes on from there.
    """
    with contextlib.ExitStack() as opened:
        return _run(asked, opened)


def _run(asked: Asked, opened: contextlib.ExitStack) -> tuple[int, str]:
    input_format = format_of(asked.input, asked.input_format, "--input-format")
    output_format = format_of(asked.output, asked.output_format, "--output-format")
    is_parquet = output_format == "parquet"
    if is_parquet and asked.output == "-":
        raise Trouble(2, "Parquet cannot be written to a pipe: name a file")
    source = opened.enter_context(contextlib.closing(Source(asked.input, input_format)))
    path = gathered_in(asked.output) if is_parquet else asked.output
    is_done = is_parquet and os.path.exists(asked.output) and not os.path.exists(path)
    if is_done and not asked.overwrite:
        return 0, f"nothing left to do: {asked.output} is there (--overwrite begins anew)"
    encoder = Numbered() if is_parquet else encoder_of(output_format, asked.field, source.names)
    # What cannot be written is known before the handler is loaded.
    output = Appender(path, encoder, overwrite=asked.overwrite)
    opened.callback(output.close)
    errors_path = asked.errors
    if errors_path is None and asked.output != "-":
        errors_path = f"{asked.output}.errors.jsonl"
    errors = Errors(errors_path, asked.overwrite)
    opened.callback(errors.close)
    function = load(asked.handler, asked.max_batch_size, asked.workers)
    tally = Tally(before=output.before + len(errors.numbers))
    try:
        _go(
            asked,
            source,
            function,
            output,
            errors,
            tally,
            shape_of(asked, is_parquet, input_format),
        )
    except KeyboardInterrupt:
        return STOPPED, told(asked, tally, errors, STOPPED)
    if is_parquet:
        finish(asked.output, asked.field, asked.input if input_format == "parquet" else None)
    status = FAILED_ROWS if tally.failed or errors.numbers else 0
    return status, told(asked, tally, errors, status)


def shape_of(asked: Asked, is_parquet: bool, input_format: str) -> Any:
    """From a row and its answer to a row of the output."""
    name = asked.field

    def merged(entry: Entry, result: Any) -> Any:
        if isinstance(entry.row, dict):
            return {**entry.row, name: result}
        return {"input": entry.row, name: result}

    if not is_parquet:
        return merged
    if input_format == "parquet":
        return lambda entry, result: {"row": entry.number, "value": {name: result}}
    return lambda entry, result: {"row": entry.number, "value": merged(entry, result)}


def _go(
    asked: Asked,
    source: Source,
    function: Any,
    output: Appender,
    errors: Errors,
    tally: Tally,
    shape: Any,
) -> None:
    sink = Sink(output, errors, tally, shape, function._plan.options.max_batch_size)
    entries = beyond(source, output, errors.numbers, shape)
    if asked.limit is not None:
        entries = up_to(entries, asked.limit)
    length = None
    if asked.progress and (rows := source.length()) is not None:
        length = max(0, min(rows, asked.limit or rows) - tally.before)
    lot = function._lot(False)
    lot.bind = binder(function, asked.column, source.columns)
    how = How(errors="return", retries=asked.retries, progress=asked.progress)
    read = sink.noted(entries)
    try:
        if function._plan.executor == "loop":
            asyncio.run(_consume(sink, lot, read, how, length))
        else:
            for outcome in over(lot, iter(read), how, length):
                sink.take(outcome)
    finally:
        # Also what came before an interrupt, or before the input could not be read any further.
        sink.flush()


async def _consume(sink: Sink, lot: Any, read: Iterator[Entry], how: How, length: Any) -> None:
    async for outcome in aover(lot, iter(read), how, length):
        sink.take(outcome)


def up_to(entries: Iterator[Entry], limit: int) -> Iterator[Entry]:
    """The entries up to row `limit` of the input."""
    for entry in entries:
        if entry.number > limit:
            return
        yield entry


def beyond(source: Source, output: Appender, failed: set[int], shape: Any) -> Iterator[Entry]:
    """The rows that are neither in the output nor among the failed.

    Raises:
        Trouble: the output is not of this input.
    """
    written = output.before
    last = number_of(written, failed)
    entries = source.entries(max(0, last - 1))
    if written:
        entry = next(entries, None)
        if entry is None or not belongs(entry, output.last, shape):
            raise Trouble(
                INPUT,
                f"{output.name} has {written} rows, and the last of them is not of row {last} of "
                f"{source.name}: is it of another input? (--overwrite begins anew)",
            )
    for entry in entries:
        if entry.number not in failed:
            yield entry


def number_of(written: int, failed: set[int]) -> int:
    """The number of the last row in the output: the `written`th of those that have not failed."""
    number = written
    for one in sorted(failed):
        if one > number:
            break
        number += 1
    return number


def belongs(entry: Entry, last: Any, shape: Any) -> bool:
    """Whether a row of the output was made of this one of the input, as far as can be seen."""
    if last is None:
        return True
    expected = shape(entry, None)
    if "row" in expected and "value" in expected and set(expected) == {"row", "value"}:
        return isinstance(last, dict) and bool(last.get("row") == entry.number)
    names = list(expected)[:-1]
    return isinstance(last, dict) and all(same(last.get(name), expected[name]) for name in names)


def same(there: Any, given: Any) -> bool:
    """Whether a value that was written is this one; CSV knows text only."""
    if there == given or isinstance(there, str):
        return there == given or not isinstance(given, str)
    try:
        return bool(json.loads(jsonl(given)) == there)
    except (ValueError, TypeError):
        return True


def told(asked: Asked, tally: Tally, errors: Errors, status: int) -> str:
    """What to say at the end."""
    new = tally.written + tally.failed
    parts = [f"{tally.written} rows written" if tally.written != 1 else "1 row written"]
    if not new and tally.before and status != STOPPED:
        parts = ["nothing left to do"]
    if tally.before:
        parts.append(f"{tally.before} were there before")
    failed = tally.failed + len(errors.numbers)
    if failed:
        where = f": see {errors.path}" if errors.path is not None else ""
        parts.append(f"{failed} failed{where}")
    if status == STOPPED:
        parts.insert(0, "stopped")
        if asked.output != "-":
            parts.append("the same command goes on from here")
    return ", ".join(parts)
