"""From what the user named to the sources there are: files, folders, patterns."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from streamgate.errors import SourceError, UsageError, display, redact_url
from streamgate.sources.base import MAX_PIXELS, WHOLE, Source, TimeRange
from streamgate.sources.container import open_video
from streamgate.sources.file import VideoFile
from streamgate.sources.heic import HEIC_REMEDY, HEIC_SUFFIXES, reads_heic
from streamgate.sources.images import Images, pictures_name, pictures_source_id
from streamgate.sources.naming import file_source_id, slug
from streamgate.store.layout import is_ours

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
    # TypeScript has the name too; a transport stream begins with its sync byte.
    ".ts": (b"\x47",),
    # Music modules; cameras record program streams, and some transport streams.
    ".mod": (b"\0\0\1\xba", b"\x47"),
}
"""Suffixes that other things have, with what a recording begins with."""
_NAMED = 6
"""Suffixes of skipped files that are named; the rarer ones are counted together."""
_NO_FOOTAGE = frozenset(
    {
        "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@recently-snapshot", "__macosx", "lost+found",
        "recycler", "system volume information",
    }
)  # fmt: skip
"""Folders in which storage servers and systems keep what was deleted, and their own small copies."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source that was found and not opened yet.

    Attributes:
        location: for display and records.
        paths: one video file, or the image files in order.
        root: names of pictures are relative to it; None for a video.
        sequence_fps: frame rate of an image sequence.
    """

    location: str
    paths: tuple[Path, ...]
    root: Path | None = None
    sequence_fps: float | None = None

    @property
    def name(self) -> str:
        """What its source id begins with."""
        if self.root is None:
            return slug(self.paths[0].stem)
        return pictures_name(self.paths, self.location, self.root)

    def source_id(self) -> str:
        """The id that it will have when opened. Raises OSError."""
        if self.root is None:
            return file_source_id(self.paths[0])
        return pictures_source_id(self.paths, self.location, self.root)

    def open(
        self, threads: int = 0, decode: str = "cpu", max_pixels: int = MAX_PIXELS, time_range: TimeRange = WHOLE
    ) -> Source:
        """Open it, to read `time_range` of a video; pictures of more than `max_pixels` are not decoded.

        Raises SourceError when it cannot be read, DeviceError without a GPU for decode="cuda".
        """
        if self.root is None:
            return VideoFile(self.paths[0], self.location, threads, decode, max_pixels, time_range)
        return Images(self.paths, self.location, self.root, self.sequence_fps, max_pixels, time_range)


@dataclass(slots=True)
class Discovery:
    """What inputs led to.

    Attributes:
        sources: in the order named, folders sorted, each file once.
        errors: inputs that cannot be read, one line each.
        warnings: inputs that were passed over although they were named.
        duplicates: location of a video and of the one before it with the same name and content.
        skipped: files that a folder or pattern brought and that are neither video nor picture, counted by suffix
            ("" for none, "hidden" for hidden ones).
    """

    sources: list[SourceSpec] = field(default_factory=list)
    errors: list[SourceError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def skipped_words(self) -> str:
        """What was skipped, in one line; empty when nothing was."""
        if not self.skipped:
            return ""
        most = self.skipped.most_common(_NAMED)
        named = [f"{count} {suffix or 'without suffix'}" for suffix, count in most]
        if others := self.skipped.total() - sum(count for _, count in most):
            named.append(f"{others} others")
        text = f"{self.skipped.total()} file(s) are neither video nor picture: skipped ({', '.join(named)})"
        unread = sum(self.skipped[suffix] for suffix in HEIC_SUFFIXES)
        return f"{text}; to read the {unread} HEIC picture(s): {HEIC_REMEDY}" if unread else text


def is_video(path: Path) -> bool:
    """Whether FFmpeg finds a video stream in a file whose name does not tell."""
    try:
        container, _ = open_video(path, str(path), 1)
    except SourceError:
        return False
    container.close()
    return True


def discover(
    inputs: Iterable[str | Path],
    *,
    sequence_fps: float | None = None,
    output: Path | None = None,
    probe: Callable[[Path], bool] = is_video,
) -> Discovery:
    """Expand files, folders and patterns into sources; nothing is decoded.

    A folder gives every video below it, sorted, each a source. Its pictures together are one source of
    unrelated pictures, or with `sequence_fps` one sequence a folder that holds some. Pictures named one
    by one are grouped by their folder. Hidden files are passed over. An input named twice counts once, and so
    do copies of a file under one name. `output` and other folders that streamgate wrote are not footage.
    `probe` tells whether a file whose name says nothing is a video.

    Raises:
        UsageError: an address of a live stream.
    """
    finder = _Finder(sequence_fps, output, probe)
    for given in inputs:
        finder.add(os.fspath(given))
    return finder.finish()


def is_live(location: str) -> bool:
    """Whether `location` is an address (rtsp://, http://, ...) and not a path."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", location)) and not location.startswith("file://")


def refuse_live(location: str) -> UsageError:
    """The error for an address where files are wanted."""
    shown = redact_url(location)
    if location.lower().startswith(("http://", "https://", "ftp://")):
        return UsageError(
            f"{shown}: `run` reads files and folders; download it first, for example with `yt-dlp '{shown}'`, and give "
            "the file (a live stream goes to `streamgate serve --rtsp URL`)"
        )
    return UsageError(f"{shown}: `run` takes files and folders; streams go to `streamgate serve --rtsp URL`")


class _Finder:
    def __init__(self, sequence_fps: float | None, output: Path | None, probe: Callable[[Path], bool]) -> None:
        self._fps = sequence_fps
        self._probe = probe
        self._output = None if output is None else os.path.realpath(output)
        self._found = Discovery()
        self._seen: set[Path] = set()
        self._pictures: dict[Path, list[Path]] = {}  # named one by one, by folder
        self._strays: list[str] = []

    def add(self, given: str) -> None:
        if is_live(given):
            raise refuse_live(given)
        path = Path(given.removeprefix("file://"))
        if os.path.isdir(path):  # which answers for names that are too long, too
            self._add_folder(path, given)
        elif os.path.lexists(path):
            self._add_file(path, given)
        elif glob.has_magic(given):
            self._add_pattern(given)
        else:
            self._fail(display(given), "no such file or folder; check the path")

    def finish(self) -> Discovery:
        found = self._found
        for folder, paths in self._pictures.items():
            location = display(paths[0] if len(paths) == 1 else folder)
            found.sources.append(SourceSpec(location, tuple(paths), folder, self._fps))
        self._drop_copies()
        # A stray beside media is a slip of the hand; alone it is the input, and cannot be read.
        for stray in self._strays:
            if found.sources:
                found.warnings.append(f"{stray}: neither video nor picture; passed over")
            else:
                self._fail(stray, "neither video nor picture; give a media file")
        return found

    def _drop_copies(self) -> None:
        """Of sources with the same name and content the first counts: they would share a source id.

        Upper and lower case make no difference: nor do they for many a file system that results are written to.
        """
        alike: dict[tuple[str, int], list[SourceSpec]] = {}
        for spec in self._found.sources:
            with suppress(OSError):
                size = spec.paths[0].stat().st_size if spec.root is None else len(spec.paths)
                alike.setdefault((spec.name.casefold(), size), []).append(spec)
        for specs in alike.values():
            first: dict[str, SourceSpec] = {}
            for spec in specs if len(specs) > 1 else ():
                with suppress(OSError):
                    known = first.setdefault(spec.source_id().casefold(), spec)
                    if known is not spec:
                        self._found.duplicates.append((spec.location, known.location))
                        self._found.sources.remove(spec)

    def _add_file(self, path: Path, given: str) -> None:
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            if self._is_new(path):
                self._pictures.setdefault(path.parent, []).append(path)
        elif suffix in VIDEO_SUFFIXES or self._probe(path):
            if self._is_new(path):
                self._found.sources.append(SourceSpec(display(given), (path,)))
        else:
            self._strays.append(display(given))

    def _add_pattern(self, given: str) -> None:
        matches = sorted(glob.glob(given, recursive=True), key=natural_key)
        if not matches:
            self._fail(display(given), "no file matches the pattern; check it")
        for match in matches:
            path = Path(match)
            if path.is_dir():
                self._add_folder(path, match, named=False)
            elif _looks_like_media(path, path.suffix.lower()):
                self._add_file(path, match)
            else:
                self._skip(path)

    def _add_folder(self, folder: Path, given: str, *, named: bool = True) -> None:
        videos: list[Path] = []
        pictures: dict[Path, list[Path]] = {}
        known = 0
        for path in files_below(folder, self._output, self._found.warnings):
            suffix = path.suffix.lower()
            if path.name.startswith(".") or not _looks_like_media(path, suffix):
                self._skip(path)
            elif not self._is_new(path):
                known += 1
            elif suffix in VIDEO_SUFFIXES:
                videos.append(path)
            else:
                pictures.setdefault(folder if self._fps is None else path.parent, []).append(path)
        self._found.sources.extend(SourceSpec(display(path), (path,)) for path in videos)
        for root, paths in pictures.items():
            self._found.sources.append(SourceSpec(display(root), tuple(paths), root, self._fps))
        if named and not (videos or pictures or known):
            readable = os.access(folder, os.R_OK | os.X_OK)
            what = "holds no video and no picture; check the folder"
            self._fail(display(given), what if readable else "no permission to read it; check the folder's rights")

    def _skip(self, path: Path) -> None:
        self._found.skipped["hidden" if path.name.startswith(".") else display(path.suffix.lower())] += 1

    def _fail(self, location: str, what: str) -> None:
        self._found.errors.append(SourceError(f"{location}: {what}", location))

    def _is_new(self, path: Path) -> bool:
        real = Path(os.path.realpath(path))
        if real in self._seen:
            return False
        self._seen.add(real)
        return True


def natural_key(path: str | Path) -> tuple[tuple[bool, int, str], ...]:
    """Sort key by which frame2 comes before frame10."""
    parts = re.split(r"(\d+)", os.fspath(path))
    return tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)


def files_below(folder: Path, output: str | None = None, warnings: list[str] | None = None) -> Iterator[Path]:
    """Files in and below `folder`, sorted naturally; linked folders are followed, each once.

    Results of streamgate are left out, those in `output` and any other folder with its manifest, and exports.
    """

    def unreadable_folder(error: OSError) -> None:
        if warnings is not None:
            warnings.append(f"{display(error.filename or folder)}: this folder cannot be read; passed over")

    visited: set[tuple[int, int]] = set()
    files: list[Path] = []
    for base, folders, names in os.walk(folder, followlinks=True, onerror=unreadable_folder):
        status = os.stat(base)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()  # a link back up
            continue
        visited.add((status.st_dev, status.st_ino))
        if os.path.realpath(base) == output or is_ours(Path(base)):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".") and name.casefold() not in _NO_FOOTAGE]
        # Reading a pipe would wait for ever.
        files.extend(path for path in (Path(base, name) for name in names) if path.is_file())
    yield from sorted(files, key=natural_key)


def _looks_like_media(path: Path, suffix: str) -> bool:
    if suffix in _SHARED_SUFFIXES:
        try:
            with path.open("rb") as file:
                begin = file.read(4)
        except OSError:
            return True
        return not begin or begin.startswith(_SHARED_SUFFIXES[suffix])
    if suffix in HEIC_SUFFIXES:
        return reads_heic()
    return suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES


def spec_of(location: str | Path, sequence_fps: float | None = None) -> SourceSpec:
    """The one source that `location` names. Raises SourceError when there is none or more than one."""
    found = discover([location], sequence_fps=sequence_fps)
    if found.errors:
        raise found.errors[0]
    if len(found.sources) != 1:
        raise SourceError(f"{location}: holds {len(found.sources)} sources; name one of them")
    return found.sources[0]
