"""The command line: `carpool run module:function --input in.jsonl --output out.jsonl`.

Needs typer and rich, which are the extra `cli`.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line; the exit status says how it went."""
    try:
        from ._app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("typer", "rich", "click"):
            raise
        print(
            f"carpool: the command line needs {error.name}: pip install 'carpool[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    app()
