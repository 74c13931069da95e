"""What is asked of CUDA, in which order: the lanes of a device over a CUDA that only takes notes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from carpool.cuda import _arrivals

torch = pytest.importorskip("torch")


class Notes:
    """A CUDA of two devices; what is current in this thread, and what was asked, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.made = 0
        self.current = {0: "default 0", 1: "default 1"}

    def stream(self, name: str) -> Any:
        return Stream(self, name)


class Stream:
    def __init__(self, notes: Notes, name: str) -> None:
        self.notes, self.name = notes, name

    def wait_event(self, event: Any) -> None:
        self.notes.said.append(f"{self.name} waits for {event.name}")


class Tensor:
    """A tensor on a device."""

    is_cuda = True

    def __init__(self, notes: Notes, device: int) -> None:
        self.notes, self.device = notes, torch.device("cuda", device)

    def record_stream(self, stream: Stream) -> None:
        self.notes.said.append(f"kept for {stream.name}")


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    notes = Notes()
    lanes = iter(("up", "run", "down"))

    class Event:
        def __init__(self, blocking: bool = False) -> None:
            self.blocking = blocking

        def record(self, stream: Stream) -> None:
            notes.made += 1
            self.name = f"mark {notes.made} of {stream.name}"

    @contextlib.contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        before, notes.current[0] = notes.current[0], chosen.name
        yield
        notes.current[0] = before

    @contextlib.contextmanager
    def graph(graph: Any, *, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        notes.said.append(f"capture on {stream.name}, {capture_error_mode}")
        yield

    class CUDAGraph:
        def replay(self) -> None:
            notes.said.append("replay")

    fakes = {
        "Stream": lambda device: notes.stream(next(lanes)),
        "Event": Event,
        "stream": stream,
        "graph": graph,
        "CUDAGraph": CUDAGraph,
        "device": lambda device: contextlib.nullcontext(),
        "current_stream": lambda device: notes.stream(notes.current[device.index]),
        "is_initialized": lambda: True,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch, "Tensor", Tensor)
    return notes


def lanes() -> Any:
    from carpool.cuda._streams import CudaLanes

    return CudaLanes(torch.device("cuda", 0))


def test_tensors_of_callers_are_read_on_up_behind_what_made_them(notes: Notes) -> None:
    notes.current.update({0: "caller 0", 1: "caller 1"})
    item = {"x": Tensor(notes, 0), "y": (Tensor(notes, 1), Tensor(notes, 0)), "n": 3}
    sent = _arrivals.arrived(item)
    assert _arrivals.plain(sent) is item
    assert sorted(mark.event.name.split(" of ")[1] for mark in sent.marks) == [
        "caller 0",
        "caller 1",
    ]
    # In the worker's thread others are current.
    notes.current.update({0: "default 0", 1: "default 1"})
    device = lanes()
    with device.receiving(sent.marks, [item["x"], item["y"][0], 3]):
        assert notes.current[0] == "up"
    waits, keeps = notes.said[:2], notes.said[2:]
    assert sorted(one.partition(" waits for mark ")[0] for one in waits) == ["default 1", "up"]
    assert all(
        one[-1] == {"up": "0", "default 1": "1"}[one.partition(" waits")[0]] for one in waits
    )
    assert keeps == ["kept for up", "kept for default 1"]


def test_what_was_collated_on_the_device_is_staged_behind_that(notes: Notes) -> None:
    device = lanes()
    own, other = Tensor(notes, 0), Tensor(notes, 1)
    assert device.stage(own, None) is own
    assert device.stage(other, None) is other
    assert notes.said == [
        "up waits for mark 1 of default 0",
        "kept for up",
        "up waits for mark 2 of default 1",
    ]


def test_lanes_follow_one_another_and_marks_sleep(notes: Notes) -> None:
    device = lanes()
    mark = device.mark("up")
    assert mark.event.blocking
    device.follow("run", mark)
    device.follow("down", device.mark("run"))
    assert notes.said == ["run waits for mark 1 of up", "down waits for mark 2 of run"]
    with device.running():
        assert notes.current[0] == "run"


def test_graphs_are_captured_on_the_lane_that_runs(notes: Notes) -> None:
    replay, output = lanes().capture(lambda: "output")
    replay()
    assert output == "output"
    assert notes.said == ["capture on run, thread_local", "replay"]


def test_where_no_device_was_used_items_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(_arrivals, "leaves", None)
    assert _arrivals.arrived("item") == "item"
