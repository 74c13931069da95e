"""What type checkers make of decorated methods: `self` is bound, the rest is as for functions.

Read by mypy and pyright, never run: `make types`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from carpool import AsyncBatchedFunction, BatchedFunction, Future, batched

if TYPE_CHECKING:
    from typing_extensions import assert_type

T = TypeVar("T")


class Model:
    @batched
    def length(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @batched(max_batch_size=8)
    async def alength(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @batched
    def two(self, words: list[str], counts: list[int]) -> list[float]:
        return [0.0 for _ in words]

    @batched
    def five(
        self, a: list[str], b: list[int], c: list[bytes], d: list[str], e: list[int]
    ) -> list[float]:
        return [0.0 for _ in a]

    @batched
    async def afive(
        self, a: list[str], b: list[int], c: list[bytes], d: list[str], e: list[int]
    ) -> list[float]:
        return [0.0 for _ in a]

    @batched
    def six(
        self, a: list[int], b: list[int], c: list[int], d: list[int], e: list[int], f: list[int]
    ) -> list[str]:
        return ["" for _ in a]

    @batched
    async def by_keyword(self, texts: list[str], *, counts: list[int]) -> list[str]:
        return texts

    @batched(shared=("temperature",))
    def generate(self, prompts: list[str], temperature: float = 1.0) -> list[str]:
        return prompts

    @batched(shared=["mode"])
    async def agenerate(self, prompts: list[str], lengths: list[int], *, mode: str) -> list[bytes]:
        return [b"" for _ in prompts]

    @staticmethod
    @batched
    def static(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @batched
    @staticmethod
    def static_inside(texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @staticmethod
    @batched
    async def astatic(texts: list[str], counts: list[int]) -> list[int]:
        return counts

    @classmethod
    @batched
    def of_class(cls, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @batched
    @classmethod
    def of_class_inside(cls, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    @classmethod
    @batched(wait_ms=1)
    async def aof_class(cls, texts: list[str], counts: list[int]) -> list[int]:
        return counts

    def inside(self) -> int:
        return self.length("a") + self.of_class("a") + self.static("a")


async def instance_methods(model: Model) -> None:
    assert_type(model.length, BatchedFunction[[str], int])
    assert_type(model.length("a"), int)
    assert_type(await model.length.acall("a"), int)
    assert_type(model.length.submit("a"), Future[int])
    assert_type(model.length.close(drain=True, timeout=1), bool)

    assert_type(model.alength, AsyncBatchedFunction[[str], int])
    assert_type(await model.alength("a"), int)
    assert_type(await model.alength.acall("a"), int)
    assert_type(model.alength.submit("a"), Future[int])

    assert_type(model.two("a", 1), float)
    assert_type(model.two("a", counts=1), float)
    assert_type(await model.two.acall("a", 1), float)
    assert_type(model.two.submit("a", 1), Future[float])
    assert_type(model.five("a", 1, b"", "d", 5), float)
    assert_type(await model.afive("a", 1, b"", "d", 5), float)
    assert_type(model.afive.submit("a", 1, b"", d="d", e=5), Future[float])

    assert_type(model.six, BatchedFunction[..., str])
    assert_type(model.six(1, 2, 3, 4, 5, f=6), str)
    assert_type(await model.by_keyword("a", counts=1), str)

    named: BatchedFunction[[str, int], float] = model.two
    assert_type(named("a", 1), float)


async def through_the_class(model: Model) -> None:
    assert_type(Model.length(model, "a"), int)
    assert_type(await Model.alength(model, "a"), int)
    assert_type(Model.two(model, "a", 1), float)


async def static_methods(model: Model) -> None:
    assert_type(Model.static, BatchedFunction[[str], int])
    assert_type(model.static, BatchedFunction[[str], int])
    assert_type(Model.static_inside, BatchedFunction[[str], int])
    assert_type(model.static_inside, BatchedFunction[[str], int])
    assert_type(Model.static("a"), int)
    assert_type(await Model.static.acall("a"), int)
    assert_type(await Model.astatic("a", 1), int)
    assert_type(model.astatic.submit("a", 1), Future[int])


async def class_methods(model: Model) -> None:
    assert_type(Model.of_class, BatchedFunction[[str], int])
    assert_type(model.of_class, BatchedFunction[[str], int])
    assert_type(Model.of_class_inside, BatchedFunction[[str], int])
    assert_type(model.of_class_inside, BatchedFunction[[str], int])
    assert_type(Model.of_class("a"), int)
    assert_type(await Model.of_class.acall("a"), int)
    assert_type(await Model.aof_class("a", 1), int)
    assert_type(model.aof_class.submit("a", counts=1), Future[int])


class Narrower(Model):
    """Overriding works as for plain methods, and so does `super()`."""

    @batched
    def length(self, texts: list[str]) -> list[bool]:
        return [super(Narrower, self).length(text) > 0 for text in texts]

    @batched
    async def alength(self, texts: list[str]) -> list[int]:
        return [await super(Narrower, self).alength(text) for text in texts]


def inherited(narrower: Narrower) -> None:
    assert_type(narrower.length("a"), bool)
    assert_type(narrower.two("a", 1), float)
    assert_type(narrower.of_class("a"), int)
    assert_type(Narrower.of_class("a"), int)
    assert_type(Model.length(narrower, "a"), int)


class Same(Generic[T]):
    @batched
    def same(self, items: list[T]) -> list[T]:
        return items

    @batched
    async def both(self, items: list[T], others: list[str]) -> list[tuple[T, str]]:
        return [*zip(items, others, strict=True)]


async def generic(numbers: Same[int]) -> None:
    assert_type(numbers.same, BatchedFunction[[int], int])
    assert_type(numbers.same(1), int)
    assert_type(await numbers.both(1, "a"), tuple[int, str])


class Lengths:
    def __call__(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    def bound(self, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]


def other_callables(handler: Lengths) -> None:
    assert_type(batched(handler), BatchedFunction[[str], int])
    assert_type(batched(handler.bound), BatchedFunction[[str], int])


async def scheduled(model: Model) -> None:
    assert_type(model.length.options(priority=-1, timeout_ms=50)("a"), int)
    assert_type(await model.alength.options(priority=1)("a"), int)
    assert_type(await model.two.options(priority=1).acall("a", 1), float)
    assert_type(model.generate("a", temperature=0.5), str)
    assert_type(model.generate.options(priority=1).submit("a", 0.5), Future[str])
    assert_type(await model.agenerate("a", 1, mode="fast"), bytes)
