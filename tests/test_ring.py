"""The ring: batches on their way to a device and back, over lanes that finish late and reuse what is let go of."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from carpool.cuda import Pace, Ring, lanes_of
from gates import LIMIT
from lanes import FakeLanes


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


def go_with_callers_tensors(lanes: FakeLanes, count: int) -> int:
    """Sends batches of tensors that callers have on the device; how many came back wrong."""
    ring = Ring(lanes)  # type: ignore[arg-type]
    wrong, left = 0, count
    all_there = threading.Event()

    def send(number: int) -> None:
        rows = [np.arange(4) + number, np.arange(4) * number]
        items = [lanes.made_by_caller(row) for row in rows]
        marks = [lanes.mark("caller")]
        with lanes.receiving(marks, items):
            batch = lanes.joined(items)

        def deliver(host: Any, error: BaseException | None) -> None:
            nonlocal wrong, left
            wrong += error is not None or not np.array_equal(host, np.array(rows) * 2)
            left -= 1
            if not left:
                all_there.set()

        ring.run(batch, lambda tensor: lanes.compute(lambda x: x * 2, tensor), deliver)

    for number in range(count):
        send(number)
    assert all_there.wait(LIMIT)
    ring.close()
    return wrong


@pytest.mark.parametrize("seed", range(8))
def test_tensors_of_callers_are_read_when_they_are_done(seed: int) -> None:
    assert go_with_callers_tensors(FakeLanes(seed), 120) == 0


@pytest.mark.parametrize("without", ["mark caller", "follow up", "keep up", "follow run"])
def test_without_care_tensors_of_callers_are_read_too_soon(without: str) -> None:
    assert any(go_with_callers_tensors(FakeLanes(seed, without), 120) for seed in range(400))


def test_a_delivery_that_raises_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    ring = Ring(FakeLanes(1), 1)  # type: ignore[arg-type]
    there = threading.Event()

    def stop(host: Any, error: Any) -> None:
        raise SystemExit

    ring.run({"x": np.ones(2)}, lambda tensors: tensors["x"], stop)
    ring.run({"x": np.ones(2)}, lambda tensors: tensors["x"], lambda host, error: there.set())
    assert there.wait(LIMIT)
    assert "what delivers a batch raised" in caplog.text
    ring.close()


def test_a_thread_that_cannot_start_costs_no_place() -> None:
    failures = iter([RuntimeError("can't start new thread")])

    def start(run: Any) -> None:
        for error in failures:
            raise error
        threading.Thread(target=run, daemon=True).start()

    ring = Ring(FakeLanes(1), 1, start=start)  # type: ignore[arg-type]
    there = threading.Event()

    def send() -> None:
        batch = {"x": np.ones(2)}
        ring.run(batch, lambda tensors: tensors["x"], lambda host, error: there.set())

    with pytest.raises(RuntimeError, match="new thread"):
        send()
    assert ring.in_flight == 0
    send()
    assert there.wait(LIMIT)
    ring.close()


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
