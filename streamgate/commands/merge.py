"""`streamgate merge`."""

from __future__ import annotations

from pathlib import Path

import click

from streamgate.errors import display
from streamgate.sinks.merging import merge


def merge_command(out: Path, *, overwrite: bool, quiet: bool) -> int:
    """Merge the shards in `out`; returns the exit code: 1 when some are missing or not at their end."""
    merged = merge(out, overwrite=overwrite)
    for told in merged.unfinished:
        click.echo(f"streamgate: {told}", err=True)
    if not quiet:
        click.echo(
            f"{merged.kept} face{'' if merged.kept == 1 else 's'} of {merged.sources} source(s) from {merged.shards} "
            f"shard(s) in {display(out)} ({merged.new} new)",
            err=True,
        )
    return 1 if merged.unfinished else 0
