"""The `final` events of a folder that `run` has written: those that were, or should have been, sent of it.

What is damaged costs itself and nothing else. Records and crops are read one by one, so memory does not grow with
the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from streamgate.errors import SinkError, SourceError, display
from streamgate.sinks.redisstream import pack
from streamgate.store.images import JPEG_QUALITY, decode_crop, encode_jpeg
from streamgate.store.jsonlines import SCHEMA, Record
from streamgate.store.manifest import Manifest
from streamgate.store.records import event, missed_record

_LONGEST_LINE = 1 << 20
_LARGEST_CROP = 256 << 20
_NAME = re.compile(r"[^./\\\0][^/\\\0]{0,254}")
_COMMITTED = ("done", "interrupted")

Damaged = Callable[[str], None]
"""Told what could not be read, a few words that begin with the file's name."""


@dataclass(frozen=True, slots=True)
class FinishedSource:
    """A committed source.

    Attributes:
        location: how the source was displayed.
        finals: how many `final` events it has: its kept faces, and one for each track that keeps nothing.
    """

    folder: Path
    location: str
    source_id: str
    calibration_id: str
    finals: int

    def events(self, damaged: Damaged) -> Iterator[bytes]:
        """Its packed `final` events, by (track, rank), byte for byte those of the run.

        Where the run wrote JPEG or WebP the event's picture is made of that, so its bytes differ a little. What
        cannot be read is told to `damaged` and left out.
        """
        try:
            with _opened(self.folder / "tracks.jsonl") as tracks, _opened(self.folder / "faces.jsonl") as faces:
                waiting = _Faces(_records(faces, damaged))
                for track in _records(tracks, damaged):
                    yield from self._of_track(track, waiting, damaged)
                if waiting.left():
                    damaged("faces.jsonl has faces of tracks that tracks.jsonl does not have")
        except OSError as error:
            damaged(f"{Path(str(error.filename)).name} cannot be read ({error.strerror})")

    def _of_track(self, track: Record, waiting: _Faces, damaged: Damaged) -> Iterator[bytes]:
        track_id: Any = track.get("track_id")
        kept: Any = track.get("kept")
        if track.get("schema") != SCHEMA or track.get("source_id") != self.source_id or not _counts(track_id, kept):
            damaged("tracks.jsonl has a line that is no track")
            return
        if kept == 0:
            try:
                record = missed_record(track, self.location, self.calibration_id)
                yield pack(event(record, "final", None))
            except (KeyError, TypeError, ValueError):
                damaged(f"tracks.jsonl is damaged at track {track_id}")
            return
        missing = kept
        for face in waiting.of_track(track_id):
            missing -= 1
            try:
                yield self._face_event(face, str(track.get("epoch")), track_id)
            except _DamagedError as error:
                damaged(str(error))
        if missing > 0:
            damaged(f"faces.jsonl lacks {missing} of {kept} faces of track {track_id}")

    def _face_event(self, face: Record, epoch: str, track_id: int) -> bytes:
        """The event of a line of faces.jsonl. Raises _DamagedError."""
        rank = face.get("rank")
        identity = f"{self.source_id}/{epoch}/{track_id}/final/{rank}/0"
        if face.get("schema") != SCHEMA or face.get("id") != identity or type(rank) is not int:
            raise _DamagedError("faces.jsonl has a line that is no face of this source")
        # Made from numbers, not taken from the record: nobody can name another file there.
        name = f"track_{track_id:04d}/{rank}.png"
        for suffix in ("jpg", "webp"):
            if not os.path.lexists(self.folder / name):
                other = f"{name.rpartition('.')[0]}.{suffix}"
                name = other if os.path.lexists(self.folder / other) else name
        try:
            crop = decode_crop(_content(self.folder / name))
        except FileNotFoundError:
            raise _DamagedError(f"{name} is missing") from None
        except OSError as error:
            raise _DamagedError(f"{name} cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise _DamagedError(f"{name} {error}") from None
        try:
            # As the run sent it: where its picture lies is the folder's matter, and who it is was not known then.
            sent = {**face, "image": None, "person_id": None, "person_rank": None, "crops": {}}
            return pack(event(sent, "final", encode_jpeg(crop, JPEG_QUALITY)))
        except ValueError:
            raise _DamagedError("faces.jsonl has figures that are none") from None


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """What a folder holds.

    Attributes:
        sources: by their ids, as in OUT/faces.jsonl.
        problems: committed sources that cannot be read, a line each.
    """

    sources: tuple[FinishedSource, ...]
    problems: tuple[str, ...]

    @property
    def finals(self) -> int:
        return sum(source.finals for source in self.sources)

    @classmethod
    def read(cls, out: Path) -> FinishedRun:
        """Look at OUT. Raises SourceError when it holds no results of `run` that this version understands."""
        summary, problem = _read_summary(out)
        manifest = _read_manifest(out)
        if summary is None and manifest is None:
            raise SourceError(f"{display(out)}: {problem or _no_results(out)}")
        problems = [] if problem is None else [f"{display(out)}: {problem}"]
        wanted = set(manifest.present() if manifest is not None else ())
        wanted.update(_committed(summary or {}))
        calibration = (summary or {}).get("calibration_id") or (manifest.run if manifest else {}).get("calibration_id")
        sources = []
        for source_id in sorted(wanted):
            try:
                sources.append(_read_source(out / source_id, str(calibration)))
            except _DamagedError as error:
                problems.append(f"{display(out / source_id)}: {error}")
        return cls(tuple(sources), tuple(problems))


def undelivered(out: Path, delivered: Container[str]) -> Iterator[FinishedSource]:
    """The sources of OUT whose ids are not `delivered`; none where it holds no results."""
    try:
        sources = FinishedRun.read(out).sources
    except SourceError:
        return
    yield from (source for source in sources if source.source_id not in delivered)


@contextmanager
def unchanged(out: Path) -> Iterator[None]:
    """Keep runs out of the folder meanwhile. Raises SinkError when one is at work there."""
    try:
        file = open(out / ".streamgate" / "lock", "rb")  # noqa: SIM115 - closed below
    except OSError:
        # A copy of the results alone; nothing will write there.
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SinkError(f"{display(out)} is in use by a run; wait for it to end") from None
        except OSError:
            pass  # a file system without locks
        yield


class _DamagedError(Exception):
    """What was read is not what a run writes; says which file, without the folder."""


class _Faces:
    """Lines of faces.jsonl, handed out track by track in their order."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self._next = next(records, None)

    def of_track(self, track_id: int) -> Iterator[Record]:
        while self._next is not None and self._next.get("track_id") == track_id:
            face = self._next
            self._next = next(self._records, None)
            yield face

    def left(self) -> bool:
        return self._next is not None


def _records(file: IO[bytes], damaged: Damaged) -> Iterator[Record]:
    name = Path(file.name).name
    for number, line in enumerate(_lines(file), 1):
        record = _parsed(line) if len(line) <= _LONGEST_LINE else None
        if record is None:
            damaged(f"{name} is damaged in line {number}")
        else:
            yield record


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines, of which no more than a bound and a byte is held."""
    while line := file.readline(_LONGEST_LINE + 1):
        rest = line
        while len(rest) > _LONGEST_LINE and not rest.endswith(b"\n"):
            rest = file.readline(_LONGEST_LINE + 1)
        yield line


def _parsed(data: bytes) -> Record | None:
    try:
        record = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _counts(*values: object) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _content(path: Path) -> bytes:
    with _opened(path) as file:
        if os.fstat(file.fileno()).st_size > _LARGEST_CROP:
            raise ValueError("is too large for a crop")
        return file.read()


def _opened(path: Path) -> IO[bytes]:
    """A file for reading; a pipe in its place does not hang, a link is not followed. Raises OSError."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOFOLLOW))


def _read_summary(out: Path) -> tuple[Record | None, str | None]:
    """summary.json, or None and what is wrong with it (None again: there is none). Raises SourceError."""
    try:
        data = (out / "summary.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not out.exists():
            raise SourceError(f"{display(out)}: there is no such folder; name the output folder of a run") from None
        return None, None
    except OSError as error:
        return None, f"summary.json cannot be read ({error.strerror})"
    summary = _parsed(data)
    if summary is None or not isinstance(summary.get("sources"), list):
        return None, "summary.json is damaged"
    _refuse_schema(out, summary.get("schema"))
    return summary, None


def _read_manifest(out: Path) -> Manifest | None:
    try:
        manifest = Manifest.read(out / ".streamgate")
    except SinkError:
        return None
    return manifest if manifest.run else None


def _refuse_schema(out: Path, schema: object) -> None:
    if schema != SCHEMA:
        raise SourceError(
            f"{display(out)}: written by another version of streamgate (schema {str(schema)[:20]}, "
            f"this one knows {SCHEMA}); use that version"
        )


def _no_results(out: Path) -> str:
    if not out.is_dir():
        return "is a file; name the output folder of a run"
    if any(out.glob("*/????-??-??/faces.jsonl")):
        return (
            "holds the results of `streamgate serve`, which keeps its events until they are delivered; "
            "start it again with the same --spool"
        )
    return "holds no results of `streamgate run` (no summary.json); name the output folder of a run"


def _committed(summary: Record) -> Iterator[str]:
    for source in summary.get("sources", []):
        source_id = source.get("source_id") if isinstance(source, dict) else None
        if isinstance(source_id, str) and source.get("status") in _COMMITTED and _NAME.fullmatch(source_id):
            yield source_id


def _read_source(folder: Path, calibration_id: str) -> FinishedSource:
    """Raises _DamagedError."""
    try:
        record = _parsed(_content(folder / "source.json"))
        with _opened(folder / "tracks.jsonl") as tracks:
            kept = [_kept(track) for track in _records(tracks, lambda words: None)]
    except FileNotFoundError as error:
        raise _DamagedError(f"{Path(str(error.filename)).name} is missing") from None
    except OSError as error:
        raise _DamagedError(f"cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise _DamagedError(f"source.json {error}") from None
    if record is None or not isinstance(record.get("source"), str) or record.get("source_id") != folder.name:
        raise _DamagedError("source.json is damaged")
    if record.get("schema") != SCHEMA:
        raise _DamagedError(
            f"written by another version of streamgate (schema {str(record.get('schema'))[:20]}, "
            f"this one knows {SCHEMA})"
        )
    return FinishedSource(folder, record["source"], folder.name, calibration_id, sum(kept))


def _kept(track: Record) -> int:
    kept: Any = track.get("kept")
    return max(1, kept) if _counts(kept) else 1
