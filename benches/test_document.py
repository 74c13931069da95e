"""Figures go where a document has a place for them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from document import filled, put

PAGE = """# Page

<!-- figures: W1 -->
old
<!-- end of figures -->
between
<!-- figures: W2 -->
<!-- end of figures -->
"""


def test_only_named_places_change() -> None:
    text, found = filled(PAGE, {"W1": "new\n", "W9": "unasked"})
    assert found == {"W1"}
    assert "new" in text
    assert "old" not in text
    assert "unasked" not in text
    assert text.endswith("between\n<!-- figures: W2 -->\n<!-- end of figures -->\n")


def test_filling_again_changes_nothing() -> None:
    once, _ = filled(PAGE, {"W1": "a", "W2": "b"})
    assert filled(once, {"W1": "a", "W2": "b"})[0] == once


def test_a_document_without_a_place_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("mine")
    with pytest.raises(SystemExit, match="no place for W1"):
        put(page, {"W1": "new"})
    assert page.read_text() == "mine"
    put(tmp_path / "fresh.md", {"W1": "new"})
    assert (tmp_path / "fresh.md").read_text() == "## W1\n\nnew\n"
