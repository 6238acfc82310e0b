"""What a run leaves for users: the ONNX file, its machine-readable card, and weights for the next run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.common.images import DataError
from models.recognizer.faces import FaceSet, centre
from models.recognizer.teacher import NAME as TEACHER_NAME
from models.recognizer.trainer import Trainer
from streamgate.networks import Recognizer
from streamgate.networks.runtime import Session
from streamgate.zoo.calibrate import MIN_FACES, calibrate_serfiq
from streamgate.zoo.catalog import load_catalog
from streamgate.zoo.onnx_check import OPSET
from streamgate.zoo.recognizer import OUTPUTS, export_onnx
from streamgate.zoo.store import from_card

ONNX_NAME, CARD_NAME, AFFINE_NAME = "recognizer.onnx", "card.json", "affine.npz"
WARM_NAME = "recognizer_warm.pth"
VERSION = "1"
TARGET_FMR = 1e-6
_TAIL = 1e-3
"""The share of impostor pairs that the tail of their similarities is fitted to."""


def deploy(
    trainer: Trainer, faces: FaceSet, calibration: np.ndarray, data_names: list[str], target: Path, warm_only: bool
) -> str:
    """Write the deliverables into `target`, each by one rename; returns what was written, for the log.

    warm_only: only the next run's weights. calibration: indexes of faces kept out of training.
    """
    target.mkdir(parents=True, exist_ok=True)
    _replace(target / WARM_NAME, lambda part: torch.save(trainer.warm_state(), part))
    if warm_only:
        return f"{WARM_NAME} at step {trainer.steps_done}"
    # A card beside weights makes them count as shipped: it comes last, and only if they could be calibrated.
    with tempfile.TemporaryDirectory(dir=target) as made:
        stage = Path(made)
        card = _make(trainer, faces, calibration, data_names, stage)
        for name in (ONNX_NAME, AFFINE_NAME, CARD_NAME):
            os.replace(stage / name, target / name)
    return f"{ONNX_NAME} {card['sha256'][:12]} at step {trainer.steps_done}"


def _make(
    trainer: Trainer, faces: FaceSet, calibration: np.ndarray, data_names: list[str], target: Path
) -> dict[str, Any]:
    """Graph, last layer and card in `target`; returns the card."""
    network = trainer.average.to("cpu").eval()
    export_onnx(network, target / ONNX_NAME)
    weight, bias = (value.numpy() for value in network.backbone.last_affine())
    _replace(target / AFFINE_NAME, lambda part: _save_arrays(part, weight, bias))
    trainer.average.to(trainer.device)
    digest = _sha256(target / ONNX_NAME)
    teacher = next(entry for entry in load_catalog() if entry.name == TEACHER_NAME)
    card: dict[str, Any] = {
        "role": "recognizer",
        "roles": ["recognizer"],
        "name": "recognizer-slim",
        "version": VERSION,
        "file": ONNX_NAME,
        "sha256": digest,
        "affine": {"file": AFFINE_NAME, "sha256": _sha256(target / AFFINE_NAME)},
        "licence": "research and non-commercial use only (terms of the training faces)",
        "training_data": data_names,
        "training_steps": trainer.steps_done,
        "training_faces": len(faces.names) - len(calibration),
        "distilled_from": [
            f"{teacher.name} ({teacher.licence}; {teacher.training_data}): maps, embedding",
            "fsanet-headpose (MIT; 300W-LP, research use): pose",
        ],
        "research_only": True,
        "input": {},
        "outputs": list(OUTPUTS),
        "opset": OPSET,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    _write(target / CARD_NAME, card)
    recognizer = _open(target)
    card["calibration"] = _calibration(recognizer, faces, calibration, trainer.settings.drop_rate, digest)
    card["identity"] = _identity(recognizer, faces)
    _write(target / CARD_NAME, card)
    return card


def _calibration(
    recognizer: Recognizer, faces: FaceSet, indexes: np.ndarray, drop_rate: float, digest: str
) -> dict[str, Any] | None:
    """alpha and r as `zoo/calibrate.py` fits them; None where there are too few faces (a smoke run)."""
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
        "set": f"{len(indexes)} LFW faces, each of another person, nobody of them trained on",
        "clean_median": round(fit.clean_median, 5),
        "worst": fit.worst,
        "worst_median": round(fit.worst_median, 5),
    }


def _identity(recognizer: Recognizer, faces: FaceSet) -> dict[str, Any] | None:
    """Cosine from which two faces count as one person; None where there are too few people."""
    one_each: dict[str, int] = {}
    for index, person in enumerate(faces.people()):
        if person is not None:
            one_each.setdefault(person, index)
    if len(one_each) < 200:
        return None
    crops = np.stack([centre(faces.faces[index]) for index in one_each.values()])
    embeddings = recognizer.run(crops).embedding
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarities = (embeddings @ embeddings.T)[np.triu_indices(len(embeddings), 1)]
    return {
        "threshold": round(identity_threshold(similarities), 4),
        "fmr": TARGET_FMR,
        "how": f"exponential tail of {len(similarities)} pairs of {len(one_each)} people, partly trained on unlabelled",
    }


def identity_threshold(impostors: np.ndarray, fmr: float = TARGET_FMR) -> float:
    """Cosine that a share `fmr` of impostor pairs is expected to exceed.

    The highest 0.1 % exceed their own smallest by an exponentially distributed amount (the Pickands limit for light
    tails; cosines are bounded, so the true tail is lighter and the estimate on the safe side): what lies beyond the
    data is read from that line.
    """
    start = float(np.quantile(impostors, 1 - _TAIL))
    excess = impostors[impostors > start] - start
    if not len(excess):
        raise DataError("no tail of impostor similarities: every face has the same embedding")
    return start + float(excess.mean()) * math.log(_TAIL / fmr)


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
