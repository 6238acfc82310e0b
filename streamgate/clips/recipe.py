"""Requirements for a clip, and how the clip is written: the presets in pipelines/clips."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from streamgate.config import Config, leaves, parse_setting, presets_folder, with_settings
from streamgate.errors import UsageError, one_line
from streamgate.measure_tables import Section
from streamgate.toml_text import read_toml

DEFAULT_RECIPE = "talking"
_MAX_CHAIN = 8
_Share = Annotated[float, Field(ge=0, le=1)]
_Seconds = Annotated[float, Field(ge=0.2, le=600)]
_NotNegative = Annotated[float, Field(ge=0, le=1e6)]


class ClipRules(Section):
    """Requirements for a clip."""

    min_seconds: _Seconds
    max_seconds: _Seconds
    max_bad: _Share
    bad_run_s: _NotNegative
    blink_s: _NotNegative
    one_face: _Share
    min_face_px: _NotNegative
    max_head_jitter: _NotNegative
    max_camera_jitter: _NotNegative
    min_movement: Annotated[float, Field(ge=0, le=100)]
    min_rotation: Annotated[float, Field(ge=0, le=100)]
    min_rotation_range: _NotNegative
    max_rotation_range: _NotNegative

    @model_validator(mode="after")
    def _ordered(self) -> ClipRules:
        if self.min_seconds > self.max_seconds:
            raise ValueError(f"min_seconds ({self.min_seconds:g}) must be <= max_seconds ({self.max_seconds:g})")
        return self


class ClipPicture(Section):
    """How a clip is written."""

    crop: Literal["none", "face"]
    size: Annotated[int, Field(ge=64, le=2048, multiple_of=2)]
    margin: Annotated[float, Field(ge=0, le=3)]
    fps: Annotated[float, Field(ge=0, le=120)]
    audio: Literal["copy", "wav16k", "none"]

    @property
    def rendered(self) -> bool:
        """Whether the frames of the clip differ from those of the source."""
        return self.crop != "none" or self.fps > 0


class Recipe(Section):
    """A clip preset; `measures` overrides settings of the run, by dotted key."""

    clip: ClipRules
    picture: ClipPicture
    measures: dict[str, float]

    def over(self, config: Config) -> Config:
        """The configuration for individual frames: the run's, with the limits of this recipe. Raises UsageError."""
        settings = [f"measures.{key}={value!r}" for key, value in self.measures.items()]
        # People open their mouths when they talk, so a clip does not require a neutral expression.
        return with_settings(config, settings, {"keep.expression": "any", "keep.min_quality": 0.0})


def recipe_names() -> list[str]:
    """Names that `clips --preset` accepts, in addition to paths."""
    return sorted(path.stem for path in (presets_folder() / "clips").glob("*.toml"))


def load_recipe(
    preset: str = DEFAULT_RECIPE, settings: Iterable[str] = (), flags: Mapping[str, Any] | None = None
) -> Recipe:
    """Load a recipe by name or from a TOML file; `key=value` strings override it, and named flags override both.

    A flag that was not given is None.

    Raises UsageError.
    """
    flat = _read(preset)
    given = [parse_setting(text) for text in settings]
    given += [(key, value) for key, value in (flags or {}).items() if value is not None]
    tree: dict[str, Any] = {"clip": {}, "picture": {}, "measures": {}}
    for key, value in [*flat.items(), *given]:
        table, _, rest = key.partition(".")
        if table not in tree or not rest:
            raise UsageError(
                f"{one_line(key, 80)}: not a key of a clip preset, which has clip.*, picture.* and measures.NAME.min "
                "and .max"
            )
        tree[table][rest] = value
    # The value "run" keeps the limit of the run.
    tree["measures"] = {key: value for key, value in tree["measures"].items() if value != "run"}
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"clip preset {one_line(preset)}: {where}: {one_line(first['msg'])}") from None


def _read(preset: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The dotted keys and values of a preset and of those that it extends."""
    path = Path(preset) if preset.endswith(".toml") or "/" in preset else presets_folder() / "clips" / f"{preset}.toml"
    if str(path) in seen or len(seen) > _MAX_CHAIN:
        raise UsageError(f"clip preset {one_line(preset)}: it extends itself, or its chain of extends is too long")
    try:
        own = read_toml(path, f"clip preset {one_line(str(path))}")
    except FileNotFoundError:
        near = difflib.get_close_matches(preset, recipe_names(), 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(recipe_names())}, or a .toml file"
        raise UsageError(f"there is no clip preset {one_line(preset)!r}: {hint}") from None
    foundation = presets_folder() / "clips" / f"{DEFAULT_RECIPE}.toml"
    base = own.pop("extends", None if path == foundation else DEFAULT_RECIPE)
    if base is not None and not isinstance(base, str):
        raise UsageError(f"clip preset {one_line(str(path))}: extends must be the name of a preset")
    return {**({} if base is None else _read(base, (*seen, str(path)))), **dict(leaves(own))}
