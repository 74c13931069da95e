"""The front door `batched.inference`: features in, padded by their dtype, rows out; for numpy and torch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import carpool
from carpool.compat.batched import aio, inference
from carpool.compat.batched.types import AsyncCache, CacheStats, PriorityStrategy
from gates import Gate, auntil, in_thread, until

np = pytest.importorskip("numpy")

NEVER_MS = 60_000.0


@pytest.fixture(params=["numpy", "torch"])
def lib(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def array(lib: Any, value: Any, dtype: str = "float32") -> Any:
    make = lib.asarray if lib is np else lib.tensor
    return make(value, dtype=getattr(lib, dtype))


class Seen:
    """A model that keeps its batches and gives back one of its features."""

    def __init__(self, give: str = "x") -> None:
        self.batches: list[dict[str, Any]] = []
        self.give = give

    def __call__(self, features: dict[str, Any]) -> Any:
        self.batches.append(features)
        return features[self.give]


def test_a_call_is_a_dict_or_keywords(lib: Any) -> None:
    model = inference.dynamically(Seen())
    x = array(lib, [[1.5, 2.5], [3.5, 4.5]])
    for out in (model({"x": x}), model(x=x)):
        assert type(out) is type(x)
        assert out.dtype == x.dtype
        assert out.tolist() == x.tolist()


def test_calls_share_a_padded_batch(lib: Any) -> None:
    seen = Seen("sum")

    @inference.dynamically(
        batch_size=3, timeout_ms=NEVER_MS, pad_tokens={"x": -0.5, "mask": 0, "ids": 9}
    )
    def model(features: dict[str, Any]) -> Any:
        seen.batches.append(features)
        return features["x"].sum(1)

    def call(*rows: list[float]) -> Any:
        width = len(rows[0])
        return in_thread(
            model,
            {
                "x": array(lib, rows),
                "mask": array(
                    lib, [[True] * width] * len(rows), "bool" if lib is not np else "bool_"
                ),
                "ids": array(lib, [[7] * width] * len(rows), "int16"),
            },
        )

    two, one = call([1.5, 2.0], [0.5, 0.0]), call([1.0, 2.0, 3.0, 4.0])
    assert two.result(20).tolist() == [2.5, -0.5]
    assert one.result(20).tolist() == [10.0]
    (batch,) = seen.batches
    rows = {tuple(row) for row in batch["x"].tolist()}
    assert rows == {(1.5, 2.0, -0.5, -0.5), (0.5, 0.0, -0.5, -0.5), (1.0, 2.0, 3.0, 4.0)}
    assert str(batch["x"].dtype).endswith("float32")
    assert str(batch["mask"].dtype).endswith("bool")
    assert str(batch["ids"].dtype).endswith("int16")
    assert sorted(batch["ids"].tolist())[0] == [7, 7, 7, 7]
    assert sorted(batch["ids"].tolist())[-1] == [7, 7, 9, 9]
    assert sorted(batch["mask"].tolist())[0] == [True, True, False, False]


@pytest.mark.parametrize("side", ["right", "left"])
def test_sides(lib: Any, side: str) -> None:
    seen = Seen()
    model = inference.dynamically(padding_side=side, batch_size=2, timeout_ms=NEVER_MS)(seen)
    model({"x": [array(lib, [1.0]), array(lib, [2.0, 3.0])]})
    expected = [[1.0, 0.0], [2.0, 3.0]] if side == "right" else [[0.0, 1.0], [2.0, 3.0]]
    assert seen.batches[0]["x"].tolist() == expected


def test_rows_of_more_axes_and_of_none(lib: Any) -> None:
    seen = Seen("label")
    model = inference.dynamically(batch_size=2, timeout_ms=NEVER_MS, pad_tokens={"x": 1})(seen)
    x = [array(lib, [[1.5, 2.5]]), array(lib, [[3.5, 4.5], [5.5, 6.5]])]
    out = model({"x": x, "label": array(lib, [3, 4], "int64")})
    assert out.tolist() == [3, 4]
    assert str(seen.batches[0]["label"].dtype).endswith("int64")
    assert tuple(seen.batches[0]["x"].shape) == (2, 2, 2)
    assert seen.batches[0]["x"].tolist() == [[[1.5, 2.5], [1.0, 1.0]], [[3.5, 4.5], [5.5, 6.5]]]


def test_each_feature_has_its_own_length(lib: Any) -> None:
    seen = Seen()
    model = inference.dynamically(batch_size=2, timeout_ms=NEVER_MS)(seen)
    model({"x": array(lib, [[1.0], [2.0]]), "long": array(lib, [[1.0] * 5] * 2)})
    assert tuple(seen.batches[0]["x"].shape) == (2, 1)
    assert tuple(seen.batches[0]["long"].shape) == (2, 5)


def test_rows_of_different_kinds_share_no_batch(lib: Any) -> None:
    seen = Seen()
    model = inference.dynamically(batch_size=2, timeout_ms=NEVER_MS)(seen)
    kinds = [
        lambda: {"x": array(lib, [[1.0]])},
        lambda: {"x": array(lib, [[1.0]], "float64")},
        lambda: {"x": array(lib, [[[1.0]]])},
        lambda: {"x": array(lib, [[1.0]]), "y": array(lib, [[1.0]])},
    ]
    calls = [in_thread(model, kind()) for kind in kinds for _ in range(2)]
    for call in calls:
        call.result(20)
    assert len(seen.batches) == 4
    assert all(len(batch["x"]) == 2 for batch in seen.batches)


def test_heads_and_names_come_back_stacked(lib: Any) -> None:
    @inference.dynamically
    def heads(features: dict[str, Any]) -> list[Any]:
        return [features["x"] * 2, features["x"].sum(1)]

    @inference.dynamically
    def names(features: dict[str, Any]) -> dict[str, Any]:
        return {"twice": features["x"] * 2, "sum": features["x"].sum(1)}

    x = array(lib, [[1.0, 2.0], [3.0, 4.0]])
    twice, total = heads(x=x)
    assert (twice.tolist(), total.tolist()) == ([[2.0, 4.0], [6.0, 8.0]], [3.0, 7.0])
    both = names(x=x)
    assert {name: part.tolist() for name, part in both.items()} == {
        "twice": twice.tolist(),
        "sum": total.tolist(),
    }


def test_rows_do_not_keep_the_batch(lib: Any) -> None:
    kept: list[Any] = []

    @inference.dynamically
    def model(features: dict[str, Any]) -> Any:
        kept.append(features["x"])
        return features["x"]

    out = model(x=array(lib, [[1.0], [2.0]]))
    kept[0][:] = 9
    assert out.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "give",
    [
        lambda x: x[:1],
        lambda x: [x, x[:1]],
        lambda x: {"a": x, "b": x[:1]},
        lambda x: [],
    ],
    ids=["array", "head", "name", "no heads"],
)
def test_every_wrong_length_is_an_error(give: Callable[[Any], Any]) -> None:
    model = inference.dynamically(lambda features: give(features["x"]))
    with pytest.raises(carpool.BatchLengthError, match="does not match batch input length"):
        model(x=np.ones((2, 2)))


@pytest.mark.parametrize("output", [None, 3.0, np.float32(1)])
def test_an_output_without_rows_is_an_error(output: Any) -> None:
    with pytest.raises(TypeError, match="the output of a batch must be"):
        inference.dynamically(lambda features: output)(x=np.ones((2, 2)))


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "text"),
    [
        ((), {}, ValueError, "at least one feature"),
        (({},), {}, ValueError, "at least one feature"),
        ((), {"x": np.ones((0, 2))}, ValueError, "at least one row"),
        ((), {"x": np.ones((2, 2)), "y": np.ones((3, 2))}, ValueError, "x: 2, y: 3"),
        ((np.ones((2, 2)),), {}, TypeError, "a dict of arrays or tensors by name"),
        (({}, {}), {}, TypeError, "one dict, or by name"),
        ((), {"x": [[1, 2]]}, TypeError, "row of the feature 'x'"),
        ((), {"x": 3}, TypeError, "the feature 'x' must be an array, a tensor or a list of those"),
        ((), {"x": np.array(3)}, TypeError, "the feature 'x' must be an array, a tensor or a list"),
    ],
)
def test_a_wrong_call_fails_its_caller_alone(
    args: Any, kwargs: Any, error: type[Exception], text: str
) -> None:
    seen = Seen()
    model = inference.dynamically(seen)
    with pytest.raises(error, match=text):
        model(*args, **kwargs)
    assert seen.batches == []


@pytest.mark.parametrize("dynamically", [inference.dynamically, aio.inference.dynamically])
def test_settings(dynamically: Any) -> None:
    assert dynamically(pad_token={"x": 3})(Seen()).pad_tokens == {"x": 3}
    assert dynamically(pad_tokens={"x": 3})(Seen()).pad_tokens == {"x": 3}
    with pytest.raises(TypeError, match="give one of them"):
        dynamically(pad_tokens={}, pad_token={})(Seen())
    with pytest.raises(ValueError, match="padding_side"):
        dynamically(padding_side="both")(Seen())
    with pytest.raises(TypeError, match="pad_tokens must be a dict"):
        dynamically(pad_tokens=0)(Seen())


def test_methods(lib: Any) -> None:
    class Model:
        def __init__(self, by: float) -> None:
            self.by = by

        @inference.dynamically(spread_kwargs=True)
        def scaled(self, x: Any, shift: Any) -> Any:
            return x * self.by + shift

    x, shift = array(lib, [[1.0], [2.0]]), array(lib, [[0.5], [0.5]])
    assert Model(2.0).scaled(x=x, shift=shift).tolist() == [[2.5], [4.5]]
    assert Model(3.0).scaled({"x": x, "shift": shift}).tolist() == [[3.5], [6.5]]


def test_coroutine_functions_of_the_thread_flavour(run: Callable[..., Any], lib: Any) -> None:
    @inference.dynamically(spread_kwargs=True)
    async def model(x: Any) -> Any:
        await asyncio.sleep(0)
        return x * 2

    assert model(x=array(lib, [[1.0]])).tolist() == [[2.0]]

    async def main() -> None:
        assert (await model.acall(x=array(lib, [[1.0]]))).tolist() == [[2.0]]

    run(main())


def test_from_coroutines(run: Callable[..., Any], lib: Any) -> None:
    @inference.dynamically(batch_size=8, timeout_ms=1)
    def model(features: dict[str, Any]) -> Any:
        return features["x"].sum(1)

    @aio.inference.dynamically(pad_tokens={"x": 0}, batch_size=8, timeout_ms=1)
    async def amodel(features: dict[str, Any]) -> list[Any]:
        await asyncio.sleep(0)
        return [features["x"].sum(1), features["x"] * 1]

    async def main() -> None:
        calls = (model.acall({"x": array(lib, [[float(n)] * (n + 1)])}) for n in range(20))
        for n, out in enumerate(await asyncio.gather(*calls)):
            assert out.tolist() == [n * (n + 1.0)]
        total, same = await amodel(x=array(lib, [[1.0, 2.0], [3.0, 4.0]]))
        assert (total.tolist(), same.tolist()) == ([3.0, 7.0], [[1.0, 2.0], [3.0, 4.0]])
        assert (await amodel.acall(x=array(lib, [[1.0]])))[0].tolist() == [1.0]
        model.shutdown()
        with pytest.raises(carpool.BatcherClosed):
            await model.acall(x=array(lib, [[1.0]]))

    run(main())


def test_threads_and_loops_share_a_model(run: Callable[..., Any], lib: Any) -> None:
    @inference.dynamically(batch_size=16, timeout_ms=1)
    def total(features: dict[str, Any]) -> Any:
        return features["x"].sum(1)

    @aio.inference.dynamically(batch_size=16, timeout_ms=1)
    async def atotal(features: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        return features["x"].sum(1)

    def rows(n: int) -> dict[str, Any]:
        return {"x": array(lib, [[float(n)] * (n % 7 + 1)] * 3)}

    def of(answers: list[Any]) -> list[Any]:
        return [answer.tolist() for answer in answers]

    async def main() -> list[Any]:
        one = of(await asyncio.gather(*(total.acall(rows(n)) for n in range(20))))
        return one + of(await asyncio.gather(*(atotal(rows(n)) for n in range(20))))

    expected = [[n * (n % 7 + 1.0)] * 3 for n in range(20)]
    with ThreadPoolExecutor(6) as threads:
        loops = [threads.submit(run, main()) for _ in range(3)]
        calls = [threads.submit(total, rows(n)) for n in range(20)]
        assert of([call.result(30) for call in calls]) == expected
        for loop in loops:
            assert loop.result(30) == expected * 2


@pytest.mark.parametrize("flavour", ["thread", "aio"])
def test_no_batch_has_more_rows_than_batch_size(run: Callable[..., Any], flavour: str) -> None:
    seen = Seen()
    door: Any = aio.inference if flavour == "aio" else inference
    model = door.dynamically(batch_size=4, timeout_ms=1)(seen)
    x = np.arange(20.0).reshape(10, 2)

    async def main() -> None:
        call = model(x=x) if flavour == "aio" else model.acall(x=x)
        assert (await call).tolist() == x.tolist()

    run(main())
    assert [len(batch["x"]) for batch in seen.batches] == [4, 4, 2]


def test_small_calls_pass_large_ones(gate: Gate) -> None:
    @inference.dynamically(batch_size=1, timeout_ms=0, small_batch_threshold=1)
    def held(features: dict[str, Any]) -> Any:
        gate.run(features["x"].tolist())
        return features["x"]

    calls = [in_thread(held, {"x": np.zeros(1)})]
    gate.entered()
    calls.append(in_thread(held, {"x": np.array([1.0, 2.0])}))
    until(lambda: held.stats.queue_size == 2)
    calls.append(in_thread(held, {"x": np.array([3.0])}))
    until(lambda: held.stats.queue_size == 3)
    gate.open()
    for call in calls:
        call.result(20)
    assert gate.items == [0.0, 3.0, 1.0, 2.0]


def test_the_longest_rows_of_a_large_call_go_first(run: Callable[..., Any], lib: Any) -> None:
    seen = Seen("n")
    model = aio.inference.dynamically(
        batch_size=2,
        timeout_ms=1,
        small_batch_threshold=1,
        priority_strategy=PriorityStrategy.LENGTH,
    )(seen)

    async def main() -> None:
        lengths = [1, 4, 2, 3]
        out = await model(
            x=[array(lib, [1.0] * n) for n in lengths], n=array(lib, lengths, "int64")
        )
        assert out.tolist() == lengths

    run(main())
    assert [batch["n"].tolist() for batch in seen.batches] == [[4, 3], [2, 1]]


def test_a_cache_of_rows(run: Callable[..., Any], lib: Any) -> None:
    class Cache(AsyncCache[Any, Any]):
        def __init__(self) -> None:
            self.kept: dict[Any, Any] = {}

        async def get(self, key: Any) -> Any:
            return self.kept.get(tuple(key["x"].tolist()))

        async def set(self, key: Any, value: Any) -> None:
            self.kept[tuple(key["x"].tolist())] = value

        async def clear(self) -> None:
            self.kept.clear()

        def stats(self) -> CacheStats:
            return CacheStats(gets=7)

    cache, seen = Cache(), Seen()
    model = aio.inference.dynamically(cache=cache, timeout_ms=1)(seen)

    async def main() -> None:
        assert (await model(x=array(lib, [[1.0], [2.0]]))).tolist() == [[1.0], [2.0]]
        await auntil(lambda: len(cache.kept) == 2)
        assert (await model(x=array(lib, [[3.0], [1.0]]))).tolist() == [[3.0], [1.0]]
        assert model.stats.cache_stats == CacheStats(gets=7)

    run(main())
    assert [batch["x"].tolist() for batch in seen.batches] == [[[1.0], [2.0]], [[3.0]]]


def test_max_batch_length_counts_the_length_of_rows(run: Callable[..., Any], lib: Any) -> None:
    seen = Seen()
    model = aio.inference.dynamically(
        max_batch_length=10, batch_size=100, timeout_ms=1, batch_item_cls=Item
    )(seen)

    async def main() -> None:
        x = array(lib, [[1.0] * 4] * 5)
        out = await model(x=x, mask=x, more=x)
        assert out.tolist() == x.tolist()

    run(main())
    assert [len(batch["x"]) for batch in seen.batches] == [2, 2, 1]


class Item(aio.AsyncBatchItem[Any, Any]):
    """One of the program's own."""
