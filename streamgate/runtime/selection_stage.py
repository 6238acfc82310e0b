"""The second stage after decoding: selects candidates, scores them and keeps the best shots. Its input is the tracked
frames, in order of time. As in the first stage, decisions depend only on time and pixels, never on processing speed, so
results are identical from run to run even if the load on the machine differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from streamgate.faces import STILL, Face
from streamgate.people.reference import OTHER_PERSON, Reference
from streamgate.runtime.best_shots import best_shot
from streamgate.runtime.stillness import StillnessDetector
from streamgate.runtime.tracking_stage import TrackedFrame
from streamgate.scoring.context import ScoringContext
from streamgate.scoring.evaluator import SMALL
from streamgate.scoring.full_scorer import FullScorer
from streamgate.scoring.lockstep import run_in_lockstep
from streamgate.selection.candidates import TrackSelector
from streamgate.selection.keeper import Ranked
from streamgate.selection.near_misses import distance_from_passing
from streamgate.sinks.base import SourceInfo
from streamgate.tracks import BestShot, Candidate, TrackEnd, TrackInfo


@dataclass(slots=True)
class SelectionCounts:
    """Counts of one source so far."""

    frames: int = 0
    """Number of frames of the video, including those that were not decoded because they were not needed."""
    frames_decoded: int = 0
    faces_detected: int = 0
    faces_scored: int = 0
    tracks: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    largest_small: Face | None = None
    """The face with the most pixels between the eyes among those that were too small."""


class SelectionStage:
    """Turns the tracked frames of one source into ended tracks.

    Args:
        emit_candidate: called with every evaluated face, in order of time within its track.
        near_misses: maximum number of near misses returned with an ended track.
        reference: only faces of this person are kept; None to keep faces of all people.
    """

    def __init__(
        self,
        context: ScoringContext,
        source: SourceInfo,
        emit_candidate: Callable[[Candidate], None],
        *,
        epoch: str = "0",
        near_misses: int = 0,
        reference: Reference | None = None,
    ) -> None:
        self.counts = SelectionCounts()
        self._context = context
        self._scorer = FullScorer(context)
        self._source = source
        self._emit_candidate = emit_candidate
        self._epoch = epoch
        self._near_misses = near_misses
        self._reference = reference
        self._selectors: dict[int, TrackSelector] = {}
        self._ids: dict[int, int] = {}
        self._next_id = 1
        self._in_transition = False
        self._rejected: dict[int, Counter[str]] = {}
        self._nearest: dict[int, Candidate] = {}
        self._people: set[int] = set()
        self.judged: list[int] = []
        """Ids of the tracks whose faces were scored with the last frame; the results of other tracks have not
        changed."""
        self._still = StillnessDetector()

    def take(self, tracked: TrackedFrame) -> Iterator[TrackEnd]:
        """Process the next tracked frame; yields the tracks that end with it."""
        self.counts.frames += 1 + tracked.left_out
        self.counts.frames_decoded += 1
        self.counts.faces_detected += tracked.faces_detected
        if self._in_transition and not tracked.transition:
            yield from self.finish()
        self._in_transition = tracked.transition
        yield from self.end([self._ids.pop(followed) for followed in tracked.ended if followed in self._ids])
        for followed, region in tracked.between:
            if followed in self._ids:
                self._selectors[self._ids[followed]].observed.between(region)
        for followed, region, face in tracked.seen:
            self._selector(followed).detected(region, face)
        for followed in tracked.unseen:
            if followed in self._ids:
                self._selectors[self._ids[followed]].observed.unseen()
        people = [self._ids[followed] for followed in tracked.people if followed in self._ids]
        self._people.update(people)
        if len(self._people) > 1 and not tracked.transition:
            seen = {
                self._ids[followed]: (region, face)
                for followed, region, face in tracked.seen
                if self._ids[followed] in self._people and not region.unrelated
            }
            self._still.note(tracked.pts_seconds, seen)
        ready = [self._selectors[track_id] for track_id in people if self._selectors[track_id].ready()]
        run_in_lockstep([selector.score_window() for selector in ready], self._context.infer)
        for selector in ready:
            self._drain(selector)
            if selector.strangers:
                new, old = self._part(selector), selector.track_id
                self._ids = {key: new if track_id == old else track_id for key, track_id in self._ids.items()}
                yield from self.end([selector.track_id])
        self.judged = [selector.track_id for selector in ready]

    @property
    def open_tracks(self) -> list[int]:
        """Ids of the open tracks, except those that may still turn out to be noise."""
        return sorted(self._people & self._selectors.keys())

    def standing(self, track_id: int) -> BestShot | None:
        """The best shot so far of an open track; None if no face has passed the gate."""
        selector = self._selectors[track_id]
        selector.settle()
        best = next(iter(selector.keeper.finish()), None)
        if best is None or not best.candidate.gate.passed:
            return None
        return self._shot(self._info(selector), best)

    def usual(self, track_id: int) -> dict[str, float]:
        """The current reference values of the person in an open track, by measure."""
        return dict(self._selectors[track_id].reference.usual)

    def contenders(self, track_id: int) -> list[float]:
        """Times (pts, in seconds) of the faces of an open track that may still be kept; [] for an ended track."""
        selector = self._selectors.get(track_id)
        return [] if selector is None else [candidate.pts_seconds for candidate in selector.contenders]

    def finish(self) -> Iterator[TrackEnd]:
        """End all tracks, because the source or a shot is over, or because the run stops."""
        self._ids.clear()
        yield from self.end(sorted(self._selectors))

    def end(self, track_ids: list[int]) -> Iterator[TrackEnd]:
        """Score the remaining faces of the given tracks together, then yield the tracks; noise is dropped."""
        selectors = [self._selectors.pop(track_id) for track_id in track_ids]
        people = [selector for selector in selectors if selector.track_id in self._people]
        run_in_lockstep([selector.score_window(final=True) for selector in people], self._context.infer)
        parted: list[int] = []
        for selector in people:
            self._drain(selector)
            if selector.strangers:
                parted.append(self._part(selector))
            yield self._ended(selector)
        self._still.forget(track_ids)
        for track_id in track_ids:
            self._rejected.pop(track_id)
            self._nearest.pop(track_id, None)
            self._people.discard(track_id)
        if parted:
            yield from self.end(parted)

    def _part(self, selector: TrackSelector) -> int:
        """Open a new track for the faces that do not show the person of the selector's track; returns its id."""
        new = self._open()
        new.adopt(selector.strangers)
        selector.strangers = []
        self._people.add(new.track_id)
        return new.track_id

    def _selector(self, followed: int) -> TrackSelector:
        """The selector for a track id of the tracking stage; if there is none, a track with a new id is opened."""
        if followed not in self._ids:
            self._ids[followed] = self._open().track_id
        return self._selectors[self._ids[followed]]

    def _open(self) -> TrackSelector:
        track_id, self._next_id = self._next_id, self._next_id + 1
        selector = TrackSelector(track_id, self._context.config, self._scorer, near_misses=self._near_misses)
        self._selectors[track_id], self._rejected[track_id] = selector, Counter()
        return selector

    def _ended(self, selector: TrackSelector) -> TrackEnd:
        track = self._info(selector)
        template = selector.template.mean() if selector.template is not None else None
        if template is not None and self._context.cohort is not None:
            template = self._context.cohort.add_offset(template)
        kept = selector.keeper.finish()
        self.counts.tracks += 1
        self.counts.faces_scored += selector.frames_scored
        nearest = self._nearest.get(selector.track_id)
        reasons = nearest.gate.reasons if nearest is not None else ()
        rejected = dict(self._rejected[selector.track_id])
        source_id = self._source.source_id
        if self._reference is not None and not self._reference.shows(template):
            # Neither pictures nor templates of other persons are passed on.
            return TrackEnd(track, (), rejected, (OTHER_PERSON,) if kept else reasons, source_id, self._epoch)
        misses, reference = tuple(selector.near_misses.finish()), dict(selector.reference.usual)
        if track.still and not self._context.config.keep.stills:
            return TrackEnd(
                track, (), rejected, (STILL,) if kept else reasons, source_id, self._epoch, misses, None, reference
            )
        shots = tuple(self._shot(track, ranked) for ranked in kept)
        self.counts.kept += len(shots)
        return TrackEnd(
            track, shots, rejected, () if shots else reasons, source_id, self._epoch, misses, template, reference
        )

    def _info(self, selector: TrackSelector) -> TrackInfo:
        seen = selector.observed
        still = self._still.is_still(selector.track_id)
        return TrackInfo(
            selector.track_id, seen.first_pts, seen.last_pts, seen.frames_seen, selector.frames_scored, still
        )

    def _shot(self, track: TrackInfo, ranked: Ranked) -> BestShot:
        return best_shot(
            ranked, track, self._source, self._context.config, self._context.evaluator.calibration_id, self._epoch
        )

    def _drain(self, selector: TrackSelector) -> None:
        for candidate in selector.drain():
            self._rejected[selector.track_id].update(candidate.gate.reasons)
            if candidate.gate.reasons:
                before = self._nearest.get(selector.track_id)
                if before is None or distance_from_passing(candidate) < distance_from_passing(before):
                    self._nearest[selector.track_id] = candidate
            self.counts.rejected.update(candidate.gate.reasons)
            largest = self.counts.largest_small
            if SMALL in candidate.gate.reasons and (largest is None or candidate.face.inter_eye > largest.inter_eye):
                self.counts.largest_small = candidate.face
            self._emit_candidate(candidate)
