"""The deliverables of a run: the ONNX file, its machine-readable card, and weights for the next run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.detector.trainer import Trainer
from streamgate.convert.export import write_onnx
from streamgate.convert.onnx_check import OPSET
from streamgate.convert.retinaface import MEAN_RGB, OUTPUTS, DetectorGraph, RetinaFace, export_detector

ONNX_NAME, CARD_NAME, WARM_NAME = "detector.onnx", "card.json", "detector_warm.pth"
VERSION = "1"


def deploy(
    trainer: Trainer, pictures: int, data_names: list[str], terms: dict[str, Any], target: Path, warm_only: bool
) -> str:
    """Write the deliverables into `target`, each by one rename; returns what was written, for the log.

    pictures: number of training pictures; terms: config.toml, [card]; warm_only: write only the weights for the next
    run.
    """
    target.mkdir(parents=True, exist_ok=True)
    replace(target / WARM_NAME, lambda part: torch.save(trainer.warm_state(), part))
    if warm_only:
        return f"{WARM_NAME} at step {trainer.steps_done}"
    network = trainer.average.to("cpu").eval()
    export_onnx(network, target / ONNX_NAME)
    trainer.average.to(trainer.device)
    card: dict[str, Any] = {
        "role": "detector",
        "roles": ["detector"],
        "name": terms["name"],
        "version": VERSION,
        "file": ONNX_NAME,
        "sha256": hashlib.sha256((target / ONNX_NAME).read_bytes()).hexdigest(),
        "licence": terms["licence"],
        "training_data": data_names,
        "training_steps": trainer.steps_done,
        "training_pictures": pictures,
        "distilled_from": terms["distilled_from"],
        "research_only": terms["research_only"],
        "input": {},
        "outputs": list(OUTPUTS),
        "opset": OPSET,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    replace(target / CARD_NAME, lambda part: part.write_text(json.dumps(card, indent=2) + "\n"))
    return f"{ONNX_NAME} {card['sha256'][:12]} at step {trainer.steps_done}"


def export_onnx(network: RetinaFace, path: Path) -> None:
    """Write a MobileNet-0.25 network whose input is RGB minus `MEAN_RGB`, with variable batch and picture size and
    with weights stored as float16. The graph's output is compared with torch's.
    """
    write_onnx(export_detector(DetectorGraph(network.eval(), MEAN_RGB, (1.0, 1.0, 1.0))), path)


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file by one rename."""
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)
