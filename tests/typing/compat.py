"""What type checkers make of the front doors of other libraries.

Read by mypy and pyright, never run: `make types`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import TYPE_CHECKING

from carpool.compat import batched
from carpool.compat.batched import aio

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
