"""`streamgate people`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streamgate.errors import display
from streamgate.people.folder import PeopleFolder, list_people
from streamgate.people.ledger import Ledger
from streamgate.report.write import REPORT, write_report
from streamgate.store.jsonlines import Record, dumps
from streamgate.store.manifest import Manifest


def list_command(out: Path, *, as_json: bool) -> int:
    """Print the persons of an output folder; exit code 0."""
    people = list_people(out)
    if as_json:
        for record in people:
            click.echo(dumps(record))
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


def merge_command(out: Path, into: str, others: Sequence[str]) -> int:
    """Make persons one; exit code 0."""
    before = list_people(out)
    with PeopleFolder(out) as people:
        people.merge(into, list(others))
        _rebuild_report(out)
    click.echo(f"{', '.join(dict.fromkeys(others))} merged into {into}", err=True)
    for here, there in _seen_together([record for record in before if record["person_id"] in {into, *others}]):
        # Somebody's word goes before the tracker's, but it is more often a slip of the pen.
        click.echo(
            f"streamgate: warning: {here} and {there} were seen at the same time; if they are two after all: "
            f"streamgate people {display(out)} split {into} {there}",
            err=True,
        )
    return 0


def _seen_together(people: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """Pairs of tracks of two of these persons whose times in one source overlap, at most one a pair of persons."""
    for one, other in itertools.combinations(people, 2):
        for here, there in itertools.product(one["members"], other["members"]):
            together = max(here["first_pts"], there["first_pts"]) <= min(here["last_pts"], there["last_pts"])
            if together and here["source_id"] == there["source_id"]:
                yield f"{here['source_id']}/{here['track_id']}", f"{there['source_id']}/{there['track_id']}"
                break


def split_command(out: Path, person: str, tracks: Sequence[str]) -> int:
    """Make a person of some tracks of another; prints the new id; exit code 0."""
    with PeopleFolder(out) as people:
        new = people.split(person, list(tracks))
        _rebuild_report(out)
    click.echo(new)
    return 0


def name_command(out: Path, person: str, name: str) -> int:
    """Call a person something; exit code 0."""
    with PeopleFolder(out) as people:
        people.name(person, name)
        _rebuild_report(out)
    return 0


def _rebuild_report(out: Path) -> None:
    """Let the report show it, where the run has written one; the folder's lock is held."""
    house = out / ".streamgate"
    manifest = Manifest.read(house)
    if REPORT in manifest.owned:
        write_report(out, manifest, Ledger.read(house).names)
