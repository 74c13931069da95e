"""Buffers that are used again, but never while somebody refers to one; the fast way, and what goes past it."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

from carpool import batched
from carpool.collate import Pad, Ragged, Stack
from gates import LIMIT

ITEMS = [np.arange(5), np.arange(3)]


def address(array: Any) -> int:
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data_ptr())


def knows(collator: Any, items: list[Any]) -> bool:
    """Whether these items go the fast way."""
    return isinstance(collator._fast.collate(items, len(items)), (np.ndarray, dict, tuple))


def test_the_second_batch_of_a_kind_goes_the_fast_way() -> None:
    pad = Pad(0)
    assert pad._fast.collate(ITEMS, 2) is None
    pad.collate(ITEMS)
    assert knows(pad, ITEMS)
    assert knows(pad, ITEMS[:1])
    assert pad._fast.collate([ITEMS[0], ITEMS[1] * 0.5], 2) is NotImplemented
    assert pad._fast.collate([ITEMS[0] * 0.5], 1) is None


def test_several_kinds_are_remembered_and_the_oldest_forgotten() -> None:
    stack = Stack()
    kinds = [
        [np.ones(1, dtype)] for dtype in ("i1", "i2", "i4", "i8", "f2", "f4", "f8", "u1", "u2")
    ]
    for kind in kinds:
        stack.collate(kind)
    assert not knows(stack, kinds[0])
    assert all(knows(stack, kind) for kind in kinds[1:])


@pytest.mark.parametrize(
    "item",
    [
        np.array(["a"]),
        np.array([1], ">i4"),
        np.array([1], "M8[s]"),
        np.longdouble(1),
        [[1], [2]],
        b"ab",
        np.float32(1),
        1j,
        np.ones((1,) * 9),
    ],
    ids=repr,
)
def test_what_the_fast_way_does_not_take_goes_the_plain_way(item: Any) -> None:
    stack = Stack()
    for _ in range(3):
        assert len(stack.collate([item, item])) == 2
    assert stack._fast.collate([item, item], 2) is None


def test_a_buffer_is_used_again_when_nobody_refers_to_it() -> None:
    pad = Pad(0)
    pad.collate(ITEMS)
    first = pad.collate(ITEMS)
    where = address(first)
    del first
    again = pad.collate(ITEMS)
    assert address(again) == where
    assert again.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0]]


@pytest.mark.parametrize(
    "keep",
    [
        lambda batch: batch,
        lambda batch: batch[1:],
        lambda batch: memoryview(batch),
        lambda batch: batch.reshape(-1).view("uint8"),
        lambda batch: {"deep": [batch[:, ::2].T]},
        lambda batch: list(batch),
    ],
)
def test_a_buffer_that_somebody_refers_to_is_not_written(keep: Any) -> None:
    pad = Pad(0)
    pad.collate(ITEMS)
    batch = pad.collate(ITEMS)
    where = address(batch)
    kept = keep(batch)
    del batch
    gc.collect()
    for _ in range(40):
        other = pad.collate(ITEMS)
        assert address(other) != where
        other[...] = -1
    del kept
    gc.collect()
    found = [pad.collate(ITEMS) for _ in range(40)]
    assert all(np.array_equal(one, found[0]) for one in found)


def test_arrays_of_tensors_share_the_rule() -> None:
    torch = pytest.importorskip("torch")
    pad = Pad(0)
    items = [torch.arange(5), torch.arange(3)]
    pad.collate(items)
    batch = pad.collate(items)
    where = batch.data_ptr()
    views: list[Any] = [
        lambda one: one[1:],
        lambda one: one.numpy(),
        lambda one: one.unbind(0),
        lambda one: one.T,
    ]
    for view in views:
        kept = view(batch)
        del batch
        assert pad.collate(items).data_ptr() != where
        del kept
        gc.collect()
        batch = pad.collate(items)
        assert batch.data_ptr() == where
        assert batch.is_contiguous()
        assert batch.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0]]


def test_tensors_may_end_in_threads_that_python_does_not_know() -> None:
    torch = pytest.importorskip("torch")
    stack = Stack()
    items = [torch.ones(4), torch.ones(4)]
    stack.collate(items)
    weight = torch.ones(4, requires_grad=True)
    for _ in range(5):
        # The batch is kept by the graph and let go of by the engine that goes through it.
        (stack.collate(items) * weight).sum().backward()
    assert weight.grad.tolist() == [10] * 4


def test_batches_are_writable_and_of_their_own_shape() -> None:
    pad = Pad(0, mask="mask")
    for _ in range(2):
        batch = pad.collate([{"x": one} for one in ITEMS])
        assert batch["x"].flags.writeable
        assert batch["x"].flags.c_contiguous
        assert batch["x"].flags.aligned
        batch["x"] += 1


def test_large_batches_are_copied_without_the_interpreter() -> None:
    stack = Stack()
    items = [np.full((3, 224, 224), n, "uint8") for n in range(8)]
    stack.collate(items)
    wrong: list[int] = []

    def collate() -> None:
        for _ in range(20):
            batch = stack.collate(items)
            if not all((batch[n] == n).all() for n in range(8)):
                wrong.append(1)

    threads = [threading.Thread(target=collate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert wrong == []


def test_answers_that_are_views_stay_what_they_were() -> None:
    @batched(collate=Stack(views=True), max_batch_size=4)
    def same(batch: Any) -> Any:
        return batch

    kept = [same(np.full(100, n)) for n in range(50)]
    assert [int(row[0]) for row in kept] == list(range(50))
    assert all((row == n).all() for n, row in enumerate(kept))
    same.close()


def test_ragged_and_extras_are_reused_too() -> None:
    ragged = Ragged()
    for n in (1, 2, 3):
        batch = ragged.collate([np.arange(n), np.arange(2)])
        assert batch.values.tolist() == [*range(n), 0, 1]
        assert batch.cu_seqlens.tolist() == [0, n, n + 2]
        del batch


def test_items_that_change_their_form_go_back_to_the_plain_way() -> None:
    pad = Pad({"a": 0, "b": 0})
    pad.collate([{"a": [1]}, {"a": [2, 3]}])
    assert pad.collate([{"a": [1], "b": [1]}])["b"].tolist() == [[1]]
    assert pad.collate([{"a": [1]}, {"a": [2, 3]}])["a"].tolist() == [[1, 0], [2, 3]]
    assert pad.collate([{"a": np.array([1])}, {"a": [2, 3]}])["a"].tolist() == [[1, 0], [2, 3]]


def test_a_collator_is_collected_with_what_it_knows() -> None:
    import weakref

    class Key:
        pass

    key = Key()
    stack = Stack()
    stack.collate([{key: np.ones(2)}])
    stack.collate([{key: np.ones(2)}])
    gone = weakref.ref(key)
    key.stack = stack  # type: ignore[attr-defined]
    del key, stack
    gc.collect()
    assert gone() is None
