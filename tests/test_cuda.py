"""The same on a GPU; runs wherever there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from carpool import batched
from carpool.collate import Pad, Stack
from gates import LIMIT

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def test_batches_run_on_a_stream_of_ours_and_answers_come_back() -> None:
    streams = set()

    @batched(max_batch_size=16, collate=Pad({"x": 0}, mask="m"), device="cuda")
    def handler(batch: Any) -> Any:
        assert batch["x"].is_cuda
        streams.add(torch.cuda.current_stream().cuda_stream)
        return {"sum": batch["x"].sum(1), "mask": batch["m"]}

    futures = [handler.submit({"x": np.arange(n)}) for n in range(1, 400)]
    for n, future in enumerate(futures, 1):
        row = future.result(LIMIT)
        assert not row["sum"].is_cuda
        assert int(row["sum"]) == sum(range(n))
        assert int(row["mask"].sum()) == n
    assert len(streams) == 1
    assert torch.cuda.default_stream().cuda_stream not in streams
    assert handler.close(timeout=LIMIT)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.uint8])
def test_dtypes_come_through(dtype: Any) -> None:
    @batched(collate=Stack(), device="cuda")
    def handler(batch: Any) -> Any:
        return batch

    row = torch.tensor([1, 0, 1]).to(dtype)
    made = handler(row)
    assert made.dtype == dtype
    assert made.view(torch.uint8).tolist() == row.view(torch.uint8).tolist()
    handler.close()


def test_tensors_of_callers_on_the_device() -> None:
    @batched(collate=Stack(), device="cuda", max_batch_size=8)
    def handler(batch: Any) -> Any:
        return batch + 1

    futures = []
    for n in range(50):
        futures.append(handler.submit(torch.full((1000,), n, device="cuda") * 2))
    assert all((future.result(LIMIT) == 2 * n + 1).all() for n, future in enumerate(futures))
    handler.close()


def test_graphs_are_replayed_and_what_does_not_fit_runs_as_it_is() -> None:
    weight = torch.randn(64, 64, device="cuda")

    @batched(collate=Stack(), device="cuda", batch_sizes=[1, 4, 8], max_batch_size=8, graphs=True)
    def handler(batch: Any) -> Any:
        return batch @ weight

    handler.warmup(np.ones(64, "float32"))
    rows = [np.random.default_rng(n).normal(size=64).astype("float32") for n in range(100)]
    futures = [handler.submit(row) for row in rows]
    for row, future in zip(rows, futures, strict=True):
        expected = torch.from_numpy(row) @ weight.cpu()
        assert torch.allclose(future.result(LIMIT), expected, atol=1e-2)
    handler.close()


def test_out_of_memory_halves_the_batch() -> None:
    most = torch.cuda.mem_get_info()[0] // 4

    @batched(collate=Stack(), device="cuda", max_batch_size=8)
    def handler(batch: Any) -> Any:
        if len(batch) > 1:
            torch.empty(len(batch) * most * 4, dtype=torch.uint8, device="cuda")
        return batch

    futures = [handler.submit(n) for n in range(8)]
    assert [int(future.result(LIMIT)) for future in futures] == list(range(8))
    handler.close()
