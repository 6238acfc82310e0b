"""`streamgate compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Command, section
from streamgate.commands.options import (
    PATH,
    complete_folders,
    device_option,
    models_option,
    preset_option,
    set_option,
)
from streamgate.errors import UsageError, display, escaped, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from streamgate.compare.results import AgreementRow, HumanScores
    from streamgate.compare.values import Problems
    from streamgate.frames import Array
    from streamgate.tables import Table

_columns = section("Columns of the table")
_output = section("Output")


@click.command(
    cls=Command,
    epilog="""
    streamgate compare judged.csv --measures serfiq,ifqa,sharpness
    streamgate compare judged.csv --measures ifqa,theirs --group set --html c.html
    streamgate compare labels.csv --results faces --measures ifqa,yaw,quality
    """,
)
@click.argument("table", type=PATH)
@click.option(
    "--measures", "names", required=True, metavar="NAME,...",
    help="Measures, `quality`, psnr, ssim, or numeric columns of TABLE (`NAME:lower` if lower is better).",
)
@click.option(
    "--results", metavar="OUT", type=PATH, shell_complete=complete_folders,
    help="Look up the faces of this run by the columns source_id, track_id and pts_seconds, or by id. Pictures are not "
    "needed.",
)
@click.option("--aligned", type=click.Choice(["arcface", "ffhq"]), help="The pictures are crops with this alignment.")
@_columns("--image", metavar="COLUMN", help="Paths of the pictures, relative to TABLE. [default: image, path or file]")
@_columns(
    "--human", metavar="COLUMN",
    help="Human scores, or the labels good, usable and bad. [default: the first of human, mos, dmos, label, grade, "
    "score, rank]",
)
@_columns("--ranked", is_flag=True, help="The column of --human has ranks; low numbers are best.")
@_columns("--group", metavar="COLUMN", help="Also compare separately for each value of this column.")
@_columns(
    "--cluster", metavar="COLUMN",
    help="Rows with the same value in this column are resampled together. [default with --results: the track]",
)
@_columns("--reference", metavar="COLUMN", help="Paths of the reference pictures, for psnr and ssim.")
@_output("--csv", "csv_file", metavar="FILE", type=PATH, help="Write the results as CSV.")
@_output("--html", "html_file", metavar="FILE", type=PATH, help="Write an HTML page with scatter plots.")
@preset_option
@set_option
@models_option
@device_option
def compare(
    table: Path,
    names: str,
    results: Path | None,
    aligned: str | None,
    image: str | None,
    human: str | None,
    ranked: bool,
    group: str | None,
    cluster: str | None,
    reference: str | None,
    csv_file: Path | None,
    html_file: Path | None,
    preset: str,
    settings: tuple[str, ...],
    models: str,
    device: str,
) -> int:
    """Compare measures with human judgements of the faces in TABLE (CSV or Parquet).

    Reports rank correlation (SRCC, KRCC), linear correlation after a monotone fit (PLCC), and the AUC of good versus
    bad faces, each with a 95 % bootstrap interval. Values for which lower is better are negated, so a positive
    correlation always means agreement.
    """
    import numpy as np
    from rich.console import Console

    from streamgate.compare.page import page_text
    from streamgate.compare.results import compare as compared
    from streamgate.compare.results import csv_text, human_column, human_values
    from streamgate.tables import read_table

    rows = read_table(table)
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    if not wanted:
        raise UsageError("--measures is empty: give, for example, --measures serfiq,ifqa")
    said = human_values(rows, human_column(rows, human), ranked=ranked)
    groups, clusters = (
        None if name is None else np.array([row[rows.need(name, option)] for row in rows.rows])
        for name, option in ((group, "--group"), (cluster, "--cluster"))
    )
    if clusters is None and results is not None and {"source_id", "track_id"} <= set(rows.columns):
        clusters = np.array([f"{row['source_id']}/{row['track_id']}" for row in rows.rows])
    if reference is not None:
        rows.need(reference, "--reference")
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    scoring = (preset, settings, models, device)
    values, problems = _values(rows, wanted, results, image, aligned, reference, scoring, errors)
    lines = compared(said, values, groups, clusters)
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=160)
    note = _note(rows, said)
    console.print(note, markup=False)
    _print(console, lines)
    _report_errors(errors, problems, len(rows.rows))
    title = f"Measures compared with human scores: {table.name}"
    for file, text in (
        (csv_file, lambda: csv_text(lines)),
        (html_file, lambda: page_text(title, note, lines, said, values, groups)),
    ):
        if file is not None:
            _write(file, text())
            console.print(f"wrote {display(file)}", markup=False)
    return 0 if any(line.figures for line in lines) else 1


def _values(
    table: Table,
    names: list[str],
    results: Path | None,
    image: str | None,
    aligned: str | None,
    reference: str | None,
    scoring: tuple[str, tuple[str, ...], str, str],
    errors: Console,
) -> tuple[dict[str, Array], Problems]:
    """The values of each measure, read from a column, looked up in the results, or scored; and the problems found."""
    from streamgate.compare.values import LOWER, check_names, column_values, recorded_values, scored_values
    from streamgate.config import load_config
    from streamgate.engine import Engine
    from streamgate.measures import built_in_measures
    from streamgate.store.folder import RunFolder

    preset, settings, models, device = scoring
    folder = None if results is None else RunFolder(results)
    measures = load_config(preset, settings).measures.specs if folder is None else folder.measures
    check_names(names, table, measures, has_reference=reference is not None)
    given = {name: column_values(table, name) for name in names if name.removesuffix(LOWER) in table.columns}
    left = [name for name in names if name not in given]
    found: dict[str, Array] = {}
    problems: Problems = {}
    if left and folder is not None:
        found, problems = recorded_values(table, left, folder)
    elif left:
        column = _image_column(table, image)
        others = {spec.name for spec in measures} - {spec.name for spec in built_in_measures()}
        used = [f"measures.{name}.use=true" for name in left if name in others]
        config = load_config(preset, [*settings, *used])
        with Engine(config, models=models, device=device) as engine, errors.status("") as status:
            found, problems = scored_values(
                table, left, engine, image=column, aligned=aligned, reference=reference, workers=4,
                done=lambda count: status.update(f"{count} of {len(table.rows)} pictures"),
            )  # fmt: skip
    return {name: given[name] if name in given else found[name] for name in names}, problems


def _image_column(table: Table, given: str | None) -> str:
    if given is not None:
        return table.need(given, "--image")
    for name in ("image", "path", "file", "filename"):
        if name in table.columns:
            return name
    raise UsageError(
        f"{display(table.path)} has no column with pictures (image, path or file): name the column with --image, or "
        f"use --results OUT for faces of a run; {table.listed}"
    )


def _note(table: Table, human: HumanScores) -> str:
    kinds = int(human.good.sum()), int(human.bad.sum())
    count = len(table.rows) - human.left_out
    text = f"{count} rows of {display(table.path)}; measures compared with the column '{human.column}'"
    text += f" ({kinds[0]} good, {kinds[1]} bad)" if all(kinds) else ""
    return text + (f"; {human.left_out} rows without a value are skipped" if human.left_out else "")


def _print(console: Console, lines: list[AgreementRow]) -> None:
    from rich.table import Table as Grid

    from streamgate.compare.results import EVERYTHING, FIGURES, estimate_text

    for group in dict.fromkeys(line.group for line in lines):
        grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        heads = ("measure" if group == EVERYTHING else one_line(group, 40), "rows", "SRCC", "KRCC", "PLCC", "AUC")
        for index, name in enumerate(heads):
            grid.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
        for line in (one for one in lines if one.group == group):
            cells = [line.why, "", "", ""]
            if line.figures:
                cells = [estimate_text(line.figures.get(name)) for name in FIGURES]
            grid.add_row(escaped(line.measure), str(line.count), *cells)
        console.print()
        console.print(grid, soft_wrap=False)


def _report_errors(errors: Console, problems: Problems, rows: int) -> None:
    for words, which_rows in problems.items():
        first, count = which_rows[0], len(which_rows)
        which = first if count == 1 else f"{count} of {rows} rows, first {first}"
        errors.print(f"streamgate: warning: {escaped(which)}: {escaped(words)}", markup=False)


def _write(path: Path, text: str) -> None:
    from streamgate.store.files import sink_errors, write_text

    with sink_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path.parent, path.name, text)
