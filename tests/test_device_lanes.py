"""Handlers on a device of the tests' own: memory that is written again, graphs, items that are there already."""

from __future__ import annotations

import contextlib
import gc
import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from carpool import BatchLengthError, HandlerError, batched
from carpool.collate import Pad, Ragged, Stack
from carpool.cuda import _arrivals
from carpool.cuda._lanes import CpuLanes, torch_of
from gates import LIMIT
from lanes import FakeLanes, OnDevice

torch = pytest.importorskip("torch")


class Pinned(CpuLanes):
    """Main memory twice: what goes up and comes down lies in memory of places, and graphs can be captured."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.inside: list[str] = []

    def stage(self, array: Any, place: Any) -> Any:
        tensor = torch_of(array)
        return tensor if not isinstance(tensor, torch.Tensor) else self._in(place, tensor)

    def upload(self, staged: Any) -> Any:
        return staged.clone() if isinstance(staged, torch.Tensor) else staged

    def download(self, tensor: Any, place: Any) -> Any:
        return self._in(place, tensor.detach())

    def _in(self, place: Any, tensor: Any) -> Any:
        size = tensor.element_size() * math.prod(tensor.shape)
        buffer = place.buffer(size, lambda: torch.empty(max(size, 4096), dtype=torch.uint8))
        staged = buffer[:size].view(tensor.dtype).view(tensor.shape)
        staged.copy_(tensor)
        return staged

    def is_on_device(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.inside.append("run")
        yield
        self.inside.pop()

    def capture(self, work: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        if self.refuses:
            raise RuntimeError(self.refuses)
        output = work()

        def replay() -> None:
            # As a graph does: the same work on the same tensors, its output where the first was.
            for to, of in zip(_flat(output), _flat(work()), strict=True):
                to.copy_(of)

        return replay, output


def _flat(value: Any) -> list[Any]:
    parts = value.values() if isinstance(value, dict) else value
    return [value] if isinstance(value, torch.Tensor) else list(parts)


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Has batchers with `device="cpu"` use other lanes."""

    def use(lanes: Any) -> Any:
        monkeypatch.setattr("carpool._handler.device.lanes_of", lambda device: lanes)
        return lanes

    return use


# -------------------------------------------------------------------------------------- memory


@dataclass
class Heads:
    rows: Any
    more: Any


OUTPUTS: dict[str, Callable[[Any], Any]] = {
    "array": lambda batch: batch * 1,
    "the batch": lambda batch: batch,
    "rows": list,
    "dict": lambda batch: {"a": batch * 1, "b": {"c": batch * 1}},
    "lists in a dict": lambda batch: {"a": list(batch), "b": (batch * 1, list(batch))},
    "list of dicts": lambda batch: [{"a": row} for row in batch],
    "list of tuples": lambda batch: [(row, [row * 1]) for row in batch],
    "dataclass": lambda batch: Heads(list(batch), batch * 1),
}


class Own:
    """Somebody's own collator, which gives views away."""

    def collate(self, items: Sequence[Any]) -> Any:
        return torch.stack([torch.as_tensor(item) for item in items])

    def split(self, output: Any, n: int, batch: Any = None) -> Any:
        rows: Any = Stack(views=True).split(output, n)
        return rows


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize(
    "collate", [Stack(), Stack(views=True), Own()], ids=["rows", "views", "own"]
)
def test_answers_lie_in_no_memory_that_is_written_again(
    kind: str, collate: Any, lanes: Callable[[Any], Any]
) -> None:
    lanes(Pinned())

    @batched(max_batch_size=4, collate=collate, device="cpu")
    def handler(batch: Any) -> Any:
        return OUTPUTS[kind](batch)

    futures = [handler.submit(np.full(5, n)) for n in range(60)]
    rows = [future.result(LIMIT) for future in futures]
    for n, row in enumerate(rows):
        found = _tensors(row)
        assert found
        assert all(tensor.tolist() == [n] * 5 for tensor in found), row
    handler.close()


def _tensors(value: Any) -> list[Any]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Heads):
        value = [value.rows, value.more]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in _tensors(part)]


def test_padding_is_cut_off_and_rows_per_token_go_back(lanes: Callable[[Any], Any]) -> None:
    lanes(Pinned())
    pad = batched(max_batch_size=4, collate=Pad(0, unpad=True), device="cpu")(lambda batch: batch)
    ragged = batched(max_batch_size=4, collate=Ragged(), device="cpu")(lambda batch: batch.values)
    sized = batched(max_batch_size=4, batch_sizes=[4], collate=Pad(0, unpad=True), device="cpu")(
        lambda batch: batch
    )
    for handler in (pad, ragged, sized):
        futures = [handler.submit(np.arange(n)) for n in range(1, 20)]
        rows = [future.result(LIMIT) for future in futures]
        assert [row.tolist() for row in rows] == [list(range(n)) for n in range(1, 20)]
        handler.close()


def test_a_split_that_stops_the_thread_is_the_batch_s_error(lanes: Callable[[Any], Any]) -> None:
    class Stops(Own):
        def split(self, output: Any, n: int, batch: Any = None) -> Any:
            raise SystemExit(3)

    for recovers in ({}, {"on_error": "isolate"}):
        handler = batched(collate=Stops(), device="cpu", **recovers)(lambda batch: batch)  # type: ignore[call-overload]
        for _ in range(3):
            with pytest.raises(HandlerError, match="SystemExit: 3"):
                handler.submit([1]).result(LIMIT)
        assert handler.close(timeout=LIMIT)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_too_few_and_too_many_rows_of_every_kind(kind: str, lanes: Callable[[Any], Any]) -> None:
    lanes(Pinned())
    found: list[Callable[[Any], Any]] = [
        lambda batch: batch[:0],
        lambda batch: torch.cat([batch, batch]),
    ]

    @batched(collate=Stack(), device="cpu")
    def handler(batch: Any) -> Any:
        return OUTPUTS[kind](found[0](batch))

    for _ in range(2):
        with pytest.raises(BatchLengthError):
            handler(np.ones(2))
        found.reverse()
    found.insert(0, lambda batch: batch)
    handler(np.ones(2))
    handler.close()


# -------------------------------------------------------------------------------------- graphs


def graphed(function: Callable[..., Any], **options: Any) -> Any:
    given = {"max_batch_size": 4, "batch_sizes": [1, 4], "collate": Stack(), **options}
    return batched(device="cpu", graphs=True, **given)(function)


def test_graphs_are_replayed_and_counted(lanes: Callable[[Any], Any]) -> None:
    lanes(Pinned())
    runs = []
    handler = graphed(lambda batch: runs.append(len(batch)) or batch * 2)
    handler.warmup(np.ones(3))
    rows = [handler(np.full(3, n)) for n in range(5)]
    assert [row.tolist() for row in rows] == [[2 * n] * 3 for n in range(5)]
    stats = handler.stats
    assert (stats.replayed, stats.eager) == (stats.batches, 0)
    assert stats.batches == 7
    handler.close()


def test_what_does_not_fit_a_graph_runs_as_it_is_and_is_counted(
    lanes: Callable[[Any], Any],
) -> None:
    lanes(Pinned("operation not permitted when stream is capturing"))
    handler = graphed(lambda batch: batch * 2)
    assert [handler(np.full(2, n)).tolist() for n in range(3)] == [[0, 0], [2, 2], [4, 4]]
    assert (handler.stats.replayed, handler.stats.eager) == (0, 3)
    handler.close()


def test_without_graphs_nothing_is_counted(lanes: Callable[[Any], Any]) -> None:
    lanes(Pinned())
    handler = batched(collate=Stack(), device="cpu")(lambda batch: batch)
    handler(1)
    assert (handler.stats.replayed, handler.stats.eager) == (0, 0)
    handler.close()


def test_what_a_graph_holds_as_a_constant_is_the_same_for_all_it_serves(
    lanes: Callable[[Any], Any],
) -> None:
    lanes(Pinned())
    handler = graphed(lambda batch, scale: batch * scale, shared=("scale",))
    for scale in (2, 3, 2, 2.0, -0.0, 0.0, True, 3):
        row = handler(np.ones(2), scale=scale)
        assert repr(row.tolist()) == repr([1.0 * scale] * 2), scale
    assert handler.stats.replayed == 8
    handler.close()


def test_forms_that_are_nested_differently_have_graphs_of_their_own(
    lanes: Callable[[Any], Any],
) -> None:
    lanes(Pinned())
    handler = graphed(lambda batch: batch["a"] - batch["b"] if "b" in batch else batch["c"])
    a, b = np.full(2, 5), np.full(2, 3)
    for _ in range(2):
        assert handler({"a": a, "b": b}).tolist() == [2, 2]
        assert handler({"b": a, "a": b}).tolist() == [-2, -2]
        assert handler({"a": a, "c": b}).tolist() == [3, 3]
    assert handler.stats.replayed == 6
    handler.close()


def test_the_longest_row_is_a_constant_too(lanes: Callable[[Any], Any]) -> None:
    lanes(Pinned())
    handler = graphed(
        lambda batch: batch.values * batch.max_seqlen, collate=Ragged(), batch_sizes=[1]
    )
    for n in (2, 3, 2):
        assert handler(np.ones(n)).tolist() == [n] * n
    handler.close()


def test_what_cannot_be_compared_runs_as_it_is(lanes: Callable[[Any], Any]) -> None:
    class WithList(Own):
        def collate(self, items: Sequence[Any]) -> Any:
            return {"x": super().collate(items), "n": {1, 2}}

    lanes(Pinned())
    handler = graphed(lambda batch: batch["x"], collate=WithList())
    assert handler([1, 2]).tolist() == [1, 2]
    assert handler.stats.eager == 1
    handler.close()


def test_what_a_handler_raises_at_its_first_batch_is_no_reason_to_give_graphs_up(
    lanes: Callable[[Any], Any],
) -> None:
    def positive(batch: Any) -> Any:
        if (batch < 0).any():
            raise RuntimeError("negative")
        return batch * 2

    lanes(Pinned())
    handler = graphed(positive)
    with pytest.raises(RuntimeError, match="negative"):
        handler(np.full(2, -1))
    assert handler(np.full(2, 1)).tolist() == [2, 2]
    assert (handler.stats.replayed, handler.stats.eager) == (1, 0)
    handler.close()


@pytest.mark.parametrize("graphs", [False, True])
def test_the_context_is_entered_with_graphs_and_without(
    graphs: bool, lanes: Callable[[Any], Any]
) -> None:
    lanes(Pinned())
    seen = []

    def look(batch: Any) -> Any:
        seen.append(torch.is_inference_mode_enabled())
        return batch * 2

    handler = batched(
        collate=Stack(),
        device="cpu",
        batch_sizes=[1],
        max_batch_size=1,
        graphs=graphs,
        context=torch.inference_mode,
    )(look)
    for n in range(3):
        assert handler(np.full(2, n)).tolist() == [2 * n] * 2
    assert seen
    assert all(seen)
    handler.close()


def test_graphs_keep_no_instance_alive(lanes: Callable[[Any], Any]) -> None:
    lanes(Pinned())

    class Model:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @batched(collate=Stack(), device="cpu", batch_sizes=[1], max_batch_size=1, graphs=True)
        def run(self, batch: Any) -> Any:
            return batch * self.factor

    one, other = Model(2), Model(3)
    for _ in range(2):
        assert (int(one.run(1)), int(other.run(1))) == (2, 3)
    assert (one.run.stats.replayed, other.run.stats.replayed) == (2, 2)
    assert other.run.close(timeout=LIMIT)
    assert one.run.close(timeout=LIMIT)
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


# --------------------------------------------------------------------------------------- setup


def test_setup_runs_where_its_device_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[Any] = []

    def lanes_of(device: str) -> Any:
        made = Pinned()
        devices.append(made)
        return made

    monkeypatch.setattr("carpool._handler.device.lanes_of", lanes_of)
    seen = []

    @batched(
        collate=Stack(),
        device="cpu",
        setup=lambda: seen.append([list(one.inside) for one in devices]),
    )
    def handler(batch: Any) -> Any:
        return batch

    assert [int(handler(n)) for n in range(2)] == [0, 1]
    assert seen == [[["run"]]]
    handler.close()


# -------------------------------------------------------------------- items that are there already


class Joined:
    """Joins tensors of the fake device."""

    def __init__(self, lanes: FakeLanes) -> None:
        self.lanes = lanes

    def collate(self, items: Sequence[OnDevice]) -> Any:
        return self.lanes.joined(items)

    def split(self, output: Any, n: int, batch: Any = None) -> list[Any]:
        return [row.copy() for row in output]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, lanes: Callable[[Any], Any]) -> FakeLanes:
    """A fake device whose callers' lane is marked wherever one of its tensors is submitted."""
    made: FakeLanes = lanes(FakeLanes(5))

    def marks(item: Any) -> list[Any]:
        values = item if isinstance(item, tuple) else (item,)
        found = any(isinstance(value, OnDevice) for value in values)
        return [made.mark("caller")] if found else []

    monkeypatch.setattr(_arrivals, "_marks", marks)
    return made


@pytest.mark.parametrize("options", [{}, {"on_error": "isolate"}, {"key": lambda item: item.shape}])
def test_tensors_of_callers_are_waited_for_whatever_way_they_come(
    fake: FakeLanes, options: dict[str, Any]
) -> None:
    @batched(max_batch_size=4, collate=Joined(fake), device="cpu", **options)
    def double(batch: Any) -> Any:
        return fake.compute(lambda x: x * 2, batch)

    def item(n: int) -> OnDevice:
        return fake.made_by_caller(np.full(3, n))

    futures = [double.submit(item(n)) for n in range(40)]
    assert [future.result(LIMIT)[0] for future in futures] == [2 * n for n in range(40)]
    assert [double(item(n))[0] for n in range(10)] == [2 * n for n in range(10)]
    assert [row[0] for row in double.map(item(n) for n in range(30))] == [2 * n for n in range(30)]
    assert [row[0] for row in double.rows([item(n) for n in range(9)])] == [2 * n for n in range(9)]
    double.close()


def test_several_parameters_and_shared_ones(fake: FakeLanes) -> None:
    @batched(max_batch_size=4, collate=Joined(fake), device="cpu", shared=("by",))
    def product(xs: Any, ys: Any, by: int = 2) -> Any:
        return fake.compute(lambda x: x * by, xs)

    def item(n: int) -> OnDevice:
        return fake.made_by_caller(np.full(3, n))

    futures = [product.submit(item(n), ys=item(n), by=n % 2 + 1) for n in range(40)]
    assert [future.result(LIMIT)[0] for future in futures] == [n * (n % 2 + 1) for n in range(40)]
    product.close()


def test_items_in_main_memory_carry_no_marks() -> None:
    item = {"x": [torch.ones(2), np.ones(2)]}
    assert _arrivals.arrived(item) is item
