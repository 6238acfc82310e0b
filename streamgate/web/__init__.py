"""Files shared by the HTML report and the live page: style sheets, scripts, and the HTML of the face dialog.

`serve` serves them together with the files of its live page. A report embeds them.
"""

from __future__ import annotations

from importlib import resources

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Media types of the files, by suffix."""


def web_files(package: str) -> dict[str, bytes]:
    """The shared files and the files in the folder `static` of `package`, by name."""
    folders = (resources.files(__name__), resources.files(package).joinpath("static"))
    entries = [entry for folder in folders for entry in folder.iterdir() if entry.name.endswith(tuple(TYPES))]
    return {entry.name: entry.read_bytes() for entry in entries}
