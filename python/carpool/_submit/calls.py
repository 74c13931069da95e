"""Submitting to a `Batcher`: the three ways of calling, and options for single calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, cast

from carpool._many.map import Maps
from carpool._many.sync_pass import Lot
from carpool._options import CALL_OPTIONS, NO_CALL_OPTIONS, CallOptions, refuse_unknown
from carpool._types import A, B

from .future import Future
from .terms import asks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from carpool._core import Asks, Awaitable
    from carpool._station import Station

__all__ = ["Calls"]


class Calls(Maps[A, B], Generic[A, B]):
    """The calling side of a `Batcher`; also what `Batcher.options` returns."""

    _station: Station
    _asks: Asks | None
    _given: CallOptions = NO_CALL_OPTIONS
    #: What a view is one of; keeps it alive, too.
    _base: Calls[A, B] | None = None

    def __call__(self, item: A, /) -> B:
        """Submits `item` and blocks for its result.

        What the loop failed the request with is raised as an exception of the caller's own.

        Raises:
            QueueFull, BatcherClosed, RequestTooLarge: it was refused.
            DeadlineExceeded: its time was over before it left in a batch.
            BatchLengthError: the loop's rows were not one per request.
            BatchAbandoned: the loop dropped the batch.
        """
        if self._asks is None:
            return cast("B", self._station.engine().call(None, item))
        return cast("B", self._station.engine().call(None, item, asks=self._asks))

    def acall(self, item: A, /) -> Awaitable[B]:
        """Submits `item`; an awaitable of its result, for the running event loop.

        Awaiting raises what a plain call would; cancelling cancels the request.

        Raises:
            QueueFull, BatcherClosed, RequestTooLarge: it was refused.
            RuntimeError: no event loop runs here.
        """
        if self._asks is None:
            return self._station.engine().acall(None, item)
        return self._station.engine().acall(None, item, asks=self._asks)

    def submit(self, item: A, /) -> Future[B]:
        """Submits `item`; a `carpool.Future` of its result.

        Blocks only to wait for room, with overflow="wait".

        Raises:
            QueueFull, BatcherClosed, RequestTooLarge: it was refused.
        """
        future: Future[B] = Future()
        engine = self._station.engine()
        if self._asks is None:
            future._ticket = engine.submit(None, item, future)
        else:
            future._ticket = engine.submit(None, item, future, asks=self._asks)
        return future

    if TYPE_CHECKING:

        def options(
            self,
            *,
            priority: int = 0,
            timeout_ms: float | None = None,
            key: Callable[[A], Hashable] | Hashable | None = None,
            cost: Callable[[A], int] | int | None = None,
            length: Callable[[A], int] | int | None = None,
        ) -> Calls[A, B]:
            """The same batcher with options of their own for the calls made through what this returns.

            What is not given stays as the batcher has it. The view has the three ways of calling, and no state.

            Args:
                priority: smaller is more urgent, from -100 to 100; others have 0.
                timeout_ms: see `Batcher`; from 0, and None for no limit.
                key: see `Batcher`; what cannot be called is the key itself, and None is none.
                cost: see `Batcher`; None counts 1.
                length: see `Batcher`; also an int, and None is 0.

            Raises:
                TypeError, ValueError: an option is unknown, of the wrong type or out of range.
            """
            ...

    else:

        def options(self, **given: Any) -> Calls[Any, Any]:
            refuse_unknown(f"{self._station.name}.options", given, CALL_OPTIONS)
            station = self._station
            view = Calls.__new__(Calls)
            view._station = station
            view._base = self._base or self
            view._given = self._given.with_more(given, station.options)
            view._asks = asks_of(station.name, station.options, view._given)
            return view

    def _lot(self, star: bool) -> Lot:
        station = self._station
        bind = only if star else None
        return Lot(station.name, station.options, station.engine, None, self._asks, bind)

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_options, (self._base, self._given.given())

    def __repr__(self) -> str:
        return f"<{self._base!r} with {self._given.shown()}>"


def _with_options(base: Calls[Any, Any], given: dict[str, Any]) -> Calls[Any, Any]:
    return base.options(**given)


def only(arguments: Any) -> Any:
    """The only argument of a call of a `Batcher`."""
    (item,) = arguments
    return item
