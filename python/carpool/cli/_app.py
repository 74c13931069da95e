"""The words of the command line."""

from __future__ import annotations

import sys
from typing import Annotated, Optional

import typer

from carpool import __version__

from ._run import Asked, run
from ._trouble import Trouble

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Dynamic batching: many single calls become few batched calls.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"carpool {__version__}")
        raise typer.Exit


@app.callback()
def carpool(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What all commands have in common."""


# typer reads these annotations while it is imported, on CPython 3.10 too.
@app.command("run")
def run_command(
    handler: Annotated[str, typer.Argument(help="module:function, batched or not")],
    input: Annotated[str, typer.Option("--input", "-i", help="A file, or - for a pipe.")],
    output: Annotated[str, typer.Option("--output", "-o", help="A file, or - for a pipe.")],
    max_batch_size: Annotated[
        Optional[int], typer.Option(min=1, help="Most rows in one batch.")  # noqa: UP045
    ] = None,
    workers: Annotated[
        Optional[int], typer.Option(min=1, help="How many batches run at once.")  # noqa: UP045
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="How often a failed row is tried again.")] = 0,
    limit: Annotated[
        Optional[int], typer.Option(min=0, help="No further than to this row of the input.")  # noqa: UP045
    ] = None,
    column: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The value that a handler with one parameter gets; without, the row."),
    ] = None,
    field: Annotated[str, typer.Option(help="Where the answer stands in a row.")] = "result",
    errors: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="Where failed rows go, - for standard error; OUTPUT.errors.jsonl if not said."
        ),
    ] = None,
    input_format: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="jsonl, csv, parquet or text; by the name, and jsonl for a pipe."),
    ] = None,
    output_format: Annotated[
        Optional[str], typer.Option(help="The same for the output.")  # noqa: UP045
    ] = None,
    progress: Annotated[
        Optional[bool], typer.Option(help="A bar; on a terminal, if not said.")  # noqa: UP045
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew, where the output has rows already.")
    ] = False,
) -> None:
    """Takes every row of a file through a handler, in full batches; goes on where a run was ended."""
    asked = Asked(
        handler=handler,
        input=input,
        output=output,
        input_format=input_format,
        output_format=output_format,
        errors=errors,
        column=column,
        field=field,
        max_batch_size=max_batch_size,
        workers=workers,
        retries=retries,
        limit=limit,
        # sys.stderr is None where it is closed.
        progress=sys.stderr is not None and (sys.stderr.isatty() if progress is None else progress),
        overwrite=overwrite,
    )
    try:
        status, said = run(asked)
    except Trouble as trouble:
        status, said = trouble.status, str(trouble)
    if said and sys.stderr is not None:
        print(f"carpool: {said}", file=sys.stderr)
    raise typer.Exit(status)
