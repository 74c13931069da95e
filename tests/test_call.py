"""The callable a decorated function is, however CPython calls it."""

from __future__ import annotations

import asyncio
import functools
import operator
from typing import Any

import pytest

import carpool
from carpool import batched


@batched(executor="caller")
def double(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]


@batched(executor="caller")
def add(left: list[int], right: list[int] | None = None) -> list[int]:
    return [one + (other or 0) for one, other in zip(left, right or [], strict=True)]


def test_every_form_of_a_call_reaches_the_handler() -> None:
    assert double(1) == 2
    assert double(*[2]) == 4
    assert double(numbers=4) == 8
    assert list(map(double, [5])) == [10]
    assert functools.partial(double, 6)() == 12
    assert operator.call(double, 7) == 14 if hasattr(operator, "call") else True
    assert type(double).__call__(double, 8) == 16
    assert add(1) == 1
    assert add(1, 2) == 3
    assert add(1, right=2) == 3


@pytest.mark.parametrize("arguments", [(), (1, 2)])
def test_wrong_arguments_are_refused_as_in_a_plain_call(arguments: tuple[int, ...]) -> None:
    untyped: Any = double
    with pytest.raises(TypeError, match="double"):
        untyped(*arguments)
    with pytest.raises(TypeError, match="double"):
        untyped(1, unknown=2)


def test_every_form_of_acall_reaches_the_handler() -> None:
    @batched
    def half(numbers: list[int]) -> list[int]:
        return [number // 2 for number in numbers]

    async def main() -> list[int]:
        bound = half.acall
        return [
            await half.acall(2),
            await half.acall(numbers=4),
            await bound(6),
            await bound(*[8]),
            await type(half).acall(half, 10),
            await functools.partial(half.acall, 12)(),
        ]

    with half:
        assert asyncio.run(main()) == [1, 2, 3, 4, 5, 6]


def test_a_call_put_into_a_class_later_counts() -> None:
    class Own(carpool.BatchedFunction[[int], int]):
        pass

    made = Own(double._plan)
    assert made(1) == 2
    untyped: Any = Own
    untyped.__call__ = lambda self, number: -number
    assert made(1) == -1
    del untyped.__call__
    assert made(1) == 2


def test_a_call_in_a_class_counts() -> None:
    class Own(carpool.BatchedFunction[[int], int]):
        def __call__(self, number: int) -> int:  # type: ignore[override]
            return -1 - super().__call__(number)

    assert Own(double._plan)(1) == -3
