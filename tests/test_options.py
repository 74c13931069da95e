"""Options: each wrong one is refused where it is given, by name, with its value and what is allowed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from carpool import Batcher, batched
from carpool._options import Options


def plain(items: list[Any]) -> list[Any]:
    return items


async def aplain(items: list[Any]) -> list[Any]:
    return items


COUNTS = ("max_batch_size", "max_queue")
SHARED: list[tuple[str, Any, type[Exception]]] = [
    *[(name, value, ValueError) for name in COUNTS for value in (0, -1, -(10**30), 10**30)],
    *[
        (name, value, TypeError)
        for name in COUNTS
        for value in (1.0, "8", None, True, False, [8], float("inf"))
    ],
    *[("wait_ms", value, ValueError) for value in (-1, -0.001, math.inf, -math.inf, math.nan)],
    *[("wait_ms", value, TypeError) for value in ("2", None, True, [1], 1j)],
    *[("overflow", value, ValueError) for value in ("drop", "", "Raise")],
    *[("overflow", value, TypeError) for value in (None, 1, b"raise")],
    *[("name", value, TypeError) for value in (1, b"name", ["name"])],
]
DECORATED: list[tuple[str, Any, type[Exception]]] = [
    *[("max_concurrent_batches", value, ValueError) for value in (0, -3)],
    *[("max_concurrent_batches", value, TypeError) for value in (1.5, "2", None, True)],
    *[("gather", value, TypeError) for value in (None, 1, 0, "yes")],
    *[("executor", value, ValueError) for value in ("process", "", "Thread")],
    *[("executor", value, TypeError) for value in (1, b"thread", object)],
    *[("setup", value, TypeError) for value in (1, "load", ())],
    *[("context", value, TypeError) for value in (1, "inference", ())],
]


def told(error: Exception, name: str, value: Any) -> bool:
    return name in str(error) and repr(value) in str(error)


@pytest.mark.parametrize(("name", "value", "error"), SHARED + DECORATED)
def test_a_wrong_option_of_the_decorator(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        batched(plain, **{name: value})
    assert type(caught.value) is error
    assert told(caught.value, name, value), caught.value
    with pytest.raises(error) as early:
        batched(**{name: value})  # before there is any function
    assert told(early.value, name, value), early.value


@pytest.mark.parametrize(("name", "value", "error"), SHARED)
def test_a_wrong_option_of_a_batcher(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        Batcher(**{name: value})
    assert told(caught.value, name, value), caught.value


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("max_batch_size", 0, "1"),
        ("max_queue", -2, "1"),
        ("max_concurrent_batches", 0, "1"),
        ("wait_ms", -5, "0"),
        ("overflow", "drop", "'wait'"),
        ("overflow", "drop", "'raise'"),
        ("overflow", "drop", "'shed'"),
        ("executor", "process", "'thread'"),
        ("executor", "process", "'loop'"),
        ("executor", "process", "'caller'"),
    ],
)
def test_the_refusal_says_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError) as caught:
        batched(plain, **{name: value})
    assert allowed in str(caught.value).replace('"', "'")


@pytest.mark.parametrize("unknown", ["max_batch", "batch_size", "timeout", "max_wait_ms", "loop"])
def test_an_unknown_option_is_named(unknown: str) -> None:
    for refuse in (
        lambda: batched(plain, **{unknown: 1}),
        lambda: batched(**{unknown: 1}),
        lambda: Batcher(**{unknown: 1}),
    ):
        with pytest.raises(TypeError, match=unknown):
            refuse()


def test_options_go_by_keyword_only() -> None:
    with pytest.raises(TypeError):
        batched(plain, 8)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        Batcher(8)  # type: ignore[misc]


@pytest.mark.parametrize("name", ["setup", "context", "max_concurrent_batches", "executor"])
def test_a_batcher_has_no_options_of_a_handler(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}.*for `batched`"):
        Batcher(**{name: None})


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch_size": 1},
        {"max_batch_size": 10**6, "max_queue": 10**7},
        {"wait_ms": 0},
        {"wait_ms": 0.0},
        {"wait_ms": 0.25},
        {"max_queue": 1},
        {"overflow": "raise"},
        {"overflow": "wait"},
        {"overflow": "shed"},
        {"name": "x"},
        {"name": None},
        {"max_concurrent_batches": 8},
        {"executor": None},
        {"executor": "thread"},
        {"executor": "caller"},
        {"executor": "caller", "gather": False},
        {"gather": True},
        {"setup": None, "context": None},
        {"setup": dict},
    ],
    ids=repr,
)
def test_what_is_allowed_works(options: dict[str, Any]) -> None:
    f = batched(plain, **options)
    assert f(1) == 1
    shared = {
        name: value
        for name, value in options.items()
        if name in ("max_batch_size", "wait_ms", "max_queue", "overflow", "name")
    }
    with Batcher(**shared) as b:
        future = b.submit(1)
        b.next_batch().complete([2])
        assert future.result() == 2


def test_numbers_that_behave_as_numbers_are_taken() -> None:
    numpy = pytest.importorskip("numpy")
    f = batched(plain, max_batch_size=int(numpy.int64(4)), wait_ms=float(numpy.float64(0.5)))
    assert f(1) == 1


# -- what can be decorated ---------------------------------------------------------------------


class Class:
    pass


def no_parameters() -> list[int]:
    return []


def star(*items: Any) -> list[Any]:
    return []


def star_too(items: list[Any], *more: Any) -> list[Any]:
    return []


def double_star(items: list[Any], **more: Any) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (3, "3"),
        ("text", "text"),
        ([], r"\[\]"),
        (Class, "Class"),
        (list, "list"),
        (no_parameters, "no_parameters"),
        (star, "items"),
        (star_too, "more"),
        (double_star, "more"),
        (max, "max.*signature"),
    ],
)
def test_what_cannot_be_decorated(wrong: Any, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        batched(wrong)
    with pytest.raises(TypeError, match=named):
        batched(max_batch_size=2)(wrong)


def test_an_async_handler_cannot_be_run_by_its_caller() -> None:
    with pytest.raises(TypeError, match="caller"):
        batched(aplain, executor="caller")
    with pytest.raises(TypeError, match="caller"):
        batched(executor="caller")(aplain)


def test_a_method_without_items_is_refused() -> None:
    class Empty:
        @batched
        def only_self(self) -> list[Any]:
            return []

    # `self` might have been the items of a plain function; an instance makes it clear.
    with pytest.raises(TypeError):
        Empty().only_self()


@pytest.mark.parametrize("page", ["README.md", "docs/guides/which-option.md"])
def test_every_option_is_told_of(page: str) -> None:
    text = (Path(__file__).resolve().parent.parent / page).read_text()
    assert [name for name in Options.__dataclass_fields__ if f"`{name}" not in text] == []
