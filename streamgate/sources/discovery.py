"""Expands the user's inputs (files, folders, patterns) into sources."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from streamgate.errors import SourceError, UsageError, display
from streamgate.redaction import redact_url
from streamgate.sources.base import MAX_PIXELS, WHOLE, Source, TimeRange
from streamgate.sources.container import open_video
from streamgate.sources.file import VideoFile
from streamgate.sources.heic import HEIC_REMEDY, HEIC_SUFFIXES
from streamgate.sources.images import Images, pictures_name, pictures_source_id
from streamgate.sources.listing import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    files_below,
    looks_like_media,
    natural_key,
    remote_footage,
)
from streamgate.sources.naming import file_source_id, slug
from streamgate.sources.remote import (
    AnyPath,
    RemotePath,
    is_address,
    is_remote,
    remote_files,
    remote_path,
    unreadable_remote,
)
from streamgate.sources.stores import RemoteError

_NAMED = 6
"""Maximum number of suffixes that a message lists for skipped files; rarer suffixes are counted together."""


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source that was found but is not open yet.

    Attributes:
        location: the source's name for display and records.
        paths: one video file, or the image files in order; the files are on this machine or in a store.
        root: folder to which the names of pictures are relative; None for a video.
        sequence_fps: frame rate of an image sequence.
    """

    location: str
    paths: tuple[AnyPath, ...]
    root: AnyPath | None = None
    sequence_fps: float | None = None

    @property
    def name(self) -> str:
        """The first part of the source id."""
        if self.root is None:
            return slug(self.paths[0].stem)
        return pictures_name(self.paths, self.location, self.root)

    def source_id(self) -> str:
        """The id that the opened source will have. Raises OSError."""
        if self.root is None:
            return file_source_id(self.paths[0])
        return pictures_source_id(self.paths, self.location, self.root)

    def open(
        self, threads: int = 0, decode: str = "cpu", max_pixels: int = MAX_PIXELS, time_range: TimeRange = WHOLE
    ) -> Source:
        """Open the source; `time_range` is the part of a video to read.

        Pictures of more than `max_pixels` are not decoded. Raises SourceError if the source cannot be read, and
        DeviceError if `decode` is "cuda:N" and there is no such GPU.
        """
        if self.root is None:
            return VideoFile(self.paths[0], self.location, threads, decode, max_pixels, time_range)
        return Images(self.paths, self.location, self.root, self.sequence_fps, max_pixels, time_range)


@dataclass(slots=True)
class Discovery:
    """The result of expanding inputs.

    Attributes:
        sources: in the order of the inputs; the files of a folder are sorted, and each file occurs only once.
        errors: inputs that cannot be read, one line each.
        warnings: inputs that were skipped although they were given by name.
        duplicates: pairs of locations; the first is a video, the second an earlier video with the same name and
            content.
        skipped: files found through a folder or a pattern that are neither videos nor pictures, counted by suffix
            ("" for no suffix, "hidden" for hidden files).
    """

    sources: list[SourceSpec] = field(default_factory=list)
    errors: list[SourceError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def skipped_words(self) -> str:
        """A one-line summary of the skipped files; empty if there are none."""
        if not self.skipped:
            return ""
        most = self.skipped.most_common(_NAMED)
        named = [f"{count} {suffix or 'without suffix'}" for suffix, count in most]
        if others := self.skipped.total() - sum(count for _, count in most):
            named.append(f"{others} others")
        text = f"skipped {self.skipped.total()} file(s) that are neither videos nor pictures ({', '.join(named)})"
        unread = sum(self.skipped[suffix] for suffix in HEIC_SUFFIXES)
        return f"{text}; to read the {unread} HEIC picture(s): {HEIC_REMEDY}" if unread else text


def is_video(path: AnyPath) -> bool:
    """Whether FFmpeg finds a video stream in a file; used for files with an unknown suffix."""
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
    probe: Callable[[AnyPath], bool] = is_video,
) -> Discovery:
    """Expand files, folders and patterns into sources; nothing is decoded.

    A folder yields every video below it, sorted, each as one source. All pictures below it are one source of unrelated
    pictures, or, with `sequence_fps`, one sequence per folder that contains pictures. Pictures given one by one are
    grouped by folder. URLs of object stores (s3://bucket/folder) are treated the same way. Hidden files are skipped.
    An input given twice counts once, as do copies of a file that have the same name. `output` and other folders that
    were written by streamgate are ignored. `probe` decides whether a file with an unknown suffix is a video.

    Raises:
        UsageError: an input is the URL of a live stream.
    """
    finder = _Finder(sequence_fps, output, probe)
    for given in inputs:
        finder.add(os.fspath(given))
    return finder.finish()


def is_live(location: str) -> bool:
    """Whether `location` is a URL (rtsp://, http://, ...) that is not in an object store."""
    return is_address(location) and not in_store(location)


def in_store(location: str) -> bool:
    """Whether `location` is the URL of a file or folder in a store that fsspec may support (s3://, hf://, ...)."""
    return is_remote(location, VIDEO_SUFFIXES | IMAGE_SUFFIXES)


def refuse_live(location: str) -> UsageError:
    """The error for a URL where files are expected."""
    shown = redact_url(location)
    if location.lower().startswith(("http://", "https://", "ftp://")):
        return UsageError(
            f"{shown}: `run` reads files and folders, and this is not the URL of a video file; download it first, "
            f"for example with `yt-dlp '{shown}'`, and give the file "
            "(for a live stream use `streamgate serve --rtsp URL`)"
        )
    return UsageError(f"{shown}: `run` reads files and folders; for streams use `streamgate serve --rtsp URL`")


class _Finder:
    def __init__(self, sequence_fps: float | None, output: Path | None, probe: Callable[[AnyPath], bool]) -> None:
        self._fps = sequence_fps
        self._probe = probe
        self._output = None if output is None else os.path.realpath(output)
        self._found = Discovery()
        self._seen: set[AnyPath] = set()
        self._pictures: dict[AnyPath, list[AnyPath]] = {}  # pictures that were given one by one, by folder
        self._strays: list[str] = []

    def add(self, given: str) -> None:
        if is_live(given):
            raise refuse_live(given)
        if in_store(given):
            try:
                self._add_remote(given)
            except RemoteError as error:
                self._found.errors.append(unreadable_remote(error, _shown(given)))
            return
        path = Path(given.removeprefix("file://"))
        if os.path.isdir(path):  # unlike Path.is_dir, os.path.isdir does not raise for names that are too long
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
            location = _shown(paths[0] if len(paths) == 1 else folder)
            found.sources.append(SourceSpec(location, tuple(paths), folder, self._fps))
        self._drop_copies()
        # A file that is not media, given together with media, is probably a mistake and causes only a warning.
        # Without any media, it is an error.
        for stray in self._strays:
            if found.sources:
                found.warnings.append(f"{stray}: neither a video nor a picture; skipped")
            else:
                self._fail(stray, "neither a video nor a picture; give a media file")
        return found

    def _drop_copies(self) -> None:
        """Keep only the first of several sources with the same name and content: they would share a source id.

        Case is ignored, because many file systems to which results are written ignore it.
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

    def _add_remote(self, given: str) -> None:
        """Add the sources at an address in an object store: a file, a folder or a pattern. Raises RemoteError."""
        if glob.has_magic(RemotePath(given).key) and not given.lower().startswith(("http://", "https://")):
            matches = sorted(remote_files(given, pattern=True), key=natural_key)
            if not matches:
                raise RemoteError("no file matches the pattern; check the pattern", final=True)
        else:
            matches = [remote_path(given)]
        named = len(matches) == 1 and matches[0].url == given
        for path in matches:
            if path.is_file():
                if named or looks_like_media(path, path.suffix.lower()):
                    self._add_file(path, path.url)
                else:
                    self._skip(path)
            else:
                self._add_files(path, path.url, remote_footage(path), named=named)

    def _add_file(self, path: AnyPath, given: str) -> None:
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            if self._is_new(path):
                self._pictures.setdefault(path.parent, []).append(path)
        elif suffix in VIDEO_SUFFIXES or self._probe(path):
            if self._is_new(path):
                self._found.sources.append(SourceSpec(_shown(given), (path,)))
        else:
            self._strays.append(_shown(given))

    def _add_pattern(self, given: str) -> None:
        matches = sorted(glob.glob(given, recursive=True), key=natural_key)
        if not matches:
            self._fail(display(given), "no file matches the pattern; check the pattern")
        for match in matches:
            path = Path(match)
            if path.is_dir():
                self._add_folder(path, match, named=False)
            elif looks_like_media(path, path.suffix.lower()):
                self._add_file(path, match)
            else:
                self._skip(path)

    def _add_folder(self, folder: Path, given: str, *, named: bool = True) -> None:
        self._add_files(folder, given, files_below(folder, self._output, self._found.warnings), named=named)

    def _add_files(self, folder: AnyPath, given: str, files: Iterable[AnyPath], *, named: bool) -> None:
        videos: list[AnyPath] = []
        pictures: dict[AnyPath, list[AnyPath]] = {}
        known = 0
        for path in files:
            suffix = path.suffix.lower()
            if path.name.startswith(".") or not looks_like_media(path, suffix):
                self._skip(path)
            elif not self._is_new(path):
                known += 1
            elif suffix in VIDEO_SUFFIXES:
                videos.append(path)
            else:
                pictures.setdefault(folder if self._fps is None else path.parent, []).append(path)
        self._found.sources.extend(SourceSpec(_shown(path), (path,)) for path in videos)
        for root, paths in pictures.items():
            self._found.sources.append(SourceSpec(_shown(root), tuple(paths), root, self._fps))
        if named and not (videos or pictures or known):
            readable = isinstance(folder, RemotePath) or os.access(folder, os.R_OK | os.X_OK)
            what = "contains no videos and no pictures; check the folder"
            self._fail(_shown(given), what if readable else "no permission to read it; check the folder's permissions")

    def _skip(self, path: AnyPath) -> None:
        self._found.skipped["hidden" if path.name.startswith(".") else display(path.suffix.lower())] += 1

    def _fail(self, location: str, what: str) -> None:
        self._found.errors.append(SourceError(f"{location}: {what}", location))

    def _is_new(self, path: AnyPath) -> bool:
        real = Path(os.path.realpath(path)) if isinstance(path, Path) else path
        if real in self._seen:
            return False
        self._seen.add(real)
        return True


def _shown(path: str | AnyPath) -> str:
    """A path, or a URL without credentials, for messages and records."""
    return display(redact_url(path) if isinstance(path, str) and in_store(path) else str(path))


def spec_of(location: str | Path, sequence_fps: float | None = None) -> SourceSpec:
    """The single source at `location`. Raises SourceError if there is none or more than one."""
    found = discover([location], sequence_fps=sequence_fps)
    if found.errors:
        raise found.errors[0]
    if len(found.sources) != 1:
        raise SourceError(f"{location}: contains {len(found.sources)} sources; give one of them")
    return found.sources[0]
