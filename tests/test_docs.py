"""Documents: every piece of Python in README, docs/ and docstrings runs as it stands.

In Markdown, the blocks fenced as ```python of one page run one after the other in one namespace of a
fresh interpreter; `await` at top level is allowed. A block fenced as ```python no-run must only be
valid Python. A page whose blocks need a package that is not installed is skipped, by name.
"""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
from pathlib import Path

import pytest

import carpool
from gates import outcome_of, start_script

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^(?P<indent> *)```python(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
MAY_BE_ABSENT = ("torch", "numpy", "fastapi", "uvicorn", "httpx", "uvloop", "pydantic", "starlette")

RUNNER = """
import ast, inspect, json
namespace = {"__name__": "__page__"}
async def main(blocks):
    for line, source in blocks:
        code = compile("\\n" * line + source, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, namespace)
        else:
            await asyncio.to_thread(exec, code, namespace)
blocks = json.loads(sys.stdin.read())
try:
    asyncio.run(main(blocks))
except ModuleNotFoundError as error:
    say("absent:", error.name)
else:
    say("ran", len(blocks))
"""


def blocks(page: Path) -> list[tuple[int, str, str]]:
    """(line, info, code) of each block of Python."""
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        indent = len(match["indent"])
        code = "".join(
            line[indent:] if line.strip() else "\n"
            for line in match["code"].splitlines(keepends=True)
        )
        found.append((text[: match.start("code")].count("\n"), match["info"].strip(), code))
    return found


def test_the_readme_shows_code() -> None:
    assert blocks(ROOT / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page(page: Path) -> None:
    found = blocks(page)
    for line, info, code in found:
        assert info in ("", "no-run"), (
            f"{page}:{line}: a block is ```python or ```python no-run, not {info!r}"
        )
        compile(
            code, f"{page}:{line}", "exec", flags=8192, dont_inherit=True
        )  # ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    runnable = [(line, code) for line, info, code in found if not info]
    if not runnable:
        return
    process = start_script(RUNNER)
    assert process.stdin is not None
    process.stdin.write(json.dumps(runnable))
    process.stdin.close()
    process.stdin = None
    code_, said, complaint = outcome_of(process, 50)
    absent = re.search(r"^absent: (\w+)", said, re.MULTILINE)
    if absent and absent[1] in MAY_BE_ABSENT:
        pytest.skip(f"needs {absent[1]}")
    assert code_ == 0, f"{page}\n{said}\n{complaint}"
    assert f"ran {len(runnable)}" in said, f"{page}\n{said}\n{complaint}"


MODULES = [
    "carpool",
    *[
        f"carpool.{module.name}"
        for module in pkgutil.iter_modules(carpool.__path__)
        if module.name != "_core"
    ],
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
