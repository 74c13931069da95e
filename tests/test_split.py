"""Split: rows of arrays, tensors, dicts, tuples and lists; padding cut off; lengths that are wrong."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from carpool import BatchLengthError
from carpool.collate import Lists, Pad, Ragged, RaggedBatch, Stack
from test_collate import Pair, Sample


def test_rows_of_heads_nested() -> None:
    out = {
        "a": np.arange(6).reshape(3, 2),
        "b": (np.arange(3), ["x", "y", "z"]),
        "c": Pair(np.arange(3) * 1.0, None),
        "d": Sample(np.ones((3, 1)), [1, 2, 3]),
    }
    rows = Stack().split(out, 3)
    assert len(rows) == 3
    row = rows[1]
    assert list(row) == ["a", "b", "c", "d"]
    assert row["a"].tolist() == [2, 3]
    assert row["b"] == (1, "y")
    assert row["c"] == Pair(1.0, None)
    assert type(row["d"]) is Sample
    assert row["d"].label == 2


def test_rows_are_copies_unless_views_are_asked_for() -> None:
    out = np.arange(6).reshape(3, 2)
    assert all(not np.shares_memory(row, out) for row in Stack().split(out, 3))
    assert all(np.shares_memory(row, out) for row in Stack(views=True).split(out, 3))
    kept = Stack().split(out, 3)[0]
    gone = weakref.ref(out)
    del out
    gc.collect()
    assert gone() is None
    assert kept.tolist() == [0, 1]


@pytest.mark.parametrize(
    "out",
    [
        np.array(["a", {"b": 1}], object),
        np.array([["a", 1], [None, 2]], object),
        np.array(["a", "b"]),
        np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.zeros(2, "V3"),
        np.ma.masked_array([[1, 2], [3, 4]], [[True, False], [False, True]]),
    ],
    ids=lambda out: str(out.dtype),
)
def test_arrays_of_whatever_there_is(out: Any) -> None:
    rows = Stack().split({"x": out}, 2)
    for at, row in enumerate(rows):
        assert str(row["x"]) == str(out[at])
        if isinstance(row["x"], (np.ndarray, np.void)):
            assert not np.shares_memory(row["x"], out)


def test_strings_of_any_length() -> None:
    kind = getattr(np.dtypes, "StringDType", None)
    if kind is None:
        pytest.skip("numpy 1 has none")
    assert Stack().split(np.array(["a", "bc"], dtype=kind()), 2) == ["a", "bc"]


def test_a_list_of_parts_of_an_array_does_not_keep_it() -> None:
    out = np.arange(6).reshape(3, 2)
    for collator in (Stack(), Lists(), Pad(0), Ragged()):
        rows = collator.split({"x": list(out), "y": [1, 2, 3]}, 3)
        assert not any(np.shares_memory(row["x"], out) for row in rows)
        assert [row["x"].tolist() for row in rows] == out.tolist()
    own = [row.copy() for row in out]
    assert all(one is other for one, other in zip(Stack().split(own, 3), own, strict=True))
    assert all(np.shares_memory(row, out) for row in Stack(views=True).split(list(out), 3))


def test_rows_of_tensors_keep_neither_the_output_nor_its_graph() -> None:
    torch = pytest.importorskip("torch")
    out = torch.ones(4, 100, requires_grad=True) * 2
    for made in (out, list(out), out.detach(), list(out.detach())):
        rows = Stack().split(made, 4)
        assert [row.untyped_storage().nbytes() for row in rows] == [400] * 4
        assert not any(row.requires_grad for row in rows)
    own = [torch.ones(2), torch.eye(2).to_sparse()]
    assert all(one is other for one, other in zip(Stack().split(own, 2), own, strict=True))


def test_a_list_is_rows_or_by_choice_heads() -> None:
    heads = [np.arange(2), np.arange(2) * 10]
    assert [row.tolist() for row in Stack().split(heads, 2)] == [[0, 1], [0, 10]]
    assert Stack(lists="heads").split(heads, 2) == [[0, 0], [1, 10]]
    assert Lists(lists="heads").split(heads, 2) == [[0, 0], [1, 10]]


@pytest.mark.parametrize(
    "out",
    [
        None,
        5,
        np.float64(1),
        np.array(1),
        np.ones(2),
        np.ones(4),
        [1, 2],
        [1, 2, 3, 4],
        (),
        {},
        {"a": np.ones(3), "b": np.ones(2)},
        (np.ones(3), (np.ones(3), np.ones(4))),
        "abc",
        iter([1, 2, 3]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("collator", [Lists(), Stack(), Pad(0), Ragged()], ids=repr)
def test_too_few_and_too_many_rows(collator: Any, out: Any) -> None:
    with pytest.raises(BatchLengthError):
        collator.split(out, 3)


# -------------------------------------------------------------------------------------- unpad


def test_padding_is_cut_off_again() -> None:
    for side in ("right", "left"):
        pad = Pad(0, side=side, unpad=True, multiple_of=4)  # type: ignore[arg-type]
        batch = pad.collate([np.arange(3), np.arange(5)])
        rows = pad.split({"y": batch * 2, "z": np.stack([batch, batch], -1)}, 2, batch)
        assert rows[0]["y"].tolist() == [0, 2, 4]
        assert rows[1]["y"].tolist() == [0, 2, 4, 6, 8]
        assert rows[1]["z"].shape == (5, 2)
        assert not np.shares_memory(rows[0]["z"], batch)


def test_heads_are_cut_by_the_input_of_their_name() -> None:
    pad = Pad(0, unpad=("a", "b", "new"))
    batch = pad.collate([{"a": [1], "b": [1, 2, 3]}, {"a": [1, 2], "b": []}])
    out = {"a": batch["a"], "b": batch["b"], "new": batch["a"] * 2, "pooled": np.ones((2, 2))}
    rows = pad.split(out, 2, batch)
    assert [len(rows[0][name]) for name in out] == [1, 3, 1, 2]
    assert [len(rows[1][name]) for name in out] == [2, 0, 2, 2]


def test_several_axes_are_cut() -> None:
    pad = Pad(0, unpad=True)
    items = [np.ones((2, 3)), np.ones((4, 1))]
    batch = pad.collate(items)
    assert [row.shape for row in pad.split(batch, 2, batch)] == [(2, 3), (4, 1)]


def test_rows_beyond_the_items_are_cut_to_nothing() -> None:
    for axes, kept in ((None, (2,)), ((0, 1), (2, 3))):
        pad = Pad(0, axis=axes, unpad=True)
        batch = pad.collate([np.ones(kept)], size=3)
        rows = pad.split(batch, 3, batch)
        assert [row.shape for row in rows] == [kept, *[(0,) * len(kept)] * 2]


def test_what_cannot_be_cut_says_so() -> None:
    pad = Pad(0, unpad=True)
    batch = pad.collate([[1, 2], [3]])
    with pytest.raises(BatchLengthError, match="2 along axis 1 are needed"):
        pad.split(np.ones((2, 3)), 2, batch)
    with pytest.raises(BatchLengthError, match="needed"):
        pad.split(np.ones(2), 2, batch)
    with pytest.raises(BatchLengthError, match="needed"):
        pad.split(np.ones((1, 2)), 2, batch)
    for other in (None, batch.copy()):
        with pytest.raises(ValueError, match="needs the one collated here"):
            pad.split(batch, 2, other)


def test_what_is_remembered_of_a_batch_goes_with_it() -> None:
    pad = Pad(0, unpad=True)
    batch = pad.collate([{"a": [1]}, {"a": [1, 2]}])
    assert len(pad._notes) == 1
    del batch
    assert len(pad._notes) == 0


# ------------------------------------------------------------------------------------- ragged


def test_answers_per_token_go_back_by_length() -> None:
    ragged = Ragged()
    batch = ragged.collate([{"a": [1], "b": [1, 2]}, {"a": [1, 2], "b": [3]}])
    out = {"a": batch["a"].values, "b": batch["b"].values, "pooled": np.ones((2, 4))}
    first, second = ragged.split(out, 2, batch)
    assert (first["a"].tolist(), first["b"].tolist()) == ([1], [1, 2])
    assert (second["a"].tolist(), second["b"].tolist()) == ([1, 2], [3])
    assert second["pooled"].shape == (4,)


def test_a_ragged_output_goes_by_its_own_lengths() -> None:
    out = RaggedBatch(np.arange(5), np.array([0, 2, 5], "int32"), 3)
    assert [row.tolist() for row in Ragged().split({"x": out}, 2)[1].values()] == [[2, 3, 4]]
    with pytest.raises(BatchLengthError):
        Ragged().split(out, 3)


def test_rows_of_length_one_are_told_apart_by_choice() -> None:
    items = [[1], [2]]
    for answers, shape in ((None, (1,)), ("tokens", (1,)), ("items", ())):
        ragged = Ragged(answers=answers)
        batch = ragged.collate(items)
        assert ragged.split(batch.values, 2, batch)[0].shape == shape
    tokens = Ragged(answers="tokens")
    batch = tokens.collate([[1, 2], [3]])
    with pytest.raises(BatchLengthError, match="2 rows for 3 tokens"):
        tokens.split(np.ones(2), 2, batch)
