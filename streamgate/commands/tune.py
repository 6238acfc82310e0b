"""`streamgate tune`."""

from __future__ import annotations

import time

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamgate.report.write import REPORT
from streamgate.tuning.tune import TuneRequest, TuneResult, tune


def tune_command(request: TuneRequest) -> int:
    """Tune an output folder and print what that changes; returns the exit code. Raises StreamgateError."""
    began = time.perf_counter()
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=160)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    with errors.status("") as status:
        result = tune(request, lambda done, total: status.update(f"source {done + 1} of {total}"))
    if not result.changed:
        console.print("nothing differs from the settings these results were made with; nothing was changed")
        return 0
    console.print(_table(result), soft_wrap=False)
    console.print(_words(result, request.dry))
    if not result.same_meaning:
        console.print("Qualities mean something else now: they do not compare with those from before.")
    for problem in result.problems:
        errors.print(f"[yellow]streamgate: warning:[/yellow] {escape(problem)}")
    if request.dry:
        console.print("nothing was changed (--dry-run)")
        return 0
    console.print(f"{escape(str(request.out))} is as if made with {', '.join(result.changed)} "
                  f"({time.perf_counter() - began:.1f} s)")
    if (request.out / REPORT).is_file():
        console.print(f"report: {escape(str(request.out / REPORT))}")
    return 0


def _table(result: TuneResult) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "before", "after", "change"):
        table.add_column(name, justify="left" if not name else "right")
    before, after = result.before, result.after

    def row(name: str, one: int, other: int) -> None:
        table.add_row(name, str(one), str(other), f"{other - one:+d}" if other != one else "")

    row("faces kept", before.kept, after.kept)
    row("tracks that keep nothing", before.tracks_without, after.tracks_without)
    reasons = {*before.rejected, *after.rejected}
    for name in sorted(reasons, key=lambda name: (-max(before.rejected[name], after.rejected[name]), name)):
        row(f"turned away: {name}", before.rejected[name], after.rejected[name])
    return table


def _words(result: TuneResult, dry: bool) -> str:
    after = result.after
    parts = [
        f"{count} track{'' if count == 1 else 's'} {what}"
        for count, what in (
            (after.other, "with other faces"), (after.gained, "gained one"), (after.lost, "lost theirs"),
        )
        if count
    ]  # fmt: skip
    told = ", ".join(parts) or "the same faces are kept"
    if after.looked:
        faces = f"{after.looked} face{'' if after.looked == 1 else 's'}"
        told += f"; {faces} {'would be looked' if dry else 'looked'} at in the footage"
    return told
