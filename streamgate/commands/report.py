"""`streamgate report`."""

from __future__ import annotations

from pathlib import Path

import click

from streamgate.commands.help import Command
from streamgate.commands.options import quiet_option, results_argument
from streamgate.errors import display, escaped


@click.command(cls=Command, epilog="streamgate report faces   # after `run -o faces`")
@results_argument
@quiet_option
def report(out: Path, quiet: bool) -> int:
    """Rewrite OUT/report.html from the results in OUT.

    Results that cannot be read are reported; the report shows all others.
    """
    from streamgate.people.ledger import Ledger
    from streamgate.report.write import write_report
    from streamgate.store.folder import RunFolder
    from streamgate.store.layout import REPORT
    from streamgate.tuning.tune import finish_pending

    with RunFolder(out).lock():
        finish_pending(out)
        problems = write_report(out, RunFolder(out).manifest, Ledger.read(out).names)
    for problem in problems:
        click.echo(f"streamgate: warning: {escaped(problem)}", err=True)
    if not quiet:
        click.echo(display(out / REPORT))
    return 0
