"""Views: `f.options(...)` gives the same function, batcher and ways of calling, with options for single calls."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import picklable
from carpool import AsyncBatchedFunction, BatchedFunction, Batcher, DeadlineExceeded, batched
from gates import Gate, batched_by, run_script, until


def plain(items: list[Any]) -> list[Any]:
    return items


def test_a_view_shares_everything(gate: Gate) -> None:
    gate.open()
    f = batched(gate.handler, max_batch_size=4, name="shared")
    view = f.options(priority=-1)
    assert isinstance(view, BatchedFunction)
    assert view(1) == f(1) == ("answer", 1)
    assert view.submit(2).result(20) == ("answer", 2)
    assert asyncio.run(awaited(view, 3)) == ("answer", 3)
    until(lambda: f.stats.answered == 4)
    assert view.stats == f.stats
    assert view.name == "shared"
    assert view.healthy
    assert view.__wrapped__ is f.__wrapped__
    assert inspect.signature(view) == inspect.signature(f)
    assert view.close()
    assert not f.healthy


async def awaited(f: Any, item: Any) -> Any:
    return await f.acall(item)


def test_both_go_into_one_batch(gate: Gate, way: str, run: Callable[..., Any]) -> None:
    async def main() -> None:
        f = batched_by(way, gate)
        first = asyncio.ensure_future(f.acall("first"))
        await gate.aentered()
        calls = [asyncio.ensure_future(one.acall(n)) for n, one in enumerate([f, f.options()] * 3)]
        calls.append(asyncio.ensure_future(f.options(timeout_ms=10**6).acall(6)))
        gate.open()
        await asyncio.gather(first, *calls)
        assert gate.batches == [["first"], [0, 1, 2, 3, 4, 5, 6]]

    run(main())


def test_what_is_not_given_stays(gate: Gate) -> None:
    f = batched(gate.handler, max_batch_cost=10, cost=len, key=len, timeout_ms=10**7)
    f.submit("first")
    gate.entered()
    view = f.options(priority=5).options(timeout_ms=0)
    with pytest.raises(DeadlineExceeded):
        view("late")
    later = view.options(timeout_ms=None, key="all", priority=-1)
    ends = [later.submit("aaa"), later.submit("bb"), f.submit("cc")]
    gate.open()
    for one in ends:
        one.result(20)
    assert gate.batches == [["first"], ["aaa", "bb"], ["cc"]]


def test_views_of_coroutine_functions(run: Callable[..., Any]) -> None:
    @batched
    async def f(items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return items

    view = f.options(priority=1)
    assert isinstance(view, AsyncBatchedFunction)
    assert inspect.iscoroutinefunction(view) == inspect.iscoroutinefunction(f)

    async def main() -> None:
        assert await view(1) == 1
        assert await view.acall(2) == 2
        assert await view.submit(3) == 3

    run(main())


class Model:
    def __init__(self, scale: int) -> None:
        self.scale = scale

    @batched(max_batch_size=8)
    def run(self, items: list[int]) -> list[int]:
        return [self.scale * item for item in items]

    soon = run.options(priority=-1)

    @classmethod
    @batched
    def of_class(cls, items: list[int]) -> list[int]:
        return items

    @batched
    @staticmethod
    def static(items: list[int]) -> list[int]:
        return items

    static_soon = static.options(priority=-1)


def test_views_of_methods() -> None:
    one, two = Model(2), Model(3)
    assert one.run.options(priority=-1)(5) == 10
    assert two.run.options(timeout_ms=10**6).submit(5).result(20) == 15
    assert asyncio.run(awaited(two.run.options(priority=1), 5)) == 15
    assert Model.run.options(priority=1)(one, 5) == 10
    assert Model.run.options(priority=1).submit(two, 5).result(20) == 15
    assert (one.soon(5), two.soon(5), Model.soon(one, 5)) == (10, 15, 10)
    until(lambda: one.run.stats.answered == 4)
    assert one.soon.stats == one.run.stats
    assert two.run.stats.submitted == 4
    assert Model.static.options(priority=1)(1) == 1
    assert Model.static_soon(1) == one.static_soon(1) == 1


def test_the_name_of_a_view_is_not_that_of_its_method() -> None:
    assert Model.run._plan.attribute == "run"


def test_a_view_keeps_the_instance_and_the_instance_no_view() -> None:
    model = Model(2)
    view = model.run.options(priority=1)
    gone = weakref.ref(model)
    assert view(1) == 2
    del model
    gc.collect()
    assert view(1) == 2
    del view

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    until(is_gone)


def test_views_are_collected(gate: Gate) -> None:
    gate.open()
    f = batched(gate.handler)

    def used_in_a_circle() -> weakref.ref[Any]:
        view: Any = f.options(key=lambda item: view and None)  # the key knows its view
        assert view(1) == ("answer", 1)
        return weakref.ref(view)

    gone = used_in_a_circle()

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    until(is_gone)
    assert f(2) == ("answer", 2)


def test_views_pickle_with_their_options() -> None:
    view = picklable.double.options(priority=-1, timeout_ms=None)
    again = pickle.loads(pickle.dumps(view))
    assert again(4) == 8
    assert again._given == view._given
    assert again._base is picklable.double
    model = picklable.Model(3)
    again = pickle.loads(pickle.dumps(model.embed.options(priority=2)))
    assert again(5) == 15
    assert again._given.given() == {"priority": 2}
    again = copy.deepcopy(picklable.double.options(priority=1))
    assert again(4) == 8


def test_scheduling_options_travel_with_the_function() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")

    @batched(max_batch_cost=5, cost=len, key=lambda text: text[0], timeout_ms=10**6, age_ms=7)
    def f(texts: list[str]) -> list[str]:
        return texts

    text = cloudpickle.dumps([f, f.options(priority=3, cost=1)]).hex()
    said = run_script(f"""
import pickle
from carpool import RequestTooLarge
f, view = pickle.loads(bytes.fromhex({text!r}))
say(f("abc"), view("abcdefgh"), view._given.given())
try:
    f("abcdefgh")
except RequestTooLarge:
    say(f._plan.options.age_ms, f._plan.options.timeout_ms)
""")
    assert said == ["abc abcdefgh {'priority': 3, 'cost': 1}", "7 1000000"]


def test_the_repr_shows_what_was_given() -> None:
    f = batched(plain, name="shown")
    assert repr(f.options(priority=-1, timeout_ms=50)).endswith(
        "shown with priority=-1, timeout_ms=50>"
    )
    assert repr(f.options()) == repr(f)
    with Batcher[Any, Any](name="shown") as batcher:
        assert repr(batcher.options(priority=-1)) == f"<{batcher!r} with priority=-1>"


# ------------------------------------------------------------------------------------------ of batchers


def test_a_view_of_a_batcher() -> None:
    with Batcher[Any, Any](max_batch_size=8) as batcher:
        view = batcher.options(priority=-1)
        first = batcher.submit("a")
        second = view.submit("b")
        third = view.options(key="alone", priority=1).submit("c")
        batch = batcher.next_batch(block=False)
        assert batch is not None
        assert batch.items == ["b", "a"]
        batch.complete(batch.items)
        assert (first.result(0), second.result(0)) == ("a", "b")
        batch = batcher.next_batch(block=False)
        assert batch is not None
        batch.complete(batch.items)
        assert third.result(0) == "c"
        assert not hasattr(view, "close")

        async def main() -> None:
            call = asyncio.ensure_future(view.acall("d"))
            batch = await batcher.anext_batch()
            assert batch is not None
            batch.complete(batch.items)
            assert await call == "d"

        asyncio.run(main())


def test_a_view_keeps_its_batcher_open() -> None:
    view = Batcher[Any, Any]().options(priority=1)
    gc.collect()
    future = view.submit("a")
    assert view._base is not None
    batcher: Any = view._base
    batcher.next_batch(block=False).complete(["answer"])
    assert future.result(0) == "answer"
    batcher.close()


def test_a_batcher_s_view_pickles() -> None:
    with Batcher[Any, Any](max_batch_cost=5, cost=len, timeout_ms=10**6, name="n") as batcher:
        view = pickle.loads(pickle.dumps(batcher.options(priority=-1)))
        assert view._base is not batcher
        assert view._base._station.options == batcher._station.options
        assert view._given.given() == {"priority": -1}
        view._base.close()


# -------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("unknown", "hint"),
    [
        ("prioritiy", "'priority'"),
        ("timeout", "'timeout_ms'"),
        ("costs", "'cost'"),
        ("max_batch_size", "whole batcher"),
        ("age_ms", "whole batcher"),
        ("anything", "priority, timeout_ms, key, cost"),
    ],
)
def test_an_unknown_option(unknown: str, hint: str) -> None:
    class Holder:
        run = batched(lambda self, items: items, name="f")

    for made in (batched(plain, name="f"), Batcher[Any, Any](name="f"), Holder().run):
        with pytest.raises(TypeError, match=rf"f\.options .*{unknown}.*{hint}"):
            made.options(**{unknown: 1})
        with pytest.raises(TypeError, match=unknown):
            made.options(priority=1, **{unknown: 1})


def test_options_go_by_keyword_only() -> None:
    for made in (batched(plain), Batcher[Any, Any]()):
        with pytest.raises(TypeError):
            made.options(1)
