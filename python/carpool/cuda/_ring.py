"""Batches on their way: while one computes, the next is staged and the last is delivered.

    thread of the worker          lanes of the device               thread that delivers
    --------------------          -------------------               --------------------
    wait for a place
    stage into its memory
    put the copy on       ─▶  up:    copy to the device
    handler puts work on  ─▶  run:   (after the copy) compute
    put the copy back on  ─▶  down:  (after the work) copy back  ─▶  wait for the mark behind it
    wait for its turn                                                deliver, give the place back

A place is memory that copies read and write. It is written again only when its batch has been delivered, which comes
after all of its copies; after a failure, when its last copy to the device is done.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from ._lanes import Lanes, Mark
from ._nest import mapped
from ._pace import Pace

__all__ = ["Place", "Ring"]

_logger = logging.getLogger("carpool")

#: What becomes of a batch: its output in main memory, or an error.
Deliver = Callable[[Any, "BaseException | None"], None]


class Place:
    """Memory for one batch on its way, kept from one to the next."""

    def __init__(self) -> None:
        self._buffers: list[Any] = []
        self._used = 0
        #: Behind the copies out of it and into it.
        self.busy: list[Mark] = []

    def begin(self) -> None:
        """For the next batch; waits for what still reads or writes the last one's memory."""
        for mark in self.busy:
            mark.wait()
        self.busy = []
        self._used = 0

    def buffer(self, size: int, new: Callable[[], Any]) -> Any:
        """Memory of at least `size` bytes that is nobody else's in this batch: kept from before, or `new()`."""
        at = self._used
        self._used += 1
        if at == len(self._buffers):
            self._buffers.append(new())
        elif len(self._buffers[at]) < size:
            self._buffers[at] = new()
        return self._buffers[at]


class Ring:
    """The batches of one device on their way.

    Args:
        lanes: of the device.
        depth: how many batches there may be between staging and delivery.
        start: starts the thread that delivers, given what it runs.
        clock: in seconds.
    """

    def __init__(
        self,
        lanes: Lanes,
        depth: int = 2,
        *,
        start: Callable[[Callable[[], None]], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lanes = lanes
        self.depth = depth
        self.pace = Pace()
        self._clock = clock
        self._start = start or _start_thread
        self._changed = threading.Condition()
        self._free = [Place() for _ in range(depth)]
        self._deliveries: SimpleQueue[Any] = SimpleQueue()
        self._started = False

    @property
    def in_flight(self) -> int:
        """How many batches are on their way."""
        with self._changed:
            return self.depth - len(self._free)

    def run(self, batch: Any, handler: Callable[[Any], Any], deliver: Deliver) -> None:
        """Stages a batch (nested arrays in main memory), runs `handler` on its tensors, and returns.

        `deliver(output, None)` comes later, from the thread that delivers, with the handler's tensors in main memory, which
        is another batch's once it has returned; or `deliver(None, error)`, where the device reports one.
        What is raised here is the handler's, or the device's, and nothing is delivered.
        """
        lanes = self.lanes
        if not self._started:
            self._start(self._deliver_all)
            self._started = True
        place = self._take()
        try:
            began = self._clock()
            place.begin()
            staged = mapped(batch, lambda array: lanes.stage(array, place))
            tensors = mapped(staged, lanes.upload)
            uploaded = lanes.mark("up")
            place.busy.append(uploaded)
            lanes.follow("run", uploaded)
            mapped(tensors, lambda tensor: lanes.keep(tensor, "run"))
            self.pace.staged(self._clock() - began)
            with self._changed:
                self.pace.begun(self._clock())
            with lanes.running():
                output = handler(tensors)
            lanes.follow("down", lanes.mark("run"))
            host = mapped(output, lambda value: self._back(value, place))
            returned = lanes.mark("down")
        except BaseException:
            with contextlib.suppress(Exception):
                # Some copies may be on their way.
                place.busy = [lanes.mark("up"), lanes.mark("down")]
            self._give_back(place)
            raise
        self._deliveries.put((place, returned, host, deliver))

    def _back(self, value: Any, place: Place) -> Any:
        if not self.lanes.is_on_device(value):
            return value
        host = self.lanes.download(value, place)
        self.lanes.keep(value, "down")
        return host

    def wait_turn(self) -> None:
        """Blocks until the next batch should be sealed: there is a place, and the device is about to be free."""
        with self._changed:
            while True:
                if not self._free:
                    self._changed.wait()
                    continue
                hold = self.pace.hold(self._clock()) if len(self._free) < self.depth else 0.0
                if hold <= 0:
                    return
                self._changed.wait(hold)

    def close(self) -> None:
        """Ends the thread that delivers, after what is on its way."""
        self._deliveries.put(None)

    # ------------------------------------------------------------------------------- delivering

    def _take(self) -> Place:
        with self._changed:
            while not self._free:
                self._changed.wait()
            return self._free.pop(0)

    def _give_back(self, place: Place) -> None:
        with self._changed:
            self._free.append(place)
            self.pace.ended(self._clock(), others=len(self._free) < self.depth)
            self._changed.notify_all()

    def _deliver_all(self) -> None:
        while (delivery := self._deliveries.get()) is not None:
            place, returned, host, deliver = delivery
            try:
                try:
                    returned.wait()
                except Exception as error:
                    host = None
                    deliver(None, error)
                else:
                    deliver(host, None)
            except BaseException:
                # Whoever waits for later batches waits for this thread.
                _logger.exception("what delivers a batch raised")
            finally:
                self._give_back(place)
            # While it waits it keeps nothing alive.
            delivery = host = deliver = place = returned = None


def _start_thread(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="carpool delivery", daemon=True).start()
