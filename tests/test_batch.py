"""Batch: what a custom loop holds in its hands, and that each of its requests is answered once."""

from __future__ import annotations

import contextlib
import contextvars
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from carpool import (
    AlreadyAnswered,
    BatchAbandoned,
    Batcher,
    BatchLengthError,
    WouldDeadlock,
    batched,
)
from carpool._core import running
from carpool._handler.worker import Handler
from gates import auntil, identity, in_thread


@pytest.fixture
def b() -> Iterator[Batcher[Any, Any]]:
    batcher: Batcher[Any, Any] = Batcher()
    yield batcher
    batcher.close(drain=False, timeout=0)  # a failed test may hold a batch


def submit(b: Any, *items: Any) -> tuple[Any, list[Any]]:
    futures = [b.submit(item) for item in items]
    batch = b.next_batch(block=False)
    assert batch.items == list(items)
    return batch, futures


def test_what_it_shows(b: Any) -> None:
    batch, _ = submit(b, "a", "b", "c")
    assert len(batch) == 3
    assert type(batch.items) is list
    assert batch.reason == "idle"
    assert type(batch.waited_ms) is float
    assert batch.waited_ms >= 0
    assert batch.done is False
    batch.complete([1, 2, 3])
    assert batch.done is True


def test_what_it_shows_cannot_be_assigned(b: Any) -> None:
    batch, _ = submit(b, "a")
    for name in ("reason", "waited_ms", "done", "items"):
        with pytest.raises(AttributeError):
            setattr(batch, name, None)
    batch.complete([1])


def test_complete_gives_each_its_own(b: Any) -> None:
    batch, futures = submit(b, "a", "b", "c")
    batch.complete([1, None, "three"])
    assert [future.result(0) for future in futures] == [1, None, "three"]
    assert b.stats.answered == 3


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (2, 1, 0)])
def test_set_answers_one_at_once(b: Any, order: tuple[int, ...]) -> None:
    batch, futures = submit(b, "a", "b", "c")
    for step, index in enumerate(order, 1):
        assert not batch.done
        batch.set(index, f"result {index}")
        assert futures[index].result(0) == f"result {index}"
        assert sum(future.done() for future in futures) == step
        assert (b.stats.answered, b.stats.in_flight) == (step, 3 - step)
    assert batch.done


def test_fail_item_fails_one_alone(b: Any) -> None:
    batch, futures = submit(b, "a", "b", "c")
    batch.fail_item(1, KeyError("poison"))
    assert isinstance(futures[1].exception(0), KeyError)
    assert not futures[0].done()
    assert not futures[2].done()
    batch.set(0, "x")
    batch.set(2, "z")
    assert [futures[0].result(0), futures[2].result(0)] == ["x", "z"]
    assert (b.stats.answered, b.stats.failed) == (2, 1)


def test_fail_fails_all_of_them(b: Any) -> None:
    batch, futures = submit(b, "a", "b")
    error = ValueError("broken", 7)
    batch.fail(error)
    errors = [future.exception(0) for future in futures]
    assert all(
        type(one) is ValueError and one.args == ("broken", 7) and one.__cause__ is error
        for one in errors
    )
    assert errors[0] is not errors[1]
    assert batch.done
    assert b.stats.failed == 2


def test_complete_with_an_exception_in_a_place_fails_that_one(b: Any) -> None:
    batch, futures = submit(b, "a", "b", "c")
    batch.complete([1, LookupError("no b"), 3])
    assert futures[0].result(0) == 1
    assert futures[2].result(0) == 3
    with pytest.raises(LookupError, match="no b"):
        futures[1].result(0)
    assert (b.stats.answered, b.stats.failed) == (2, 1)


@pytest.mark.parametrize("first", ["complete", "fail", "set"])
@pytest.mark.parametrize("second", ["complete", "fail", "set", "fail_item"])
def test_answering_twice_is_refused_and_changes_nothing(b: Any, first: str, second: str) -> None:
    batch, (future,) = submit(b, "a")
    answers = {
        "complete": lambda value: batch.complete([value]),
        "fail": lambda value: batch.fail(ValueError(value)),
        "set": lambda value: batch.set(0, value),
        "fail_item": lambda value: batch.fail_item(0, ValueError(value)),
    }
    answers[first]("first")
    with pytest.raises(AlreadyAnswered):
        answers[second]("second")
    assert "first" in (str(future.exception(0)) if first == "fail" else future.result(0))
    assert identity(b.stats)
    assert b.stats.answered + b.stats.failed == 1


def test_answering_one_twice_names_it_and_leaves_the_others_open(b: Any) -> None:
    batch, futures = submit(b, "a", "b", "c")
    batch.set(1, "first")
    with pytest.raises(AlreadyAnswered, match="1"):
        batch.set(1, "second")
    with pytest.raises(AlreadyAnswered):
        batch.fail_item(1, ValueError())
    assert not batch.done
    batch.set(0, "x")
    batch.set(2, "z")
    assert [future.result(0) for future in futures] == ["x", "first", "z"]


@pytest.mark.parametrize("index", [3, 4, 10**6, -4, 2**70])
def test_an_index_out_of_range(b: Any, index: int) -> None:
    batch, futures = submit(b, "a", "b", "c")
    with pytest.raises(IndexError):
        batch.set(index, 1)
    with pytest.raises(IndexError):
        batch.fail_item(index, ValueError())
    assert not any(future.done() for future in futures)
    batch.complete([1, 2, 3])


@pytest.mark.parametrize("number", [0, 1, 4, 33])
def test_a_wrong_number_of_results_fails_all_and_tells_the_loop_too(b: Any, number: int) -> None:
    batch, futures = submit(b, "a", "b", "c")
    with pytest.raises(BatchLengthError) as told:
        batch.complete(list(range(number)))
    for error in [told.value, *[future.exception(0) for future in futures]]:
        assert isinstance(error, BatchLengthError)
        assert "3" in str(error)
        assert str(number) in str(error)
    assert batch.done
    assert b.stats.failed == 3


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (None, "None"),
        ("abc", "str"),
        (b"abc", "bytes"),
        ({1: 1, 2: 2, 3: 3}, "dict"),
        ({1, 2, 3}, "set"),
        (3, "int"),
    ],
)
def test_a_wrong_kind_of_result_fails_all_and_tells_the_loop_too(
    b: Any, wrong: Any, named: str
) -> None:
    batch, futures = submit(b, "a", "b", "c")
    with pytest.raises(BatchLengthError, match=named):
        batch.complete(wrong)
    for future in futures:
        with pytest.raises(BatchLengthError, match=named):
            future.result(0)


@pytest.mark.parametrize("wrong", [None, "text", ValueError, 3])
def test_only_exceptions_fail(b: Any, wrong: Any) -> None:
    batch, futures = submit(b, "a", "b")
    for refuse in (lambda: batch.fail(wrong), lambda: batch.fail_item(0, wrong)):
        with pytest.raises(TypeError) as caught:
            refuse()
        assert repr(wrong) in str(caught.value)
    assert not any(future.done() for future in futures)
    batch.complete([1, 2])


def test_a_batch_dropped_unanswered_fails_its_requests(b: Any) -> None:
    batch, futures = submit(b, "a", "b")
    del batch
    gc.collect()
    errors = [future.exception(0) for future in futures]
    assert all(type(error) is BatchAbandoned for error in errors)
    assert errors[0] is not errors[1]
    assert b.stats.failed == 2
    assert b.stats.in_flight == 0


def test_a_batch_dropped_half_answered_fails_only_the_rest(b: Any) -> None:
    batch, futures = submit(b, "a", "b", "c")
    batch.set(1, "kept")
    del batch
    gc.collect()
    assert futures[1].result(0) == "kept"
    assert isinstance(futures[0].exception(0), BatchAbandoned)
    assert isinstance(futures[2].exception(0), BatchAbandoned)


def test_a_loop_that_raises_abandons_its_batch_and_the_next_loop_goes_on(b: Any) -> None:
    def loop() -> None:
        for batch in b:
            raise ZeroDivisionError(batch.items)

    future = b.submit("unlucky")
    assert isinstance(in_thread(loop).exception(20), ZeroDivisionError)
    gc.collect()
    assert isinstance(future.exception(20), BatchAbandoned)
    batch, (later,) = submit(b, "lucky")
    batch.complete(["fine"])
    assert later.result(0) == "fine"


def test_a_batch_is_closed_for_ever(b: Any) -> None:
    batch, _ = submit(b, "a")
    b.submit("later")
    assert batch.items == ["a"]
    assert len(batch) == 1
    batch.complete([1])
    following = b.next_batch(block=False)
    assert following.items == ["later"]
    following.complete([2])


def test_a_changed_list_of_items_changes_no_routing(b: Any) -> None:
    batch, futures = submit(b, "a", "b")
    batch.items.reverse()
    batch.items.append("c")
    batch.complete(["for a", "for b"])
    assert [future.result(0) for future in futures] == ["for a", "for b"]


def test_two_batches_out_at_once_are_answered_in_any_order(b: Any) -> None:
    first, one = submit(b, "a", "b")
    second, two = submit(b, "c")
    second.complete([3])
    assert two[0].result(0) == 3
    assert not one[0].done()
    first.complete([1, 2])
    assert [future.result(0) for future in one] == [1, 2]


def test_batches_come_from_a_batcher_only(b: Any) -> None:
    batch, _ = submit(b, "a")
    with pytest.raises(TypeError):
        type(batch)()
    batch.complete([1])


def test_a_sealed_request_runs_and_is_not_cancelled_any_more(b: Any) -> None:
    batch, futures = submit(b, "a", "b")
    assert futures[0].running()
    assert futures[0].cancel() is False
    batch.complete([1, 2])
    assert not futures[0].running()
    assert [future.result(0) for future in futures] == [1, 2]


def test_a_batch_can_be_answered_from_another_thread(b: Any) -> None:
    batch, futures = submit(b, *range(10))
    in_thread(batch.complete, [number * 2 for number in range(10)]).result(20)
    assert [future.result(0) for future in futures] == [number * 2 for number in range(10)]


def test_racing_answers_one_wins_each(b: Any) -> None:
    for _ in range(50):
        batch, futures = submit(b, *range(8))

        def answer(name: str, batch: Any = batch) -> int:
            won = 0
            for index in range(8):
                try:
                    batch.set(index, name)
                    won += 1
                except AlreadyAnswered:
                    pass
            return won

        rivals = {name: in_thread(answer, name) for name in "xyz"}
        won = {name: rival.result(20) for name, rival in rivals.items()}
        results = [future.result(0) for future in futures]
        assert won == {name: results.count(name) for name in "xyz"}
        assert batch.done
    assert b.stats.answered == 400


# -- parts -------------------------------------------------------------------------------------


def without_poison(items: list[Any]) -> list[Any]:
    if "poison" in items:
        raise ZeroDivisionError(items)
    return [f"for {item}" for item in items]


def test_halving_leaves_the_poison_alone(b: Any) -> None:
    items = [*"abcdefg", "poison", *"hij"]
    batch, futures = submit(b, *items)
    todo, failed = [batch], []
    del batch
    while todo:
        part = todo.pop()
        try:
            part.complete(without_poison(part.items))
        except ZeroDivisionError as error:
            if len(part) == 1:
                failed += part.items
                part.fail(error)
            else:
                todo += [part._split(len(part) // 2), part]
    assert failed == ["poison"]
    for item, future in zip(items, futures, strict=True):
        if item == "poison":
            assert type(future.exception(0)) is ZeroDivisionError
        else:
            assert future.result(0) == f"for {item}"
    stats = b.stats
    assert (stats.answered, stats.failed, stats.in_flight, stats.batches) == (10, 1, 0, 1)


def test_each_part_shows_its_own(b: Any) -> None:
    batch, futures = submit(b, *"abcd")
    handed_out = batch.items
    batch.set(3, "answered before")
    rest = batch._split(1)
    assert type(rest) is type(batch)
    assert handed_out == ["a", "b", "c", "d"]
    assert (batch.items, rest.items) == (["a"], ["b", "c", None])
    assert (len(batch), len(rest)) == (1, 3)
    assert repr(rest).startswith("<carpool.Batch of 3 for ")
    assert rest.reason == batch.reason == "idle"
    assert batch.waited_ms >= rest.waited_ms >= 0
    assert not batch.done
    assert not rest.done
    with pytest.raises(IndexError, match="index 3 is out of range for a batch of 3"):
        rest.set(3, "nobody's")
    with pytest.raises(AlreadyAnswered):
        rest.set(-1, "again")
    rest.set(-2, "for c")
    rest.set(0, "for b")
    assert rest.done
    assert not batch.done
    batch.complete(["for a"])
    expected = ["for a", "for b", "for c", "answered before"]
    assert [future.result(0) for future in futures] == expected


@pytest.mark.parametrize("at", [0, 2, 3, 2**40])
def test_a_part_needs_a_request(b: Any, at: int) -> None:
    batch, futures = submit(b, "a", "b")
    with pytest.raises(ValueError, match=f"a batch of 2 cannot be split at {at}: each part needs"):
        batch._split(at)
    assert batch.items == ["a", "b"]
    batch.complete([1, 2])
    assert [future.result(0) for future in futures] == [1, 2]


def test_a_dropped_part_fails_only_its_own(b: Any) -> None:
    batch, futures = submit(b, *"abc")
    rest = batch._split(1)
    del rest
    gc.collect()
    assert not futures[0].done()
    assert all(isinstance(future.exception(0), BatchAbandoned) for future in futures[1:])
    batch.complete(["kept"])
    assert futures[0].result(0) == "kept"


def test_a_wrong_number_of_results_fails_only_the_part(b: Any) -> None:
    batch, futures = submit(b, *"abc")
    rest = batch._split(2)
    with pytest.raises(BatchLengthError):
        batch.complete([1, 2, 3])
    assert not futures[2].done()
    rest.complete([3])
    assert futures[2].result(0) == 3


def test_parts_end_on_other_threads(b: Any) -> None:
    batch, futures = submit(b, *range(8))
    parts = [batch]
    for at in range(7, 0, -1):
        parts.append(batch._split(at))
    ended = [in_thread(part.complete, [part.items[0] * 2]) for part in parts]
    for end in ended:
        end.result(20)
    assert [future.result(0) for future in futures] == [2 * number for number in range(8)]
    assert b.stats.batches == 1


@pytest.fixture
def one_slot(b: Any) -> Any:
    b._station.slots = 1
    return b


@pytest.mark.parametrize("first", [0, 1])
def test_the_slot_is_free_when_the_last_part_has_ended(one_slot: Any, first: int) -> None:
    batch, futures = submit(one_slot, "a", "b")
    later = one_slot.submit("later")
    parts = [batch, batch._split(1)]
    parts[first].complete([1])
    assert futures[first].result(0) == 1
    assert one_slot.next_batch(block=False) is None
    assert one_slot.stats.run_ms.count == 0
    parts[1 - first].complete([2])
    assert one_slot.stats.run_ms.count == 1
    one_slot.next_batch(block=False).complete([3])
    assert later.result(0) == 3


def test_a_dropped_part_keeps_no_slot(one_slot: Any) -> None:
    batch, _ = submit(one_slot, "a", "b")
    one_slot.submit("later")
    rest = batch._split(1)
    del batch
    gc.collect()
    assert one_slot.next_batch(block=False) is None
    del rest
    gc.collect()
    one_slot.next_batch(block=False).complete([1])
    assert one_slot.stats.failed == 2


def test_the_handler_runs_until_the_last_part_has_ended(one_slot: Any) -> None:
    batch, _ = submit(one_slot, "a", "b")
    parts = [batch, batch._split(1)]

    inside = contextvars.copy_context()
    for ended in range(2):
        assert batch._run.active
        with pytest.raises(WouldDeadlock):
            inside.run(lambda: (running.set(batch._run), one_slot("from inside")))
        parts[ended].complete([1])
    assert not batch._run.active


def test_parts_on_a_loop_that_has_stopped_block_nobody(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch at a time: the next loop abandons what the stopped one cannot answer."""
    kept: list[Any] = []

    async def handler(items: list[Any]) -> list[Any]:
        return items

    # With a context, so that it takes the way that is replaced.
    f = batched(context=contextlib.nullcontext)(handler)
    run_on_loop = Handler.run_on_loop

    def split(self: Handler, batch: Any, *_: Any) -> None:
        kept.extend([batch, batch._split(1)])

    async def leave_in_flight() -> None:
        kept.extend([f("a"), f("b")])
        await auntil(lambda: len(kept) == 4)

    async def stay() -> Any:
        return await f("c")

    monkeypatch.setattr(Handler, "run_on_loop", split)
    run(leave_in_flight())
    monkeypatch.setattr(Handler, "run_on_loop", run_on_loop)
    assert run(stay()) == "c"
    assert all(batch.done for batch in kept[2:])
    assert f.stats.failed == 2
