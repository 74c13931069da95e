"""Collate: what items become, who fits, and which errors the others get; without a batcher."""

from __future__ import annotations

import array
import pickle
from collections import UserDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from carpool import CollateError
from carpool.collate import Collate, Lists, Pad, Ragged, RaggedBatch, Stack

Pair = namedtuple("Pair", "left right")


@dataclass
class Sample:
    image: Any
    label: Any


def misfits(collator: Collate, items: list[Any]) -> dict[int, str]:
    with pytest.raises(CollateError) as caught:
        collator.collate(items)
    return {at: str(error) for at, error in caught.value.misfits.items()}


def test_lists_are_the_items() -> None:
    assert Lists().collate(("a", "b")) == ["a", "b"]


@pytest.mark.parametrize("collator", [Lists(), Stack(), Pad(0), Ragged()])
def test_collators_are_collates_and_pickle(collator: Collate) -> None:
    assert isinstance(collator, Collate)
    again = pickle.loads(pickle.dumps(collator))
    assert repr(again) == repr(collator)


# ------------------------------------------------------------------------------------- items


@pytest.mark.parametrize(
    ("items", "dtype"),
    [
        ([1, 2], "int64"),
        ([0.5, 1.5], "float64"),
        ([True, False], "bool"),
        ([1j, 2j], "complex128"),
        ([[1, 2], [3, 4]], "int64"),
        ([[1, 0.5], [3.0, 4.0]], "float64"),
        ([[[1], [2]], [[3], [4]]], "int64"),
        ([b"ab", b"cd"], "uint8"),
        ([bytearray(b"ab"), bytearray(b"cd")], "uint8"),
        ([memoryview(b"ab"), memoryview(b"cd")], "uint8"),
        ([array.array("f", [1, 2]), array.array("f", [3, 4])], "float32"),
        ([np.float32(1), np.float32(2)], "float32"),
        ([np.ones((2, 2), "float16")] * 2, "float16"),
        ([np.array([1, 2], ">i4")] * 2, ">i4"),
        ([np.array(["a", "b"])] * 2, "<U1"),
        ([np.array([1, 2], "M8[s]")] * 2, "M8[s]"),
    ],
)
def test_dtypes_stay_what_they_are(items: list[Any], dtype: str) -> None:
    made = Stack().collate(items)
    assert isinstance(made, np.ndarray)
    assert made.dtype == np.dtype(dtype)
    expected = [
        np.asarray(memoryview(x) if isinstance(x, (bytes, bytearray)) else x) for x in items
    ]
    assert np.array_equal(made, np.stack(expected).astype(dtype))


def test_what_offers_dlpack_becomes_an_array() -> None:
    class Offers:
        def __init__(self, held: Any) -> None:
            self.held = held

        def __dlpack__(self, **asked: Any) -> Any:
            return self.held.__dlpack__(**asked)

        def __dlpack_device__(self) -> Any:
            return self.held.__dlpack_device__()

    made = Stack().collate([Offers(np.array([1, 2], "int16")), np.array([3, 4], "int16")])
    assert made.dtype == np.int16
    assert made.tolist() == [[1, 2], [3, 4]]


def test_nesting_stays() -> None:
    items = [
        {"a": (np.array([n]), Pair(n, 0.5)), "b": Sample(image=np.ones((2, 2), "u1"), label=n)}
        for n in range(3)
    ]
    made = Stack().collate(items)
    assert list(made) == ["a", "b"]
    assert type(made["a"]) is tuple
    assert type(made["a"][1]) is Pair
    assert made["a"][0].shape == (3, 1)
    assert made["a"][1].left.tolist() == [0, 1, 2]
    assert made["a"][1].right.tolist() == [0.5] * 3
    assert type(made["b"]) is Sample
    assert made["b"].image.shape == (3, 2, 2)
    assert made["b"].label.tolist() == [0, 1, 2]


class Doubled(namedtuple("Doubled", "one other")):
    """Made of one value."""

    __slots__ = ()

    def __new__(cls, value: Any) -> Doubled:
        return super().__new__(cls, value, value)


def test_named_tuples_that_are_made_otherwise() -> None:
    stack = Stack()
    for _ in range(3):
        made = stack.collate([Doubled(1), Doubled(2)])
        assert type(made) is Doubled
        assert made.one.tolist() == made.other.tolist() == [1, 2]


def test_the_order_of_keys_is_no_difference() -> None:
    made = Stack().collate([{"a": 1, "b": 2}, {"b": 4, "a": 3}])
    assert list(made) == ["a", "b"]
    assert made["a"].tolist() == [1, 3]
    assert made["b"].tolist() == [2, 4]


def test_rows_are_copies() -> None:
    item = np.array([1, 2])
    made = Stack().collate([item])
    item[0] = 9
    assert made.tolist() == [[1, 2]]


def test_strides_of_any_kind() -> None:
    base = np.arange(24).reshape(2, 3, 4)
    items = [
        base.transpose(2, 0, 1)[0, :, ::-1],
        base[:, :, 1],
        np.broadcast_to(np.int64(7), (2, 3)),
    ]
    assert np.array_equal(Stack().collate(items), np.stack(items))


# ---------------------------------------------------------------------------------- who fits


def test_the_majority_decides_and_each_question_in_its_turn() -> None:
    ones = {"x": np.ones(3)}
    found = misfits(
        Stack(),
        [
            {"y": np.ones(3)},
            ones,
            {"x": np.ones(3, int)},
            ones,
            {"x": np.ones((1, 3))},
            {"x": np.ones(2)},
            {"x": "abc"},
            {"x": np.ones(3), "more": 1},
            ones,
        ],
    )
    assert sorted(found) == [0, 2, 4, 5, 6, 7]
    assert (
        found[0]
        == "the item does not fit the batch: it lacks x and it has y, which the batch has not"
    )
    assert found[2] == (
        "x: dtype int64 (shape (3,)) does not fit the batch, where it is float64 (shape (3,))"
    )
    assert "x: rank 2 (shape (1, 3))" in found[4]
    assert "x: shape (2,)" in found[5]
    assert found[6] == "x: a str is no array, tensor, number or list of numbers"
    assert "it has more" in found[7]


def test_on_a_tie_the_earliest_counts() -> None:
    assert list(misfits(Stack(), [1, 0.5])) == [1]
    assert list(misfits(Stack(), [0.5, 1])) == [1]
    assert list(misfits(Stack(), [0.5, 1, 2])) == [0]


def test_nothing_is_cast_to_fit() -> None:
    assert list(misfits(Stack(), [[1, 2], [3, 4], [0.5, 1.0]])) == [2]
    assert list(misfits(Stack(), [np.float32(1), 1.0, np.float32(1)])) == [1]
    assert list(misfits(Stack(), [True, 1, 2])) == [0]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("text", "a str is no array"),
        (None, "a NoneType is no array"),
        ({1, 2}, "a set is no array"),
        (object(), "a object is no array, tensor, number or list of numbers, and offers neither"),
        (np.array([object()]), "holds objects"),
        (np.ma.masked_array([1], [True]), "would lose its mask"),
        (2**70, "does not fit into int64"),
        ([2**70], "does not fit into int64"),
        ([1, "a"], "a list that holds a str"),
        ([1, True], "several types of number (bool, int)"),
        ([2**60 + 1, 0.5], "several types of number (float, int)"),
        ([[1], [2, 3]], "different lengths or depths"),
        ([[1], 2], "different lengths or depths"),
    ],
)
def test_what_is_no_row_says_why(item: Any, said: str) -> None:
    found = misfits(Stack(), [item, np.array([1, 2]), np.array([3, 4])])
    assert list(found) == [0]
    assert said in found[0]


class Unreadable:
    """Offers DLPack, and breaks."""

    def __dlpack_device__(self) -> Any:
        raise KeyError("no device")

    def __dlpack__(self, **asked: Any) -> Any:
        raise KeyError("nothing")


class Closed(UserDict[str, Any]):
    def items(self) -> Any:
        raise OSError("closed")


def _released() -> memoryview:
    view = memoryview(b"ab")
    view.release()
    return view


def _endless(item: Any, put: Callable[[Any], None]) -> Any:
    put(item)
    return item


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_released, "a memoryview cannot be read: ValueError: operation forbidden"),
        (Unreadable, "a Unreadable cannot be read: KeyError: 'no device'"),
        (lambda: _endless(found := [], found.append), "a list cannot be read: RecursionError"),
    ],
)
def test_a_leaf_that_breaks_when_it_is_read_is_out_alone(make: Any, said: str) -> None:
    stack = Stack()
    for _ in range(3):
        found = misfits(stack, [{"x": b"cd"}, {"x": make()}, {"x": b"ef"}])
        assert list(found) == [1]
        assert found[1].startswith(f"x: {said}")
        assert stack.collate([{"x": b"cd"}, {"x": b"ef"}])["x"].shape == (2, 2)


def test_an_item_that_cannot_be_looked_into_is_out_alone() -> None:
    endless: dict[str, Any] = {}
    endless["x"] = endless
    items: list[Any] = [{"x": 1}, Closed(x=2), endless, {"x": 3}]
    found = misfits(Stack(), items)
    assert list(found) == [1, 2]
    assert found[1] == "the item cannot be looked into: OSError: closed"
    assert "RecursionError" in found[2]
    with pytest.raises(CollateError) as caught:
        Stack().collate([Closed(x=1)])
    cause = caught.value.misfits[0].__cause__
    assert isinstance(cause, OSError)
    # It would lead to all items of the batch.
    assert cause.__traceback__ is None


def test_an_empty_list_has_any_dtype() -> None:
    made = Pad(0).collate([[], [1, 2]])
    assert made.dtype == np.int64
    assert made.tolist() == [[0, 0], [1, 2]]


def test_different_nesting_is_named() -> None:
    found = misfits(Stack(), [(1, 2), (3, 4), [5, 6], {"a": 1}, Pair(1, 2)])
    assert sorted(found) == [2, 3, 4]
    assert found[2] == "the item is no container, the batch is of tuple"
    assert (
        found[3]
        == "the item does not fit the batch: it lacks 0, 1 and it has a, which the batch has not"
    )


def test_the_others_collate_without_the_misfits() -> None:
    items: list[Any] = [np.ones(2), "no", np.ones(2)]
    out = misfits(Stack(), items)
    rest = [item for at, item in enumerate(items) if at not in out]
    assert Stack().collate(rest).shape == (2, 2)


def test_no_items_are_an_error() -> None:
    with pytest.raises(CollateError, match="no items"):
        Stack().collate([])


# -------------------------------------------------------------------------------- more rows


def test_rows_beyond_the_items() -> None:
    items = [{"x": np.array([1, 2])}, {"x": np.array([3])}]
    zeros = Pad(7, mask="mask").collate(items, size=4)
    assert zeros["x"].tolist() == [[1, 2], [3, 7], [0, 0], [0, 0]]
    assert zeros["mask"].tolist() == [[1, 1], [1, 0], [0, 0], [0, 0]]
    repeat = Pad(7, mask="mask", fill="repeat").collate(items, size=3)
    assert repeat["x"].tolist() == [[1, 2], [3, 7], [3, 7]]
    assert repeat["mask"].tolist() == [[1, 1], [1, 0], [1, 0]]
    ragged = Ragged().collate(items, size=4)["x"]
    assert ragged.cu_seqlens.tolist() == [0, 2, 3, 3, 3]
    with pytest.raises(ValueError, match="size=1 has no room for 2 items"):
        Stack().collate([1, 2], size=1)


# ------------------------------------------------------------------------------------ ragged


def test_ragged() -> None:
    made = Ragged().collate([np.ones((2, 3)), np.zeros((0, 3)), np.full((4, 3), 2.0)])
    assert type(made) is RaggedBatch
    assert made.values.shape == (6, 3)
    assert made.cu_seqlens.tolist() == [0, 2, 2, 6]
    assert made.cu_seqlens.dtype == np.int32
    assert made.max_seqlen == 4
    by_key = Ragged().collate([{"a": [1], "b": [0.5, 1]}, {"a": [2, 3], "b": [0.5]}])
    assert by_key["a"].values.tolist() == [1, 2, 3]
    assert by_key["b"].cu_seqlens.tolist() == [0, 2, 3]


def test_ragged_misfits() -> None:
    found = misfits(Ragged(), [np.ones((2, 3)), np.ones((2, 4)), np.ones((1, 3))])
    assert list(found) == [1]
    assert "shape beyond the first axis (4,)" in found[1]
    with pytest.raises(CollateError, match="a number has no axis") as caught:
        Ragged().collate([1, 2])
    assert not caught.value.misfits


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Stack(lists="x"), "lists must be one of 'rows', 'heads'"),  # type: ignore[arg-type]
        (lambda: Stack(views=1), "views must be True or False"),  # type: ignore[arg-type]
        (lambda: Stack(fill="x"), "fill must be one of 'zeros', 'repeat'"),  # type: ignore[arg-type]
        (lambda: Ragged(answers="x"), "answers must be one of 'items', 'tokens', None"),
        (lambda: Lists(lists=None), "lists must be one of"),  # type: ignore[arg-type]
    ],
)
def test_options_are_checked(make: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        make()
