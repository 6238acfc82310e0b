"""Scoring every frame of a stretch of video, so that a clip holds what it promises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

import cv2
import numpy as np

from streamgate.clips.windows import SeenFace, Window, face_at
from streamgate.config import Config
from streamgate.frames import Array, Candidate, Face, Frame, Measure, Pose
from streamgate.gate import Gate
from streamgate.measures.size import shorter_side
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.faces import FaceScorer, enlarged
from streamgate.scoring.full_scorer import FullScorer, cards_in_use, face_region
from streamgate.scoring.lockstep import no_floor, run_in_lockstep
from streamgate.sources.base import Source
from streamgate.tracking.overlap import grown

NO_FACE = "no_face"
"""The reason of a frame in which the track's face was not found."""
_TOGETHER = 8
"""Frames scored at once; of each only a region around the face is held."""
_MARGIN = 0.75
_BESIDE = 1 / 3
"""Other faces count from this share of the face's size on."""
_FACE_PX = 48
"""Pixels that the face gets in the picture in which others are looked for."""
_THUMBNAIL = (160, 640)
_COUNT_S = 0.2
"""So often the faces of a frame are counted; those between have as many."""
_SURE = 0.6
"""Detection score from which on something is a face."""
_SHIFT_SIDE = 128
_HANNING = cv2.createHanningWindow((_SHIFT_SIDE, _SHIFT_SIDE), cv2.CV_32F)


@dataclass(frozen=True, slots=True)
class ScoredFrame:
    """One frame of a stretch, with the track's face in it.

    Attributes:
        face: None where it was not found.
        reasons: why the frame fails its limits; empty where it does not.
        faces: how many faces it shows, those from a third of this one's size on, counted five times a second.
        shift: by how much the picture around the faces moved since the frame before, as shares of its width and height.
    """

    pts_seconds: float
    face: Face | None
    reasons: tuple[str, ...]
    quality: float | None = None
    pose: Pose | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict)
    faces: int = 1
    shift: tuple[float, float] = (0.0, 0.0)


def frame_scorer(gate: Gate, config: Config) -> FaceScorer:
    """What scores faces in single frames exactly as `run` scores the candidates of its cascade, by other limits."""
    output = config.output.model_copy(update={"crops": ("ffhq",), "format": "png"})
    return FullScorer(gate.follow(config.model_copy(update={"output": output}), "clips"))


def score_frames(
    scorer: FaceScorer, source: Source, seen: Sequence[SeenFace], window: Window, usual: Mapping[str, float]
) -> Iterator[ScoredFrame]:
    """Every frame of `source` in the window with the face of the track `seen`, scored, in order of time.

    Faces are looked for near where the track has them. `usual` is what is usual for the person, see `Candidate.usual`.
    Raises SourceError.
    """
    frames = _frames_with_faces(scorer, source, seen, window)
    while batch := list(islice(frames, _TOGETHER)):
        candidates = [
            Candidate(
                0, entry.frame.pts_seconds, entry.face, interpolated=True, spoiled=entry.frame.spoiled, usual=usual
            )
            for entry in batch
            if entry.face is not None
        ]
        pictures = [entry.frame.picture for entry in batch if entry.face is not None]
        run_in_lockstep(
            [
                scorer.score(candidate, picture, no_floor, full=True)
                for candidate, picture in zip(candidates, pictures, strict=True)
            ],
            scorer.context.infer,
        )
        scored = {candidate.pts_seconds: candidate for candidate in candidates}
        for entry in batch:
            yield _concluded(entry, scored.get(entry.frame.pts_seconds))


@dataclass(slots=True)
class _FrameFaces:
    frame: Frame
    face: Face | None
    faces: int
    shift: tuple[float, float]


def _concluded(entry: _FrameFaces, candidate: Candidate | None) -> ScoredFrame:
    pts = entry.frame.pts_seconds
    if candidate is None:
        return ScoredFrame(pts, None, (NO_FACE,), faces=entry.faces, shift=entry.shift)
    gate = candidate.gate
    reasons = gate.reasons or (() if gate.passed else (NO_FACE,))
    return ScoredFrame(
        pts, candidate.face, reasons, candidate.quality, candidate.evidence.pose, candidate.measures, entry.faces,
        entry.shift,
    )  # fmt: skip


def _frames_with_faces(
    scorer: FaceScorer, source: Source, seen: Sequence[SeenFace], window: Window
) -> Iterator[_FrameFaces]:
    """The frames of the window in order, each with its face, the pixels around that, and what is beside it."""
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
            yield _FrameFaces(Frame(frame.region(box), frame.pts_seconds, corrupt=frame.corrupt), face, faces, shift)
            del frame


def _side(frame: Frame, face: Face | None) -> int:
    """The longer side of a picture in which faces as large as this one are found."""
    longer = max(frame.width, frame.height)
    side = 0 if face is None else int(longer * _FACE_PX / max(1.0, shorter_side(face.box)))
    return min(longer, max(_THUMBNAIL[0], min(_THUMBNAIL[1], side)))


def _around(thumbnail: Array, frame: Frame, faces: Sequence[Face]) -> Array:
    """What is to be seen beside the faces, small and grey, float32."""
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
    """By how much a picture moved, as shares of its width and height; nothing where that cannot be told."""
    (x, y), response = cv2.phaseCorrelate(before, now, _HANNING)
    if not np.isfinite([x, y]).all() or response < 0.05:
        return 0.0, 0.0
    return float(x) / _SHIFT_SIDE, float(y) / _SHIFT_SIDE


def merged(seen: Sequence[SeenFace], checked: Sequence[ScoredFrame], bad: Sequence[bool]) -> list[SeenFace]:
    """`seen` with what is known for sure now in place of what was, by time; `bad` are the frames that count as such."""
    by_time = {round(one.pts_seconds, 6): one for one in seen}
    known = [one.face for one in seen]
    for one, fails in zip(checked, bad, strict=True):
        time = round(one.pts_seconds, 6)
        before = by_time.get(time)
        face = one.face or (before.face if before is not None else face_at(seen, one.pts_seconds)) or known[0]
        by_time[time] = SeenFace(one.pts_seconds, face, fails, None if fails else one.quality, checked=True)
    return [by_time[time] for time in sorted(by_time)]
