"""`FunctionCall`: a call that was spawned."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
from collections.abc import Coroutine
from typing import Any, ClassVar

from ._both import Both
from .exception import InputCancellation

__all__ = ["FunctionCall"]

_numbers = itertools.count(1)


class FunctionCall:
    """A call under way; its result can be asked for any number of times."""

    gather: ClassVar[Both[..., list[Any], Coroutine[Any, Any, list[Any]]]]

    def __init__(self, future: Any) -> None:
        self._future = future
        #: Ends when the call is cancelled: a batch that runs goes on, whoever waits for its result does not.
        self._given_up: concurrent.futures.Future[None] = concurrent.futures.Future()
        #: The same for coroutines that wait.
        self._waiting: set[asyncio.Future[None]] = set()
        self.object_id = f"fc-{next(_numbers)}"
        self.get = Both(self._get, self._aget)
        self.cancel = Both(self._cancel, self._acancel)

    def _get(self, timeout: float | None = None, *, index: int = 0) -> Any:
        """The result; waits at most `timeout` seconds.

        Raises:
            TimeoutError: the time was over.
            InputCancellation: it was cancelled.
            IndexError: `index` is not 0; there is one result.
            Exception: what the function raised.
        """
        _only(index)
        both = (self._future, self._given_up)
        concurrent.futures.wait(both, timeout, concurrent.futures.FIRST_COMPLETED)
        return self._outcome(timeout)

    async def _aget(self, timeout: float | None = None, *, index: int = 0) -> Any:
        _only(index)
        told = asyncio.get_running_loop().create_future()
        self._waiting.add(told)
        ending = asyncio.ensure_future(_end_of(self._future))
        try:
            if not self._given_up.done():
                first = asyncio.FIRST_COMPLETED
                await asyncio.wait((ending, told), timeout=timeout, return_when=first)
        finally:
            self._waiting.discard(told)
            ending.cancel()
        return self._outcome(timeout)

    def _outcome(self, timeout: float | None) -> Any:
        if self._given_up.done():
            raise InputCancellation(f"{self.object_id} was cancelled")
        if not self._future.done():
            raise TimeoutError(f"{self.object_id} took longer than {timeout} s")
        try:
            return self._future.result()
        except concurrent.futures.CancelledError:
            raise InputCancellation(f"{self.object_id} was cancelled") from None

    def _cancel(self, terminate_containers: bool = False) -> None:
        """Gives up: what has not begun never runs, the result of what runs is dropped. Batchmates go on."""
        if self._future.done():
            return
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self._given_up.set_result(None)
        self._future.cancel()
        for told in list(self._waiting):
            # A loop that has ended has nobody waiting.
            with contextlib.suppress(RuntimeError):
                told.get_loop().call_soon_threadsafe(_tell, told)

    async def _acancel(self, terminate_containers: bool = False) -> None:
        self._cancel()

    def __repr__(self) -> str:
        return f"<carpool.compat.modal.FunctionCall {self.object_id}>"


def _gather(*function_calls: FunctionCall) -> list[Any]:
    """The results of several calls, in their order; an error is raised as soon as there is one."""
    if not any(one._given_up.done() for one in function_calls):
        futures = [one._future for one in function_calls]
        concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
    for one in function_calls:
        if one._future.done() or one._given_up.done():
            one._outcome(None)
    return [one._get() for one in function_calls]


async def _agather(*function_calls: FunctionCall) -> list[Any]:
    return await asyncio.gather(*(one._aget() for one in function_calls))


FunctionCall.gather = Both(_gather, _agather)


def _only(index: int) -> None:
    if index != 0:
        raise IndexError(f"a call has one result, at index 0; there is none at {index!r}")


async def _end_of(future: Any) -> None:
    # The error belongs to whoever asks for the outcome.
    with contextlib.suppress(Exception, asyncio.CancelledError):
        await future


def _tell(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
