"""What type checkers make of streaming handlers.

Read by mypy and pyright, never run: `make types`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING

from carpool import STOP, AsyncStream, Stream, batched
from carpool._streams.stop import Stop

if TYPE_CHECKING:
    from typing_extensions import assert_type


@batched
def tokens(texts: list[str]) -> Iterator[list[int | Stop]]:
    yield [len(text) if text else STOP for text in texts]


@batched(max_batch_size=8, stall_ms=None, buffer_steps=4)
async def atokens(texts: list[str]) -> AsyncIterator[list[int]]:
    yield [len(text) for text in texts]


@batched
def two(texts: list[str], counts: list[int]) -> Generator[list[bytes | Exception], None, None]:
    yield [text.encode() * count for text, count in zip(texts, counts, strict=True)]


class Model:
    @batched
    def speak(self, texts: list[str]) -> Iterator[list[str]]:
        yield texts


def sync(model: Model) -> None:
    assert_type(tokens("a"), Stream[int])
    assert_type(list(tokens("a")), list[int])
    assert_type(tokens.submit("a"), Stream[int])
    assert_type(atokens.submit("a"), Stream[int])
    assert_type(next(two("a", 1)), bytes)
    assert_type(list(model.speak("a")), list[str])
    assert_type(list(tokens.options(priority=1)("a")), list[int])
    with tokens("a") as stream:
        assert_type(stream, Stream[int])
    tokens(1)  # type: ignore[arg-type]
    model.speak(1)  # type: ignore[arg-type]


async def coroutines(model: Model) -> None:
    assert_type(tokens.acall("a"), AsyncStream[int])
    assert_type(atokens("a"), AsyncStream[int])
    assert_type([step async for step in atokens("a")], list[int])
    assert_type([step async for step in model.speak.acall("a")], list[str])
    atokens(1)  # type: ignore[arg-type]
