"""Collate, over random items: against slow references, and the fast way against the plain one."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carpool import CollateError
from carpool.collate import Pad, Ragged, Stack

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

Two = namedtuple("Two", "one other")


@dataclass
class Record:
    first: Any
    second: Any


DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
]
DTYPES += ["complex64", "complex128", ">i4", "M8[s]"]
TORCH = [
    "bool",
    "uint8",
    "int16",
    "int64",
    "bfloat16",
    "float16",
    "float32",
    "float64",
    "complex64",
]

checked = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def arrays(dtype: str) -> Any:
    """Arrays of this dtype by shape, filled with their own bytes; some of them not contiguous."""

    def make(shape: tuple[int, ...], seed: int, odd: bool) -> Any:
        random = np.random.default_rng(seed)
        room = tuple(2 * n for n in shape) if odd else shape
        made = random.integers(0, 2, room) if dtype == "bool" else random.integers(0, 100, room)
        made = np.asarray(made).astype(dtype)
        return made[(..., *(slice(None, None, -2) for _ in shape))] if odd else made

    return make


@st.composite
def structures(draw: Any, depth: int = 2) -> Any:
    """How items are nested; a leaf is (kind, dtype, rank)."""
    kind = draw(
        st.sampled_from(["leaf", "leaf", "dict", "tuple", "named", "record"][: 6 if depth else 2])
    )
    if kind == "leaf":
        tensors = torch is not None and draw(st.booleans())
        dtype = draw(st.sampled_from(TORCH if tensors else DTYPES))
        return ("tensor" if tensors else "array", dtype, draw(st.integers(0, 3)))
    inner = structures(depth - 1)
    if kind == "dict":
        keys = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True))
        return {key: draw(inner) for key in keys}
    if kind == "tuple":
        return ("tuple", *draw(st.lists(inner, min_size=1, max_size=3)))
    return [kind, draw(inner), draw(inner)]


def is_leaf(structure: Any) -> bool:
    return isinstance(structure, tuple) and structure[0] in ("array", "tensor")


def item(
    draw: Any, structure: Any, fixed: dict[int, tuple[int, ...]] | None, number: int = 0
) -> Any:
    """An item of this nesting; with `fixed`, leaves have the same shape each time."""
    if is_leaf(structure):
        kind, dtype, rank = structure
        shape = tuple(draw(st.lists(st.integers(0, 4), min_size=rank, max_size=rank)))
        if fixed is not None:
            shape = fixed.setdefault(id(structure), shape)
        seed, odd = draw(st.integers(0, 9999)), draw(st.booleans())
        if kind == "array":
            return arrays(dtype)(shape, seed, odd)
        base = arrays("int64")(shape, seed, odd).copy()
        made = torch.from_numpy(np.repeat(base, 2, -1) if odd and rank else base)
        made = made.to(getattr(torch, dtype))
        return made[..., ::2] if odd and rank else made
    if isinstance(structure, dict):
        return {key: item(draw, value, fixed) for key, value in structure.items()}
    if structure[0] == "tuple":
        return tuple(item(draw, value, fixed) for value in structure[1:])
    kind = Two if structure[0] == "named" else Record
    return kind(item(draw, structure[1], fixed), item(draw, structure[2], fixed))


@st.composite
def batches(draw: Any, same_shapes: bool = False) -> list[Any]:
    structure = draw(structures())
    fixed: dict[int, tuple[int, ...]] | None = {} if same_shapes else None
    return [item(draw, structure, fixed) for _ in range(draw(st.integers(1, 5)))]


def same(one: Any, other: Any) -> bool:
    """Bit by bit, with kinds, dtypes and nesting."""
    if isinstance(one, np.generic):  # a row of a flat array, in the machine's order of bytes
        return one == other and one.dtype == other.dtype.newbyteorder("=")
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Record):
        return same(one.first, other.first) and same(one.second, other.second)
    if torch is not None and isinstance(one, torch.Tensor):
        return (
            one.dtype == other.dtype and one.shape == other.shape and bool(torch.equal(one, other))
        )
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool(np.all(one == other))
    return bool(one == other)


class Plain:
    """A collator that goes the plain way alone."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def collate(self, items: list[Any], size: int) -> Any:
        return self.collator._plainly(items, size, learn=False)


@given(batches(same_shapes=True), st.integers(0, 2))
@checked
def test_stack_then_split_is_the_identity(items: list[Any], more: int) -> None:
    stack = Stack()
    for _ in range(3):
        batch = stack.collate(items, size=len(items) + more)
        rows = stack.split(batch, len(items) + more, batch)
        assert all(map(same, rows, items))


@given(batches(), st.sampled_from(["right", "left"]), st.integers(1, 3))
@checked
def test_pad_then_split_is_the_identity(items: list[Any], side: Any, multiple: int) -> None:
    pad = Pad(1, side=side, multiple_of=multiple, unpad=True, axis=None)
    outcome = outcome_of(pad, items)
    if isinstance(outcome, CollateError):
        # A date is padded with no number; there is no other reason.
        assert "cannot be held by datetime64" in str(outcome)
        return
    for _ in range(3):
        batch = pad.collate(items)
        assert all(map(same, pad.split(batch, len(items), batch), items))


def outcome_of(collator: Any, items: list[Any], size: int | None = None) -> Any:
    """A batch, or why there is none."""
    try:
        return collator.collate(items, size)
    except CollateError as error:
        return error


@given(
    batches(),
    st.sampled_from(["right", "left"]),
    st.sampled_from([None, "right", "left"]),
    st.sampled_from([{}, {"multiple_of": 4}, {"max_length": 3}, {"buckets": (2, 3)}]),
    st.sampled_from([None, 0, -1, (0, 1)]),
    st.booleans(),
    st.integers(0, 2),
)
@checked
def test_the_fast_way_is_the_plain_way(
    items: list[Any], side: Any, truncate: Any, widths: Any, axis: Any, extras: bool, more: int
) -> None:
    if truncate is not None and "max_length" not in widths:
        truncate = None
    names: Any = {"mask": "mask", "lengths": "lengths"} if extras else {}
    collators = [
        Pad(1, side=side, truncate=truncate, axis=axis, **widths, **names),
        Stack(),
        Ragged(),
    ]
    for collator in collators:
        size = len(items) + more
        expected = outcome_of(Plain(collator), items, size)
        for _ in range(3):
            found = outcome_of(collator, items, size)
            if isinstance(expected, CollateError):
                assert str(found) == str(expected)
            else:
                assert same(found, expected)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.booleans(), st.integers(1, 5))
@checked
def test_masks_and_lengths_agree_with_a_slow_reference(
    lengths: list[int], left: bool, multiple: int
) -> None:
    pad = Pad(-1, side="left" if left else "right", mask="m", lengths="n", multiple_of=multiple)
    items = [{"x": np.arange(n)} for n in lengths]
    width = -(-max(lengths) // multiple) * multiple
    for _ in range(3):
        made = pad.collate(items)
        assert made["x"].shape == made["m"].shape == (len(items), width)
        assert made["n"].tolist() == lengths
        for row, n in enumerate(lengths):
            empty = [0] * (width - n)
            ones = [1] * n
            assert made["m"][row].tolist() == (empty + ones if left else ones + empty)
            gap = [-1] * (width - n)
            own = list(range(n))
            assert made["x"][row].tolist() == (gap + own if left else own + gap)


@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
            st.lists(st.floats(allow_nan=False), max_size=4),
            st.lists(st.booleans(), max_size=4),
            st.integers(-(2**65), 2**65),
            st.floats(allow_nan=False),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    )
)
@checked
def test_numbers_and_lists_of_them(items: list[Any]) -> None:
    pad = Pad(0)
    outcomes = [outcome_of(pad, items) for _ in range(3)]
    if isinstance(outcomes[0], CollateError):
        assert len({str(one) for one in outcomes}) == 1
        left = [one for at, one in enumerate(items) if at not in outcomes[0].misfits]
        if left:
            pad.collate(left)
        return
    assert all(same(outcomes[0], one) for one in outcomes)
    for row, own in zip(outcomes[0], items, strict=True):
        kept = row[: len(own)].tolist() if isinstance(own, list) else row.item()
        assert kept == own
        if own != []:
            kind = type(own[0]) if isinstance(own, list) else type(own)
            assert outcomes[0].dtype == {int: "int64", float: "float64", bool: "bool"}[kind]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.booleans())
@checked
def test_ragged_then_split_is_the_identity(lengths: list[int], tensors: bool) -> None:
    ragged = Ragged(answers="tokens")
    items: list[Any] = [np.arange(2 * n).reshape(n, 2) for n in lengths]
    if tensors and torch is not None:
        items = [torch.from_numpy(one) for one in items]
    for _ in range(3):
        batch = ragged.collate(items)
        assert batch.cu_seqlens.tolist() == [0, *np.cumsum(lengths).tolist()]
        assert batch.max_seqlen == max(lengths)
        assert all(map(same, ragged.split(batch.values, len(items), batch), items))
