"""The front door of Modal: `map`, `starmap`, `for_each`, blocking and `.aio`, lazy, ordered or not, with errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from carpool.compat import modal
from gates import Gate, until


@pytest.fixture
def app() -> Iterator[modal.App]:
    made = modal.App("test")
    yield made
    made.stop()


def function_of(app: modal.App, function: Callable[..., Any], **settings: Any) -> modal.Function:
    settings = {"max_batch_size": 4, "wait_ms": 0, **settings}
    return app.function()(modal.batched(**settings)(function))


def add(xs: list[int], ys: list[int]) -> list[int]:
    return [x + y for x, y in zip(xs, ys, strict=True)]


def only_even(items: list[int]) -> list[int]:
    if any(item % 2 for item in items):
        raise ValueError(f"odd: {items}")
    return items


async def some(*values: Any) -> AsyncIterator[Any]:
    for value in values:
        await asyncio.sleep(0)
        yield value


async def list_of(results: Any) -> list[Any]:
    return [result async for result in results]


def test_map_zips_an_iterable_for_each_parameter(app: modal.App, run: Callable[..., Any]) -> None:
    adding = function_of(app, add)
    assert list(adding.map([1, 2, 3], [10, 20, 30])) == [11, 22, 33]
    assert list(adding.map(range(1000), range(1000))) == [2 * n for n in range(1000)]
    assert list(adding.map([1, 2, 3], [10])) == [11]
    assert list(adding.map([1, 2], kwargs={"ys": 5})) == [6, 7]
    assert list(adding.map([], [])) == []
    assert list(adding.map()) == []

    async def main() -> None:
        assert await list_of(adding.map.aio([1, 2], [10, 20])) == [11, 22]
        assert await list_of(adding.map.aio(some(1, 2, 3), [10, 20])) == [11, 22]
        assert await list_of(adding.map.aio(some(1, 2), kwargs={"ys": 5})) == [6, 7]
        assert await list_of(adding.map.aio()) == []
        many = await list_of(adding.map.aio(range(500), range(500)))
        assert many == [2 * n for n in range(500)]

    run(main())
    with pytest.raises(TypeError, match=r"needs the \.aio form"):
        adding.map(some(1), [2])


def test_starmap_takes_tuples(app: modal.App, run: Callable[..., Any]) -> None:
    adding = function_of(app, add)
    assert list(adding.starmap([(1, 300), (2, 200), (3, 100)])) == [301, 202, 103]
    assert list(adding.starmap([(1,), (2,)], kwargs={"ys": 1})) == [2, 3]

    async def main() -> None:
        assert await list_of(adding.starmap.aio([(1, 300), (2, 200)])) == [301, 202]
        assert await list_of(adding.starmap.aio(some((1, 300), (2, 200)))) == [301, 202]

    run(main())


def test_for_each(app: modal.App, run: Callable[..., Any]) -> None:
    seen: list[int] = []

    def note(items: list[int]) -> list[None]:
        seen.extend(items)
        return [None] * len(items)

    noting, failing = function_of(app, note), function_of(app, only_even, max_batch_size=1)
    assert noting.for_each(range(5)) is None
    failing.for_each(range(5), ignore_exceptions=True)
    with pytest.raises(ValueError):
        failing.for_each(range(5))

    async def main() -> None:
        await noting.for_each.aio(some(5, 6))
        await failing.for_each.aio(range(5), ignore_exceptions=True)
        with pytest.raises(ValueError):
            await failing.for_each.aio(range(5))

    run(main())
    assert seen == list(range(7))


def test_errors_end_it_or_are_results(app: modal.App, run: Callable[..., Any]) -> None:
    failing = function_of(app, only_even, max_batch_size=1)

    def check(results: list[Any]) -> None:
        assert [result for result in results if isinstance(result, int)] == [0, 2, 4]
        assert [str(result) for result in results[1::2]] == ["odd: [1]", "odd: [3]"]

    results = failing.map(range(5))
    assert next(results) == 0
    with pytest.raises(ValueError, match="odd"):
        next(results)
    check(list(failing.map(range(5), return_exceptions=True)))
    check(list(failing.starmap([(n,) for n in range(5)], return_exceptions=True)))
    many = list(failing.map(range(5), order_outputs=False, return_exceptions=True))
    assert sum(isinstance(result, ValueError) for result in many) == 2

    async def main() -> None:
        check(await list_of(failing.map.aio(range(5), return_exceptions=True)))
        check(await list_of(failing.starmap.aio([(n,) for n in range(5)], return_exceptions=True)))
        with pytest.raises(ValueError):
            await list_of(failing.map.aio(range(5)))

    run(main())


def test_a_wrong_call_among_many(app: modal.App, run: Callable[..., Any]) -> None:
    adding = function_of(app, add)
    calls: list[Any] = [(1, 2), (1,), (3, 4)]
    results = list(adding.starmap(calls, return_exceptions=True))
    assert (results[0], results[2]) == (3, 7)
    assert isinstance(results[1], modal.InvalidError)
    with pytest.raises(modal.InvalidError):
        list(adding.starmap(calls))

    async def main() -> None:
        results = await list_of(adding.starmap.aio(calls, return_exceptions=True))
        assert isinstance(results[1], modal.InvalidError)

    run(main())


def test_results_in_the_order_of_their_ends(app: modal.App, run: Callable[..., Any]) -> None:
    def held_gate(gate: Gate) -> modal.Function:
        return app.function()(
            modal.concurrent(max_inputs=2)(
                modal.batched(max_batch_size=1, wait_ms=0)(
                    lambda items: gate.run(items) if items == [0] else items
                )
            )
        )

    gate = Gate()
    results = held_gate(gate).map(range(3), order_outputs=False)
    assert sorted([next(results), next(results)]) == [1, 2]
    gate.open()
    assert list(results) == [("answer", 0)]

    async def main() -> None:
        gate = Gate()
        results = held_gate(gate).map.aio(range(3), order_outputs=False)
        assert sorted([await anext(results), await anext(results)]) == [1, 2]
        gate.open()
        assert await list_of(results) == [("answer", 0)]

    run(main())


def test_it_is_lazy_and_bounded(app: modal.App, run: Callable[..., Any]) -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for n in range(10_000):
            read.append(n)
            yield n

    echo = function_of(app, lambda items: items)
    results = echo.map(source())
    assert read == []
    assert next(results) == 0
    assert len(read) <= 50
    for result in results:
        if result == 1000:
            break
    assert len(read) <= 1100

    async def main() -> None:
        read.clear()
        results = echo.map.aio(source())
        assert read == []
        assert await anext(results) == 0
        assert len(read) <= 50
        await results.aclose()

    run(main())


def test_leaving_early_gives_up_the_rest(app: modal.App, gate: Gate) -> None:
    held = function_of(app, gate.handler, max_batch_size=1)
    gate.release(1)
    results: Any = held.map(range(100))
    assert next(results) == ("answer", 0)
    gate.entered(2)
    results.close()
    until(lambda: held.stats.pending == 0)
    gate.open()
    assert held.remote("after") == ("answer", "after")
    assert gate.items == [0, 1, "after"]


def test_an_error_of_the_source(app: modal.App, run: Callable[..., Any]) -> None:
    def source() -> Iterator[int]:
        yield 0
        raise OSError("disk")

    echo = function_of(app, lambda items: items)
    with pytest.raises(OSError, match="disk"):
        list(echo.map(source(), return_exceptions=True))

    async def main() -> None:
        with pytest.raises(OSError, match="disk"):
            await list_of(echo.map.aio(source(), return_exceptions=True))

    run(main())
