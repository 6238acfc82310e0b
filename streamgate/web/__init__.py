"""What the HTML report and the live page are both made of: style sheets, scripts, the markup of an opened face.

The page of `serve` serves these files beside its own; a report takes them in when it is written.
"""

from __future__ import annotations

from importlib import resources

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Media types of the files, by their suffixes."""


def web_files(package: str) -> dict[str, bytes]:
    """The shared files and those in the folder `static` of `package`, by their names."""
    folders = (resources.files(__name__), resources.files(package).joinpath("static"))
    entries = [entry for folder in folders for entry in folder.iterdir() if entry.name.endswith(tuple(TYPES))]
    return {entry.name: entry.read_bytes() for entry in entries}
