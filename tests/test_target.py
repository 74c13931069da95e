"""`target_ms`: requests are held as long as the target allows and it pays, nobody is dropped, and wrong ones are refused.

When exactly is decided in the core, and tested there in virtual time; here the option goes all the way.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from carpool import Batcher, batched
from gates import LIMIT, WAYS, Gate, in_thread, let_pass


def plain(items: list[Any]) -> list[Any]:
    return items


def busy(items: list[Any]) -> list[Any]:
    """Two milliseconds, however many."""
    let_pass(0.002, time.monotonic())
    return items


def feed(f: Any, count: int, gap: float) -> list[Any]:
    """Submits one after the other, `gap` seconds apart."""
    futures = []
    start = time.monotonic()
    for number in range(count):
        let_pass(number * gap, start)
        futures.append(f.submit(number))
    return [future.result(LIMIT) for future in futures]


def test_steady_callers_are_held_for_company() -> None:
    f = batched(busy, target_ms=200, max_batch_size=64)
    assert feed(f, 400, 0.001) == list(range(400))
    stats = f.stats
    assert stats.reasons["target"] + stats.reasons["full"] > 0
    assert stats.batch_sizes.max > 8, "without a target they would be of one to three"
    assert stats.answered == 400
    f.close()


def test_a_lone_call_is_not_held() -> None:
    f = batched(plain, target_ms=60_000)
    for number in range(5):
        assert f(number) == number
    assert f.stats.batches == 5
    assert f.stats.reasons["target"] == 0
    f.close()


def test_a_target_that_cannot_be_met_drops_nobody() -> None:
    gate = Gate()
    f = batched(gate.handler, target_ms=0.001, max_batch_size=4)
    futures = [f.submit(number) for number in range(20)]
    gate.open()
    assert [future.result(LIMIT) for future in futures] == [("answer", n) for n in range(20)]
    assert f.stats.failed == 0
    f.close()


@pytest.mark.parametrize("way", WAYS)
def test_every_executor_takes_a_target(way: str) -> None:
    async def aplain(items: list[int]) -> list[int]:
        return items

    executor: Any = "thread" if way == "thread-async" else way
    handler: Any = aplain if way in ("thread-async", "loop") else plain
    f: Any = batched(executor=executor, target_ms=20, max_batch_size=8)(handler)

    async def main() -> list[int]:
        return [await one for one in [f.acall(number) for number in range(50)]]

    if way == "caller":
        threads = [in_thread(f, number) for number in range(20)]
        assert [one.result(LIMIT) for one in threads] == list(range(20))
    else:
        assert asyncio.run(main()) == list(range(50))
    f.close()


def test_keys_and_sizes_go_with_it() -> None:
    seen: list[list[int]] = []

    def handler(items: list[int]) -> list[int]:
        seen.append(items)
        return busy(items)

    f = batched(handler, target_ms=50, batch_sizes=[1, 4, 16], key=lambda item: item % 2)
    assert feed(f, 200, 0.0005) == list(range(200))
    assert {len(batch) for batch in seen} <= {1, 4, 16}
    assert all(len({item % 2 for item in batch}) == 1 for batch in seen)
    f.close()


def test_flush_and_close_hold_nobody() -> None:
    f = batched(busy, target_ms=60_000, max_batch_size=1000)
    futures = [f.submit(number) for number in range(50)]
    f.flush()
    assert [future.result(LIMIT) for future in futures] == list(range(50))
    last = f.submit(7)
    assert f.close()
    assert last.result(LIMIT) == 7


def test_it_changes_while_it_runs() -> None:
    f = batched(plain, target_ms=50)
    assert f(1) == 1
    f.configure(target_ms=5)
    assert f(2) == 2
    f.configure(target_ms=None)
    assert f(3) == 3
    f.configure(wait_ms=1)
    with pytest.raises(ValueError, match="wait_ms"):
        f.configure(target_ms=5)
    f.configure(wait_ms=0, target_ms=5)
    assert f(4) == 4
    f.close()


def test_a_custom_loop_has_a_target() -> None:
    batcher: Batcher[int, int] = Batcher(target_ms=30)
    with batcher:
        for number in range(10):
            future = batcher.submit(number)
            batch = batcher.next_batch(timeout=LIMIT)
            assert batch is not None
            batch.complete(batch.items)
            assert future.result() == number


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ("50", TypeError),
        (True, TypeError),
    ],
)
def test_wrong_targets_are_refused(value: Any, error: type[Exception]) -> None:
    for make in (lambda: batched(plain, target_ms=value), lambda: Batcher(target_ms=value)):
        with pytest.raises(error, match="target_ms"):
            make()


def test_a_wait_beside_it_is_a_contradiction() -> None:
    with pytest.raises(ValueError, match="leave out wait_ms=2"):
        batched(plain, target_ms=50, wait_ms=2)
