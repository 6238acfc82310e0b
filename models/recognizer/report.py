"""Tables of the card: titles, rows, goals met and missed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

BEGIN, END = "<!-- evaluation: begin (written by evaluate.py) -->", "<!-- evaluation: end -->"


@dataclass
class Section:
    """One table, and the goals it meets or misses."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""
    met: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def goal(self, name: str, value: float, wanted: float, at_most: bool = False, unit: str = "") -> None:
        """Book a goal by the figure itself; how sure it is shows in the table's interval."""
        line = f"{name}: {value:.4g}{unit} (goal {'at most' if at_most else 'at least'} {wanted:g}{unit})"
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


def write_card(page: Path, figures: Path, sections: list[Section], absent: list[str], sha256: str, steps: int) -> None:
    """Put the tables between the page's markers, and the goals into a JSON file."""
    met, missed = ([g for s in sections for g in s.met], [g for s in sections for g in s.missed])
    lines = [
        BEGIN,
        f"Weights sha256 `{sha256[:16]}`, {steps} training steps; 95 % bootstrap intervals.",
        "",
        f"**Goals met: {len(met)} of {len(met) + len(missed)}.** Missed:",
        "",
        *([f"* {goal}" for goal in missed] or ["* none"]),
        "",
        *[f"Not measured: {line}\n" for line in absent],
        *(section.markdown() for section in sections),
        END,
    ]
    text = page.read_text() if page.is_file() else f"# recognizer\n\n{BEGIN}\n{END}\n"
    start, stop = text.index(BEGIN), text.index(END) + len(END)
    page.write_text(text[:start] + "\n".join(lines) + text[stop:])
    figures.write_text(json.dumps({"sha256": sha256, "met": met, "missed": missed}, indent=2) + "\n")
