"""What a mutation is."""

from __future__ import annotations

from typing import NamedTuple

#: Tests that catch mutations beside the loom models.
SIMULATION = "simulation"
REENTRY = "reentry"
WINDOWS = "windows"
FULL = "overflow"
WATCH = "watch"
AGAIN = "again"
TAKING = "taking"
OBJECTIVE = "objective"

TESTS = (SIMULATION, REENTRY, WINDOWS, FULL, WATCH, AGAIN, TAKING, OBJECTIVE)

#: Those beside the code itself.
UNITS = "units"


class Edit(NamedTuple):
    file: str
    old: str
    new: str


class Mutation(NamedTuple):
    name: str
    model: str
    edits: tuple[Edit, ...]


def mutation(name: str, model: str, *parts: str) -> Mutation:
    """`parts`: a file of src/, then pairs of what to replace and by what; then perhaps another file."""
    edits: list[Edit] = []
    file, rest = "", list(parts)
    while rest:
        if rest[0].endswith(".rs"):
            file = rest.pop(0)
        edits.append(Edit(file, rest.pop(0), rest.pop(0)))
    return Mutation(name, model, tuple(edits))
