"""The catalog of weights: `catalog.toml` in this folder, read into typed values."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from streamgate.errors import WeightsError

ROLES = ("detector", "recognizer", "pose", "expression", "ifqa")
"""What a network can be used for."""

REQUIRED_ROLES = ("detector", "recognizer", "pose")
"""Roles without which nothing runs; the others serve optional measures."""

IDENTITY_FMR = 1e-6
"""False match rate of identity thresholds: the share of pairs of different people that they accept."""

CONVERTER_VERSION = 1
"""Incremented whenever a converter would write a different graph; files of an older version count as stale."""

PACKAGED = ("embedded", "open")
"""Sets that are shipped in the package: the default, and one with the provenance of every picture."""

TIERS = (*PACKAGED, "standard")
"""Where weights come from: shipped in the package, or fetched by `streamgate models pull`."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One upstream file: its name in a mirror, its URL, its sha256 and its size in bytes."""

    file: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class SerfiqCalibration:
    """Mapping of SER-FIQ's raw value for these weights (docs/design.md 4.1): 100 / (1 + exp(-alpha (raw - r)))."""

    calibration_id: str
    drop_rate: float
    alpha: float
    r: float


@dataclass(frozen=True, slots=True)
class LogisticCalibration:
    """scalar = 100 * sigmoid((raw - x0) / w) (docs/design.md 4)."""

    calibration_id: str
    x0: float
    w: float


Calibration = SerfiqCalibration | LogisticCalibration


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The picture format that a graph takes.

    `uint8` graphs take NHWC RGB bytes and normalise inside. `float32` graphs take NCHW, each channel
    (value - mean) * scale with value in 0..255, in the order `colour`.
    """

    dtype: str = "uint8"
    colour: str = "RGB"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One set of weights that can be pulled.

    `options` are passed to the converter; changing them (or the converter) makes a converted file stale.
    `output` tells the adapter what the graph's outputs mean where graphs of one role may differ. `identity` has a
    recognizer's `threshold`, see `parse_identity`.
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
    """The packaged catalog, in the order of the file."""
    return parse_catalog(resources.files("streamgate.weights").joinpath("catalog.toml").read_text(encoding="utf-8"))


def parse_catalog(text: str) -> tuple[Entry, ...]:
    """The entries of a catalog in TOML, in order.

    Raises:
        WeightsError: it is not a catalog, or an entry has a missing key, an unknown key or a value of the wrong type.
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
    # The name becomes a file in the models folder.
    plain = isinstance(source.file, str) and source.file not in ("", ".", "..") and "/" not in source.file
    if not plain or len(source.sha256) != 64 or not digits <= set("0123456789abcdef") or int(source.size) <= 0:
        raise ValueError(f"source {source.file!r} needs a plain name, a size and a sha256")
    return source


def parse_input(table: Mapping[str, Any], name: str) -> InputSpec:
    """An InputSpec from a catalog, receipt or card table.

    Raises:
        WeightsError: a key or value that no adapter supports.
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
        raise WeightsError(f"{name}: input {spec.dtype} {spec.colour} is not one of uint8|float32, RGB|BGR")
    if spec.dtype == "uint8" and spec != InputSpec():
        raise WeightsError(f"{name}: a uint8 input must be RGB without mean and scale, as the graph normalises it")
    return spec


def _triple(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def parse_calibration(table: Mapping[str, Any] | None, name: str) -> Calibration | None:
    """A calibration from a catalog or card table (`id` or `calibration_id`); None when there is none.

    Raises:
        WeightsError: neither {drop_rate, alpha, r} nor {x0, w}, or a slope that is not positive.
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
    """The similarity from which two faces count as one person (`threshold`), for a false match rate of 1e-6.

    None when the card or catalog has none.

    Raises:
        WeightsError: it is not a number between 0 and 1, or is for another false match rate.
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
