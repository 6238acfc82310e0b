"""Reads the catalog of weights, `catalog.toml` in this folder, into typed values."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from streamgate.errors import WeightsError

ROLES = ("detector", "recognizer", "pose", "expression", "ifqa")
"""The purposes for which networks are used."""

REQUIRED_ROLES = ("detector", "recognizer", "pose")
"""Roles that every run needs; the other roles are needed only for optional measures."""

IDENTITY_FMR = 1e-6
"""The false match rate for which identity thresholds are given: the share of pairs of different people that are taken
for one person."""

CONVERTER_VERSION = 1
"""Must be incremented whenever a change to a converter makes it write a different graph. Files that an older version
converted are stale."""

PACKAGED = ("embedded", "open")
"""Tiers that are shipped in the package: the default tier, and one intended to be trained without pictures that are
licensed for research only."""

TIERS = (*PACKAGED, "standard")
"""All tiers: those shipped in the package, and one that `streamgate models pull` downloads."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to download: its name on a mirror, its URL, its sha256 and its size in bytes."""

    file: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class SerfiqCalibration:
    """Mapping of SER-FIQ's raw value (docs/design.md 4.1): scalar = 100 / (1 + exp(-alpha (raw - r)))."""

    calibration_id: str
    drop_rate: float
    alpha: float
    r: float


@dataclass(frozen=True, slots=True)
class LogisticCalibration:
    """Mapping of a raw value (docs/design.md 4): scalar = 100 * sigmoid((raw - x0) / w)."""

    calibration_id: str
    x0: float
    w: float


Calibration = SerfiqCalibration | LogisticCalibration


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The picture format that a graph takes.

    A `uint8` graph takes RGB bytes in NHWC order, and normalises them itself. A `float32` graph takes values in NCHW
    order, with channels in the order `colour`; a value is (v - mean) * scale, where v is in 0..255.
    """

    dtype: str = "uint8"
    colour: str = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Entry:
    """A set of weights in the catalog, which `models pull` can fetch.

    `options` are passed to the converter. If they or the converter change, a converted file is stale. `output`
    describes the outputs of the graph, for roles whose graphs may differ in their outputs. `identity` has the
    `threshold` of a recognizer (see `parse_identity`).
    """

    name: str
    title: str
    roles: tuple[str, ...]
    tier: str
    licence: str
    training_data: str
    converter: str
    source: tuple[SourceFile, ...]
    input: InputSpec = field(default_factory=InputSpec)
    options: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    identity: Mapping[str, Any] | None = None


def load_catalog() -> tuple[Entry, ...]:
    """The entries of the catalog in the package, in the order of the file."""
    return parse_catalog(resources.files("streamgate.weights").joinpath("catalog.toml").read_text(encoding="utf-8"))


def parse_catalog(text: str) -> tuple[Entry, ...]:
    """The entries of a catalog in TOML, in order.

    Raises:
        WeightsError: the text is not a catalog, or an entry has a missing key, an unknown key or an invalid value.
    """
    try:
        return tuple(_entry(table) for table in tomllib.loads(text)["entry"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"the catalog of weights is not readable ({error})") from error


def _entry(table: Mapping[str, Any]) -> Entry:
    given = dict(table)
    given["roles"] = tuple(str(role) for role in given["roles"])
    given["source"] = tuple(_source(source) for source in given["source"])
    given["input"] = parse_input(given.get("input", {}), given["name"])
    given["calibration"] = parse_calibration(given.get("calibration"), given["name"])
    parse_identity(given.get("identity"), given["name"])
    return Entry(**given)


def _source(table: Mapping[str, Any]) -> SourceFile:
    source = SourceFile(**table)
    digits = set(str(source.sha256))
    # A file in the models folder gets this name, so the name must not contain a path.
    plain = isinstance(source.file, str) and source.file not in ("", ".", "..") and "/" not in source.file
    if not plain or len(source.sha256) != 64 or not digits <= set("0123456789abcdef") or int(source.size) <= 0:
        raise ValueError(f"source {source.file!r} must have a size, a sha256 and a file name without a path")
    return source


def parse_input(table: Mapping[str, Any], name: str) -> InputSpec:
    """The InputSpec in a table of a catalog, receipt or card.

    Raises:
        WeightsError: a value is not supported.
    """
    try:
        spec = InputSpec(
            dtype=str(table.get("dtype", "uint8")),
            colour=str(table.get("colour", "RGB")),
            mean=_triple(table.get("mean", (0.0, 0.0, 0.0))),
            scale=_triple(table.get("scale", (1.0, 1.0, 1.0))),
        )
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{name}: its `input` description is not readable ({error})") from error
    if spec.dtype not in ("uint8", "float32") or spec.colour not in ("RGB", "BGR"):
        raise WeightsError(f"{name}: `input` needs dtype uint8 or float32 and colour RGB or BGR")
    if spec.dtype == "uint8" and spec != InputSpec():
        raise WeightsError(f"{name}: a uint8 input must be RGB without mean and scale, because the graph normalises it")
    return spec


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def parse_calibration(table: Mapping[str, Any] | None, name: str) -> Calibration | None:
    """The calibration in a table of a catalog or card; None if there is no table. Its id has the key `id` or
    `calibration_id`.

    Raises:
        WeightsError: the table has neither {drop_rate, alpha, r} nor {x0, w}, or a value is out of range.
    """
    if not table:
        return None
    try:
        identity = str(table.get("id") or table["calibration_id"])
        if "alpha" in table:
            serfiq = SerfiqCalibration(identity, float(table["drop_rate"]), float(table["alpha"]), float(table["r"]))
            if serfiq.alpha <= 0 or not 0 < serfiq.drop_rate < 1:
                raise ValueError("alpha must be positive and drop_rate between 0 and 1")
            return serfiq
        logistic = LogisticCalibration(identity, float(table["x0"]), float(table["w"]))
        if logistic.w <= 0:
            raise ValueError("w must be positive")
        return logistic
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{name}: its calibration is not readable ({error})") from error


def parse_identity(table: Mapping[str, Any] | None, name: str) -> float | None:
    """The minimum similarity of two faces of one person (`threshold`), at a false match rate of 1e-6.

    None if the card or catalog has no threshold.

    Raises:
        WeightsError: the threshold is not a number between 0 and 1, or is for another false match rate.
    """
    if not table:
        return None
    try:
        threshold, rate = float(table["threshold"]), float(table["fmr"])
        if not 0 < threshold < 1 or rate != IDENTITY_FMR:
            raise ValueError(f"threshold must be between 0 and 1, and fmr must be {IDENTITY_FMR:g}")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{name}: its identity threshold is not readable ({error})") from error
    return threshold
