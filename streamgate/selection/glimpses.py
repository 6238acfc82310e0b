"""A track's face in one frame, on its way to being scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgate.frames import Candidate, Face, Frame


@dataclass(slots=True, eq=False)
class Glimpse:
    """A track's face in one frame: a copied region, and (once two detections enclose it) a candidate."""

    frame: Frame
    """Time and index of the frame; its picture is the copied region."""
    candidate: Candidate | None = None
    promise: float = 0.0
    glanced: bool = False
    scored: bool = False
    """The networks have said all they were asked; its quality stands."""
    offered: bool = False
    recognised: bool = False
    """Its embedding is part of the track's template."""

    @property
    def quality(self) -> float:
        """The candidate's quality, 0..100; -1.0 where it has none."""
        quality = self.candidate.quality if self.candidate else None
        return -1.0 if quality is None else quality

    @property
    def passed(self) -> bool:
        """Whether nothing that is known of it shuts the gate."""
        return self.candidate is not None and self.candidate.gate.passed


def interpolate(before: Candidate, after: Candidate, pts_seconds: float) -> Face:
    """The face at a time between two detections, linear in time."""
    span = after.pts_seconds - before.pts_seconds
    share = (pts_seconds - before.pts_seconds) / span if span > 0 else 0.0
    first, second = before.face, after.face
    return Face(
        (first.box + (second.box - first.box) * share).astype(np.float32),
        (first.landmarks + (second.landmarks - first.landmarks) * share).astype(np.float32),
        min(first.score, second.score),
    )
