"""One run: rows in, answers out, in the order of the input; and where to go on after a run that was ended.

A row of the input ends in the output or in the errors file. Failures of a stretch are written before the rows of the
same stretch, so that what stands in the two files says which row is the next, wherever a run was cut off: the output
holds the first rows that are not among the errors, without a gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from carpool._exceptions import BatcherClosed, SetupError, WouldDeadlock
from carpool._many.async_pass import aover
from carpool._many.sync_pass import How, over

from ._formats import Entry, Source, format_of
from ._handlers import binder, load
from ._outputs import Appender, JsonLines, encoder_of, jsonl
from ._parquet import Numbered, Row, finish, gather_again, gathered_in, rows_of
from ._resume import beyond, number_of
from ._trouble import FAILED_ROWS, HANDLER, INPUT, STOPPED, Trouble, of_output

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

    @property
    def errors_path(self) -> str | None:
        """Where failed rows go; None is standard error."""
        if self.errors is None and self.output != "-":
            return f"{self.output}.errors.jsonl"
        return None if self.errors == "-" else self.errors


@dataclass
class Tally:
    """What became of the rows."""

    #: Rows that were there before, and those that had failed before.
    before: int = 0
    failed_before: int = 0
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
    """The errors file: a JSON line for each row that failed. Made by the first; with None, standard error.

    Raises:
        Trouble: it cannot be opened, or holds something else.
    """

    def __init__(self, path: str | None, overwrite: bool) -> None:
        self.path = path
        self._appender: Appender | None = None
        self.numbers: set[int] = set()
        if path is not None and os.path.exists(path):
            self._appender = Appender(path, JsonLines(), overwrite=overwrite)
            if self._appender.before:
                self._read(path, self._appender.before)

    def _read(self, path: str, count: int) -> None:
        with open(path, "rb") as file:
            for number, line in enumerate(islice(file, count), 1):
                try:
                    self.numbers.add(int(json.loads(line)["row"]))
                except (ValueError, TypeError, LookupError) as error:
                    raise Trouble(
                        INPUT, f"{path}, line {number}: not a row that failed; is it another file?"
                    ) from error

    def begin(self) -> None:
        """Cuts off what has no end, or all of it to begin anew."""
        if self._appender is not None:
            self._appender.begin()

    def line(self, entry: Entry, error: BaseException) -> bytes:
        """How a failure is written."""
        try:
            reason = f"{type(error).__name__}: {error}"
        except Exception as other:  # of the user's: anything may come
            reason = f"{type(error).__name__}, which cannot be shown: {type(other).__name__}"
        what = {"row": entry.number, "error": reason}
        try:
            return jsonl({**what, "input": entry.row})
        except Exception:  # of the input's values: anything may come
            return jsonl({**what, "input": repr(entry.row)})

    def write(self, data: bytes) -> None:
        """Appends failures.

        Raises:
            Trouble: they cannot be written.
        """
        if self.path is None:
            try:
                # sys.stderr is None where it is closed.
                if sys.stderr is None:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                sys.stderr.buffer.write(data)
                sys.stderr.flush()
            except OSError as error:
                raise of_output("standard error", error) from error
            return
        if self._appender is None:
            self._appender = Appender(self.path, JsonLines())
            self._appender.begin()
        self._appender.write(data)

    def close(self) -> None:
        """Closes it, with all that was written on the disk."""
        if self._appender is not None:
            self._appender.close()


def run(asked: Asked) -> tuple[int, str]:
    """Runs it. The exit status, and what to say at the end.

    Raises:
        Trouble: it could not go on. What was written stays, and the same command goes on from there.
    """
    tally = Tally()
    try:
        with contextlib.ExitStack() as opened:
            return _run(asked, tally, opened)
    except KeyboardInterrupt:
        return STOPPED, told(asked, tally, STOPPED)


def _run(asked: Asked, tally: Tally, opened: contextlib.ExitStack) -> tuple[int, str]:
    input_format = format_of(asked.input, asked.input_format, "--input-format")
    output_format = format_of(asked.output, asked.output_format, "--output-format")
    is_parquet = output_format == "parquet"
    if is_parquet and asked.output == "-":
        raise Trouble(2, "Parquet cannot be written to a pipe: name a file")
    path = gathered_in(asked.output) if is_parquet else asked.output
    check_apart(asked.input, {asked.output, path}, asked.errors_path)
    source = opened.enter_context(contextlib.closing(Source(asked.input, input_format)))
    errors = Errors(asked.errors_path, asked.overwrite)
    opened.callback(errors.close)
    if is_parquet and not asked.overwrite and os.path.exists(asked.output) > os.path.exists(path):
        tally.before, tally.failed_before = rows_of(asked.output), len(errors.numbers)
        if not source.is_pipe and is_complete(asked, input_format, tally.before, errors.numbers):
            status = FAILED_ROWS if tally.failed_before else 0
            return status, told(asked, tally, status)
        last = number_of(tally.before, errors.numbers)
        numbers = (number for number in range(1, last + 1) if number not in errors.numbers)
        gather_again(asked.output, numbers, asked.field if input_format == "parquet" else None)
    encoder = Numbered() if is_parquet else encoder_of(output_format, asked.field, source.names)
    # What cannot be written is known before the handler is loaded; and nothing is cut off before it is.
    output = Appender(path, encoder, overwrite=asked.overwrite)
    opened.callback(output.close)
    tally.before, tally.failed_before = output.before, len(errors.numbers)
    function = load(asked.handler, asked.max_batch_size, asked.workers)
    shape = shape_of(asked, is_parquet, input_format)
    _go(asked, source, function, output, errors, tally, shape)
    if is_parquet:
        finish(asked.output, asked.field, asked.input if input_format == "parquet" else None)
    status = FAILED_ROWS if tally.failed or tally.failed_before else 0
    return status, told(asked, tally, status)


def is_complete(asked: Asked, input_format: str, written: int, failed: set[int]) -> bool:
    """Whether a Parquet file that is there has all that was asked for."""
    with contextlib.closing(Source(asked.input, input_format)) as source:
        entries = source.entries(number_of(written, failed))
        entry = next((one for one in entries if one.number not in failed), None)
    return entry is None or (asked.limit is not None and entry.number > asked.limit)


def check_apart(read: str, written: set[str], errors: str | None) -> None:
    """Refuses to write to the file that is read, or two things to one.

    Raises:
        Trouble: two of them are the same.
    """
    if read != "-" and any(is_same(read, one) for one in written):
        raise Trouble(2, f"the output is the input, {read}: name another file")
    if errors is None:
        return
    if read != "-" and is_same(read, errors):
        raise Trouble(2, f"the errors file is the input, {read}: name another file")
    if any(is_same(one, errors) for one in written if one != "-"):
        raise Trouble(2, f"the errors file is the output, {errors}: name another file")


def is_same(one: str, other: str) -> bool:
    """Whether two paths lead to one file; devices and pipes may be read and written."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.isfile(one) and os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


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
        return lambda entry, result: Row(entry.number, {name: result})
    return lambda entry, result: Row(entry.number, merged(entry, result))


def _go(
    asked: Asked,
    source: Source,
    function: Any,
    output: Appender,
    errors: Errors,
    tally: Tally,
    shape: Any,
) -> None:
    lot = function._lot(False)
    lot.bind = binder(function, asked.column, source.columns)
    sink = Sink(output, errors, tally, shape, function._plan.options.max_batch_size)
    entries = beyond(source, output, errors.numbers, shape)
    # Cut off between the two, a run that begins anew finds an output it cannot go on with.
    errors.begin()
    output.begin()
    if asked.limit is not None:
        entries = up_to(entries, asked.limit)
    length = None
    if asked.progress and (rows := source.length()) is not None:
        length = max(0, min(rows, asked.limit or rows) - tally.before - tally.failed_before)
    how = How(errors="return", retries=asked.retries, progress=asked.progress)
    read = sink.noted(entries)
    try:
        if function._plan.executor == "loop":
            asyncio.run(_stoppable(_consume(sink, lot, read, how, length)))
        else:
            for outcome in over(lot, iter(read), how, length):
                sink.take(outcome)
    finally:
        # Also what came before an interrupt, or before the input could not be read any further.
        sink.flush()


async def _stoppable(run: Coroutine[Any, Any, None]) -> None:
    """An interrupt ends the run, wherever it strikes.

    From CPython 3.11 on `asyncio.run` sees to that. Before, it is raised in whatever the loop runs at that moment: in
    the handler it would be an error of that batch.
    """
    if sys.version_info < (3, 11) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        task, interrupts = asyncio.current_task(), []

        def stop() -> None:
            interrupts.append(signal.SIGINT)
            assert task is not None
            task.cancel()

        # Not in another thread, and not on every system.
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)
        try:
            await run
        except asyncio.CancelledError:
            if interrupts:
                raise KeyboardInterrupt from None
            raise
    else:
        await run


async def _consume(sink: Sink, lot: Any, read: Iterator[Entry], how: How, length: Any) -> None:
    async for outcome in aover(lot, iter(read), how, length):
        sink.take(outcome)


def up_to(entries: Iterator[Entry], limit: int) -> Iterator[Entry]:
    """The entries up to row `limit` of the input."""
    for entry in entries:
        if entry.number > limit:
            return
        yield entry


def told(asked: Asked, tally: Tally, status: int) -> str:
    """What to say at the end."""
    new = tally.written + tally.failed
    before = tally.before + tally.failed_before
    parts = [f"{tally.written} rows written" if tally.written != 1 else "1 row written"]
    if not new and before and status != STOPPED:
        parts = ["nothing left to do"]
    if before:
        parts.append(f"{before} were there before")
    if failed := tally.failed + tally.failed_before:
        where = f": see {asked.errors_path}" if asked.errors_path is not None else ""
        parts.append(f"{failed} failed{where}")
    if status == STOPPED:
        parts.insert(0, "stopped")
        if asked.output != "-":
            parts.append("the same command goes on from here")
    return ", ".join(parts)
