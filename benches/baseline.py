"""Figures of today against stored ones: what got worse by more than noise. Pure functions, no measuring.

A figure is a median of repeats and their noise, both of one run of `check.py`. It is worse when it exceeds the stored one by
more than its margin: twice the noise of either, and never less than `LEAST` of its kind. Counts of instructions
hold for one CPython, one architecture and one counter; ratios to floors hold anywhere.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import contest

Kind = Literal["instructions", "ratio"]
LEAST: Mapping[Kind, float] = {"instructions": 0.01, "ratio": 0.05}
HOLDS_FOR = ("python", "arch", "counter")


@dataclass(frozen=True)
class Figure:
    """One measured figure."""

    kind: Kind
    value: float
    noise: float
    """As a share of the value."""

    @classmethod
    def of(cls, kind: Kind, repeats: Sequence[float]) -> Figure:
        return cls(kind, statistics.median(repeats), contest.noise(repeats))

    def stored(self) -> dict[str, Any]:
        return {"kind": self.kind, "value": round(self.value, 4), "noise": round(self.noise, 4)}


Figures = Mapping[str, Figure]
Verdict = Literal["worse", "better", "same", "new", "gone", "not compared"]


@dataclass(frozen=True)
class Line:
    """What became of one figure."""

    name: str
    stored: Figure | None
    now: Figure | None
    margin: float
    verdict: Verdict

    @property
    def change(self) -> float:
        """As a share of what is stored."""
        assert self.stored is not None
        assert self.now is not None
        return self.now.value / self.stored.value - 1


def margin(stored: Figure, now: Figure) -> float:
    """The change, as a share, that noise alone may make."""
    return max(LEAST[now.kind], 2 * stored.noise, 2 * now.noise)


def judge(stored: Figure, now: Figure) -> Verdict:
    allowed = margin(stored, now)
    change = now.value / stored.value - 1
    if change > allowed:
        return "worse"
    # As far below as `allowed` is above: a margin of a half is met by a third less, not by half.
    return "better" if change < 1 / (1 + allowed) - 1 else "same"


def compare(stored: Figures, now: Figures, *, counts_hold: bool) -> list[Line]:
    """Every figure of either side, in order of name within its kind."""
    lines = []
    for name in sorted(
        {*stored, *now}, key=lambda name: ((stored.get(name) or now[name]).kind, name)
    ):
        before, today = stored.get(name), now.get(name)
        if before is None or today is None:
            verdict: Verdict = "new" if before is None else "gone"
            lines.append(Line(name, before, today, 0.0, verdict))
        elif before.kind == "instructions" and not counts_hold:
            lines.append(Line(name, before, today, 0.0, "not compared"))
        else:
            lines.append(Line(name, before, today, margin(before, today), judge(before, today)))
    return lines


def foreign(stored: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """In what the place of the stored figures differs from this one, in words; empty where counts hold."""
    return [
        f"{key}: stored {stored.get(key)}, here {here.get(key)}"
        for key in HOLDS_FOR
        if stored.get(key) != here.get(key)
    ]


def read(kept: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of a baseline file."""
    return {
        name: Figure(its["kind"], its["value"], its["noise"])
        for name, its in kept["figures"].items()
    }


def written(holds_for: Mapping[str, Any], now: Figures) -> dict[str, Any]:
    """What goes into a baseline file."""
    return {
        "holds_for": dict(holds_for),
        "figures": {name: figure.stored() for name, figure in sorted(now.items())},
    }


def table(lines: Sequence[Line]) -> str:
    """Markdown: one row per figure."""

    def shown(figure: Figure | None) -> str:
        if figure is None:
            return "-"
        return f"{figure.value:.0f}" if figure.kind == "instructions" else f"{figure.value:.3f}"

    rows = []
    for line in lines:
        both = line.stored is not None and line.now is not None
        compared = both and line.verdict != "not compared"
        rows.append(
            (
                line.name,
                shown(line.stored),
                shown(line.now),
                f"{line.change * 100:+.1f} %" if compared else "-",
                f"{line.margin * 100:.1f} %" if compared else "-",
                line.verdict.upper() if line.verdict == "worse" else line.verdict,
            )
        )
    return contest.table(("figure", "stored", "now", "change", "margin", "verdict"), rows)
