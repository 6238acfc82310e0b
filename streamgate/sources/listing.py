"""Decides which files of a folder, on disk or in a store, are footage."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from streamgate.errors import display
from streamgate.sources.heic import HEIC_SUFFIXES, reads_heic
from streamgate.sources.remote import AnyPath, RemotePath, remote_files
from streamgate.store.layout import RECEIPT, STATE_DIR, is_ours

VIDEO_SUFFIXES = frozenset(
    {
        ".264", ".265", ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".asf", ".avc", ".avi", ".dav", ".divx", ".dv",
        ".dvr-ms", ".evo", ".f4v", ".flv", ".gif", ".h261", ".h263", ".h264", ".h265", ".hevc", ".insv", ".ismv",
        ".ivf", ".lrv", ".m1v", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mkv",
        ".mod", ".mov", ".mp2v", ".mp4", ".mp4v", ".mpe", ".mpeg", ".mpg", ".mpv", ".mqv", ".mts", ".mxf", ".nut",
        ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".tp", ".trp", ".ts", ".vob", ".vro", ".webm", ".wm",
        ".wmv", ".wtv", ".xvid", ".y4m",
    }
)  # fmt: skip
IMAGE_SUFFIXES = frozenset(
    {
        ".avif", ".bmp", ".heic", ".heif", ".hif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm",
        ".ppm", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
_SHARED_SUFFIXES = {
    # TypeScript files also have this suffix; a transport stream begins with its sync byte.
    ".ts": (b"\x47",),
    # Music modules also have this suffix; cameras use it for program streams and, in some cases, transport streams.
    ".mod": (b"\0\0\1\xba", b"\x47"),
}
"""Suffixes that are also used by other types of file, and the possible first bytes of a recording."""
_NO_FOOTAGE = frozenset(
    {
        "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@recently-snapshot", "__macosx", "lost+found",
        "recycler", "system volume information",
    }
)  # fmt: skip
"""Folders in which storage servers and operating systems keep deleted files, thumbnails and other data."""


def natural_key(path: str | AnyPath) -> tuple[tuple[bool, int, str], ...]:
    """Sort key that places frame2 before frame10."""
    parts = re.split(r"(\d+)", path.key if isinstance(path, RemotePath) else os.fspath(path))
    return tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)


def files_below(folder: Path, output: str | None = None, warnings: list[str] | None = None) -> Iterator[Path]:
    """Files in and below `folder`, sorted naturally; links to folders are followed, but each folder is read only once.

    Folders that streamgate wrote are left out: `output`, any other folder with a streamgate manifest, and exports.
    """

    def unreadable_folder(error: OSError) -> None:
        if warnings is not None:
            warnings.append(f"{display(error.filename or folder)}: this folder cannot be read; skipped")

    visited: set[tuple[int, int]] = set()
    files: list[Path] = []
    for base, folders, names in os.walk(folder, followlinks=True, onerror=unreadable_folder):
        status = os.stat(base)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()  # this folder was already visited through a link
            continue
        visited.add((status.st_dev, status.st_ino))
        if os.path.realpath(base) == output or is_ours(Path(base)):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".") and name.casefold() not in _NO_FOOTAGE]
        # Only regular files: reading a pipe could block forever.
        files.extend(path for path in (Path(base, name) for name in names) if path.is_file())
    yield from sorted(files, key=natural_key)


def remote_footage(folder: RemotePath) -> list[RemotePath]:
    """Files below a folder in a store, by the same rules as `files_below`. Raises RemoteError."""
    prefix = folder.key.rstrip("/") + "/"
    files = [(path, path.key.removeprefix(prefix).split("/")) for path in remote_files(folder.url)]
    ours = set()
    for _, parts in files:
        if parts[-1] == RECEIPT:
            ours.add(tuple(parts[:-1]))
        elif parts[-2:] == [STATE_DIR, "manifest.json"]:
            ours.add(tuple(parts[:-2]))

    def is_footage(parts: list[str]) -> bool:
        above = parts[:-1]
        return not any(name.startswith(".") or name.casefold() in _NO_FOOTAGE for name in above) and not any(
            tuple(above[:depth]) in ours for depth in range(len(above) + 1)
        )

    return sorted((path for path, parts in files if is_footage(parts)), key=natural_key)


def looks_like_media(path: AnyPath, suffix: str) -> bool:
    """Whether to read a file that was found in a folder.

    This depends on the suffix and, if other types of file use the same suffix, on the first bytes of the file.
    """
    if suffix in _SHARED_SUFFIXES:
        try:
            with path.open("rb") as file:
                begin = bytes(file.read(4))
        except OSError:
            return True
        return not begin or begin.startswith(_SHARED_SUFFIXES[suffix])
    if suffix in HEIC_SUFFIXES:
        return reads_heic()
    return suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES
