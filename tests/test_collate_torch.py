"""Collate: torch tensors, with every dtype exactly as it came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from carpool.collate import Pad, Ragged, Stack
from test_collate import misfits

torch = pytest.importorskip("torch")

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


def bits(tensor: Any) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).tolist())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("side", ["right", "left"])
def test_every_dtype_comes_through_bit_by_bit(dtype: Any, side: Any) -> None:
    rows = [torch.tensor(value).to(dtype) for value in ([1, 0, 1], [1])]
    for _ in range(3):  # the first batch of a kind goes another way than the next
        made = Pad(1, side=side).collate(rows)
        assert made.dtype == dtype
        assert made.shape == (2, 3)
        kept = made[1, :1] if side == "right" else made[1, 2:]
        assert bits(made[0]) == bits(rows[0])
        assert bits(kept) == bits(rows[1])
        one = torch.tensor([1, 1]).to(dtype)
        assert bits(made[1, 1:] if side == "right" else made[1, :2]) == bits(one)
        assert bits(Stack().collate([rows[0], rows[0]])) == bits(rows[0]) * 2
        ragged = Ragged().collate(rows)
        assert bits(ragged.values) == bits(rows[0]) + bits(rows[1])
        assert ragged.cu_seqlens.dtype == torch.int32


def test_tensors_in_tensors_out() -> None:
    batch = Pad(0, mask="m", lengths="n").collate([{"x": torch.ones(2)}, {"x": torch.ones(1)}])
    assert all(isinstance(value, torch.Tensor) for value in batch.values())
    assert batch["m"].dtype == torch.int64
    rows = Stack().split(batch, 2)
    assert isinstance(rows[0]["x"], torch.Tensor)
    assert rows[0]["x"].data_ptr() != batch["x"].data_ptr()
    assert rows[0]["x"].untyped_storage().nbytes() == 8


class Offers:
    """Another library's array, known by DLPack alone."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __dlpack__(self, **asked: Any) -> Any:
        return self.held.__dlpack__(**asked)

    def __dlpack_device__(self) -> Any:
        return self.held.__dlpack_device__()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float32], ids=str)
def test_what_offers_numbers_that_numpy_has_not_becomes_a_tensor(dtype: Any) -> None:
    rows = [torch.tensor([1, 0.5]).to(dtype), torch.tensor([0, 2]).to(dtype)]
    for _ in range(3):
        made = Stack().collate([Offers(row) for row in rows])
        if dtype is torch.float32:
            assert made.dtype == np.float32
            made = torch.from_numpy(made)
        assert made.dtype == dtype
        assert bits(made) == bits(rows[0]) + bits(rows[1])


def test_what_nobody_can_read_says_so() -> None:
    class Refuses(Offers):
        def __dlpack__(self, **asked: Any) -> Any:
            raise BufferError("not today")

    found = misfits(Stack(), [np.ones(1), Refuses(np.ones(1)), np.ones(1)])
    assert found == {1: "the item: a Refuses cannot be read through DLPack: not today"}


def test_kinds_do_not_mix() -> None:
    found = misfits(Stack(), [torch.ones(2), np.ones(2, "float32"), torch.ones(2)])
    assert list(found) == [1]
    assert "the kind array" in found[1]
    assert "tensor on cpu" in found[1]
    assert list(misfits(Stack(), [torch.ones(1), torch.ones(1).half(), torch.ones(1)])) == [1]


@pytest.mark.parametrize(
    ("value", "dtype", "held"),
    [
        (0.5, torch.int64, False),
        (300, torch.uint8, False),
        (1e6, torch.float8_e4m3fn, False),
        (float("nan"), torch.bfloat16, True),
        (float("inf"), torch.int32, False),
        (2, torch.bool, False),
        (float("-inf"), torch.float16, True),
        (1e9, torch.float16, False),
        (0.1, torch.bfloat16, True),
        (1j, torch.float32, False),
    ],
)
def test_pad_values(value: Any, dtype: Any, held: bool) -> None:
    from carpool import CollateError

    rows = [torch.zeros(2).to(dtype), torch.zeros(1).to(dtype)]
    if held:
        made = Pad(value).collate(rows)[1, 1]
        assert bits(made) == bits(torch.tensor(value, dtype=dtype))
    else:
        with pytest.raises(CollateError, match="cannot be held by torch"):
            Pad(value).collate(rows)


def test_gradients_stay_behind_and_odd_layouts_are_refused() -> None:
    for _ in range(3):
        made = Stack().collate(
            [torch.ones(2, requires_grad=True), torch.nn.Parameter(torch.ones(2))]
        )
        assert not made.requires_grad
    found = misfits(Stack(), [torch.ones(2), torch.ones(2), torch.ones(2).to_sparse()])
    assert "only dense ones can" in found[2]


def test_views_that_are_lazily_conjugated_or_negated() -> None:
    value = torch.tensor([1 + 2j, 3 - 1j])
    stack = Stack()
    for _ in range(3):
        made = stack.collate([value.conj(), value])
        assert made.tolist() == [[1 - 2j, 3 + 1j], [1 + 2j, 3 - 1j]]
        made = stack.collate([value.conj().imag, value.imag])
        assert made.tolist() == [[-2, 1], [2, -1]]


def test_padding_is_cut_off_tensors() -> None:
    pad = Pad(0, unpad=True)
    for _ in range(3):
        batch = pad.collate([torch.arange(2), torch.arange(3)])
        assert [row.tolist() for row in pad.split(batch, 2, batch)] == [[0, 1], [0, 1, 2]]
        assert pad.split(batch, 2, batch)[0].untyped_storage().nbytes() == 16
    ragged = Ragged()
    flat = ragged.collate([torch.arange(2), torch.arange(3)])
    assert [row.tolist() for row in ragged.split(flat.values, 2, flat)] == [[0, 1], [0, 1, 2]]
