"""Finding a run's sources again, which may have moved since."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamgate.errors import display
from streamgate.sources.discovery import VIDEO_SUFFIXES
from streamgate.sources.naming import file_source_id


class Footage:
    """Looks for video files by the id that they had in a run.

    A source is looked for where the run read it (relative paths: from here), then by its name below `folders`.
    Whatever has another id is another file.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._folders = tuple(folders)
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, location: str, source_id: str) -> Path | None:
        """The file, or None when there is none with this id."""
        for path in self._places(location):
            try:
                if path.is_file() and file_source_id(path) == source_id:
                    return path
            except (OSError, ValueError):
                continue
        return None

    def _places(self, location: str) -> Iterator[Path]:
        if location and "\0" not in location:
            yield Path(location)
        if not self._folders:
            return
        if self._by_name is None:
            self._by_name = {}
            for folder in self._folders:
                for base, below, names in os.walk(folder):
                    below.sort()
                    for name in sorted(names):
                        self._by_name.setdefault(display(name), []).append(Path(base, name))
        yield from self._by_name.get(Path(location).name, ())


def missing(location: str, folders: Sequence[Path]) -> str:
    """What to tell of a source that `Footage` did not find."""
    where = f" nor below {', '.join(display(folder) for folder in folders)}" if folders else ""
    return (
        f"{display(location)}: is not there any more{where}, or has changed since the run; "
        "say with --footage in which folder it lies now"
    )


def is_video(location: str) -> bool:
    """Whether a source was a video file, by its name."""
    return Path(location).suffix.lower() in VIDEO_SUFFIXES


__all__ = ["Footage", "is_video", "missing"]
