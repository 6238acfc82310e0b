"""The deliverables of a run: the ONNX file, its machine-readable card, and weights for the next run."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.common.images import DataError, FaceCache, shrink_square
from models.ifqa.batches import SIDE
from models.ifqa.monitor import CHAINS, series
from models.ifqa.trainer import Trainer
from streamgate.convert.export import export, noise, write_onnx
from streamgate.convert.ifqa import FACE_ELLIPSE, INPUT_SIDE, OUTPUTS, Ifqa, IfqaScorer
from streamgate.convert.onnx_check import OPSET

ONNX_NAME, CARD_NAME, WARM_NAME, TEACHER_NAME = "ifqa.onnx", "card.json", "ifqa_warm.pth", "ifqa_teacher.pth"
VERSION = "2"
WORST = 0.92


def calibrate(trainer: Trainer, faces: np.ndarray, indexes: np.ndarray) -> dict[str, Any]:
    """Fit x0 and w of scalar = 100 * sigmoid((raw - x0) / w), so that the median score of clean faces is mapped to 90,
    and the median score under the worst degradation to 10.

    faces: the cache; indexes: faces of the cache that were not used for training. Every degradation is applied at
    severity 0.92, and the worst one is the one with the lowest median. Raises DataError if clean and degraded faces
    get about the same score.
    """
    clean_faces = np.stack([shrink_square(np.asarray(faces[i]), SIDE) for i in indexes])
    clean = float(np.median(trainer.scores(clean_faces)))
    medians = {}
    for kind in CHAINS:
        degraded = np.stack([series(kind, 11 * i).apply(f, WORST) for i, f in enumerate(clean_faces)])
        medians[kind] = float(np.median(trainer.scores(degraded)))
    worst = min(medians, key=medians.__getitem__)
    if clean - medians[worst] < 0.05 and trainer.steps_done > 100:
        raise DataError(
            f"the median score of clean faces is {clean:.3f}, and {medians[worst]:.3f} with the degradation '{worst}': "
            "the network has not learned to tell them apart, so nothing was written"
        )
    reach = math.log(9.0)  # sigmoid(log 9) = 0.9
    return {
        "x0": round((clean + medians[worst]) / 2, 5),
        "w": round(max(clean - medians[worst], 1e-3) / (2 * reach), 5),
        "clean_median": round(clean, 5),
        "worst": worst,
        "medians": {k: round(v, 5) for k, v in medians.items()},
        "faces": len(indexes),
    }


def deploy(
    trainer: Trainer,
    cache: FaceCache,
    calibration_indexes: np.ndarray,
    data_names: list[str],
    terms: dict[str, Any],
    target: Path,
) -> dict[str, Any]:
    """Write ifqa.onnx, card.json and ifqa_warm.pth into `target`, each by one rename; returns the card.

    calibration_indexes: faces of the cache that were not used for training; terms: config.toml, [card].
    """
    target.mkdir(parents=True, exist_ok=True)
    figures = calibrate(trainer, cache.faces, calibration_indexes)
    network = trainer.average.to("cpu").eval()
    export_onnx(network, target / ONNX_NAME)
    digest = hashlib.sha256((target / ONNX_NAME).read_bytes()).hexdigest()
    names = hashlib.sha256("\n".join(cache.names[i] for i in calibration_indexes).encode()).hexdigest()[:8]
    card = {
        "role": "ifqa",
        "roles": ["ifqa"],
        "name": terms["name"],
        "version": VERSION,
        "file": ONNX_NAME,
        "sha256": digest,
        "licence": terms["licence"],
        "training_data": data_names,
        "training_steps": trainer.steps_done,
        "training_faces": len(cache.names),
        "research_only": terms["research_only"],
        "input": {
            "name": "face",
            "size": [SIDE, SIDE],
            "alignment": "ffhq",
            "dtype": "float32",
            "colour": "RGB",
            "mean": [127.5] * 3,
            "scale": [1 / 127.5] * 3,
        },
        "outputs": {"score": "[N] 0..1", "map": "[N, 256, 256] 0..1"},
        "opset": OPSET,
        "calibration": {
            "x0": figures["x0"],
            "w": figures["w"],
            "calibration_id": f"ifqa-{digest[:8]}-{names}",
            "set": f"{figures['faces']} faces from the training sources, not used in any training step",
            "clean_median": figures["clean_median"],
            "worst": figures["worst"],
            "medians": figures["medians"],
        },
        "pool": "ellipse",
        "temperature": network.spec.temperature,
        "ellipse": list(FACE_ELLIPSE),
        "gmac": round(count_gmac(network), 3),
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    _write(target / CARD_NAME, (json.dumps(card, indent=2) + "\n").encode())
    warm = target / (WARM_NAME + ".part")
    torch.save(trainer.warm_state(), warm)
    os.replace(warm, target / WARM_NAME)
    trainer.average.to(trainer.device)
    return card


def export_onnx(network: Ifqa, path: Path) -> None:
    """Write one ONNX file, from `face` to `score` and `map`, for any batch size; weights are stored as float16.

    The graph's output is compared with torch's.
    """
    faces = noise(3, INPUT_SIDE, INPUT_SIDE, 3).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    model = export(IfqaScorer(network, "ellipse").float(), "face", OUTPUTS, faces[:2], faces)
    write_onnx(model, path)


def count_gmac(network: nn.Module) -> float:
    """Multiply-accumulate operations of the convolutions for one face of 256 x 256 px, in 10^9."""
    total = 0
    handles = []

    def count(module: nn.Conv2d, _: object, output: Tensor) -> None:
        nonlocal total
        kernel = module.kernel_size[0] * module.kernel_size[1] * module.in_channels // module.groups
        total += output.shape[1] * output.shape[2] * output.shape[3] * kernel

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(count))
    training = network.training
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, INPUT_SIDE, INPUT_SIDE))
    network.train(training)
    for handle in handles:
        handle.remove()
    return total / 1e9


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
