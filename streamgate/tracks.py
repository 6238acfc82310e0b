"""Tracks: candidates for best shots, kept shots, and the end of a track."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from streamgate.faces import ScoredFace
from streamgate.frames import Array

CROP_NAMES = ("ffhq", "arcface", "loose", "frame")
"""Public names of the pictures of a kept face: aligned as in FFHQ, aligned for ArcFace, cut out with a margin, and the
whole frame."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How to encode a picture.

    `format` is `png`, `jpeg` or `webp`. `quality` is 1..100, or None for lossless encoding.
    """

    format: str = "png"
    quality: int | None = None

    @property
    def suffix(self) -> str:
        return "jpg" if self.format == "jpeg" else self.format


@dataclass(frozen=True, slots=True)
class Crop:
    """An additional picture of a kept face, RGB uint8 (h, w, 3).

    Attributes:
        upscaled: how many times larger the face is in this picture than in the source, at least 1.0.
        box: the part [x1, y1, x2, y2] of the upright source frame that the picture shows; None for an aligned crop.
    """

    image: Array
    upscaled: float = 1.0
    box: tuple[int, int, int, int] | None = None
    encoding: Encoding = Encoding()


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Candidate(ScoredFace):
    """A face of a track that may be kept. Its `image` is lossless and exists only while the face may still be kept.

    `interpolated` says whether box and landmarks are interpolated between two detections, `corrected` whether the
    detector's landmarks were corrected by the offsets that the expression network found for other faces of the track,
    `refined` whether the landmarks are from the expression network or from a second detection in the face's region.
    `unsettled` is how far the first run of the expression network moved the eyes, as a share of the distance between
    them; it is 0.0 before the first run and after the second.
    """

    track_id: int
    pts_seconds: float
    frame_index: int | None = None
    pts_estimated: bool = False
    captured_at: datetime | None = None
    name: str | None = None
    interpolated: bool = False
    corrected: bool = False
    refined: bool = False
    unsettled: float = 0.0
    assumes_real: bool = False
    """Whether the value of `real` was taken from a neighbouring face (see `FaceScorer.score`)."""
    spoiled: str | None = None
    """The reason in `SPOILED` that applies to the frame, if any; such a face is rejected without being measured."""
    bound: float = 0.0
    """Upper bound of `quality`, computed when the face was first examined, without regard to the gate."""
    ceilings: Mapping[str, float] = field(default_factory=dict)
    """Assumed upper bounds of the scalars in this track, by measure, for measures that need a network. Updated as the
    track grows."""
    usual: Mapping[str, float] = field(default_factory=dict)
    """Typical values of the person in this track, by measure (see `ReferenceSpec`). Updated as the track grows."""
    arcface: Array | None = None
    """The ArcFace crop, RGB uint8 (112, 112, 3), if it is requested. It exists as long as `image` does."""
    phash: int | None = None
    """Perceptual hash of the face from brows to chin, 63 bits; None for faces that cannot be kept."""
    shown: Array | None = None
    """The area of the frame without black bars (see `Frame.shown`)."""

    def _line(self) -> str:
        return f"track {self.track_id} at {self.pts_seconds:.2f} s"


@dataclass(frozen=True, slots=True)
class TrackInfo:
    """One face, followed within one shot; `first_pts` and `last_pts` are its first and last time, in seconds.

    `still` is true if the face never moved while the face of another track did (`runtime.stillness`).
    """

    track_id: int
    first_pts: float
    last_pts: float
    frames_seen: int
    frames_scored: int
    still: bool = False


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class BestShot(ScoredFace):
    """A kept face: the content of its record in `faces.jsonl`, with its pixels.

    Attributes:
        image: RGB uint8 (H, W, 3), FFHQ-aligned crop.
        rank: rank of the face within its track, from 1.
        quality_smoothed: `quality` or, if it is lower, the median quality in a short time window (docs/design.md 4.5).
        quality_context: the mean quality in a longer time window. `quality_smoothed` and `quality_context` are 0..100,
            or None for a fallback shot without quality.
        calibration_id: qualities are comparable only if they have the same calibration id.
    """

    image: Array
    source: str
    source_id: str
    track: TrackInfo
    rank: int
    pts_seconds: float
    quality_smoothed: float | None
    quality_context: float | None
    calibration_id: str
    frame_index: int | None = None
    pts_estimated: bool = False
    captured_at: datetime | None = None
    epoch: str = "0"
    name: str | None = None
    upscaled: float = 1.0
    """How many times larger the face is in `image` than in the source; 1.0 if it was not enlarged."""
    encoding: Encoding = Encoding()
    """How to write `image`."""
    crops: Mapping[str, Crop] = field(default_factory=dict)
    """Additional pictures by name, in the order of `CROP_NAMES`."""
    phash: int | None = None
    """Perceptual hash of the face from brows to chin, 63 bits (`scoring.fingerprint`)."""
    pose_bin: str | None = None
    """The bin of yaw and pitch for which the face was kept, with `keep.poses` = "all"."""
    stream: str | None = None
    """The stream from which the face was cropped, "main" or "sub", if the camera has two streams."""
    person_id: str | None = None
    """The id of the person, if known. It is set on shots from `Gate.people`."""

    @property
    def id(self) -> str:
        """The id of this shot's `final` event, `source_id/epoch/track_id/final/rank/0` (docs/design.md 6)."""
        return f"{self.source_id}/{self.epoch}/{self.track.track_id}/final/{self.rank}/0"

    def _line(self) -> str:
        who = f", {self.person_id}" if self.person_id else ""
        height, width = self.image.shape[:2]
        return f"{self.source_id} track {self.track.track_id}{who} at {self.pts_seconds:.2f} s, {width} x {height}"

    def _extra(self) -> dict[str, Any]:
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
    """The identity of a track: the weighted mean of its faces' embeddings, with values that say how reliable it is.

    A template is biometric data. It is stored only where `identity.store` allows it, never in a record or event.

    Attributes:
        vector: float32 (D,), unit length.
        faces: number of faces in the mean.
        weight: mean weight of these faces, 0..1. The weight of a face is the product of its SER-FIQ and occlusion
            scalars and the squared cosines of its yaw and pitch.
        agreement: length of the mean before normalisation, 0..1; 1 if all faces have the same embedding.
        inter_eye: mean distance between the eyes of these faces, in source pixels.
        offset: the part of the cosine with another template that exists only because this template resembles many
            people, at least 0 (see `networks.cohort`).
    """

    vector: Array
    faces: int
    weight: float
    agreement: float
    inter_eye: float
    offset: float = 0.0

    def similarity(self, other: Template) -> float:
        """Similarity to another template: the cosine minus the mean of both offsets."""
        return float(self.vector @ other.vector) - (self.offset + other.offset) / 2


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A face that the gate rejected by a small margin.

    `image` is a small FFHQ-aligned picture of it, RGB uint8 (128, 128, 3).
    """

    candidate: Candidate
    image: Array


@dataclass(frozen=True, slots=True)
class TrackEnd:
    """A track has ended: its kept shots (possibly none) and why candidates were rejected.

    `rejected` counts evaluated faces by gate reason. `reasons` tells why no face was kept: the reasons of the face that
    was closest to passing, or else `still` or `other_person`; it is empty if a face was kept. `near_misses` contains
    the few closest near misses, the closest first, if they were requested. `template` is None if `identity.store` is
    none, the whole track was rejected, or no face was good enough for a template. `reference` has the typical values of
    the person, by measure (see `ReferenceSpec`).
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
