"""One source from its first frame to its last: cuts, detection, tracks, candidates, best shots.

A state machine fed with frames in order. It decides by time and pixels alone, never by how fast anything ran,
so its results are the same run to run and whatever runs beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from streamgate.config import Config
from streamgate.frames import BestShot, Candidate, Face, Frame, Pose, TrackEnd, TrackInfo
from streamgate.runtime.scoring import FaceScorer, enlarged
from streamgate.selection.candidates import TrackSelector
from streamgate.selection.keeper import Ranked
from streamgate.selection.steps import Ask, Infer, run_together
from streamgate.tracking.cuts import CutDetector
from streamgate.tracking.tracker import Track, Tracker

YOUNG_S = 0.5
"""A track is watched closely for this long after its birth."""
FAST = 1.0
"""Face widths per second from which a track is watched closely."""


@dataclass(slots=True)
class AnalysisCounts:
    """Running figures of one source."""

    frames: int = 0
    cuts: int = 0
    detections_run: int = 0
    faces_detected: int = 0
    faces_scored: int = 0
    tracks: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


class Analysis:
    """Turns the frames of one source into ended tracks.

    Args:
        emit_candidate: called with every evaluated face, in order of time within its track.
        infer: runs networks, see `run_together`.
    """

    def __init__(
        self,
        config: Config,
        scorer: FaceScorer,
        infer: Infer,
        *,
        location: str,
        source_id: str,
        calibration_id: str,
        emit_candidate: Callable[[Candidate], None],
        epoch: str = "0",
    ) -> None:
        self.counts = AnalysisCounts()
        self._config = config
        self._scorer = scorer
        self._infer = infer
        self._location = location
        self._source_id = source_id
        self._calibration_id = calibration_id
        self._emit_candidate = emit_candidate
        self._epoch = epoch
        self._tracker = Tracker(config.tracking)
        self._cuts = CutDetector(config.tracking)
        self._selectors: dict[int, TrackSelector] = {}
        self._rejected: dict[int, Counter[str]] = {}
        self._near_misses: dict[int, Candidate] = {}
        self._next_detection = -np.inf

    def feed(self, frame: Frame) -> Iterator[TrackEnd]:
        """Take the next frame; yields the tracks that end with it."""
        self.counts.frames += 1
        if frame.unrelated or self._cuts.is_cut(frame):
            self.counts.cuts += 1
            yield from self.flush()
        if self._config.exhaustive or frame.unrelated or frame.pts_seconds >= self._next_detection:
            yield from self._detect(frame)
        else:
            self._between(frame)

    def flush(self) -> Iterator[TrackEnd]:
        """End every track: at a cut, at the end of the source, when the run stops."""
        self._next_detection = -np.inf
        yield from self._end(self._tracker.flush())

    def _detect(self, frame: Frame) -> Iterator[TrackEnd]:
        faces = self._find_faces(frame)
        update = self._tracker.update(frame.pts_seconds, faces)
        yield from self._end(update.lost)
        for track in update.born:
            self._selectors[track.track_id] = TrackSelector(track.track_id, self._config, self._scorer)
            self._rejected[track.track_id] = Counter()
            # A still picture shows each face once, so once must be enough there.
            track.confident = track.confident or frame.unrelated
        seen = {track.track_id for track, _ in update.seen} | {track.track_id for track in update.born}
        for track, face in [*update.seen, *((track, track.face) for track in update.born)]:
            self._selectors[track.track_id].detected(frame, face)
        for track in self._tracker.tracks:
            if track.track_id not in seen:
                self._selectors[track.track_id].unseen()
        ready = [
            self._selectors[track.track_id]
            for track in self._tracker.tracks
            if track.confident and self._selectors[track.track_id].ready()
        ]
        run_together([selector.judge() for selector in ready], self._infer)
        for selector in ready:
            self._drain(selector)
        self._next_detection = frame.pts_seconds + self._interval(seen) - 1e-6

    def _between(self, frame: Frame) -> None:
        """Keep the regions of faces worth it until the next detection tells where exactly they were."""
        smallest = 0.8 * self._config.gate.min_size_px(frame.width, frame.height)
        for track in self._tracker.tracks:
            box = track.motion.predict(frame.pts_seconds)
            if min(box[2] - box[0], box[3] - box[1]) >= smallest:
                self._selectors[track.track_id].between(frame, box)

    def _find_faces(self, frame: Frame) -> list[Face]:
        thumbnail = frame.thumbnail(self._detector_side(frame))
        (found,) = self._infer([Ask("detector", thumbnail)])
        self.counts.detections_run += 1
        self.counts.faces_detected += sum(face.score >= self._config.tracking.high_score for face in found)
        return enlarged(found, thumbnail, frame.picture)

    def _detector_side(self, frame: Frame) -> int:
        """The longer side of the detector's input: the smallest face asked for must stay findable."""
        config = self._config.detection
        longer = max(frame.width, frame.height)
        needed = longer * config.face_px / self._config.gate.min_size_px(frame.width, frame.height)
        return int(min(max(needed, config.min_long_side), config.max_long_side, longer))

    def _interval(self, seen: set[int]) -> float:
        """Seconds until the next detection."""
        config = self._config.detection
        tracks = self._tracker.tracks
        if not tracks:
            return config.empty_interval_s
        lively = any(
            track.track_id not in seen
            or track.last_pts - track.first_pts < YOUNG_S
            or track.motion.speed > FAST
            for track in tracks
        )
        return config.dense_interval_s if lively else config.interval_s

    def _end(self, tracks: list[Track]) -> Iterator[TrackEnd]:
        """Score what is left of the given tracks together, then hand them out by birth."""
        selectors = [(track, self._selectors.pop(track.track_id)) for track in tracks]
        people = [(track, selector) for track, selector in selectors if track.confident]
        run_together([selector.judge(final=True) for _, selector in people], self._infer)
        for track, selector in people:
            self._drain(selector)
            yield self._ended(track, selector)
        for track, _ in selectors:
            self._rejected.pop(track.track_id)

    def _ended(self, track: Track, selector: TrackSelector) -> TrackEnd:
        info = TrackInfo(
            track.track_id, track.first_pts, track.last_pts, selector.frames_seen, selector.frames_scored
        )
        ranked = selector.keeper.finish()
        shots = tuple(self._shot(info, one) for one in ranked)
        rejected = self._rejected[track.track_id]
        self.counts.tracks += 1
        self.counts.kept += len(shots)
        self.counts.faces_scored += selector.frames_scored
        nearest = self._near_misses.pop(track.track_id, None)
        reasons = nearest.gate.reasons if nearest is not None and not shots else ()
        return TrackEnd(info, shots, dict(rejected), reasons, self._source_id, self._epoch)

    def _shot(self, track: TrackInfo, ranked: Ranked) -> BestShot:
        candidate = ranked.candidate
        assert candidate.crop is not None
        pose: Pose | None = candidate.evidence.pose
        keeps_identity = self._config.identity.store != "none"
        return BestShot(
            image=candidate.crop,
            source=self._location,
            source_id=self._source_id,
            track=track,
            rank=ranked.rank,
            pts_seconds=candidate.pts_seconds,
            face=candidate.face,
            pose=pose,
            measures=candidate.measures,
            quality=candidate.quality,
            quality_smoothed=ranked.quality_smoothed,
            quality_context=ranked.quality_context,
            calibration_id=self._calibration_id,
            gate=candidate.gate,
            frame_index=candidate.frame_index,
            pts_estimated=candidate.pts_estimated,
            captured_at=candidate.captured_at,
            epoch=self._epoch,
            name=candidate.name,
            embedding=candidate.evidence.embedding if keeps_identity else None,
        )

    def _drain(self, selector: TrackSelector) -> None:
        for candidate in selector.drain():
            self._rejected[selector.track_id].update(candidate.gate.reasons)
            if candidate.gate.reasons:
                before = self._near_misses.get(selector.track_id)
                if before is None or _distance_from_passing(candidate) < _distance_from_passing(before):
                    self._near_misses[selector.track_id] = candidate
            self.counts.rejected.update(candidate.gate.reasons)
            self._emit_candidate(candidate)


def _distance_from_passing(candidate: Candidate) -> tuple[int, float]:
    """Orders candidates that did not pass: fewest reasons first, then the better looking ones."""
    return (len(candidate.gate.reasons), -(candidate.quality or 0.0))
