"""What a workload is to the comparison, and what all of them need in their runs and tables."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import contest
import peers

T = TypeVar("T")
Cell = dict[str, Any]
Order = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of results: a title, rows under a head, and what a reader must know of it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    detail: bool = False
    """Not for documents."""

    def markdown(self) -> str:
        parts = [f"**{self.title}**", contest.table(self.head, self.rows)]
        return "\n\n".join([*parts, self.note] if self.note else parts)


@dataclass(frozen=True)
class Workload:
    """Cells to be measured, one run of one contender in one of them, and tables made of all the runs."""

    name: str
    title: str
    contenders: Sequence[str]
    floors: Sequence[str]
    cells: Callable[[bool], list[Cell]]
    """Of a quick or of a whole comparison."""
    one: Callable[[Order], contest.Run]
    tables: Callable[[Sequence[contest.Run], Sequence[str]], list[Table]]
    refuses: Callable[[peers.Contender, Cell], str | None]
    repetitions: int = 3


def loops(quick: bool = False) -> tuple[str, ...]:
    """The event loops to be had."""
    there = importlib.util.find_spec("uvloop") is not None and not quick
    return ("asyncio", "uvloop") if there else ("asyncio",)


def new_loop(name: str) -> asyncio.AbstractEventLoop:
    """A loop of this kind, set as the current one."""
    if name == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def run_on(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, T]) -> T:
    """Runs to the end and closes the loop; what a contender has left running is cancelled."""
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            # Not for ever: some contenders' tasks go on after a cancel, and complain when they are dropped.
            loop.set_exception_handler(lambda *_: None)
            loop.run_until_complete(asyncio.wait(left, timeout=0.2))
        loop.close()


def figures(
    runs: Iterable[contest.Run], contenders: Sequence[str], **cell: Any
) -> dict[str, list[contest.Run]]:
    """The runs of one cell, by contender; those that have none are left out."""
    inside = contest.of(runs, **cell)
    by_name = {name: contest.of(inside, contender=name) for name in contenders}
    return {name: own for name, own in by_name.items() if own}


def present(runs: Sequence[contest.Run], contenders: Sequence[str]) -> list[str]:
    """The contenders that have runs, in their order."""
    there = {run["order"]["contender"] for run in runs}
    return [name for name in contenders if name in there]


def cells_in(runs: Sequence[contest.Run], *keys: str) -> list[Cell]:
    """The cells that were run, told apart by these keys, in the order of the runs."""
    seen: dict[tuple[Any, ...], Cell] = {}
    for run in runs:
        order = run["order"]
        seen.setdefault(tuple(order[key] for key in keys), {key: order[key] for key in keys})
    return list(seen.values())


def number(value: float | None, digits: int | None = None) -> str:
    """Three figures that matter, or so many digits; '-' for nothing."""
    if value is None or value != value:
        return "-"
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def grid(
    title: str,
    runs: Sequence[contest.Run],
    contenders: Sequence[str],
    keys: dict[str, str],
    figure: str,
    over: Sequence[tuple[str, str]],
    *,
    detail: bool = False,
) -> Table:
    """One row per cell, one column per contender with the median of `figure`, then ratios.

    `keys` are those that tell the cells apart, with their heads; `over` the ratios as pairs of contenders.
    """
    names = present(runs, contenders)
    ratios = [(one, base) for one, base in over if one in names and base in names]
    rows = []
    for cell in cells_in(runs, *keys):
        own = figures(runs, names, **cell)
        row = [str(cell[key]) for key in keys]
        row += [number(contest.middle(own[name], figure)) if name in own else "-" for name in names]
        for one, base in ratios:
            both = one in own and base in own
            value = contest.ratio(own[one], own[base], figure) if both else None
            row.append(f"**{value:.2f}**" if value is not None else "-")
        rows.append(row)
    head = [*keys.values(), *names, *(f"{one} / {base}" for one, base in ratios)]
    return Table(title, head, rows, detail=detail)
