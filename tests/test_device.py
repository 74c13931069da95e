"""Handlers on a device: what they get, whose answer is whose, errors, ends; here in main memory, `device="cpu"`."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from carpool import BatchLengthError, CollateError, SetupError, batched
from carpool.collate import Pad, Stack
from gates import LIMIT
from test_collate_handlers import Held

torch = pytest.importorskip("torch")


def test_the_handler_gets_tensors_and_each_caller_a_row() -> None:
    threads = set()

    @batched(max_batch_size=8, collate=Pad({"x": 0}, mask="m"), device="cpu")
    def handler(batch: Any) -> Any:
        threads.add(threading.current_thread().name)
        assert isinstance(batch["x"], torch.Tensor)
        return {"sum": batch["x"].sum(1), "mask": batch["m"]}

    futures = [handler.submit({"x": np.arange(n)}) for n in range(1, 40)]
    for n, future in enumerate(futures, 1):
        row = future.result(LIMIT)
        assert int(row["sum"]) == sum(range(n))
        assert int(row["mask"].sum()) == n
    # One thread alone ever runs it.
    assert threads == {"carpool handler 0"}
    assert handler.close(timeout=LIMIT)
    assert handler.stats.answered == 39


def test_context_and_setup_are_the_worker_s() -> None:
    seen = []

    @batched(
        collate=Stack(),
        device="cpu",
        setup=lambda: seen.append("setup"),
        context=torch.inference_mode,
    )
    def handler(batch: Any) -> Any:
        seen.append(torch.is_inference_mode_enabled())
        return batch

    assert [int(handler(n)) for n in range(3)] == [0, 1, 2]
    assert seen == ["setup", True, True, True]
    handler.close()


def test_misfits_wrong_lengths_and_errors_are_whose_they_are() -> None:
    def work(batch: Any) -> Any:
        if (batch == 9).any():
            raise ValueError("nine")
        return batch[:-1] if (batch == 7).any() else batch

    held = Held(work)

    @batched(collate=Stack(), device="cpu")
    def handler(batch: Any) -> Any:
        return held.call(batch)

    found = held.outcomes(handler, [1], [[1], ["no"], [2]])
    assert [int(found[0]), int(found[2])] == [1, 2]
    assert isinstance(found[1], CollateError)
    with pytest.raises(BatchLengthError):
        handler(7)
    with pytest.raises(ValueError, match="nine"):
        handler(9)
    assert int(handler(3)) == 3
    handler.close()


def test_out_of_memory_halves_the_batch() -> None:
    sizes = []

    def work(batch: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch * 2

    held = Held(work)

    @batched(collate=Stack(), device="cpu", max_batch_size=8)
    def handler(batch: Any) -> Any:
        return held.call(batch)

    found = held.outcomes(handler, [0], [[n] for n in range(5)])
    assert [int(one) for one in found] == [0, 2, 4, 6, 8]
    assert sizes == [1, 5, 2, 3, 1, 2]
    handler.close()


def test_a_lone_request_that_does_not_fit_the_memory_fails() -> None:
    @batched(collate=Stack(), device="cpu")
    def handler(batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        handler(1)
    handler.close()


def test_isolation_and_retries_go_with_a_device() -> None:
    held = Held(lambda batch: 1 // 0 if (batch == 3).any() else batch * 2)

    @batched(collate=Stack(), device="cpu", on_error="isolate", max_batch_size=8)
    def handler(batch: Any) -> Any:
        return held.call(batch)

    found = held.outcomes(handler, [0], [[n] for n in range(5)])
    assert [type(one) is ZeroDivisionError for one in found] == [n == 3 for n in range(5)]
    assert int(found[4]) == 8
    handler.close()


def test_several_devices_have_a_worker_each() -> None:
    gate = threading.Barrier(2, timeout=LIMIT)
    threads = set()

    @batched(collate=Stack(), device=["cpu", "cpu:0"], max_batch_size=1)
    def handler(batch: Any) -> Any:
        threads.add(threading.current_thread().name)
        gate.wait()
        return batch

    futures = [handler.submit(n) for n in range(4)]
    assert [int(future.result(LIMIT)) for future in futures] == [0, 1, 2, 3]
    assert threads == {"carpool handler 0", "carpool handler 1"}
    handler.close()


def test_answers_stay_what_they_were_also_as_views() -> None:
    @batched(collate=Stack(views=True), device="cpu", max_batch_size=4)
    def handler(batch: Any) -> Any:
        return batch

    kept = [handler.submit(np.full(50, n)) for n in range(60)]
    rows = [future.result(LIMIT) for future in kept]
    assert all((row == n).all() for n, row in enumerate(rows))
    handler.close()


def test_methods_batch_sizes_and_graphs_without_a_gpu() -> None:
    class Model:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @batched(collate=Stack(), device="cpu", batch_sizes=[1, 4], max_batch_size=4, graphs=True)
        def run(self, batch: Any) -> Any:
            assert len(batch) in (1, 4)
            return batch * self.factor

    model = Model(3)
    model.run.warmup(np.ones(2))
    assert [row.tolist() for row in model.run.rows(np.arange(6).reshape(3, 2))] == [
        [0, 3],
        [6, 9],
        [12, 15],
    ]
    model.run.close()


def test_a_device_that_is_not_there_is_every_caller_s_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")

    @batched(collate=Stack(), device="cuda")
    def handler(batch: Any) -> Any:
        return batch

    for _ in range(2):
        with pytest.raises(
            SetupError, match="finds no CUDA device here; device='cpu' runs the same"
        ):
            handler(1)
    assert not handler.healthy


def test_threads_end_with_the_batcher() -> None:
    @batched(collate=Stack(), device="cpu", name="ends")
    def handler(batch: Any) -> Any:
        return batch

    assert int(handler(1)) == 1
    there = {thread for thread in threading.enumerate() if "ends" in thread.name}
    assert {thread.name for thread in there} == {"carpool ends 0", "carpool ends cpu delivery"}
    assert handler.close(timeout=LIMIT)
    for thread in there:
        thread.join(LIMIT)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cpu"}, "give a collate, too"),
        ({"device": (), "collate": Stack()}, "name a device"),
        ({"device": 5, "collate": Stack()}, "device must be"),
        ({"device": "cpu", "collate": Stack(), "max_concurrent_batches": 2}, "depth says how many"),
        ({"device": "cpu", "collate": Stack(), "depth": 0}, "depth must be at least 1"),
        ({"device": "cpu", "collate": Stack(), "graphs": True}, "give device and batch_sizes"),
        (
            {"device": "cpu", "collate": Stack(), "executor": "caller"},
            "the handler is a plain `def`",
        ),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        batched(**options)(lambda batch: batch)


def test_an_async_handler_is_refused() -> None:
    with pytest.raises(TypeError, match="the handler is a plain `def`"):

        @batched(collate=Stack(), device="cpu")
        async def handler(batch: Any) -> Any:
            return batch
