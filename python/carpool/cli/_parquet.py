"""Parquet as an output: it cannot be appended to, so rows are gathered in a file beside it, and made into one at the end.

That file is what a run goes on from. It holds a JSON line per row: the row's number and what it becomes; of a Parquet
input the result alone, so that all other columns keep their types.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from ._outputs import JsonLines, jsonl
from ._trouble import OUTPUT, Trouble, reason

__all__ = ["Numbered", "Row", "finish", "gather_again", "gathered_in", "rows_of"]

AT_ONCE = 10_000


def gathered_in(output: str) -> str:
    """The file beside a Parquet file that is being made."""
    return f"{output}.rows.jsonl"


class Row(NamedTuple):
    """A row that is gathered: its number in the input, and what it becomes."""

    number: int
    value: dict[str, Any]


class Numbered(JsonLines):
    """The lines of that file."""

    def encode(self, row: Any) -> bytes:
        """One `Row`."""
        return jsonl({"row": row.number, "value": row.value}, nan=True)


def rows_of(output: str) -> int:
    """How many rows a Parquet file has that was made before.

    Raises:
        Trouble: it is none.
    """
    pyarrow = _pyarrow()
    try:
        return int(pyarrow.parquet.read_metadata(output).num_rows)
    except (OSError, pyarrow.ArrowException) as error:
        raise Trouble(
            OUTPUT, f"cannot go on with {output}: {reason(error)} (--overwrite begins anew)"
        ) from error


def gather_again(output: str, numbers: Iterator[int], field: str | None) -> None:
    """Takes a Parquet file apart again, so that more rows can come behind those it has.

    Args:
        output: the Parquet file.
        numbers: of the rows of the input that it has.
        field: what is gathered of a row; None for all of it.

    Raises:
        Trouble: it has another form, or that cannot be written.
    """
    pyarrow = _pyarrow()
    gathered = gathered_in(output)
    beside, encoder = f"{gathered}.tmp", Numbered()
    columns = None if field is None else [field]
    try:
        with pyarrow.parquet.ParquetFile(output) as file, open(beside, "wb") as lines:
            for batch in file.iter_batches(batch_size=AT_ONCE, columns=columns):
                lines.writelines(
                    encoder.encode(Row(next(numbers), one)) for one in batch.to_pylist()
                )
        os.replace(beside, gathered)
    except (OSError, ValueError, TypeError, pyarrow.ArrowException) as error:
        raise Trouble(OUTPUT, f"cannot go on with {output}: {reason(error)}") from error


def finish(output: str, field: str, source: str | None) -> None:
    """Makes the Parquet file of what was gathered, and removes that. `source`: the input, if that is Parquet.

    Raises:
        Trouble: it cannot be written.
    """
    pyarrow = _pyarrow()
    gathered, beside = gathered_in(output), f"{output}.tmp"
    try:
        schema = None
        for rows in _chunks(gathered):
            here = _table(pyarrow, rows).schema
            schema = (
                here
                if schema is None
                else pyarrow.unify_schemas([schema, here], promote_options="permissive")
            )
        if source is None:
            schema = schema or pyarrow.schema([(field, pyarrow.null())])
            with pyarrow.parquet.ParquetWriter(beside, schema) as writer:
                for rows in _chunks(gathered):
                    values = [row["value"] for row in rows]
                    writer.write_table(pyarrow.Table.from_pylist(values, schema=schema))
        else:
            kind = pyarrow.null() if schema is None else schema.field(field).type
            _beside_the_input(pyarrow, source, gathered, beside, field, kind)
        with open(beside, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(beside, output)
        os.unlink(gathered)
    except (OSError, ValueError, TypeError, OverflowError, pyarrow.ArrowException) as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise Trouble(
            OUTPUT, f"cannot write {output}: {reason(error)}; all rows are in {gathered}"
        ) from error


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise Trouble(2, "Parquet needs pyarrow: pip install 'carpool[parquet]'") from error
    return pyarrow


def _table(pyarrow: Any, rows: list[Any]) -> Any:
    """A table of all columns that any of the rows has."""
    values = [row["value"] for row in rows]
    names = dict.fromkeys(name for value in values for name in value)
    return pyarrow.table({name: [value.get(name) for value in values] for name in names})


def _beside_the_input(
    pyarrow: Any, source: str, gathered: str, beside: str, field: str, kind: Any
) -> None:
    """Writes the rows of the input that have a result, with that as a column."""
    parquet = pyarrow.parquet
    rows = (row for chunk in _chunks(gathered) for row in chunk)
    row = next(rows, None)
    with parquet.ParquetFile(source) as file:
        schema = file.schema_arrow
        if field in schema.names:
            schema = schema.remove(schema.names.index(field))
        with parquet.ParquetWriter(beside, schema.append(pyarrow.field(field, kind))) as writer:
            number = 0
            for batch in file.iter_batches(batch_size=AT_ONCE, columns=schema.names):
                places, results = [], []
                while row is not None and row["row"] <= number + len(batch):
                    places.append(row["row"] - number - 1)
                    results.append(row["value"][field])
                    row = next(rows, None)
                number += len(batch)
                if places:
                    table = pyarrow.Table.from_batches([batch]).take(places)
                    column = pyarrow.array(results, type=kind)
                    writer.write_table(table.append_column(field, column))


def _chunks(gathered: str) -> Iterator[list[Any]]:
    with open(gathered, "rb") as file:
        while lines := list(islice(file, AT_ONCE)):
            yield [json.loads(line) for line in lines]
