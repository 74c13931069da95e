"""Gates and loops for every test, and one time limit for all: a hanging caller is a failure."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gates import WAYS, Gate, run_on


def pytest_configure(config: pytest.Config) -> None:
    # An error that only a destructor or a thread saw is an error all the same.
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnraisableExceptionWarning")
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnhandledThreadExceptionWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(60))


@pytest.fixture(scope="module", autouse=True)
def a_small_heap() -> None:
    """Many tests collect, some thousands of times: not what imports and finished modules have left behind."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def new_gate() -> Iterator[Callable[..., Gate]]:
    """Makes gates that are opened when the test ends, so that none keeps a worker behind."""
    made: list[Gate] = []

    def make(*args: Any, **kwargs: Any) -> Gate:
        made.append(Gate(*args, **kwargs))
        return made[-1]

    yield make
    for gate in made:
        gate.open()


@pytest.fixture
def gate(new_gate: Callable[..., Gate]) -> Gate:
    return new_gate()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a coroutine to its end: once on asyncio's own loop, once on uvloop."""
    if request.param == "asyncio":
        return functools.partial(run_on, asyncio.new_event_loop)
    uvloop = pytest.importorskip("uvloop")
    return functools.partial(run_on, uvloop.new_event_loop)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)
