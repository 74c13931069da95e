"""One pass over a data set, for a thread: reading it, submitting it, waiting, handing out answers."""

from __future__ import annotations

import queue
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from carpool._core import Convoy
from carpool._exceptions import BatchAbandoned
from carpool._options import _choice as choice
from carpool._options import _count as count
from carpool._options import _milliseconds as milliseconds
from carpool._options import switch

from .backoff import PACE, Pace
from .progress import Progress, bar
from .spans import Course, Entry

if TYPE_CHECKING:
    from carpool._core import Asks, Engine
    from carpool._options import Options

__all__ = ["ERRORS", "How", "Lot", "Reader", "over"]

ERRORS = ("raise", "return", "skip")


@dataclass(frozen=True)
class How:
    """The options of one map, checked.

    Raises:
        TypeError, ValueError: one of them is of the wrong type or out of range.
    """

    window: int | None = None
    ordered: bool = True
    errors: str | None = None
    return_exceptions: bool = False
    retries: int = 0
    backoff_ms: float = 100
    progress: bool | Callable[[Progress], object] = False

    def __post_init__(self) -> None:
        if self.window is not None:
            count("window", self.window)
        switch("ordered", self.ordered)
        switch("return_exceptions", self.return_exceptions)
        if self.errors is not None:
            choice("errors", self.errors, ERRORS)
            if self.return_exceptions and self.errors != "return":
                raise ValueError(
                    f"return_exceptions=True is errors='return'; it cannot be {self.errors!r} too"
                )
        if self.retries != 0:
            count("retries", self.retries)
        milliseconds("backoff_ms", self.backoff_ms)
        if not callable(self.progress):
            switch("progress", self.progress)

    @property
    def on_error(self) -> str:
        """What becomes of an item that failed: "raise", "return" or "skip"."""
        return self.errors or ("return" if self.return_exceptions else "raise")


class Lot:
    """What one pass needs to know of the batcher it goes through."""

    def __init__(
        self,
        name: str,
        options: Options,
        opened: Callable[[], Engine],
        owner: Any,
        asks: Asks | None,
        bind: Callable[[Any], Any] | None,
    ) -> None:
        self.name = name
        self.options = options
        self.opened = opened
        self.owner = owner
        self.asks = asks
        #: From what the source gives to the item of a request; None where that is the same.
        self.bind = bind

    def sizes(self, how: How) -> tuple[int, int]:
        """How many items may be held, and how many of them are submitted together."""
        size = self.options.max_batch_size
        window = how.window or size * (2 * self.options.max_concurrent_batches + 2)
        return window, max(1, min(size, window // 2))


class Reader:
    """Reads spans from the source of a course and submits them."""

    def __init__(self, lot: Lot, how: How, tell: Callable[[Entry], object], pace: Pace) -> None:
        self.lot = lot
        self.window, self.size = lot.sizes(how)
        self.engine = lot.opened()
        # Its spans go together, or each would stand before a single call.
        self._convoy = Convoy()
        self.course = Course(
            self._submit,
            tell,
            ordered=how.ordered,
            retries=how.retries,
            backoff_s=how.backoff_ms / 1e3,
            pace=pace,
        )
        #: Nothing more comes from the source.
        self.exhausted = False
        #: What ended it before its time; raised once all before it has been handed out.
        self.error: BaseException | None = None

    def _submit(self, items: Any, callback: Callable[[], object], per_step: bool) -> Any:
        lot = self.lot
        return self.engine.submit_many(
            lot.owner, items, callback, per_step=per_step, asks=lot.asks, convoy=self._convoy
        )

    @property
    def has_room(self) -> bool:
        """Whether another span may be read."""
        return self.course.held + self.size <= self.window

    def read(self, source: Iterator[Any]) -> None:
        """Reads a span and submits it."""
        items: list[Any] = []
        try:
            # What was read before the source raised stays in the list.
            items.extend(islice(source, self.size))
        except Exception as error:
            self.error = error
        if len(items) < self.size:
            self.exhausted = True
        self.add(items)

    def add(self, items: list[Any]) -> None:
        """Submits a span that was read."""
        if not items:
            return
        refused: list[tuple[int, Exception]] = []
        if self.lot.bind is not None:
            items, refused = bound(self.lot.bind, items)
        try:
            self.course.add(items, refused)
        except Exception as error:
            # Closed, or dead: whatever came before it is answered all the same.
            self.exhausted, self.error = True, error

    def check_process(self) -> None:
        """Refuses to wait for what a process has in flight that this one was forked from."""
        if not self.engine.is_ours:
            raise BatchAbandoned(
                f"{self.lot.name}: the map was begun by the parent process, before the fork"
            )


def bound(
    bind: Callable[[Any], Any], given: list[Any]
) -> tuple[list[Any], list[tuple[int, Exception]]]:
    """The items of calls, and of which arguments there is none: place and error."""
    items, refused = [], []
    for place, one in enumerate(given):
        try:
            items.append(bind(one))
        except Exception as error:
            refused.append((place, error))
    return items, refused


def over(
    lot: Lot, source: Iterator[Any], how: How, total: int | None, pace: Pace = PACE
) -> Generator[Any, None, None]:
    """The answers to all items of a source."""
    on_error = how.on_error
    done: queue.SimpleQueue[Entry] = queue.SimpleQueue()
    reader = Reader(lot, how, done.put, pace)
    course = reader.course
    shown = bar(how.progress, lot.name, total, reader.engine, pace)
    reader.engine.check_wait("a map")
    try:
        while True:
            if not reader.exhausted and reader.has_room:
                reader.read(source)
            elif not course.held:
                break
            elif not course.ready:
                reader.check_process()
                entry = pace.get(done, course.next_try())
                if entry is not None:
                    course.settle(entry)
            while not done.empty():
                course.settle(done.get())
            course.try_again()
            if course.ready:
                outcomes, failed = course.take()
                if shown is not None:
                    shown.add(len(outcomes), failed, course.retried)
                if not failed:
                    yield from outcomes
                    continue
                for outcome in outcomes:
                    if on_error == "return" or not isinstance(outcome, BaseException):
                        yield outcome
                    elif on_error == "raise":
                        raise outcome
        if reader.error is not None:
            raise reader.error
    finally:
        course.cancel()
        if shown is not None:
            shown.close()
        # An error that was raised must not keep the others alive through its trace.
        outcomes, outcome = [], None
