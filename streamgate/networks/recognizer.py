"""Face recognition: computes the embedding, and SER-FIQ's spread as a measure of its robustness, in one run.

The embedded recognizer also outputs head pose, the visible share of the face, and whether the eyes are open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgate.errors import WeightsError
from streamgate.frames import Array
from streamgate.networks.sessions import Session, check_pictures
from streamgate.weights.files import sha256_of

CROP_SIDE = 112
EXTRAS = ("pose", "visible", "eyes")
"""Outputs that a recognizer's graph may have in addition to embedding, spread and features."""


@dataclass(frozen=True, slots=True)
class RecognizerOutput:
    """Results for N faces; the batcher returns the result for one face, without the N axis.

    Attributes:
        embedding: float32 (N, D), not normalised.
        spread: float32 (N,), SER-FIQ's d in the closed form of docs/design.md 4.1; NaN if it is undefined (the
            embedding is zero, or a value overflowed), in which case the measure's status is `error`.
        features: float32 (N, K), input of the last affine layer, from which the sampled form is computed.
        pose: float32 (N, 3), yaw, pitch and roll in degrees relative to the aligned crop (`networks.pose`).
        visible: float32 (N,), share of the face that is not covered, 0..1.
        eyes: float32 (N,), probability that both eyes are open.

    `pose`, `visible` and `eyes` are None if the graph has no such output.
    """

    embedding: Array
    spread: Array
    features: Array
    pose: Array | None = None
    visible: Array | None = None
    eyes: Array | None = None

    def row(self, index: int) -> RecognizerOutput:
        """The values of one face, without the N axis."""
        extras = (None if rows is None else rows[index] for rows in (self.pose, self.visible, self.eyes))
        return RecognizerOutput(self.embedding[index], self.spread[index], self.features[index], *extras)


class Recognizer:
    """Runs the recognizer on ArcFace-aligned crops. Thread-safe."""

    def __init__(self, session: Session) -> None:
        session.need_outputs("embedding", "spread", "features")
        self._session = session

    def run(self, crops: Array) -> RecognizerOutput:
        """Run crops RGB uint8 (N, 112, 112, 3), aligned with `arcface_matrix`."""
        crops = check_pictures(crops, CROP_SIDE)
        outputs = self._session.run_pictures(crops)
        embedding, spread = outputs["embedding"], outputs["spread"]
        defined = np.isfinite(spread) & np.isfinite(embedding).all(axis=1) & embedding.any(axis=1)
        spread = np.where(defined, spread, np.float32(np.nan))
        return RecognizerOutput(embedding, spread, outputs["features"], *(outputs.get(name) for name in EXTRAS))

    def last_affine(self) -> tuple[Array, Array]:
        """The last layer A x + c, which includes the batch norm, from a file next to the ONNX file.

        A is float32 (D, K), c float32 (D,).

        Raises:
            WeightsError: these weights have no such file, or it was changed.
        """
        weights = self._session.weights
        if weights.affine is None:
            raise WeightsError(f"{weights.name}: its last layer is not stored in a file; set serfiq.method = 'closed'")
        if not weights.affine.is_file() or sha256_of(weights.affine) != weights.affine_sha256:
            raise WeightsError(f"{weights.name}: {weights.affine} is missing or changed; run `streamgate models pull`")
        with np.load(weights.affine, allow_pickle=False) as arrays:
            return arrays["weight"], arrays["bias"]
