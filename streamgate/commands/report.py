"""`streamgate report`."""

from __future__ import annotations

from pathlib import Path

import click

from streamgate.commands.help import Command
from streamgate.commands.options import quiet_option, results_argument


@click.command(cls=Command, epilog="streamgate report faces   # after `run -o faces`")
@results_argument
@quiet_option
def report(out: Path, quiet: bool) -> int:
    """Write OUT/report.html again from the results in OUT.

    What cannot be read is reported, and the rest is shown.
    """
    from streamgate.people.ledger import Ledger
    from streamgate.report.folder import RunFolder
    from streamgate.report.write import REPORT, write_report
    from streamgate.store.files import Lock
    from streamgate.tuning.tune import finish_pending

    RunFolder.read(out)
    lock = Lock(out / ".streamgate" / "lock")
    lock.acquire()
    try:
        finish_pending(out)
        # Read again: until the lock was ours a run may have been at work.
        folder = RunFolder.read(out)
        problems = write_report(out, folder.manifest, Ledger.read(out / ".streamgate").names)
    finally:
        lock.release()
    for problem in problems:
        click.echo(f"streamgate: warning: {problem}", err=True)
    if not quiet:
        click.echo(out / REPORT)
    return 0
