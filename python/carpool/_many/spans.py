"""Whole data sets, between reading and handing out: what of them is in flight, and what has come back.

A data set is cut into *spans*, lists of items that are submitted together. A course keeps at most a window of
items between the source and the consumer: submitted, waiting for another try, or answered and not handed out yet.
It never waits and never reads: whoever drives it (a generator, an asynchronous generator) does.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from .backoff import Pace, backoff, is_worth_another

if TYPE_CHECKING:
    from carpool._core import Window

__all__ = ["Course", "Entry", "Submit"]


class Submit(Protocol):
    """Submits items for one waiter."""

    def __call__(
        self, items: Sequence[Any], callback: Callable[[], object], per_step: bool, /
    ) -> Window: ...


class Span:
    """Items that were read together, and their outcomes so far."""

    __slots__ = ("failed", "items", "outcomes", "size", "tries", "waits_for")

    def __init__(self, items: list[Any], keeps: bool) -> None:
        self.size = len(items)
        #: Kept only where they may be tried again.
        self.items: list[Any] | None = items if keeps else None
        self.outcomes: list[Any] = []
        self.failed = 0
        #: How often a place was tried, where more than once.
        self.tries: dict[int, int] = {}
        #: Lists of its items in flight, and items that will be tried again.
        self.waits_for = 0


class Entry:
    """A list of a span's items in flight."""

    __slots__ = ("places", "span", "window")

    def __init__(self, span: Span, places: list[int] | None) -> None:
        self.span = span
        #: Where they stand in the span; None: all of it.
        self.places = places
        self.window: Window | None = None


class Course:
    """The state of one pass over a data set.

    Args:
        submit: submits items.
        tell: called with an entry, from any thread, when some of its items have their outcomes.
        ordered: outcomes are handed out in the order of the items.
        retries: how often a failed item is tried again.
        backoff_s: the first wait before that, in seconds.
    """

    def __init__(
        self,
        submit: Submit,
        tell: Callable[[Entry], object],
        *,
        ordered: bool,
        retries: int,
        backoff_s: float,
        pace: Pace,
    ) -> None:
        self._submit = submit
        self._tell = tell
        self._ordered = ordered
        self._retries = retries
        self._backoff_s = backoff_s
        self._pace = pace
        self._spans: deque[Span] = deque()
        self._entries: set[Entry] = set()
        self._again: list[tuple[float, int, Span, int]] = []
        self._number = itertools.count()
        #: Outcomes to be handed out, and how many of them are exceptions.
        self.ready: deque[tuple[list[Any], int]] = deque()
        #: Items between source and consumer.
        self.held = 0
        self.retried = 0

    def add(self, items: list[Any], refused: list[tuple[int, Exception]]) -> None:
        """Submits what was read. `refused` stand at their places in the span, for items that cannot be.

        Raises what a submit raises; then the items are not held.
        """
        span = Span(items, self._retries > 0)
        places = None
        if refused:
            for place, error in refused:
                items.insert(place, error)
            span.size = len(items)
            wrong = {place for place, _ in refused}
            places = [place for place in range(span.size) if place not in wrong]
            span.outcomes = list(items)
            span.failed = len(refused)
            items = [items[place] for place in places]
        if items:
            self._go(span, places, items)
        self.held += span.size
        if self._ordered:
            self._spans.append(span)
            self._hand_out()
        elif refused:
            self.ready.append(([error for _, error in refused], len(refused)))

    def _go(self, span: Span, places: list[int] | None, items: list[Any]) -> None:
        entry = Entry(span, places)
        entry.window = window = self._submit(items, partial(self._tell, entry), not self._ordered)
        span.waits_for += 1
        self._entries.add(entry)
        if not self._ordered and (refused := window.refused):
            self.ready.append(([error for _, error in refused], len(refused)))

    def settle(self, entry: Entry) -> None:
        """Takes the outcomes that an entry was told of."""
        if entry not in self._entries:
            return
        window = entry.window
        assert window is not None
        if self._ordered:
            self._take_all(entry, window)
        else:
            self._take_some(entry, window)
        self._hand_out()

    def _take_all(self, entry: Entry, window: Window) -> None:
        span, places = entry.span, entry.places
        self._end(entry)
        outcomes, failed = window.collect()
        if failed:
            final = {at for at, _ in window.refused}
            for at, outcome in enumerate(outcomes):
                if isinstance(outcome, BaseException):
                    place = at if places is None else places[at]
                    if at not in final and self._tries_again(span, place, outcome):
                        continue
                    span.failed += 1
        if places is None:
            span.outcomes = outcomes
        else:
            for place, outcome in zip(places, outcomes, strict=True):
                span.outcomes[place] = outcome

    def _take_some(self, entry: Entry, window: Window) -> None:
        span, places = entry.span, entry.places
        # Counted first: what comes after this look is told again.
        left = window.left
        taken, outcomes, failed = window.take_ready()
        if not left:
            self._end(entry)
        if failed and self._retries:
            kept = []
            for at, outcome in zip(taken, outcomes, strict=True):
                place = at if places is None else places[at]
                if isinstance(outcome, BaseException) and self._tries_again(span, place, outcome):
                    failed -= 1
                else:
                    kept.append(outcome)
            outcomes = kept
        if outcomes:
            self.ready.append((outcomes, failed))

    def _end(self, entry: Entry) -> None:
        self._entries.discard(entry)
        entry.span.waits_for -= 1
        # A window keeps its callback, and that the entry.
        entry.window = None

    def _tries_again(self, span: Span, place: int, error: BaseException) -> bool:
        tries = span.tries.get(place, 0) + 1
        if tries > self._retries or not is_worth_another(error):
            return False
        span.tries[place] = tries
        span.waits_for += 1
        self.retried += 1
        due = self._pace.now() + backoff(tries, self._backoff_s, self._pace.chance())
        heapq.heappush(self._again, (due, next(self._number), span, place))
        return True

    def _hand_out(self) -> None:
        spans = self._spans
        while spans and not spans[0].waits_for:
            span = spans.popleft()
            self.ready.append((span.outcomes, span.failed))

    def next_try(self) -> float | None:
        """When `try_again` has something to do."""
        return self._again[0][0] if self._again else None

    def try_again(self) -> None:
        """Submits the items whose wait is over.

        Raises what a submit raises.
        """
        if not self._again:
            return
        now = self._pace.now()
        due: dict[Span, list[int]] = {}
        while self._again and self._again[0][0] <= now:
            _, _, span, place = heapq.heappop(self._again)
            due.setdefault(span, []).append(place)
        for span, places in due.items():
            assert span.items is not None
            places.sort()
            span.waits_for -= len(places)
            if not span.outcomes:
                span.outcomes = [None] * span.size
            self._go(span, places, [span.items[place] for place in places])

    def take(self) -> tuple[list[Any], int]:
        """The next outcomes to hand out: in `ready`."""
        outcomes, failed = self.ready.popleft()
        self.held -= len(outcomes)
        return outcomes, failed

    def cancel(self) -> None:
        """Gives up on all that is in flight."""
        entries, self._entries = self._entries, set()
        self._again.clear()
        for entry in entries:
            window, entry.window = entry.window, None
            if window is not None and window.is_ours:
                window.cancel()
