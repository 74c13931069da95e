"""Exports: the public names, the tree of errors, and what every package should carry."""

from __future__ import annotations

import importlib.metadata
import inspect
import pickle
from pathlib import Path

import pytest

import carpool

ERRORS: dict[str, tuple[type[BaseException], ...]] = {
    "QueueFull": (),
    "RequestShed": (),
    "DeadlineExceeded": (TimeoutError,),
    "TooLate": (TimeoutError,),
    "BatcherClosed": (),
    "BatcherDead": (),
    "BatchAbandoned": (),
    "BatchLengthError": (),
    "AlreadyAnswered": (),
    "RequestTooLarge": (),
    "CollateError": (),
    "HandlerError": (),
    "SetupError": (),
    "StreamStalled": (),
    "WouldDeadlock": (RuntimeError,),
}
PARENTS = {
    "RequestShed": carpool.QueueFull,
    "BatcherDead": carpool.BatcherClosed,
    "TooLate": carpool.DeadlineExceeded,
}
NAMES = {
    "batched",
    "Batcher",
    "Batch",
    "CurrentBatch",
    "CurrentRequest",
    "current_batch",
    "Future",
    "BatchedFunction",
    "AsyncBatchedFunction",
    "Progress",
    "STOP",
    "Stream",
    "AsyncStream",
    "StreamedFunction",
    "AsyncStreamedFunction",
    "Stats",
    "Histogram",
    "Timing",
    "Trace",
}

#: Packages of their own, imported by those who want them.
ROOMS = {"cli", "collate", "compat", "cuda", "testing"}


def test_exactly_these_names_are_public() -> None:
    public = NAMES | set(ERRORS) | {"CarpoolError", "__version__"}
    assert set(carpool.__all__) == public
    assert len(carpool.__all__) == len(public)
    modules = {name for name, value in vars(carpool).items() if inspect.ismodule(value)}
    assert {name for name in dir(carpool) if not name.startswith("_")} - modules == public - {
        "__version__"
    }
    assert all(name.startswith("_") or name in ROOMS for name in modules)


@pytest.mark.parametrize("name", ERRORS)
def test_the_tree_of_errors(name: str) -> None:
    error = getattr(carpool, name)
    assert issubclass(error, carpool.CarpoolError)
    assert error.__bases__[0] is PARENTS.get(name, carpool.CarpoolError)
    for other in ERRORS[name]:
        assert issubclass(error, other)
    foreign = {base for base in error.__mro__ if base.__module__ == "builtins"}
    assert foreign <= {
        *ERRORS[name],
        *[base for kind in ERRORS[name] for base in kind.__mro__],
        Exception,
        BaseException,
        object,
    }


def test_the_root_of_the_tree() -> None:
    assert carpool.CarpoolError.__bases__ == (Exception,)


@pytest.mark.parametrize("name", [*ERRORS, "CarpoolError"])
def test_errors_cross_processes(name: str) -> None:
    error = getattr(carpool, name)("told")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == "told"


@pytest.mark.parametrize("name", sorted(NAMES | set(ERRORS)))
def test_public_names_are_documented_and_at_home(name: str) -> None:
    thing = getattr(carpool, name)
    assert inspect.getdoc(thing)
    assert thing.__module__.partition(".")[0] == "carpool"
    if name != "STOP":  # the one that is no class and no function
        assert thing.__name__ == name


@pytest.mark.parametrize("name", sorted(NAMES - {"batched", "current_batch"}))
def test_public_methods_are_documented(name: str) -> None:
    kind = getattr(carpool, name)
    missing = [
        method
        for method, value in vars(kind).items()
        if not method.startswith("_") and callable(value) and not inspect.getdoc(value)
    ]
    assert missing == []


def test_the_version_is_that_of_the_distribution() -> None:
    assert carpool.__version__ == importlib.metadata.version("carpool")


def test_the_package_is_typed() -> None:
    home = Path(carpool.__file__).parent
    assert (home / "py.typed").exists()
    assert (home / "_core.pyi").exists()
