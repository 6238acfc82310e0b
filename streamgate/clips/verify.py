"""Scoring every frame of a stretch of video, so that a clip holds what it promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np

from streamgate.clips.windows import Seen, Window, face_at
from streamgate.frames import Candidate, Face, Frame
from streamgate.gate import Gate
from streamgate.scoring.faces import FaceScorer
from streamgate.scoring.steps import no_floor, run_together
from streamgate.scoring.whole import WholeScorer
from streamgate.sources.base import Source
from streamgate.tracking.overlap import square

_TOGETHER = 8
"""Frames scored at once; of each only a region around the face is held."""
_MARGIN = 0.75


def frame_scorer(gate: Gate) -> FaceScorer:
    """What scores faces in single frames exactly as `run` scores the candidates of its cascade."""
    config = gate.config.model_copy(
        update={
            "output": gate.config.output.model_copy(update={"crops": ("ffhq",), "format": "png"}),
            # Who talks opens the mouth: a clip asks for no face at rest.
            "keep": gate.config.keep.model_copy(update={"expression": "any"}),
        }
    )
    return WholeScorer(gate.follow(config, "clips"))


def score_window(scorer: FaceScorer, source: Source, seen: Sequence[Seen], window: Window) -> list[Seen]:
    """Every frame of `source` in the window with the face of the track `seen`, scored.

    Faces are looked for near where the track has them. A frame in which the face is not found has failed. Raises
    SourceError.
    """
    found: list[Seen] = []
    frames = _regions(source, seen, window)
    while batch := list(islice(frames, _TOGETHER)):
        candidates = [
            Candidate(0, frame.pts_seconds, face, interpolated=True, spoiled=frame.spoiled)
            for frame, face in batch
            if face is not None
        ]
        pictures = [frame.picture for frame, face in batch if face is not None]
        run_together(
            [
                scorer.score(candidate, picture, no_floor, full=True)
                for candidate, picture in zip(candidates, pictures, strict=True)
            ],
            scorer.context.infer,
        )
        scored = {candidate.pts_seconds: candidate for candidate in candidates}
        for frame, face in batch:
            candidate = scored.get(frame.pts_seconds)
            passed = candidate is not None and candidate.gate.passed
            known = candidate.face if candidate is not None else face or seen[0].face
            quality = candidate.quality if candidate is not None and passed else None
            found.append(Seen(frame.pts_seconds, known, not passed, quality))
    return found


def _regions(source: Source, seen: Sequence[Seen], window: Window) -> Iterator[tuple[Frame, Face | None]]:
    """The frames of the window in order, each with its face and a copy of the pixels around that."""
    with closing(source.frames_from(window.start)) as frames:
        for frame in frames:
            if frame.pts_seconds >= window.end - 1e-9:
                return
            face = face_at(seen, frame.pts_seconds)
            box = np.array([0, 0, 1, 1]) if face is None else square(face.box, _MARGIN)
            yield Frame(frame.region(box), frame.pts_seconds, corrupt=frame.corrupt), face
            del frame


def merged(seen: Sequence[Seen], checked: Sequence[Seen]) -> list[Seen]:
    """`seen` with what is known for sure now in place of what was, by time."""
    by_time = {round(one.pts_seconds, 6): one for one in seen}
    for one in checked:
        before = by_time.get(round(one.pts_seconds, 6))
        face = one.face if before is None or not one.failed else before.face
        by_time[round(one.pts_seconds, 6)] = replace(one, face=face)
    return [by_time[time] for time in sorted(by_time)]
