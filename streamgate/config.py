"""The typed configuration: a preset, overridden first by `--set key=value` and then by named flags.

The values are in `pipelines/*.toml`; `studio.toml` has all keys except those of measures, whose defaults are in the
measures' specs. Other keys have no defaults in the code, so these files show what a run uses. An unknown key is an
error that names the most similar known key.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from streamgate.config_sections import (
    AdvancedConfig,
    DecodingConfig,
    DetectionConfig,
    IdentityConfig,
    KeepConfig,
    LiveConfig,
    OutputConfig,
    PrecisionConfig,
    SerfiqConfig,
    SmoothingConfig,
    TrackingConfig,
)
from streamgate.errors import UsageError, one_line
from streamgate.measure_tables import MEASURE_TABLES, Section, defined_table, is_definition, measure_defaults
from streamgate.measures import MeasureSpec
from streamgate.measures.size import smallest_px
from streamgate.toml_text import parse_toml, read_toml


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
            raise ValueError("keep.per = person needs identities: set identity.store to session or disk")
        return self

    @model_validator(mode="after")
    def _windows_fit(self) -> Config:
        interval, dense = self.detection.interval_s, self.advanced.dense_interval_s
        if dense > interval:
            raise ValueError(f"advanced.dense_interval_s ({dense}) must be <= detection.interval_s ({interval})")
        if self.advanced.lookback_s < interval:
            raise ValueError(
                f"advanced.lookback_s ({self.advanced.lookback_s}) must be >= detection.interval_s "
                f"({interval}), because frames are held until the next detection"
            )
        return self

    @model_validator(mode="after")
    def _something_counts(self) -> Config:
        if not any(self.measures[name].weight > 0 for name in self.measures.used):
            raise ValueError("no used measure has a weight above 0, so faces cannot be ranked by quality")
        return self

    @property
    def measure_set(self) -> tuple[str, ...]:
        """Names of the measures in the run's set, in order.

        These are all measures in use; with `keep.expression = any`, those that require a neutral expression
        are left out.
        """
        at_rest = {spec.name for spec in self.measures.specs if spec.at_rest}
        return tuple(name for name in self.measures.used if self.keep.expression != "any" or name not in at_rest)

    @property
    def specs(self) -> tuple[MeasureSpec, ...]:
        """Specs of all measures, in the order of records; `use` tells which measures belong to the run's set."""
        used = set(self.measure_set)
        return tuple(replace(spec, use=spec.name in used) for spec in self.measures.specs)

    def smallest_face_px(self, width: int, height: int) -> float:
        """Minimum length of the shorter side of a kept face's box, in pixels of an upright `width` x `height` frame."""
        return smallest_px(self.measures["size"].limit("min"), width, height)


def presets_folder() -> Path:
    """Folder with the presets: inside the package if installed, next to it in a checkout."""
    inside = Path(__file__).parent / "pipelines"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "pipelines"


def preset_names() -> list[str]:
    """Names that `--preset` accepts, besides paths."""
    return sorted(path.stem for path in presets_folder().glob("*.toml"))


def load_config(
    preset: str | PathLike[str] = "studio",
    settings: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Build the configuration.

    Args:
        preset: a name of `preset_names()` or the path of a TOML file. The file may be partial: missing keys are taken
            from the preset that `extends` names, "studio" by default.
        settings: `key=value` strings with dotted keys and TOML values (`keep.fallback=best` needs no quotes).
        flags: dotted keys and the values of named flags, which take precedence; None values are ignored.

    With `keep.poses` = "all", limits on pose, expression and quality are lifted and pose has no weight, unless a
    setting or flag sets these keys.

    Raises:
        UsageError: an unknown preset or key, a value out of range, or contradictory values.
    """
    tree = _read_preset(str(preset))
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
        raise UsageError(_explain(error, f"preset {preset}")) from None


_ALL_POSES = {
    "measures.yaw.max": 90.0, "measures.pitch.max": 90.0, "measures.yaw.weight": 0.0, "measures.pitch.weight": 0.0,
    # In a profile view, the roll angle is not meaningful.
    "measures.roll.max": 180.0, "measures.roll.weight": 0.0,
    "keep.expression": "any", "keep.min_quality": 0.0,
}  # fmt: skip
"""If `keep.poses` is `all`: the values of these keys unless a setting or flag sets them, so that a turned head does not
count as a flaw."""


def stored_config(tree: Mapping[str, Any]) -> Config:
    """The configuration stored by an earlier run.

    Keys added since then have the values of the preset studio, and measures added since then are not used.

    Raises UsageError if `tree` has keys or values that this version does not know.
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
        raise UsageError(_explain(error, "stored by an earlier run")) from None


def with_settings(config: Config, settings: Iterable[str], flags: Mapping[str, Any] | None = None) -> Config:
    """`config` overridden by `key=value` strings and named flags; see `load_config`. Raises UsageError."""
    tree = config.model_dump(mode="json")
    tree["measures"] = {**measure_defaults(), **tree["measures"]}
    _lay_over(tree, settings, flags)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UsageError(_explain(error, "with the new settings")) from None


def differing_keys(one: Config, other: Config) -> list[str]:
    """Dotted keys in which two configurations differ, in order."""
    theirs = dict(leaves(other.model_dump(mode="json")))
    ours = dict(leaves(one.model_dump(mode="json")))
    return [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]


def _read_preset(preset: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    path = Path(preset) if preset.endswith(".toml") or "/" in preset else presets_folder() / f"{preset}.toml"
    if str(path) in seen:
        raise UsageError(f"preset {one_line(preset)}: it extends itself")
    if len(seen) > _MAX_CHAIN:
        raise UsageError(f"preset {one_line(preset)}: its chain of extends is longer than {_MAX_CHAIN} presets")
    try:
        own = read_toml(path, f"preset {one_line(str(path))}")
    except FileNotFoundError:
        near = difflib.get_close_matches(preset, preset_names(), 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"give {', '.join(preset_names())}, or a .toml file"
        raise UsageError(f"there is no preset {one_line(preset)!r}: {hint}") from None
    base_name = own.pop("extends", None if path == presets_folder() / "studio.toml" else "studio")
    if base_name is None:
        # In the base preset, measure keys that are not set have the default values of the measure specs.
        tables = {"measures": own.pop("measures", {})}
        tree = {**own, "measures": measure_defaults()}
        own = tables
    elif not isinstance(base_name, str):
        raise UsageError(f"preset {one_line(str(path))}: extends must be the name of a preset")
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
"""Maximum length of a chain of presets that extend one another."""


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield (dotted key, value) for all values that are not mappings, in order."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _lay_over(tree: dict[str, Any], settings: Iterable[str], flags: Mapping[str, Any] | None) -> None:
    """Apply `key=value` strings and then named flags to `tree`. Raises UsageError."""
    for setting in settings:
        key, value = parse_setting(setting)
        _assign(tree, key, value, f"--set {one_line(setting, 80)}")
    for key, value in (flags or {}).items():
        if value is not None:
            _assign(tree, key, value, key)


def parse_setting(setting: str) -> tuple[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {one_line(setting, 80)}: write key=value, for example --set measures.yaw.max=20")
    try:
        value = parse_toml(f"value = {text}", f"--set {one_line(setting, 80)}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    return key.strip(), value


def _assign(tree: dict[str, Any], key: str, value: Any, what: str) -> None:
    known = [name for name, _ in leaves(tree)]
    if key not in known:
        near = _nearest_key(key, known)
        hint = f"did you mean {near}?" if near else f"the sections are {', '.join(tree)}"
        raise UsageError(f"{what}: there is no key {one_line(key, 80)!r}; {hint}")
    if isinstance(value, bool) and not isinstance(dict(leaves(tree))[key], bool):
        raise UsageError(f"{what}: {key} does not accept true or false")
    node = tree
    *parents, leaf = key.split(".")
    for parent in parents:
        node = node[parent]
    node[leaf] = value


def _nearest_key(key: str, known: list[str]) -> str | None:
    """The known key most similar to `key`, which may have its words in another order or lack its section."""

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


def _explain(error: ValidationError, what: str) -> str:
    """A message with the key, the allowed range and the given value for each wrong value."""
    lines = []
    for item in error.errors()[:_MAX_SHOWN]:
        key = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        given = item.get("input")
        shown = f", got {one_line(repr(given), 80)}" if not isinstance(given, dict) else ""
        lines.append(f"{one_line(key, 80) + ': ' if key else ''}{one_line(message)}{shown}{_allowed(key)}")
    more = error.error_count() - len(lines)
    return f"configuration ({what}): " + "; ".join(lines) + (f"; and {more} more" if more else "")


_MAX_SHOWN = 5
"""Maximum number of wrong values in one message."""


def _allowed(key: str) -> str:
    """The allowed range of a numeric key as text; empty if there is none."""
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
