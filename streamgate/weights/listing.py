"""Lists the installed weights and checks that they are unchanged, for `models list` and `models verify`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from streamgate.errors import WeightsError
from streamgate.weights import store
from streamgate.weights.catalog import PACKAGED, TIERS, Calibration, Entry, load_catalog
from streamgate.weights.files import sha256_of


@dataclass(frozen=True, slots=True)
class ModelState:
    """A set of weights, as `models list` shows it.

    `state` is "ready", "stale" (`models pull` converts the weights again) or "missing".
    """

    name: str
    title: str
    roles: tuple[str, ...]
    tier: str
    state: str
    licence: str
    training_data: str
    calibration: Calibration | None
    size: int
    """Size in bytes: of the files to download (entries of the catalog), or of the ONNX file (all other weights)."""
    path: Path | None
    in_use: tuple[str, ...] = ()
    """Roles that these weights fill if `--models` is not given."""


def list_models() -> list[ModelState]:
    """The weights in the package, the imported weights, and all entries of the catalog. No file is hashed."""
    states = [
        ModelState(
            name=weights.name,
            title=weights.name,
            roles=weights.roles,
            tier=weights.tier,
            state="ready",
            licence=weights.licence,
            training_data=weights.training_data,
            calibration=weights.calibration,
            size=weights.path.stat().st_size,
            path=weights.path,
        )
        for tier in (*PACKAGED, store.IMPORTED)
        for weights in store.scan(tier)
    ]
    states += [_catalogued(entry) for entry in load_catalog()]
    used = _used()
    return [dataclasses.replace(state, in_use=used.get(state.path, ())) for state in states]


def _used() -> dict[Path | None, tuple[str, ...]]:
    """The roles that each file fills by default; empty if a required role has no weights."""
    try:
        found = store.resolve()
    except WeightsError:
        return {}
    return {
        weights.path: tuple(role for role, other in found.items() if other.path == weights.path)
        for weights in found.values()
    }


def _catalogued(entry: Entry) -> ModelState:
    folder = store.models_folder() / entry.name
    has_receipt = (folder / store.RECEIPT_NAME).is_file()
    weights = store.from_receipt(folder, entry.tier) if has_receipt else None
    return ModelState(
        name=entry.name,
        title=entry.title,
        roles=entry.roles,
        tier=entry.tier,
        state="ready" if weights else "stale" if has_receipt else "missing",
        licence=entry.licence,
        training_data=entry.training_data,
        calibration=entry.calibration,
        size=sum(source.size for source in entry.source),
        path=weights.path if weights else None,
    )


def verify() -> list[tuple[store.Weights, str]]:
    """Hash all installed weights. Returns each set with its problem and the remedy, or with "" if it is intact."""
    return [(weights, _damage(weights)) for tier in (*TIERS, store.IMPORTED) for weights in store.scan(tier)]


def _damage(weights: store.Weights) -> str:
    remedy = {
        **dict.fromkeys(PACKAGED, "reinstall streamgate"),
        "standard": "run `streamgate models pull`",
        store.IMPORTED: "run `streamgate models import` again",
    }.get(weights.tier, f"run `streamgate models pull {weights.tier}`")
    for path, expected in weights.files:
        if not path.is_file():
            return f"{path.name} is missing; {remedy}"
        if sha256_of(path) != expected:
            return f"{path.name} has changed; {remedy}"
    return ""
