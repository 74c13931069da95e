"""Shared parameters: one plain value for the handler, and batches only of requests where it is equal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from carpool import Batcher, batched
from gates import WAYS, run_script


class Seen:
    """What a handler with shared parameters got, batch by batch."""

    def __init__(self) -> None:
        self.batches: list[Any] = []


def generator(seen: Seen, **options: Any) -> Any:
    @batched(**{"shared": ("temperature",), "max_batch_size": 100, **options})
    def generate(prompts: list[str], temperature: float = 1.0) -> list[str]:
        seen.batches.append((temperature, list(prompts)))
        return [f"{prompt} at {temperature}" for prompt in prompts]

    return generate


def test_the_handler_gets_one_plain_value() -> None:
    seen = Seen()
    f = generator(seen)
    assert f("a", 0.5) == "a at 0.5"
    assert f("b", temperature=0.25) == "b at 0.25"
    assert f("c") == "c at 1.0"
    assert f(temperature=2, prompts="d") == "d at 2"
    assert seen.batches == [(0.5, ["a"]), (0.25, ["b"]), (1.0, ["c"]), (2, ["d"])]


@pytest.mark.parametrize("way", WAYS)
def test_requests_share_a_batch_only_where_it_is_equal(way: str, run: Callable[..., Any]) -> None:
    seen = Seen()

    def answer(prompts: list[Any], temperature: Any) -> list[Any]:
        seen.batches.append((temperature, list(prompts)))
        return [(prompt, temperature) for prompt in prompts]

    async def main() -> None:
        hold = asyncio.Event()

        async def handler(prompts: list[Any], temperature: Any) -> list[Any]:
            if way == "loop":
                await hold.wait()
            return answer(prompts, temperature)

        options: dict[str, Any] = {
            "shared": ["temperature"],
            "executor": way.removesuffix("-async"),
        }
        f: Any = batched(handler if way in ("loop", "thread-async") else answer, **options)
        calls = [asyncio.ensure_future(f.acall(n, n % 3)) for n in range(30)]
        await asyncio.sleep(0)
        hold.set()
        assert await asyncio.gather(*calls) == [(n, n % 3) for n in range(30)]
        assert all(n % 3 == temperature for temperature, items in seen.batches for n in items)
        assert f.stats.batches >= 3

    run(main())


def test_together_with_a_key_and_a_cost() -> None:
    costs: list[Any] = []

    def key(prompt: str, limit: int, *, mode: str) -> str:
        return prompt[0]

    def cost(prompt: str, limit: int, *, mode: str) -> int:
        costs.append((prompt, limit, mode))
        return len(prompt)

    @batched(shared=("limit", "mode"), key=key, cost=cost, max_batch_cost=100, wait_ms=10**7)
    def f(prompts: list[str], limit: int, *, mode: str = "m") -> list[tuple[int, str, int]]:
        return [(limit, mode, len(prompts)) for _ in prompts]

    calls = [
        f.submit("ab", 1),
        f.submit("ac", 1, mode="m"),
        f.submit("ad", 2),
        f.submit("bb", 1),
        f.submit("ae", limit=1, mode="n"),
        f.options(key="x").submit("af", 1),
        f.options(key="x").submit("bg", 1),
    ]
    f.close()
    assert [call.result(20) for call in calls] == [
        (1, "m", 2),
        (1, "m", 2),
        (2, "m", 1),
        (1, "m", 1),
        (1, "n", 1),
        (1, "m", 2),
        (1, "m", 2),
    ]
    assert costs[3:5] == [("bb", 1, "m"), ("ae", 1, "n")]


def test_methods_and_several_lists() -> None:
    class Model:
        @batched(shared=("scale",))
        def run(self, xs: list[int], scale: int, ys: list[int]) -> list[tuple[int, int, int]]:
            assert type(self) is Model
            return [(x, scale, y) for x, y in zip(xs, ys, strict=True)]

        @classmethod
        @batched(shared=("scale",))
        def of_class(cls, xs: list[int], scale: int = 3) -> list[int]:
            return [scale * x for x in xs]

        @staticmethod
        @batched(shared=("scale",))
        def static(scale: int, xs: list[int]) -> list[int]:
            return [scale * x for x in xs]

    model = Model()
    assert model.run(1, 2, 3) == (1, 2, 3)
    assert Model.run(model, 1, scale=2, ys=3) == (1, 2, 3)
    assert Model.of_class(5) == 15
    assert Model.of_class(5, scale=2) == 10
    assert model.static(2, 4) == 8


def test_none_and_equal_values() -> None:
    seen = Seen()
    f = generator(seen, wait_ms=10**7)
    calls = [
        f.submit("a", value) for value in (None, 1, 1.0, True, "1", (1, "x"), (1.0, "x"), None)
    ]
    f.close()
    for call in calls:
        call.result(20)
    assert sorted(len(items) for _, items in seen.batches) == [1, 2, 2, 3]


def test_the_signature_keeps_its_annotation() -> None:
    f = generator(Seen())
    assert str(f.__signature__) == "(prompts: 'str', temperature: 'float' = 1.0) -> 'str'"


def test_an_unhashable_value_is_refused_by_name() -> None:
    f = generator(Seen())
    for call in (f, f.submit, f.options(priority=1)):
        with pytest.raises(
            TypeError, match=r"generate: temperature .* hashable, not \[1\] \(list\)"
        ):
            call("a", [1])
    with pytest.raises(TypeError, match="temperature"):
        f("a", ([], 1))
    assert f.stats.submitted == 0


def plain(items: list[Any], mode: Any) -> list[Any]:
    return items


@pytest.mark.parametrize(
    ("shared", "error", "told"),
    [
        ("mode", TypeError, "shared .*'mode'"),
        (("mood",), TypeError, "shared .*'mood'.*'mode'"),
        ((1,), TypeError, "shared"),
        (None, TypeError, "shared"),
        ({"mode"}, TypeError, "shared"),
        (("mode", "mode"), ValueError, "'mode' twice"),
        (("mode", "items"), TypeError, "every parameter"),
    ],
)
def test_wrong_names(shared: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        batched(plain, shared=shared)
    if "every" not in told and "mood" not in told:
        with pytest.raises(error, match=told):
            batched(shared=shared)


def test_a_batcher_has_no_parameters_to_share() -> None:
    with pytest.raises(TypeError, match="shared"):
        Batcher(shared=("mode",))  # type: ignore[call-arg]


def test_it_travels_with_the_function() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")

    @batched(shared=["temperature"])
    def f(prompts: list[str], temperature: float) -> list[str]:
        return [f"{prompt} {temperature}" for prompt in prompts]

    text = cloudpickle.dumps(f).hex()
    said = run_script(f"""
import pickle
f = pickle.loads(bytes.fromhex({text!r}))
say(f("a", temperature=0.5))
""")
    assert said == ["a 0.5"]
