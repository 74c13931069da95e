"""What type checkers make of maps over whole data sets.

Read by mypy and pyright, never run: `make types`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator
from typing import TYPE_CHECKING

from carpool import Batcher, Progress, batched

if TYPE_CHECKING:
    from typing_extensions import assert_type


@batched
def lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@batched(max_batch_size=8)
async def alengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@batched
def scaled(numbers: list[float], factors: list[int]) -> list[str]:
    return [str(number * factor) for number, factor in zip(numbers, factors, strict=True)]


class Model:
    @batched
    def embed(self, texts: list[str]) -> list[bytes]:
        return [text.encode() for text in texts]


def sync(model: Model, batcher: Batcher[str, int]) -> None:
    assert_type(lengths.map(["a"]), Generator[int, None, None])
    assert_type(list(lengths.map(("a" for _ in range(3)), ordered=False, errors="skip")), list[int])
    assert_type(list(lengths.options(priority=1).map({"a"}, retries=2, window=100)), list[int])
    assert_type(list(scaled.starmap([(1.0, 2)])), list[str])
    assert_type(list(model.embed.map(["a"], progress=True)), list[bytes])
    assert_type(list(batcher.map(["a"], timeout_ms=20)), list[int])
    assert_type(list(batcher.options(priority=1).map(["a"])), list[int])

    def show(progress: Progress) -> None:
        print(progress.done, progress.rate)

    lengths.map(["a"], progress=show)
    lengths.map([1])  # type: ignore[list-item, misc, arg-type, unused-ignore]
    lengths.map(["a"], errors="ignore")  # type: ignore[arg-type]
    batcher.map([1])  # type: ignore[list-item]


async def coroutines(model: Model, batcher: Batcher[str, int], texts: AsyncIterable[str]) -> None:
    assert_type(lengths.amap(texts), AsyncGenerator[int, None])
    assert_type([one async for one in alengths.amap(["a"])], list[int])
    assert_type([one async for one in scaled.astarmap([(1.0, 2)])], list[str])
    assert_type([one async for one in model.embed.amap(texts)], list[bytes])
    assert_type([one async for one in batcher.amap(texts)], list[int])
