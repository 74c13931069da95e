"""Mistakes that both type checkers must find.

Each wrong line carries the code of mypy's error in an ignore that pyright honours too. Where either
no longer finds the mistake, the ignore is unnecessary to it, and it reports that.

Read by mypy and pyright, never run: `make types`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Callable, Iterator

from carpool import Batch, BatchedFunction, Batcher, Stats, batched


@batched
def length(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@batched
async def alength(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@batched
def two(words: list[str], counts: list[int]) -> list[float]:
    return [0.0 for _ in words]


@batched
async def afive(
    a: list[str], b: list[int], c: list[bytes], d: list[str], e: list[int]
) -> list[float]:
    return [0.0 for _ in a]


class Model:
    @batched
    def length(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @batched
    async def two(self, words: list[str], counts: list[int]) -> list[float]:
        return [0.0 for _ in words]

    @staticmethod
    @batched
    def static(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @classmethod
    @batched
    def of_class(cls, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]


@batched(shared=("temperature",))
def generate(prompts: list[str], temperature: float) -> list[str]:
    return prompts


def first(numbers: list[int]) -> int:
    return numbers[0]


def wrong_shared() -> None:
    generate("a", temperature="hot")  # type: ignore[arg-type]
    generate(["a"], 0.5)  # type: ignore[arg-type]
    generate("a", 0.5, 1)  # type: ignore[call-arg]
    generate.submit("a", temp=0.5)  # type: ignore[call-arg]


async def wrong_argument(model: Model) -> None:
    length(1)  # type: ignore[arg-type]
    length(["a"])  # type: ignore[arg-type]
    await length.acall(1)  # type: ignore[arg-type]
    length.submit(b"a")  # type: ignore[arg-type]
    await alength(1)  # type: ignore[arg-type]
    await alength.acall(1)  # type: ignore[arg-type]
    alength.submit(1)  # type: ignore[arg-type]

    two(1, 1)  # type: ignore[arg-type]
    two("a", "b")  # type: ignore[arg-type]
    await two.acall("a", "b")  # type: ignore[arg-type]
    two.submit("a", "b")  # type: ignore[arg-type]
    await afive("a", 1, b"", "d", "e")  # type: ignore[arg-type]
    await afive.acall("a", 1, b"", 4, 5)  # type: ignore[arg-type]
    afive.submit("a", 1, "c", "d", 5)  # type: ignore[arg-type]

    model.length(1)  # type: ignore[arg-type]
    await model.length.acall(1)  # type: ignore[arg-type]
    model.length.submit(1)  # type: ignore[arg-type]
    await model.two("a", "b")  # type: ignore[arg-type]
    model.two.submit("a", "b")  # type: ignore[arg-type]
    Model.length(model, 1)  # type: ignore[arg-type]
    Model.length("a", "a")  # type: ignore[arg-type]
    Model.static(1)  # type: ignore[arg-type]
    Model.of_class(1)  # type: ignore[arg-type]
    model.of_class.submit(1)  # type: ignore[arg-type]


async def wrong_number(model: Model) -> None:
    length()  # type: ignore[call-arg]
    length("a", "b")  # type: ignore[call-arg]
    await length.acall()  # type: ignore[call-arg]
    length.submit("a", "b")  # type: ignore[call-arg]
    await alength()  # type: ignore[call-arg]
    await alength("a", "b")  # type: ignore[call-arg]

    two("a", 1, 2)  # type: ignore[call-arg]
    await two.acall("a", 1, 2)  # type: ignore[call-arg]
    two.submit("a", 1, 2)  # type: ignore[call-arg]
    await afive("a", 1, b"", "d", 5, 6)  # type: ignore[call-arg]

    model.length()  # type: ignore[call-arg]
    model.length("a", "b")  # type: ignore[call-arg]
    await model.two("a", 1, 2)  # type: ignore[call-arg]
    Model.static("a", "b")  # type: ignore[call-arg]
    Model.of_class()  # type: ignore[call-arg]


def wrong_result() -> None:
    a: str = length("a")  # type: ignore[assignment]
    b: str = length.submit("a").result()  # type: ignore[assignment]
    c: int = length.acall("a")  # type: ignore[assignment]
    d: int = alength("a")  # type: ignore[assignment]
    e: int = length.submit("a")  # type: ignore[assignment]
    print(a, b, c, d, e)


def no_rows(handler: Callable[[list[str]], int], other: Callable[[list[str]], set[str]]) -> None:
    batched(handler)  # type: ignore[arg-type]
    batched(other)  # type: ignore[arg-type]
    batched(max_batch_size=8)(handler)  # type: ignore[arg-type]


def steps(texts: list[str]) -> Iterator[int]:
    yield from map(len, texts)


def wrong_decoration() -> None:
    batched(steps)  # type: ignore[arg-type]
    batched(1)  # type: ignore[call-overload]
    batched("length")  # type: ignore[call-overload]


def wrong_option() -> None:
    batched(max_batch_size="8")  # type: ignore[call-overload]
    batched(max_batch=8)  # type: ignore[call-overload]
    batched(wait_ms=None)  # type: ignore[call-overload]
    batched(overflow="drop")  # type: ignore[call-overload]
    batched(executor="process")  # type: ignore[call-overload]
    batched(setup=1)  # type: ignore[call-overload]
    batched(context=print)  # type: ignore[arg-type]
    batched(name=1)  # type: ignore[call-overload]
    batched(max_batch_cost="8")  # type: ignore[call-overload]
    batched(cost="8")  # type: ignore[call-overload]
    batched(key=lambda text: [text])  # type: ignore[arg-type, return-value]
    batched(padded_cost="yes")  # type: ignore[call-overload]
    batched(look_ahead=None)  # type: ignore[call-overload]
    batched(length=8)  # type: ignore[call-overload]
    batched(length_window="8")  # type: ignore[call-overload]
    batched(shared=1)  # type: ignore[call-overload]
    batched(timeout_ms="8")  # type: ignore[call-overload]
    batched(priority=1)  # type: ignore[call-overload]
    length.options(priority="high")  # type: ignore[arg-type]
    length.options(timeout=1)  # type: ignore[call-arg]
    length.options(max_batch_size=1)  # type: ignore[call-arg]
    length.options(priority=1)(1)  # type: ignore[arg-type]
    Batcher[str, int](max_batch_size=8.0)  # type: ignore[arg-type]
    Batcher[str, int](executor="thread")  # type: ignore[call-arg]
    Batcher[str, int](shared=("a",))  # type: ignore[call-arg]
    Batcher[str, int](cost=first)  # type: ignore[arg-type]
    Batcher[str, int](length=3)  # type: ignore[arg-type]
    Batcher[str, int]().options(priority=None)  # type: ignore[arg-type]


def wrong_lifecycle(stats: Stats) -> None:
    length.close(timeout="1")  # type: ignore[arg-type]
    length.close(drain_first=True)  # type: ignore[call-arg]
    length.statistics()  # type: ignore[attr-defined]
    length.healthy()  # type: ignore[operator]
    stats.run_ms.percentile("99")  # type: ignore[arg-type]
    stats.pending = 0  # type: ignore[misc]


def wrong_function(takes_int: Callable[[BatchedFunction[[int], int]], None]) -> None:
    takes_int(length)  # type: ignore[arg-type]


async def wrong_loop(batcher: Batcher[str, int], batch: Batch[str, int]) -> None:
    batcher(1)  # type: ignore[arg-type]
    await batcher.acall(1)  # type: ignore[arg-type]
    batcher.submit(1)  # type: ignore[arg-type]
    batcher.submit("a", "b")  # type: ignore[call-arg]
    text: str = batcher("a")  # type: ignore[assignment]
    batch.complete(["a"])  # type: ignore[list-item]
    batch.complete(1)  # type: ignore[arg-type]
    batch.set(0, "a")  # type: ignore[arg-type]
    batch.set("a", 0)  # type: ignore[arg-type]
    batch.fail("broken")  # type: ignore[arg-type]
    batch.fail_item(0, "broken")  # type: ignore[arg-type]
    batcher.next_batch(max_size="8")  # type: ignore[arg-type]
    batcher.next_batch().complete([1])  # type: ignore[union-attr]
    print(text)
