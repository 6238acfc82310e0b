"""The values that flow through the gate, from the decoded picture to the best shot.

Everywhere: boxes are [x1, y1, x2, y2] and landmarks (5, 2) in pixels of the upright source picture, x to
the right and y down; landmarks are viewer's left eye, right eye, nose, left mouth corner, right mouth
corner; pictures are RGB uint8 (height, width, 3); angles are degrees; times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from streamgate.face_display import FaceDisplay

Array = npt.NDArray[Any]


class Picture(Protocol):
    """Pixels of a source frame, or of a copied region of one, addressed in upright source coordinates."""

    @property
    def width(self) -> int:
        """Width of the whole upright source frame in pixels (also for a region)."""
        ...

    @property
    def height(self) -> int:
        """Height of the whole upright source frame in pixels (also for a region)."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory of the pixels held."""
        ...

    def luma(self, box: Array | None = None) -> Array:
        """Luma of `box` (whole picture when None), uint8 (h, w), 0..255 full range, upright.

        The box is rounded outward to whole pixels and clipped to what is there; the result may be empty.
        """
        ...

    def luma_samples(self, width: int, height: int) -> Array:
        """Luma on an even grid of at least that many single pixels, uint8 (h, w), 0..255, upright."""
        ...

    def combed(self, box: Array) -> bool:
        """Whether `box` shows two moments, woven line by line."""
        ...

    def thumbnail(self, long_side: int) -> Array:
        """The picture scaled (anti-aliased) so that its longer side is `long_side`, RGB uint8; never enlarged."""
        ...

    def warp(self, matrix: Array, size: int | tuple[int, int], *, fine: bool = False) -> Array:
        """Resample with `matrix` (2, 3), which maps source pixels to result pixels; RGB uint8 (h, w, 3).

        `size` is the side of a square or (width, height). Outside the picture the edge is repeated.
        Minification is anti-aliased; with `fine` as well as a kept picture deserves, for more work.
        """
        ...

    def region(self, box: Array) -> Picture:
        """An owned copy of the pixels in `box` (clipped); it answers in the same source coordinates."""
        ...


@dataclass(slots=True)
class Frame:
    """One decoded picture with its time.

    Attributes:
        picture: the pixels; borrowed from the decoder, so valid only until the next frame is asked for.
        pts_seconds: presentation time, strictly increasing within a source (live: from the epoch's first frame).
        duration_seconds: how long it is shown, 0.0 when unknown.
        frame_index: rank among the demuxed video packets by corrected time; None after a seek.
        pts_estimated: the container's time was missing or stepped backwards and was replaced.
        captured_at: wall-clock time (UTC) of arrival, live sources only.
        unrelated: nothing connects this picture with the one before it (a folder of single images).
        corrupt: torn: damaged, or built on something that is damaged or missing; no face of it may be kept.
        transition: it lies between two shots that dissolve, fade or are wiped into each other: as `corrupt`.
    """

    picture: Picture
    pts_seconds: float
    duration_seconds: float = 0.0
    frame_index: int | None = None
    pts_estimated: bool = False
    captured_at: datetime | None = None
    unrelated: bool = False
    name: str | None = None
    """File name of an image source's picture."""
    corrupt: bool = False
    transition: bool = False
    shown: Array | None = None
    """What black bars leave of the picture, [x1, y1, x2, y2]; None: all of it, or not known."""

    @property
    def width(self) -> int:
        return self.picture.width

    @property
    def height(self) -> int:
        return self.picture.height

    @property
    def spoiled(self) -> str | None:
        """See `Candidate.spoiled`."""
        return next((reason for reason in SPOILED if getattr(self, reason)), None)

    def luma(self, box: Array | None = None) -> Array:
        return self.picture.luma(box)

    def luma_samples(self, width: int, height: int) -> Array:
        return self.picture.luma_samples(width, height)

    def thumbnail(self, long_side: int) -> Array:
        return self.picture.thumbnail(long_side)

    def warp(self, matrix: Array, size: int | tuple[int, int], *, fine: bool = False) -> Array:
        return self.picture.warp(matrix, size, fine=fine)

    def region(self, box: Array) -> Picture:
        return self.picture.region(box)


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


@dataclass(frozen=True, slots=True)
class Pose:
    """Head pose in degrees: yaw > 0 nose to larger x, pitch > 0 nose to smaller y, roll > 0 clockwise on screen."""

    yaw: float
    pitch: float
    roll: float


class Status(StrEnum):
    """What became of a measure; only OK has a `scalar`, and only OK and UNCALIBRATED have a `raw`."""

    OK = "ok"
    NOT_SCORED = "not_scored"
    NO_WEIGHTS = "no_weights"
    UNCALIBRATED = "uncalibrated"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: `raw` in its own unit, `scalar` 0..100 (higher is better), `status`."""

    raw: float | None
    scalar: float | None
    status: Status

    @classmethod
    def ok(cls, raw: float, scalar: float) -> Measure:
        """A good value; anything not finite becomes an error, so that no NaN can reach a record."""
        if np.isfinite(raw) and np.isfinite(scalar):
            return cls(float(raw), float(scalar), Status.OK)
        return cls(None, None, Status.ERROR)

    @classmethod
    def missing(cls, status: Status) -> Measure:
        return cls(None, None, status)


@dataclass(slots=True)
class Evidence:
    """What networks and pixels said about one face.

    Attributes:
        values: finite figures by name, those that measures are made of (`MeasureSpec.evidence`); what was not computed
            is not there.
        embedding: float32 (D,), not normalised.
        pose: head pose from the pose role.
        ifqa_map: realness map, float32 (256, 256), over the FFHQ crop.
        maps: maps of measures with a crop of their own, float32 (h, w), by measure.
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
    """Pass or fail, with the reasons in the order of DESIGN 4.4.

    `shortfall` says how far beyond its limit the worst of the measures is that gave a reason, as a share of what
    there is: 0 at the limit, 1 for the worst there can be. It orders near misses and is in no record.
    """

    passed: bool
    reasons: tuple[str, ...] = ()
    shortfall: float = field(default=0.0, compare=False)

    def failed_within(self, shortfall: float) -> bool:
        """Whether it was rejected for one reason alone, and by so much at most."""
        return len(self.reasons) == 1 and self.shortfall <= shortfall

    @property
    def verdict(self) -> bool | None:
        """Passed or rejected; None when scoring stopped before either was sure."""
        return self.passed if self.passed or self.reasons else None


SPOILED = ("corrupt", "transition")
"""Reasons that shut the gate on every face of a picture, whatever it looks like: torn or combed, or of two shots."""

STILL = "still"
"""The reason of a track that would keep faces if it had ever moved."""

CROP_NAMES = ("ffhq", "arcface", "loose", "frame")
"""The pictures of a kept face by their public names: aligned as FFHQ's, as ArcFace's, cut with a margin, whole."""

@dataclass(frozen=True, slots=True)
class Encoding:
    """How a picture is to be written: `format` png, jpeg or webp; `quality` 1..100, None where nothing is lost."""

    format: str = "png"
    quality: int | None = None

    @property
    def suffix(self) -> str:
        return "jpg" if self.format == "jpeg" else self.format


@dataclass(frozen=True, slots=True)
class Crop:
    """A further picture of a kept face, RGB uint8 (h, w, 3).

    Attributes:
        upscaled: how many times larger it is than in the source, at least 1.0.
        box: [x1, y1, x2, y2] that it shows of the upright source frame; None for an aligned crop.
    """

    image: Array
    upscaled: float = 1.0
    box: tuple[int, int, int, int] | None = None
    encoding: Encoding = Encoding()


@dataclass(slots=True, eq=False)
class Candidate:
    """A face of a track, with its evidence and what was concluded from it.

    `quality` is None unless every measure of the run's set is ok. `interpolated` says that box and
    landmarks lie between two detections; `refined` that landmarks come from a second look at the region;
    `unsettled` how far the first look of the expression network moved the eyes, as a share of the distance between
    them; 0.0 before it and after the second.
    """

    track_id: int
    pts_seconds: float
    face: Face
    frame_index: int | None = None
    pts_estimated: bool = False
    captured_at: datetime | None = None
    name: str | None = None
    interpolated: bool = False
    refined: bool = False
    unsettled: float = 0.0
    spoiled: str | None = None
    """The one of `SPOILED` that its picture is: the gate is shut, and nothing is measured."""
    evidence: Evidence = field(default_factory=Evidence)
    measures: dict[str, Measure] = field(default_factory=dict)
    quality: float | None = None
    bound: float = 0.0
    """The most that `quality` could become when the face was first looked at, whatever the gate said."""
    ceilings: Mapping[str, float] = field(default_factory=dict)
    """The most that the networks' scalars of this track are believed to reach, by measure; grows with the track."""
    usual: Mapping[str, float] = field(default_factory=dict)
    """What is usual for this track's person, by measure (`ReferenceSpec`); follows the track."""
    gate: GateResult = field(default_factory=lambda: GateResult(False))
    crop: Array | None = None
    """RGB uint8 (S, S, 3), FFHQ-aligned, lossless; only while the candidate may still be kept."""
    arcface: Array | None = None
    """RGB uint8 (112, 112, 3), where that crop is asked for; as long as `crop`."""
    phash: int | None = None
    """Perceptual hash of brows to chin, 63 bits; of what may be kept only."""
    shown: Array | None = None
    """What black bars leave of the face's frame, see `Frame.shown`."""


@dataclass(frozen=True, slots=True)
class TrackInfo:
    """One face followed inside one shot; times are pts seconds of its first and last frame.

    `still`: it never moved while another one did (`runtime.stillness`).
    """

    track_id: int
    first_pts: float
    last_pts: float
    frames_seen: int
    frames_scored: int
    still: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class BestShot(FaceDisplay):
    """A kept face: what `faces.jsonl` records, with its pixels.

    Attributes:
        image: RGB uint8 (H, W, 3), FFHQ-aligned crop.
        rank: from 1 within its track.
        quality, quality_smoothed, quality_context: 0..100 (DESIGN 4.5); None for a fallback shot without quality.
        calibration_id: qualities compare only under the same one.
    """

    image: Array
    source: str
    source_id: str
    track: TrackInfo
    rank: int
    pts_seconds: float
    face: Face
    pose: Pose | None
    measures: Mapping[str, Measure]
    quality: float | None
    quality_smoothed: float | None
    quality_context: float | None
    calibration_id: str
    gate: GateResult
    frame_index: int | None = None
    pts_estimated: bool = False
    captured_at: datetime | None = None
    epoch: str = "0"
    name: str | None = None
    embedding: Array | None = None
    upscaled: float = 1.0
    """How many times larger the image is than the face in the source; 1.0 where nothing was enlarged."""
    ifqa_map: Array | None = None
    """Realness map, float32 (256, 256), over the image; None without IFQA."""
    encoding: Encoding = Encoding()
    """How `image` is to be written."""
    crops: Mapping[str, Crop] = field(default_factory=dict)
    """Further pictures by name, in the order of `CROP_NAMES`."""
    phash: int | None = None
    """Perceptual hash of brows to chin, 63 bits (`scoring.fingerprint`)."""
    pose_bin: str | None = None
    """The bin of yaw and pitch that it was kept for, with `keep.poses` = "all"."""
    person_id: str | None = None
    """Who it shows, where that is known: of shots that `Gate.people` gives."""

    @property
    def id(self) -> str:
        """The id of this shot's `final` event, `source_id/epoch/track_id/final/rank/0` (DESIGN 6)."""
        return f"{self.source_id}/{self.epoch}/{self.track.track_id}/final/{self.rank}/0"

    @property
    def _pixels(self) -> Array:
        return self.image

    def _line(self) -> str:
        who = f", {self.person_id}" if self.person_id else ""
        height, width = self.image.shape[:2]
        return f"{self.source_id} track {self.track.track_id}{who} at {self.pts_seconds:.2f} s, {width} x {height}"

    def _told(self) -> dict[str, Any]:
        return {
            "id": self.id, "source": self.source, "source_id": self.source_id, "track_id": self.track.track_id,
            "person_id": self.person_id, "rank": self.rank, "frame_index": self.frame_index,
            "pts_seconds": self.pts_seconds, "quality_smoothed": self.quality_smoothed,
            "quality_context": self.quality_context, "calibration_id": self.calibration_id, "name": self.name,
            "track": {
                "first_pts": self.track.first_pts, "last_pts": self.track.last_pts,
                "frames_seen": self.track.frames_seen, "frames_scored": self.track.frames_scored,
            },
        }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """Who a track shows: the weighted mean of its faces' embeddings, and how far that can be trusted.

    Biometric data: it goes where `identity.store` lets it, and into no record or event.

    Attributes:
        vector: float32 (D,), unit length.
        faces: faces in the mean.
        weight: their mean weight, 0..1: SER-FIQ and occlusion scalars and squared cosines of yaw and pitch, multiplied.
        agreement: length of the mean before it was normalised, 0..1; 1 when all faces have one embedding.
        inter_eye: their mean distance between the eyes, source pixels.
        offset: how much of its cosines it has in common with many others, at least 0 (see `networks.cohort`).
    """

    vector: Array
    faces: int
    weight: float
    agreement: float
    inter_eye: float
    offset: float = 0.0

    def similarity(self, other: Template) -> float:
        """How alike two people look: the cosine less what they have in common with many others, in the mean."""
        return float(self.vector @ other.vector) - (self.offset + other.offset) / 2


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A face that the gate rejected and that came nearest to passing.

    `image` is a small FFHQ-aligned picture of it, RGB uint8 (128, 128, 3).
    """

    candidate: Candidate
    image: Array


@dataclass(frozen=True, slots=True)
class TrackEnd:
    """A track has ended: its kept shots (possibly none) and why candidates were rejected.

    `rejected` counts evaluated faces by gate reason; `reasons` are those of the best near miss, for a
    track that keeps nothing. `near_misses` are the best few, nearest first, when they were asked for. `template`
    is None where identity is off or no face was good enough for it. `reference` is what is usual for the person, by
    measure (`ReferenceSpec`).
    """

    track: TrackInfo
    shots: tuple[BestShot, ...]
    rejected: Mapping[str, int]
    reasons: tuple[str, ...]
    source_id: str
    epoch: str = "0"
    near_misses: tuple[NearMiss, ...] = ()
    template: Template | None = None
    reference: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, repr=False)
class ScoredFace(FaceDisplay):
    """One face of a still picture, as `Gate.score` returns it."""

    face: Face
    pose: Pose | None
    measures: Mapping[str, Measure]
    quality: float | None
    gate: GateResult
    embedding: Array | None = None
    ifqa_map: Array | None = None
    crop: Array | None = None
    maps: Mapping[str, Array] = field(default_factory=dict)

    @property
    def _pixels(self) -> Array | None:
        return self.crop

    def _line(self) -> str:
        x1, y1, x2, y2 = (round(float(value)) for value in self.face.box)
        return f"{x2 - x1} x {y2 - y1} px at ({x1}, {y1})"
