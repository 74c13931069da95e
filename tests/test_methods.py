"""Methods: a batcher per instance that is collected with it; static and class methods; inheritance."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import gc
import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import BatcherClosed, batched
from gates import Gate, in_thread, until


class Model:
    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.batches: list[list[int]] = []
        self.threads: set[threading.Thread] = set()

    @batched(max_batch_size=8)
    def embed(self, items: list[int], shift: list[int] = 0) -> list[int]:  # type: ignore[assignment]
        """Embeds."""
        self.batches.append(items)
        self.threads.add(threading.current_thread())
        return [item * self.scale + by for item, by in zip(items, shift, strict=True)]

    @batched
    async def aembed(self, items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return [item * self.scale for item in items]


class Holding:
    """Its method waits at the instance's own gate."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    @batched
    def held(self, items: list[Any]) -> list[Any]:
        return self.gate.run(items)


def test_each_instance_has_its_own_batcher() -> None:
    two, ten = Model(2), Model(10)
    assert (two.embed(3), ten.embed(3), two.embed(4)) == (6, 30, 8)
    assert two.batches == [[3], [4]]
    assert ten.batches == [[3]]
    assert two.embed.stats.submitted == 2
    assert ten.embed.stats.submitted == 1


def test_instances_do_not_wait_for_each_other(new_gate: Callable[..., Gate]) -> None:
    busy, free = Holding(new_gate()), Holding(new_gate())
    held = busy.held.submit("held")
    busy.gate.entered()
    free.gate.open()
    assert free.held("free") == ("answer", "free")
    assert not held.done()
    busy.gate.open()
    assert held.result(20) == ("answer", "held")


def test_every_way_of_calling_a_method() -> None:
    model = Model(3)
    assert model.embed(1) == 3
    assert model.embed(items=1, shift=5) == 8
    assert model.embed.submit(2, 1).result(20) == 7
    assert Model.embed(model, 4) == 12

    async def main() -> None:
        assert await model.embed.acall(5) == 15
        assert await model.aembed(6) == 18
        assert await model.aembed.acall(7) == 21
        assert await asyncio.gather(*[model.embed.acall(number) for number in range(10)]) == [
            number * 3 for number in range(10)
        ]

    asyncio.run(main())
    assert model.embed.stats.submitted == 15
    assert model.aembed.stats.submitted == 2


def test_a_bound_method_may_be_kept_and_passed_on() -> None:
    model = Model(2)
    kept = model.embed
    assert list(map(kept, range(3))) == [0, 2, 4]
    assert model.embed.stats.submitted == 3
    assert kept.stats == model.embed.stats
    assert Model(5).embed(2) == 10  # a method keeps its instance alive while it runs


def test_calls_from_many_threads_make_one_batcher_not_several(gate: Gate) -> None:
    for _ in range(20):
        model = Model(1)
        start = threading.Barrier(8)

        def first_use(number: int, model: Model = model, start: threading.Barrier = start) -> int:
            start.wait(20)
            return model.embed(number)

        callers = [in_thread(first_use, number) for number in range(8)]
        assert [caller.result(20) for caller in callers] == list(range(8))
        assert model.embed.stats.submitted == 8
        assert len(model.threads) == 1


def test_wrong_arguments_of_a_method() -> None:
    model = Model(1)
    with pytest.raises(TypeError, match=r"embed.*'items'"):
        model.embed()
    with pytest.raises(TypeError, match="'nope'"):
        model.embed(1, nope=2)
    with pytest.raises(TypeError):
        model.embed(1, 2, 3)
    assert model.embed.stats.submitted == 0


def test_what_a_method_looks_like() -> None:
    model = Model(1)
    for function in (Model.embed, model.embed):
        assert function.__name__ == "embed"
        assert function.__doc__ == "Embeds."
        assert function.__qualname__ == "Model.embed"
    assert list(inspect.signature(model.embed).parameters) == ["items", "shift"]
    assert list(inspect.signature(Model.embed).parameters) == ["self", "items", "shift"]
    assert vars(Model)["embed"] is Model.embed


def test_a_method_can_be_closed_alone() -> None:
    two, ten = Model(2), Model(10)
    assert two.embed(1) == 2
    assert two.embed.close() is True
    assert not two.embed.healthy
    with pytest.raises(BatcherClosed):
        two.embed(1)
    assert ten.embed(1) == 10
    assert ten.embed.healthy


# -- collection --------------------------------------------------------------------------------


def test_an_unused_instance_is_collected_at_once() -> None:
    gc.disable()  # nothing of ours may need the collector here
    try:
        model = Model(1)
        watch = weakref.ref(model)
        del model
        assert watch() is None
    finally:
        gc.enable()


def test_a_used_instance_is_collected_with_its_batcher_and_thread() -> None:
    models = [Model(number) for number in range(30)]
    for model in models:
        assert model.embed(2) == model.scale * 2
    watches = [weakref.ref(model) for model in models]
    threads = set.union(*[model.threads for model in models])
    assert len(threads) == 30
    del model, models
    until(lambda: gc.collect() is None or all(watch() is None for watch in watches))
    until(lambda: not any(thread.is_alive() for thread in threads))


def test_an_instance_used_from_a_loop_is_collected() -> None:
    async def main() -> list[Any]:
        models = [Model(number) for number in range(5)]
        for model in models:
            assert await model.aembed(2) == await model.embed.acall(2) == model.scale * 2
        return [weakref.ref(model) for model in models]

    watches = asyncio.run(main())
    until(lambda: gc.collect() is None or all(watch() is None for watch in watches))


def test_a_request_keeps_its_instance_alive(new_gate: Callable[..., Gate]) -> None:
    gate = new_gate()
    holding = Holding(gate)
    first = holding.held.submit("first")
    gate.entered()
    pending = holding.held.submit("pending")
    watch = weakref.ref(holding)
    del holding
    gc.collect()
    gate.open()
    assert first.result(20) == ("answer", "first")
    assert pending.result(20) == ("answer", "pending")
    until(lambda: gc.collect() is None or watch() is None)


def test_an_instance_that_refers_to_its_own_method_is_collected() -> None:
    model: Any = Model(2)
    model.bound = model.embed
    model.partial = functools.partial(model.embed, shift=1)
    assert model.bound(1) == 2
    assert model.partial(1) == 3
    watch = weakref.ref(model)
    del model
    until(lambda: gc.collect() is None or watch() is None)


# -- instances of every kind -------------------------------------------------------------------


def test_slots_without_weakref_name_the_missing_slot() -> None:
    class Tight:
        __slots__ = ("scale",)

        @batched
        def embed(self, items: list[int]) -> list[int]:
            return items

    tight = Tight()
    with pytest.raises(TypeError, match="__weakref__"):
        tight.embed(1)


def test_slots_with_weakref_work() -> None:
    class Roomy:
        __slots__ = ("__weakref__", "scale")

        def __init__(self, scale: int) -> None:
            self.scale = scale

        @batched
        def embed(self, items: list[int]) -> list[int]:
            return [item * self.scale for item in items]

    one, other = Roomy(2), Roomy(3)
    assert (one.embed(2), other.embed(2)) == (4, 6)
    watch = weakref.ref(one)
    del one
    until(lambda: gc.collect() is None or watch() is None)


def test_instances_that_are_equal_are_still_two() -> None:
    @dataclasses.dataclass
    class Equal:  # equal to each other, and not hashable
        scale: int = 2

        @batched
        def who(self, items: list[int]) -> list[int]:
            return [id(self) for _ in items]

    @dataclasses.dataclass(frozen=True)
    class Frozen:
        scale: int = 2

        @batched
        def who(self, items: list[int]) -> list[int]:
            return [id(self) for _ in items]

    for kind in (Equal, Frozen):
        one, other = kind(), kind()
        assert one == other
        assert (one.who(1), other.who(1)) == (id(one), id(other))
        assert one.who.stats.submitted == 1


def test_a_class_that_guards_its_attributes() -> None:
    class Guarded:
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(name)

        def __bool__(self) -> bool:
            return False

        def __len__(self) -> int:
            return 0

        @batched
        def embed(self, items: list[int]) -> list[int]:
            return [item + 1 for item in items]

    guarded = Guarded()
    assert guarded.embed(1) == 2
    assert guarded.embed(2) == 3
    assert guarded.embed.stats.submitted == 2


def test_a_copy_has_its_own_batcher() -> None:
    model = Model(2)
    assert model.embed(1) == 2
    shallow = copy.copy(model)
    shallow.scale = 5
    assert shallow.embed(1) == 5
    assert model.embed(1) == 2
    assert shallow.embed.stats.submitted == 1
    model.threads = set()
    deep = copy.deepcopy(model)
    assert deep.embed(3) == 6
    assert deep.embed.stats.submitted == 1


def test_a_new_instance_at_an_old_address_starts_afresh() -> None:
    for number in range(200):
        model = Model(number)
        assert model.embed.stats.submitted == 0
        assert model.embed(1) == number
        del model


# -- static and class methods ------------------------------------------------------------------


class Outer:
    @staticmethod
    @batched
    def static_above(items: list[int]) -> list[int]:
        return [item + 1 for item in items]

    @batched
    @staticmethod
    def static_below(items: list[int]) -> list[int]:
        return [item + 2 for item in items]

    @classmethod
    @batched
    def class_above(cls, items: list[int]) -> list[Any]:
        return [(cls, item) for item in items]

    @batched(max_batch_size=4)
    @classmethod
    def class_below(cls, items: list[int]) -> list[Any]:
        return [(cls, item) for item in items]


class Inner(Outer):
    pass


def test_static_methods_have_one_batcher() -> None:
    before = Outer.static_above.stats.submitted, Outer.static_below.stats.submitted
    assert [Outer.static_above(1), Outer().static_above(1), Inner.static_above(1)] == [2, 2, 2]
    assert [Outer.static_below(1), Outer().static_below(1), Inner().static_below(1)] == [3, 3, 3]
    assert Outer.static_above.stats.submitted - before[0] == 3
    assert Outer.static_below.stats.submitted - before[1] == 3
    assert Inner.static_below.submit(5).result(20) == 7


def test_class_methods_have_one_batcher_per_class() -> None:
    assert Outer.class_above(1) == Outer().class_above(1) == (Outer, 1)
    assert Outer.class_below(1) == Outer().class_below(1) == (Outer, 1)
    assert Inner.class_above(1) == Inner().class_above(1) == (Inner, 1)
    assert Inner.class_below(1) == Inner().class_below(1) == (Inner, 1)
    before = Outer.class_below.stats.submitted, Inner.class_below.stats.submitted
    assert Inner.class_below.submit(2).result(20) == (Inner, 2)
    assert (Outer.class_below.stats.submitted, Inner.class_below.stats.submitted) == (
        before[0],
        before[1] + 1,
    )


# -- inheritance -------------------------------------------------------------------------------


def test_an_inherited_method_belongs_to_the_instance() -> None:
    class Child(Model):
        pass

    child, parent = Child(3), Model(2)
    assert (child.embed(1), parent.embed(1)) == (3, 2)
    assert Model.embed(child, 2) == 6
    assert child.embed.stats.submitted == 2


def test_an_override_may_call_its_parent() -> None:
    class Plain(Model):
        def embed(self, item: int) -> int:  # type: ignore[override]
            return super().embed(item) + 1000

    class Batched(Model):
        @batched
        def embed(self, items: list[int]) -> list[int]:  # type: ignore[override]
            inherited = [super(Batched, self).embed.submit(item) for item in items]
            return [future.result(20) + 1000 for future in inherited]

    class Blocking(Model):
        @batched
        def embed(self, items: list[int]) -> list[int]:  # type: ignore[override]
            return [super(Blocking, self).embed(item) + 1000 for item in items]

    for kind in (Plain, Batched, Blocking):
        model = kind(2)
        assert [model.embed(number) for number in range(3)] == [1000, 1002, 1004]
        assert sorted(item for batch in model.batches for item in batch) == [0, 1, 2]


def test_a_handler_may_use_other_methods_of_its_instance() -> None:
    class Pipeline:
        @batched
        def tokenize(self, texts: list[str]) -> list[list[str]]:
            return [text.split() for text in texts]

        @batched
        def count(self, texts: list[str]) -> list[int]:
            return [len(self.tokenize(text)) for text in texts]

    pipeline = Pipeline()
    assert pipeline.count("a b c") == 3
    assert pipeline.tokenize.stats.submitted == pipeline.count.stats.submitted == 1


def test_a_decorated_function_put_into_a_class_becomes_a_method() -> None:
    @batched
    def embed(self: Any, items: list[int]) -> list[int]:
        return [item * self.scale for item in items]

    class Late:
        scale = 4

    Late.embed = embed  # type: ignore[attr-defined]
    assert Late().embed(2) == 8  # type: ignore[attr-defined]
