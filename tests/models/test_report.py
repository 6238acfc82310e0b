"""What an evaluation writes into a card."""

from __future__ import annotations

import json
from pathlib import Path

from models.common.report import BEGIN, END, Section, write_card


def test_goals_are_booked_by_the_figure_in_its_unit() -> None:
    section = Section("Title", ["a"])
    section.goal("share", 0.981, 0.97, unit=" %")
    section.goal("error", 12.0, 10, at_most=True, unit=" degrees")
    assert section.met == ["share: 98.1 % (goal at least 97 %)"]
    assert section.missed == ["error: 12 degrees (goal at most 10 degrees)"]


def test_tables_go_between_the_markers_and_nothing_else_changes(tmp_path: Path) -> None:
    page, figures = tmp_path / "card.md", tmp_path / "evaluation.json"
    page.write_text(f"# before\n{BEGIN}\nold\n{END}\nafter\n")
    section = Section("Title", ["a", "b"], [["1", "2"]], missed=["x: 1 (goal at least 2)"])
    assert write_card(page, figures, "intro", [section], ["y: no data"], "ab12") == (0, 1)
    text = page.read_text()
    assert text.startswith("# before\n") and text.endswith("after\n") and "old" not in text
    assert "| 1 | 2 |" in text and "* x: 1 (goal at least 2)" in text and "Not measured: y: no data" in text
    assert json.loads(figures.read_text()) == {"sha256": "ab12", "met": [], "missed": section.missed}
