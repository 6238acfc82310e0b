"""The output of an evaluation: tables, and goals that are met or missed, written between the markers of a card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

BEGIN, END = "<!-- evaluation: begin (written by evaluate.py) -->", "<!-- evaluation: end -->"


@dataclass
class Section:
    """One table, with the goals that are met or missed."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""
    met: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def goal(self, name: str, value: float, wanted: float, at_most: bool = False, unit: str = "") -> None:
        """Record whether the value meets a goal; the interval, which the table shows, is ignored.

        unit: appended to both values; with " %", both values are shares 0..1, and are shown times 100.
        """
        scale = 100 if unit == " %" else 1
        bound = "at most" if at_most else "at least"
        line = f"{name}: {value * scale:.4g}{unit} (goal {bound} {wanted * scale:g}{unit})"
        reached = value <= wanted if at_most else value >= wanted
        (self.met if reached else self.missed).append(line)

    def markdown(self) -> str:
        """Heading, note, table."""
        lines = [f"### {self.title}", ""]
        if self.note:
            lines += [self.note, ""]
        lines += ["| " + " | ".join(self.header) + " |", "|" + " --- |" * len(self.header)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def write_card(
    page: Path, figures: Path, intro: str, sections: Sequence[Section], absent: Sequence[str], sha256: str
) -> tuple[int, int]:
    """Write intro, goals and tables between the page's markers, and the goals to the JSON file `figures`.

    Returns how many goals are met and missed.
    """
    met, missed = ([g for s in sections for g in s.met], [g for s in sections for g in s.missed])
    lines = [
        intro,
        "",
        *(f"Not measured: {line}\n" for line in absent),
        f"**Goals met: {len(met)} of {len(met) + len(missed)}.**" + (" Missed goals:" if missed else ""),
        "",
        *(["\n".join(f"* {goal}" for goal in missed), ""] if missed else []),
        *(section.markdown() for section in sections),
    ]
    put_between(page, BEGIN, END, "\n".join(lines))
    _replace(figures, json.dumps({"sha256": sha256, "met": met, "missed": missed}, indent=2) + "\n")
    return len(met), len(missed)


def put_between(page: Path, begin: str, end: str, text: str) -> None:
    """Write text between two marker lines of a page; if they are missing, they are appended."""
    old = page.read_text() if page.is_file() else f"# {page.parent.name}\n"
    if begin not in old:
        old += f"\n{begin}\n{end}\n"
    start, stop = old.index(begin), old.index(end) + len(end)
    _replace(page, f"{old[:start]}{begin}\n{text}\n{end}{old[stop:]}")


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)
