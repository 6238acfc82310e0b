"""The deliverables of a run: the ONNX file, its machine-readable card, and weights for the next run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from models.common.staging import staged
from models.common.training import halved
from models.expression.architecture import OUTPUTS, POINTS, SIGNALS, ExpressionNetwork, export_onnx
from models.expression.trainer import Trainer
from streamgate.convert.onnx_check import OPSET
from streamgate.networks.alignment import EXPRESSION_EYE_DISTANCE, EXPRESSION_EYE_ROW, EXPRESSION_SIZE

ONNX_NAME, CARD_NAME, WARM_NAME = "expression.onnx", "card.json", "expression_warm.pth"
VERSION = "1"


def deploy(
    trainer: Trainer,
    agreement: Mapping[str, float],
    faces: int,
    clips: int,
    data_names: list[str],
    clip_sources: list[str],
    terms: Mapping[str, Any],
    target: Path,
    warm_only: bool,
) -> str:
    """Write the deliverables into `target`, each by one rename; returns what was written, for the log.

    agreement: correlation of each output with the teacher on held-out faces. faces, clips: number of training faces and
    clips. terms: the section [card] of config.toml. warm_only: write only the weights for the next run.
    """
    if warm_only:
        write_warm(trainer.average, trainer.steps_done, target)
        return f"{WARM_NAME} at step {trainer.steps_done}"
    card: dict[str, Any] = {
        "role": "expression",
        "roles": ["expression"],
        "name": terms["name"],
        "version": VERSION,
        "file": ONNX_NAME,
        "sha256": "",
        "licence": terms["licence"],
        "training_data": data_names,
        "training_steps": trainer.steps_done,
        "training_faces": faces,
        "training_clips": clips,
        "clip_sources": clip_sources,
        "distilled_from": terms["distilled_from"],
        "research_only": terms["research_only"],
        "input": {},
        "crop": {
            "size": list(EXPRESSION_SIZE),
            "eye_distance": EXPRESSION_EYE_DISTANCE,
            "eye_row": EXPRESSION_EYE_ROW,
        },
        "output": {"signals": list(SIGNALS), "points": list(POINTS)},
        "agreement": {name: round(value, 3) for name, value in agreement.items()},
    }
    return deploy_network(trainer.average, trainer.steps_done, card, target)


def deploy_network(
    network: ExpressionNetwork, steps: int, card: dict[str, Any], target: Path, kept: Path | None = None
) -> str:
    """Write a network, its card and the weights for the next run; returns what was written, for the log.

    card: its entries that depend on the file (sha256, outputs, ...) are updated. steps: training steps of the trunk.
    kept: an ONNX file of the same network; all outputs except `real` then stay bit-identical to those of this file.
    """
    write_warm(network, steps, target)
    with staged(target, ONNX_NAME, CARD_NAME) as stage:
        export_onnx(network, stage / ONNX_NAME, kept)
        digest = hashlib.sha256((stage / ONNX_NAME).read_bytes()).hexdigest()
        card |= {
            "sha256": digest,
            "outputs": list(OUTPUTS),
            "opset": OPSET,
            "parameters": sum(p.numel() for p in network.parameters()),
        }
        (stage / CARD_NAME).write_text(json.dumps(card, indent=2) + "\n")
    return f"{ONNX_NAME} {digest[:12]} at step {steps}"


def write_warm(network: ExpressionNetwork, steps: int, target: Path) -> None:
    """Write half-precision weights and the number of training steps, which are committed for the next run."""
    target.mkdir(parents=True, exist_ok=True)
    warm = {"step": steps, "network": halved(network.state_dict())}
    _replace(target / WARM_NAME, lambda part: torch.save(warm, part))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)
