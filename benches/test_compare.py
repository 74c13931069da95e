"""What the comparison is made of: the blocking floors answer rightly, cells and tables hold what they say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import compare
import contest
import core
import peers
import workloads
from blocking_floors import HandWorker, Leader
from workloads.arrivals import stages
from workloads.device import WAIT_NS, Device, Trace
from workloads.workload import grid

Floor = Callable[[Callable[[list[Any]], Sequence[Any]]], Any]


def leader(handler: Callable[[list[Any]], Sequence[Any]]) -> Leader:
    return Leader(handler, max_batch_size=4)


def worker(handler: Callable[[list[Any]], Sequence[Any]]) -> HandWorker:
    return HandWorker(handler, max_batch_size=4, wait_s=0)


@pytest.fixture(params=[leader, worker])
def floor(request: pytest.FixtureRequest) -> Floor:
    made: Floor = request.param
    return made


def test_floor_answers_each_caller_and_keeps_to_the_limit(floor: Floor) -> None:
    sizes: list[int] = []

    def served(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return [item + 1 for item in items]

    call = floor(served)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(call, range(500))) == list(range(1, 501))
    assert sum(sizes) == 500
    assert max(sizes) <= 4


def test_floor_batches_those_who_wait_meanwhile(floor: Floor) -> None:
    sizes: list[int] = []
    entered, gate = threading.Event(), threading.Event()

    def served(items: list[int]) -> list[int]:
        sizes.append(len(items))
        entered.set()
        assert gate.wait(30)
        return items

    call = floor(served)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(call, 0)
        assert entered.wait(30)
        others = [threads.submit(call, item) for item in (1, 2, 3)]
        while len(call._pending) < 3:
            pass
        gate.set()
        assert [future.result(30) for future in (first, *others)] == [0, 1, 2, 3]
    assert sizes == [1, 3]


def test_floor_fails_the_callers_of_a_failing_batch(floor: Floor) -> None:
    def failing(items: list[int]) -> list[int]:
        if items == [0]:
            raise KeyError("no")
        return items + items

    call = floor(failing)
    with pytest.raises(KeyError, match="no"):
        call(0)
    with pytest.raises(ValueError, match="1 items, 2 results"):
        call(1)


def run(contender: str, cpu_us: float, **order: Any) -> contest.Run:
    return {"order": {"contender": contender, **order}, "cpu_us": cpu_us}


def test_grid_takes_medians_and_ratios_cell_by_cell() -> None:
    runs = [
        *(run("carpool", value, callers=8) for value in (1, 9, 2)),
        *(run("hand", value, callers=8) for value in (4, 4, 5)),
        run("carpool", 3, callers=64),
    ]
    table = grid(
        "CPU",
        runs,
        ("carpool", "hand", "bare"),
        {"callers": "callers"},
        "cpu_us",
        [("carpool", "hand")],
    )
    assert table.head == ["callers", "carpool", "hand", "carpool / hand"]
    assert table.rows == [["8", "2.00", "4.00", "**0.50**"], ["64", "3.00", "-", "-"]]


@pytest.mark.parametrize("quick", [True, False])
def test_every_workload_has_work_for_carpool_and_a_floor(quick: bool) -> None:
    for workload in workloads.ALL.values():
        heats, unfit = compare.heats(workload, list(peers.ALL), quick)
        names = {order["contender"] for heat in heats for order in heat}
        assert "carpool" in names
        assert names & set(workload.floors)
        assert not names & set(unfit)
        assert set(workload.contenders) == names | set(unfit)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SystemExit, match="unknown workload 'W9': choose from W1"):
        compare.chosen("W9", list(workloads.ALL), "workload")


def test_a_batch_out_of_order_is_late_by_the_oldest() -> None:
    arrivals = [0, 10, 20]
    served = [(WAIT_NS, WAIT_NS + 100, [0, 2]), (WAIT_NS + 150, WAIT_NS + 300, [1])]
    late, back, idle = stages(arrivals, [WAIT_NS + 110, WAIT_NS + 305, WAIT_NS + 120], served)
    assert late == [0, 50]
    assert back == [20, 5]
    assert idle == [50]


def test_a_trace_is_drawn_from_its_seed() -> None:
    async def never(item: int) -> int:
        raise AssertionError(item)

    first, again = (Trace(never, 1000, 50, seed=3).drawn for _ in range(2))
    assert first == again
    assert sorted(first) == list(first)
    assert Device().runs == []


def test_what_failed_and_what_takes_no_part_stands_beside_the_tables() -> None:
    order = {"contender": "ray-serve", "loop": "asyncio", "form": "loop"}
    cell = {"loop": "asyncio", "wait_ms": 0, "callers": 8, "shape": "callers", "form": "loop"}
    measured = {**run("carpool", 2.0, **cell), "mean_batch": 8.0}
    kept = {
        "runs": [{"order": order, "failed": "no end after 1 s"}, measured],
        "unfit": {"batched": "its handler runs on a thread"},
    }
    text = compare.told("W1", kept)
    assert "Failed: ray-serve: no end after 1 s." in text
    assert "No part in it: batched (its handler runs on a thread)." in text
    assert "Mean batch" in text
    assert "Mean batch" not in compare.told("W1", kept, details=False)


def test_a_missing_library_is_skipped_with_the_way_to_get_it() -> None:
    class Absent(peers.Peer):
        name = "absent"
        package = "absent"
        module = "no_such_module_here"

    assert Absent().missing() == "absent is not installed: pip install --group peers"


def test_criterion_results_become_rows(tmp_path: Path) -> None:
    kept = tmp_path / "going in" / "threads" / "2" / "new"
    kept.mkdir(parents=True)
    described = {
        "group_id": "going in",
        "function_id": "threads",
        "value_str": "2",
        "throughput": {"Elements": 64},
    }
    (kept / "benchmark.json").write_text(json.dumps(described))
    (kept / "estimates.json").write_text(json.dumps({"median": {"point_estimate": 6400.0}}))
    assert core.rows(tmp_path) == [("going in", "threads 2", "6.4 µs", "100 ns")]
