"""Streaming: the steps of an async generator, as carpool's streams take them, and as callers are given them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from carpool import STOP

from ._errors import check_rows

__all__ = ["steps_of", "told_by"]

#: What a handler yields in the place of a caller that is finished.
STOPS = (StopIteration, StopAsyncIteration)


async def steps_of(generator: Any, count: int) -> AsyncIterator[list[Any]]:
    """The steps of a handler for `count` requests, with `STOP` for those that are finished.

    Raises:
        RayServeException: a step was of another length than the batch.
        Exception: what the handler raised.
    """
    async with contextlib.aclosing(generator):
        async for results in generator:
            check_rows(results, count)
            # Not compared by value: arrays would answer with arrays.
            yield [STOP if any(row is stop for stop in STOPS) else row for row in results]
            # A handler that never waits must not keep its callers from reading: one turn of the loop tells them, in
            # the next they read.
            await asyncio.sleep(0)
            await asyncio.sleep(0)


async def told_by(stream: Any) -> AsyncGenerator[Any, None]:
    """A caller's stream as an async generator, the kind of iterator that Ray Serve looks for."""
    async with contextlib.aclosing(stream):
        async for step in stream:
            yield step
