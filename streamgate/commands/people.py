"""`streamgate people`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamgate.commands.help import Group
from streamgate.commands.options import results_argument
from streamgate.errors import display

if TYPE_CHECKING:
    from streamgate.store.jsonlines import Record


@click.group(
    cls=Group,
    invoke_without_command=True,
    epilog="""
    streamgate people faces                                # list the persons
    streamgate people faces merge p0003 p0007              # these are one person
    streamgate people faces split p0002 clip-0a1b2c3d/4    # this is someone else
    streamgate people faces name p0003 "Eileen Collins"
    streamgate people faces merge "Eileen Collins" p0009   # names work like ids
    """,
)
@results_argument
@click.pass_context
def people(context: click.Context, out: Path) -> int | None:
    """List the persons in OUT, or correct who is who.

    Identify a person by id or by name. Corrections are kept: a later `run --resume` into OUT never undoes them.
    """
    context.obj = out
    return None if context.invoked_subcommand else context.invoke(list_)


@people.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.pass_obj
def list_(out: Path, as_json: bool = False) -> int:
    """List the persons, with their faces and tracks and where they were seen."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from streamgate.people.folder import list_people
    from streamgate.store.jsonlines import dumps

    people = list_people(out)
    if as_json:
        for record in people:
            click.echo(dumps(record).encode())
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("person", "name", "faces", "tracks", "seconds"):
        table.add_column(name, justify="left" if name in ("person", "name") else "right", overflow="fold")
    table.add_column("best face", overflow="fold")
    table.add_column("seen in (SOURCE/TRACK)", overflow="fold")
    for record in people:
        tracks = [f"{track['source_id']}/{track['track_id']}" for track in record["members"]]
        more = f" and {len(tracks) - 4} more" if len(tracks) > 4 else ""
        table.add_row(
            record["person_id"] + (f" (with {', '.join(record['merged'])})" if record["merged"] else ""),
            escape(record["name"] or ""),
            str(record["faces"]),
            str(record["tracks"]),
            f"{record['seconds']:.1f}",
            escape(record["image"] or ""),
            escape(", ".join(tracks[:4]) + more),
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
    return 0


@people.command("merge")
@click.argument("person")
@click.argument("others", nargs=-1, required=True, metavar="OTHER...")
@click.pass_obj
def merge(out: Path, person: str, others: Sequence[str]) -> int:
    """Merge every OTHER person into PERSON, which keeps its id."""
    from streamgate.people.folder import correcting, list_people

    before = list_people(out)
    with correcting(out) as ledger:
        person, others = ledger.find(person), [ledger.find(other) for other in others]
        ledger.merge(person, others)
    _rebuild_report(out)
    click.echo(f"{', '.join(dict.fromkeys(others))} merged into {person}", err=True)
    for here, there in _seen_together([record for record in before if record["person_id"] in {person, *others}]):
        # The merge is done as requested, but two persons seen at the same time suggest a typing error.
        click.echo(
            f"streamgate: warning: {here} and {there} were seen at the same time; if they show two persons, "
            f"separate them: streamgate people {display(out)} split {person} {there}",
            err=True,
        )
    return 0


def _seen_together(people: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """Yield pairs of tracks of two persons that overlap in time in one source, at most one pair for any two persons."""
    for one, other in itertools.combinations(people, 2):
        for here, there in itertools.product(one["members"], other["members"]):
            together = max(here["first_pts"], there["first_pts"]) <= min(here["last_pts"], there["last_pts"])
            if together and here["source_id"] == there["source_id"]:
                yield f"{here['source_id']}/{here['track_id']}", f"{there['source_id']}/{there['track_id']}"
                break


@people.command("split")
@click.argument("person")
@click.argument("tracks", nargs=-1, required=True, metavar="SOURCE/TRACK...")
@click.pass_obj
def split(out: Path, person: str, tracks: Sequence[str]) -> int:
    """Move some tracks of PERSON to a new person, and print the new id."""
    from streamgate.people.folder import correcting
    from streamgate.people.ledger import track_of

    with correcting(out) as ledger:
        new = ledger.split(person, map(track_of, tracks))
    _rebuild_report(out)
    click.echo(new)
    return 0


@people.command("name")
@click.argument("person")
@click.argument("name")
@click.pass_obj
def name(out: Path, person: str, name: str) -> int:
    """Give PERSON a NAME; an empty NAME removes the current name."""
    from streamgate.people.folder import correcting

    with correcting(out) as ledger:
        # Decode the name as UTF-8, even if the locale has another encoding.
        ledger.name(person, os.fsencode(name).decode("utf-8", "replace"))
    _rebuild_report(out)
    return 0


def _rebuild_report(out: Path) -> None:
    """Rewrite the report, if the run has one, so that it shows the correction."""
    from streamgate.people.ledger import Ledger
    from streamgate.report.write import write_report
    from streamgate.store.layout import REPORT
    from streamgate.store.lock import Lock
    from streamgate.store.manifest import Manifest

    with Lock(out):
        manifest = Manifest.read(out)
        if REPORT in manifest.owned:
            write_report(out, manifest, Ledger.read(out).names)
