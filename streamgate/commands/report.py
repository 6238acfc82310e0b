"""`streamgate report`."""

from __future__ import annotations

from pathlib import Path

import click

from streamgate.people.ledger import Ledger
from streamgate.report.folder import RunFolder
from streamgate.report.write import REPORT, write_report
from streamgate.store.files import Lock
from streamgate.tuning.tune import finish_pending


def report_command(out: Path, *, quiet: bool) -> int:
    """Rebuild OUT/report.html; returns the exit code. What could not be read is told, and the rest is shown.

    Raises SourceError for a folder without results, SinkError when it is in use or not writable.
    """
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
