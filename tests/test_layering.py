"""Layering: dependencies point one way, and heavy packages are imported only where they are used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import carpool
from gates import run_script

HOME = Path(carpool.__file__).parent
RUST = Path(__file__).resolve().parent.parent / "rust"
ORDER = [
    "__init__",
    "_decorator",
    "_streams.function",
    "_function",
    "_plan",
    "_batcher",
    "_control",
    "_station",
    "_streams.running",
    "_handler.device",
    "_handler.step",
    "_handler.worker",
    "_handler.recovery",
    "_handler.faults",
    "_core",
]
LEAVES = {"_exceptions", "_streams.stop", "_types"}
# Rooms of the way; the public ones (collate, cuda, cli, compat) stand beside it.
ROOMS = ("_submit", "_handler", "_streams", "_many", "_watch")
OPTIONAL = {"numpy", "torch", "uvloop", "cloudpickle", "tqdm", "rich"}
ALLOWED_LAZILY = {
    "numpy": {"_handler.rows"},
    "torch": {"_handler.rows"},
    "tqdm": {"_many.progress"},
    "rich": {"_many.progress"},
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each module that this file imports, and whether it does so while it is being imported itself.

    What stands under `if TYPE_CHECKING:` is no import.
    """

    def walk(node: ast.AST, eager: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(other, eager)
            elif isinstance(child, ast.Import):
                yield from ((alias.name, eager) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                home = ["carpool", *path.relative_to(HOME).parent.parts]
                home = home[: len(home) + 1 - child.level] if child.level else []
                base = ".".join([*home, *filter(None, [child.module])])
                yield base, eager
                yield from ((f"{base}.{alias.name}", eager) for alias in child.names)
            else:
                yield from walk(
                    child,
                    eager
                    and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)),
                )

    yield from walk(ast.parse(path.read_text()), True)


def called(path: Path) -> str:
    """The module's name within carpool."""
    return ".".join(path.relative_to(HOME).with_suffix("").parts)


FILES = sorted(
    [*HOME.glob("*.py"), *(path for room in ROOMS for path in HOME.glob(f"{room}/*.py"))]
)
MODULES = {called(path) for path in FILES} | {"_core"}


def own(path: Path) -> set[str]:
    """The modules of ours that this one imports, lazily or not."""
    found = (
        name.removeprefix("carpool.") for name, _ in imports(path) if name.startswith("carpool.")
    )
    return {name for name in found if name in MODULES}


def test_the_files_of_the_way_are_there() -> None:
    assert {"__init__", *ORDER, *LEAVES, "_handler.worker"} <= MODULES
    assert list(HOME.glob("_core*.so")) or list(HOME.glob("_core*.pyd"))


@pytest.mark.parametrize("path", FILES, ids=called)
def test_dependencies_point_one_way(path: Path) -> None:
    name = called(path)
    if name in ORDER:
        above = set(ORDER[: ORDER.index(name)])
    else:  # a module beside the way serves it and knows none of its stations
        above = {
            "__init__",
            "_decorator",
            "_function",
            "_batcher",
            "_control",
            "_station",
            "_handler.worker",
        }
    assert not own(path) & above
    if name in LEAVES:
        assert own(path) == set()


def test_there_is_no_circle() -> None:
    edges = {called(path): own(path) for path in FILES}
    clear: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in clear:
            for other in edges.get(name, ()):
                visit(other, (*trail, name))
            clear.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=called)
def test_optional_packages_are_imported_only_where_they_are_used(path: Path) -> None:
    for name, eager in imports(path):
        package = name.partition(".")[0]
        if package in OPTIONAL:
            assert not eager, f"{path.name} imports {name} while it is imported itself"
            assert called(path) in ALLOWED_LAZILY.get(package, set()), f"{path.name} imports {name}"


COLLATE = sorted((HOME / "collate").glob("*.py"), key=lambda path: path.stem)
CUDA = sorted((HOME / "cuda").glob("*.py"), key=lambda path: path.stem)


@pytest.mark.parametrize("path", CUDA, ids=lambda path: path.stem)
def test_what_leads_to_a_device_knows_no_batcher(path: Path) -> None:
    assert own(path) == set()
    for name, eager in imports(path):
        if name.partition(".")[0] in OPTIONAL:
            assert path.stem in {"_graphs", "_lanes", "_streams"}
            assert not eager


@pytest.mark.parametrize("path", COLLATE, ids=lambda path: path.stem)
def test_collators_know_no_batcher(path: Path) -> None:
    assert own(path) <= {"_core", "_exceptions", "_handler.rows", "_types"}
    for name, eager in imports(path):
        if name.partition(".")[0] in OPTIONAL:
            assert path.stem == "_packages"
            assert not eager


def test_using_it_with_plain_lists_imports_no_optional_package() -> None:
    said = run_script("""
from carpool import batched
f = batched(lambda items: items)
assert f(1) == 1
async def main(): return await f.acall(2)
assert asyncio.run(main()) == 2
say(sorted({"numpy", "torch", "uvloop", "cloudpickle", "tqdm", "rich"} & set(sys.modules)))
""")
    assert said == ["[]"]


@pytest.mark.skipif(not RUST.is_dir(), reason="runs in the repository")
def test_the_core_crate_knows_no_python() -> None:
    core = RUST / "carpool-core"
    manifest = (core / "Cargo.toml").read_text()
    assert not re.search(r"(?i)pyo3|carpool-py", manifest)
    for source in (core / "src").rglob("*.rs"):
        assert not re.search(r"\b(pyo3|carpool_py)\b", source.read_text()), source


@pytest.mark.skipif(not RUST.is_dir(), reason="runs in the repository")
def test_only_the_border_crate_uses_pyo3() -> None:
    users = [
        path.parent.name
        for path in RUST.glob("*/Cargo.toml")
        if re.search(r"(?m)^pyo3\b", path.read_text())
    ]
    assert users == ["carpool-py"]


@pytest.mark.skipif(not RUST.is_dir(), reason="runs in the repository")
def test_nothing_is_made_at_first_use_under_a_lock_that_a_fork_may_meet() -> None:
    """PyO3 makes such things holding a lock, and may wait for the interpreter meanwhile, while others fork.

    So they are made by `guard`, or with the module.
    """
    border = RUST / "carpool-py" / "src"
    with_the_module = (border / "lib.rs").read_text()
    for source in border.rglob("*.rs"):
        text = source.read_text()
        if source.name != "guard.rs":
            found = re.findall(r"pyo3::(?:\{[^}]*)?\bintern\b|\bget_or_(?:try_)?init\(", text)
            assert not found, (source, found)
        for name in re.findall(r"#\[pyclass[^\]]*\][^{;]*?\bstruct (\w+)", text):
            known = rf"use [\w:]*\b{name};|get_type::<[\w:]*\b{name}>"
            assert re.search(known, with_the_module + text), (source, name)
