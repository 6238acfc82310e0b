"""One source under another configuration: judged, picked, looked at again where needed, and written anew."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from streamgate.errors import SourceError
from streamgate.frames import STILL, BestShot, Candidate, TrackEnd, TrackInfo
from streamgate.report.notes import Point, Series, miss_note, note_record, shot_note
from streamgate.runtime.best_shots import best_shot
from streamgate.selection.keeper import Ranked
from streamgate.selection.nearmisses import NearMisses, distance_from_passing
from streamgate.store import files
from streamgate.store.folder import RunFolder
from streamgate.store.images import encode
from streamgate.store.jsonlines import Record, dumps, new_gzip
from streamgate.store.layout import CANDIDATES, FACES, NOTES, SOURCE, TRACKS
from streamgate.store.records import candidate_of, candidate_record, face_record, image_path
from streamgate.store.run import SourceInfo
from streamgate.tuning.footage import FootageScorer
from streamgate.tuning.picking import TrackFaces
from streamgate.tuning.pictures import KeptFace, kept_face, put_spare, ranked_record, read_spares
from streamgate.tuning.reevaluation import potential, reevaluate, settle
from streamgate.tuning.settings import Tuning, tuned_totals

ROUNDS = 6
"""Times that a source is gone through for faces to look at; each round follows from what the one before showed."""
_NEAR_MISSES = 3
_ROUNDED = 2e-4
_NO_IMAGE = np.zeros((1, 1, 3), np.uint8)


@dataclass(slots=True)
class SourceOutcome:
    """What became of a source's tracks and faces."""

    kept: int = 0
    tracks_without: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    gained: int = 0
    """Tracks that keep a face now and kept none."""
    lost: int = 0
    """Tracks that kept a face and keep none now."""
    other: int = 0
    """Tracks with other faces, or another number of them."""
    looked: int = 0
    """Faces for which the footage was needed."""


class SourceTuning:
    """The tuning of one source.

    With `dry` the same is found out, but pictures are not made and nothing can be written. With `pictured` only faces
    whose pictures are at hand are picked: the footage is left alone. Raises ResultsError for a source of which the
    whole results could not be derived.
    """

    def __init__(
        self, folder: RunFolder, source_id: str, tuning: Tuning, *, dry: bool = False, pictured: bool = False
    ) -> None:
        self.outcome = SourceOutcome()
        self.changed = not tuning.same_meaning
        self._folder = folder
        self._source_id = source_id
        self._tuning = tuning
        self._dry = dry
        self._pictured = pictured
        self._record = folder.source(source_id)
        self._tracks = {track["track_id"]: track for track in folder.tracks(source_id)}
        self._picks: dict[int, list[Record]] = defaultdict(list)
        for face in folder.faces(source_id):
            self._picks[face["track_id"]].append(face)
        self._faces: dict[int, list[Candidate]] = defaultdict(list)
        """Every evaluated face, by track."""
        self._notes: dict[int, Record] = {}
        self._kept: dict[tuple[int, float], KeptFace] = {}
        self._ranked: dict[int, list[Ranked]] = {}
        self._shots: dict[tuple[int, float], BestShot] = {}
        self._scored_before: dict[int, int] = {}
        self._unwanted: set[int] = set()
        """Tracks that would keep a face if they had ever moved."""

    @property
    def location(self) -> str:
        return str(self._record["source"])

    def before(self) -> SourceOutcome:
        """What the results say as they are."""
        found = SourceOutcome()
        for track in self._tracks.values():
            found.kept += track["kept"]
            found.tracks_without += not track["kept"]
            found.rejected.update(track["rejected"])
        return found

    def read(self) -> None:
        """Read the stored faces. Raises ResultsError for missing, torn or other ones: none may be left out."""
        name = f"{self._source_id}/{CANDIDATES}"
        seen: set[tuple[int, float]] = set()
        known = self._tuning.before.measures.names
        for record in self._folder.candidates(self._source_id):
            try:
                face = candidate_of(record, known)
            except ValueError as error:
                raise self._folder.error(name, f"is damaged ({error})") from None
            if (face.track_id, face.pts_seconds) in seen:
                raise self._folder.error(name, f"is damaged (track {face.track_id} has two faces at one time)")
            seen.add((face.track_id, face.pts_seconds))
            if face.track_id in self._tracks:
                face.usual = self._tracks[face.track_id].get("reference") or {}
            self._faces[face.track_id].append(face)
        for track_id, picks in self._picks.items():
            if any((track_id, float(pick["pts_seconds"])) not in seen for pick in picks):
                raise self._folder.error(name, f"is damaged (a kept face of track {track_id} is missing)")
        self._notes = self._folder.notes(self._source_id)
        self._kept = self._faces_with_pictures()
        self._scored_before = {track_id: _scored(faces) for track_id, faces in self._faces.items()}

    def pick(self, footage: FootageScorer) -> None:
        """Judge and pick again. Raises SourceError when footage is needed that is not there."""
        size = (self._record["width"] or 0, self._record["height"] or 0)
        at_best = partial(potential, tuning=self._tuning, size=size)
        settled = partial(settle, tuning=self._tuning, size=size)
        affected = any(
            key.partition(".")[0] in ("keep", "smoothing") and key != "keep.stills" for key in self._tuning.changed
        )
        tracks: dict[int, TrackFaces] = {}
        for track_id in self._tracks:
            faces = self._faces.get(track_id, [])
            still = self._tracks[track_id]["still"]
            before = [_verdict(face) for face in faces]
            for face in faces:
                reevaluate(face, self._tuning, size)
            if [_verdict(face) for face in faces] != before:
                self.changed = True
            elif not affected and not (still and "keep.stills" in self._tuning.changed):
                continue
            old = frozenset(float(pick["pts_seconds"]) for pick in self._picks.get(track_id, ()))
            opened = self._open_to(faces, before, old, still=still)
            self._know_again(faces)
            track = TrackFaces(faces, self._tuning.after, at_best, settled, trusted=old, open_to=opened)
            if still and not self._tuning.after.keep.stills:
                if track.ranked():
                    self._unwanted.add(track_id)
                self._ranked[track_id] = []
            else:
                tracks[track_id] = track
        if not self._pictured:
            self._look(tracks, footage)
        self._rank(tracks)
        if not self._pictured:
            self._cut(tracks, footage)
        self._conclude()

    def write(self, folder: Path, listed: Sequence[str]) -> list[str]:
        """Write the source's new folder; `listed` are its files as they are. Returns the new ones. Raises OSError."""
        ours = {CANDIDATES, FACES, TRACKS, SOURCE, NOTES}
        names = [self._write_candidates(folder)]
        faces: list[bytes] = []
        notes: list[bytes] = []
        gone = {name for face in self._kept.values() for name in face.files.values()}
        for track_id in sorted(self._tracks):
            records, shots, written = self._write_track(folder, track_id)
            names += written
            faces += [dumps(record).encode() + b"\n" for record in records]
            if self._notes:
                notes.append(dumps(self._note(track_id, shots)).encode() + b"\n")
        tracks = [dumps(self._track_record(track_id)).encode() + b"\n" for track_id in sorted(self._tracks)]
        scored = sum(self._info(track_id).frames_scored for track_id in self._tracks)
        source = tuned_totals(self._record, self.outcome.rejected, kept=self.outcome.kept, scored=scored)
        for name, data in {
            FACES: b"".join(faces),
            TRACKS: b"".join(tracks),
            SOURCE: (dumps(source, pretty=True) + "\n").encode(),
        }.items():
            (folder / name).write_bytes(data)
            names.append(name)
        if self._notes:
            with new_gzip(folder / NOTES) as target:
                for line in notes:
                    target.write(line)
            names.append(NOTES)
        for name in listed:
            own = f"{self._source_id}/{name}"
            if name not in ours and own not in gone and not (folder / name).exists() and self._folder.has(own):
                files.link_or_copy(self._folder.out, own, folder / name)
                names.append(name)
        return sorted(set(names))

    def put_aside(self) -> None:
        """Keep the pictures of faces that are not picked any more, for the day the limits are turned back."""
        picked = {(track_id, one.candidate.pts_seconds) for track_id, found in self._ranked.items() for one in found}
        for key, face in self._kept.items():
            if key[0] in self._ranked and key not in picked:
                put_spare(self._folder, self._source_id, face)

    def _open_to(
        self, faces: Sequence[Candidate], before: Sequence[tuple[Any, ...]], old: frozenset[float], *, still: bool
    ) -> list[Candidate]:
        """Faces that the run did not score in full and that may win now.

        All of them where a pick was lost, more are wanted, or quality means something else: the run left them out
        because of what it had. Else those whose limit was loosened.
        """
        was, now = self._tuning.before.keep, self._tuning.after.keep
        fewer = {"keep.per"} if still and now.stills else {"keep.per", "keep.stills"}
        if now.top_k < was.top_k:
            fewer.add("keep.top_k")
        if now.min_gap_seconds > was.min_gap_seconds:
            fewer.add("keep.min_gap_seconds")
        more = any(key.startswith("keep.") and key not in fewer for key in self._tuning.changed)
        lost = any(face.pts_seconds in old and not face.gate.passed for face in faces)
        if lost or more or not self._tuning.same_meaning:
            return [face for face in faces if face.quality is None and not face.gate.reasons]
        return [
            face
            for face, (_, reasons, quality) in zip(faces, before, strict=True)
            if quality is None and reasons and not face.gate.reasons
        ]

    def _faces_with_pictures(self) -> dict[tuple[int, float], KeptFace]:
        spares = read_spares(self._folder, self._source_id)
        found = {(face.track_id, face.pts_seconds): face for face in spares}
        for track_id, picks in self._picks.items():
            shots = {shot["rank"]: shot for shot in self._notes.get(track_id, {}).get("shots", ())}
            for pick in picks:
                face = kept_face(self._folder, pick, shots.get(pick["rank"]))
                if face is not None:
                    found[track_id, face.pts_seconds] = face
        return found

    def _know_again(self, faces: Sequence[Candidate]) -> None:
        """What faces with pictures look like: near-duplicates of them are told by that."""
        for face in faces:
            known = self._kept.get((face.track_id, face.pts_seconds))
            text = known.record.get("phash") if known is not None else None
            face.phash = int(text, 16) if isinstance(text, str) else None

    def _rank(self, tracks: dict[int, TrackFaces]) -> None:
        for track_id, track in tracks.items():
            only = frozenset(pts for one, pts in self._kept if one == track_id) if self._pictured else None
            self._ranked[track_id] = track.ranked(only=only)

    def _look(self, tracks: dict[int, TrackFaces], footage: FootageScorer) -> None:
        for _ in range(ROUNDS):
            wanted = [face for track in tracks.values() for face in track.wanted()]
            if not wanted:
                return
            self.outcome.looked += len(wanted)
            self._read(footage, wanted)

    def _new(self) -> list[tuple[int, Ranked]]:
        """Picks without pictures in the folder, with their tracks."""
        return [
            (track_id, one)
            for track_id, found in self._ranked.items()
            for one in found
            if (track_id, one.candidate.pts_seconds) not in self._kept
        ]

    def _cut(self, tracks: dict[int, TrackFaces], footage: FootageScorer) -> None:
        """Pictures of picks that have none yet.

        Only with the picture one knows what a face looks like, so one may prove to be the like of a better one.
        """
        if not self._new():
            return
        with footage.open(self._record, self._sequence_fps()) as source:
            while missing := [one.candidate for _, one in self._new() if one.candidate.crop is None]:
                self.outcome.looked += len(missing)
                footage.score(source, missing)
                if lost := [face for face in missing if face.crop is None and face.gate.passed]:
                    raise SourceError(
                        f"{self.location}: the frame at {lost[0].pts_seconds:.3f} s is not found again; run the source "
                        "again",
                        self.location,
                    )
                self._rank(tracks)
            for track_id, one in self._new() if not self._dry else ():
                shot = self._shot(one, track_id)
                ended = TrackEnd(shot.track, (shot,), {}, (), self._source_id)
                self._shots[track_id, shot.pts_seconds] = footage.finish(source, ended).shots[0]
        self.changed = True

    def _sequence_fps(self) -> float | None:
        """The rate at which a folder of pictures was read, by the times of its frames; None for anything else."""
        last = max(
            (face for faces in self._faces.values() for face in faces if face.name is not None),
            key=lambda face: face.pts_seconds,
            default=None,
        )
        if last is None or last.frame_index is None or not last.pts_seconds > 0:
            return None
        fps = last.frame_index / last.pts_seconds
        # Unrelated pictures are a second apart.
        return fps if abs(fps - 1.0) > 1e-6 else None

    def _read(self, footage: FootageScorer, faces: Sequence[Candidate]) -> None:
        with footage.open(self._record, self._sequence_fps()) as source:
            footage.score(source, faces)
        self.changed = True

    def _conclude(self) -> None:
        for track_id, record in self._tracks.items():
            before = [float(pick["pts_seconds"]) for pick in self._picks.get(track_id, ())]
            ranked = self._ranked.get(track_id)
            now = before if ranked is None else [one.candidate.pts_seconds for one in ranked]
            self.outcome.kept += len(now)
            self.outcome.tracks_without += not now
            if ranked is None:
                self.outcome.rejected.update(record["rejected"])
                continue
            for face in self._faces.get(track_id, ()):
                self.outcome.rejected.update(face.gate.reasons)
            picks = self._picks.get(track_id, ())
            if [pick.get("pose_bin") for pick in picks] != [one.pose_bin for one in ranked]:
                self.changed = True
            if now != before:
                self.changed = True
                self.outcome.gained += not before
                self.outcome.lost += not now
                self.outcome.other += bool(before and now)

    def _write_candidates(self, folder: Path) -> str:
        now = {
            (face.track_id, face.pts_seconds): face for found in self._faces.values() for face in found
        }
        known = self._tuning.before.measures.names
        with new_gzip(folder / CANDIDATES) as target:
            for record in self._folder.candidates(self._source_id):
                before = candidate_of(record, known)
                face = now[before.track_id, before.pts_seconds]
                same = _verdict(face) == _verdict(before) and face.measures == before.measures
                report = record if same else candidate_record(face, self._source_id)
                target.write(dumps(report).encode() + b"\n")
        return CANDIDATES

    def _write_track(self, folder: Path, track_id: int) -> tuple[list[Record], list[Record], list[str]]:
        """Pictures of a track; returns its records, its notes' shots and the names of the files."""
        records: list[Record] = []
        shots: list[Record] = []
        names: list[str] = []
        ranked = self._ranked.get(track_id)
        if ranked is None:
            ranked = [None] * len(self._picks.get(track_id, ()))  # type: ignore[list-item]
        olds = self._picks.get(track_id, ())
        for index, one in enumerate(ranked):
            pts = float(olds[index]["pts_seconds"]) if one is None else one.candidate.pts_seconds
            rank = index + 1
            face = self._kept.get((track_id, pts))
            if face is not None:
                record = ranked_record(face, rank)
                note = {**face.note, "rank": rank}
                for ending, stored in face.files.items():
                    name = f"track_{track_id:04d}/{rank}{ending}"
                    files.link_or_copy(self._folder.out, stored, folder / name)
                    names.append(name)
            elif one is not None:
                shot = self._shots[track_id, pts]
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
                record = {**record, **self._figures(one, track_id, record)}
            records.append(record)
            shots.append(note)
        return records, shots, names

    def _shot(self, ranked: Ranked, track_id: int) -> BestShot:
        source = SourceInfo(self.location, self._source_id)
        return best_shot(
            ranked, self._info(track_id), source, self._tuning.after, self._tuning.evaluator.calibration_id
        )

    def _figures(self, ranked: Ranked, track_id: int, before: Record) -> dict[str, Any]:
        """What judging anew decides in a face's record.

        Means over stored qualities, which are rounded, differ in the last digit from a run's: its figure stays then.
        """
        shown = BestShot(
            _NO_IMAGE, "", "", self._info(track_id), ranked.rank, ranked.candidate.pts_seconds, ranked.candidate.face,
            ranked.candidate.evidence.pose, ranked.candidate.measures, ranked.candidate.quality,
            ranked.quality_smoothed, ranked.quality_context, self._tuning.evaluator.calibration_id,
            ranked.candidate.gate,
            pose_bin=ranked.pose_bin,
        )  # fmt: skip
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

    def _info(self, track_id: int) -> TrackInfo:
        record = self._tracks[track_id]
        # A run counts some faces twice; what has been scored since is added to its count.
        more = _scored(self._faces.get(track_id, ())) - self._scored_before.get(track_id, 0)
        scored = int(record["frames_scored"]) + max(0, more)
        return TrackInfo(
            track_id, record["first_pts"], record["last_pts"], int(record["frames_seen"]), scored, record["still"]
        )

    def _track_record(self, track_id: int) -> Record:
        record = self._tracks[track_id]
        ranked = self._ranked.get(track_id)
        if ranked is None:
            return record
        faces = self._faces.get(track_id, [])
        rejected: Counter[str] = Counter(reason for face in faces for reason in face.gate.reasons)
        missed = [face for face in faces if face.gate.reasons]
        nearest = min(missed, key=distance_from_passing, default=None)
        reasons = [STILL] if track_id in self._unwanted else [] if nearest is None else list(nearest.gate.reasons)
        return {
            **record,
            "frames_scored": self._info(track_id).frames_scored,
            "kept": len(ranked),
            "rejected": dict(sorted(rejected.items())),
            "reasons": reasons if not ranked else [],
        }

    def _note(self, track_id: int, shots: list[Record]) -> Record:
        faces = sorted(self._faces.get(track_id, []), key=lambda face: face.pts_seconds)
        series = Series()
        for face in faces:
            series.add(Point.of(face))
        return note_record(track_id, series, shots, self._misses(track_id, faces))

    def _misses(self, track_id: int, faces: Sequence[Candidate]) -> list[Record]:
        """The nearest misses, preferably those of which a small picture is at hand."""
        seen: dict[float, Record] = {
            float(miss["pts_seconds"]): miss for miss in self._notes.get(track_id, {}).get("misses", ())
        }
        seen |= {pts: face.note for (one, pts), face in self._kept.items() if one == track_id}
        found = _nearest([face for face in faces if face.pts_seconds in seen], self._tuning.after.advanced.window_s)
        if not found:
            found = _nearest(faces, self._tuning.after.advanced.window_s)
        empty: Record = {"thumbnail": None, "heat": None}
        return [
            miss_note(face, self._source_id, seen.get(face.pts_seconds, empty)) for face in found
        ]


def _nearest(faces: Sequence[Candidate], stretch: float) -> list[Candidate]:
    misses = NearMisses(_NEAR_MISSES, lambda candidate, picture: _NO_IMAGE)
    batches: dict[int, list[tuple[Candidate, Any]]] = {}
    for face in faces:
        batches.setdefault(int(face.pts_seconds // stretch), []).append((face, None))
    for _, batch in sorted(batches.items()):
        misses.offer(batch)
    return [one.candidate for one in misses.finish()]


def _scored(faces: Sequence[Candidate]) -> int:
    return sum(face.quality is not None for face in faces)


def _verdict(face: Candidate) -> tuple[Any, ...]:
    return (face.gate.passed, face.gate.reasons, face.quality)
