"""A device of the tests' own: lanes that finish late, and reuse what is let go of.

What is put on a lane happens at random moments, in no order but its own and that of marks; memory that nobody keeps
is handed out again at once, and host memory is read and written only when a copy really happens. A batch that
meets another's numbers was reused too soon.
"""

from __future__ import annotations

import contextlib
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


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
        names = ("up", "run", "down", "caller")
        self.lanes: dict[str, deque[Any]] = {name: deque() for name in names}
        self.let_go: dict[str, list[tuple[Any, list[FakeMark]]]] = {name: [] for name in names}

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

    @contextlib.contextmanager
    def receiving(self, marks: Sequence[Any], tensors: Sequence[Any]) -> Any:
        for mark in marks:
            self.follow("up", mark)
        for tensor in tensors:
            self.keep(tensor, "up")
        yield

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

    # --------------------------------------------------------------- callers and the handler

    def made_by_caller(self, numbers: Any) -> OnDevice:
        """A tensor of a caller's, who has put on its own lane what makes it."""
        made = OnDevice(self, "caller", numbers.shape)
        cell = made.cell
        self.put("caller", lambda: np.copyto(cell, numbers.reshape(-1)))
        return made

    def joined(self, tensors: Sequence[OnDevice]) -> OnDevice:
        """Their numbers one after the other; put on "up"."""
        size = sum(len(tensor.cell) for tensor in tensors)
        made = OnDevice(self, "up", (len(tensors), size // len(tensors)))
        cells, cell = [tensor.cell for tensor in tensors], made.cell
        self.put("up", lambda: np.copyto(cell, np.concatenate(cells)))
        return made

    def compute(self, function: Callable[[Any], Any], tensor: OnDevice) -> OnDevice:
        made = OnDevice(self, "run", tensor.shape)
        given, cell = tensor.cell, made.cell
        self.put("run", lambda: np.copyto(cell, function(given)))
        return made
