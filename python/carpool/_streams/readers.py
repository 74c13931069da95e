"""What callers of a streaming function get: an iterator, and an asynchronous one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from carpool._exceptions import BatchAbandoned
from carpool._types import R_co

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from typing_extensions import Self

    from carpool._core import Steps

__all__ = ["AsyncStream", "Stream"]


class _End:
    """What both have in common: giving up."""

    _steps: Steps

    def _check_process(self) -> None:
        if not self._steps.is_ours:
            raise BatchAbandoned(
                f"{self._steps.name}: the request was submitted by the parent process, before the fork"
            )

    def __repr__(self) -> str:
        return f"<carpool.{type(self).__name__} of {self._steps.name}>"


class Stream(_End, Generic[R_co]):
    """The steps of one request, one after the other; iterating blocks for the next.

    Any thread may iterate, one at a time. `close()`, the end of a `with`, and dropping it give the request up.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R_co:
        """The next step.

        Raises:
            StopIteration: the row is finished, or the stream was closed.
            StreamStalled: it left its buffer full for too long.
            DeadlineExceeded, BatcherClosed, BatchAbandoned: the request did not get so far.
            WouldDeadlock: what would have to run is what waits here; the request is given up.
            Exception: what the handler raised.
        """
        self._check_process()
        found = self._steps.wait()
        if found is False:
            raise StopIteration
        return found[0]  # type: ignore[no-any-return]

    def close(self) -> None:
        """Gives the request up: its row is free."""
        self._steps.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncStream(_End, Generic[R_co]):
    """The steps of one request, for coroutines on any event loop.

    One at a time may wait for the next. `aclose()`, the end of an `async with`, cancelling a wait for a step, and
    dropping it give the request up.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R_co:
        """The next step; raises as `Stream.__next__`, with StopAsyncIteration at the end."""
        self._check_process()
        found = self._steps.poll()
        while found is None:
            found = await self._wait()
        if found is False:
            raise StopAsyncIteration
        return found[0]  # type: ignore[no-any-return]

    async def _wait(self) -> Any:
        import asyncio

        waiter = asyncio.get_running_loop().create_future()
        found = self._steps.poll(lambda: _resolve(waiter))
        if found is not None:
            return found
        try:
            await waiter
        except BaseException:
            # Whoever waited has been cancelled, and with that what it waited for.
            self._steps.cancel()
            raise
        return self._steps.poll()

    async def aclose(self) -> None:
        """Gives the request up: its row is free."""
        self._steps.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
