"""`python -m carpool.compat.modal run FILE[::NAME] [--ARGUMENT VALUE ...]`: runs a local entrypoint, as `modal run` does."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import inspect
import sys
import types
import typing
from pathlib import Path
from typing import Any

from . import App, LocalEntrypoint

USAGE = "usage: python -m carpool.compat.modal run FILE[::NAME] [--ARGUMENT VALUE ...]"

#: What an argument may be: by its annotation, what is made of its text.
KINDS: dict[Any, Any] = {
    str: str,
    int: int,
    float: float,
    datetime.datetime: datetime.datetime.fromisoformat,
    Any: str,
}


def main(arguments: list[str]) -> int:
    """Runs what the arguments name; the exit code."""
    if len(arguments) < 2 or arguments[0] != "run":
        print(USAGE, file=sys.stderr)
        return 2
    path, _, wanted = arguments[1].partition("::")
    try:
        found = vars(_module_at(Path(path)))
    except FileNotFoundError as error:
        print(f"{error}\n{USAGE}", file=sys.stderr)
        return 2
    entrypoints: dict[str, LocalEntrypoint] = {}
    for app in found.values():
        if isinstance(app, App):
            entrypoints.update(app.registered_entrypoints)
    if wanted:
        entrypoints = {name: one for name, one in entrypoints.items() if name == wanted}
    if len(entrypoints) != 1:
        known = ", ".join(entrypoints) or "none"
        print(f"{path}: name one local entrypoint; there are: {known}", file=sys.stderr)
        return 2
    ((name, entrypoint),) = entrypoints.items()
    args, kwargs = _values(f"{path}::{name}", entrypoint, arguments[2:])
    with entrypoint.app.run():
        entrypoint(*args, **kwargs)
    return 0


def _module_at(path: Path) -> types.ModuleType:
    """The file as a module of its name, which finds its neighbours, as if it had been imported."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path}: this is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _values(
    program: str, entrypoint: LocalEntrypoint, arguments: list[str]
) -> tuple[list[str], dict[str, Any]]:
    """The arguments of the entrypoint: by position where it takes any number of them, else by name.

    Raises:
        SystemExit: with 2, they do not fit.
    """
    function = entrypoint.raw_f
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return arguments, {}
    kinds = typing.get_type_hints(function)
    parser = argparse.ArgumentParser(program, description=function.__doc__, allow_abbrev=False)
    for one in parameters:
        if one.kind is not one.VAR_KEYWORD:
            parser.add_argument(
                f"--{one.name.replace('_', '-')}",
                dest=one.name,
                required=one.default is one.empty,
                default=None if one.default is one.empty else one.default,
                **_form_of(one.name, kinds.get(one.name, Any), parser),
            )
    return [], vars(parser.parse_args(arguments))


def _form_of(name: str, kind: Any, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """How an argument is read, by its annotation."""
    members = [one for one in typing.get_args(kind) if one is not type(None)]
    if typing.get_origin(kind) is typing.Literal:
        return {"type": type(members[0]), "choices": members}
    if typing.get_origin(kind) in (typing.Union, types.UnionType) and len(members) == 1:
        (kind,) = members
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if kind not in KINDS:
        parser.error(f"--{name} cannot be given here: it is of the type {kind}")
    return {"type": KINDS[kind]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
