"""What type checkers make of the front doors of other libraries.

Read by mypy and pyright, never run: `make types`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from carpool.compat import batched, modal
from carpool.compat.batched import aio
from carpool.compat.ray_serve import batch

if TYPE_CHECKING:
    from typing_extensions import assert_type


@batched.dynamically
def length(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@batched.dynamically(batch_size=4)
def shown(numbers: list[int]) -> list[str]:
    return [str(number) for number in numbers]


@aio.dynamically(batch_size=4)
async def alength(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


class Model:
    @batched.dynamically(batch_size=4)
    def embed(self, texts: list[str]) -> list[float]:
        return [0.0 for _ in texts]


async def of_batched() -> None:
    assert_type(length("a"), int)
    assert_type(length(["a"]), list[int])
    assert_type(await length.acall("a"), int)
    assert_type(shown(1), str)
    assert_type(await alength("a"), int)
    assert_type(await alength(["a", "b"]), list[int])
    assert_type(Model().embed("a"), float)
    assert_type(Model().embed(["a"]), list[float])


@batch(max_batch_size=4)
async def upper(texts: list[str]) -> list[bytes]:
    return [text.upper().encode() for text in texts]


@batch
async def lower(texts: list[str]) -> list[str]:
    return [text.lower() for text in texts]


@batch(max_batch_size=4)
async def steps(numbers: list[int]) -> AsyncIterator[list[float]]:
    yield [float(number) for number in numbers]


class Backend:
    @batch(max_batch_size=4)
    async def embed(self, texts: list[str]) -> list[float]:
        return [0.0 for _ in texts]


async def of_ray_serve() -> None:
    assert_type(await upper("a"), bytes)
    assert_type(await lower("a"), str)
    assert_type(await Backend().embed("a"), float)
    async for step in steps(1):
        assert_type(step, float)
    lower.set_max_batch_size(3)


app = modal.App()


@app.function()
@modal.batched(max_batch_size=4)
def tripled(numbers: list[int]) -> list[int]:
    return [3 * number for number in numbers]


assert_type(tripled, modal.Function)
assert_type(tripled.spawn(1), modal.FunctionCall)
