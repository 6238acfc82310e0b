"""One typed configuration: preset < `--set key=value` < named flag.

The values live in `pipelines/*.toml`, complete in `studio.toml`; the code holds none, so what a user
reads there is what runs. A key that does not exist is an error naming the nearest one that does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from streamgate.errors import UsageError, one_line
from streamgate.measures.size import smallest_px
from streamgate.measuretables import MEASURE_TABLES, Section, defined_table, is_definition, measure_defaults
from streamgate.tomltext import NotToml, parse_toml, read_toml

Seconds = Annotated[float, Field(gt=0, le=3600)]
Share = Annotated[float, Field(ge=0, le=1)]
Angle = Annotated[float, Field(gt=-90, lt=90)]
Pixels = Annotated[int, Field(ge=1, le=1 << 30)]


class DecodingConfig(Section):
    """Which frames are not decoded at all, and which pictures are too large."""

    start_s: Annotated[float, Field(ge=0, le=1e7)]
    end_s: Annotated[float, Field(ge=0, le=1e7)]
    discard: Literal["none", "empty", "followed", "steady"]
    max_skip_s: Annotated[float, Field(ge=0, le=60)]
    max_pixels: Pixels

    @model_validator(mode="after")
    def _ordered(self) -> DecodingConfig:
        if self.end_s and self.end_s <= self.start_s:
            raise ValueError(f"end_s ({self.end_s:g}) must be after start_s ({self.start_s:g}), or 0 for the end")
        return self


class DetectionConfig(Section):
    """How often faces are looked for, and in which directions."""

    interval_s: Seconds
    sideways: bool


class TrackingConfig(Section):
    """When a track ends."""

    max_gap_s: Seconds


class AdvancedConfig(Section):
    """Tuning of detection, tracking and selection: no promise that a key stays or means the same."""

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
    """Windows of DESIGN 4.5."""

    short_s: Seconds
    long_s: Seconds

    @model_validator(mode="after")
    def _ordered(self) -> SmoothingConfig:
        if self.short_s > self.long_s:
            raise ValueError(f"short_s ({self.short_s}) must be <= long_s ({self.long_s})")
        return self


class KeepConfig(Section):
    """How many faces of a track or person are kept, and which of them are too many."""

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
                raise ValueError(f"{name} must ascend, got {list(edges)}")
        return self


class SerfiqConfig(Section):
    """Form of SER-FIQ (DESIGN 4.1)."""

    method: Literal["closed", "sampled"]
    samples: Annotated[int, Field(ge=2, le=10000)]
    seed: Annotated[int, Field(ge=0)]


class PrecisionConfig(Section):
    """Arithmetic of each role's network on a GPU; on the CPU it is fp32."""

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
    """What happens with embeddings, and when two tracks show one person."""

    store: Literal["none", "session", "disk"]
    threshold: Share
    only: str


class LiveConfig(Section):
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
    queue_tracked: Annotated[int, Field(ge=1, le=1000)]
    max_track_s: Seconds
    improved_interval_s: Seconds
    improved_gain: Annotated[float, Field(ge=0, le=100)]

    @model_validator(mode="after")
    def _ordered(self) -> LiveConfig:
        if self.backoff_min_s > self.backoff_max_s:
            raise ValueError(f"backoff_min_s ({self.backoff_min_s}) must be <= backoff_max_s ({self.backoff_max_s})")
        return self


class Config(Section):
    """The whole configuration of a run."""

    exhaustive: bool
    decoding: DecodingConfig
    detection: DetectionConfig
    tracking: TrackingConfig
    advanced: AdvancedConfig
    measures: MEASURE_TABLES
    smoothing: SmoothingConfig
    keep: KeepConfig
    serfiq: SerfiqConfig
    precision: PrecisionConfig
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
        interval, dense = self.detection.interval_s, self.advanced.dense_interval_s
        if dense > interval:
            raise ValueError(f"advanced.dense_interval_s ({dense}) must be <= detection.interval_s ({interval})")
        if self.advanced.lookback_s < interval:
            raise ValueError(
                f"advanced.lookback_s ({self.advanced.lookback_s}) must be >= detection.interval_s "
                f"({interval}): frames wait for the next detection"
            )
        return self

    @model_validator(mode="after")
    def _something_counts(self) -> Config:
        if not any(self.measures[name].weight > 0 for name in self.measures.used):
            raise ValueError("no measure in use has a weight above 0, so there is no quality to rank by")
        return self

    def smallest_face_px(self, width: int, height: int) -> float:
        """The shorter side of the smallest box that may be kept, in pixels of an upright `width` x `height` frame."""
        return smallest_px(self.measures["size"].limit("min"), width, height)


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

    With `keep.poses` = "all" the limits of yaw and pitch go up to 90, their weights to 0, and any expression and
    quality will do, unless a setting or flag gives them.

    Raises:
        UsageError: unknown preset or key, value outside its range, contradicting values.
    """
    tree = _read_preset(preset)
    settings = list(settings)
    _lay_over(tree, settings, flags)
    if tree["keep"]["poses"] == "all":
        given = {parse_setting(setting)[0] for setting in settings}
        given.update(key for key, value in (flags or {}).items() if value is not None)
        for key, value in _ALL_POSES.items():
            if key not in given:
                _assign(tree, key, value, key)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UsageError(_explain(error, preset)) from None


_ALL_POSES = {
    "measures.yaw.max": 90.0, "measures.pitch.max": 90.0, "measures.yaw.weight": 0.0, "measures.pitch.weight": 0.0,
    # Of a profile the angle of tilt says little.
    "measures.roll.max": 180.0, "measures.roll.weight": 0.0,
    "keep.expression": "any", "keep.min_quality": 0.0,
}  # fmt: skip
"""What `keep.poses=all` makes of these keys where they were not given: a turned head is no fault then."""


def stored_config(tree: Mapping[str, Any]) -> Config:
    """The configuration that an earlier run wrote down; what is new since then is as in studio, new measures unused.

    Raises UsageError when it has keys or values that this version does not know.
    """
    whole = _read_preset("studio")
    for name in whole["measures"].keys() - tree.get("measures", {}).keys():
        whole["measures"][name]["use"] = False
    for name, table in tree.get("measures", {}).items():
        if is_definition(table):
            whole["measures"][name] = defined_table(name, dict(table), Path(), "stored configuration")
    for key, value in leaves(tree):
        _assign(whole, key, value, "stored configuration")
    try:
        return Config.model_validate(whole)
    except ValidationError as error:
        raise UsageError(_explain(error, "as stored")) from None


def with_settings(config: Config, settings: Iterable[str], flags: Mapping[str, Any] | None = None) -> Config:
    """`config` with `key=value` texts and named flags laid over it; see `load_config`. Raises UsageError."""
    tree = config.model_dump(mode="json")
    tree["measures"] = {**measure_defaults(), **tree["measures"]}
    _lay_over(tree, settings, flags)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UsageError(_explain(error, "as tuned")) from None


def differing_keys(one: Config, other: Config) -> list[str]:
    """Dotted keys in which two configurations differ, in their order."""
    theirs = dict(leaves(other.model_dump(mode="json")))
    ours = dict(leaves(one.model_dump(mode="json")))
    return [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]


def _read_preset(preset: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    path = Path(preset) if preset.endswith(".toml") or "/" in preset else presets_folder() / f"{preset}.toml"
    if str(path) in seen:
        raise UsageError(f"preset {one_line(preset)}: it extends itself")
    if len(seen) > _MAX_CHAIN:
        raise UsageError(f"preset {one_line(preset)}: it extends more than {_MAX_CHAIN} others, one after the other")
    try:
        own = read_toml(path, f"preset {one_line(str(path))}")
    except FileNotFoundError:
        near = difflib.get_close_matches(preset, preset_names(), 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(preset_names())}, or a .toml file"
        raise UsageError(f"there is no preset {one_line(preset)!r}: {hint}") from None
    base_name = own.pop("extends", None if path == presets_folder() / "studio.toml" else "studio")
    if base_name is None:
        # The foundation: what it says nothing about the measures is as their specs have it.
        tables = {"measures": own.pop("measures", {})}
        tree = {**own, "measures": measure_defaults()}
        own = tables
    elif not isinstance(base_name, str):
        raise UsageError(f"preset {one_line(str(path))}: extends must be a preset's name")
    else:
        tree = _read_preset(base_name, (*seen, str(path)))
    what = f"preset {one_line(str(path))}"
    given = own.get("measures")
    if isinstance(given, dict):
        for name in [name for name, table in given.items() if is_definition(table)]:
            tree["measures"][name] = defined_table(name, given.pop(name), path.parent, what)
    for key, value in leaves(own):
        _assign(tree, key, value, f"{what}: {one_line(key, 80)}")
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
        key, value = parse_setting(setting)
        _assign(tree, key, value, f"--set {one_line(setting, 80)}")
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(tree, key, value, key)


def parse_setting(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {one_line(setting, 80)}: write it as key=value, for example --set measures.yaw.max=20")
    try:
        value = parse_toml(f"value = {text}", f"--set {one_line(setting, 80)}")["value"]
    except NotToml:
        value = text.strip()
    return key.strip(), value


def _assign(tree: dict[str, Any], key: str, value: Any, what: str) -> None:
    known = [name for name, _ in leaves(tree)]
    if key not in known:
        near = _nearest_key(key, known)
        hint = f"did you mean {near}?" if near else f"sections are {', '.join(tree)}"
        raise UsageError(f"{what}: there is no key {one_line(key, 80)!r}; {hint}")
    if isinstance(value, bool) and not isinstance(dict(leaves(tree))[key], bool):
        raise UsageError(f"{what}: {key} takes no true or false")
    node = tree
    *parents, leaf = key.split(".")
    for parent in parents:
        node = node[parent]
    node[leaf] = value


def _nearest_key(key: str, known: list[str]) -> str | None:
    """What a wrong key was meant to be: the words of the right one, in any order or without its section."""

    def words(name: str) -> str:
        return " ".join(sorted(re.split(r"[._]", name)))

    whole = next((name for name in known if name.endswith(f".{key}")), None)
    if whole is not None:
        return whole
    for form in (str, words, lambda name: name.rpartition(".")[2]):
        near = difflib.get_close_matches(form(key), [form(name) for name in known], 1, 0.7 if form is str else 0.5)
        if near:
            return next(name for name in known if form(name) == near[0])
    return None


def _explain(error: ValidationError, preset: str) -> str:
    """One line for each wrong value: the key, what is allowed and what was given."""
    lines = []
    for item in error.errors()[:_MAX_SHOWN]:
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        given = item.get("input")
        shown = f", got {one_line(repr(given), 80)}" if not isinstance(given, dict) else ""
        lines.append(f"{one_line(key, 80) + ': ' if key else ''}{one_line(message)}{shown}{_allowed(key)}")
    more = error.error_count() - len(lines)
    return f"configuration (preset {preset}): " + "; ".join(lines) + (f"; and {more} more" if more else "")


_MAX_SHOWN = 5
"""Wrong values that one message names."""


def _allowed(key: str) -> str:
    """The range of a number's key as text, from the model itself."""
    *sections, name = key.split(".")
    model: Any = Config
    for section in sections:
        field = model.model_fields.get(section) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = field.annotation if field is not None else None
    if not (isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields):
        return ""
    limits = {}
    for constraint in model.model_fields[name].metadata:
        for side in ("ge", "gt", "le", "lt"):
            if getattr(constraint, side, None) is not None:
                limits[side] = getattr(constraint, side)
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return f" (allowed: {' and '.join(f'{signs[s]} {v}' for s, v in limits.items())})" if limits else ""
