"""`streamgate merge`."""

from __future__ import annotations

from pathlib import Path

import click

from streamgate.commands.help import Command
from streamgate.commands.options import quiet_option, results_argument
from streamgate.errors import escaped


@click.command(
    cls=Command,
    epilog="""
    streamgate run footage/ -o faces --shard 1/2   # on one machine
    streamgate run footage/ -o faces --shard 2/2   # on another machine
    streamgate merge faces
    """,
)
@results_argument
@click.option("--overwrite", is_flag=True, help="Replace the results in OUT instead of adding to them.")
@quiet_option
def merge(out: Path, overwrite: bool, quiet: bool) -> int:
    """Merge the shards that `run --shard` wrote to OUT into one result.

    Run `merge` again when more shards are done. The exit code is 1 while shards are missing or unfinished.
    """
    from streamgate.sinks.merging import merge as merge_shards

    done, unfinished = merge_shards(out, overwrite=overwrite)
    for problem in unfinished:
        click.echo(f"streamgate: {escaped(problem)}", err=True)
    if not quiet:
        click.echo(done, err=True)
    return 1 if unfinished else 0
