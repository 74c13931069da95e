"""Where a run goes on: which rows stand in the output already, and whether they are of this input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ._formats import Entry, Source
from ._outputs import Appender, jsonl
from ._parquet import Row
from ._trouble import INPUT, Trouble

__all__ = ["beyond", "number_of"]


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
    return (entry for entry in entries if entry.number not in failed)


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
    answer = object()
    expected = shape(entry, answer)
    if isinstance(expected, Row):
        if not isinstance(last, dict) or last.get("row") != expected.number:
            return False
        expected, last = expected.value, last.get("value")
    return isinstance(last, dict) and all(
        same(last.get(name), given) for name, given in expected.items() if given is not answer
    )


def same(there: Any, given: Any) -> bool:
    """Whether a value that was written is this one; CSV knows text only, and Parquet fills up its structures."""
    if there == given or isinstance(there, str):
        return there == given or not isinstance(given, str)
    try:
        return alike(there, json.loads(jsonl(given)))
    except (ValueError, TypeError):
        return True


def alike(there: Any, given: Any) -> bool:
    """Whether two values are the same, where what is missing counts as None."""
    if isinstance(there, dict) and isinstance(given, dict):
        return all(alike(there.get(name), one) for name, one in given.items())
    if isinstance(there, list) and isinstance(given, list):
        return len(there) == len(given) and all(map(alike, there, given))
    return bool(there == given)
