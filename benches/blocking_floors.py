"""The floors of blocking calls: a worker thread with a lock per request, and combining by a leader.

Like those in `floors.py` they survive a raising handler and a wrong number of results, and do no more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

Handler = Callable[[list[Any]], Sequence[Any]]


class Place:
    """One caller's request: its lock is held until the answer is there."""

    __slots__ = ("arrived", "error", "gate", "item", "result", "served")

    def __init__(self, item: Any, arrived: float) -> None:
        self.item = item
        self.arrived = arrived
        self.gate = threading.Lock()
        self.gate.acquire()
        self.served = False
        self.result: Any = None
        self.error: BaseException | None = None

    def answer(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


def serve(handler: Handler, batch: Sequence[Place]) -> None:
    """Runs the handler; every place has its outcome afterwards."""
    try:
        results = handler([place.item for place in batch])
        if len(results) != len(batch):
            raise ValueError(f"{len(batch)} items, {len(results)} results")
    except BaseException as error:
        for place in batch:
            place.error = error
    else:
        for place, result in zip(batch, results, strict=True):
            place.result = result
    for place in batch:
        place.served = True


class HandWorker:
    """A worker thread that takes what is pending when it is free; each caller waits at a lock of its own."""

    def __init__(self, handler: Handler, *, max_batch_size: int, wait_s: float) -> None:
        self._handler = handler
        self._max_batch_size = max_batch_size
        self._wait_s = wait_s
        self._changed = threading.Condition(threading.Lock())
        self._pending: list[Place] = []
        self._closed = False
        self._worker = threading.Thread(target=self._serve, name="hand-worker", daemon=True)
        self._worker.start()

    def __call__(self, item: Any) -> Any:
        place = Place(item, time.monotonic())
        with self._changed:
            self._pending.append(place)
            # Only the first and the one that fills a batch can make the worker move.
            if len(self._pending) in (1, self._max_batch_size):
                self._changed.notify()
        place.gate.acquire()
        return place.answer()

    def close(self) -> None:
        """Serves what is pending, then ends the worker."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join()

    def _take(self) -> list[Place]:
        with self._changed:
            while not self._pending and not self._closed:
                self._changed.wait()
            if self._pending and self._wait_s:
                due = self._pending[0].arrived + self._wait_s
                while len(self._pending) < self._max_batch_size and not self._closed:
                    remaining = due - time.monotonic()
                    if remaining <= 0:
                        break
                    self._changed.wait(remaining)
            batch = self._pending[: self._max_batch_size]
            del self._pending[: self._max_batch_size]
            return batch

    def _serve(self) -> None:
        while batch := self._take():
            serve(self._handler, batch)
            for place in batch:
                place.gate.release()


class Leader:
    """A caller that finds nobody at work leads: it runs the handler for all that are there, itself first."""

    def __init__(self, handler: Handler, *, max_batch_size: int) -> None:
        self._handler = handler
        self._max_batch_size = max_batch_size
        self._lock = threading.Lock()
        self._pending: list[Place] = []
        self._led = False

    def __call__(self, item: Any) -> Any:
        place = Place(item, 0.0)
        with self._lock:
            self._pending.append(place)
            leads = not self._led
            self._led = True
        if not leads:
            place.gate.acquire()
            if place.served:
                return place.answer()
        # Whoever leads stands first: none was pending, or the last leader chose the oldest.
        with self._lock:
            batch = self._pending[: self._max_batch_size]
            del self._pending[: self._max_batch_size]
        serve(self._handler, batch)
        with self._lock:
            following = self._pending[0] if self._pending else None
            self._led = following is not None
        for other in batch:
            if other is not place:
                other.gate.release()
        if following is not None:
            following.gate.release()
        return place.answer()
