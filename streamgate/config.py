"""One typed configuration: preset < `--set key=value` < named flag.

The values live in `pipelines/*.toml`, complete in `studio.toml`; the code holds none, so what a user
reads there is what runs. A key that does not exist is an error naming the nearest one that does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from streamgate.errors import UsageError, one_line
from streamgate.frames import MEASURE_NAMES
from streamgate.tomltext import NotToml, parse_toml, read_toml

Seconds = Annotated[float, Field(gt=0, le=3600)]
Share = Annotated[float, Field(ge=0, le=1)]
Scalar = Annotated[float, Field(ge=0, le=100)]
Degrees = Annotated[float, Field(gt=0, le=90)]
Angle = Annotated[float, Field(gt=-90, lt=90)]
Weight = Annotated[float, Field(ge=0, le=100)]
Pixels = Annotated[int, Field(ge=1, le=1 << 30)]
MeasureName = Literal[
    "serfiq", "ifqa", "yaw", "pitch", "roll", "size", "edge", "sharpness", "exposure", "occlusion", "eyes"
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DecodingConfig(_Section):
    """Which frames are not decoded at all, and which pictures are too large."""

    discard: Literal["none", "empty", "followed", "steady"]
    leap_s: Annotated[float, Field(ge=0, le=60)]
    max_pixels: Pixels


class DetectionConfig(_Section):
    """How often and how finely faces are looked for."""

    interval_s: Seconds
    dense_interval_s: Seconds
    empty_interval_s: Seconds
    face_px: Annotated[int, Field(ge=16, le=128)]
    min_long_side: Annotated[int, Field(ge=64, le=4096)]
    max_long_side: Annotated[int, Field(ge=64, le=4096)]
    nms_iou: Share

    @model_validator(mode="after")
    def _ordered(self) -> DetectionConfig:
        if self.min_long_side > self.max_long_side:
            raise ValueError(f"min_long_side ({self.min_long_side}) must be <= max_long_side ({self.max_long_side})")
        if self.dense_interval_s > self.interval_s:
            raise ValueError(f"dense_interval_s ({self.dense_interval_s}) must be <= interval_s ({self.interval_s})")
        return self


class TrackingConfig(_Section):
    """How detections become tracks, and where a track must end."""

    high_score: Share
    low_score: Share
    new_score: Share
    min_iou: Share
    min_iou_low: Share
    max_gap_s: Seconds
    min_detections: Annotated[int, Field(ge=1, le=100)]
    cut_difference: Share
    cut_ratio: Annotated[float, Field(ge=1, le=100)]

    @model_validator(mode="after")
    def _ordered(self) -> TrackingConfig:
        if not self.low_score <= self.high_score <= self.new_score:
            raise ValueError(
                "scores must satisfy low_score <= high_score <= new_score, "
                f"got {self.low_score}, {self.high_score}, {self.new_score}"
            )
        return self


class CandidatesConfig(_Section):
    """Which faces of a track are worth the networks."""

    bucket_s: Seconds
    per_bucket: Annotated[int, Field(ge=1, le=100)]
    min_gain: Annotated[float, Field(ge=0, le=100)]
    glance_s: Annotated[float, Field(ge=0, le=10)]
    glance_share: Share
    patience: Share
    settle_s: Annotated[float, Field(ge=0, le=10)]
    headroom: Annotated[float, Field(ge=0, le=100)]
    region_margin: Annotated[float, Field(ge=0, le=2)]
    lookback_s: Seconds
    refine: bool


class Sigmoid(_Section):
    """scalar = 100 / (1 + exp(-(raw - x0) / w)); DESIGN 4."""

    x0: float
    w: Annotated[float, Field(gt=0)]


class MeasuresConfig(_Section):
    """The run's measures, and the mappings of those that no network's card maps."""

    set: tuple[MeasureName, ...]
    size: Sigmoid
    edge: Sigmoid
    sharpness: Sigmoid
    exposure: Sigmoid

    @model_validator(mode="after")
    def _distinct(self) -> MeasuresConfig:
        if len(set(self.set)) != len(self.set):
            raise ValueError("a measure is named twice in measures.set")
        return self


class GateConfig(_Section):
    """Limits a kept face has to meet."""

    min_serfiq: Scalar
    min_ifqa: Scalar
    max_yaw: Degrees
    max_pitch: Degrees
    min_size: Annotated[float, Field(gt=0, le=10000)]
    min_edge: Share
    min_sharpness: Scalar
    min_exposure: Scalar
    min_occlusion: Scalar
    min_eyes: Scalar

    def min_size_px(self, width: int, height: int) -> float:
        """The limit in source pixels for an upright frame of `width` x `height`."""
        return self.min_size * min(width, height) if self.min_size < 1 else self.min_size


class FusionConfig(_Section):
    """Weights of the weighted geometric mean."""

    serfiq: Weight
    ifqa: Weight
    yaw: Weight
    pitch: Weight
    roll: Weight
    size: Weight
    edge: Weight
    sharpness: Weight
    exposure: Weight
    occlusion: Weight
    eyes: Weight

    @model_validator(mode="after")
    def _some(self) -> FusionConfig:
        if not any(getattr(self, name) > 0 for name in MEASURE_NAMES):
            raise ValueError("at least one weight must be above 0")
        return self


class SmoothingConfig(_Section):
    """Windows of DESIGN 4.5."""

    short_s: Seconds
    long_s: Seconds

    @model_validator(mode="after")
    def _ordered(self) -> SmoothingConfig:
        if self.short_s > self.long_s:
            raise ValueError(f"short_s ({self.short_s}) must be <= long_s ({self.long_s})")
        return self


class KeepConfig(_Section):
    """How many faces of a track or person are kept, and which of them are too many."""

    per: Literal["track", "person"]
    top_k: Annotated[int, Field(ge=1, le=1000)]
    min_gap_seconds: Annotated[float, Field(ge=0, le=3600)]
    duplicate_cosine: Annotated[float, Field(ge=0, le=2)]
    duplicate_bits: Annotated[int, Field(ge=0, le=63)]
    poses: Literal["frontal", "all"]
    yaw_edges: tuple[Angle, ...]
    pitch_edges: tuple[Angle, ...]
    fallback: Literal["none", "best"]

    @model_validator(mode="after")
    def _ordered(self) -> KeepConfig:
        for name in ("yaw_edges", "pitch_edges"):
            edges = getattr(self, name)
            if list(edges) != sorted(set(edges)):
                raise ValueError(f"{name} must ascend, got {list(edges)}")
        return self


class SerfiqConfig(_Section):
    """Form of SER-FIQ (DESIGN 4.1)."""

    method: Literal["closed", "sampled"]
    samples: Annotated[int, Field(ge=2, le=10000)]
    seed: Annotated[int, Field(ge=0)]


class OutputConfig(_Section):
    """What is written."""

    size: Annotated[int, Field(ge=64, le=4096)]
    upscale: bool
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


class IdentityConfig(_Section):
    """What happens with embeddings, and when two tracks show one person."""

    store: Literal["none", "session", "disk"]
    threshold: Share
    only: str


class LiveConfig(_Section):
    """How `serve` treats a stream."""

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
    queue_moments: Annotated[int, Field(ge=1, le=1000)]
    max_track_s: Seconds
    improved_interval_s: Seconds
    improved_gain: Annotated[float, Field(ge=0, le=100)]

    @model_validator(mode="after")
    def _ordered(self) -> LiveConfig:
        if self.backoff_min_s > self.backoff_max_s:
            raise ValueError(f"backoff_min_s ({self.backoff_min_s}) must be <= backoff_max_s ({self.backoff_max_s})")
        return self


class Config(_Section):
    """The whole configuration of a run."""

    exhaustive: bool
    decoding: DecodingConfig
    detection: DetectionConfig
    tracking: TrackingConfig
    candidates: CandidatesConfig
    measures: MeasuresConfig
    gate: GateConfig
    fusion: FusionConfig
    smoothing: SmoothingConfig
    keep: KeepConfig
    serfiq: SerfiqConfig
    output: OutputConfig
    identity: IdentityConfig
    live: LiveConfig

    @model_validator(mode="after")
    def _persons_known(self) -> Config:
        if self.keep.per == "person" and self.identity.store == "none":
            raise ValueError("keep.per = person needs to know who is who: set identity.store to session or disk")
        return self

    @model_validator(mode="after")
    def _windows_fit(self) -> Config:
        if self.candidates.lookback_s < self.detection.interval_s:
            raise ValueError(
                f"candidates.lookback_s ({self.candidates.lookback_s}) must be >= detection.interval_s "
                f"({self.detection.interval_s}): frames wait for the next detection"
            )
        if not any(getattr(self.fusion, name) > 0 for name in self.measures.set):
            raise ValueError("no measure of measures.set has a fusion weight above 0")
        return self


def presets_folder() -> Path:
    """Where the presets lie: inside an installed wheel, or beside the package in a checkout."""
    inside = Path(__file__).parent / "pipelines"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "pipelines"


def preset_names() -> list[str]:
    """Names that `--preset` takes besides a path."""
    return sorted(path.stem for path in presets_folder().glob("*.toml"))


def load_config(
    preset: str = "studio",
    settings: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Build the configuration.

    Args:
        preset: a name of `preset_names()` or the path of a TOML file (which may be partial: what it leaves
            out comes from its `extends`, "studio" unless it says otherwise).
        settings: `key=value` texts, keys dotted, values as in TOML (`keep.fallback=best` needs no quotes).
        flags: dotted key -> value of named flags, which win; None values are ignored.

    With `keep.poses` = "all" the limits of yaw and pitch go up to 90 and their weights to 0, unless a setting or flag
    gives them.

    Raises:
        UsageError: unknown preset or key, value outside its range, contradicting values.
    """
    tree = _read_preset(preset)
    settings = list(settings)
    _lay_over(tree, settings, flags)
    if tree["keep"]["poses"] == "all":
        given = {_parse_setting(setting)[0] for setting in settings}
        given.update(key for key, value in (flags or {}).items() if value is not None)
        for key, value in _ALL_POSES.items():
            if key not in given:
                _assign(tree, key, value, key)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UsageError(_explain(error, preset)) from None


_ALL_POSES = {"gate.max_yaw": 90.0, "gate.max_pitch": 90.0, "fusion.yaw": 0.0, "fusion.pitch": 0.0}
"""What `keep.poses=all` makes of these keys where they were not given: a turned head is no fault then."""


def stored_config(tree: Mapping[str, Any]) -> Config:
    """The configuration that an earlier run wrote down; what is new since then is as in studio.

    Raises UsageError when it has keys or values that this version does not know.
    """
    whole = _read_preset("studio")
    for key, value in leaves(tree):
        _assign(whole, key, value, "stored configuration")
    try:
        return Config.model_validate(whole)
    except ValidationError as error:
        raise UsageError(_explain(error, "as stored")) from None


def with_settings(config: Config, settings: Iterable[str], flags: Mapping[str, Any] | None = None) -> Config:
    """`config` with `key=value` texts and named flags laid over it; see `load_config`. Raises UsageError."""
    tree = config.model_dump(mode="json")
    _lay_over(tree, settings, flags)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UsageError(_explain(error, "as tuned")) from None


def differing_keys(one: Config, other: Config) -> list[str]:
    """Dotted keys in which two configurations differ, in their order."""
    theirs = dict(leaves(other.model_dump(mode="json")))
    return [key for key, value in leaves(one.model_dump(mode="json")) if theirs[key] != value]


def _read_preset(preset: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    path = Path(preset) if preset.endswith(".toml") or "/" in preset else presets_folder() / f"{preset}.toml"
    if str(path) in seen:
        raise UsageError(f"preset {preset}: it extends itself")
    if len(seen) > _MAX_CHAIN:
        raise UsageError(f"preset {preset}: it extends more than {_MAX_CHAIN} others, one after the other")
    try:
        own = read_toml(path, f"preset {path}")
    except FileNotFoundError:
        near = difflib.get_close_matches(preset, preset_names(), 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(preset_names())}, or a .toml file"
        raise UsageError(f"there is no preset {one_line(preset)!r}: {hint}") from None
    base_name = own.pop("extends", None if path == presets_folder() / "studio.toml" else "studio")
    if base_name is None:
        return own
    if not isinstance(base_name, str):
        raise UsageError(f"preset {path}: extends must be a preset's name")
    tree = _read_preset(base_name, (*seen, str(path)))
    for key, value in leaves(own):
        _assign(tree, key, value, f"preset {path}: {one_line(key, 80)}")
    return tree


_MAX_CHAIN = 8
"""Presets that extend one another."""


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted key, value) of all that is no mapping itself, in order."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _lay_over(tree: dict[str, Any], settings: Iterable[str], flags: Mapping[str, Any] | None) -> None:
    """Set `key=value` texts and then named flags in `tree`. Raises UsageError."""
    for setting in settings:
        key, value = _parse_setting(setting)
        _assign(tree, key, value, f"--set {one_line(setting, 80)}")
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(tree, key, value, key)


def _parse_setting(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {one_line(setting, 80)}: write it as key=value, for example --set gate.max_yaw=20")
    try:
        value = parse_toml(f"value = {text}", f"--set {one_line(setting, 80)}")["value"]
    except NotToml:
        value = text.strip()
    return key.strip(), value


def _assign(tree: dict[str, Any], key: str, value: Any, what: str) -> None:
    known = [name for name, _ in leaves(tree)]
    if key not in known:
        near = difflib.get_close_matches(key, known, 1, 0.5) or difflib.get_close_matches(
            key.rpartition(".")[2], [name.rpartition(".")[2] for name in known], 1, 0.5
        )
        full = next((name for name in known if near and name.endswith(near[0])), None)
        hint = f"did you mean {full}?" if full else f"sections are {', '.join(tree)}"
        raise UsageError(f"{what}: there is no key {one_line(key, 80)!r}; {hint}")
    if isinstance(value, bool) and not isinstance(dict(leaves(tree))[key], bool):
        raise UsageError(f"{what}: {key} takes no true or false")
    node = tree
    *parents, leaf = key.split(".")
    for parent in parents:
        node = node[parent]
    node[leaf] = value


def _explain(error: ValidationError, preset: str) -> str:
    """One line for each wrong value: the key, what is allowed and what was given."""
    lines = []
    for item in error.errors()[:_MOST_SHOWN]:
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        given = item.get("input")
        shown = f", got {one_line(repr(given), 80)}" if not isinstance(given, dict) else ""
        lines.append(f"{one_line(key, 80) + ': ' if key else ''}{one_line(message)}{shown}{_allowed(key)}")
    more = error.error_count() - len(lines)
    return f"configuration (preset {preset}): " + "; ".join(lines) + (f"; and {more} more" if more else "")


_MOST_SHOWN = 5
"""Wrong values that one message names."""


def _allowed(key: str) -> str:
    """The range of a number's key as text, from the model itself."""
    section, _, name = key.rpartition(".")
    model = Config.model_fields[section].annotation if section in Config.model_fields else None
    if not (isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields):
        return ""
    limits = {}
    for constraint in model.model_fields[name].metadata:
        for side in ("ge", "gt", "le", "lt"):
            if getattr(constraint, side, None) is not None:
                limits[side] = getattr(constraint, side)
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return f" (allowed: {' and '.join(f'{signs[s]} {v}' for s, v in limits.items())})" if limits else ""
