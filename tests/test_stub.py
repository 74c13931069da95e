"""Stub: `_core.pyi` says what the extension has, no more and no less."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import carpool
from carpool import _core

STUB = ast.parse((Path(carpool.__file__).parent / "_core.pyi").read_text())
ORDINARY = set(dir(type("Ordinary", (), {"__slots__": ()}))) | {
    "__module__",
    "__doc__",
    "__dict__",
    "__weakref__",
}


def assigned(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return {node.name}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    if isinstance(node, ast.Assign) and "TypeVar" not in ast.unparse(node.value):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def public(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


CLASSES = [
    node for node in STUB.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
]


def test_the_module_has_what_the_stub_names_and_nothing_else() -> None:
    stated = public(set().union(*[assigned(node) for node in STUB.body]))
    assert stated, "an empty stub proves nothing"
    assert public(set(dir(_core))) == stated


@pytest.mark.parametrize("stated", CLASSES, ids=lambda node: node.name)
def test_each_class_has_what_the_stub_names_and_nothing_else(stated: ast.ClassDef) -> None:
    names = set().union(*[assigned(node) for node in stated.body])
    actual = getattr(_core, stated.name)
    if stated.name == "Awaitable" and not _core.RAW:
        names.discard(
            "__call__"
        )  # how the raw type answers attribute look-ups without bound methods
    inherited = {name for base in actual.__mro__[1:] for name in vars(base)}
    assert public(set(vars(actual))) <= public(names) | public(inherited)
    assert names - ORDINARY <= set(dir(actual)), "stated, but not there"


def test_mypy_finds_them_in_agreement(tmp_path: Path) -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    allowed = tmp_path / "allowed"
    allowed.write_text("" if _core.RAW else "carpool._core.Awaitable.__call__\n")
    check = ["mypy.stubtest", "carpool._core", "--ignore-missing-stub", "--allowlist", str(allowed)]
    outcome = subprocess.run(
        [sys.executable, "-m", *check],
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
