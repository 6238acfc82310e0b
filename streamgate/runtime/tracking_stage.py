"""The first stage after decoding: finds cuts, detects faces, tracks them and yields tracked frames.

Its decisions depend on time and pixels only, and it gets no feedback from the second stage (selection and scoring).
Therefore, the two stages can run concurrently, and results do not depend on their speed. For every frame, this stage
tells decoding what may be skipped (see `decode_hints`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from streamgate.config import Config
from streamgate.faces import Face
from streamgate.frames import Array, Frame
from streamgate.measures.size import shorter_side
from streamgate.networks.batcher import InferenceRequest
from streamgate.runtime.decode_hints import DecodeHints
from streamgate.runtime.rotation_check import SidewaysDetector
from streamgate.scoring.faces import enlarged
from streamgate.scoring.full_scorer import cards_in_use, face_region
from streamgate.scoring.lockstep import Infer
from streamgate.sources.base import Interest
from streamgate.tracking.bars import BarDetector
from streamgate.tracking.cuts import RETURN_S, Change, CutDetector
from streamgate.tracking.tracker import Track, Tracker
from streamgate.tracking.transitions import TransitionDetector

YOUNG_S = 0.5
"""Time, in seconds, for which a track is watched closely after its start."""
FAST = 1.0
"""Minimum speed, in face widths per second, of a track that is watched closely."""
WATCHED_SHARE = 0.12
"""Minimum share of a track's age for which it must have been watched to count as `KNOWN`."""
GROWN = 1.15
"""Factor by which the distance between the eyes must grow for a track to be worth watching again: the face has come
closer, or has turned to the camera."""
HELD_BYTES = 20 << 20
"""Memory limit for the regions of tracked frames for which it is not yet known whether they are part of a
transition."""


@dataclass(slots=True)
class TrackedFrame:
    """The result of tracking for one frame.

    Tracks are identified by their ids. Each `Frame` in `between` and `seen` has the frame's time and, instead of the
    whole picture, a copied region around one face. Tracks in `ended` have to be ended before the other fields are
    processed. `people` are the tracks that have proved to be more than noise; the list is empty if no detection ran.
    `until` is the end of the frame's display time. `turn` is the number of clockwise quarter turns by which the source
    must be rotated and read again; None while undecided. `transition` marks a frame between two shots; no track
    continues past the last frame of a transition. `unrelated` and `left_out`: see `Frame`.
    """

    pts_seconds: float
    until: float
    width: int
    height: int
    ended: list[int] = field(default_factory=list)
    between: list[tuple[int, Frame]] = field(default_factory=list)
    seen: list[tuple[int, Frame, Face]] = field(default_factory=list)
    unseen: list[int] = field(default_factory=list)
    people: list[int] = field(default_factory=list)
    faces_detected: int = 0
    turn: int | None = 0
    transition: bool = False
    unrelated: bool = False
    left_out: int = 0

    @property
    def regions(self) -> list[Frame]:
        """All regions of this frame."""
        return [region for _, region in self.between] + [region for _, region, _ in self.seen]


@dataclass(slots=True)
class _Watched:
    """How long a track was watched without gaps between detections, and the largest eye distance of its face."""

    last_pts: float
    seconds: float = 0.0
    inter_eye: float = 0.0


class TrackingStage:
    """Tracks the faces of one source.

    With `max_track_s`, a track that lasts longer is ended, and its face starts a new track. In a `live` stream, gradual
    transitions are not detected, because that would delay results until a transition is over. With `may_turn`, the
    first seconds are checked for sideways faces.
    """

    def __init__(
        self,
        config: Config,
        infer: Infer,
        *,
        max_track_s: float | None = None,
        live: bool = False,
        may_turn: bool = False,
    ) -> None:
        self._config = config
        self._cards = cards_in_use(config)
        self._infer = infer
        self._tracker = Tracker(config)
        self._cuts = CutDetector(config.advanced)
        self._transitions = None if live else TransitionDetector()
        self._held: deque[tuple[TrackedFrame, int]] = deque()
        self._held_bytes = 0
        self._left: list[Track] = []
        self._left_until = -np.inf
        self._bars = BarDetector()
        self._next_detection = -np.inf
        self._watched: dict[int, _Watched] = {}
        # The best shot of a pose may come at any time, so no track ever counts as `KNOWN` if `keep.poses` is `all`.
        # The more faces are kept, the longer a track is watched.
        self._watch_s = 0.0 if config.keep.poses == "all" else config.advanced.watch_s * config.keep.top_k
        self._max_track_s = max_track_s
        self._size: tuple[int, int] | None = None
        self._interest = Interest.LIVELY
        self.hints: DecodeHints | None = None
        """Hints for the source; None if the source must deliver every frame."""
        if not live and not config.exhaustive and (config.decoding.discard != "none" or config.decoding.max_skip_s > 0):
            self.hints = DecodeHints(config, self._faces)
        self._sideways: SidewaysDetector | None = None
        if may_turn:
            self._sideways = SidewaysDetector(self._detected, config.advanced.high_score)

    @property
    def turn(self) -> int | None:
        """See `TrackedFrame.turn`."""
        return 0 if self._sideways is None else self._sideways.quarters

    def tracked_frames(self, frames: Iterable[Frame]) -> Iterator[TrackedFrame]:
        """Yield one tracked frame per frame, in order; tracks that are open at the end are not reported as ended."""
        coming = Peekable(frames)
        for frame in coming:
            until = frame.pts_seconds + frame.duration_seconds
            tracked = TrackedFrame(
                frame.pts_seconds, until, frame.width, frame.height, unrelated=frame.unrelated, left_out=frame.left_out
            )
            # Boxes from a frame of another size are meaningless in this frame.
            resized = self._size not in (None, (frame.width, frame.height))
            self._size = frame.width, frame.height
            change = Change.CUT if frame.unrelated else self._cuts.look(frame, partial(self._following, frame, coming))
            new_shot = change is not Change.NONE or resized
            frame.shown = self._bars.shown(frame, new_shot=new_shot)
            self._change_shots(change, tracked, for_good=frame.unrelated or resized)
            if new_shot:
                self._next_detection = -np.inf
            if self._config.exhaustive or frame.unrelated or frame.pts_seconds >= self._next_detection:
                self._detect(frame, tracked)
            else:
                self._interpolate(frame, tracked)
            tracked.turn = self.turn
            if self.hints is not None and not coming.peeked:
                self.hints.note(frame.pts_seconds, self._interest)
            yield from self._settled(tracked, new_shot, unrelated=frame.unrelated)
        if self._transitions is not None:
            yield from self._release(self._transitions.finish())
        if self._sideways is not None:
            self._sideways.conclude()

    def _following(self, frame: Frame, coming: Peekable) -> Frame | None:
        """The frame after `frame`; None for a stream.

        The hint for `frame` is given before the next frame is read, because the source may be waiting for that hint.
        """
        if self._transitions is None:
            return None
        if self.hints is not None:
            self.hints.note(frame.pts_seconds, Interest.LIVELY)
        return coming.peek()

    def _change_shots(self, change: Change, tracked: TrackedFrame, *, for_good: bool) -> None:
        """End the tracks of a shot that is over; after a cut, only once that shot can no longer return."""
        gone: list[Track] = []
        if change is Change.RETURN and not for_good:
            gone = self._tracker.flush()
            self._tracker.restore(self._left)
            self._left = []
        elif for_good or (self._left and tracked.pts_seconds > self._left_until):
            gone, self._left = self._left, []
        if for_good or change is Change.CUT:
            tracks = self._tracker.flush()
            if for_good or self._left:
                gone += tracks
            else:
                self._left, self._left_until = tracks, tracked.pts_seconds + RETURN_S
                tracked.unseen = [track.track_id for track in tracks]
        tracked.ended += [track.track_id for track in gone]

    def _settled(self, tracked: TrackedFrame, new_shot: bool, *, unrelated: bool) -> Iterator[TrackedFrame]:
        """Yield the tracked frames for which it is now known whether they are part of a transition."""
        grid = self._cuts.grid
        if self._transitions is None or unrelated or grid is None or not (self._held or tracked.regions):
            # Without faces, no region has to be marked as part of a transition.
            yield tracked
            return
        nbytes = sum(region.picture.nbytes for region in tracked.regions)
        self._held.append((tracked, nbytes))
        self._held_bytes += nbytes
        yield from self._release(self._transitions.add(tracked.pts_seconds, grid, new_shot=new_shot))
        while self._held_bytes > HELD_BYTES and self._held:
            yield from self._release(self._transitions.release())

    def _release(self, inside: Sequence[bool]) -> Iterator[TrackedFrame]:
        for transition in inside:
            tracked, nbytes = self._held.popleft()
            self._held_bytes -= nbytes
            tracked.transition = transition
            for region in tracked.regions:
                region.transition = transition
            yield tracked

    def _faces(self, frame: Frame) -> list[Face]:
        thumbnail = frame.thumbnail(self._detector_side(frame))
        (found,) = self._detected([thumbnail])
        return enlarged(found, thumbnail, frame.picture)

    def _detected(self, pictures: Sequence[Array]) -> list[list[Face]]:
        return self._infer([InferenceRequest("detector", picture) for picture in pictures])

    def _detect(self, frame: Frame, tracked: TrackedFrame) -> None:
        known = self.hints.looked(frame.pts_seconds) if self.hints is not None else None
        faces: Sequence[Face] = self._faces(frame) if known is None else known
        if self._sideways is not None:
            self._sideways.look(frame, faces, self._detector_side(frame))
        tracked.faces_detected = sum(face.score >= self._config.advanced.high_score for face in faces)
        if self._max_track_s is not None:
            expired = self._tracker.expire(frame.pts_seconds - self._max_track_s)
            tracked.ended += [track.track_id for track in expired]
        tracked.ended += [track.track_id for track in self._tracker.update(frame.pts_seconds, faces)]
        for track in self._tracker.tracks:
            if track.missed:
                tracked.unseen.append(track.track_id)
                continue
            # Faces in unrelated pictures cannot be detected again, so a single detection must be enough.
            track.confident = track.confident or (frame.unrelated and track.detections == 1)
            tracked.seen.append((track.track_id, self._region(frame, track.face.box), track.face))
        # While the previous shot may still return, new tracks are not listed yet.
        tracked.people = [track.track_id for track in self._tracker.tracks if track.confident and not self._left]
        smallest = self._smallest(frame)
        # A face that is too small to be kept does not have to be watched closely.
        tracks = [track for track in self._tracker.tracks if shorter_side(track.face.box) >= smallest]
        lively = any(
            track.missed or track.last_pts - track.first_pts < YOUNG_S or track.motion.speed > FAST
            for track in tracks
        )
        self._watched = {one.track_id: self._watched.get(one.track_id) or _Watched(frame.pts_seconds) for one in tracks}
        well_known = [self._is_known(track, self._watched[track.track_id], frame.pts_seconds) for track in tracks]
        self._next_detection = frame.pts_seconds + self._interval(lively) - 1e-6
        # A face whose score is too low to start a track may start a track soon.
        nothing = not self._tracker.tracks and not tracked.faces_detected
        steady = bool(self._tracker.tracks) and not lively
        if self._sideways is not None and self._sideways.suspects:
            nothing = steady = False
        followed = Interest.KNOWN if all(well_known) and self._watch_s else Interest.STEADY
        self._interest = Interest.EMPTY if nothing else followed if steady else Interest.LIVELY

    def _is_known(self, track: Track, watched: _Watched, pts_seconds: float) -> bool:
        """Update `watched`; returns whether the track was watched for long enough and its face is not much larger now
        than while it was watched."""
        gap, watched.last_pts = pts_seconds - watched.last_pts, pts_seconds
        if gap <= 1.5 * self._config.detection.interval_s:
            watched.seconds += gap
            watched.inter_eye = max(watched.inter_eye, track.face.inter_eye)
        elif track.face.inter_eye > GROWN * watched.inter_eye:
            return False
        needed = max(self._watch_s, WATCHED_SHARE * (pts_seconds - track.first_pts))
        return watched.seconds >= needed

    def _interpolate(self, frame: Frame, tracked: TrackedFrame) -> None:
        """Keep the regions of large enough faces until the next detection gives their exact positions."""
        smallest = self._smallest(frame)
        for track in self._tracker.tracks:
            box = track.motion.predict(frame.pts_seconds)
            if shorter_side(box) >= smallest:
                tracked.between.append((track.track_id, self._region(frame, box)))

    def _smallest(self, frame: Frame) -> float:
        """Minimum length in pixels of the shorter box side of a face that is, or may soon become, large enough to be
        kept."""
        return 0.8 * self._config.smallest_face_px(frame.width, frame.height)

    def _region(self, frame: Frame, box: Array) -> Frame:
        """The frame, reduced to a copy of the pixels around `box`: a square, because crops are rotated squares."""
        kept = face_region(box, self._config.advanced.region_margin, self._cards, frame.picture)
        return replace(frame, picture=frame.region(kept))

    def _detector_side(self, frame: Frame) -> int:
        """The longer side of the detector's input, large enough to find faces of the minimum size."""
        config = self._config.advanced
        longer = max(frame.width, frame.height)
        needed = longer * config.face_px / self._config.smallest_face_px(frame.width, frame.height)
        return int(min(max(needed, config.min_long_side), config.max_long_side, longer))

    def _interval(self, lively: bool) -> float:
        """Seconds until the next detection."""
        if not self._tracker.tracks:
            return self._config.advanced.empty_interval_s
        return self._config.advanced.dense_interval_s if lively else self._config.detection.interval_s


class Peekable:
    """An iterator of frames whose next frame can be examined in advance."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = iter(frames)
        self._next: Frame | None = None
        self.peeked = False
        """Whether the frame after the current frame was examined."""

    def __iter__(self) -> Iterator[Frame]:
        while True:
            self.peeked = False
            frame, self._next = self._next or next(self._frames, None), None
            if frame is None:
                return
            yield frame
            del frame

    def peek(self) -> Frame | None:
        """The next frame, which stays in the iterator; None at the end."""
        self.peeked = True
        if self._next is None:
            self._next = next(self._frames, None)
        return self._next
