"""English sentences that every CPython carries: the prose of its language reference.

`pydoc_data.topics` is what `help()` shows for keywords and topics: plain text with headings,
grammar, code and signatures between the paragraphs. `sentences()` gives the prose alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pydoc_data.topics import topics

# A sentence ends at . ? or !, quotes and brackets included, where the next one begins.
_END = re.compile(r"""(?:(?<=[.?!])|(?<=[.?!]["”’)\]]))\s+(?=["“‘(*\[]{0,3}[A-Z])""")
_FOOTNOTE = re.compile(r"\s?\[\d+\](?=[\s.,;:]|$)")
_BULLET = re.compile(r"^(?:[*•-]|\d+\.|\[\d+\])\s+")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|cf|vs|resp)\.$")
_UNDERLINE = set('*=-^~"')
_WORD = re.compile(r"[A-Za-z][a-z’'-]*")
# What tells code, grammar, tables and signatures from prose.
_NOT_PROSE = re.compile(
    r"::=|>>>|\.\.\. |[{}]|[-=+~^*|]{3,}|->|\s=\s|[=!<>]=|^\w+(?:\.\w+)*\(|^\s*#|\|"
)


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text):
        raw = [line for line in block.split("\n") if line.strip()]
        lines = [line.strip() for line in raw]
        if not lines or any(set(line) <= _UNDERLINE for line in lines):
            continue  # a heading
        lines[0] = _BULLET.sub("", lines[0])
        if len(raw) > 1 and lines[0] == raw[0] and raw[1].startswith("   "):
            del lines[0]  # the term of a definition
        # A word broken at a hyphen goes on without a blank.
        yield re.sub(r"(?<=\w-) (?=\w)", "", " ".join(lines))


def _split(paragraph: str) -> Iterator[str]:
    begun = ""
    for part in _END.split(paragraph):
        begun = f"{begun} {part}" if begun else part
        if not _ABBREVIATION.search(begun):
            yield begun
            begun = ""
    if begun:
        yield begun


def _is_prose(sentence: str) -> bool:
    words = sentence.split()
    return (
        5 <= len(words) <= 80
        and sentence.rstrip('"”’)]')[-1:] in set(".?!")
        and re.match(r"""["“‘(*]*[A-Z]""", sentence) is not None
        and not _NOT_PROSE.search(sentence)
        and len(_WORD.findall(sentence)) >= 0.8 * len(words)
    )


def sentences() -> list[str]:
    """Every sentence once, whatever its capitals, in the order of first appearance."""
    found: dict[str, str] = {}
    for text in topics.values():
        for paragraph in _paragraphs(text):
            for sentence in _split(_FOOTNOTE.sub("", paragraph)):
                if _is_prose(sentence):
                    found.setdefault(sentence.casefold(), sentence)
    return list(found.values())
