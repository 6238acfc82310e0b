"""The deliverables of a run: the ONNX file, its machine-readable card, and weights for the next run."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.common.images import DataError
from models.common.staging import staged
from models.common.training import halved
from models.recognizer.architecture import FaceGraph, export_onnx
from models.recognizer.covers import KINDS, draw_cover
from models.recognizer.eyes import Eyes
from models.recognizer.faces import FaceSet, centre
from models.recognizer.last_layer import Settings as LastLayer
from models.recognizer.last_layer import solved
from models.recognizer.trainer import Trainer
from streamgate.convert.calibrate import MIN_FACES, Fit, calibrate_serfiq, fit
from streamgate.convert.onnx_check import OPSET
from streamgate.networks import Recognizer
from streamgate.networks.sessions import Session
from streamgate.weights.store import from_card

ONNX_NAME, CARD_NAME, AFFINE_NAME = "recognizer.onnx", "card.json", "affine.npz"
WARM_NAME = "recognizer_warm.pth"
VERSION = "1"
TARGET_FMR = 1e-6
SAME_PICTURE = 0.9
"""Minimum cosine at which two faces count as one picture, in sets where every face should show a different person."""
MOST_PEOPLE = 2500
"""Maximum number of people; they give three million pairs, of which the most similar three thousand form the tail."""
_TAIL = 1e-3
"""Share of the impostor pairs, those with the highest similarities, to which the tail is fitted."""


@dataclass(frozen=True)
class Terms:
    """config.toml, [card]: what the card says about teachers, terms and people."""

    name: str
    licence: str
    research_only: bool
    people: str
    """What the calibration faces are, for example "LFW faces"."""
    one_each: str
    """Prefix of the names of pictures that each show a different person; empty: LFW file names identify the people."""
    distilled_from: list[str]


def deploy(
    trainer: Trainer,
    faces: FaceSet,
    clean: np.ndarray,
    last_layer: LastLayer,
    calibration: np.ndarray,
    eyes: Eyes | None,
    data_names: list[str],
    terms: Terms,
    target: Path,
    warm_only: bool,
) -> str:
    """Write the deliverables into `target`, each by one rename; returns what was written, for the log.

    clean: indices of the training faces on which the last layer is solved (last_layer.py). calibration: indices of
    faces not used for training. eyes: the head for the eyes; without it, the graph has no output `eyes`. warm_only:
    write only the weights for the next run, which have the last layer as it was trained.
    """
    target.mkdir(parents=True, exist_ok=True)
    warm = trainer.warm_state()
    if eyes is not None:
        warm["eyes"] = halved(eyes.state())
    _replace(target / WARM_NAME, lambda part: torch.save(warm, part))
    if warm_only:
        return f"{WARM_NAME} at step {trainer.steps_done}"
    # A card next to weights marks them as complete, so it is written last, after the calibration.
    with staged(target, ONNX_NAME, AFFINE_NAME, CARD_NAME) as stage:
        card = _make(trainer, faces, clean, last_layer, calibration, eyes, data_names, terms, stage)
    return f"{ONNX_NAME} {card['sha256'][:12]} at step {trainer.steps_done}"


def _make(
    trainer: Trainer,
    faces: FaceSet,
    clean: np.ndarray,
    last_layer: LastLayer,
    calibration: np.ndarray,
    eyes: Eyes | None,
    data_names: list[str],
    terms: Terms,
    target: Path,
) -> dict[str, Any]:
    """Write the graph, the last layer and the card into `target`; returns the card."""
    network = solved(trainer.average, faces, clean, last_layer, trainer.seed)
    head = None if eyes is None else eyes.head
    export_onnx(network, target / ONNX_NAME, head)
    weight, bias = (value.numpy() for value in network.backbone.last_affine())
    _replace(target / AFFINE_NAME, lambda part: _save_arrays(part, weight, bias))
    digest = _sha256(target / ONNX_NAME)
    card: dict[str, Any] = {
        "role": "recognizer",
        "roles": ["recognizer", "pose"],
        "name": terms.name,
        "version": VERSION,
        "file": ONNX_NAME,
        "sha256": digest,
        "affine": {"file": AFFINE_NAME, "sha256": _sha256(target / AFFINE_NAME)},
        "licence": terms.licence,
        "training_data": data_names,
        "training_steps": trainer.steps_done,
        "training_faces": len(faces.names) - len(calibration),
        "last_layer": f"ridge regression with dropout's penalty on {len(clean)} training faces, unchanged and degraded",
        "distilled_from": terms.distilled_from,
        "research_only": terms.research_only,
        "input": {},
        "outputs": list(FaceGraph(network, head).outputs),
        "opset": OPSET,
        "parameters": sum(p.numel() for module in (network, head) if module for p in module.parameters()),
    }
    if eyes is not None:
        card["eyes"] = eyes.figures
    _write(target / CARD_NAME, card)
    recognizer = _open(target)
    card["calibration"] = _calibration(recognizer, faces, calibration, network.drop_rate, digest, terms.people)
    card["measures"] = _measures(recognizer, faces, calibration, eyes, card["calibration"])
    card["identity"] = _identity(recognizer, faces, terms)
    _write(target / CARD_NAME, card)
    return card


def _calibration(
    recognizer: Recognizer, faces: FaceSet, indexes: np.ndarray, drop_rate: float, digest: str, people: str
) -> dict[str, Any] | None:
    """alpha and r, fitted by `convert/calibrate.py`; None if there are too few faces (a smoke run)."""
    if len(indexes) < MIN_FACES:
        return None
    names = hashlib.sha256("\n".join(faces.names[i] for i in indexes).encode()).hexdigest()[:8]
    crops = [centre(faces.faces[int(i)]) for i in indexes]
    found, fit = calibrate_serfiq(recognizer, crops, drop_rate, f"recognizer-{digest[:8]}-{names}")
    return {
        "calibration_id": found.calibration_id,
        "drop_rate": found.drop_rate,
        "alpha": round(found.alpha, 4),
        "r": round(found.r, 6),
        "set": f"{len(indexes)} {people}, each of a different person, none of which was used for training",
        "clean_median": round(fit.clean_median, 5),
        "worst": fit.worst,
        "worst_median": round(fit.worst_median, 5),
    }


def _measures(
    recognizer: Recognizer, faces: FaceSet, indexes: np.ndarray, eyes: Eyes | None, serfiq: dict[str, Any] | None
) -> dict[str, Any]:
    """x0 and w of `occlusion` and `eyes`, fitted on unchanged calibration faces, covered faces and closed eyes."""
    if serfiq is None:
        return {}
    crops = [centre(faces.faces[int(i)]) for i in indexes]
    clean = recognizer.run(np.stack(crops))
    assert clean.visible is not None
    hidden = {kind: _visible(recognizer, crops, kind) for kind in KINDS}
    found = {"occlusion": _entry(serfiq, "occlusion", fit(list(clean.visible), hidden), "the same with drawn covers")}
    if eyes is not None and eyes.closed is not None:
        assert clean.eyes is not None
        closed = recognizer.run(eyes.closed).eyes
        assert closed is not None
        said = f"{len(eyes.closed)} faces with closed eyes, none of which was used for training"
        found["eyes"] = _entry(serfiq, "eyes", fit(list(clean.eyes), {"closed": list(closed)}), said)
    return found


def _visible(recognizer: Recognizer, crops: list[np.ndarray], kind: str) -> list[float]:
    """Visible shares of the faces, each under a different random cover of the given kind."""
    covered = [draw_cover(crop, np.random.default_rng((9, i)), crops[i - 1], kind)[0] for i, crop in enumerate(crops)]
    found = recognizer.run(np.stack(covered)).visible
    assert found is not None
    return [float(value) for value in found]


def _entry(serfiq: dict[str, Any], measure: str, fitted: Fit, against: str) -> dict[str, Any]:
    return {
        "calibration_id": f"{serfiq['calibration_id']}-{measure}",
        "x0": round(fitted.x0, 4),
        "w": round(fitted.w, 5),
        "set": f"{serfiq['set']}; {against}",
        "clean_median": round(fitted.clean_median, 4),
        "worst": fitted.worst,
        "worst_median": round(fitted.worst_median, 4),
    }


def _identity(recognizer: Recognizer, faces: FaceSet, terms: Terms) -> dict[str, Any] | None:
    """Minimum cosine at which two faces count as one person; None if there are too few people.

    Other data sets have file names of the same form as LFW, but their names do not identify people.
    """
    one_each: dict[str, int] = {}
    for index, person in enumerate(faces.people()):
        if person is not None and faces.names[index].startswith("lfw"):
            one_each.setdefault(person, index)
    chosen = list(one_each.values())
    if terms.one_each:
        chosen = [index for index, name in enumerate(faces.names) if name.startswith(terms.one_each)]
        chosen = chosen[:: -(-len(chosen) // MOST_PEOPLE) or 1]
    if len(chosen) < 200:
        return None
    crops = [centre(faces.faces[index]) for index in chosen]
    parts = [recognizer.run(np.stack(crops[start : start + 256])).embedding for start in range(0, len(crops), 256)]
    embeddings = np.concatenate(parts)
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarities = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]
    said = f"{len(one_each)} LFW people outside View 2, most of whom are in the training set, without labels"
    if terms.one_each:
        # Legislators who changed their party are listed twice, with the same picture.
        similarities = similarities[similarities < SAME_PICTURE]
        said = f"{len(chosen)} {terms.people}; two pictures with a cosine of at least {SAME_PICTURE} count as one"
    return {
        "threshold": round(identity_threshold(similarities), 4),
        "fmr": TARGET_FMR,
        "how": f"from a generalised Pareto tail fitted to {len(similarities)} pairs of {said}",
    }


def identity_threshold(impostors: np.ndarray, fmr: float = TARGET_FMR) -> float:
    """The cosine that a share `fmr` of impostor pairs is expected to exceed.

    Let x be the amounts by which the highest 0.1 % of the cosines exceed the smallest of them. x follows a generalised
    Pareto distribution (Pickands 1975), which is fitted by probability-weighted moments (Hosking and Wallis 1987): with
    a0 = mean x and a1 = mean (1 - F) x, shape = 2 - a0 / (a0 - 2 a1), scale = 2 a0 a1 / (a0 - 2 a1). The threshold is
    read from the fitted distribution, beyond the range of the data.
    """
    start = float(np.quantile(impostors, 1 - _TAIL))
    excess = np.sort(impostors[impostors > start].astype(np.float64) - start)
    if len(excess) < 2 or not excess[-1] > excess[0]:
        raise DataError("the impostor similarities have no tail, because every face has the same embedding")
    above = 1 - (np.arange(1, len(excess) + 1) - 0.35) / len(excess)
    a0, a1 = float(excess.mean()), float((above * excess).mean())
    shape, scale = 2 - a0 / (a0 - 2 * a1), 2 * a0 * a1 / (a0 - 2 * a1)
    rarer = _TAIL / fmr
    # For shape 0 (an exponential tail), the first formula is the limit of the second.
    return start + scale * (math.log(rarer) if abs(shape) < 1e-6 else (rarer**shape - 1) / shape)


def _open(folder: Path) -> Recognizer:
    weights = from_card(folder, str(folder))
    assert weights is not None
    return Recognizer(Session(weights, "cpu"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _save_arrays(part: Path, weight: np.ndarray, bias: np.ndarray) -> None:
    with part.open("wb") as out:
        np.savez(out, weight=weight, bias=bias)


def _write(path: Path, card: dict[str, Any]) -> None:
    _replace(path, lambda part: part.write_text(json.dumps(card, indent=2) + "\n"))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)
