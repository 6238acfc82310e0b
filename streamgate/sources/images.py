"""Pictures of a folder: unrelated pictures, or an image sequence with a frame rate."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Generator, Sequence
from pathlib import Path

import cv2
import numpy as np

from streamgate.errors import SourceError, UsageError
from streamgate.frames import Array, Frame
from streamgate.image_size import image_size
from streamgate.sources.base import MAX_PIXELS, SAME_TIME_S, WHOLE, HintProvider, Source, SourceStats, TimeRange
from streamgate.sources.container import unreadable
from streamgate.sources.heic import HEIC_REMEDY, decode_heic, is_heic
from streamgate.sources.naming import folder_source_id, slug
from streamgate.sources.picture import picture_of_rgb
from streamgate.sources.remote import AnyPath
from streamgate.sources.stores import RemoteError

MAX_BYTES = 1 << 30
"""Maximum size of a picture file: about that of `MAX_PIXELS` uncompressed pixels with four channels of 16 bits."""
_HEAD = 1 << 16
_STRIP = 256


class Images(Source):
    """A `Source` over image files.

    Unrelated pictures are one second apart, so that their times increase; `Frame.unrelated` is set.
    A sequence runs at its frame rate. EXIF orientation is applied. Files that cannot be decoded are
    counted and skipped; their rank and time are not reused.

    Args:
        paths: the files in order.
        location: display name of the source, for example the folder.
        root: folder that frame names are relative to.
        sequence_fps: frame rate of a sequence, None for unrelated pictures.
        max_pixels: pictures with more pixels are not decoded.
        time_range: the part of a sequence that `frames()` yields; ignored for unrelated pictures.

    Raises:
        UsageError: the frame rate is not positive.
        SourceError: no file can be decoded.
    """

    live = False
    turned = None

    def __init__(
        self,
        paths: Sequence[AnyPath],
        location: str,
        root: AnyPath,
        sequence_fps: float | None = None,
        max_pixels: int = MAX_PIXELS,
        time_range: TimeRange = WHOLE,
    ) -> None:
        if sequence_fps is not None and not 0 < sequence_fps < 1e6:
            raise UsageError(f"--sequence {sequence_fps:g}: the frame rate must be above 0")
        self.location = location
        self.stats = SourceStats()
        self._named = _named(paths, root)
        self._sequence_fps = sequence_fps
        self._max_pixels = max_pixels
        self._time_range = time_range if sequence_fps else WHOLE
        self.fps = sequence_fps
        self.estimated_frames: int | None = len(paths)
        self.duration_seconds = len(paths) / sequence_fps if sequence_fps else None
        try:
            self.source_id = pictures_source_id(paths, location, root)
        except OSError as error:
            raise unreadable(location, error) from None
        self.height, self.width = self._first_size(paths, _is_alone(paths, location))

    def frames(self, hints: HintProvider | None = None) -> Generator[Frame, None, None]:
        """Yield the pictures in order, ignoring `hints`; see `Source.frames`."""
        self.stats = SourceStats()
        first = max(0, math.ceil((self._time_range.start - SAME_TIME_S) / self._step))
        for frame in self._frames(first, self.stats):
            if self._time_range.ends_before(frame.pts_seconds):
                break
            yield frame

    def frames_from(self, pts_seconds: float) -> Generator[Frame, None, None]:
        """Yield the pictures at or after a time; see `Source.frames_from`."""
        yield from self._frames(max(0, math.ceil((pts_seconds - SAME_TIME_S) / self._step)), SourceStats())

    @property
    def _step(self) -> float:
        """Seconds from one picture to the next."""
        return 1.0 if self._sequence_fps is None else 1 / self._sequence_fps

    def _frames(self, first: int, stats: SourceStats) -> Generator[Frame, None, None]:
        step = self._step
        for index, (name, path) in enumerate(self._named[first:], first):
            try:
                rgb = read_rgb(path, self._max_pixels)
            except SourceError:
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

    def _first_size(self, paths: Sequence[AnyPath], alone: bool) -> tuple[int, int]:
        """Height and width of the first picture that can be decoded. Raises SourceError."""
        reason = ""
        for path in paths:
            try:
                height, width = read_rgb(path, self._max_pixels).shape[:2]
                return height, width
            except SourceError as error:
                reason = reason or str(error)
        if alone:
            raise SourceError(f"{self.location}: {reason}")
        raise SourceError(f"{self.location}: none of its pictures can be decoded (the first {reason}); check the files")


def pictures_name(paths: Sequence[AnyPath], location: str, root: AnyPath) -> str:
    """The first part of the source id of these pictures; the arguments are those of `Images`."""
    return slug(paths[0].stem if _is_alone(paths, location) else root.resolve().name)


def pictures_source_id(paths: Sequence[AnyPath], location: str, root: AnyPath) -> str:
    """The source id of these pictures; the arguments are those of `Images`. Raises OSError."""
    return folder_source_id(pictures_name(paths, location, root), _named(paths, root))


def read_rgb(path: AnyPath, max_pixels: int = MAX_PIXELS) -> Array:
    """Return the picture in `path`; see `rgb_of`.

    Raises:
        SourceError: the file is not a picture, has more than `max_pixels`, or cannot be read. The message says why,
            without the file's name.
    """
    try:
        status = path.stat()
        # Reading a pipe or a device might never end.
        if not stat.S_ISREG(status.st_mode):
            raise SourceError("is not a regular file")
        if status.st_size > MAX_BYTES:
            raise SourceError(f"is larger than {MAX_BYTES >> 20} MiB")
        if isinstance(path, Path):
            data = np.fromfile(path, np.uint8)
        else:
            with path.open() as file:
                data = np.frombuffer(file.read(), np.uint8)
    except RemoteError as error:
        raise SourceError(f"cannot be read: {error.words}") from None
    except OSError as error:
        raise SourceError(f"cannot be read ({os.strerror(error.errno or 0)})") from None
    return rgb_of(data, max_pixels)


def rgb_of(data: Array, max_pixels: int = MAX_PIXELS) -> Array:
    """Decode a file's bytes (uint8) to RGB uint8 (h, w, 3), with EXIF orientation applied.

    Only the first picture of an animation or a multi-page file is decoded. Samples of 16 bits are reduced to 8 bits;
    CMYK and grey are converted to RGB.

    Raises:
        SourceError: the data is not a picture, or has more than `max_pixels`. The message says why, without a name.
    """
    size = image_size(data[:_HEAD].tobytes()) or image_size(data.tobytes())
    if size is None or min(size) <= 0:
        raise SourceError("is not a picture that can be decoded" if data.size else "is empty (0 bytes)")
    if size[0] * size[1] > max_pixels:
        raise SourceError(
            f"has {size[0]} x {size[1]} pixels, more than decoding.max_pixels ({max_pixels}); scale it down or raise "
            "the limit with --set"
        )
    if is_heic(data[:_HEAD].tobytes()):
        return _heic_rgb(data.tobytes())
    try:
        # Decoding from memory also works for file names that OpenCV cannot open itself.
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError):
        bgr = None
    if bgr is None:
        raise SourceError("is damaged and cannot be decoded")
    # Converted in place, strip by strip: a second copy of a very large picture would double the memory.
    for top in range(0, len(bgr), _STRIP):
        strip = bgr[top : top + _STRIP]
        strip[:] = cv2.cvtColor(strip, cv2.COLOR_BGR2RGB)
    return np.asarray(bgr)


def _heic_rgb(data: bytes) -> Array:
    try:
        return decode_heic(data)
    except ImportError:
        raise SourceError(f"is a HEIC picture; {HEIC_REMEDY}") from None
    except ValueError:
        raise SourceError("is damaged and cannot be decoded") from None


def _is_alone(paths: Sequence[AnyPath], location: str) -> bool:
    return len(paths) == 1 and location.endswith(paths[0].suffix)


def _named(paths: Sequence[AnyPath], root: AnyPath) -> list[tuple[str, AnyPath]]:
    return [(_name(path, root), path) for path in paths]


def _name(path: AnyPath, root: AnyPath) -> str:
    try:
        return path.relative_to(root).as_posix()  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return path.name
