"""What type checkers make of decorated functions: `list[A] -> list[B]` is called `A -> B`.

Read by mypy and pyright, never run: `make types`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from carpool import AsyncBatchedFunction, BatchedFunction, Future, batched

if TYPE_CHECKING:
    from typing_extensions import assert_type

T = TypeVar("T")


# One parameter, every way of calling.


@batched
def length(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@batched
async def alength(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


async def one_parameter() -> None:
    assert_type(length, BatchedFunction[[str], int])
    assert_type(length("a"), int)
    assert_type(await length.acall("a"), int)
    assert_type(length.submit("a"), Future[int])
    assert_type(length.submit("a").result(timeout=1), int)
    assert_type(await length.submit("a"), int)

    assert_type(alength, AsyncBatchedFunction[[str], int])
    assert_type(await alength("a"), int)
    assert_type(await alength.acall("a"), int)
    assert_type(alength.submit("a"), Future[int])


async def on_a_loop() -> None:
    """What `acall` gives goes where asyncio wants a coroutine and where it wants an awaitable."""
    awaitable: Awaitable[int] = length.acall("a")
    coroutine: Coroutine[Any, Any, int] = alength("a")
    assert_type(await awaitable, int)
    assert_type(await coroutine, int)
    assert_type(await asyncio.create_task(length.acall("a")), int)
    assert_type(await asyncio.create_task(alength("a")), int)
    assert_type(await asyncio.gather(length.acall("a"), alength("b")), tuple[int, int])
    assert_type(await asyncio.wait_for(alength("a"), 1), int)
    assert_type(await asyncio.shield(length.acall("a")), int)
    for answer in asyncio.as_completed([alength("a"), alength("b")]):
        assert_type(await answer, int)
    length.acall("a").cancel()


async def in_threads() -> None:
    futures = [length.submit("a"), length.submit("b")]
    for future in concurrent.futures.as_completed(futures):
        assert_type(future.result(), int)
    assert_type(await asyncio.wrap_future(futures[0]), int)
    plain: concurrent.futures.Future[int] = futures[0]
    assert_type(plain.done(), bool)


# Two to five parameters: positions are checked, keywords are open.


@batched(max_batch_size=8)
def two(words: list[str], counts: list[int]) -> list[float]:
    return [0.0 for _ in words]


@batched
async def atwo(words: list[str], counts: list[int]) -> list[float]:
    return [0.0 for _ in words]


@batched
def three(a: list[str], b: list[int], c: list[bytes]) -> list[float]:
    return [0.0 for _ in a]


@batched
def four(a: list[str], b: list[int], c: list[bytes], d: list[str]) -> list[float]:
    return [0.0 for _ in a]


@batched
def five(a: list[str], b: list[int], c: list[bytes], d: list[str], e: list[int]) -> list[float]:
    return [0.0 for _ in a]


@batched
async def afive(
    a: list[str], b: list[int], c: list[bytes], d: list[str], e: list[int]
) -> list[float]:
    return [0.0 for _ in a]


async def several_parameters() -> None:
    assert_type(two("a", 1), float)
    assert_type(two("a", counts=1), float)
    assert_type(two(words="a", counts=1), float)
    assert_type(await two.acall("a", 1), float)
    assert_type(await two.acall("a", counts=1), float)
    assert_type(two.submit("a", 1), Future[float])
    assert_type(two.submit("a", counts=1), Future[float])

    assert_type(await atwo("a", 1), float)
    assert_type(await atwo("a", counts=1), float)
    assert_type(await atwo.acall("a", 1), float)
    assert_type(atwo.submit("a", 1), Future[float])

    assert_type(three("a", 1, b""), float)
    assert_type(four("a", 1, b"", "d"), float)
    assert_type(five("a", 1, b"", "d", 5), float)
    assert_type(five("a", 1, b"", e=5, d="d"), float)
    assert_type(await five.acall("a", 1, b"", "d", 5), float)
    assert_type(five.submit("a", 1, b"", "d", 5), Future[float])
    assert_type(await afive("a", 1, b"", "d", 5), float)

    # However they are spelt inside, they are batched functions of these parameters.
    named: BatchedFunction[[str, int], float] = two
    anamed: AsyncBatchedFunction[[str, int], float] = atwo
    assert_type(named("a", 1), float)
    assert_type(await anamed("a", 1), float)


# More than five, and what else cannot be counted: parameters unchecked, result exact.


@batched
def six(
    a: list[int], b: list[int], c: list[int], d: list[int], e: list[int], f: list[int]
) -> list[str]:
    return ["" for _ in a]


@batched
async def aseven(
    a: list[int], b: list[int], c: list[int], d: list[int], e: list[int], f: list[int], g: list[int]
) -> list[str]:
    return ["" for _ in a]


@batched
def by_keyword(texts: list[str], *, counts: list[int]) -> list[str]:
    return texts


def unknown_parameters(handler: Callable[..., list[str]]) -> BatchedFunction[..., str]:
    made: BatchedFunction[..., str] = batched(max_batch_size=4)(handler)
    return made


async def unchecked_parameters() -> None:
    assert_type(six, BatchedFunction[..., str])
    assert_type(six(1, 2, 3, 4, 5, f=6), str)
    assert_type(await six.acall(1, 2, 3, 4, 5, 6), str)
    assert_type(aseven, AsyncBatchedFunction[..., str])
    assert_type(await aseven(1, 2, 3, 4, 5, 6, 7), str)
    assert_type(aseven.submit(1, 2, 3, 4, 5, 6, 7), Future[str])
    assert_type(by_keyword, BatchedFunction[..., str])
    assert_type(by_keyword("a", counts=1), str)


# A parameter with a default can be left out or given.


@batched
def with_default(texts: list[str], counts: list[int] = []) -> list[str]:  # noqa: B006
    return texts


def defaults() -> None:
    assert_type(with_default("a"), str)
    assert_type(with_default("a", 1), str)
    assert_type(with_default("a", counts=1), str)


# What a handler may take and return.


@batched
def from_sequence(texts: Sequence[str]) -> Sequence[int]:
    return [len(text) for text in texts]


@batched
def to_tuple(texts: list[str]) -> tuple[int, ...]:
    return tuple(len(text) for text in texts)


@batched
def to_deque(texts: list[str]) -> deque[int]:
    return deque(len(text) for text in texts)


@batched
def to_optional(texts: list[str]) -> list[int | None]:
    return [None for _ in texts]


@batched
def to_lists(texts: list[str]) -> list[list[float]]:
    return [[0.0] for _ in texts]


@batched
def to_slots(texts: list[str]) -> list[int | Exception]:
    return [ValueError(text) for text in texts]


@batched
async def ato_slots(texts: list[str]) -> Sequence[int | Exception]:
    return [ValueError(text) for text in texts]


@batched
def from_arrays(images: list[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.float32]]:
    return images


@batched
def to_array(texts: list[str]) -> npt.NDArray[np.float32]:
    return np.zeros((len(texts), 3), np.float32)


class Tensor:
    """The part of torch.Tensor's types that counts here."""

    def __len__(self) -> int:
        return 0

    def __getitem__(
        self, indices: int | slice | Tensor | list[Any] | tuple[Any, ...] | None
    ) -> Tensor:
        return self


@batched
def to_tensor(texts: list[str]) -> Tensor:
    return Tensor()


@batched
def untyped_items(items: list[Any]) -> list[Any]:
    return items


async def rows() -> None:
    assert_type(from_sequence, BatchedFunction[[str], int])
    assert_type(to_tuple("a"), int)
    assert_type(to_deque("a"), int)
    assert_type(to_optional("a"), int | None)
    assert_type(to_lists("a"), list[float])
    # An exception in a slot is raised, never returned.
    assert_type(to_slots("a"), int)
    assert_type(await ato_slots("a"), int)
    assert_type(from_arrays(np.zeros(3, np.float32)), npt.NDArray[np.float32])
    # numpy itself knows no more of `array[0]`: it may be a scalar or an array.
    assert_type(to_array("a"), Any)
    assert_type(to_tensor("a"), Tensor)
    assert_type(untyped_items("a"), Any)


# Options do not change the type, whichever they are.


class Mode(AbstractContextManager[None]):
    def __exit__(self, *details: object) -> None: ...


@batched(
    max_batch_size=16,
    wait_ms=0.5,
    max_queue=100,
    overflow="wait",
    gather=False,
    max_concurrent_batches=2,
    executor="thread",
    setup=lambda: print("ready"),
    context=Mode,
    name="length",
)
def with_options(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@asynccontextmanager
async def amode() -> AsyncGenerator[None, None]:
    yield


@batched(executor="thread", context=amode)
async def awith_options(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def undecorated(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def chosen(
    executor: Literal["thread", "caller"] | None, overflow: Literal["raise", "wait", "shed"]
) -> None:
    assert_type(with_options, BatchedFunction[[str], int])
    assert_type(awith_options, AsyncBatchedFunction[[str], int])
    made = batched(executor=executor, overflow=overflow)(undecorated)
    assert_type(made, BatchedFunction[[str], int])
    assert_type(batched(undecorated), BatchedFunction[[str], int])
    assert_type(batched()(undecorated), BatchedFunction[[str], int])


# A batched function is a callable like others, and can be named in annotations.


def apply(function: Callable[[str], T], text: str) -> T:
    return function(text)


def any_result(function: BatchedFunction[[str], object]) -> object:
    return function("a")


def as_values() -> None:
    assert_type(apply(length, "a"), int)
    assert_type(apply(length.submit, "a"), Future[int])
    assert_type([*map(length, ["a", "b"])], list[int])
    assert_type(any_result(length), object)


# Shared parameters after the lists: names and types as written.


@batched(shared=("temperature", "top_k"))
def generate(prompts: list[str], temperature: float, top_k: int = 5) -> list[str]:
    return prompts


@batched(shared=("mode",))
async def agenerate(prompts: list[str], lengths: list[int], *, mode: str) -> list[bytes]:
    return [b"" for _ in prompts]


async def shared_parameters() -> None:
    assert_type(generate("a", 0.5), str)
    assert_type(generate("a", temperature=0.5, top_k=3), str)
    assert_type(await generate.acall("a", 0.5, 3), str)
    assert_type(generate.submit("a", temperature=0.5), Future[str])
    assert_type(await agenerate("a", 1, mode="fast"), bytes)
    assert_type(agenerate.submit("a", 1, mode="fast"), Future[bytes])


# Options of single calls.


def first_letter(text: str) -> str:
    return text[0]


@batched(max_batch_cost=100, cost=len, key=first_letter, timeout_ms=50, age_ms=10.5)
def scheduled(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@batched(max_batch_cost=100, cost=3)
def fixed_cost(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@batched(max_batch_cost=100, cost=len, padded_cost=True, look_ahead=8, length=len, length_window=4)
def sorted_by_length(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


async def options_of_calls() -> None:
    assert_type(sorted_by_length.options(length=len)("a"), int)
    assert_type(sorted_by_length.options(length=7).options(length=None)("a"), int)
    assert_type(scheduled.options(priority=-1), BatchedFunction[[str], int])
    assert_type(scheduled.options(priority=-1, timeout_ms=None)("a"), int)
    assert_type(scheduled.options(key=first_letter, cost=len).submit("a"), Future[int])
    assert_type(scheduled.options(key="adapter", cost=3).options(timeout_ms=1)("a"), int)
    assert_type(scheduled.options(key=None, cost=None)("a"), int)
    assert_type(await alength.options(priority=1)("a"), int)
    assert_type(await two.options(priority=1).acall("a", 1), float)
    assert_type(generate.options(priority=1)("a", temperature=0.5), str)
