"""The pages as tests read them: their blocks of code, and what stands in code elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = (
    REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "SECURITY.md", REPOSITORY / "CODE_OF_CONDUCT.md",
)  # fmt: skip
_BLOCK = re.compile(r"^(?:<!-- not run: (?P<why>.+?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block; `why` is the reason for which a `sh` or `python` block is not run."""

    language: str
    text: str
    line: int
    why: str | None


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """The blocks of some languages (all, where none is named), in order."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        if not languages or found["language"] in languages:
            line = text.count("\n", 0, found.start()) + 1
            yield Block(found["language"], found["text"], line, found["why"])


def prose(page: Path) -> str:
    """The text without fenced blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def inline(page: Path) -> list[str]:
    """What stands in code inside the text."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))
