"""Submit: how a call becomes a request, what its arguments bind to, where it may be made."""

from __future__ import annotations

import asyncio
import inspect
import sys
from typing import Any

import pytest

from carpool import Batcher, batched
from gates import WAYS, Gate, batched_by


def joined(xs: list[Any], ys: list[Any] = "d", *, zs: list[Any] = "k") -> list[str]:  # type: ignore[assignment]
    """Joins."""
    return [f"{x}{y}{z}" for x, y, z in zip(xs, ys, zs, strict=True)]


def test_bare_and_with_options_decorate_alike() -> None:
    @batched
    def bare(items: list[int]) -> list[int]:
        return [item + 1 for item in items]

    @batched()
    def empty(items: list[int]) -> list[int]:
        return [item + 2 for item in items]

    @batched(max_batch_size=4)
    def optioned(items: list[int]) -> list[int]:
        return [item + 3 for item in items]

    assert (bare(1), empty(1), optioned(1)) == (2, 3, 4)


def test_a_handler_gets_a_list_even_for_one_call() -> None:
    seen: list[Any] = []

    @batched
    def f(items: list[int]) -> list[int]:
        seen.append(items)
        return items

    assert f(7) == 7
    assert seen == [[7]]
    assert type(seen[0]) is list


def test_each_item_is_passed_on_as_the_same_object() -> None:
    item, result = object(), object()
    got: list[object] = []

    @batched
    def f(items: list[object]) -> list[object]:
        got.extend(items)
        return [result]

    assert f(item) is result
    assert got[0] is item


@pytest.mark.parametrize(
    "item", [None, [], [1, 2], (), (1, 2), {}, {"a": 1}, "", b"", 0, ValueError("item"), ValueError]
)
def test_no_value_is_special_as_an_item_or_a_result(item: Any) -> None:
    seen: list[Any] = []

    @batched
    def f(items: list[Any]) -> list[Any]:
        seen.extend(items)
        return [(entry,) for entry in items]

    assert f(item) == (item,)
    assert seen == [item]


@pytest.mark.parametrize(
    "result", [None, [], (1, 2), (), {}, "text", 0, ValueError, NotImplemented, Ellipsis]
)
def test_any_value_but_an_exception_object_is_a_result(result: Any, way: str) -> None:
    async def main() -> None:
        f = batched_by(way, lambda items: [result for _ in items])
        assert await f.acall(1) is result
        assert await f.acall(2) is result

    asyncio.run(main())


# -- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((1,), {}, "1dk"),
        ((1, 2), {}, "12k"),
        ((1,), {"ys": 2}, "12k"),
        ((), {"xs": 1}, "1dk"),
        ((), {"ys": 2, "xs": 1}, "12k"),
        ((1,), {"zs": 3}, "1d3"),
        ((1, 2), {"zs": 3}, "123"),
        ((), {"zs": 3, "ys": 2, "xs": 1}, "123"),
        ((None, None), {"zs": None}, "NoneNoneNone"),
    ],
)
def test_arguments_bind_as_in_a_plain_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], expected: str
) -> None:
    f = batched(joined)
    assert f(*args, **kwargs) == expected
    assert f.submit(*args, **kwargs).result() == expected

    async def main() -> Any:
        return await f.acall(*args, **kwargs)

    assert asyncio.run(main()) == expected


def test_different_spellings_share_a_batch_and_keep_their_own_arguments(gate: Gate) -> None:
    columns: list[Any] = []

    @batched
    def f(xs: list[Any], ys: list[Any] = "d", *, zs: list[Any] = "k") -> list[str]:  # type: ignore[assignment]
        if xs == ["first"]:
            gate.run(xs)
            return ["first"]
        columns.append((xs, ys, zs))
        return joined(xs, ys, zs=zs)

    first = f.submit("first")
    gate.entered()
    futures = [
        f.submit(1),
        f.submit(2, 20),
        f.submit(ys=30, xs=3),
        f.submit(4, zs=400),
        f.submit(5, 50, zs=500),
    ]
    gate.open()
    assert first.result() == "first"
    assert [future.result() for future in futures] == ["1dk", "220k", "330k", "4d400", "550500"]
    assert columns == [([1, 2, 3, 4, 5], ["d", 20, 30, "d", 50], ["k", "k", "k", 400, 500])]
    assert all(type(column) is list for column in columns[0])


def test_a_default_is_the_same_object_for_every_call() -> None:
    default: list[int] = []

    @batched
    def f(xs: list[int], ys: Any = default) -> list[bool]:
        return [y is default for y in ys]

    assert f(1) is True
    assert f(1, []) is False


def test_parameter_names_of_our_own_machinery_are_free() -> None:
    @batched
    def f(
        func: list[int],
        args: list[int],
        name: list[int] = 3,
        self: list[int] = 4,
        timeout: list[int] = 5,
    ) -> list[Any]:  # type: ignore[assignment]
        return list(zip(func, args, name, self, timeout, strict=True))

    assert f(1, 2) == (1, 2, 3, 4, 5)
    assert f(func=1, args=2, name=30, self=40, timeout=50) == (1, 2, 30, 40, 50)


def plain_complaint(function: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(TypeError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


WRONG: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((), {}, "'xs'"),
    ((1, 2, 3), {}, "positional"),
    ((1,), {"nope": 2}, "'nope'"),
    ((1,), {"xs": 2}, "'xs'"),
    ((), {"ys": 2}, "'xs'"),
]


@pytest.mark.parametrize(("args", "kwargs", "named"), WRONG)
@pytest.mark.parametrize("kind", ["call", "submit", "acall"])
def test_wrong_arguments_fail_at_the_call_and_nowhere_else(
    kind: str, args: tuple[Any, ...], kwargs: dict[str, Any], named: str
) -> None:
    f = batched(joined)
    call = {"call": f, "submit": f.submit, "acall": f.acall}[kind]

    async def main() -> str:
        return plain_complaint(call, *args, **kwargs)  # not awaited: the call itself raises

    complaint = asyncio.run(main())
    assert "joined" in complaint
    assert named in complaint
    assert f.stats.submitted == 0
    assert f(1) == "1dk"


def test_wrong_arguments_do_not_touch_the_neighbours(gate: Gate) -> None:
    f = batched(gate.handler)
    before = f.submit("before")
    gate.entered()
    pending = f.submit("pending")
    with pytest.raises(TypeError):
        f.submit("one", "two")
    with pytest.raises(TypeError):
        f()
    gate.open()
    assert before.result() == ("answer", "before")
    assert pending.result() == ("answer", "pending")
    assert gate.items == ["before", "pending"]


def test_a_positional_only_parameter_refuses_its_name() -> None:
    @batched
    def f(xs: list[int], /) -> list[int]:
        return xs

    assert f(1) == 1
    assert "xs" in plain_complaint(f, xs=1)


def test_a_keyword_only_parameter_refuses_its_place() -> None:
    @batched
    def f(*, xs: list[int]) -> list[int]:
        return xs

    assert f(xs=1) == 1
    assert "f()" in plain_complaint(f, 1)
    assert "'xs'" in plain_complaint(f)


# -- when and where ----------------------------------------------------------------------------


def test_acall_submits_at_the_call_not_at_the_await(way: str, new_gate: Any) -> None:
    async def main() -> None:
        gate = new_gate()
        f = batched_by(way, gate)
        first = f.acall("first")
        await gate.aentered()  # nobody awaited it
        second, third = f.acall("second"), f.acall("third")
        assert f.stats.submitted == 3
        gate.open()
        assert await third == ("answer", "third")
        assert await first == ("answer", "first")
        assert await second == ("answer", "second")
        assert gate.items == ["first", "second", "third"]

    asyncio.run(main())


def test_an_async_handler_is_called_like_acall(new_gate: Any) -> None:
    async def main() -> None:
        gate = new_gate()
        gate.open()
        f = batched(gate.ahandler)
        assert await f(1) == ("answer", 1)
        assert await f.acall(2) == ("answer", 2)
        assert await f.submit(3) == ("answer", 3)

    asyncio.run(main())


def test_acall_outside_a_running_loop_says_so() -> None:
    f = batched(joined)
    with pytest.raises(RuntimeError, match="loop"):
        f.acall(1)
    assert f.stats.pending == f.stats.in_flight == 0
    assert f(1) == "1dk"


@pytest.mark.parametrize("executor", ["loop", "thread"])
def test_calling_an_async_function_outside_a_running_loop_says_so(executor: str) -> None:
    @batched(executor=executor)
    async def f(xs: list[int]) -> list[int]:
        return xs

    with pytest.raises(RuntimeError, match="loop"):
        f(1)
    with pytest.raises(RuntimeError, match="loop"):
        f.acall(1)
    assert f.stats.pending == f.stats.in_flight == 0


def test_submit_to_a_loop_executor_without_a_loop_names_the_way_out() -> None:
    @batched
    async def f(xs: list[int]) -> list[int]:
        return xs

    with pytest.raises(RuntimeError, match=r"executor=.thread."):
        f.submit(1)

    async def main() -> int:
        return await f(2)

    assert asyncio.run(main()) == 2


def test_submit_to_an_async_handler_on_its_own_worker_needs_no_loop() -> None:
    @batched(executor="thread")
    async def f(xs: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return [x + 1 for x in xs]

    assert f.submit(1).result(20) == 2


# -- what the decorated function looks like ----------------------------------------------------


def test_it_looks_like_the_function_it_wraps() -> None:
    f = batched(joined)
    assert f.__name__ == "joined"
    assert f.__doc__ == "Joins."
    assert f.__module__ == joined.__module__
    assert f.__qualname__ == joined.__qualname__
    assert f.__wrapped__ is joined
    assert "joined" in repr(f)
    assert inspect.signature(f).parameters.keys() == {"xs", "ys", "zs"}
    assert inspect.signature(f).parameters["ys"].default == "d"
    assert inspect.signature(f).parameters["zs"].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_signature_is_that_of_one_call() -> None:
    @batched
    def f(texts: list[str], counts: list[int]) -> list[float]:
        return [0.0 for _ in texts]

    signature = inspect.signature(f)
    assert "list" not in str(signature), signature
    assert "float" in str(signature.return_annotation)
    assert "str" in str(signature.parameters["texts"].annotation)


def test_a_name_of_its_own() -> None:
    f = batched(joined, name="joiner")
    assert f.name == "joiner"
    assert f.__name__ == "joined"
    assert batched(joined).name == "joined"


def test_only_async_handlers_look_like_coroutine_functions() -> None:
    async def ahandler(xs: list[int]) -> list[int]:
        return xs

    # The mark that inspect knows came with 3.12, where asyncio's own was on its way out.
    is_async = (
        inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
    )
    assert is_async(batched(ahandler))
    assert is_async(batched(ahandler, executor="thread"))
    assert not is_async(batched(joined))


def test_the_undecorated_handler_remains_callable() -> None:
    assert batched(joined).__wrapped__(["a", "b"], ["c", "d"], zs=["e", "f"]) == ["ace", "bdf"]


@pytest.mark.parametrize("way", WAYS)
def test_stacked_callers_of_one_loop_keep_their_order(way: str) -> None:
    async def main() -> None:
        seen: list[int] = []

        def record(items: list[int]) -> list[int]:
            seen.extend(items)
            return [-item for item in items]

        f = batched_by(way, record, max_batch_size=7)
        assert await asyncio.gather(*[f.acall(number) for number in range(100)]) == [
            -number for number in range(100)
        ]
        assert seen == list(range(100))

    asyncio.run(main())


def test_a_batcher_takes_items_by_the_same_three_ways() -> None:
    async def main() -> None:
        with Batcher() as b:
            future = b.submit("s")
            awaitable = b.acall("a")
            batch = b.next_batch()
            assert batch.items == ["s", "a"]
            batch.complete([1, 2])
            assert await future == 1
            assert await awaitable == 2

    asyncio.run(main())
