"""What `submit` returns."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING, Any

from carpool._core import Port
from carpool._exceptions import BatchAbandoned
from carpool._types import R
from carpool._watch.timing import Timing, timing_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from carpool._core import Ticket, Waiting

    _Base = concurrent.futures.Future[R]
else:
    _Base = concurrent.futures.Future

__all__ = ["Future"]


class Future(_Base[R]):
    """A `concurrent.futures.Future` of one request, which can be awaited too.

    `cancel` is False once the request is in a batch. Dropping the future cancels nothing.
    """

    _ticket: Ticket | None = None
    _received = False

    def cancel(self) -> bool:
        """Gives up. True if the request was not in a batch yet: the handler never sees it."""
        if self.cancelled():
            return True
        ticket = self._ticket
        if ticket is None or not ticket.is_ours or not ticket.cancel():
            return False
        super().cancel()
        self.set_running_or_notify_cancel()
        return True

    @property
    def timing(self) -> Timing | None:
        """When its request went through the stations of its way; None before that has its answer, and where it
        had none from a batch (refused, cancelled, expired)."""
        moments = None if self._ticket is None else self._ticket.moments
        return None if moments is None else timing_of(moments)

    def running(self) -> bool:
        """Whether the request is in a batch and has no outcome yet."""
        ticket = self._ticket
        return ticket is not None and ticket.sealed and not self.done()

    def result(self, timeout: float | None = None) -> R:
        """The result; waits at most `timeout` seconds.

        A request that failed raises its error, as a plain call would.

        Raises:
            TimeoutError: the time was over.
            CancelledError: it was cancelled.
            WouldDeadlock: what would have to run is what waits here.
            BatchAbandoned: it was submitted by the process this one was forked from.
        """
        waiting = self._check_wait(timeout)
        self._received = True
        try:
            return super().result(timeout)
        finally:
            del waiting

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What `result` would raise for the request, or None; waits at most `timeout` seconds.

        Raises:
            TimeoutError, CancelledError, WouldDeadlock, BatchAbandoned: as `result`.
        """
        waiting = self._check_wait(timeout)
        self._received = True
        try:
            return super().exception(timeout)
        finally:
            del waiting

    def __await__(self) -> Generator[Any, Any, R]:
        """Waits on any event loop. Cancelling the await stops the waiting, not the request."""
        import asyncio

        if not self.done():
            waiting = None
            if self._ticket is not None:
                self._check_process()
                waiting = self._ticket.check_chain()
            waiter = asyncio.get_running_loop().create_future()
            port = Port.here()
            assert port is not None, "inside a running loop"
            # As awaited requests: one wake per loop, however many of its futures a batch resolves.
            self.add_done_callback(lambda _: port.post(lambda: _resolve(waiter)))
            try:
                yield from waiter
            finally:
                del waiting
        if self.cancelled():
            raise asyncio.CancelledError
        return self.result(0)

    def _check_process(self) -> None:
        ticket = self._ticket
        if ticket is not None and not ticket.is_ours:
            raise BatchAbandoned(
                f"{ticket.name}: the request was submitted by the parent process, before the fork"
            )

    def _check_wait(self, timeout: float | None) -> Waiting | None:
        if self._ticket is None or self.done():
            return None
        self._check_process()
        waiting = self._ticket.check_wait()
        # One that ends by itself holds nobody up for ever.
        return waiting if timeout is None else None

    def _resolve(self, value: R) -> None:
        if not self.done():
            self.set_result(value)

    def _reject(self, error: BaseException) -> None:
        if not self.done():
            self.set_exception(error)

    def __del__(self) -> None:
        if self._received or self._ticket is None:
            return
        error = getattr(self, "_exception", None)
        if error is not None:
            self._ticket.lost(error)


def _resolve(waiter: Any) -> None:
    if not waiter.done():
        waiter.set_result(None)
