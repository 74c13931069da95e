"""Handler: what it may return, what becomes of what it raises, and the context it runs in."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from carpool import BatchLengthError, HandlerError, batched
from gates import Gate, batched_by, in_thread


def outcomes(
    way: str, handler: Callable[[list[Any]], Any], callers: int = 3
) -> tuple[list[Any], Any]:
    """Let so many callers share one batch of this handler; then prove that it still serves."""

    async def main() -> tuple[list[Any], Any]:
        healthy = False
        f = batched_by(
            way,
            lambda items: items if healthy else handler(items),
            max_batch_size=callers,
            wait_ms=3_600_000,
        )
        calls = [f.acall(number) for number in range(callers)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert f.stats.batches == 1
        healthy = True
        assert await asyncio.gather(*[f.acall(number) for number in range(callers)]) == list(
            range(callers)
        )
        assert f.healthy
        return results, f

    return asyncio.run(main())


# -- rows --------------------------------------------------------------------------------------


class Rows(Sequence[Any]):
    def __getitem__(self, index: Any) -> Any:
        return ["a", "b", "c"][index]

    def __len__(self) -> int:
        return 3


class Indexed:
    """Not a Sequence, but with a length and integer indices."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> str:
        return "abc"[index]


@pytest.mark.parametrize(
    "rows",
    [
        ["a", "b", "c"],
        ("a", "b", "c"),
        collections.deque("abc"),
        collections.UserList("abc"),
        Rows(),
        Indexed(),
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_anything_with_a_length_and_places_is_rows(way: str, rows: Any) -> None:
    assert outcomes(way, lambda items: rows)[0] == ["a", "b", "c"]


class Endless:
    """Its places go on for ever, as those of a ring or a lazy data set do."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> str:
        return "abc"[index % 3]


def test_rows_are_taken_by_their_places_and_no_further(way: str) -> None:
    assert outcomes(way, lambda items: Endless())[0] == ["a", "b", "c"]


def test_a_handler_may_use_up_the_list_it_is_given(way: str) -> None:
    def handler(items: list[int]) -> list[int]:
        results = []
        while items:
            results.append(items.pop(0) + 1)
        return results

    assert outcomes(way, handler)[0] == [1, 2, 3]


def test_a_range_is_rows(way: str) -> None:
    assert outcomes(way, lambda items: range(10, 13))[0] == [10, 11, 12]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (None, "None"),
        (3, "int"),
        ("abc", "str"),
        (b"abc", "bytes"),
        ({0: 1, 1: 2, 2: 3}, "dict"),
        ({1, 2, 3}, "set"),
        (frozenset({1, 2, 3}), "frozenset"),
        (iter([1, 2, 3]), "iterator"),
        ((x for x in [1, 2, 3]), "generator"),
        (object(), "object"),
        (ValueError("a"), "ValueError"),
        ({0: 1}.values(), "dict_values"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_result_of_a_wrong_kind_fails_all_and_is_named(way: str, wrong: Any, named: str) -> None:
    errors, _ = outcomes(way, lambda items: wrong)
    assert [type(error) for error in errors] == [BatchLengthError] * 3
    assert all(named in str(error) for error in errors)
    assert len({id(error) for error in errors}) == 3


@pytest.mark.parametrize("number", [0, 1, 2, 4, 77])
def test_a_wrong_length_fails_all_and_names_both_numbers(way: str, number: int) -> None:
    errors, f = outcomes(way, lambda items: ["x"] * number)
    assert [type(error) for error in errors] == [BatchLengthError] * 3
    for error in errors:
        assert "3" in str(error)
        assert str(number) in str(error)
    assert (f.stats.failed, f.stats.answered) == (3, 3)


class Boastful(list[str]):
    """A list that says another length than it has."""

    def __len__(self) -> int:
        return 3


def test_a_length_that_is_not_kept_fails_all_and_names_both_numbers(way: str) -> None:
    errors, _ = outcomes(way, lambda items: Boastful("abcde"))
    assert [type(error) for error in errors] == [BatchLengthError] * 3
    assert all("5 rows" in str(error) and "3 requests" in str(error) for error in errors)


def test_the_error_names_the_function() -> None:
    @batched
    def embed_all(items: list[int]) -> Any:
        return None

    with pytest.raises(BatchLengthError, match="embed_all"):
        embed_all(1)


class Treacherous:
    """A result whose own methods fail."""

    def __init__(self, where: str, error: BaseException) -> None:
        self.where, self.error = where, error

    def __len__(self) -> int:
        if self.where == "len":
            raise self.error
        return 3

    def __getitem__(self, index: int) -> str:
        if self.where == "getitem" or index == self.where:
            raise self.error
        return "abc"[index]


@pytest.mark.parametrize("where", ["len", "getitem", 0, 2])
@pytest.mark.parametrize(
    "error", [ValueError("treason"), KeyboardInterrupt(), StopIteration()], ids=repr
)
def test_a_result_that_fails_when_looked_at_leaves_nobody_waiting(
    way: str, where: Any, error: BaseException
) -> None:
    results, _ = outcomes(way, lambda items: Treacherous(where, error))
    assert len(results) == 3
    failed = [result for result in results if isinstance(result, Exception)]
    assert failed
    # Each either has its own row or knows that there is none; nobody has a neighbour's.
    assert all(
        isinstance(result, Exception) or result == "abc"[place]
        for place, result in enumerate(results)
    )


# -- exceptions in places ----------------------------------------------------------------------


def test_an_exception_in_a_place_fails_that_caller_alone(way: str) -> None:
    results, f = outcomes(way, lambda items: ["a", LookupError("b", 2), "c"])
    assert results[0] == "a"
    assert results[2] == "c"
    assert type(results[1]) is LookupError
    assert results[1].args == ("b", 2)
    assert (f.stats.answered, f.stats.failed) == (5, 1)


def test_one_exception_in_several_places_is_private_to_each(way: str) -> None:
    shared = LookupError("shared")
    results, _ = outcomes(way, lambda items: [shared] * 3)
    assert [type(result) for result in results] == [LookupError] * 3
    assert len({id(result) for result in results}) == 3


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt("k"),
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopIteration(5),
        StopAsyncIteration(),
    ],
    ids=repr,
)
def test_what_no_caller_should_meet_raw_is_wrapped_in_its_place_too(
    way: str, error: BaseException
) -> None:
    results, _ = outcomes(way, lambda items: ["a", error, "c"])
    assert (results[0], results[2]) == ("a", "c")
    assert type(results[1]) is HandlerError
    assert results[1].__cause__ is error


def test_an_exception_class_is_a_value(way: str) -> None:
    assert outcomes(way, lambda items: [ValueError, KeyError, None])[0] == [
        ValueError,
        KeyError,
        None,
    ]


# -- what it raises ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt("k"),
        SystemExit(3),
        GeneratorExit("g"),
        asyncio.CancelledError("c"),
        StopIteration(5),
        StopAsyncIteration(6),
    ],
    ids=repr,
)
def test_what_no_caller_should_meet_raw_is_wrapped(way: str, error: BaseException) -> None:
    def handler(items: list[Any]) -> Any:
        raise error

    errors, f = outcomes(way, handler)
    assert f.stats.failed == 3
    if isinstance(error, StopIteration) and way in ("loop", "thread-async"):
        assert [type(one) for one in errors] == [
            RuntimeError
        ] * 3  # Python's own doing in a coroutine
        return
    assert [type(one) for one in errors] == [HandlerError] * 3
    assert len({id(one) for one in errors}) == 3
    assert all(one.__cause__ is error for one in errors)


def test_a_handler_that_raises_an_error_of_ours_is_no_exception_to_the_rule(way: str) -> None:
    original = BatchLengthError("the user's own")

    def handler(items: list[Any]) -> Any:
        raise original

    errors, _ = outcomes(way, handler)
    assert all(
        type(one) is BatchLengthError and one is not original and one.__cause__ is original
        for one in errors
    )


# -- rows of arrays and tensors ----------------------------------------------------------------


def test_rows_of_an_array_are_copies(way: str) -> None:
    numpy = pytest.importorskip("numpy")
    made = []

    def handler(items: list[int]) -> Any:
        made.append(numpy.arange(12, dtype="float32").reshape(3, 4))
        return made[-1]

    async def main() -> list[Any]:
        f = batched_by(way, handler, max_batch_size=3, wait_ms=3_600_000)
        return await asyncio.gather(*[f.acall(number) for number in range(3)])

    rows = asyncio.run(main())
    made[0][:] = -1
    assert [row.tolist() for row in rows] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    for row in rows:
        assert type(row) is numpy.ndarray
        assert row.dtype == numpy.dtype("float32")
        assert row.base is None  # a view would keep the whole batch alive
        assert not numpy.shares_memory(row, made[0])


def test_rows_of_arrays_of_other_kinds() -> None:
    numpy = pytest.importorskip("numpy")
    results: list[Any] = [
        numpy.array([1.5]),
        numpy.array([["x", "yz"]]),
        numpy.array([None], dtype=object),
        numpy.zeros((1, 2, 3)),
        numpy.array([True]),
    ]
    f = batched(lambda items: results[items[0]], max_batch_size=1)
    assert f(0) == 1.5
    assert f(1).tolist() == ["x", "yz"]
    assert f(2) is None
    assert f(3).shape == (2, 3)
    assert bool(f(4)) is True


def test_rows_of_a_structured_array_are_copies_too() -> None:
    numpy = pytest.importorskip("numpy")
    made = numpy.array([(1, 0.5), (2, 1.5), (3, 2.5)], dtype=[("n", "i4"), ("x", "f8")])
    rows, _ = outcomes("thread", lambda items: made)
    made["n"] = -1
    assert [row["n"] for row in rows] == [1, 2, 3]
    assert [row["x"] for row in rows] == [0.5, 1.5, 2.5]


@pytest.mark.parametrize("shape", [(), (2,), (4, 3), (0, 3)])
def test_an_array_of_a_wrong_length_is_refused(shape: tuple[int, ...]) -> None:
    numpy = pytest.importorskip("numpy")
    errors, _ = outcomes("thread", lambda items: numpy.zeros(shape))
    assert [type(error) for error in errors] == [BatchLengthError] * 3


def test_rows_of_a_tensor_are_copies() -> None:
    torch = pytest.importorskip("torch")
    made = torch.arange(12.0).reshape(3, 4)
    rows, _ = outcomes("thread", lambda items: made)
    made.fill_(-1)
    assert [row.tolist() for row in rows] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    for row in rows:
        assert type(row) is torch.Tensor
        assert row.untyped_storage().nbytes() == 4 * 4
        assert row.untyped_storage().data_ptr() != made.untyped_storage().data_ptr()


# -- the context it runs in --------------------------------------------------------------------

TAG: contextvars.ContextVar[str] = contextvars.ContextVar("TAG", default="nobody's")


@pytest.mark.parametrize("way", ["thread", "thread-async", "loop"])
def test_no_caller_s_context_reaches_the_handler(way: str) -> None:
    seen: list[str] = []

    def handler(items: list[Any]) -> list[Any]:
        seen.append(TAG.get())
        return items

    async def caller(f: Any, number: int) -> None:
        TAG.set(f"caller {number}")
        assert await f.acall(number) == number
        assert TAG.get() == f"caller {number}"

    async def main() -> None:
        f = batched_by(way, handler, max_batch_size=2)
        await asyncio.gather(*[caller(f, number) for number in range(10)])

    asyncio.run(main())
    assert set(seen) == {"nobody's"}


def test_what_the_handler_sets_stays_with_it(way: str) -> None:
    def handler(items: list[Any]) -> list[Any]:
        TAG.set("the handler's")
        return items

    async def main() -> None:
        TAG.set("caller's")
        f = batched_by(way, handler)
        for number in range(3):
            assert await f.acall(number) == number
            assert TAG.get() == "caller's"

    asyncio.run(main())


def test_the_handler_s_context_does_not_reach_a_blocked_caller() -> None:
    def handler(items: list[Any]) -> list[Any]:
        TAG.set("the handler's")
        return items

    f = batched(handler)

    def call() -> str:
        TAG.set("mine")
        f(1)
        return TAG.get()

    assert in_thread(contextvars.copy_context().run, call).result(20) == "mine"


def test_a_sync_handler_keeps_the_loop_free(run: Callable[..., Any], gate: Gate) -> None:
    async def main() -> None:
        f = batched(gate.handler)
        waiting = asyncio.ensure_future(f.acall("a"))
        await gate.aentered()
        for _ in range(100):
            await asyncio.sleep(0)  # the loop turns while the handler is held
        assert not waiting.done()
        assert gate.threads[0] != threading.get_ident()
        gate.open()
        assert await waiting == ("answer", "a")

    run(main())


def test_an_async_handler_may_await_on_its_loop() -> None:
    async def main() -> None:
        own = asyncio.get_running_loop()

        @batched
        async def f(items: list[int]) -> list[int]:
            assert asyncio.get_running_loop() is own
            await asyncio.gather(*[asyncio.sleep(0) for _ in items])
            return [item + 1 for item in items]

        assert await asyncio.gather(*[f(number) for number in range(5)]) == [1, 2, 3, 4, 5]

    asyncio.run(main())


def test_an_async_handler_on_a_worker_keeps_one_loop_for_all_its_batches() -> None:
    loops: list[Any] = []
    threads: list[int] = []

    @batched(executor="thread", max_batch_size=1)
    async def f(items: list[int]) -> list[int]:
        loops.append(asyncio.get_running_loop())
        threads.append(threading.get_ident())
        await asyncio.sleep(0)
        return items

    async def main() -> None:
        assert await asyncio.gather(*[f(number) for number in range(5)]) == list(range(5))
        assert asyncio.get_running_loop() not in loops

    asyncio.run(main())
    asyncio.run(main())
    futures: list[Future[int]] = [f.submit(number) for number in range(5)]
    assert [future.result(20) for future in futures] == list(range(5))
    assert len({id(loop) for loop in loops}) == 1
    assert set(threads) != {threading.get_ident()}
    assert len(set(threads)) == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.TaskGroup came with 3.11")
@pytest.mark.parametrize("executor", ["loop", "thread"])
def test_an_async_handler_may_use_groups_and_time_limits(executor: str) -> None:
    async def main() -> None:
        async def handler(items: list[int]) -> list[int]:
            async def twice(item: int) -> int:
                await asyncio.sleep(0)
                return item * 2

            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                made = [group.create_task(twice(item)) for item in items]
            return [one.result() for one in made]

        f = batched(handler, executor=executor)
        assert await asyncio.gather(*[f(number) for number in range(5)]) == [0, 2, 4, 6, 8]

    asyncio.run(main())


def test_a_handler_may_be_any_callable() -> None:
    class Model:
        def __call__(self, items: list[int]) -> list[int]:
            return [item + 1 for item in items]

        def embed(self, items: list[int]) -> list[int]:
            return [item + 2 for item in items]

    def rows(items: list[int]) -> Iterator[int]:
        return iter(items)

    assert batched(Model())(1) == 2
    assert batched(Model().embed)(1) == 3
    assert batched(len, name="length").name == "length"
    assert batched(lambda items: [item * 2 for item in items])(4) == 8
    with pytest.raises(BatchLengthError, match="iterator"):
        batched(rows)(1)
