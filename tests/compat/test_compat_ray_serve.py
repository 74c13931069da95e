"""The front door of Ray Serve's batching: checks, when batches leave, arguments, errors, setters, pickles."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import sys
import types
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import pytest

import carpool
from carpool.compat import ray_serve
from carpool.compat.ray_serve import RayServeException, batch
from gates import Gate, auntil, run_script

serve: Any = ray_serve

NEVER_S = 1000
"""A wait that no sound test sees the end of."""


@batch(max_batch_size=4, batch_wait_timeout_s=0)
async def doubled(items: list[int]) -> list[int]:
    """Doubles."""
    await asyncio.sleep(0)
    return [item * 2 for item in items]


class Model:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @batch(max_batch_size=4, batch_wait_timeout_s=0)
    async def times(self, items: list[int]) -> list[int]:
        return [item * self.factor for item in items]


def pairs(**settings: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
    @batch(**settings)
    async def pairs_of(a: list[Any], b: list[Any]) -> list[Any]:
        return list(zip(a, b, strict=True))

    made: Any = pairs_of
    return made


# ------------------------------------------------------------------------------------- checks


def test_what_can_be_decorated() -> None:
    @batch
    async def without_parameters() -> None: ...

    class Some:
        @batch
        async def bare(self) -> None: ...

        @batch(max_batch_size=1.0, batch_wait_timeout_s=0)
        async def whole_float(self, items: list[int]) -> list[int]:
            return items

    assert Some().whole_float._get_max_batch_size() == 1


@pytest.mark.parametrize("called", [False, True])
def test_only_async_functions(called: bool) -> None:
    decorate: Any = batch() if called else batch
    with pytest.raises(
        TypeError, match=r"Functions decorated with @serve\.batch must be 'async def'"
    ):
        decorate(lambda items: items)
    with pytest.raises(TypeError, match="can only be used to decorate functions or methods"):
        decorate(3)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"max_batch_size": 0}, ValueError, "max_batch_size must be an integer >= 1, got 0"),
        ({"max_batch_size": 1.1}, TypeError, "max_batch_size must be integer >= 1, got 1.1"),
        ({"max_batch_size": "a"}, TypeError, "max_batch_size must be integer >= 1"),
        ({"batch_wait_timeout_s": -0.1}, ValueError, "must be a float >= 0, got -0.1"),
        ({"batch_wait_timeout_s": "a"}, TypeError, "must be a float >= 0, got a"),
        ({"batch_wait_timeout_s": float("nan")}, ValueError, "must be a float >= 0"),
        (
            {"max_concurrent_batches": 0},
            TypeError,
            "max_concurrent_batches must be an integer >= 1",
        ),
        ({"max_batch_size": True}, TypeError, "max_batch_size must be integer >= 1, got True"),
        ({"max_concurrent_batches": 1.0}, TypeError, "max_concurrent_batches must be an integer"),
        ({"batch_size_fn": 3}, TypeError, "batch_size_fn must be a callable or None"),
    ],
)
def test_settings_are_checked_with_its_texts(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        batch(**settings)


def test_defaults() -> None:
    parameters = inspect.signature(batch).parameters
    defaults = {name: one.default for name, one in parameters.items() if name != "_func"}
    assert defaults == {
        "max_batch_size": 10,
        "batch_wait_timeout_s": 0.01,
        "max_concurrent_batches": 1,
        "batch_size_fn": None,
    }


# ---------------------------------------------------------------------------- when a batch leaves


def test_one_request(run: Callable[..., Any], gate: Gate) -> None:
    gate.open()

    async def main() -> None:
        assert await doubled(21) == 42
        assert await batch(gate.ahandler)(1) == ("answer", 1)
        assert await Model(3).times(4) == 12
        assert await asyncio.create_task(doubled(2)) == 4

    run(main())


def test_a_lone_request_leaves_after_the_timeout(run: Callable[..., Any]) -> None:
    async def main() -> None:
        assert await pairs(batch_wait_timeout_s=0.001)(1, 2) == (1, 2)

    run(main())


@pytest.mark.parametrize("use_class", [False, True])
def test_a_full_batch_leaves_at_once(run: Callable[..., Any], use_class: bool) -> None:
    sizes: list[int] = []

    @batch(max_batch_size=3, batch_wait_timeout_s=NEVER_S)
    async def function(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    class Some:
        @batch(max_batch_size=3, batch_wait_timeout_s=NEVER_S)
        async def method(self, items: list[int]) -> list[int]:
            sizes.append(len(items))
            return items

    async def main() -> None:
        call = Some().method if use_class else function
        assert await asyncio.gather(*map(call, range(9))) == list(range(9))

    run(main())
    assert sizes == [3, 3, 3]


def test_what_came_while_a_batch_ran_leaves_together(run: Callable[..., Any], gate: Gate) -> None:
    held = batch(max_batch_size=100, batch_wait_timeout_s=0)(gate.ahandler)

    async def main() -> None:
        calls = [asyncio.create_task(held(0))]
        await gate.aentered()
        calls += [asyncio.create_task(held(n)) for n in range(1, 20)]
        await auntil(lambda: held._free.stats.pending == 19)
        gate.open()
        await asyncio.gather(*calls)

    run(main())
    assert gate.batches == [[0], list(range(1, 20))]


@pytest.mark.parametrize("most", [1, 3])
def test_max_concurrent_batches(run: Callable[..., Any], gate: Gate, most: int) -> None:
    held = batch(max_batch_size=1, batch_wait_timeout_s=0, max_concurrent_batches=most)(
        gate.ahandler
    )

    async def main() -> None:
        calls = [asyncio.create_task(held(n)) for n in range(6)]
        await gate.aentered(most)
        await auntil(lambda: held._free.stats.pending == 6 - most)
        gate.open()
        await asyncio.gather(*calls)

    run(main())
    assert gate.most_running == most


def test_loops_on_several_threads_share_a_batcher(run: Callable[..., Any]) -> None:
    async def main(start: int) -> list[int]:
        return await asyncio.gather(*(doubled(n) for n in range(start, start + 200)))

    with ThreadPoolExecutor(4) as threads:
        loops = [threads.submit(run, main(1000 * n)) for n in range(4)]
        for n, loop in enumerate(loops):
            assert loop.result(30) == [2 * i for i in range(1000 * n, 1000 * n + 200)]


# ---------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("use_class", [False, True])
@pytest.mark.parametrize("way", ["position", "name", "mixed", "other order", "each its own"])
def test_arguments_bind_by_name(run: Callable[..., Any], way: str, use_class: bool) -> None:
    class Some:
        @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
        async def method(self, a: list[Any], b: list[Any]) -> list[Any]:
            return list(zip(a, b, strict=True))

    call: Any = (
        Some().method if use_class else pairs(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    )
    ways: dict[str, Callable[[], Any]] = {
        "position": lambda: (call("a1", "b1"), call("a2", "b2")),
        "name": lambda: (call(a="a1", b="b1"), call(a="a2", b="b2")),
        "mixed": lambda: (call("a1", b="b1"), call("a2", b="b2")),
        "other order": lambda: (call(b="b1", a="a1"), call(b="b2", a="a2")),
        "each its own": lambda: (call("a1", "b1"), call(b="b2", a="a2")),
    }

    async def main() -> None:
        assert await asyncio.gather(*ways[way]()) == [("a1", "b1"), ("a2", "b2")]

    run(main())


def test_wrong_arguments_fail_their_caller_alone(run: Callable[..., Any]) -> None:
    call = pairs(max_batch_size=1)

    async def main() -> None:
        for wrong in (call(1), call(1, 2, 3), call(1, c=3), call(1, a=2, b=3)):
            with pytest.raises(TypeError, match=r"pairs_of\(\)"):
                await wrong
        assert await call(1, 2) == (1, 2)

    run(main())


def test_calls_that_leave_out_other_parameters_share_no_batch(run: Callable[..., Any]) -> None:
    seen: list[Any] = []

    @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    async def scaled(items: list[int], by: Any = 10, *, plus: Any = 0) -> list[int]:
        seen.append((items, by, plus))
        many = by if isinstance(by, list) else [by] * len(items)
        more = plus if isinstance(plus, list) else [plus] * len(items)
        return [i * b + p for i, b, p in zip(items, many, more, strict=True)]

    async def main() -> None:
        calls = [scaled(1), scaled(2, 3), scaled(3), scaled(4, by=5), scaled(5, plus=1)]
        calls.append(scaled(plus=2, items=6))
        assert await asyncio.gather(*calls) == [10, 6, 30, 20, 51, 62]

    run(main())
    assert seen == [([1, 3], 10, 0), ([2, 4], [3, 5], 0), ([5, 6], 10, [1, 2])]


def test_a_method_through_its_class(run: Callable[..., Any]) -> None:
    class Derived(Model):
        async def twice(self, item: int) -> int:
            return await super().times(item) + await Model.times(self, item)  # type: ignore[call-arg,misc,no-any-return]

    async def main() -> None:
        method: Any = Model.times
        assert await method(Model(3), 4) == 12
        assert await Derived(5).twice(2) == 20

    run(main())


def test_class_methods_and_static_methods(run: Callable[..., Any]) -> None:
    class Some:
        @classmethod
        @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
        async def of_class(cls, items: list[int]) -> list[Any]:
            return [(cls, item) for item in items]

        @staticmethod
        @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
        async def free(items: list[Any]) -> list[Any]:
            return items

    class Derived(Some):
        pass

    async def main() -> None:
        some: Any = Some()
        assert await asyncio.gather(some.of_class(1), Some.of_class(2)) == [(Some, 1), (Some, 2)]
        # What CPython 3.13 makes of it: no binding in between.
        held: Any = vars(Some)["of_class"].__func__
        calls = [types.MethodType(held, Derived)(n) for n in range(2)]
        assert await asyncio.gather(*calls) == [(Derived, 0), (Derived, 1)]
        # An item that is an instance itself is an item all the same.
        assert await asyncio.gather(some.free(some), Some.free(2)) == [some, 2]

    run(main())


def test_what_has_no_name(run: Callable[..., Any]) -> None:
    async def echo(factor: int, items: list[int]) -> list[int]:
        return [item * factor for item in items]

    class Callee:
        async def __call__(self, items: list[int]) -> list[int]:
            return items

    async def main() -> None:
        decorate: Any = batch(max_batch_size=1)
        assert await decorate(functools.partial(echo, 3))(2) == 6
        assert await decorate(Callee())(2) == 2

    run(main())


def test_instances_must_take_weak_references(run: Callable[..., Any]) -> None:
    class Slotted:
        __slots__ = ()

        @batch
        async def echo(self, items: list[int]) -> list[int]:
            return items

    async def main() -> None:
        with pytest.raises(TypeError, match="'__weakref__' to the __slots__ of"):
            await Slotted().echo(1)

    run(main())


def test_instances_do_not_share_a_batch(run: Callable[..., Any]) -> None:
    async def main() -> None:
        two, ten = Model(2), Model(10)
        calls = [two.times(1), ten.times(1), two.times(2), ten.times(2)]
        assert await asyncio.gather(*calls) == [2, 10, 4, 20]

    run(main())


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", [list, tuple])
def test_another_length_is_its_error(run: Callable[..., Any], kind: Any) -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    async def short(items: list[int]) -> Any:
        return kind(items[1:])

    async def main() -> None:
        outcomes = await asyncio.gather(short(1), short(2), return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, RayServeException)
            assert str(outcome) == (
                "Batched function doesn't preserve batch size. The input list has length 2 but the "
                "returned list has length 1."
            )

    run(main())


@pytest.mark.parametrize("output", [None, 3, "a", {1: 2}, {1}])
def test_what_is_no_list_is_its_error(run: Callable[..., Any], output: Any) -> None:
    @batch(max_batch_size=1)
    async def wrong(items: list[int]) -> Any:
        return output

    async def main() -> None:
        with pytest.raises(RayServeException, match="must return a list"):
            await wrong(1)

    run(main())


@pytest.mark.parametrize("error", [ZeroDivisionError("no"), asyncio.CancelledError()])
def test_every_caller_is_told(run: Callable[..., Any], error: BaseException) -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    async def failing(items: list[int]) -> list[int]:
        raise error

    async def main() -> None:
        outcomes: list[Any] = await asyncio.gather(failing(1), failing(2), return_exceptions=True)
        expected = type(error) if isinstance(error, Exception) else carpool.HandlerError
        assert [type(outcome) for outcome in outcomes] == [expected] * 2
        assert len({id(one) for one in [*outcomes, error]}) == 3
        assert all(outcome.__cause__ is error for outcome in outcomes)

    run(main())


def test_an_exception_among_the_results_is_its_caller_s_alone(run: Callable[..., Any]) -> None:
    @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    async def halved(items: list[Any]) -> list[Any]:
        return [item / 2 if item else ValueError("nothing") for item in items]

    async def main() -> None:
        bad, good = await asyncio.gather(halved(0), halved(8), return_exceptions=True)
        assert isinstance(bad, ValueError)
        assert good == 4.0

    run(main())


def test_a_cancelled_request_never_runs(run: Callable[..., Any], gate: Gate) -> None:
    held = batch(max_batch_size=1, batch_wait_timeout_s=0)(gate.ahandler)

    async def main() -> None:
        first = asyncio.create_task(held(1))
        await gate.aentered()
        second, third = asyncio.create_task(held(2)), asyncio.create_task(held(3))
        await auntil(lambda: held._free.stats.pending == 2)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.open()
        assert [await first, await third] == [("answer", 1), ("answer", 3)]

    run(main())
    assert gate.items == [1, 3]


# ------------------------------------------------------------------------------ batch_size_fn


def sized(batches: list[list[int]], fn: Callable[[list[int]], Any], **settings: Any) -> Any:
    @batch(max_batch_size=10, batch_wait_timeout_s=0.001, batch_size_fn=fn, **settings)
    async def handler(items: list[int]) -> list[int]:
        batches.append(items)
        if 7 in items:
            raise LookupError("seven")
        return items

    return handler


def test_sizes_limit_a_batch(run: Callable[..., Any]) -> None:
    batches: list[list[int]] = []
    call = sized(batches, sum)

    async def main() -> None:
        items = [6, 6, 2, 1, 1, 10, 3, 3, 3]
        assert await asyncio.gather(*map(call, items)) == items
        assert await call(items=4) == 4

    run(main())
    assert all(sum(items) <= 10 for items in batches)
    assert [one for items in batches for one in items] == [6, 6, 2, 1, 1, 10, 3, 3, 3, 4]
    assert [6, 2, 1, 1] in batches


def test_more_items_than_the_limit_where_they_are_small(run: Callable[..., Any]) -> None:
    batches: list[list[int]] = []
    call = sized(batches, lambda items: len(items) / 4)

    async def main() -> None:
        await asyncio.gather(*map(call, [0] * 40))

    run(main())
    assert max(map(len, batches)) > 0
    assert sum(map(len, batches)) == 40


def test_an_item_that_is_too_large(run: Callable[..., Any]) -> None:
    batches: list[list[int]] = []
    call = sized(batches, sum)

    async def main() -> None:
        large, small = await asyncio.gather(call(12), call(6), return_exceptions=True)
        assert isinstance(large, RuntimeError)
        assert str(large).startswith("Size of item is greater than max_batch_size. Please increase")
        assert small == 6

    run(main())
    assert batches == [[6]]


def test_a_size_that_is_more_than_the_sum_of_its_parts(run: Callable[..., Any]) -> None:
    batches: list[list[int]] = []

    def padded(items: list[int]) -> int:
        return len(items) * max(items)

    call = sized(batches, padded)

    async def main() -> None:
        items = [1, 1, 5, 2, 2, 7, 1]
        outcomes = await asyncio.gather(*map(call, items), return_exceptions=True)
        assert [one for one in outcomes if not isinstance(one, LookupError)] == [1, 1, 5, 2, 2, 1]
        assert isinstance(outcomes[5], LookupError)

    run(main())
    assert all(padded(items) <= 10 for items in batches)
    assert [7] in batches


def test_an_error_in_the_size_is_its_caller_s_alone(run: Callable[..., Any]) -> None:
    call = sized([], sum)

    async def main() -> None:
        bad, good = await asyncio.gather(call("x"), call(3), return_exceptions=True)
        assert isinstance(bad, TypeError)
        assert good == 3
        assert await call(4) == 4

    run(main())


# ------------------------------------------------------------------------------------ setters


@pytest.mark.parametrize("use_class", [False, True])
def test_setters(run: Callable[..., Any], use_class: bool) -> None:
    sizes: list[int] = []

    class Some:
        @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
        async def method(self, items: list[int]) -> list[int]:
            sizes.append(len(items))
            return items

    @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    async def function(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    async def main() -> None:
        call: Any = Some().method if use_class else function
        assert (call._get_max_batch_size(), call._get_batch_wait_timeout_s()) == (2, NEVER_S)
        await asyncio.gather(call(1), call(2))
        call.set_max_batch_size(3)
        call.set_batch_wait_timeout_s(15_000)
        assert (call._get_max_batch_size(), call._get_batch_wait_timeout_s()) == (3, 15_000)
        await asyncio.gather(call(1), call(2), call(3))
        call.set_max_batch_size(1)
        await asyncio.gather(call(1), call(2))

    run(main())
    assert sizes == [2, 3, 1, 1]


def test_setters_reach_all_instances(run: Callable[..., Any]) -> None:
    sizes: list[int] = []

    class Some:
        @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
        async def method(self, items: list[int]) -> list[int]:
            sizes.append(len(items))
            return items

    async def main() -> None:
        one, two = Some(), Some()
        await asyncio.gather(*(some.method(n) for some in (one, two) for n in range(2)))
        through_instance: Any = one.method
        through_class: Any = Some.method
        other: Any = two.method
        through_instance.set_max_batch_size(3)
        assert other._get_max_batch_size() == through_class._get_max_batch_size() == 3
        await asyncio.gather(*(some.method(n) for some in (one, two) for n in range(3)))
        through_class.set_max_batch_size(1)
        await asyncio.gather(one.method(1), two.method(2), Some().method(3))

    run(main())
    assert sizes == [2, 2, 3, 3, 1, 1, 1]


def test_a_batch_that_is_gathered_keeps_its_settings(run: Callable[..., Any]) -> None:
    sizes: list[int] = []

    @batch(max_batch_size=3, batch_wait_timeout_s=NEVER_S)
    async def echo(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    async def main() -> None:
        first = [asyncio.create_task(echo(n)) for n in range(2)]
        await auntil(lambda: echo._free.stats.pending == 2)
        echo.set_max_batch_size(1)
        echo.set_batch_wait_timeout_s(0)
        third = asyncio.create_task(echo(2))
        await asyncio.gather(*first, third)
        assert await echo(3) == 3

    run(main())
    assert sizes == [3, 1]


def test_setters_with_sizes(run: Callable[..., Any]) -> None:
    batches: list[list[int]] = []
    call = sized(batches, sum)

    async def main() -> None:
        with pytest.raises(RuntimeError):
            await call(12)
        call.set_max_batch_size(20)
        assert await call(12) == 12

    run(main())


def test_setters_check(run: Callable[..., Any]) -> None:
    with pytest.raises(ValueError):
        doubled.set_max_batch_size(0)
    with pytest.raises(TypeError):
        doubled.set_batch_wait_timeout_s("soon")  # type: ignore[arg-type]
    assert doubled._get_max_batch_size() == 4  # type: ignore[attr-defined]


# ----------------------------------------------------------------------- looks, pickles, and Ray


def test_looks() -> None:
    assert (doubled.__name__, doubled.__doc__) == ("doubled", "Doubles.")  # type: ignore[attr-defined]
    assert asyncio.iscoroutinefunction(doubled)
    assert inspect.iscoroutinefunction(Model(1).times)
    assert inspect.ismethod(Model(1).times)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=lambda one: one.__name__)
def test_pickles(run: Callable[..., Any], pickler: Any) -> None:
    assert pickle.loads(pickler.dumps(doubled)) is doubled
    again = pickle.loads(pickler.dumps(Model(3).times))

    async def main() -> None:
        assert await again(5) == 15

    run(main())


def test_what_has_no_place_travels_to_a_replica() -> None:
    class Deployment:
        @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
        async def handle(self, items: list[int]) -> list[int]:
            return [item + 1 for item in items]

    handle: Any = Deployment.handle
    handle.set_max_batch_size(1)
    said = run_script(f"""
import pickle
Deployment = pickle.loads(bytes.fromhex({cloudpickle.dumps(Deployment).hex()!r}))
async def main():
    say(Deployment.handle._get_max_batch_size(), await Deployment().handle(1))
asyncio.run(main())
""")
    assert said == ["1 2"]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What this front door touches of Ray, where that is loaded."""
    context, errors = types.ModuleType("ray.serve.context"), types.ModuleType("errors")
    fake: Any = types.SimpleNamespace(model="", shown=[])
    vars(context)["_get_serve_request_context"] = lambda: types.SimpleNamespace(
        multiplexed_model_id=fake.model
    )
    vars(context)["_set_batch_request_context"] = lambda contexts: fake.shown.append(
        [one.multiplexed_model_id for one in contexts]
    )
    fake.error = type("RayServeException", (Exception,), {})
    vars(errors)["RayServeException"] = fake.error
    monkeypatch.setitem(sys.modules, "ray.serve.context", context)
    monkeypatch.setitem(sys.modules, "ray.serve.exceptions", errors)
    return fake


def test_models_share_no_batch(run: Callable[..., Any], ray: Any) -> None:
    batches: list[list[int]] = []

    @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    async def echo(items: list[int]) -> list[int]:
        batches.append(items)
        return items

    async def main() -> None:
        calls = []
        for n, model in enumerate("abab"):
            ray.model = model
            calls.append(asyncio.create_task(echo(n)))
            await asyncio.sleep(0)
        await asyncio.gather(*calls)

    run(main())
    assert sorted(batches) == [[0, 2], [1, 3]]
    assert sorted(ray.shown) == [["a", "a"], ["b", "b"]]


def test_its_error_is_ray_s_too(run: Callable[..., Any], ray: Any) -> None:
    @batch(max_batch_size=1)
    async def short(items: list[int]) -> list[int]:
        return []

    async def main() -> None:
        with pytest.raises(ray.error) as caught:
            await short(1)
        assert isinstance(caught.value, RayServeException)

    run(main())


def test_the_rest_is_ray_s(monkeypatch: pytest.MonkeyPatch) -> None:
    package, rest = types.ModuleType("ray"), types.ModuleType("ray.serve")
    vars(package)["serve"] = rest
    vars(rest)["start"] = start = object()
    monkeypatch.setitem(sys.modules, "ray", package)
    assert serve.batch is batch
    assert serve.start is start
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AttributeError, match=r"ray_serve\.run is Ray's own"):
        _ = serve.run


@pytest.mark.parametrize("called", [False, True])
def test_deployments_of_functions_are_plain_functions(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, called: bool
) -> None:
    package, rest = types.ModuleType("ray"), types.ModuleType("ray.serve")

    def deployment(_func_or_class: Any = None, **options: Any) -> Any:
        if _func_or_class is None:
            return lambda given: (given, options)
        return _func_or_class, options

    vars(package)["serve"], vars(rest)["deployment"] = rest, deployment
    monkeypatch.setitem(sys.modules, "ray", package)
    decorate = serve.deployment(num_replicas=2) if called else serve.deployment

    @batch(max_batch_size=2, batch_wait_timeout_s=NEVER_S)
    async def plus_one(items: list[int]) -> list[int]:
        return [item + 1 for item in items]

    @batch(max_batch_size=1)
    async def steps(items: list[int]) -> Any:
        yield items

    given, options = decorate(plus_one)
    assert inspect.isfunction(given)
    assert inspect.iscoroutinefunction(given)
    assert given.__name__ == "plus_one"
    assert options == ({"num_replicas": 2} if called else {})
    streamed, _ = decorate(steps)
    assert inspect.isfunction(streamed)
    assert decorate(Model)[0] is Model
    again = pickle.loads(cloudpickle.dumps(given))

    async def main() -> None:
        given.set_max_batch_size(1)
        assert await given(1) == 2
        assert await asyncio.gather(again(2), again(3)) == [3, 4]
        assert inspect.isasyncgen(streamed(1))
        assert [step async for step in streamed(1)] == [1]

    run(main())


def test_looking_the_module_over_imports_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    package, rest = types.ModuleType("ray"), types.ModuleType("ray.serve")
    vars(package)["serve"], vars(rest)["_run"] = rest, (run := object())
    monkeypatch.setitem(sys.modules, "ray", package)
    monkeypatch.delitem(sys.modules, "ray.serve", raising=False)
    for name in ("_run", "_pytestfixturefunction", "__wrapped__"):
        assert not hasattr(serve, name)
    # What a program that has loaded Ray asks for is Ray's own, all the same.
    monkeypatch.setitem(sys.modules, "ray.serve", rest)
    assert serve._run is run


@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.timeout(180)
def test_inside_a_deployment() -> None:
    pytest.importorskip("ray.serve")

    @serve.deployment(ray_actor_options={"num_cpus": 0.1})
    class Deployment:
        def __init__(self) -> None:
            self.batches: list[Any] = []

        @serve.batch(max_batch_size=4, batch_wait_timeout_s=0.5)
        async def handle(self, items: list[int]) -> list[int]:
            self.batches.append((serve.get_multiplexed_model_id(), items))
            return [item * 2 for item in items]

        @serve.batch(max_batch_size=2, batch_wait_timeout_s=0.1)
        async def steps(self, items: list[int]) -> Any:
            for step in range(3):
                yield [item + step for item in items]

        @serve.multiplexed(max_num_models_per_replica=3)
        async def load(self, model: str) -> str:
            return model

        async def __call__(self, item: int) -> int:
            await self.load(serve.get_multiplexed_model_id())
            return await self.handle(item)  # type: ignore[no-any-return]

        async def stream(self, item: int) -> Any:
            async for step in self.steps(item):
                yield step

        async def whole(self, item: int) -> Any:
            return self.steps(item)

        def resize(self, size: int) -> int:
            self.handle.set_max_batch_size(size)
            return self.handle._get_max_batch_size()  # type: ignore[no-any-return]

        def seen(self) -> list[Any]:
            return self.batches

    @serve.deployment(ray_actor_options={"num_cpus": 0.1})
    @serve.batch(max_batch_size=3, batch_wait_timeout_s=0.05)
    async def tenfold(items: list[int]) -> list[int]:
        return [10 * item for item in items]

    handle = serve.run(Deployment.bind())
    try:
        function = serve.run(tenfold.bind(), name="tenfold", route_prefix="/tenfold")
        outcomes = [function.remote(n) for n in range(3)]
        assert [outcome.result() for outcome in outcomes] == [0, 10, 20]
        models = ["a", "b"] * 4
        answers = [
            handle.options(multiplexed_model_id=model).remote(n) for n, model in enumerate(models)
        ]
        assert [answer.result() for answer in answers] == [2 * n for n in range(8)]
        seen = handle.seen.remote().result()
        assert {(model, item % 2) for model, items in seen for item in items} == {
            ("a", 0),
            ("b", 1),
        }
        assert max(len(items) for _, items in seen) > 1
        for name in ("stream", "whole"):
            ask = getattr(handle.options(stream=True), name).remote
            assert [list(stream) for stream in [ask(10 * n) for n in range(2)]] == [
                [0, 1, 2],
                [10, 11, 12],
            ]
        # The batched method itself, as in the tutorial.
        direct = [handle.handle.remote(n) for n in range(4)]
        assert [answer.result() for answer in direct] == [0, 2, 4, 6]
        assert handle.seen.remote().result()[-1] == ("", [0, 1, 2, 3])
        assert handle.resize.remote(1).result() == 1
        assert [answer.result() for answer in [handle.handle.remote(n) for n in range(2)]] == [0, 2]
        assert [items for _, items in handle.seen.remote().result()[-2:]] == [[0], [1]]
    finally:
        serve.shutdown()
