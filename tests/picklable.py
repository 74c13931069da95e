"""Decorated functions and classes at module level, for what pickles and for what other processes import."""

from __future__ import annotations

import os
from typing import Any

from carpool import batched


@batched(max_batch_size=2, name="double")
def double(items: list[int]) -> list[int]:
    return [item * 2 for item in items]


@batched
async def adouble(items: list[int]) -> list[int]:
    return [item * 2 for item in items]


@batched(executor="caller")
def process(items: list[Any]) -> list[int]:
    return [os.getpid() for _ in items]


class Model:
    def __init__(self, scale: int) -> None:
        self.scale = scale

    @batched(max_batch_size=3)
    def embed(self, items: list[int]) -> list[int]:
        return [item * self.scale for item in items]

    # Reached by another name than the handler's own.
    encode = batched(lambda self, items: [item + self.scale for item in items])
