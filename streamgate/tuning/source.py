"""Evaluates the faces of one source with another configuration and selects again. Reads the footage if necessary."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from streamgate.errors import SourceError
from streamgate.runtime.best_shots import best_shot
from streamgate.selection.keeper import Ranked
from streamgate.store.folder import RunFolder
from streamgate.store.jsonlines import Record
from streamgate.store.layout import CANDIDATES
from streamgate.store.records import candidate_of
from streamgate.store.run import SourceInfo
from streamgate.tracks import BestShot, Candidate, TrackEnd, TrackInfo
from streamgate.tuning.footage import FootageScorer
from streamgate.tuning.picking import TrackFaces
from streamgate.tuning.pictures import KeptFace, kept_face, put_spare, read_spares
from streamgate.tuning.reevaluation import potential, reevaluate, settle
from streamgate.tuning.settings import Tuning

ROUNDS = 6
"""Maximum number of rounds in which faces are scored in the footage. Each round depends on the results of the previous
one."""


@dataclass(slots=True)
class SourceOutcome:
    """Counts of the tracks and faces of a source."""

    kept: int = 0
    tracks_without: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    gained: int = 0
    """Number of tracks that keep a face now and kept none before."""
    lost: int = 0
    """Number of tracks that kept a face before and keep none now."""
    other: int = 0
    """Number of tracks that kept faces before and keep different faces, more faces or fewer faces now."""
    looked: int = 0
    """Number of faces that were scored in the footage."""


class SourceTuning:
    """The tuning of one source.

    With `dry`, the outcome is the same, but no pictures are cropped and nothing can be written. With `pictured`, only
    faces with existing pictures are picked, and the footage is not read. Raises ResultsError if the results of the
    source are incomplete.

    Attributes:
        record: the record in the source's source.json.
        tracks: records of the source's tracks, by track id.
        picks: records of the faces kept so far, by track id, best first.
        faces: every evaluated face, by track id.
        notes: the notes of the tracks for the report, by track id.
        kept: faces with existing pictures, by track id and time.
        ranked: the new picks, by track id, for tracks that were selected again.
        shots: picks with new crops, by track id and time.
        unwanted: ids of tracks that would keep a face, but whose face never moved.
    """

    def __init__(
        self, folder: RunFolder, source_id: str, tuning: Tuning, *, dry: bool = False, pictured: bool = False
    ) -> None:
        self.outcome = SourceOutcome()
        self.changed = not tuning.same_meaning
        self.folder = folder
        self.source_id = source_id
        self.tuning = tuning
        self._dry = dry
        self._pictured = pictured
        self.record = folder.source(source_id)
        self.tracks = {track["track_id"]: track for track in folder.tracks(source_id)}
        self.picks: dict[int, list[Record]] = defaultdict(list)
        for face in folder.faces(source_id):
            self.picks[face["track_id"]].append(face)
        self.faces: dict[int, list[Candidate]] = defaultdict(list)
        self.notes: dict[int, Record] = {}
        self.kept: dict[tuple[int, float], KeptFace] = {}
        self.ranked: dict[int, list[Ranked]] = {}
        self.shots: dict[tuple[int, float], BestShot] = {}
        self._scored_before: dict[int, int] = {}
        self.unwanted: set[int] = set()

    @property
    def location(self) -> str:
        return str(self.record["source"])

    def before(self) -> SourceOutcome:
        """The counts of the current results."""
        found = SourceOutcome()
        for track in self.tracks.values():
            found.kept += track["kept"]
            found.tracks_without += not track["kept"]
            found.rejected.update(track["rejected"])
        return found

    def read(self) -> None:
        """Read the stored faces. All are needed, so ResultsError is raised if any is missing, damaged or duplicate."""
        name = f"{self.source_id}/{CANDIDATES}"
        seen: set[tuple[int, float]] = set()
        known = self.tuning.before.measures.names
        for record in self.folder.candidates(self.source_id):
            try:
                face = candidate_of(record, known)
            except ValueError as error:
                raise self.folder.error(name, f"is damaged ({error})") from None
            if (face.track_id, face.pts_seconds) in seen:
                raise self.folder.error(name, f"is damaged (track {face.track_id} has two faces at the same time)")
            seen.add((face.track_id, face.pts_seconds))
            if face.track_id in self.tracks:
                face.usual = self.tracks[face.track_id].get("reference") or {}
            self.faces[face.track_id].append(face)
        for track_id, picks in self.picks.items():
            if any((track_id, float(pick["pts_seconds"])) not in seen for pick in picks):
                raise self.folder.error(name, f"is damaged (a kept face of track {track_id} is missing)")
        self.notes = self.folder.notes(self.source_id)
        self.kept = self._faces_with_pictures()
        self._scored_before = {track_id: _scored(faces) for track_id, faces in self.faces.items()}

    def pick(self, footage: FootageScorer) -> None:
        """Evaluate all faces again and select. Raises SourceError if footage is needed but missing."""
        size = (self.record["width"] or 0, self.record["height"] or 0)
        at_best = partial(potential, tuning=self.tuning, size=size)
        settled = partial(settle, tuning=self.tuning, size=size)
        affected = any(
            key.partition(".")[0] in ("keep", "smoothing") and key != "keep.stills" for key in self.tuning.changed
        )
        tracks: dict[int, TrackFaces] = {}
        for track_id in self.tracks:
            faces = self.faces.get(track_id, [])
            still = self.tracks[track_id]["still"]
            before = [verdict(face) for face in faces]
            for face in faces:
                reevaluate(face, self.tuning, size)
            if [verdict(face) for face in faces] != before:
                self.changed = True
            elif not affected and not (still and "keep.stills" in self.tuning.changed):
                continue
            old = frozenset(float(pick["pts_seconds"]) for pick in self.picks.get(track_id, ()))
            opened = self._open_to(faces, before, old, still=still)
            self._know_again(faces)
            track = TrackFaces(faces, self.tuning.after, at_best, settled, trusted=old, open_to=opened)
            if still and not self.tuning.after.keep.stills:
                if track.ranked():
                    self.unwanted.add(track_id)
                self.ranked[track_id] = []
            else:
                tracks[track_id] = track
        if not self._pictured:
            self._look(tracks, footage)
        self._rank(tracks)
        if not self._pictured:
            self._cut(tracks, footage)
        self._conclude()

    def put_aside(self) -> None:
        """Save the pictures of faces that are no longer picked, in case the limits are reset later."""
        picked = {(track_id, one.candidate.pts_seconds) for track_id, found in self.ranked.items() for one in found}
        for key, face in self.kept.items():
            if key[0] in self.ranked and key not in picked:
                put_spare(self.folder, self.source_id, face)

    def _open_to(
        self, faces: Sequence[Candidate], before: Sequence[tuple[Any, ...]], old: frozenset[float], *, still: bool
    ) -> list[Candidate]:
        """Faces that the run did not fully score and that no limit rejects now.

        Only those that a limit rejected before are returned, unless a pick was lost, more picks are requested, or the
        meaning of quality has changed. In these cases, all such faces are returned, because the run may have skipped
        any of them in favour of its picks.
        """
        was, now = self.tuning.before.keep, self.tuning.after.keep
        fewer = {"keep.per"} if still and now.stills else {"keep.per", "keep.stills"}
        if now.top_k < was.top_k:
            fewer.add("keep.top_k")
        if now.min_gap_seconds > was.min_gap_seconds:
            fewer.add("keep.min_gap_seconds")
        more = any(key.startswith("keep.") and key not in fewer for key in self.tuning.changed)
        lost = any(face.pts_seconds in old and not face.gate.passed for face in faces)
        if lost or more or not self.tuning.same_meaning:
            return [face for face in faces if face.quality is None and not face.gate.reasons]
        return [
            face
            for face, (_, reasons, quality) in zip(faces, before, strict=True)
            if quality is None and reasons and not face.gate.reasons
        ]

    def _faces_with_pictures(self) -> dict[tuple[int, float], KeptFace]:
        spares = read_spares(self.folder, self.source_id)
        found = {(face.track_id, face.pts_seconds): face for face in spares}
        for track_id, picks in self.picks.items():
            shots = {shot["rank"]: shot for shot in self.notes.get(track_id, {}).get("shots", ())}
            for pick in picks:
                face = kept_face(self.folder, pick, shots.get(pick["rank"]))
                if face is not None:
                    found[track_id, face.pts_seconds] = face
        return found

    def _know_again(self, faces: Sequence[Candidate]) -> None:
        """Restore the perceptual hashes of faces with pictures, which are used to detect near-duplicates."""
        for face in faces:
            known = self.kept.get((face.track_id, face.pts_seconds))
            text = known.record.get("phash") if known is not None else None
            face.phash = int(text, 16) if isinstance(text, str) else None

    def _rank(self, tracks: dict[int, TrackFaces]) -> None:
        for track_id, track in tracks.items():
            only = frozenset(pts for one, pts in self.kept if one == track_id) if self._pictured else None
            self.ranked[track_id] = track.ranked(only=only)

    def _look(self, tracks: dict[int, TrackFaces], footage: FootageScorer) -> None:
        for _ in range(ROUNDS):
            wanted = [face for track in tracks.values() for face in track.wanted()]
            if not wanted:
                return
            self.outcome.looked += len(wanted)
            self._read(footage, wanted)

    def _new(self) -> list[tuple[int, Ranked]]:
        """The picks without existing pictures, with their track ids."""
        return [
            (track_id, one)
            for track_id, found in self.ranked.items()
            for one in found
            if (track_id, one.candidate.pts_seconds) not in self.kept
        ]

    def _cut(self, tracks: dict[int, TrackFaces], footage: FootageScorer) -> None:
        """Crop the pictures of picks that have none yet.

        The perceptual hash of a pick is only known when its picture exists. If the pick is then a near-duplicate of a
        better one, the selection is repeated.
        """
        if not self._new():
            return
        with footage.open(self.record, self._sequence_fps()) as source:
            while missing := [one.candidate for _, one in self._new() if one.candidate.image is None]:
                self.outcome.looked += len(missing)
                footage.score(source, missing)
                if lost := [face for face in missing if face.image is None and face.gate.passed]:
                    raise SourceError(
                        f"{self.location}: the frame at {lost[0].pts_seconds:.3f} s cannot be found again; run the "
                        "source again",
                        self.location,
                    )
                self._rank(tracks)
            for track_id, one in self._new() if not self._dry else ():
                shot = self._shot(one, track_id)
                ended = TrackEnd(shot.track, (shot,), {}, (), self.source_id)
                self.shots[track_id, shot.pts_seconds] = footage.finish(source, ended).shots[0]
        self.changed = True

    def _sequence_fps(self) -> float | None:
        """The frame rate at which a folder of pictures was read, computed from frame times; None for other sources."""
        last = max(
            (face for faces in self.faces.values() for face in faces if face.name is not None),
            key=lambda face: face.pts_seconds,
            default=None,
        )
        if last is None or last.frame_index is None or not last.pts_seconds > 0:
            return None
        fps = last.frame_index / last.pts_seconds
        # Unrelated pictures, which are not a sequence, are one second apart.
        return fps if abs(fps - 1.0) > 1e-6 else None

    def _read(self, footage: FootageScorer, faces: Sequence[Candidate]) -> None:
        with footage.open(self.record, self._sequence_fps()) as source:
            footage.score(source, faces)
        self.changed = True

    def _conclude(self) -> None:
        for track_id, record in self.tracks.items():
            before = [float(pick["pts_seconds"]) for pick in self.picks.get(track_id, ())]
            ranked = self.ranked.get(track_id)
            now = before if ranked is None else [one.candidate.pts_seconds for one in ranked]
            self.outcome.kept += len(now)
            self.outcome.tracks_without += not now
            if ranked is None:
                self.outcome.rejected.update(record["rejected"])
                continue
            for face in self.faces.get(track_id, ()):
                self.outcome.rejected.update(face.gate.reasons)
            picks = self.picks.get(track_id, ())
            if [pick.get("pose_bin") for pick in picks] != [one.pose_bin for one in ranked]:
                self.changed = True
            if now != before:
                self.changed = True
                self.outcome.gained += not before
                self.outcome.lost += not now
                self.outcome.other += bool(before and now)

    def _shot(self, ranked: Ranked, track_id: int) -> BestShot:
        source = SourceInfo(self.location, self.source_id)
        return best_shot(
            ranked, self.info(track_id), source, self.tuning.after, self.tuning.evaluator.calibration_id
        )

    def info(self, track_id: int) -> TrackInfo:
        """The data of a track for the records of its picks."""
        record = self.tracks[track_id]
        # The run's `frames_scored` counts some faces twice, so it cannot be recomputed from the records: add the newly
        # scored faces to it.
        more = _scored(self.faces.get(track_id, ())) - self._scored_before.get(track_id, 0)
        scored = int(record["frames_scored"]) + max(0, more)
        return TrackInfo(
            track_id, record["first_pts"], record["last_pts"], int(record["frames_seen"]), scored, record["still"]
        )


def _scored(faces: Sequence[Candidate]) -> int:
    return sum(face.quality is not None for face in faces)


def verdict(face: Candidate) -> tuple[Any, ...]:
    """The part of an evaluation that is compared to find out whether the evaluation has changed."""
    return (face.gate.passed, face.gate.reasons, face.quality)
