"""Results of a comparison: the agreement of each measure in each group, as rows and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgate.compare.agreement import MIN_ROWS, Estimate, agreement
from streamgate.errors import UsageError, display, one_line
from streamgate.frames import Array
from streamgate.labels import BAD, GOOD, grade_of
from streamgate.tables import Table

HUMAN_COLUMNS = ("human", "mos", "dmos", "label", "grade", "score", "rank")
"""Columns that may contain human judgements if `--human` is not given; the first that exists is used."""
EVERYTHING = ""
"""Name of the group that contains all rows."""


@dataclass(frozen=True, slots=True)
class HumanScores:
    """Human judgements by row: float (N,), higher is better, NaN for rows without a judgement.

    `good`, `bad`: bool (N,), the rows that the AUC compares; all False if the judgements do not form two classes.
    """

    values: Array
    good: Array
    bad: Array
    column: str
    left_out: int


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """The agreement of a measure in a group; if it cannot be computed, `why` gives the reason."""

    measure: str
    group: str
    count: int
    figures: Mapping[str, Estimate]
    why: str = ""


def human_column(table: Table, given: str | None) -> str:
    """The name of the column with human judgements. Raises UsageError if there is none."""
    if given is not None:
        return table.need(given, "--human")
    for name in HUMAN_COLUMNS:
        if name in table.columns:
            return name
    raise UsageError(
        f"{display(table.path)} has no column with human judgements ({', '.join(HUMAN_COLUMNS)}); "
        f"give its name with --human; {table.listed}"
    )


def human_values(table: Table, column: str, *, ranked: bool) -> HumanScores:
    """Read scores, ranks (`ranked`: 1 is best) or the labels good, usable and bad.

    Raises UsageError for other values.
    """
    texts = [row[column] for row in table.rows]
    graded = any(grade_of(text) is not None for text in texts)
    values = np.full(len(texts), np.nan)
    for index, text in enumerate(texts):
        value = grade_of(text) if graded else _number(text)
        if value is None:
            kind = "good, usable or bad" if graded else "a number, or one of good, usable and bad"
            raise UsageError(f"{display(table.path)}, row {index + 1}: {one_line(repr(text), 60)} is not {kind}")
        values[index] = value
    values = -values if ranked or column == "rank" or column == "dmos" else values
    given = values[np.isfinite(values)]
    if len(given) < MIN_ROWS:
        raise UsageError(
            f"{display(table.path)} has {len(given)} row{'' if len(given) == 1 else 's'} with a human judgement; "
            f"a comparison needs at least {MIN_ROWS} such rows, and is useful only with 100 or more"
        )
    kinds = np.unique(given)
    if len(kinds) < 2:
        raise UsageError(
            f"all rows have the same human judgement ({one_line(texts[0], 40)}), so agreement cannot be measured"
        )
    two = (BAD, GOOD) if graded else tuple(kinds) if len(kinds) == 2 else (np.nan, np.nan)
    return HumanScores(values, values == two[1], values == two[0], column, int(len(texts) - len(given)))


def compare(
    human: HumanScores, values: Mapping[str, Array], groups: Array | None, clusters: Array | None, seed: int = 0
) -> list[AgreementRow]:
    """Compare every measure over all rows, then every measure in each group."""
    names = [EVERYTHING, *(np.unique(groups) if groups is not None else ())]
    return [
        _line(measure, str(group), human, found, here, clusters, seed)
        for group in names
        for here in [np.full(len(human.values), True) if group == EVERYTHING else groups == group]
        for measure, found in values.items()
    ]


def _line(
    measure: str, group: str, human: HumanScores, found: Array, here: Array, clusters: Array | None, seed: int
) -> AgreementRow:
    rows = here & np.isfinite(found) & np.isfinite(human.values)
    count = int(rows.sum())
    if count < MIN_ROWS:
        return AgreementRow(measure, group, count, {}, f"too few rows: at least {MIN_ROWS} are needed")
    figures = agreement(
        found[rows], human.values[rows], human.good[rows], human.bad[rows],
        clusters=None if clusters is None else clusters[rows], seed=seed,
    )  # fmt: skip
    if not figures:
        which = "the human judgement" if len(np.unique(human.values[rows])) < 2 else "the measure"
        return AgreementRow(measure, group, count, {}, f"{which} is the same in all rows")
    return AgreementRow(measure, group, count, figures)


FIGURES = ("srcc", "krcc", "plcc", "auc")


def csv_text(lines: Sequence[AgreementRow]) -> str:
    """CSV text with one row per measure and group: each value and the bounds of its interval."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    names = [f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high")]
    writer.writerow(["measure", "group", "rows", *names])
    for line in lines:
        cells = [line.measure, line.group, line.count]
        for name in FIGURES:
            found = line.figures.get(name, (np.nan,) * 3)
            cells += [f"{value:.4f}" if np.isfinite(value) else "" for value in found]
        writer.writerow(cells)
    return file.getvalue()


def estimate_text(estimate: Estimate | None) -> str:
    """The estimate as text, for example `0.810 (0.78 to 0.84)`; empty for None."""
    if estimate is None:
        return ""
    value, low, high = estimate
    return f"{value:.3f} ({low:.2f} to {high:.2f})"


def _number(text: str) -> float | None:
    if not text:
        return np.nan
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else np.nan
