"""Front doors stand on what carpool exports, and import other packages only where they are used."""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import carpool
from carpool import compat
from gates import run_script

HOME = Path(compat.__file__).parent
FILES = sorted(HOME.rglob("*.py"))
DOORS = sorted(
    module.name for module in pkgutil.iter_modules(compat.__path__) if module.name[0] != "_"
)
OPTIONAL = {
    "fastapi",
    "httpx",
    "matplotlib",
    "numpy",
    "openai",
    "pydantic",
    "ray",
    "starlette",
    "torch",
}


def imports(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Each import: the module, the name taken of it, and whether it happens while the file is imported.

    What stands under `if TYPE_CHECKING:` is no import.
    """

    def walk(node: ast.AST, eager: bool) -> Iterator[tuple[str, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(other, eager)
            elif isinstance(child, ast.Import):
                yield from ((alias.name, "", eager) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    base = f"carpool.compat.{base}".rstrip(".")
                yield from ((base, alias.name, eager) for alias in child.names)
            else:
                inside = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
                yield from walk(child, eager and not isinstance(child, inside))

    yield from walk(ast.parse(path.read_text()), True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOME)))
def test_a_front_door_uses_what_is_public(path: Path) -> None:
    for module, name, eager in imports(path):
        if module == "carpool":
            assert name in ("", "compat", *carpool.__all__), f"{path.name} imports {name}"
        elif module.startswith("carpool."):
            public = module.startswith("carpool.compat") or module == "carpool.collate"
            assert public, f"{path.name} imports {module}"
        elif module.partition(".")[0] in OPTIONAL:
            assert not eager, f"{path.name} imports {module} while it is imported itself"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOME)))
def test_of_carpool_itself_only_public_names_are_used(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "carpool"
        ):
            assert node.attr in carpool.__all__, f"{path.name} uses carpool.{node.attr}"


@pytest.mark.parametrize("door", DOORS)
def test_importing_a_front_door_imports_no_other_package(door: str) -> None:
    said = run_script(f"""
import carpool.compat.{door}
say(sorted({OPTIONAL!r} & set(sys.modules)), threading.active_count())
""")
    assert said == ["[] 1"]


def test_carpool_itself_imports_no_front_door() -> None:
    assert run_script("import carpool; say('carpool.compat' in sys.modules)") == ["False"]
