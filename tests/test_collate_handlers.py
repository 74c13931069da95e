"""Collate in a batcher: what handlers get, whose error is whose, and rows for every way of running."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from carpool import Batcher, BatchLengthError, CollateError, batched
from carpool.collate import Lists, Pad, Stack
from gates import LIMIT


class Held:
    """A handler with a hold: the first batch waits until all others are submitted."""

    def __init__(self, work: Callable[..., Any]) -> None:
        import threading

        self.work = work
        self.seen: list[tuple[Any, ...]] = []
        self.entered = threading.Event()
        self.go = threading.Event()

    def __call__(self, batch: Any) -> Any:
        return self.call(batch)

    def call(self, *batch: Any) -> Any:
        first = not self.seen
        self.seen.append(batch)
        if first:
            self.entered.set()
            assert self.go.wait(LIMIT)
        return self.work(*batch)

    def outcomes(self, function: Any, opening: Any, items: Sequence[Any]) -> list[Any]:
        """The outcomes of `items`, which leave as one batch behind `opening`."""
        first = function.submit(*opening)
        assert self.entered.wait(LIMIT)
        futures = [function.submit(*item) for item in items]
        self.go.set()
        first.result(LIMIT)
        return [future.exception(LIMIT) or future.result() for future in futures]


def test_the_handler_gets_one_batch_and_each_caller_a_row() -> None:
    held = Held(lambda batch: {"sum": batch["ids"].sum(1), "mask": batch["mask"]})

    @batched(collate=Pad({"ids": 0}, mask="mask", multiple_of=4))
    def encode(batch: dict[str, Any]) -> Any:
        return held.call(batch)

    found = held.outcomes(
        encode, [{"ids": np.array([1])}], [[{"ids": np.arange(n)}] for n in (3, 5)]
    )
    assert held.seen[1][0]["ids"].shape == (2, 8)
    assert [row["sum"] for row in found] == [3, 10]
    assert [row["mask"].sum() for row in found] == [3, 5]
    encode.close()


@pytest.mark.parametrize("executor", ["thread", "caller"])
def test_who_does_not_fit_fails_alone_and_the_batchmates_run(executor: Any) -> None:
    held = Held(lambda batch: batch * 2)

    @batched(collate=Stack(), executor=executor)
    def double(batch: Any) -> Any:
        return held.call(batch)

    items = [[np.ones(2)], [np.ones(3)], [np.ones(2)], ["no"]]
    found = held.outcomes(double, [np.ones(1)], items)
    assert held.seen[1][0].shape == (2, 2)
    assert found[0].tolist() == found[2].tolist() == [2, 2]
    assert [type(found[at]) for at in (1, 3)] == [CollateError] * 2
    assert "shape (3,)" in str(found[1])
    assert "a str is no array" in str(found[3])
    stats = double.stats
    assert (stats.answered, stats.failed) == (3, 2)
    double.close()


def test_if_none_fits_the_handler_does_not_run() -> None:
    calls = []

    @batched(collate=Stack())
    def handler(batch: Any) -> Any:
        calls.append(batch)
        return batch

    with pytest.raises(CollateError, match="a str is no array"):
        handler("text")
    assert calls == []
    handler.close()


def test_a_misfit_gets_its_own_error_when_the_handler_raises() -> None:
    def work(batch: Any) -> Any:
        if len(batch) > 1:
            raise KeyError("broken")
        return batch

    held = Held(work)

    @batched(collate=Stack())
    def handler(batch: Any) -> Any:
        return held.call(batch)

    found = held.outcomes(handler, [1], [[1], [0.5], [2]])
    assert [type(one) for one in found] == [KeyError, CollateError, KeyError]
    assert found[0] is not found[2]
    handler.close()


def test_parameters_are_collated_each_on_its_own() -> None:
    held = Held(lambda xs, ys, scale: (xs.sum(1) + ys) * scale)

    @batched(collate=Pad(0), shared=("scale",))
    def handler(xs: Any, *, ys: Any, scale: int = 2) -> Any:
        return held.call(xs, ys, scale)

    first = handler.submit([1], ys=1)
    assert held.entered.wait(LIMIT)
    futures = [handler.submit([1, 2], ys=1), handler.submit([1], ys=0.5), handler.submit([5], ys=2)]
    held.go.set()
    assert first.result(LIMIT) == 4
    assert [futures[0].result(LIMIT), futures[2].result(LIMIT)] == [8, 14]
    assert "ys: the item: dtype float64" in str(futures[1].exception(LIMIT))
    assert held.seen[1][0].tolist() == [[1, 2], [5, 0]]
    assert held.seen[1][2] == 2
    handler.close()


def test_methods() -> None:
    class Model:
        def __init__(self, factor: int) -> None:
            self.factor = factor

        @batched(collate=Stack())
        def run(self, batch: Any) -> Any:
            return batch * self.factor

        @batched(collate=Stack())
        async def arun(self, batch: Any) -> Any:
            return batch * self.factor

    model = Model(3)
    assert model.run(np.array([1, 2])).tolist() == [3, 6]
    assert asyncio.run(_awaited(model.arun, np.array([1]))).tolist() == [3]
    model.run.close()


async def _awaited(function: Any, item: Any) -> Any:
    return await function(item)


def test_async_handlers(run: Callable[..., Any]) -> None:
    shapes = []

    @batched(collate=Pad(0), wait_ms=1000, max_batch_size=3)
    async def handler(batch: Any) -> Any:
        shapes.append(batch.shape)
        await asyncio.sleep(0)
        return batch.sum(1), batch

    async def main() -> Any:
        items = [[1], [1, 2], [0.5]]
        return await asyncio.gather(*[handler(item) for item in items], return_exceptions=True)

    first, second, third = run(main())
    assert shapes == [(2, 2)]
    assert (first[0], second[0]) == (1, 3)
    assert second[1].tolist() == [1, 2]
    assert isinstance(third, CollateError)


def test_rows_that_do_not_fit_the_batch_are_an_error_for_all() -> None:
    @batched(collate=Stack())
    def handler(batch: Any) -> Any:
        return {"a": batch, "b": batch[:0]}

    with pytest.raises(BatchLengthError, match="b: the handler returned 0 rows for a batch of 1"):
        handler(1)
    handler.close()


def test_a_collator_of_ones_own() -> None:
    class Joined:
        def collate(self, items: Sequence[str]) -> str:
            bad = {
                at: CollateError(f"{item!r} has a comma")
                for at, item in enumerate(items)
                if "," in item
            }
            if bad:
                raise CollateError("commas", misfits=bad)
            return ",".join(items)

        def split(self, output: str, n: int, batch: Any = None) -> list[str]:
            assert batch is not None
            return output.split(",")

    held = Held(str.upper)

    @batched(collate=Joined())
    def upper(text: str) -> str:
        return held.call(text)  # type: ignore[no-any-return]

    found = held.outcomes(upper, ["z"], [["a"], ["b,c"], ["d"]])
    assert held.seen[1] == ("a,d",)
    assert (found[0], found[2]) == ("A", "D")
    assert str(found[1]) == "'b,c' has a comma"
    upper.close()


@pytest.mark.parametrize("misfits", [{}, {7: CollateError("who?")}])
def test_a_collator_that_fails_fails_the_batch(misfits: Any) -> None:
    class Broken(Lists):
        def collate(self, items: Any) -> Any:
            raise CollateError("not today", misfits=misfits)

    @batched(collate=Broken())
    def handler(batch: Any) -> Any:
        return batch

    with pytest.raises(
        CollateError, match="misfits are numbered from 0 to 0" if misfits else "not today"
    ):
        handler(1)
    handler.close()


def test_a_split_that_miscounts_is_an_error_for_all() -> None:
    class Broken(Lists):
        def split(self, output: Any, n: int, batch: Any = None) -> Any:
            return [1, 2]

    @batched(collate=Broken())
    def handler(batch: Any) -> Any:
        return batch

    with pytest.raises(BatchLengthError, match="split made 2 rows for a batch of 1 items"):
        handler(1)
    handler.close()


def test_the_handler_may_empty_its_dict() -> None:
    @batched(collate=Pad(0, unpad=True))
    def handler(batch: dict[str, Any]) -> Any:
        return batch.pop("x") * 2

    assert handler({"x": [1, 2]}).tolist() == [2, 4]
    handler.close()


def test_options() -> None:
    with pytest.raises(TypeError, match="collate must have collate"):
        batched(collate=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="Batcher has no option 'collate'"):
        Batcher(collate=Stack())  # type: ignore[call-arg]


@batched(collate=Pad(0, mask="m"))
def picklable(batch: Any) -> Any:
    values, mask = batch
    return values * mask


def test_decorated_functions_pickle() -> None:
    assert pickle.loads(pickle.dumps(picklable)) is picklable


def test_what_a_handler_raises_shows_no_frames_of_ours() -> None:
    @batched(collate=Stack())
    def handler(batch: Any) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        handler(1)
    cause = caught.value.__cause__
    assert cause is not None
    assert cause.__traceback__ is not None
    assert cause.__traceback__.tb_frame.f_code.co_name == "handler"
    handler.close()


# --------------------------------------------------------------------------------------- rows


def test_rows_of_features() -> None:
    sizes = []

    @batched(collate=Stack(), max_batch_size=4)
    def handler(batch: dict[str, Any]) -> Any:
        sizes.append(len(batch["a"]))
        return {"sum": batch["a"].sum(1) + batch["b"], "same": batch["a"]}

    features = {"a": np.arange(20).reshape(10, 2), "b": np.arange(10)}
    joined = handler.rows(features)
    assert joined["sum"].tolist() == [1 + 4 * n + n for n in range(10)]
    assert np.array_equal(joined["same"], features["a"])
    assert max(sizes) <= 4
    assert handler.stats.submitted == 10
    handler.close()


def test_rows_of_arrays_lists_and_answers_of_other_kinds() -> None:
    @batched
    def handler(items: list[Any]) -> list[Any]:
        return [(str(item), np.ones(int(item)), item) for item in items]

    texts, ragged, same = handler.rows(np.array([1, 2]))
    assert texts == ["1", "2"]
    assert [len(one) for one in ragged] == [1, 2]
    assert same.tolist() == [1, 2]
    assert handler.rows([1, 2])[0] == ["1", "2"]
    assert handler.rows([]) == []
    handler.close()


def test_rows_raise_what_a_call_would_and_refuse_what_has_no_rows() -> None:
    @batched(collate=Stack())
    def handler(batch: Any) -> Any:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        handler.rows(np.ones(3))
    with pytest.raises(BatchLengthError, match="b: the handler returned 2 rows for a batch of 3"):
        handler.rows({"a": np.ones(3), "b": np.ones(2)})
    with pytest.raises(TypeError, match="features are batches"):
        handler.rows(5)

    @batched
    def two(xs: list[int], ys: list[int]) -> list[int]:
        return xs

    with pytest.raises(TypeError, match="two takes several parameters"):
        two.rows([1])
    handler.close()


def test_rows_from_coroutines(run: Callable[..., Any]) -> None:
    @batched(collate=Stack(), max_batch_size=3)
    async def handler(batch: Any) -> Any:
        return batch + 1

    async def main() -> Any:
        return await handler.rows(np.arange(5)), await handler.arows([1, 2])

    first, second = run(main())
    assert first.tolist() == [1, 2, 3, 4, 5]
    assert second.tolist() == [2, 3]


# ------------------------------------------------------------------------------- batch sizes


@pytest.mark.parametrize("fill", ["zeros", "repeat"])
def test_batches_of_few_sizes_are_filled_up_by_choice(fill: Any) -> None:
    held = Held(lambda batch: batch["x"].sum(1))

    @batched(collate=Pad({"x": 0}, mask="mask", fill=fill), batch_sizes=[1, 4], max_batch_size=4)
    def handler(batch: Any) -> Any:
        return held.call(batch)

    found = held.outcomes(handler, [{"x": [1]}], [[{"x": [2, 3]}], [{"x": [0.5]}], [{"x": [4]}]])
    batch = held.seen[1][0]
    last = {"zeros": [[0, 0]] * 2, "repeat": [[4, 0]] * 2}[fill]
    assert batch["x"].tolist() == [[2, 3], [4, 0], *last]
    assert batch["mask"].sum() == 3 if fill == "zeros" else 5
    assert [found[0], found[2]] == [5, 4]
    assert isinstance(found[1], CollateError)
    handler.close()


def test_a_collator_of_ones_own_is_filled_up_with_repeats() -> None:
    class Tuples:
        def collate(self, items: Sequence[Any]) -> Any:
            return tuple(items)

        def split(self, output: Any, n: int, batch: Any = None) -> Any:
            assert len(output) == n == len(batch)
            return list(output)

    seen = []

    @batched(collate=Tuples(), batch_sizes=[4], max_batch_size=4)
    def handler(batch: Any) -> Any:
        seen.append(batch)
        return batch

    assert handler("a") == "a"
    assert seen == [("a",) * 4]
    handler.close()


def test_warming_up_collated_handlers() -> None:
    shapes = []

    @batched(collate=Stack(), batch_sizes=[1, 2, 4], max_batch_size=4)
    def handler(batch: Any) -> Any:
        shapes.append(batch.shape)
        return batch

    handler.warmup(np.ones(3))
    assert shapes == [(1, 3), (2, 3), (4, 3)]
    handler.close()
