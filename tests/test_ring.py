"""The ring: batches on their way to a device and back, over lanes that finish late and reuse what is let go of.

The lanes here are fakes. What is put on one happens at random moments, in no order but its own and that of marks; memory
that nobody keeps is handed out again at once, and host memory is read and written only when a copy really happens. A
batch that meets another's numbers was reused too soon.
"""

from __future__ import annotations

import contextlib
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from carpool.cuda import Pace, Ring, lanes_of
from gates import LIMIT


class FakeMark:
    def __init__(self, lanes: FakeLanes) -> None:
        self.lanes = lanes
        self.passed = False

    def done(self) -> bool:
        return self.passed

    def wait(self) -> None:
        self.lanes.go_until(self)


class OnDevice:
    """A tensor of the fake device: numbers in a cell of its memory."""

    def __init__(self, lanes: FakeLanes, lane: str, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.keeps: set[str] = set()
        self.cell = lanes.cell(lane, int(np.prod(shape)))
        weakref.finalize(self, lanes.free, lane, self.cell, self.keeps)


class FakeLanes:
    """A device whose work happens at random moments."""

    def __init__(self, seed: int, without: str = "") -> None:
        self.random = random.Random(seed)
        self.without = without
        self.lock = threading.RLock()
        self.lanes: dict[str, deque[Any]] = {"up": deque(), "run": deque(), "down": deque()}
        self.let_go: dict[str, list[tuple[Any, list[FakeMark]]]] = {"up": [], "run": []}

    # --------------------------------------------------------------------------- the device

    def put(self, lane: str, work: Any) -> None:
        with self.lock:
            self.lanes[lane].append(work)
            for _ in range(self.random.choice((0, 0, 0, 1, 2, 5))):
                self.step()

    def step(self) -> bool:
        """Does what is first on some lane; False where nothing can be done."""
        ready = [
            lane
            for lane in self.lanes.values()
            if lane and not (isinstance(lane[0], tuple) and not lane[0][1].passed)
        ]
        if not ready:
            return False
        work = self.random.choice(ready).popleft()
        if isinstance(work, FakeMark):
            work.passed = True
        elif not isinstance(work, tuple):
            work()
        return True

    def go_until(self, mark: FakeMark) -> None:
        with self.lock:
            while not mark.passed:
                assert self.step(), "the lanes wait for one another"

    def cell(self, lane: str, size: int) -> Any:
        """Memory for the work of a lane: what was let go of first."""
        with self.lock:
            for at, (cell, keeps) in enumerate(self.let_go[lane]):
                if len(cell) == size and all(mark.passed for mark in keeps):
                    del self.let_go[lane][at]
                    return cell
            return np.full(size, -1)

    def free(self, lane: str, cell: Any, keeps: set[str]) -> None:
        with self.lock:
            marks = [FakeMark(self) for _ in keeps]
            for other, mark in zip(keeps, marks, strict=True):
                self.lanes[other].append(mark)
            self.let_go[lane].insert(0, (cell, marks))

    # ----------------------------------------------------------------------- what a ring asks

    def stage(self, array: Any, place: Any) -> Any:
        if not isinstance(array, np.ndarray):
            return array
        buffer = place.buffer(array.size, lambda: np.full(max(array.size, 16), -2))
        staged = buffer[: array.size].reshape(array.shape)
        staged[...] = array
        return staged

    def upload(self, staged: Any) -> Any:
        if not isinstance(staged, np.ndarray):
            return staged
        tensor = OnDevice(self, "up", staged.shape)
        cell = tensor.cell
        self.put("up", lambda: np.copyto(cell, staged.reshape(-1)))
        return tensor

    def mark(self, lane: str) -> FakeMark:
        mark = FakeMark(self)
        if self.without == f"mark {lane}":
            mark.passed = True
        else:
            self.put(lane, mark)
        return mark

    def follow(self, lane: str, mark: Any) -> None:
        if self.without != f"follow {lane}":
            self.put(lane, ("follow", mark))

    def running(self) -> Any:
        return contextlib.nullcontext()

    def keep(self, tensor: Any, lane: str) -> None:
        if isinstance(tensor, OnDevice) and self.without != f"keep {lane}":
            tensor.keeps.add(lane)

    def is_on_device(self, value: Any) -> bool:
        return isinstance(value, OnDevice)

    def download(self, tensor: OnDevice, place: Any) -> Any:
        size = len(tensor.cell)
        buffer = place.buffer(size, lambda: np.full(max(size, 16), -3))
        cell, host = tensor.cell, buffer[:size].reshape(tensor.shape)
        self.put("down", lambda: np.copyto(host, cell.reshape(host.shape)))
        return host

    # --------------------------------------------------------------------------- the handler

    def compute(self, function: Callable[[Any], Any], tensor: OnDevice) -> OnDevice:
        made = OnDevice(self, "run", tensor.shape)
        given, cell = tensor.cell, made.cell
        self.put("run", lambda: np.copyto(cell, function(given)))
        return made


def go(lanes: FakeLanes, depth: int, count: int) -> tuple[int, list[int]]:
    """Sends batches through a ring; how many came back wrong, and the order in which they came."""
    ring = Ring(lanes, depth)  # type: ignore[arg-type]
    wrong, order = 0, []
    all_there = threading.Event()

    def send(number: int) -> None:
        sizes = lanes.random.choice(((2, 3), (3, 2), (2, 4)))
        batch = {"x": np.full(sizes, number), "y": np.arange(6) + number, "n": number}
        expected = {"x": batch["x"] * 2, "z": (batch["y"] + 1) * 2, "n": number}  # type: ignore[operator]

        def handler(tensors: Any) -> Any:
            doubled = lanes.compute(lambda x: x * 2, tensors["x"])
            more = lanes.compute(lambda y: y + 1, tensors["y"])
            return {"x": doubled, "z": lanes.compute(lambda y: y * 2, more), "n": tensors["n"]}

        def deliver(host: Any, error: BaseException | None) -> None:
            nonlocal wrong
            wrong += error is not None or not all(
                np.array_equal(host[key], expected[key]) for key in expected
            )
            order.append(number)
            if len(order) == count:
                all_there.set()

        ring.run(batch, handler, deliver)
        ring.wait_turn()

    for number in range(count):
        send(number)
    assert all_there.wait(LIMIT)
    ring.close()
    return wrong, order


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_every_batch_comes_back_as_its_own_and_in_order(seed: int, depth: int) -> None:
    wrong, order = go(FakeLanes(seed), depth, 120)
    assert wrong == 0
    assert order == list(range(120))


@pytest.mark.parametrize(
    "without", ["follow run", "follow down", "keep run", "keep down", "mark down"]
)
def test_without_any_one_of_its_cares_batches_get_mixed_up(without: str) -> None:
    # When threads take turns differs from run to run; sooner or later it shows.
    assert any(go(FakeLanes(seed, without), 2, 120)[0] for seed in range(400))


def test_no_more_batches_are_on_their_way_than_there_are_places() -> None:
    lanes = FakeLanes(1)
    ring = Ring(lanes, 2, start=lambda run: None)  # type: ignore[arg-type]
    for _ in range(2):
        ring.run({"x": np.ones(3)}, lambda tensors: tensors["x"], lambda host, error: None)
    assert ring.in_flight == 2
    waits = threading.Thread(target=ring.wait_turn)
    waits.start()
    ring.close()
    ring._deliver_all()
    waits.join(LIMIT)
    assert not waits.is_alive()
    assert ring.in_flight == 0


def test_a_handler_that_raises_leaves_its_place_to_the_next() -> None:
    lanes = FakeLanes(2)
    ring = Ring(lanes, 1)  # type: ignore[arg-type]
    said: list[Any] = []
    there = threading.Event()

    def broken(tensors: Any) -> Any:
        raise KeyError("broken")

    for number in range(20):
        with pytest.raises(KeyError):
            ring.run({"x": np.full(3, -number)}, broken, lambda host, error: said.append(error))
    assert ring.in_flight == 0

    def deliver(host: Any, error: Any) -> None:
        said.append(host.tolist())
        there.set()

    ring.run({"x": np.arange(3)}, lambda tensors: tensors["x"], deliver)
    assert there.wait(LIMIT)
    assert said == [[0, 1, 2]]
    ring.close()


def test_what_the_device_reports_late_reaches_the_batch() -> None:
    class Failing(FakeLanes):
        def mark(self, lane: str) -> Any:
            mark = super().mark(lane)
            if lane == "down":
                mark.wait = self.fail  # type: ignore[method-assign]
            return mark

        def fail(self) -> None:
            raise RuntimeError("device-side assert")

    ring = Ring(Failing(3), 2)  # type: ignore[arg-type]
    said: list[Any] = []
    there = threading.Event()

    def deliver(host: Any, error: Any) -> None:
        said.append((host, str(error)))
        there.set()

    ring.run({"x": np.ones(2)}, lambda tensors: tensors["x"], deliver)
    assert there.wait(LIMIT)
    assert said == [(None, "device-side assert")]
    ring.close()


# ---------------------------------------------------------------------------------------- pace


def test_the_pace_holds_the_next_batch_until_the_device_is_about_to_be_free() -> None:
    pace = Pace()
    assert pace.hold(0.0) == 0
    pace.staged(0.01)
    pace.begun(1.0)
    assert pace.hold(1.0) == 0  # nothing is known of how long batches run
    pace.ended(2.0, others=False)
    pace.staged(0.01)
    pace.begun(5.0)
    assert pace.hold(5.0) == pytest.approx(1.0 - 0.02)
    assert pace.hold(5.5) == pytest.approx(0.5 - 0.02)
    assert pace.hold(5.99) == 0
    assert pace.hold(9.0) == 0


def test_a_batch_behind_another_begins_when_that_has_ended() -> None:
    pace = Pace()
    pace.staged(0.0)
    pace.begun(0.0)
    pace.begun(0.1)
    pace.ended(1.0, others=True)
    assert pace.hold(1.0) == pytest.approx(1.0)
    pace.ended(2.0, others=False)
    assert pace.hold(2.0) == 0


# ------------------------------------------------------------------------------------- devices


def test_a_device_that_is_not_there_explains_itself() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match="only 'cpu' and 'cuda'"):
        lanes_of("meta")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="finds no CUDA device here; device='cpu' runs"):
            lanes_of("cuda")
