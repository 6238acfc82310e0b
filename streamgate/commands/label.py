"""`streamgate label`."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from streamgate.commands.help import Command, section
from streamgate.commands.options import PATH, complete_folders, results_argument
from streamgate.errors import SinkError, display, escaped

_footage = section("Footage")


@click.command(
    cls=Command,
    epilog="""
    streamgate label faces                           # open the address it prints
    streamgate fit faces --labels faces/labels.csv -o mine.toml
    """,
)
@results_argument
@click.option("--labels", "target", metavar="FILE", type=PATH, help="File for the labels. [default: OUT/labels.csv]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="Port of the page; 0: any free port."
)
@click.option("--browser", is_flag=True, help="Open the page in a browser.")
@_footage(
    "--each", type=click.IntRange(0, 500), default=12, show_default=True, metavar="N",
    help="Number of evenly spaced faces to show per track, cut from the footage.",
)
@_footage(
    "--footage", multiple=True, metavar="DIR", type=PATH, shell_complete=complete_folders,
    help="Folder to search for source files that were moved. Repeatable.",
)
def label(out: Path, target: Path | None, port: int, browser: bool, each: int, footage: tuple[Path, ...]) -> int:
    """In a browser, label faces of the results in OUT as good, usable or bad.

    The report is served on this machine only: open a face in it and press 1 (good), 2 (usable) or 3 (bad). Each label
    is saved immediately. Ctrl-C stops the server.
    """
    from rich.console import Console

    from streamgate.labelling.sampling import sampled_faces
    from streamgate.labelling.server import LabelServer, stored_labels
    from streamgate.people.ledger import Ledger
    from streamgate.report.content import Content
    from streamgate.store.folder import RunFolder

    folder = RunFolder(out)
    folder.check()
    target = target or out / "labels.csv"
    labels = stored_labels(target)
    content = Content(out, Ledger.read(out).names, {})
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    with errors.status("") as status:
        spaced, problems = sampled_faces(
            folder, each, footage, lambda source: status.update(f"reading {escaped(source)}")
        )
    content.spaced = spaced
    for words in problems:
        errors.print(f"streamgate: warning: {escaped(words)}", markup=False)
    try:
        server = LabelServer(content, labels, target, port)
    except OSError as error:
        raise SinkError(f"port {port} cannot be used ({error.strerror}); choose another port with --port") from None
    with server:
        click.echo(f"label the faces at {server.address} (1 good, 2 usable, 3 bad; Ctrl-C stops the server)")
        click.echo(f"labels are saved in {display(target)}, which has {len(labels)} so far")
        if browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo(f"{len(server.labels)} labels in {display(target)}")
    return 0
