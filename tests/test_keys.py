"""Keys: any hashable object groups requests; the core knows them as numbers."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, Future, batched
from gates import Gate, batched_by, in_thread, until


class Keyed:
    """A batcher whose first batch is held at a gate, while others pile up behind it."""

    def __init__(self, gate: Gate, **options: Any) -> None:
        self.gate = gate
        self.function = batched(gate.handler, **options)
        self.engine = self.function._station.start()

    def submit(self, item: Any, **terms: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future._ticket = self.engine.submit(self.function, item, future, **terms)
        return future


class Key:
    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 7  # all of them collide

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and other.name == self.name


def test_a_batch_holds_one_key(gate: Gate) -> None:
    keyed = Keyed(gate, max_batch_size=3)
    keyed.submit("first")
    gate.entered()
    keys: list[Any] = ["a", Key("a"), ("a",), None]
    futures = [keyed.submit((n, at), key=keys[at]) for n in range(4) for at in range(4)]
    assert keyed.engine.keys == 3
    gate.open()
    for future in futures:
        future.result(20)
    for batch in gate.batches[1:]:
        assert len({at for _, at in batch}) == 1
        assert len(batch) <= 3
    assert sorted(len(batch) for batch in gate.batches[1:]) == [1] * 4 + [3] * 4


def test_equal_keys_are_one_whatever_they_are(gate: Gate) -> None:
    keyed = Keyed(gate)
    keyed.submit("first")
    gate.entered()
    same: list[Any] = [1, 1.0, True, "x", "".join("x"), Key("k"), Key("k"), (1, "x"), (1.0, "x")]
    futures = [keyed.submit(n, key=key) for n, key in enumerate(same)]
    assert keyed.engine.keys == 4
    gate.open()
    for future in futures:
        future.result(20)
    assert [sorted(batch) for batch in gate.batches[1:]] == [[0, 1, 2], [3, 4], [5, 6], [7, 8]]


def test_an_object_is_equal_to_itself(gate: Gate) -> None:
    keyed = Keyed(gate)
    keyed.submit("first")
    gate.entered()
    nan = float("nan")
    for n in range(3):
        keyed.submit(n, key=nan)
    assert keyed.engine.keys == 1
    keyed.submit(3, key=float("nan"))
    assert keyed.engine.keys == 2


def test_groups_go_by_the_age_of_their_oldest(gate: Gate) -> None:
    keyed = Keyed(gate, max_batch_size=2)
    keyed.submit("first")
    gate.entered()
    futures = [keyed.submit((key, n), key=key) for key in "abc" for n in range(4)]
    gate.open()
    for future in futures:
        future.result(20)
    # The oldest goes first, so nobody is overtaken by what came later.
    assert [batch[0][0] for batch in gate.batches[1:]] == list("aabbcc")


def test_what_is_more_urgent_goes_first(gate: Gate) -> None:
    keyed = Keyed(gate, max_batch_size=2)
    keyed.submit("first")
    gate.entered()
    futures = [keyed.submit(n) for n in range(2)]
    futures += [keyed.submit(n, urgency_ns=-(10**9)) for n in range(2, 4)]
    gate.open()
    for future in futures:
        future.result(20)
    assert gate.batches[1:] == [[2, 3], [0, 1]]


def test_keys_are_forgotten_with_their_last_request(gate: Gate) -> None:
    gate.open()
    keyed = Keyed(gate, max_batch_size=64)
    key = Key("kept")
    gone = weakref.ref(key)
    futures = [keyed.submit(n, key=key) for n in range(100)]
    for future in futures:
        future.result(20)
    del key
    futures.clear()

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    until(is_gone)
    assert keyed.engine.keys == 0


def test_one_off_keys_leak_nothing(gate: Gate) -> None:
    gate.open()
    keyed = Keyed(gate, max_batch_size=64)
    for start in range(0, 100_000, 1000):
        futures = [keyed.submit(n, key=("one-off", n)) for n in range(start, start + 1000)]
        for future in futures:
            future.result(20)
    until(lambda: keyed.engine.keys == 0)


def test_cancelled_and_expired_requests_give_their_keys_up(gate: Gate) -> None:
    keyed = Keyed(gate)
    keyed.submit("first")
    gate.entered()
    cancelled = keyed.submit(1, key="cancelled")
    late = keyed.submit(2, key="late", deadline_ns=1)
    assert cancelled.cancel()
    assert late.exception(20) is not None
    until(lambda: keyed.engine.keys == 0)


def test_an_unhashable_key_is_refused_at_the_call(gate: Gate) -> None:
    keyed = Keyed(gate)
    with pytest.raises(TypeError, match="unhashable"):
        keyed.submit(1, key=[])
    with pytest.raises(TypeError, match="unhashable"):
        keyed.engine.call(keyed.function, 1, key={})
    stats = keyed.function.stats
    assert stats.submitted == 0
    assert keyed.engine.keys == 0


def test_errors_of_a_key_reach_its_caller_alone(gate: Gate) -> None:
    class Bad(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no comparison")

    keyed = Keyed(gate)
    keyed.submit("first")
    gate.entered()
    good = keyed.submit(1, key=Key("good"))
    with pytest.raises(RuntimeError, match="no comparison"):
        keyed.submit(2, key=Bad("bad"))
    gate.open()
    assert good.result(20) == ("answer", 1)
    until(lambda: keyed.engine.keys == 0)


def test_a_key_may_call_the_batcher_while_it_is_compared(gate: Gate) -> None:
    class Curious(Key):
        __hash__ = Key.__hash__

        def __eq__(self, other: object) -> bool:
            keyed.submit("asked", key="another")
            return self is other

    keyed = Keyed(gate)
    keyed.submit("first")
    gate.entered()
    keyed.submit(1, key=Curious("one"))
    keyed.submit(2, key=Curious("two"))
    assert keyed.engine.keys == 3


def test_many_threads_agree_on_the_numbers(gate: Gate) -> None:
    keyed = Keyed(gate, max_batch_size=1000)
    keyed.submit("first")
    gate.entered()

    def submit(tag: int) -> list[Future[Any]]:
        return [keyed.submit((n % 10, tag), key=Key(str(n % 10))) for n in range(100)]

    threads = [in_thread(submit, tag) for tag in range(4)]
    futures = [future for thread in threads for future in thread.result(20)]
    assert keyed.engine.keys == 10
    gate.open()
    for future in futures:
        future.result(20)
    assert len(gate.batches) == 11


def test_cost_and_budget(gate: Gate) -> None:
    from carpool._core import Engine

    engine = Engine(
        name="costly",
        max_batch_size=8,
        wait_ns=0,
        max_queue=100,
        overflow="raise",
        slots=None,
        executor="thread",
        max_batch_cost=10,
    )
    futures = []
    for cost in (4, 4, 4, 10, 1):
        future: Future[Any] = Future()
        future._ticket = engine.submit(None, cost, future, cost=cost)
        futures.append(future)
    batches = []
    while (batch := engine.next_batch(timeout_ns=0)) is not None:
        batches.append(batch.items)
        batch.complete(batch.items)
    assert batches == [[4, 4], [4], [10], [1]]
    engine.close(False)


# ------------------------------------------------------------------------------- `key=` of the public surface


def first_of(item: Any) -> Any:
    return item[0]


def test_calls_share_a_batch_only_with_their_key(
    gate: Gate, way: str, run: Callable[..., Any]
) -> None:
    async def main() -> None:
        f = batched_by(way, gate, key=first_of, max_batch_size=3)
        first = asyncio.ensure_future(f.acall("zz"))
        await gate.aentered()
        items = ["a1", "b1", "a2", "b2", "a3", "b3", "a4"]
        calls = [asyncio.ensure_future(f.acall(item)) for item in items]
        gate.open()
        assert await asyncio.gather(first, *calls) == [("answer", one) for one in ["zz", *items]]
        assert gate.batches == [["zz"], ["a1", "a2", "a3"], ["b1", "b2", "b3"], ["a4"]]

    run(main())


@pytest.mark.parametrize("keys", [1, 4])
def test_interleaved_keys_fill_their_batches(keys: int) -> None:
    # A slot that serves as many as arrive meanwhile: what one key fills, four fill, too.
    with Batcher[tuple[int, int], int](max_batch_size=16, key=first_of) as batcher:
        sizes = []
        for turn in range(200):
            for n in range(16):
                batcher.submit((n % keys, turn))
            batch = batcher.next_batch(block=False)
            assert batch is not None
            assert len({key for key, _ in batch.items}) == 1
            sizes.append(len(batch))
            batch.complete([0] * len(batch))
        assert sum(sizes) >= 0.95 * 16 * len(sizes)
        # Nobody waits for more than a few turns.
        ends = [turn for _, turn in _left(batcher)]
        assert min(ends, default=200) >= 190


def _left(batcher: Batcher[Any, Any]) -> list[Any]:
    items = []
    while (batch := batcher.next_batch(block=False)) is not None:
        items += batch.items
        batch.complete(batch.items)
    return items


def test_a_hundred_thousand_one_off_keys_are_forgotten() -> None:
    with Batcher[int, int](key=lambda item: ("one-off", item), max_queue=1000) as batcher:
        engine = batcher._station.engine()
        for start in range(0, 100_000, 1000):
            for n in range(start, start + 1000):
                batcher.submit(n)
            assert engine.keys == 1000
            assert len(_left(batcher)) == 1000
        assert engine.keys == 0


def test_the_key_of_a_single_call(gate: Gate) -> None:
    f = batched(gate.handler, key=first_of)
    f.submit("zz")
    gate.entered()
    ends = [
        f.submit("a1"),
        f.options(key="b").submit("x"),
        f.options(key=None).submit("y"),
        f.submit("b1"),
        f.options(key=len).submit("z"),
        f.options(key=1).submit("w"),
        f.options(key=None).submit("v"),
    ]
    gate.open()
    for one in ends:
        one.result(20)
    assert gate.batches == [["zz"], ["a1"], ["x", "b1"], ["y", "v"], ["z", "w"]]


def test_a_key_of_none_is_no_key(gate: Gate) -> None:
    f = batched(gate.handler, key=lambda item: None)
    f.submit(0)
    gate.entered()
    ends = [f.submit(1), f.options(key=None).submit(2)]
    gate.open()
    for one in ends:
        one.result(20)
    assert gate.batches == [[0], [1, 2]]


def test_an_unhashable_result_is_named(gate: Gate) -> None:
    gate.open()
    f = batched(gate.handler, key=lambda item: [item], name="grouped")
    for call in (f, f.submit):
        with pytest.raises(TypeError, match=r"grouped: a key must be hashable, not \[1\] \(list\)"):
            call(1)
    assert f.options(key=None)(1) == ("answer", 1)
    assert f.stats.submitted == 1


@pytest.mark.parametrize("kind", [ValueError, StopIteration, KeyboardInterrupt])
def test_what_a_key_raises_reaches_its_caller_alone(gate: Gate, kind: type[BaseException]) -> None:
    def key(item: Any) -> Any:
        if item == "bad":
            raise kind("no key")

    f = batched(gate.handler, key=key)
    first = f.submit("first")
    gate.entered()
    good = f.submit("good")
    for call in (f, f.submit):
        with pytest.raises(kind, match="no key"):
            call("bad")
    gate.open()
    assert (first.result(20), good.result(20)) == (("answer", "first"), ("answer", "good"))


@pytest.mark.parametrize("key", ["a", 1, [], ("a",)])
def test_the_key_of_a_batcher_is_a_function(key: Any) -> None:
    for make in (lambda: batched(first_of, key=key), lambda: Batcher(key=key)):
        with pytest.raises(TypeError, match="key must be callable"):
            make()


def test_the_key_of_a_call_is_hashable() -> None:
    with pytest.raises(TypeError, match=r"key must be hashable, or callable .*\[1\] \(list\)"):
        batched(first_of).options(key=[1])
