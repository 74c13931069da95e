"""Running a handler once at every size that its batches may have, before anybody waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carpool._core import Engine
    from carpool._options import Options

__all__ = ["awarm", "sizes_of", "warm"]


#: A moment that never comes: time limits are for those who wait.
_NEVER = 2**64 - 1


def sizes_of(options: Options) -> tuple[int, ...]:
    """The sizes to run, increasing: `batch_sizes`, else the powers of two and `max_batch_size`."""
    if options.batch_sizes is not None:
        return tuple(options.batch_sizes)
    most = options.max_batch_size
    powers = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return (*powers, most)


def counts_of(options: Options) -> list[int]:
    """How many requests make a batch of each size, as far as so many can be pending at once."""
    counts = []
    smaller = 0
    for size in sizes_of(options):
        if smaller < options.max_queue:
            counts.append(min(size, options.max_queue))
        smaller = size
    return counts


def warm(function: Any, engine: Engine, options: Options, item: Any, cost: int) -> None:
    """Runs a batch of each size, of repeats of `item`; blocks.

    Raises what the handler raised, and then runs no further size.
    """
    for count in counts_of(options):
        outcomes = engine.call_many(
            function,
            [item] * count,
            together=True,
            # Nobody else has this key, so nobody else is in the batch.
            key=_Alone(),
            cost=_affordable(cost, count, options),
            deadline_ns=_NEVER,
        )
        _raise_first(outcomes)


async def awarm(function: Any, engine: Engine, options: Options, item: Any, cost: int) -> None:
    """The same on an event loop."""
    import asyncio

    for count in counts_of(options):
        key = _Alone()
        one = _affordable(cost, count, options)
        calls = [
            engine.acall(function, item, key=key, cost=one, deadline_ns=_NEVER)
            for _ in range(count)
        ]
        # Before the loop has had a turn to take some of them.
        engine.flush()
        _raise_first(await asyncio.gather(*calls, return_exceptions=True))


def _raise_first(outcomes: list[Any]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


class _Alone:
    """A key that equals no other."""


def _affordable(cost: int, size: int, options: Options) -> int:
    """What one of `size` items may cost at most, so that all fit the budget of a batch."""
    budget = options.max_batch_cost
    return cost if budget is None else min(cost, budget // size)
