"""Recreates the `final` events of a run from its output folder, as the run sent them or should have sent them.

Damaged entries are skipped. Records and crops are read one by one, so memory does not grow with the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from streamgate.errors import ResultsError, display
from streamgate.sinks.redis_stream import pack
from streamgate.store.folder import RunFolder
from streamgate.store.images import JPEG_QUALITY, decode_crop, encode_jpeg
from streamgate.store.jsonlines import Record
from streamgate.store.layout import FACES, SUMMARY, TRACKS, has_manifest, is_source_id, picture_name
from streamgate.store.records import event, missed_record

_COMMITTED = ("done", "interrupted")
_SUFFIXES = ("png", "jpg", "webp")

Damaged = Callable[[str], None]
"""Called with the name of a damaged file, followed by a short description of the damage."""


@dataclass(frozen=True, slots=True)
class FinishedSource:
    """A committed source.

    Attributes:
        out: the output folder.
        location: the source as shown to users.
        finals: number of its `final` events: one per kept face, and one per track without a kept face.
    """

    out: Path
    location: str
    source_id: str
    calibration_id: str
    finals: int

    def events(self, damaged: Damaged) -> Iterator[bytes]:
        """The source's packed `final` events, sorted by (track, rank) and identical to those of the run.

        If the run wrote JPEG or WebP, the event's picture is re-encoded from that file and differs slightly from the
        picture that the run sent. Anything that cannot be read is reported to `damaged` and skipped.
        """
        folder = RunFolder(self.out, damaged)
        by_track = groupby(folder.faces(self.source_id), lambda face: face["track_id"])
        waiting = next(by_track, None)
        for track in folder.tracks(self.source_id):
            track_id, kept = track["track_id"], track["kept"]
            if kept == 0:
                yield pack(event(missed_record(track, self.location, self.calibration_id), "final", None))
                continue
            missing = kept
            if waiting is not None and waiting[0] == track_id:
                for face in waiting[1]:
                    missing -= 1
                    yield from self._face_event(folder, face, str(track["epoch"]), damaged)
                waiting = next(by_track, None)
            if missing > 0:
                damaged(f"{self.source_id}/{FACES} lacks {missing} of {kept} faces of track {track_id}")
        if waiting is not None:
            damaged(f"{self.source_id}/{FACES} has faces of tracks that are not in {TRACKS}")

    def _face_event(self, folder: RunFolder, face: Record, epoch: str, damaged: Damaged) -> Iterator[bytes]:
        track_id, rank = face["track_id"], face["rank"]
        if face["id"] != f"{self.source_id}/{epoch}/{track_id}/final/{rank}/0":
            damaged(f"{self.source_id}/{FACES} has a line that is not a face of this source")
            return
        # The name is built from numbers and not taken from the record, so that a record cannot name another file.
        names = [f"{self.source_id}/{picture_name(track_id, rank, suffix)}" for suffix in _SUFFIXES]
        name = next((name for name in names if folder.has(name)), names[0])
        try:
            crop = decode_crop(folder.content(name))
        except FileNotFoundError:
            damaged(f"{name} is missing")
        except OSError as error:
            damaged(f"{name} cannot be read ({error.strerror})")
        except ValueError as error:
            damaged(f"{name} {error}")
        else:
            # The record as the run sent it: without paths in the folder, and without persons, which were not known yet.
            sent = {**face, "image": None, "person_id": None, "person_rank": None, "crops": {}}
            yield pack(event(sent, "final", encode_jpeg(crop, JPEG_QUALITY)))


def finished_sources(out: Path, damaged: Damaged) -> list[FinishedSource]:
    """The committed sources of OUT, sorted by id as in OUT/faces.jsonl; unreadable ones are reported to `damaged`.

    Either the manifest or the summary is sufficient. Raises ResultsError when OUT contains no results of `run` that
    this version can read.
    """
    folder = RunFolder(out)
    wanted: set[str] = set()
    calibration: Any = None
    if has_manifest(out):
        try:
            wanted.update(folder.source_ids)
            calibration = folder.manifest.run.get("calibration_id")
        except ResultsError as error:
            damaged(str(error))
    if folder.has(SUMMARY) or calibration is None:
        try:
            wanted.update(_committed(folder.summary))
            calibration = folder.summary["calibration_id"]
        except ResultsError as error:
            if calibration is None:
                raise
            damaged(str(error))
    sources = []
    for source_id in sorted(wanted):
        try:
            sources.append(_read_source(folder, source_id, str(calibration)))
        except ResultsError as error:
            damaged(str(error))
    return sources


def undelivered(out: Path, delivered: Container[str]) -> Iterator[FinishedSource]:
    """The sources of OUT whose ids are not in `delivered`; none if OUT contains no results."""
    try:
        sources = finished_sources(out, lambda words: None)
    except ResultsError:
        return
    yield from (source for source in sources if source.source_id not in delivered)


def _committed(summary: Record) -> Iterator[str]:
    for source in summary["sources"]:
        if source["status"] in _COMMITTED and is_source_id(source["source_id"]):
            yield source["source_id"]


def _read_source(folder: RunFolder, source_id: str, calibration_id: str) -> FinishedSource:
    record = folder.source(source_id)
    if not folder.has(f"{source_id}/{TRACKS}"):
        raise ResultsError(f"{display(folder.out / source_id / TRACKS)} is missing; run its source again")
    told: list[str] = []
    kept = sum(max(1, track["kept"]) for track in RunFolder(folder.out, told.append).tracks(source_id))
    return FinishedSource(folder.out, record["source"], source_id, calibration_id, kept)
