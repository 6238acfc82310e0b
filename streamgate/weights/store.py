"""Finds weights on this machine, and selects weights for each role.

A models folder has one subfolder for each set of weights. Each subfolder contains either `model.onnx` and
`receipt.json` (written by `models pull` and `models import`), or any ONNX file and `card.json` (written by the recipes
in `models/`, as in the package).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import WeightsError
from streamgate.weights.catalog import (
    CONVERTER_VERSION,
    PACKAGED,
    REQUIRED_ROLES,
    ROLES,
    TIERS,
    Calibration,
    Entry,
    InputSpec,
    LogisticCalibration,
    load_catalog,
    parse_calibration,
    parse_identity,
    parse_input,
)

ONNX_NAME = "model.onnx"
ARRAYS_NAME = "affine.npz"
RECEIPT_NAME = "receipt.json"
CARD_NAME = "card.json"
IMPORTED = "imported"


@dataclass(frozen=True, slots=True)
class CohortFile:
    """The cohort that normalises a recognizer's similarities; see `networks.cohort.Cohort`."""

    path: Path
    sha256: str
    nearest: int
    usual: float


@dataclass(frozen=True, slots=True)
class Weights:
    """An installed ONNX file, with the information from its receipt or card.

    Attributes:
        licence, training_data: texts for users.
        affine: a file with the matrix A and the vector c of the last affine layer (recognizers only).
        measures: calibrations of the graph's additional outputs, by measure.
        identity_threshold: the minimum similarity of two faces of one person, at a false match rate of 1e-6
            (recognizers only); None if it is unknown.
        cohort: normalises similarities (recognizers only); without a cohort, a similarity is the plain cosine.
    """

    name: str
    roles: tuple[str, ...]
    tier: str
    path: Path
    sha256: str
    licence: str
    training_data: str
    input: InputSpec
    output: Mapping[str, Any]
    calibration: Calibration | None
    affine: Path | None = None
    affine_sha256: str = ""
    measures: Mapping[str, LogisticCalibration] = field(default_factory=dict)
    identity_threshold: float | None = None
    cohort: CohortFile | None = None

    @property
    def files(self) -> list[tuple[Path, str]]:
        """Every file of these weights, with its sha256."""
        found = [(self.path, self.sha256)]
        if self.affine is not None:
            found.append((self.affine, self.affine_sha256))
        if self.cohort is not None:
            found.append((self.cohort.path, self.cohort.sha256))
        return found


def models_folder() -> Path:
    """The folder of pulled weights: $STREAMGATE_MODELS, or else streamgate/models in the user's cache folder."""
    chosen = os.environ.get("STREAMGATE_MODELS")
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "streamgate" / "models"


def imported_folder() -> Path:
    """The folder of the user's own weights, inside the models folder. It is written by `models import`."""
    return models_folder() / IMPORTED


def safe_name(text: str) -> str:
    """`text` converted to a folder name; the result may be empty.

    The name has at most 64 ASCII letters, digits, `.`, `_` and `-`, and no punctuation at its ends.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:64].strip("-._")


def embedded_folder() -> Path | None:
    """The folder of shipped weights, inside the package or, in a checkout, next to it. None if it does not exist."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "models", package.parent / "models"):
        if any(folder.glob(f"*/{CARD_NAME}")):
            return folder
    return None


def resolve(models: str = DEFAULT_MODELS) -> dict[str, Weights]:
    """The weights for each role, from "embedded", "open", "standard", "imported" or a folder with the same layout.

    `models` may be several of these, joined by commas, which are searched in order for each role. For example,
    "imported,embedded" uses imported weights, and weights of the package for the remaining roles. Sets that are not
    named are not used, because their licence may differ. Roles that only optional measures need may be missing. If
    there are several imported weights for a role, the latest are used.

    Raises:
        WeightsError: a folder does not exist or its weights have no role, or a required role has no weights.
    """
    found: dict[str, Weights] = {}
    for name in models.split(","):
        for weights in _weights_in(name.strip()):
            for role in weights.roles:
                found.setdefault(role, weights)
    needed = [role for role in REQUIRED_ROLES if role not in found]
    if needed:
        raise WeightsError(f"--models {models}: no weights for {', '.join(needed)}; {_remedy(models)}")
    return {role: found[role] for role in ROLES if role in found}


def _weights_in(name: str) -> list[Weights]:
    """The result of `scan` for one name of `--models`. Raises WeightsError if there are no usable weights."""
    if name in TIERS:
        return scan(name)
    if name == IMPORTED:
        if not (found := scan(IMPORTED)):
            raise WeightsError("there are no imported weights; import a file with `streamgate models import FILE`")
        return found
    if not name or not Path(name).expanduser().is_dir():
        raise WeightsError(f"models {name!r} is neither 'embedded', 'open', 'standard', 'imported' nor a folder")
    if not (found := scan(name)):
        raise WeightsError(
            f"models {name!r}: no weights in this folder; put each set into a subfolder with its card.json"
        )
    for weights in found:
        if not weights.roles:
            raise WeightsError(
                f"{weights.path.with_name(CARD_NAME)}: the card has no valid role; valid `roles`: {', '.join(ROLES)}"
            )
    return found


def _remedy(models: str) -> str:
    if models == "standard":
        return (
            f"run `streamgate models pull` (about 8 MB, into {models_folder()}), or set STREAMGATE_MODELS to a folder "
            "that has them"
        )
    if set(PACKAGED).intersection(models.split(",")):
        return "the package is damaged: install streamgate again"
    return f"add the weights of the package with --models {models},embedded"


def scan(tier: str) -> list[Weights]:
    """The usable weights of a tier or folder, sorted by folder name (imported weights: the latest first).

    Stale conversions are left out.
    """
    shipped = embedded_folder()
    indexes = {
        "embedded": shipped,
        "open": shipped and shipped / "open",
        "standard": models_folder(),
        IMPORTED: imported_folder(),
    }
    folder = indexes.get(tier, Path(tier).expanduser())
    if folder is None or not folder.is_dir():
        return []
    found = []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if (inner / RECEIPT_NAME).is_file():
            weights = from_receipt(inner, tier)
        elif (inner / CARD_NAME).is_file():
            weights = from_card(inner, tier)
        else:
            continue
        if weights is not None:
            found.append(weights)
    if tier == IMPORTED:
        found.sort(key=lambda one: str(_read_json(one.path.with_name(RECEIPT_NAME)).get("imported_at")), reverse=True)
    return found


def from_receipt(folder: Path, tier: str) -> Weights | None:
    """Weights that `pull` or `import` converted.

    None if the ONNX file is missing, or if the catalog or the converter has changed since the conversion.

    Raises:
        WeightsError: the receipt is not readable.
    """
    receipt = _read_json(folder / RECEIPT_NAME)
    if receipt.get("imported") is True:
        return _from_import(receipt, folder, tier)
    entry = next((entry for entry in load_catalog() if entry.name == receipt.get("name")), None)
    try:
        if entry is None or is_stale(receipt, entry) or not (folder / ONNX_NAME).is_file():
            return None
        arrays = receipt.get("arrays")
        return Weights(
            name=entry.name,
            roles=entry.roles,
            tier=entry.tier if tier in TIERS else tier,
            path=folder / ONNX_NAME,
            sha256=str(receipt["onnx"]["sha256"]),
            licence=entry.licence,
            training_data=entry.training_data,
            input=parse_input(receipt["input"], entry.name),
            output=entry.output,
            calibration=entry.calibration,
            affine=folder / ARRAYS_NAME if arrays else None,
            affine_sha256=str(arrays["sha256"]) if arrays else "",
            identity_threshold=parse_identity(entry.identity, entry.name),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise WeightsError(
            f"{folder / RECEIPT_NAME}: this version cannot read the receipt; run `streamgate models pull`"
        ) from error


def pulled(name: str, user: str) -> Weights:
    """The weights called `name` in the catalog, as installed by `pull`.

    Raises WeightsError, with a message that begins with `user`, if they are not installed.
    """
    folder = models_folder() / name
    entry = next(entry for entry in load_catalog() if entry.name == name)
    found = from_receipt(folder, entry.tier) if (folder / RECEIPT_NAME).is_file() else None
    if found is None:
        raise WeightsError(f"{user}: its weights are not installed; run `streamgate models pull {entry.tier}`")
    return found


def _from_import(receipt: Mapping[str, Any], folder: Path, tier: str) -> Weights | None:
    """Weights that `models import` converted. They are described only by their receipt; the catalog has no entry."""
    if not (folder / ONNX_NAME).is_file():
        return None
    try:
        name = str(receipt["name"])
        arrays = receipt.get("arrays")
        return Weights(
            name=name,
            roles=tuple(role for role in map(str, receipt["roles"]) if role in ROLES),
            tier=tier,
            path=folder / ONNX_NAME,
            sha256=str(receipt["onnx"]["sha256"]),
            licence=str(receipt.get("licence", "unknown")),
            training_data=str(receipt.get("training_data", "unknown")),
            input=parse_input(receipt["input"], name),
            output=dict(receipt.get("output") or {}),
            calibration=parse_calibration(receipt.get("calibration"), name),
            affine=folder / ARRAYS_NAME if arrays else None,
            affine_sha256=str(arrays["sha256"]) if arrays else "",
            identity_threshold=parse_identity(receipt.get("identity"), name),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise WeightsError(
            f"{folder / RECEIPT_NAME}: this version cannot read the receipt; run `streamgate models import` again"
        ) from error


def is_stale(receipt: Mapping[str, Any], entry: Entry) -> bool:
    """Whether weights were converted from other files, by another converter or with other options than in `entry`."""
    sources = [source.sha256 for source in entry.source]
    return (
        receipt.get("converter") != entry.converter
        or receipt.get("converter_version") != CONVERTER_VERSION
        or receipt.get("options") != dict(entry.options)
        or [source.get("sha256") for source in receipt.get("source", [])] != sources
    )


def from_card(folder: Path, tier: str) -> Weights | None:
    """Weights with a `card.json`; None if the ONNX file does not exist (its recipe has not been run yet).

    The card must have `sha256`. Optional keys are `file`, `name`, `roles`, `input`, `output`, `affine` {file, sha256},
    `calibration`, `measures` {NAME: calibration} and `identity` {threshold, fmr, cohort {file, sha256, nearest,
    usual}}.

    Raises:
        WeightsError: the card is not readable or has no sha256.
    """
    card = _read_json(folder / CARD_NAME)
    try:
        return _card_weights(folder, tier, card)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise WeightsError(f"{folder / CARD_NAME}: a value is missing or invalid ({error}); fix the card") from error


def _card_weights(folder: Path, tier: str, card: Mapping[str, Any]) -> Weights | None:
    path = _card_file(folder, card)
    if path is None:
        return None
    name = str(card.get("name", folder.name))
    if not isinstance(card.get("sha256"), str):
        raise WeightsError(f"{folder / CARD_NAME}: the card has no sha256 for {path.name}; add it")
    roles = tuple(str(role) for role in card.get("roles", [folder.name]))
    affine = card.get("affine") or {}
    return Weights(
        name=name,
        roles=tuple(role for role in roles if role in ROLES),
        tier=tier,
        path=path,
        sha256=str(card["sha256"]),
        licence=str(card.get("licence", card.get("license", "unknown"))),
        training_data=_words(card.get("training_data", "")),
        input=parse_input(card.get("input") or _default_input(roles), name),
        output=card.get("output") or {},
        calibration=parse_calibration(card.get("calibration"), name),
        affine=folder / str(affine["file"]) if affine else None,
        affine_sha256=str(affine.get("sha256", "")),
        measures=_measures(card.get("measures"), name),
        identity_threshold=parse_identity(card.get("identity"), name),
        cohort=_cohort(folder, (card.get("identity") or {}).get("cohort")),
    )


def _cohort(folder: Path, table: Mapping[str, Any] | None) -> CohortFile | None:
    """The cohort in the `identity` table of a card; None if there is none. Raises KeyError, TypeError, ValueError."""
    if not table:
        return None
    found = CohortFile(
        folder / Path(str(table["file"])).name, str(table["sha256"]), int(table["nearest"]), float(table["usual"])
    )
    if found.nearest < 1 or not -1 <= found.usual <= 1:
        raise ValueError("the `nearest` of a cohort must be at least 1, and its `usual` must be between -1 and 1")
    return found


def _measures(table: Any, name: str) -> dict[str, LogisticCalibration]:
    found = {}
    for measure, words in (table or {}).items():
        calibration = parse_calibration(words, f"{name}, {measure}")
        if not isinstance(calibration, LogisticCalibration):
            raise WeightsError(f"{name}: the calibration of {measure} must give x0 and w")
        found[str(measure)] = calibration
    return found


def _card_file(folder: Path, card: Mapping[str, Any]) -> Path | None:
    if "file" in card:
        path = folder / Path(str(card["file"])).name
        return path if path.is_file() else None
    files = sorted(folder.glob("*.onnx"))
    return files[0] if len(files) == 1 else None


def _default_input(roles: tuple[str, ...]) -> Mapping[str, Any]:
    """The input for weights whose card does not describe it: for IFQA as in docs/design.md 4.2, else uint8."""
    if "ifqa" in roles:
        return {"dtype": "float32", "mean": [127.5] * 3, "scale": [1 / 127.5] * 3}
    return {}


def _words(value: Any) -> str:
    """A text, or a list of texts joined into one."""
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} is not readable ({error}); remove its folder and install the weights again"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is not a JSON object; remove its folder and install the weights again")
    return content
