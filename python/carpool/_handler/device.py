"""Running a handler on a device: its batches are collated, copied there and back, while others compute.

A worker stages a batch, lets the handler put its work on the device, and takes the next one; a thread beside it waits
for what the device has done, and answers. One worker per device, which is the only thread that ever runs the
handler there.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from carpool import _lifecycle
from carpool._core import running
from carpool._exceptions import SetupError
from carpool._watch import events
from carpool.cuda import Arrived, Ring, lanes_of
from carpool.cuda._graphs import Graphs
from carpool.cuda._nest import leaves, mapped

from . import faults
from .collated import arguments_of
from .worker import Handler, complete, fail

if TYPE_CHECKING:
    from carpool._core import Batch, Engine
    from carpool._station import Station
    from carpool._submit.binding import Binding
    from carpool.cuda import Lanes

    from .collated import Collated
    from .worker import Desk

__all__ = ["DeviceHandler"]


class DeviceHandler(Handler):
    """The user's function of tensors, with all that belongs to running it on devices."""

    def __init__(self, function: Callable[..., Any], station: Station, *, is_async: bool) -> None:
        super().__init__(self._at_once, station, is_async=is_async)
        options = station.options
        assert options.collate is not None
        assert options.device is not None
        #: Handlers with nothing around them are called without a ring.
        self.bare = None
        self._on_tensors = function
        self._arguments = arguments_of(
            function, options.collate, sized=options.batch_sizes is not None
        )
        # Memory of a place is another batch's after delivery: rows are to be apart from it. Ours copy those of arrays.
        splitting = getattr(options.collate, "_splitting", None)
        self._copies_rows: bool = splitting is not None and not splitting.views
        self._devices = itertools.cycle(options.devices)
        self._depth = options.depth
        self._graphs = options.graphs
        #: By thread: the way of its batches, and the marks behind the items of the present one.
        self._here = threading.local()

    # ------------------------------------------------------------------------------ threads

    def run(
        self,
        batch: Batch[Any, Any],
        engine: Engine,
        binding: Binding,
        bound: tuple[Any, ...],
        desk: Desk,
    ) -> None:
        """Puts a batch on its way; answers come from another thread. Blocks until the next should be sealed."""
        road = self._road(batch, engine, desk)
        if road is None:
            return
        if self.setup is not None and not desk.is_set_up:
            # What it puts on a device belongs on this one.
            with road.ring.lanes.running():
                if not self._ready(batch, engine, desk):
                    return
        here = self._here
        here.road, here.bound = road, len(bound)
        here.marks = [mark for one in batch.items if type(one) is Arrived for mark in one.marks]
        if self.recovers:
            super().run(batch, engine, binding, bound, desk)
            return
        self._send(road, batch, binding, bound, desk)
        road.ring.wait_turn()

    def _send(
        self,
        road: _Road,
        batch: Batch[Any, Any],
        binding: Binding,
        bound: tuple[Any, ...],
        desk: Desk,
    ) -> None:
        positional, by_name = binding.lists(batch.items)
        rest: Batch[Any, Any] | None = None
        try:
            desk.context.copy().run(self._launch, road, batch, (*bound, *positional), by_name)
        except BaseException as error:
            if not (faults.is_out_of_memory(error) and len(batch) > 1):
                fail(batch, error)
                return
            rest = batch._split(len(batch) // 2)
        if rest is not None:
            # Not from in there: the error keeps what did not fit.
            self._send(road, batch, binding, bound, desk)
            self._send(road, rest, binding, bound, desk)

    def _launch(
        self, road: _Road, batch: Batch[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        running.set(batch._run)

        def answer(rows: list[Any] | None, error: BaseException | None) -> None:
            if error is not None:
                fail(batch, error)
            elif rows is not None:
                complete(batch, rows)

        self._go(road, args, kwargs, answer)

    def _at_once(self, *args: Any, **kwargs: Any) -> list[Any]:
        """The rows of a batch, waited for: for batches that are run again, whole or in parts."""
        outcome: SimpleQueue[Any] = SimpleQueue()
        self._go(self._here.road, args, kwargs, lambda *told: outcome.put(told), plainly=True)
        rows, error = outcome.get()
        if error is not None:
            raise error
        return rows  # type: ignore[no-any-return]

    def _go(
        self,
        road: _Road,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        answer: Callable[[list[Any] | None, BaseException | None], None],
        plainly: bool = False,
    ) -> None:
        whole = self._collated(road.ring.lanes, args, kwargs)
        if not whole.left:
            answer(whole.all_rows([]), None)
            return

        def work(tensors: Any) -> Any:
            given, named = whole.with_batches(tensors)
            # Of a batch that is run again the context has been entered already.
            if self.context is None or plainly:
                return self._call_with(road, given, named)
            with self.context():
                return self._call_with(road, given, named)

        def deliver(host: Any, error: BaseException | None) -> None:
            rows = None
            if error is None:
                try:
                    rows = whole.split(self._apart_from_place(host))
                except BaseException as wrong:
                    error = wrong
            answer(rows, error)

        try:
            road.ring.run(whole.made, work, deliver)
        except Exception as error:
            if not whole.misfits or faults.is_out_of_memory(error):
                raise
            answer(whole.all_rows([error] * len(whole.left)), None)

    def _collated(self, lanes: Lanes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Collated:
        marks = self._here.marks
        if not marks:
            return self._arguments(args, kwargs)
        with lanes.receiving(marks, list(leaves((args[self._here.bound :], kwargs)))):
            return self._arguments(args, kwargs)

    def _call_with(self, road: _Road, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        function, bound = self._on_tensors, self._here.bound
        if road.graphs is None:
            return function(*args, **kwargs)
        if bound:
            # All batches here are of one instance, which graphs are not to keep alive.
            function = functools.partial(function, *args[:bound])
        return road.graphs.run(function, args[bound:], kwargs)

    def _apart_from_place(self, host: Any) -> Any:
        """An output whose rows will not lie in memory of a place."""
        if not self._copies_rows:
            return _all_apart(host)
        # The rows of a list go to callers as they are.
        return mapped(host, _as_it_is, lists=_all_apart)

    # -------------------------------------------------------------------------------- roads

    def _road(self, batch: Batch[Any, Any], engine: Engine, desk: Desk) -> _Road | None:
        """The way of this worker's batches; None if there is none, which the batch has been told."""
        road: _Road | None = desk.road
        if road is not None:
            return road
        try:
            with _lifecycle.lock:
                device = next(self._devices)
            lanes = lanes_of(device)
        except Exception as cause:
            error = SetupError(f"{self.name}: {cause}")
            error.__cause__ = cause
            events.setup_failed(self.name, cause)
            engine.die(error)
            batch.fail(error)
            return None
        ring = Ring(lanes, self._depth, start=lambda run: _start(run, f"{self.name} {device}"))
        graphs = None
        if self._graphs:
            graphs = Graphs(lanes)
            self.station.tallies.append(graphs.tally)
        road = desk.road = _Road(ring, graphs)
        return road


class _Road:
    """What stays between the batches of one worker and its device."""

    def __init__(self, ring: Ring, graphs: Graphs | None) -> None:
        self.ring = ring
        self.graphs = graphs

    def close(self) -> None:
        self.ring.close()


def _start(run: Callable[[], None], name: str) -> None:
    thread = threading.Thread(target=run, name=f"carpool {name} delivery", daemon=True)
    with _lifecycle.lock:
        thread.start()
        _lifecycle.started(thread)


def _apart(value: Any) -> Any:
    return value.clone() if hasattr(value, "clone") else value


def _as_it_is(value: Any) -> Any:
    return value


def _all_apart(value: Any) -> Any:
    return mapped(value, _apart)
