"""The sections of the configuration: their keys with types and ranges. The values are in `pipelines/*.toml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from streamgate.measure_tables import Section

Seconds = Annotated[float, Field(gt=0, le=3600)]
Share = Annotated[float, Field(ge=0, le=1)]
Angle = Annotated[float, Field(gt=-90, lt=90)]
Pixels = Annotated[int, Field(ge=1, le=1 << 30)]


class DecodingConfig(Section):
    """Which part of a video is read, which frames are not decoded, and the maximum size of a picture."""

    start_s: Annotated[float, Field(ge=0, le=1e7)]
    end_s: Annotated[float, Field(ge=0, le=1e7)]
    discard: Literal["none", "empty", "followed", "steady", "all"]
    max_skip_s: Annotated[float, Field(ge=0, le=60)]
    max_pixels: Pixels

    @model_validator(mode="after")
    def _ordered(self) -> DecodingConfig:
        if self.end_s and self.end_s <= self.start_s:
            raise ValueError(f"end_s ({self.end_s:g}) must be after start_s ({self.start_s:g}), or 0 for no end")
        return self


class DetectionConfig(Section):
    """How often faces are detected, and in which orientations."""

    interval_s: Seconds
    sideways: bool


class TrackingConfig(Section):
    """When a track ends."""

    max_gap_s: Seconds


class AdvancedConfig(Section):
    """Tuning of detection, tracking and selection. These keys may change or disappear in any version."""

    dense_interval_s: Seconds
    empty_interval_s: Seconds
    face_px: Annotated[int, Field(ge=16, le=128)]
    min_long_side: Annotated[int, Field(ge=64, le=4096)]
    max_long_side: Annotated[int, Field(ge=64, le=4096)]
    nms_iou: Share
    high_score: Share
    low_score: Share
    new_score: Share
    min_iou: Share
    min_iou_low: Share
    min_detections: Annotated[int, Field(ge=1, le=100)]
    cut_difference: Share
    cut_ratio: Annotated[float, Field(ge=1, le=100)]
    window_s: Seconds
    per_window: Annotated[int, Field(ge=1, le=100)]
    min_gain: Annotated[float, Field(ge=0, le=100)]
    prescore_interval_s: Annotated[float, Field(ge=0, le=10)]
    prescore_share: Share
    cooldown_ratio: Share
    confirm_delay_s: Annotated[float, Field(ge=0, le=10)]
    network_margin: Annotated[float, Field(ge=0, le=100)]
    region_margin: Annotated[float, Field(ge=0, le=2)]
    watch_s: Annotated[float, Field(ge=0, le=3600)]
    lookback_s: Seconds
    refine: bool

    @model_validator(mode="after")
    def _ordered(self) -> AdvancedConfig:
        if self.min_long_side > self.max_long_side:
            raise ValueError(f"min_long_side ({self.min_long_side}) must be <= max_long_side ({self.max_long_side})")
        if not self.low_score <= self.high_score <= self.new_score:
            raise ValueError(
                "scores must satisfy low_score <= high_score <= new_score, "
                f"got {self.low_score}, {self.high_score}, {self.new_score}"
            )
        return self


class SmoothingConfig(Section):
    """Lengths of the smoothing windows (docs/design.md 4.5)."""

    short_s: Seconds
    long_s: Seconds

    @model_validator(mode="after")
    def _ordered(self) -> SmoothingConfig:
        if self.short_s > self.long_s:
            raise ValueError(f"short_s ({self.short_s}) must be <= long_s ({self.long_s})")
        return self


class KeepConfig(Section):
    """How many faces of a track or person are kept, and which are dropped as duplicates."""

    per: Literal["track", "person"]
    top_k: Annotated[int, Field(ge=1, le=1000)]
    every_s: Annotated[float, Field(ge=0, le=86400)]
    min_gap_seconds: Annotated[float, Field(ge=0, le=3600)]
    duplicate_cosine: Annotated[float, Field(ge=0, le=2)]
    duplicate_bits: Annotated[int, Field(ge=0, le=63)]
    poses: Literal["frontal", "all"]
    yaw_edges: tuple[Angle, ...]
    pitch_edges: tuple[Angle, ...]
    fallback: Literal["none", "best"]
    expression: Literal["neutral", "any"]
    stills: bool
    min_quality: Annotated[float, Field(ge=0, le=100)]

    @model_validator(mode="after")
    def _ordered(self) -> KeepConfig:
        for name in ("yaw_edges", "pitch_edges"):
            edges = getattr(self, name)
            if list(edges) != sorted(set(edges)):
                raise ValueError(f"{name} must be in ascending order, got {list(edges)}")
        return self


class SerfiqConfig(Section):
    """How SER-FIQ is computed (docs/design.md 4.1)."""

    method: Literal["closed", "sampled"]
    samples: Annotated[int, Field(ge=2, le=10000)]
    seed: Annotated[int, Field(ge=0)]


class PrecisionConfig(Section):
    """Precision of each role's network on a GPU; on the CPU, it is always fp32."""

    detector: Literal["fp32", "fp16"]
    recognizer: Literal["fp32", "fp16"]
    pose: Literal["fp32", "fp16"]
    expression: Literal["fp32", "fp16"]
    ifqa: Literal["fp32", "fp16"]


class OutputConfig(Section):
    """What is written."""

    size: Annotated[int, Field(ge=64, le=4096)]
    upscale: bool
    max_upscale: Annotated[float, Field(ge=0, le=100)]
    pad: Literal["black", "reflect", "blur"]
    crops: tuple[Literal["ffhq", "arcface", "loose", "frame"], ...]
    margin: Annotated[float, Field(ge=0, le=10)]
    format: Literal["png", "jpeg", "webp"]
    quality: int | str
    auto_embedding: Annotated[float, Field(gt=0, le=2)]
    auto_ifqa: Annotated[float, Field(gt=0, le=1)]
    candidates: bool
    report: bool


    @field_validator("quality")
    @classmethod
    def _quality(cls, value: int | str) -> int | str:
        if value != "auto" and not (isinstance(value, int) and 1 <= value <= 100):
            raise ValueError("give 1 to 100, or auto")
        return value


class IdentityConfig(Section):
    """How embeddings are stored, when two tracks count as one person, and the person to search for."""

    store: Literal["none", "session", "disk"]
    threshold: Share
    only: str


class LiveConfig(Section):
    """How `serve` reads and processes a stream."""

    transport: Literal["tcp", "udp"]
    connect_timeout_s: Seconds
    read_timeout_s: Seconds
    stall_s: Seconds
    backoff_min_s: Seconds
    backoff_max_s: Seconds
    refused_retry_s: Annotated[float, Field(gt=0, le=86400)]
    max_fps: Annotated[float, Field(ge=0, le=1000)]
    max_pixels: Pixels
    queue_frames: Annotated[int, Field(ge=1, le=1000)]
    queue_tracked: Annotated[int, Field(ge=1, le=1000)]
    max_track_s: Seconds
    improved_interval_s: Seconds
    improved_gain: Annotated[float, Field(ge=0, le=100)]
    main_ring_s: Annotated[float, Field(ge=1, le=60)]
    main_ring_mb: Annotated[int, Field(ge=1, le=1024)]
    main_wait_s: Annotated[float, Field(ge=0, le=10)]
    main_interval_s: Seconds

    @model_validator(mode="after")
    def _ordered(self) -> LiveConfig:
        if self.backoff_min_s > self.backoff_max_s:
            raise ValueError(f"backoff_min_s ({self.backoff_min_s}) must be <= backoff_max_s ({self.backoff_max_s})")
        return self
