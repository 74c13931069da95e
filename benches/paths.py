"""One hot path, run so many times: what `check.py` counts the instructions of.

    python benches/paths.py await|caller|worker REQUESTS

Nothing else may differ between two runs with different numbers, so that the difference belongs to the requests.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Any

import carpool

CALLERS = 64


def served(items: list[int]) -> list[int]:
    return [item + 1 for item in items]


def awaited(requests: int) -> None:
    """64 callers on one loop, an `async def` handler on it."""

    async def on_loop(items: list[int]) -> list[int]:
        return [item + 1 for item in items]

    batcher: Any = carpool.batched(max_batch_size=CALLERS)(on_loop)

    async def caller(each: int) -> None:
        for item in range(each):
            assert await batcher(item) == item + 1

    async def main() -> None:
        await asyncio.gather(*(caller(requests // CALLERS) for _ in range(CALLERS)))

    asyncio.run(main())


def alone(executor: Any) -> Callable[[int], None]:
    """One thread, one blocking call after the other."""

    def run(requests: int) -> None:
        decorate: Any = carpool.batched(max_batch_size=CALLERS, executor=executor)
        batcher: Any = decorate(served)
        for item in range(requests):
            assert batcher(item) == item + 1
        batcher.close()

    return run


PATHS: dict[str, Callable[[int], None]] = {
    "await": awaited,
    "caller": alone("caller"),
    "worker": alone("thread"),
}


if __name__ == "__main__":
    gc.disable()  # when it runs depends on more than the requests
    PATHS[sys.argv[1]](int(sys.argv[2]))
