"""The identity of a track: one embedding for all its faces, and whether that embedding is reliable.

Embeddings of small, dark and occluded faces are unreliable: they mainly encode that the picture is bad, so they
resemble each other regardless of the person. Such faces are left out or get a low weight.
"""

from __future__ import annotations

import math

import numpy as np

from streamgate.faces import Pose
from streamgate.frames import Array
from streamgate.tracks import Candidate, Template

_WEIGHTS = ("serfiq", "occlusion")
"""A face's weight is the product of the scalars of these measures; a measure that the run lacks is ignored. For yaw and
pitch, the factor is the squared cosine of the angle instead of the scalar, because a recognizer tolerates turns that
spoil a portrait."""

SURE_SERFIQ = 30.0
"""Faces with a lower SER-FIQ scalar are left out of a template, however lenient the gate is."""
SURE_INTER_EYE = 16.0
"""Faces with a smaller eye distance, in source pixels, are left out too; in the recognizer's crop, the eye distance is
35 px."""
SURE_WEIGHT = 0.25
SURE_AGREEMENT = 0.7
"""Minimum agreement of a track's embeddings. The agreement is about 0.67 if a track shows two people for half of the
time each, and about 0.55 for three people."""


class TemplateSum:
    """Accumulates the embeddings of one track; memory does not grow with the track. Not thread-safe."""

    def __init__(self) -> None:
        self._sum: Array | None = None
        self._weight = 0.0
        self._eyes = 0.0
        self._faces = 0

    def add(self, candidate: Candidate) -> None:
        """Add a face that has an embedding, unless the gate has a reason against the face or its quality is too low."""
        vector = candidate.evidence.embedding
        if vector is None or candidate.gate.reasons:
            return
        scalars = {name: one.scalar for name, one in candidate.measures.items()}
        serfiq = scalars.get("serfiq")
        if (serfiq is not None and serfiq < SURE_SERFIQ) or candidate.face.inter_eye < SURE_INTER_EYE:
            return
        length = float(np.linalg.norm(vector))
        if not (np.isfinite(length) and length > 0.0):
            return
        weight = 1.0 if candidate.evidence.pose is None else _facing(candidate.evidence.pose)
        for name in _WEIGHTS:
            scalar = scalars.get(name)
            weight *= 1.0 if scalar is None else scalar / 100.0
        unit = vector.astype(np.float64) * (weight / length)
        self._sum = unit if self._sum is None else self._sum + unit
        self._weight += weight
        self._eyes += weight * candidate.face.inter_eye
        self._faces += 1

    @property
    def faces(self) -> int:
        """Number of faces that were good enough to count."""
        return self._faces

    def mean(self) -> Template | None:
        """The template so far; None when no face was good enough."""
        if self._sum is None or self._weight <= 0.0:
            return None
        length = float(np.linalg.norm(self._sum))
        if length <= 0.0:
            return None
        return Template(
            vector=(self._sum / length).astype(np.float32),
            faces=self._faces,
            weight=self._weight / self._faces,
            agreement=min(1.0, length / self._weight),
            inter_eye=self._eyes / self._weight,
        )


def is_sure(template: Template) -> bool:
    """Whether the template is reliable enough to merge its track with others; if not, the track becomes a separate
    person."""
    return template.weight >= SURE_WEIGHT and template.agreement >= SURE_AGREEMENT


def _facing(pose: Pose) -> float:
    """1.0 for a head that faces the camera, decreasing to 0.0 for a profile."""
    return float(np.prod([max(0.0, math.cos(math.radians(angle))) ** 2 for angle in (pose.yaw, pose.pitch)]))
