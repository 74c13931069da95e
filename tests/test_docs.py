"""Documents: every piece of Python in README, docs/ and docstrings runs as it stands.

The blocks fenced as ```python of one page, or of one docstring, run one after the other in one
namespace of a fresh interpreter; `await` at top level is allowed. A comment before a block says what
is special about it: `<!-- needs: torch -->` is skipped, by name, where that is not installed, and
`<!-- not run: why -->` must only be valid Python.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import carpool
from gates import outcome_of, start_script

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^(?P<indent> *)```python(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
COMMENT = re.compile(r"<!-- (needs|not run): (.+?) -->\s*\Z")

# A docstring shows how a loop of one's own looks; alone it would wait for batches for ever.
LOOPS_FOR_EVER = {"carpool.Batcher"}

RUNNER = """
import ast, inspect, json, types
page = types.ModuleType("page")
sys.modules["page"] = page
async def main(blocks):
    for line, source in blocks:
        say("at line", line)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile("\\n" * line + source, "page", "exec", flags=flags, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, page.__dict__)
        else:
            # As a plain program: no event loop runs here.
            await asyncio.to_thread(exec, code, page.__dict__)
blocks = json.loads(sys.stdin.read())
asyncio.run(main(blocks))
say("ran", len(blocks))
"""


class Block(NamedTuple):
    line: int
    code: str
    needs: str | None
    not_run: str | None


def blocks(text: str) -> list[Block]:
    found = []
    for match in FENCE.finditer(text):
        assert not match["info"].strip(), f"a block is ```python, not ```python{match['info']}"
        indent = len(match["indent"])
        lines = match["code"].splitlines(keepends=True)
        code = "".join(line[indent:] if line.strip() else "\n" for line in lines)
        comment = COMMENT.search(text[: match.start()])
        marks = {comment[1]: comment[2]} if comment else {}
        line = text[: match.start("code")].count("\n")
        found.append(Block(line, code, marks.get("needs"), marks.get("not run")))
    return found


def run(name: str, found: list[Block], opening: str = "") -> None:
    """Runs what is to be run; says which packages the rest lacks."""
    for block in found:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compile(block.code, f"{name}:{block.line}", "exec", flags=flags, dont_inherit=True)
    absent = {one.needs for one in found if one.needs and not importlib.util.find_spec(one.needs)}
    runnable = [
        (one.line, one.code) for one in found if not one.not_run and one.needs not in absent
    ]
    if runnable:
        process = start_script(RUNNER)
        assert process.stdin is not None
        process.stdin.write(json.dumps([(0, opening), *runnable]))
        process.stdin.close()
        process.stdin = None
        status, said, complaint = outcome_of(process, 50)
        assert status == 0, f"{name}\n{said}\n{complaint}"
        assert f"ran {len(runnable) + 1}" in said, f"{name}\n{said}\n{complaint}"
    if absent:
        pytest.skip(f"{name}: not installed: {', '.join(sorted(map(str, absent)))}; the rest ran")


def docstrings() -> dict[str, str]:
    """Of the modules, and of what `carpool` exports with its public members."""
    found = {"carpool": carpool.__doc__ or ""}
    for module in pkgutil.iter_modules(carpool.__path__):
        name = f"carpool.{module.name}"
        found[name] = importlib.import_module(name).__doc__ or ""
    for label in carpool.__all__:
        thing = getattr(carpool, label)
        found[f"carpool.{label}"] = inspect.getdoc(thing) or ""
        for member in dir(thing) if inspect.isclass(thing) else ():
            if not member.startswith("_"):
                text = inspect.getdoc(getattr(thing, member)) or ""
                found[f"carpool.{label}.{member}"] = text
    return {name: text for name, text in found.items() if blocks(text)}


def test_the_readme_shows_code() -> None:
    assert blocks((ROOT / "README.md").read_text())


def test_the_decorator_s_docstring_shows_code() -> None:
    assert "carpool.batched" in docstrings()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page(page: Path) -> None:
    run(str(page.relative_to(ROOT)), blocks(page.read_text()))


@pytest.mark.parametrize("name", docstrings())
def test_the_code_of_a_docstring(name: str) -> None:
    found = blocks(docstrings()[name])
    if name in LOOPS_FOR_EVER:
        found = [one._replace(not_run="it waits for batches for ever") for one in found]
    run(name, found, "from carpool import *")


def test_no_docstring_is_excused_in_vain() -> None:
    assert set(docstrings()) >= LOOPS_FOR_EVER


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_page_that_starts_from_symptoms_names_every_option() -> None:
    from carpool._options import CallOptions, Options

    page = (ROOT / "docs/guides/which-option.md").read_text()
    known = {*Options.__dataclass_fields__, *CallOptions.__dataclass_fields__}
    assert {name for name in known if f"`{name}" not in page} == set()
