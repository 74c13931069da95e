"""Puts figures into documents: what stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`.

No figure in a document is typed by hand; a program that measured it writes it there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

PLACE = re.compile(
    r"(?P<begin><!-- figures: (?P<name>[^>]+?) -->\n).*?(?P<end><!-- end of figures -->)", re.DOTALL
)


def filled(text: str, figures: Mapping[str, str]) -> tuple[str, set[str]]:
    """The text with new figures in the places it has for them, and the names of those places."""
    found: set[str] = set()

    def replaced(place: re.Match[str]) -> str:
        name = place["name"]
        if name not in figures:
            return place[0]
        found.add(name)
        return f"{place['begin']}\n{figures[name].strip()}\n\n{place['end']}"

    return PLACE.sub(replaced, text), found


def put(path: Path, figures: Mapping[str, str]) -> None:
    """Into the document at `path`; where there is none, or it has no such place, a page of the figures alone."""
    before = path.read_text() if path.exists() else ""
    after, found = filled(before, figures)
    if not found:
        if before:
            raise SystemExit(
                f"{path} has no place for {', '.join(figures)}: it needs '<!-- figures: NAME -->' "
                "and '<!-- end of figures -->'"
            )
        after = "\n\n".join(f"## {name}\n\n{text}" for name, text in figures.items()) + "\n"
    path.write_text(after)
    print(f"figures in {path}: {', '.join(sorted(found or figures))}")
