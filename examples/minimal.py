"""The shortest useful program: a hundred callers, a handful of calls of the handler."""

from __future__ import annotations

import asyncio

from carpool import batched


@batched(max_batch_size=32, wait_ms=2)
def square(numbers: list[int]) -> list[int]:
    print(f"one call for {len(numbers)} numbers")
    return [number * number for number in numbers]


async def main() -> None:
    squares = await asyncio.gather(*(square.acall(number) for number in range(100)))
    assert squares == [number * number for number in range(100)]
    print(f"{square.stats.answered} callers, {square.stats.batches} batches")


if __name__ == "__main__":
    asyncio.run(main())
