"""Pad: widths, sides, axes, values, masks and lengths, and what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from carpool import CollateError
from carpool.collate import Pad
from test_collate import Sample, misfits

A, B = np.array([1, 2, 3]), np.array([4])


def test_sides() -> None:
    assert Pad(0).collate([A, B]).tolist() == [[1, 2, 3], [4, 0, 0]]
    assert Pad(9, side="left").collate([A, B]).tolist() == [[1, 2, 3], [9, 9, 4]]


@pytest.mark.parametrize(
    ("options", "width"),
    [
        ({}, 3),
        ({"multiple_of": 2}, 4),
        ({"multiple_of": 3}, 3),
        ({"multiple_of": 8, "max_length": 5}, 5),
        ({"buckets": (16, 4, 8)}, 4),
        ({"max_length": 3}, 3),
    ],
)
def test_widths(options: dict[str, Any], width: int) -> None:
    assert Pad(0, **options).collate([A, B]).shape == (2, width)
    # One row alone is as wide as its class.
    assert Pad(0, **options).collate([A]).shape == (1, width)


def test_too_long_is_that_callers_error() -> None:
    found = misfits(Pad(0, max_length=2), [A, B, B])
    assert found == {0: "the item: axis 0 of shape (3,) is longer than max_length=2"}
    found = misfits(Pad(0, buckets=[2, 1]), [{"x": A}, {"x": B}])
    assert found == {0: "x: axis 0 of shape (3,) is wider than the largest of buckets=(1, 2)"}


def test_truncation() -> None:
    assert Pad(0, max_length=2, truncate="right").collate([A, B]).tolist() == [[1, 2], [4, 0]]
    assert Pad(0, max_length=2, truncate="left").collate([A, B]).tolist() == [[2, 3], [4, 0]]
    made = Pad(0, max_length=2, truncate="left", side="left", mask="m", lengths="n").collate([A, B])
    assert made[0].tolist() == [[2, 3], [0, 4]]
    assert made[1].tolist() == [[1, 1], [0, 1]]
    assert made[2].tolist() == [2, 1]


def test_by_default_the_axes_that_differ() -> None:
    rows = [np.ones((2, 3, 4)), np.ones((1, 3, 5))]
    made = Pad(0, mask="m", lengths="n").collate(rows)
    assert made[0].shape == (2, 2, 3, 5)
    assert made[0][1, 1].sum() == 0
    assert made[1].shape == (2, 2, 5)
    assert made[1][0].tolist() == [[1, 1, 1, 1, 0]] * 2
    assert made[2].tolist() == [[2, 4], [1, 5]]


def test_axes_by_number_and_by_key() -> None:
    rows = [{"x": np.ones((2, 3)), "y": np.ones(2)}, {"x": np.ones((2, 4)), "y": np.zeros(2)}]
    made = Pad(0, axis={"x": -1}, multiple_of=8).collate(rows)
    assert made["x"].shape == (2, 2, 8)
    assert made["y"].shape == (2, 2)
    assert Pad(0, axis=(0, 1), multiple_of=4).collate([np.ones((2, 3))]).shape == (1, 4, 4)
    found = misfits(Pad(0, axis=1), [np.ones((2, 3)), np.ones((2, 9)), np.ones((3, 1))])
    assert list(found) == [2]
    assert "shape beyond the padded axes (3,)" in found[2]
    found = misfits(Pad(0, axis={"x": 0}), [{"x": A, "y": B}, {"x": A, "y": A}])
    assert list(found) == [1]
    with pytest.raises(CollateError, match=r"items of rank 1 have no axis 1"):
        Pad(0, axis=1).collate([A, B])


def test_values_by_key_and_nested_keys() -> None:
    items = [{"a": {"b": A}, "c": A * 1.0, "n": 1}, {"a": {"b": B}, "c": B * 1.0, "n": 2}]
    made = Pad({"a.b": -1, "c": 0.5}).collate(items)
    assert made["a"]["b"].tolist() == [[1, 2, 3], [4, -1, -1]]
    assert made["c"].tolist() == [[1, 2, 3], [4, 0.5, 0.5]]
    assert made["n"].tolist() == [1, 2]


def test_keys_that_are_no_strings() -> None:
    for _ in range(2):
        made = Pad({1: 7, 2: 8}, axis={1: 0, "2": 0}).collate([{1: A, 2: B}, {1: B, 2: A}])  # type: ignore[dict-item]
        assert made[1].tolist() == [[1, 2, 3], [4, 7, 7]]
        assert made[2].tolist() == [[4, 8, 8], [1, 2, 3]]
    assert Pad({0: 7, "1": 8}).collate([(A, B), (B, A)])[1].tolist() == [[4, 8, 8], [1, 2, 3]]  # type: ignore[dict-item]


def test_if_nobody_fits_each_hears_why() -> None:
    for options in ({}, {"axis": 0}, {"axis": {"x": -1}}, {"max_length": 2}):
        with pytest.raises(CollateError) as caught:
            Pad(0, **options).collate([{"x": "a"}, {"x": None}])
        said = {at: str(error) for at, error in caught.value.misfits.items()}
        assert said[0].startswith("x: a str is no array")
        assert said[1].startswith("x: a NoneType is no array")


def test_a_missing_value_is_told_at_the_first_batch() -> None:
    with pytest.raises(CollateError, match=r"c: there is no pad value for this key") as caught:
        Pad({"a": 0}).collate([{"a": A, "c": A}])
    assert not caught.value.misfits


@pytest.mark.parametrize(
    ("value", "dtype", "held"),
    [
        (0, "float32", True),
        (0.0, "int64", True),
        (0.5, "int64", False),
        (-1, "uint8", False),
        (300, "uint8", False),
        (2, "bool", False),
        (True, "bool", True),
        (float("nan"), "float16", True),
        (float("nan"), "int32", False),
        (float("-inf"), "float32", True),
        (1e9, "float16", False),
        (0.1, "float32", True),
        (1j, "complex64", True),
        (1j, "float32", False),
        (0, "<U3", False),
        (np.int64(3), "int16", True),
    ],
)
def test_a_value_that_the_dtype_cannot_hold_is_an_error(value: Any, dtype: str, held: bool) -> None:
    rows = [np.zeros(2).astype(dtype), np.zeros(1).astype(dtype)]
    if held:
        made = Pad(value).collate(rows)
        assert made.dtype == np.dtype(dtype)
        assert np.array_equal(made[1, 1], np.array(value, dtype), equal_nan=dtype != "bool")
    else:
        with pytest.raises(CollateError, match="cannot be held by"):
            Pad(value).collate(rows)


def test_masks() -> None:
    made = Pad(0, mask="m", mask_dtype="bool", multiple_of=4).collate([{"n": 1, "x": A, "y": B}])
    assert made["m"].dtype == np.bool_
    assert made["m"].tolist() == [[True, True, True, False]]
    assert Pad(0, mask="m", mask_dtype=np.float32).collate([A])[1].dtype == np.float32  # type: ignore[arg-type]
    _, mask = Pad(0, mask="m").collate([A, B])
    assert mask.dtype == np.int64
    inner, mask = Pad(0, mask="m").collate([Sample(A, 0), Sample(B, 1)])
    assert type(inner) is Sample
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_mask_of_items_of_two_axes_that_agree() -> None:
    made = Pad(0, mask="m", lengths="n").collate([np.ones((2, 3))] * 2)
    assert made[1].tolist() == [[1, 1], [1, 1]]
    assert made[2].tolist() == [2, 2]


def test_names_that_are_taken_and_masks_of_nothing() -> None:
    with pytest.raises(CollateError, match="x: the items carry this key already"):
        Pad(0, mask="x").collate([{"x": A}])
    with pytest.raises(CollateError, match="no key is padded"):
        Pad(0, mask="m").collate([{"x": 1}])
    with pytest.raises(CollateError, match="mask_dtype: numpy has no dtype 'bfloat16'"):
        Pad(0, mask="m", mask_dtype="bfloat16").collate([A])


def test_empty_rows() -> None:
    made = Pad(5, mask="m").collate([A[:0], B])
    assert made[0].tolist() == [[5], [4]]
    assert made[1].tolist() == [[0], [1]]
    assert Pad(5).collate([A[:0], A[:0]]).shape == (2, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"side": "up"}, "side must be one of"),
        ({"truncate": "right"}, "give that, too"),
        ({"truncate": "up", "max_length": 2}, "truncate must be one of"),
        ({"multiple_of": 0}, "multiple_of must be at least 1"),
        ({"multiple_of": True}, "multiple_of must be an int"),
        ({"max_length": 1.5}, "max_length must be an int"),
        ({"buckets": ()}, "buckets must be widths"),
        ({"buckets": (0,)}, "at least 1"),
        ({"buckets": (8,), "multiple_of": 8}, "give one of them"),
        ({"axis": "x"}, "axis must be an int"),
        ({"axis": {"x": None}}, "axis must name an axis"),
        ({"mask": 3}, "mask must be the name of a key"),
        ({"mask": "m", "lengths": "m"}, "both called 'm'"),
        ({"unpad": 3}, "unpad must be True, False or names of heads"),
        ({"unpad": ["x", 3]}, "unpad must be True, False or names of heads"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        Pad(0, **options)
