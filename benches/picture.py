"""The main figures of a comparison as one picture, for the README."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contest
import peers

LONGEST = 4
"""Times the median: longer bars are cut."""

OURS, FLOORS, OTHERS, INK = "#d9480f", "#495057", "#adb5bd", "#212529"


@dataclass(frozen=True)
class Panel:
    """One bar per contender, from one cell of one workload."""

    title: str
    unit: str
    workload: str
    cell: dict[str, Any]
    read: Callable[[contest.Run], float]
    ideal: float | None = None
    """What no batcher can pass, drawn as a bar of its own."""


PANELS = (
    Panel(
        "512 callers await on one loop",
        "CPU µs per request",
        "W1",
        {"loop": "asyncio", "wait_ms": 0, "callers": 512, "shape": "callers"},
        lambda run: float(run["cpu_us"]),
    ),
    Panel(
        "the same, the handler on a thread",
        "CPU µs per request",
        "W1o",
        {"loop": "asyncio", "wait_ms": 0, "callers": 512, "shape": "callers"},
        lambda run: float(run["cpu_us"]),
    ),
    # Over the ideal on the very arrivals of each run: what the machine did to these is in both.
    Panel(
        "a device under 60 % random load",
        "p99 over the ideal batcher's",
        "W3",
        {"load": 60},
        lambda run: float(run["p99_over_ideal"]),
        1.0,
    ),
)


def bars(panel: Panel, kept: dict[str, Any]) -> list[tuple[str, float, str]]:
    """Name, value and colour, the smallest first."""
    runs = [run for run in kept["workloads"][panel.workload]["runs"] if "failed" not in run]
    inside = contest.of(runs, **panel.cell)
    made = []
    for name, contender in peers.ALL.items():
        own = contest.of(inside, contender=name)
        if own:
            colour = FLOORS if contender.floor else OTHERS
            colour = OURS if name.startswith("carpool") else colour
            made.append((name, contest.middle(own, panel.read), colour))
    if panel.ideal and inside:
        made.append(("ideal", panel.ideal, FLOORS))
    return sorted(made, key=lambda bar: bar[1])


def draw(kept: dict[str, Any], path: Path, panels: Sequence[Panel] = PANELS) -> None:
    """Writes a PNG; panels whose workload was not measured are left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [panel for panel in panels if panel.workload in kept["workloads"]]
    if not shown:
        raise SystemExit(f"no picture: it needs one of {', '.join(p.workload for p in panels)}")
    figure, axes = pyplot.subplots(
        1, len(shown), figsize=(4.6 * len(shown), 3.7), squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes[0], shown, strict=True):
        draw_panel(axis, panel, bars(panel, kept))
    figure.text(
        0.995,
        0.005,
        "orange: carpool, dark: hand-written floors, light: other libraries. Less is better; a broken bar goes on.",
        ha="right",
        va="bottom",
        fontsize=8,
        color=FLOORS,
    )
    figure.get_layout_engine().set(rect=(0, 0.06, 1, 0.94), wspace=0.08)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white", metadata={"Software": None})
    pyplot.close(figure)


def draw_panel(axis: Any, panel: Panel, shown: Sequence[tuple[str, float, str]]) -> None:
    """Bars from the top down, each with its value behind it; those far beyond the others are cut."""
    places = range(len(shown))
    values = [value for _, value, _ in shown]
    widest = min(max(values), LONGEST * statistics.median(values))
    drawn = [min(value, widest) for value in values]
    axis.barh(places, drawn, color=[colour for *_, colour in shown], height=0.72)
    axis.set_xlim(0, widest * 1.25)
    axis.set_yticks(places, [name for name, *_ in shown], fontsize=10, color=INK)
    axis.invert_yaxis()
    for place, value, width in zip(places, values, drawn, strict=True):
        text = f"{value:.2f}" if value < 10 else f"{value:,.0f}"
        cut = value > widest
        if cut:  # a gap in the bar says that it goes on
            axis.barh([place], [widest * 0.012], left=widest * 0.93, color="white", height=0.8)
        axis.text(
            width + widest * 0.02,
            place,
            text,
            va="center",
            fontsize=10,
            color=INK,
            fontweight="bold" if cut else "normal",
        )
    axis.set_title(f"{panel.title}\n{panel.unit}", loc="left", fontsize=11, color=INK)
    axis.xaxis.set_visible(False)
    axis.tick_params(axis="y", length=0)
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_visible(False)
