"""Fits the mapping of a measure to 0..100, using faces that are not used for evaluation (docs/design.md 4).

The median of clean faces maps to 90, and the median of the degradation that lowers the value most maps to 10. This
module is used for the weights in the catalog, by the recipes in `models/` and by `models import --calibrate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from streamgate.errors import WeightsError
from streamgate.frames import Array
from streamgate.measures.serfiq import raw_from_spread
from streamgate.networks.alignment import arcface_matrix, ffhq_matrix
from streamgate.networks.detector import Detector
from streamgate.networks.ifqa import CROP_SIDE as IFQA_SIDE
from streamgate.networks.ifqa import ifqa_scores
from streamgate.networks.recognizer import Recognizer
from streamgate.networks.sessions import Session
from streamgate.sources.picture import picture_of_rgb
from streamgate.weights.catalog import LogisticCalibration, SerfiqCalibration

MIN_FACES = 100
"""Minimum number of faces; fewer faces do not give a reliable median."""

IFQA_LIMIT = 120
"""Maximum number of faces for IFQA: each face takes six runs, and one run of the official network takes 0.5 s."""

DROP_RATES = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Drop rates p that `fit_serfiq` tries."""

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_LOGIT_90 = math.log(9.0)


@dataclass(frozen=True, slots=True)
class Fit:
    """The mapping scalar = 100 sigmoid((raw - x0) / w), and the medians to which it was fitted."""

    x0: float
    w: float
    clean_median: float
    worst: str
    worst_median: float


def blur(face: Array) -> Array:
    """Gaussian blur with a sigma of 3 % of the side."""
    sigma = 0.03 * len(face)
    return np.asarray(cv2.GaussianBlur(face, (0, 0), sigma))


def low_resolution(face: Array) -> Array:
    """The face scaled down to an eighth of its side and up again."""
    side = len(face)
    small = cv2.resize(face, (side // 8, side // 8), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC))


def noise(face: Array) -> Array:
    """Gaussian noise with a sigma of 40 of 255 levels, the same for every face."""
    pattern = np.random.default_rng(0).normal(0.0, 40.0, face.shape)
    return np.clip(face + pattern, 0, 255).round().astype(np.uint8)


def half_covered(face: Array) -> Array:
    """The face with a grey lower half, which hides the mouth and the tip of the nose."""
    covered = face.copy()
    covered[len(face) // 2 :] = 128
    return covered


def jpeg(face: Array) -> Array:
    """JPEG at quality 5."""
    _, coded = cv2.imencode(".jpg", face[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 5])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1])


DEGRADATIONS: Mapping[str, Callable[[Array], Array]] = {
    "blur": blur,
    "low_resolution": low_resolution,
    "noise": noise,
    "half_covered": half_covered,
    "jpeg": jpeg,
}
"""Degradations by name; each takes and returns an aligned face, RGB uint8 (S, S, 3)."""


def fit(clean: Sequence[float], degraded: Mapping[str, Sequence[float]]) -> Fit:
    """Fit the mapping to the clean median (90) and the lowest degraded median (10).

    Raises:
        WeightsError: there are too few faces, or no degradation lowers the value, so there is nothing to calibrate.
    """
    if len(clean) < MIN_FACES:
        raise WeightsError(f"calibration needs at least {MIN_FACES} faces, got {len(clean)}")
    medians = {name: float(np.median(values)) for name, values in degraded.items()}
    worst = min(medians, key=lambda name: medians[name])
    top, bottom = float(np.median(clean)), medians[worst]
    if not top > bottom:
        raise WeightsError(
            f"no degradation lowers the score (median of clean faces {top:.4f}, with {worst} {bottom:.4f}): these "
            "weights do not measure quality"
        )
    return Fit((top + bottom) / 2, (top - bottom) / (2 * _LOGIT_90), top, worst, bottom)


def calibrate_serfiq(
    recognizer: Recognizer, faces: Sequence[Array], drop_rate: float, calibration_id: str
) -> tuple[SerfiqCalibration, Fit]:
    """Fit alpha and r on aligned faces, RGB uint8 (112, 112, 3); `drop_rate` is the drop rate in the graph.

    Raises:
        WeightsError: as for `fit`, or the spread of a face is not defined.
    """

    def raws(pictures: list[Array]) -> list[float]:
        spreads = recognizer.run(np.stack(pictures)).spread
        if not np.isfinite(spreads).all():
            raise WeightsError("a face of the calibration set has a zero embedding; the weights are damaged")
        return [raw_from_spread(float(d)) for d in spreads]

    found = fit(
        raws(list(faces)),
        {name: raws([degrade(face) for face in faces]) for name, degrade in DEGRADATIONS.items()},
    )
    return SerfiqCalibration(calibration_id, drop_rate, 1.0 / found.w, found.x0), found


def fit_serfiq(
    recognizer: Recognizer, faces: Sequence[Array], drop_rate: float, calibration_id: str
) -> tuple[SerfiqCalibration, Fit]:
    """Fit p, alpha and r on aligned faces, RGB uint8 (112, 112, 3); `drop_rate` is the drop rate in the current graph.

    By docs/design.md 4.1, d^2 = 2t / (1 + t) with t = q p / (1 - p), where q depends only on the face. Therefore, p
    never changes the order of faces, only the distances between their raw values. The chosen p gives the largest
    distance between the two medians; the graph must then be converted again with this p.

    Raises:
        WeightsError: as for `fit`, or the spread of a face is not defined.
    """

    def odds_free(pictures: list[Array]) -> Array:
        spreads = np.asarray(recognizer.run(np.stack(pictures)).spread, np.float64)
        if not np.isfinite(spreads).all():
            raise WeightsError("a face of the calibration set has a zero embedding; the weights are damaged")
        square = np.minimum(spreads**2, 2 - 1e-9)
        return np.asarray(square / (2 - square) * (1 - drop_rate) / drop_rate)

    def raws(q: Array, p: float) -> list[float]:
        t = q * p / (1 - p)
        return [raw_from_spread(float(d)) for d in np.sqrt(2 * t / (1 + t))]

    if len(faces) < MIN_FACES:
        raise WeightsError(f"calibration needs at least {MIN_FACES} faces, got {len(faces)}")
    clean = odds_free(list(faces))
    worse = {name: odds_free([degrade(face) for face in faces]) for name, degrade in DEGRADATIONS.items()}
    tried = [(fit(raws(clean, p), {name: raws(q, p) for name, q in worse.items()}), p) for p in DROP_RATES]
    found, p = max(tried, key=lambda one: one[0].clean_median - one[0].worst_median)
    return SerfiqCalibration(calibration_id, p, 1.0 / found.w, found.x0), found


def calibrate_ifqa(
    session: Session, faces: Sequence[Array], calibration_id: str
) -> tuple[LogisticCalibration, Fit]:
    """Fit x0 and w on FFHQ-aligned faces, RGB uint8 (256, 256, 3).

    Raises:
        WeightsError: as for `fit`.
    """

    def scores(pictures: list[Array]) -> list[float]:
        return [ifqa_scores(session, [picture])[0].value for picture in pictures]

    if len(faces) < MIN_FACES:
        raise WeightsError(f"calibration needs at least {MIN_FACES} faces, got {len(faces)}")
    found = fit(
        scores(list(faces)),
        {name: scores([degrade(face) for face in faces]) for name, degrade in DEGRADATIONS.items()},
    )
    return LogisticCalibration(calibration_id, found.x0, found.w), found


def aligned_faces(folder: Path, detector: Detector, limit: int = 600, *, ffhq: bool = False) -> Iterator[Array]:
    """Yield up to `limit` ArcFace-aligned faces, RGB uint8 (112, 112, 3), from images below `folder`, sorted by path.

    Images without a face are skipped; if an image has several faces, the face nearest to the centre of the image is
    taken. With `ffhq`, the faces are FFHQ-aligned (256, 256, 3), and faces that would have to be enlarged by more than
    10 % are skipped.
    """
    count = 0
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICTURES):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            continue
        picture = np.ascontiguousarray(picture[..., ::-1])
        scale = min(1.0, 640 / max(picture.shape[:2]))
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        faces = detector.detect([cv2.resize(picture, size, interpolation=cv2.INTER_AREA)])[0]
        if not faces:
            continue
        middle = np.array(size) / 2
        face = min(faces, key=lambda face: float(np.linalg.norm(face.landmarks.mean(axis=0) - middle)))
        landmarks = (face.landmarks + 0.5) / scale - 0.5
        if ffhq:
            matrix = ffhq_matrix(landmarks, IFQA_SIDE)
            if np.hypot(*matrix[0, :2]) > 1.1:
                continue
            yield picture_of_rgb(picture).warp(matrix, IFQA_SIDE)
        else:
            matrix = arcface_matrix(landmarks)
            yield np.asarray(cv2.warpAffine(picture, matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE))
        count += 1
        if count == limit:
            return
