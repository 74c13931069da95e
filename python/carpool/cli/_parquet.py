"""Parquet as an output: it cannot be appended to, so rows are gathered in a file beside it, and made into one at the end.

That file is what a run goes on from. It holds a JSON line per row: the row's number and what it becomes; of a Parquet
input the result alone, so that all other columns keep their types.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ._outputs import JsonLines
from ._trouble import OUTPUT, Trouble, reason

__all__ = ["Numbered", "finish", "gathered_in"]

AT_ONCE = 10_000


def gathered_in(output: str) -> str:
    """The file beside a Parquet file that is being made."""
    return f"{output}.rows.jsonl"


class Numbered(JsonLines):
    """The lines of that file."""


def finish(output: str, field: str, source: str | None) -> None:
    """Makes the Parquet file of what was gathered, and removes that. `source`: the input, if that is Parquet.

    Raises:
        Trouble: it cannot be written.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise Trouble(2, "Parquet needs pyarrow: pip install 'carpool[parquet]'") from error
    gathered, beside = gathered_in(output), f"{output}.tmp"
    try:
        schema = None
        for rows in _chunks(gathered):
            here = pyarrow.Table.from_pylist([row["value"] for row in rows]).schema
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
        os.replace(beside, output)
        os.unlink(gathered)
    except (OSError, pyarrow.ArrowException) as error:
        raise Trouble(
            OUTPUT, f"cannot write {output}: {reason(error)}; all rows are in {gathered}"
        ) from error


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
