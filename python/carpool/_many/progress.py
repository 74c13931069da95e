"""How far a map has come: figures for whoever asks, and a bar on the terminal.

tqdm draws the bar where it is installed, else rich; both are optional.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carpool._core import Engine

    from .backoff import Pace

__all__ = ["Progress", "Shown", "bar"]

#: A bar is drawn anew after so many seconds.
EVERY_S = 0.1


@dataclass(frozen=True)
class Progress:
    """One moment of a map."""

    #: Items whose outcome has been handed out, failed ones included.
    done: int
    #: Of these, how many failed.
    failed: int
    #: How often an item was tried again.
    retried: int
    #: How many there are in all; None where the source does not say.
    total: int | None
    #: Seconds since the start.
    seconds: float
    #: Requests per batch so far, of the whole batcher since the start.
    batch_size: float

    @property
    def rate(self) -> float:
        """Items per second since the start."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds to the end at that rate; None where that is not known."""
        if self.total is None or not self.rate:
            return None
        return max(0, self.total - self.done) / self.rate


class Shown:
    """Counts what is handed out and shows it, at most every `EVERY_S` seconds and at the end."""

    def __init__(
        self,
        show: Callable[[Progress], object],
        end: Callable[[], object],
        total: int | None,
        engine: Engine,
        pace: Pace,
    ) -> None:
        self._show = show
        self._end = end
        self._total = total
        self._engine = engine
        self._pace = pace
        self._start = self._last = pace.now()
        self._done = self._failed = self._retried = 0
        self._before = _batches(engine)

    def add(self, done: int, failed: int, retried: int) -> None:
        """Counts outcomes that are handed out now; `retried` counts from the start."""
        self._done += done
        self._failed += failed
        self._retried = retried
        if self._pace.now() - self._last >= EVERY_S:
            self._last = self._pace.now()
            self._show(self._now())

    def close(self) -> None:
        """Shows the end."""
        self._show(self._now())
        self._end()

    def _now(self) -> Progress:
        batches, requests = _batches(self._engine)
        batches, requests = batches - self._before[0], requests - self._before[1]
        return Progress(
            done=self._done,
            failed=self._failed,
            retried=self._retried,
            total=self._total,
            seconds=self._pace.now() - self._start,
            batch_size=requests / batches if batches else 0.0,
        )


def _batches(engine: Engine) -> tuple[int, float]:
    """How many batches there were, and requests in them."""
    count, mean, *_ = engine.stats()["batch_sizes"]
    return count, count * mean


def bar(
    progress: bool | Callable[[Progress], object],
    name: str,
    total: int | None,
    engine: Engine,
    pace: Pace,
) -> Shown | None:
    """What shows the progress of a map; None where nobody asked.

    Raises:
        ImportError: a bar is asked for, and neither tqdm nor rich is installed.
    """
    if progress is False:
        return None
    if callable(progress):
        return Shown(progress, lambda: None, total, engine, pace)
    for drawn in (_tqdm, _rich):
        try:
            show, end = drawn(name, total)
        except ImportError:
            continue
        return Shown(show, end, total, engine, pace)
    raise ImportError(
        "progress=True draws with tqdm or rich, and neither is installed: "
        "pip install 'carpool[progress]'"
    )


def _notes(at: Progress) -> str:
    notes = f"batch {at.batch_size:.1f}"
    if at.retried:
        notes += f", {at.retried} retried"
    return f"{notes}, {at.failed} failed" if at.failed else notes


def _tqdm(name: str, total: int | None) -> tuple[Callable[[Progress], object], Any]:
    import tqdm

    drawn: Any = tqdm.tqdm(total=total, desc=name, unit="item", mininterval=0)

    def show(at: Progress) -> None:
        drawn.set_postfix_str(_notes(at), refresh=False)
        drawn.update(at.done - drawn.n)
        drawn.refresh()

    return show, drawn.close


def _rich(name: str, total: int | None) -> tuple[Callable[[Progress], object], Any]:
    from rich import console
    from rich import progress as rich_progress

    columns: list[Any] = [
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]:.0f}/s"),
        rich_progress.TimeRemainingColumn(),
        rich_progress.TextColumn("{task.fields[notes]}"),
    ]
    drawn = rich_progress.Progress(
        *columns, auto_refresh=False, console=console.Console(stderr=True)
    )
    number = drawn.add_task(name, total=total, rate=0.0, notes="")
    drawn.start()

    def show(at: Progress) -> None:
        drawn.update(number, completed=at.done, rate=at.rate, notes=_notes(at))
        drawn.refresh()

    return show, drawn.stop
