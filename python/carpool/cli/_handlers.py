"""The handler of a run: `module:function`, and what of a row it is called with."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from carpool._function import Decorated, decorate
from carpool._options import Options, closest

from ._formats import Entry
from ._trouble import HANDLER, INPUT, Trouble

__all__ = ["binder", "load"]


def load(place: str, max_batch_size: int | None, workers: int | None) -> Any:
    """The batched function at `module:function`; one that is not batched yet becomes so.

    Raises:
        Trouble: there is none, or it cannot be batched.
    """
    module_name, colon, path = place.partition(":")
    if not colon or not module_name or not path:
        raise Trouble(2, f"{place!r} is no handler: write module:function")
    # As for a program that is started here.
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise Trouble(
            HANDLER, f"cannot import {module_name}: {type(error).__name__}: {error}"
        ) from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            hint = closest(name, [one for one in dir(found) if not one.startswith("_")])
            raise Trouble(HANDLER, f"{place}: there is no {name!r}: {hint}") from error
    options: dict[str, Any] = {"max_batch_size": max_batch_size, "max_concurrent_batches": workers}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        if not isinstance(found, Decorated):
            found = decorate(found, Options(**given))
        elif given:
            found.configure(**given)
    except (TypeError, ValueError) as error:
        raise Trouble(HANDLER, f"{place}: {error}") from error
    if found._plan.streams:
        raise Trouble(HANDLER, f"{place} is a streaming handler; a run needs one that returns")
    return found


class MissingColumn(LookupError):
    """A row lacks what the handler needs."""


def binder(function: Any, column: str | None, columns: list[str] | None) -> Callable[[Entry], Any]:
    """From a row to the item of a call.

    A handler with one parameter gets the row, or its `column`; one with several gets columns by name.

    Raises:
        Trouble: the input has columns, and not those that are needed.
    """
    binding = function._binding
    parameters = {one.name: one for one in binding.parameters}
    if column is not None and not binding.one:
        raise Trouble(
            2, f"--column is for handlers with one parameter; this one has {', '.join(parameters)}"
        )
    needed = [column] if column is not None else []
    if not binding.one:
        needed = [name for name, one in parameters.items() if one.default is one.empty]
    if columns is not None:
        for name in needed:
            if name not in columns:
                raise Trouble(INPUT, f"the input has no column {name!r}: {closest(name, columns)}")

    def whole(entry: Entry) -> Any:
        _check(entry)
        return entry.row

    def one_column(entry: Entry) -> Any:
        return _row_of(entry, needed)[needed[0]]

    def by_name(entry: Entry) -> Any:
        row = _row_of(entry, needed)
        return binding.item((), {name: row[name] for name in parameters if name in row})

    if column is not None:
        return one_column
    return whole if binding.one else by_name


def _check(entry: Entry) -> None:
    if entry.error is not None:
        raise entry.error


def _row_of(entry: Entry, needed: list[str]) -> dict[str, Any]:
    _check(entry)
    row = entry.row
    if not isinstance(row, dict):
        raise MissingColumn(f"the row has no columns: it is a {type(row).__name__}")
    for name in needed:
        if name not in row:
            raise MissingColumn(f"the row has no column {name!r}")
    return row
