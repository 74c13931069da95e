"""`FunctionCall`: a call that was spawned."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
from typing import Any

from ._both import Both
from .exception import InputCancellation

__all__ = ["FunctionCall"]

_numbers = itertools.count(1)


class FunctionCall:
    """A call under way; its result can be asked for any number of times."""

    def __init__(self, future: Any) -> None:
        self._future = future
        self._cancelled = False
        self.object_id = f"fc-{next(_numbers)}"
        self.get = Both(self._get, self._aget)
        self.cancel = Both(self._cancel, self._acancel)

    def _get(self, timeout: float | None = None) -> Any:
        """The result; waits at most `timeout` seconds.

        Raises:
            TimeoutError: the time was over.
            InputCancellation: it was cancelled.
            Exception: what the function raised.
        """
        self._check()
        try:
            return self._future.result(timeout)
        except concurrent.futures.CancelledError:
            raise InputCancellation(f"{self.object_id} was cancelled") from None
        except concurrent.futures.TimeoutError as error:
            # A class of its own up to CPython 3.10. The function's own TimeoutError passes as it is.
            if self._future.done():
                raise
            raise TimeoutError(f"{self.object_id} took longer than {timeout} s") from error

    async def _aget(self, timeout: float | None = None) -> Any:
        self._check()
        done, _ = await asyncio.wait([asyncio.wrap_future(self._future)], timeout=timeout)
        if not done:
            raise TimeoutError(f"{self.object_id} took longer than {timeout} s")
        return self._get()

    def _cancel(self, terminate_containers: bool = False) -> None:
        """Gives up: what has not begun never runs, the result of what runs is dropped. Batchmates go on."""
        self._cancelled = not self._future.done()
        self._future.cancel()

    async def _acancel(self, terminate_containers: bool = False) -> None:
        self._cancel()

    def _check(self) -> None:
        if self._cancelled:
            raise InputCancellation(f"{self.object_id} was cancelled")

    @staticmethod
    def gather(*calls: FunctionCall) -> list[Any]:
        """The results of several calls, in their order."""
        return [one.get() for one in calls]

    def __repr__(self) -> str:
        return f"<carpool.compat.modal.FunctionCall {self.object_id}>"
