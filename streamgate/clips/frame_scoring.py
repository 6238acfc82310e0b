"""Scores every frame of a time window, to find out which frames of a clip fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice

import cv2
import numpy as np

from streamgate.clips.windows import SeenFace, Window, face_at
from streamgate.config import Config
from streamgate.engine import Engine
from streamgate.faces import Face, Measure, Pose
from streamgate.frames import Array, Frame
from streamgate.measures.size import shorter_side
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.faces import FaceScorer, enlarged
from streamgate.scoring.full_scorer import FullScorer, cards_in_use, face_region
from streamgate.scoring.lockstep import no_floor, run_in_lockstep
from streamgate.sources.base import Source
from streamgate.tracking.overlap import grown
from streamgate.tracks import Candidate

NO_FACE = "no_face"
"""The reason for a frame in which the track's face was not found."""
_TOGETHER = 8
"""Number of frames that are scored together. Of each frame, only the region around the face is kept in memory."""
_MARGIN = 0.75
_BESIDE = 1 / 3
"""Minimum size of the other faces that are counted, as a share of the size of the track's face."""
_FACE_PX = 48
"""Size, in pixels, of the track's face in the thumbnail in which other faces are detected."""
_THUMBNAIL = (160, 640)
_COUNT_S = 0.2
"""Interval at which faces are detected for counting; frames in between reuse the last detections."""
_SURE = 0.6
"""Minimum detection score of a face."""
_SHIFT_SIDE = 128
_HANNING = cv2.createHanningWindow((_SHIFT_SIDE, _SHIFT_SIDE), cv2.CV_32F)


@dataclass(frozen=True, slots=True)
class ScoredFrame:
    """One frame of a window, with the track's face in it.

    Attributes:
        face: the track's face; None if it was not found in this frame.
        reasons: the reasons why the frame fails; empty if it passes.
        faces: number of faces in the frame that are at least a third as large as this face, counted five times per
            second.
        shift: motion of the background since the previous frame, as shares of the frame's width and height.
    """

    pts_seconds: float
    face: Face | None
    reasons: tuple[str, ...]
    quality: float | None = None
    pose: Pose | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    faces: int = 1
    shift: tuple[float, float] = (0.0, 0.0)


def frame_scorer(engine: Engine, config: Config) -> FaceScorer:
    """A scorer for faces in individual frames that works exactly as in `run`, but with the limits of `config`."""
    output = config.output.model_copy(update={"crops": ("ffhq",), "format": "png"})
    return FullScorer(engine.stream_context(config.model_copy(update={"output": output}), "clips"))


def score_frames(
    scorer: FaceScorer, source: Source, seen: Sequence[SeenFace], window: Window, usual: Mapping[str, float]
) -> Iterator[ScoredFrame]:
    """Yield every frame of `source` in the window, in order of time, with the scored face of the track `seen`.

    The face is searched for at the position of the track at the time of the frame. `usual` are the typical values of
    the person, see `Candidate.usual`. Raises SourceError.
    """
    frames = _frames_with_faces(scorer, source, seen, window)
    while batch := list(islice(frames, _TOGETHER)):
        candidates = [
            Candidate(
                one.face,
                track_id=0,
                pts_seconds=one.pts_seconds,
                interpolated=True,
                spoiled=frame.spoiled,
                usual=usual,
            )
            for frame, one in batch
            if one.face is not None
        ]
        pictures = [frame.picture for frame, one in batch if one.face is not None]
        run_in_lockstep(
            [
                scorer.score(candidate, picture, no_floor, full=True)
                for candidate, picture in zip(candidates, pictures, strict=True)
            ],
            scorer.context.infer,
        )
        scored = {candidate.pts_seconds: candidate for candidate in candidates}
        for _, one in batch:
            candidate = scored.get(one.pts_seconds)
            yield one if candidate is None else _concluded(one, candidate)


def _concluded(one: ScoredFrame, candidate: Candidate) -> ScoredFrame:
    gate = candidate.gate
    return replace(
        one,
        face=candidate.face,
        reasons=gate.reasons or (() if gate.passed else (NO_FACE,)),
        quality=candidate.quality,
        pose=candidate.evidence.pose,
        measures=candidate.measures,
    )


def _frames_with_faces(
    scorer: FaceScorer, source: Source, seen: Sequence[SeenFace], window: Window
) -> Iterator[tuple[Frame, ScoredFrame]]:
    """Yield the frames of the window in order, cut to the region around the face, each with its unscored face."""
    before: Array | None = None
    counted = -np.inf
    others: list[Face] = []
    cards = cards_in_use(scorer.context.config)
    with closing(source.frames_from(window.start)) as frames:
        for frame in frames:
            if frame.pts_seconds >= window.end - 1e-9:
                return
            face = face_at(seen, frame.pts_seconds)
            box = np.array([0, 0, 1, 1])
            if face is not None:
                box = face_region(face.box, _MARGIN, cards, frame.picture)
            thumbnail = frame.thumbnail(_side(frame, face))
            if frame.pts_seconds >= counted + _COUNT_S - 1e-6:
                counted = frame.pts_seconds
                (found,) = scorer.context.infer([InferenceRequest("detector", thumbnail)])
                others = enlarged([one for one in found if one.score >= _SURE], thumbnail, frame.picture)
            smallest = 0.0 if face is None else _BESIDE * shorter_side(face.box)
            faces = sum(shorter_side(one.box) >= smallest for one in others)
            around = _around(thumbnail, frame, others)
            shift = (0.0, 0.0) if before is None else _shift(before, around)
            before = around
            around_face = Frame(frame.region(box), frame.pts_seconds, corrupt=frame.corrupt)
            yield around_face, ScoredFrame(frame.pts_seconds, face, (NO_FACE,), faces=faces, shift=shift)
            del frame


def _side(frame: Frame, face: Face | None) -> int:
    """The longer side of a thumbnail in which faces of this size can be detected."""
    longer = max(frame.width, frame.height)
    side = 0 if face is None else int(longer * _FACE_PX / max(1.0, shorter_side(face.box)))
    return min(longer, max(_THUMBNAIL[0], min(_THUMBNAIL[1], side)))


def _around(thumbnail: Array, frame: Frame, faces: Sequence[Face]) -> Array:
    """The picture, scaled down and converted to grey, float32 (128, 128), with the faces masked."""
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SHIFT_SIDE, _SHIFT_SIDE), interpolation=cv2.INTER_AREA)
    around = np.asarray(small, np.float32)
    middle = float(around.mean())
    scale = np.array([_SHIFT_SIDE / frame.width, _SHIFT_SIDE / frame.height] * 2)
    for one in faces:
        x1, y1, x2, y2 = np.clip(grown(one.box[None], 0.3)[0] * scale, 0, _SHIFT_SIDE).astype(int)
        around[y1:y2, x1:x2] = middle
    return around


def _shift(before: Array, now: Array) -> tuple[float, float]:
    """How far the background moved from `before` to `now`, as shares of width and height; zero if this is unknown."""
    (x, y), response = cv2.phaseCorrelate(before, now, _HANNING)
    if not np.isfinite([x, y]).all() or response < 0.05:
        return 0.0, 0.0
    return float(x) / _SHIFT_SIDE, float(y) / _SHIFT_SIDE


def merged(seen: Sequence[SeenFace], checked: Sequence[ScoredFrame], bad: Sequence[bool]) -> list[SeenFace]:
    """Add the checked frames to `seen`, where they replace results for the same time; `bad` marks frames that fail."""
    by_time = {round(one.pts_seconds, 6): one for one in seen}
    known = [one.face for one in seen]
    for one, fails in zip(checked, bad, strict=True):
        time = round(one.pts_seconds, 6)
        before = by_time.get(time)
        face = one.face or (before.face if before is not None else face_at(seen, one.pts_seconds)) or known[0]
        by_time[time] = SeenFace(one.pts_seconds, face, fails, None if fails else one.quality, checked=True)
    return [by_time[time] for time in sorted(by_time)]
