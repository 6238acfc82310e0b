"""Faces: a detection, its measures, and the result of the gate. Units and axes are as in `frames`."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from streamgate.errors import SinkError, UsageError, display
from streamgate.frames import Array

STILL = "still"
"""The reason for rejecting a track whose face would be kept but never moved, for example a face on a poster."""

_SIDE = 192
"""Maximum length of the longer side of a picture in a notebook, in pixels."""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class Face:
    """One detection: `box` float32 (4,), `landmarks` float32 (5, 2), `score` 0..1."""

    box: Array
    landmarks: Array
    score: float

    @property
    def inter_eye(self) -> float:
        """Distance between the eyes in source pixels."""
        return float(np.hypot(*(self.landmarks[1] - self.landmarks[0])))

    @property
    def eye_centre(self) -> Array:
        """The point between the eyes, float32 (2,), source pixels."""
        # A plain sum takes a fifth of the time of `mean`, and this property is computed for every detected face.
        return np.asarray((self.landmarks[0] + self.landmarks[1]) / 2)

    @property
    def mouth_centre(self) -> Array:
        """The point between the corners of the mouth, float32 (2,), source pixels."""
        return np.asarray((self.landmarks[3] + self.landmarks[4]) / 2)


@dataclass(frozen=True, slots=True)
class Pose:
    """Head pose in degrees.

    With yaw > 0, the nose points to larger x; with pitch > 0, to smaller y. A roll > 0 is clockwise on the screen.
    """

    yaw: float
    pitch: float
    roll: float


class Status(StrEnum):
    """The state of a measure. Only an OK measure has a `scalar`; only an OK or an UNCALIBRATED measure has a `raw`."""

    OK = "ok"
    NOT_SCORED = "not_scored"
    NO_WEIGHTS = "no_weights"
    UNCALIBRATED = "uncalibrated"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Measure:
    """The value of a measure: `raw` in its own unit, `scalar` 0..100 (higher is better), and `status`."""

    raw: float | None
    scalar: float | None
    status: Status

    @classmethod
    def ok(cls, raw: float, scalar: float) -> Measure:
        """A valid value. Non-finite values become an error, so that no NaN can get into a record."""
        if np.isfinite(raw) and np.isfinite(scalar):
            return cls(float(raw), float(scalar), Status.OK)
        return cls(None, None, Status.ERROR)

    @classmethod
    def missing(cls, status: Status) -> Measure:
        return cls(None, None, status)


@dataclass(slots=True)
class Evidence:
    """Network outputs and pixel statistics of one face.

    Attributes:
        values: finite values by name, from which measures are computed (`MeasureSpec.evidence`). Values that were not
            computed are missing.
        embedding: float32 (D,), not normalised.
        pose: head pose from the pose network.
        ifqa_map: realness map, float32 (256, 256), over the FFHQ crop.
        maps: maps of measures that have their own crop, float32 (h, w), by measure.
        failed: names of measures whose computation failed.
    """

    values: dict[str, float] = field(default_factory=dict)
    embedding: Array | None = None
    pose: Pose | None = None
    ifqa_map: Array | None = None
    maps: dict[str, Array] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class GateResult:
    """Pass or fail, with the reasons in the order of docs/design.md 4.4.

    `shortfall` is how far the worst measure is beyond its limit, as a share of the possible range: 0 at the limit, 1 at
    the worst possible value. It orders near misses and is not recorded.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    shortfall: float = field(default=0.0, compare=False)

    def failed_within(self, shortfall: float) -> bool:
        """Whether the face was rejected for a single reason, and by at most `shortfall`."""
        return len(self.reasons) == 1 and self.shortfall <= shortfall

    @property
    def verdict(self) -> bool | None:
        """Whether the face passed; None if scoring stopped before this was certain."""
        return self.passed if self.passed or self.reasons else None


@dataclass(slots=True, eq=False, repr=False)
class ScoredFace:
    """A face with its measures, as returned by `Gate.score`; also the base class of `BestShot`.

    Notebooks display it with its picture.

    Attributes:
        face: box and landmarks in the source picture.
        evidence: network outputs and pixel statistics, including `pose`, `embedding`, `ifqa_map` and `maps`.
        measures: by name, the measures of the run's set and others that are recorded.
        quality: 0..100; None unless every measure of the run's set is ok.
        gate: whether the face passed, and the reasons if not.
        image: RGB uint8 (H, W, 3), the FFHQ-aligned crop; None if an aligned crop was scored.
    """

    face: Face
    evidence: Evidence = field(default_factory=Evidence)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    quality: float | None = None
    gate: GateResult = GateResult(False)
    image: Array | None = None

    @property
    def pose(self) -> Pose | None:
        """Yaw, pitch and roll in degrees; None if the pose network was not run on this face."""
        return self.evidence.pose

    @property
    def embedding(self) -> Array | None:
        """Float32 (D,), not normalised; None if the recognizer was not run on this face or `identity.store` is none."""
        return self.evidence.embedding

    @property
    def ifqa_map(self) -> Array | None:
        """Realness map, float32 (256, 256) in 0..1, of the FFHQ crop; None without IFQA."""
        return self.evidence.ifqa_map

    @property
    def maps(self) -> Mapping[str, Array]:
        """Maps of measures that have their own crop, float32 (h, w), by measure."""
        return self.evidence.maps

    def _line(self) -> str:
        """The first part of `repr`, before quality and gate."""
        x1, y1, x2, y2 = (round(float(value)) for value in self.face.box)
        return f"{x2 - x1} x {y2 - y1} px at ({x1}, {y1})"

    def _extra(self) -> dict[str, Any]:
        """Items that a subclass adds at the beginning of `to_dict`."""
        return {}

    def __repr__(self) -> str:
        quality = "no quality" if self.quality is None else f"quality {self.quality:.1f}"
        gate = "passed" if self.gate.passed else f"rejected: {', '.join(self.gate.reasons) or 'not fully scored'}"
        return f"<{type(self).__name__} {self._line()}, {quality}, {gate}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `json.dumps` or a table row, without pixels and embedding."""
        return {
            **self._extra(),
            "box": [round(float(value), 2) for value in self.face.box],
            "landmarks": [[round(float(value), 2) for value in point] for point in self.face.landmarks],
            "detection_score": round(float(self.face.score), 4),
            "pose": None
            if self.pose is None
            else {angle: round(getattr(self.pose, angle), 2) for angle in ("yaw", "pitch", "roll")},
            "measures": {
                name: {"raw": one.raw, "scalar": one.scalar, "status": str(one.status)}
                for name, one in self.measures.items()
            },
            "quality": self.quality,
            "gate": {"passed": self.gate.passed, "reasons": list(self.gate.reasons)},
        }

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the picture as PNG, JPEG or WebP, depending on the suffix of `path`; returns the path.

        Raises UsageError for another suffix or if there is no picture, SinkError if the file cannot be written.
        """
        # Imported here, because code that only reads records needs no OpenCV.
        import cv2

        target = Path(path)
        pixels = self.image
        if pixels is None:
            raise UsageError("this face has no picture: it was scored from an aligned crop; save that crop instead")
        if target.suffix.lower() not in _SUFFIXES:
            raise UsageError(f"{display(target)}: give a name that ends in {', '.join(_SUFFIXES)}")
        done, data = cv2.imencode(target.suffix.lower(), np.ascontiguousarray(pixels[..., ::-1]))
        try:
            target.write_bytes(data.tobytes() if done else b"")
        except OSError as error:
            raise SinkError(f"{display(target)}: cannot be written ({error.strerror}); check the folder") from None
        return target

    def _repr_png_(self) -> bytes | None:
        import cv2

        pixels = self.image
        if pixels is None:
            return None
        scale = min(1.0, _SIDE / max(pixels.shape[:2]))
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
        done, data = cv2.imencode(".png", np.ascontiguousarray(small[..., ::-1]))
        return data.tobytes() if done else None

    def _repr_html_(self) -> str:
        picture = self._repr_png_()
        image = f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}">' if picture else ""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{one.raw:.4g}</td><td>{one.scalar:.0f}</td></tr>"
            for name, one in self.measures.items()
            if one.raw is not None and one.scalar is not None
        )
        table = f"<table><tr><th>measure</th><th>raw</th><th>0..100</th></tr>{rows}</table>"
        layout = "display:flex;gap:1em;align-items:flex-start"
        return f'<div>{html.escape(repr(self).strip("<>"))}<div style="{layout}">{image}{table}</div></div>'
