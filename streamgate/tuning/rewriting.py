"""Writes the new folder of a tuned source: its records, its existing pictures and new crops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamgate.faces import STILL
from streamgate.report.notes import Point, Series, miss_note, note_record, shot_note
from streamgate.selection.keeper import Ranked
from streamgate.selection.near_misses import NearMisses, distance_from_passing
from streamgate.store import files
from streamgate.store.images import encode
from streamgate.store.jsonlines import Record, dumps, new_gzip
from streamgate.store.layout import CANDIDATES, FACES, NOTES, SOURCE, TRACKS
from streamgate.store.records import candidate_of, candidate_record, face_record, image_path
from streamgate.tracks import BestShot, Candidate
from streamgate.tuning.pictures import ranked_record
from streamgate.tuning.settings import tuned_totals
from streamgate.tuning.source import SourceTuning, verdict

_NEAR_MISSES = 3
_ROUNDED = 2e-4
_NO_IMAGE = np.zeros((1, 1, 3), np.uint8)


def write_source(source: SourceTuning, folder: Path, listed: Sequence[str]) -> list[str]:
    """Write the new folder of a tuned source. Returns the names of the files in it.

    `listed` are the files in the current folder of the source. Raises OSError.
    """
    ours = {CANDIDATES, FACES, TRACKS, SOURCE, NOTES}
    names = [_write_candidates(source, folder)]
    faces: list[bytes] = []
    notes: list[bytes] = []
    gone = {name for face in source.kept.values() for name in face.files.values()}
    for track_id in sorted(source.tracks):
        records, shots, written = _write_track(source, folder, track_id)
        names += written
        faces += [dumps(record).encode() + b"\n" for record in records]
        if source.notes:
            notes.append(dumps(_note(source, track_id, shots)).encode() + b"\n")
    tracks = [dumps(_track_record(source, track_id)).encode() + b"\n" for track_id in sorted(source.tracks)]
    scored = sum(source.info(track_id).frames_scored for track_id in source.tracks)
    totals = tuned_totals(source.record, source.outcome.rejected, kept=source.outcome.kept, scored=scored)
    for name, data in {
        FACES: b"".join(faces),
        TRACKS: b"".join(tracks),
        SOURCE: (dumps(totals, pretty=True) + "\n").encode(),
    }.items():
        (folder / name).write_bytes(data)
        names.append(name)
    if source.notes:
        with new_gzip(folder / NOTES) as target:
            for line in notes:
                target.write(line)
        names.append(NOTES)
    for name in listed:
        own = f"{source.source_id}/{name}"
        if name not in ours and own not in gone and not (folder / name).exists() and source.folder.has(own):
            files.link_or_copy(source.folder.out, own, folder / name)
            names.append(name)
    return sorted(set(names))


def _write_candidates(source: SourceTuning, folder: Path) -> str:
    now = {
        (face.track_id, face.pts_seconds): face for found in source.faces.values() for face in found
    }
    known = source.tuning.before.measures.names
    with new_gzip(folder / CANDIDATES) as target:
        for record in source.folder.candidates(source.source_id):
            before = candidate_of(record, known)
            face = now[before.track_id, before.pts_seconds]
            same = verdict(face) == verdict(before) and face.measures == before.measures
            line = record if same else candidate_record(face, source.source_id)
            target.write(dumps(line).encode() + b"\n")
    return CANDIDATES


def _write_track(source: SourceTuning, folder: Path, track_id: int) -> tuple[list[Record], list[Record], list[str]]:
    """Write the pictures of a track. Returns its faces' records, their notes for the report, and the file names."""
    records: list[Record] = []
    shots: list[Record] = []
    names: list[str] = []
    ranked = source.ranked.get(track_id)
    if ranked is None:
        ranked = [None] * len(source.picks.get(track_id, ()))  # type: ignore[list-item]
    olds = source.picks.get(track_id, ())
    for index, one in enumerate(ranked):
        pts = float(olds[index]["pts_seconds"]) if one is None else one.candidate.pts_seconds
        rank = index + 1
        face = source.kept.get((track_id, pts))
        if face is not None:
            record = ranked_record(face, rank)
            note = {**face.note, "rank": rank}
            for ending, stored in face.files.items():
                name = f"track_{track_id:04d}/{rank}{ending}"
                files.link_or_copy(source.folder.out, stored, folder / name)
                names.append(name)
        elif one is not None:
            shot = source.shots[track_id, pts]
            image = image_path(shot)
            pictures = {image: encode(shot.image, shot.encoding)} | {
                image_path(shot, crop): encode(further.image, further.encoding)
                for crop, further in shot.crops.items()
            }
            for picture, data in pictures.items():
                name = picture.partition("/")[2]
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
                names.append(name)
            record = face_record(shot, image)
            note = shot_note(rank, shot.image, shot.ifqa_map)
        else:
            record, note = dict(olds[index]), {"rank": rank, "thumbnail": None, "heat": None}
        if one is not None:
            record = {**record, **_evaluated(source, one, track_id, record)}
        records.append(record)
        shots.append(note)
    return records, shots, names


def _evaluated(source: SourceTuning, ranked: Ranked, track_id: int, before: Record) -> dict[str, Any]:
    """The fields of a face's record that the new evaluation determines.

    A mean over stored, rounded qualities may differ in the last digit from the mean that the run computed. In that
    case, the old value is kept.
    """
    candidate = ranked.candidate
    shown = BestShot(
        image=_NO_IMAGE,
        source="",
        source_id="",
        track=source.info(track_id),
        rank=ranked.rank,
        pts_seconds=candidate.pts_seconds,
        face=candidate.face,
        evidence=candidate.evidence,
        measures=candidate.measures,
        quality=candidate.quality,
        quality_smoothed=ranked.quality_smoothed,
        quality_context=ranked.quality_context,
        calibration_id=source.tuning.evaluator.calibration_id,
        gate=candidate.gate,
        pose_bin=ranked.pose_bin,
    )
    keys = (
        "measures", "quality", "quality_smoothed", "quality_context", "calibration_id", "gate", "track", "pose_bin",
    )  # fmt: skip
    record = face_record(shown, None)
    found = {key: record[key] for key in keys}
    for key in ("quality_smoothed", "quality_context"):
        was, now = before.get(key), found[key]
        if isinstance(was, float) and isinstance(now, float) and abs(was - now) <= _ROUNDED:
            found[key] = was
    return found


def _track_record(source: SourceTuning, track_id: int) -> Record:
    record = source.tracks[track_id]
    ranked = source.ranked.get(track_id)
    if ranked is None:
        return record
    faces = source.faces.get(track_id, [])
    rejected: Counter[str] = Counter(reason for face in faces for reason in face.gate.reasons)
    missed = [face for face in faces if face.gate.reasons]
    nearest = min(missed, key=distance_from_passing, default=None)
    reasons = [STILL] if track_id in source.unwanted else [] if nearest is None else list(nearest.gate.reasons)
    return {
        **record,
        "frames_scored": source.info(track_id).frames_scored,
        "kept": len(ranked),
        "rejected": dict(sorted(rejected.items())),
        "reasons": reasons if not ranked else [],
    }


def _note(source: SourceTuning, track_id: int, shots: list[Record]) -> Record:
    faces = sorted(source.faces.get(track_id, []), key=lambda face: face.pts_seconds)
    series = Series()
    for face in faces:
        series.add(Point.of(face))
    return note_record(track_id, series, shots, _misses(source, track_id, faces))


def _misses(source: SourceTuning, track_id: int, faces: Sequence[Candidate]) -> list[Record]:
    """The nearest misses among the faces with a thumbnail or, if there are none, among all faces."""
    seen: dict[float, Record] = {
        float(miss["pts_seconds"]): miss for miss in source.notes.get(track_id, {}).get("misses", ())
    }
    seen |= {pts: face.note for (one, pts), face in source.kept.items() if one == track_id}
    found = _nearest([face for face in faces if face.pts_seconds in seen], source.tuning.after.advanced.window_s)
    if not found:
        found = _nearest(faces, source.tuning.after.advanced.window_s)
    empty: Record = {"thumbnail": None, "heat": None}
    return [
        miss_note(face, source.source_id, seen.get(face.pts_seconds, empty)) for face in found
    ]


def _nearest(faces: Sequence[Candidate], stretch: float) -> list[Candidate]:
    misses = NearMisses(_NEAR_MISSES, lambda candidate, picture: _NO_IMAGE)
    batches: dict[int, list[tuple[Candidate, Any]]] = {}
    for face in faces:
        batches.setdefault(int(face.pts_seconds // stretch), []).append((face, None))
    for _, batch in sorted(batches.items()):
        misses.offer(batch)
    return [one.candidate for one in misses.finish()]
