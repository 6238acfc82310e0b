"""Pictures of a folder: unrelated ones, or an image sequence with a frame rate."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from streamgate.errors import SourceError, UsageError
from streamgate.frames import Array, Frame
from streamgate.sources.base import SourceStats
from streamgate.sources.container import unreadable
from streamgate.sources.naming import folder_source_id, slug
from streamgate.sources.picture import picture_of_rgb


class Images:
    """A `Source` over image files.

    Unrelated pictures are given one second each, so that their times increase; `Frame.unrelated` is set.
    A sequence runs at its frame rate. EXIF orientation is applied. Files that cannot be decoded are
    counted and passed over; their rank and time stay theirs.

    Args:
        paths: the files in order.
        location: how the source is displayed, for example the folder.
        root: names of frames are relative to it.
        sequence_fps: frame rate of a sequence, None for unrelated pictures.

    Raises:
        UsageError: a frame rate that is not positive.
        SourceError: no file can be decoded.
    """

    live = False

    def __init__(
        self, paths: Sequence[Path], location: str, root: Path, sequence_fps: float | None = None
    ) -> None:
        if sequence_fps is not None and not 0 < sequence_fps < 1e6:
            raise UsageError(f"--sequence {sequence_fps:g}: the frame rate must be above 0")
        self.location = location
        self.stats = SourceStats()
        self._named = [(_name(path, root), path) for path in paths]
        self._sequence_fps = sequence_fps
        self.fps = sequence_fps
        self.estimated_frames: int | None = len(paths)
        self.duration_seconds = len(paths) / sequence_fps if sequence_fps else None
        alone = len(paths) == 1 and location.endswith(paths[0].suffix)
        stem = paths[0].stem if alone else root.resolve().name
        try:
            self.source_id = folder_source_id(slug(stem), self._named)
        except OSError as error:
            raise unreadable(location, error) from None
        first = next((rgb for rgb in (read_rgb(path) for path in paths) if rgb is not None), None)
        if first is None:
            raise SourceError(f"{location}: no picture in it can be decoded; check the files")
        self.height, self.width = first.shape[:2]

    def frames(self) -> Generator[Frame, None, None]:
        """Yield the pictures in order; see `Source.frames`."""
        self.stats = stats = SourceStats()
        step = 1.0 if self._sequence_fps is None else 1 / self._sequence_fps
        for index, (name, path) in enumerate(self._named):
            rgb = read_rgb(path)
            if rgb is None:
                stats.decode_errors += 1
                continue
            stats.frames += 1
            yield Frame(
                picture=picture_of_rgb(rgb),
                pts_seconds=index * step,
                duration_seconds=step if self._sequence_fps else 0.0,
                frame_index=index,
                unrelated=self._sequence_fps is None,
                name=name,
            )

    def close(self) -> None:
        """Nothing is kept open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_rgb(path: Path) -> Array | None:
    """Return the picture in `path`, RGB uint8 (h, w, 3), EXIF orientation applied; None when it is none."""
    try:
        data = np.fromfile(path, np.uint8)
        if data.size == 0:
            return None
        # Decoding from memory takes names that OpenCV's own file access does not.
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except (OSError, cv2.error, MemoryError):
        return None
    return None if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _name(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.name
