"""Finds the footage of an earlier run, which may have been moved since then."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from streamgate.errors import SourceError, StreamgateError, display
from streamgate.sources.base import Source
from streamgate.sources.discovery import SourceSpec, discover, in_store
from streamgate.sources.listing import files_below
from streamgate.sources.naming import slug


class FootageFinder:
    """Finds sources by the ids that they had in a run; a file with a different id is a different source.

    The finder looks for a source where the run read it, and then, by name, in and below `folders`. A relative path is
    tried from the current directory and from the folder that contains the results.

    Args:
        out: the run's results.
        folders: additional folders to search.
    """

    def __init__(self, out: Path, folders: Sequence[Path] = ()) -> None:
        self._out = out
        self._folders = tuple(folders)
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, record: Mapping[str, Any], sequence_fps: float | None = None) -> SourceSpec:
        """The source that a summary record describes.

        Args:
            record: the record, with its `source` and `source_id`.
            sequence_fps: the frame rate, if the source is a folder of pictures that was read as a sequence; else None.

        Raises:
            SourceError: the source was not found, or has changed.
        """
        location, source_id = str(record["source"]), str(record["source_id"])
        changed = False
        for path in self._where_it_was(location):
            for spec in _sources_of(path, sequence_fps):
                if _is(spec, source_id):
                    return spec
                changed = True
        for path in self._named(source_id.rpartition("-")[0]):
            for spec in _sources_of(path, sequence_fps):
                if _is(spec, source_id):
                    return spec
        below = ", ".join(display(folder) for folder in self._folders)
        where = f" and was not found below {below}" if below else ""
        what = "has changed since the run" if changed else f"is no longer where the run read it{where}"
        raise SourceError(f"{display(location)}: {what}; give the folder that contains it with --footage DIR", location)

    def open(self, record: Mapping[str, Any], sequence_fps: float | None = None) -> Source:
        """Open the source that a summary record describes, with the settings of the run. Raises SourceError."""
        source = self.find(record, sequence_fps).open()
        source.location = str(record["source"])
        source.read_as(
            turned=record["turned"] // 90,
            combed=bool(record["combed"]),
            restarts=bool(record["pts_estimated"]),
        )
        return source

    def _where_it_was(self, location: str) -> list[str | Path]:
        if not location or "\0" in location:
            return []
        if in_store(location):
            return [location]
        return [path for path in dict.fromkeys([Path(location), self._out.parent / location]) if os.path.exists(path)]

    def _named(self, name: str) -> list[Path]:
        """The files and folders with the name of a source, in and below the folders to search."""
        if self._by_name is None:
            self._by_name = {}
            for folder in self._folders:
                for path in _all_of(folder):
                    self._by_name.setdefault(slug(path.stem if path.is_file() else path.name), []).append(path)
        return self._by_name.get(name, [])


def _all_of(folder: Path) -> Iterator[Path]:
    """The files and folders below a folder that may be sources, and the folder itself."""
    folders = {folder: None}
    for path in files_below(folder):
        yield path
        for above in path.parents:
            if above in folders or folder not in above.parents:
                break
            folders[above] = None
    yield from folders


def _is(spec: SourceSpec, source_id: str) -> bool:
    try:
        return spec.source_id() == source_id
    except OSError:
        return False


def _sources_of(path: str | Path, sequence_fps: float | None) -> list[SourceSpec]:
    try:
        return discover([os.fspath(path)], sequence_fps=sequence_fps).sources
    except StreamgateError:
        return []
