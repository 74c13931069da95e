"""`python -m carpool.compat.modal run FILE[::NAME] [--ARGUMENT VALUE ...]`: runs a local entrypoint, as `modal run` does."""

from __future__ import annotations

import inspect
import runpy
import sys
from typing import Any

from . import App, LocalEntrypoint

USAGE = "usage: python -m carpool.compat.modal run FILE[::NAME] [--ARGUMENT VALUE ...]"
KINDS: dict[Any, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": lambda text: text.lower() in ("1", "true", "yes"),
}


def main(arguments: list[str]) -> int:
    """Runs what the arguments name; the exit code."""
    if len(arguments) < 2 or arguments[0] != "run":
        print(USAGE, file=sys.stderr)
        return 2
    path, _, wanted = arguments[1].partition("::")
    found = runpy.run_path(path, run_name="__modal__")
    apps = [value for value in found.values() if isinstance(value, App)]
    entrypoints: dict[str, LocalEntrypoint] = {}
    for app in apps:
        entrypoints.update(app.registered_entrypoints)
    if wanted:
        entrypoints = {name: one for name, one in entrypoints.items() if name == wanted}
    if len(entrypoints) != 1:
        known = ", ".join(entrypoints) or "none"
        print(f"{path}: name one local entrypoint; there are: {known}", file=sys.stderr)
        return 2
    (entrypoint,) = entrypoints.values()
    try:
        values = _values(entrypoint, arguments[2:])
    except ValueError as error:
        print(f"{error}\n{USAGE}", file=sys.stderr)
        return 2
    with entrypoint.app.run():
        entrypoint(**values)
    return 0


def _values(entrypoint: LocalEntrypoint, arguments: list[str]) -> dict[str, Any]:
    parameters = inspect.signature(entrypoint.raw_f).parameters
    values: dict[str, Any] = {}
    for flag, text in zip(arguments[::2], [*arguments[1::2], None], strict=False):
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in parameters or text is None:
            raise ValueError(f"not an argument of {entrypoint.__name__}: {flag}")
        kind = parameters[name].annotation
        values[name] = KINDS.get(getattr(kind, "__name__", kind), str)(text)
    return values


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
