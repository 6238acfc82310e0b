#!/usr/bin/env python3
"""Train the head that adds landmarks to the published detector, and export the detector of `--models open`.

    python models/open/points.py face-detection-adas-0001.bin --labels DIR/label.txt... --work WORK
    python models/open/points.py face-detection-adas-0001.bin --export

`face-detection-adas-0001.bin` (FP16) and the `.xml` file next to it are from Open Model Zoo; ssd.py describes the
network. The label files are those of compose.py and heads.py. The head is trained on the labelled faces (parts.py). For
the log, it is evaluated in scenes (`models/detector/scenes.py`), wherever the published network finds a held-out face.
A run continues from the newest checkpoint in WORK; if there is none, it starts from the weights in head.pth or, with
--fresh, from random ones. --export only writes the detector, with the head in head.pth.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

# Threads that spin while they wait starve each other on a shared machine. This must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from models.common.images import DataError  # noqa: E402
from models.common.staging import staged  # noqa: E402
from models.common.training import (  # noqa: E402
    Config,
    adamw,
    cosine_factor,
    floats,
    halved,
    load_config,
    load_weights,
    resume,
    run,
    say,
    update_average,
    work_folder,
)
from models.detector import faces as rows_of  # noqa: E402
from models.detector.labels import read_labels  # noqa: E402
from models.detector.monitor import SIZES, held_out  # noqa: E402
from models.detector.pictures import LeaveOut, prepare  # noqa: E402
from models.detector.scenes import Composition, Scenes  # noqa: E402
from models.open.parts import Changes, Faces, PartBatches  # noqa: E402
from models.open.ssd import (  # noqa: E402
    AROUND,
    GROUPS,
    SCALE,
    SHA256,
    VALUES,
    Parts,
    Pixels,
    PointsHead,
    Published,
    corners,
    landmarks,
    planes,
    shrunk,
)
from streamgate.convert.export import export, noise, write_onnx  # noqa: E402
from streamgate.convert.onnx_check import OPSET  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks.layouts import LAYOUTS  # noqa: E402

LAYOUT = "boxes"
ONNX_NAME, CARD_NAME, HEAD_NAME = "detector.onnx", "card.json", "head.pth"
_FOUND, _OVERLAP = 0.5, 0.4
"""Minimum score at which a box is evaluated, and minimum intersection over union at which it matches a face."""
_NEAR = 0.1
"""Difference of the head's values at which the loss changes from square to absolute."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", type=Path, help="face-detection-adas-0001.bin (FP16), with its .xml next to it")
    p.add_argument("--labels", type=Path, nargs="*", default=[], help="label files, with the pictures in images/")
    p.add_argument("--work", type=Path, help="checkpoints and packed pictures (default: $STREAMGATE_WORK/points)")
    p.add_argument("--config", type=Path, default=HERE / "detector/config.toml")
    p.add_argument("--steps", type=int, help="total number of steps, instead of the config's")
    p.add_argument("--seed", type=int)
    p.add_argument("--fresh", action="store_true", help="ignore the head in head.pth")
    p.add_argument("--export", action="store_true", help="do not train: export with the head in head.pth")
    p.add_argument("--target", type=Path, help="folder of head.pth and the exported files (default: that of --config)")
    args = p.parse_args(arguments)
    if not args.labels and not args.export:
        p.error("give --labels (or --export)")
    args.smoke = False
    try:
        cv2.setNumThreads(1)
        published, config = Published(args.binary).eval(), load_config(args, {})
        target = args.target or args.config.parent
        if not args.export:
            train(args, published, config, target)
        say(f"wrote {deploy(published, config['card'], target)}")
    except (DataError, StreamgateError, OSError) as error:
        print(f"points.py: {error}", file=sys.stderr)
        return 2
    return 0


def train(args: argparse.Namespace, published: Published, config: Config, target: Path) -> None:
    """Train to the configured number of steps, and write the head into `target`."""
    torch.set_num_threads(1)
    work, data = work_folder(args.work, False, "points"), config["data"]
    labelled = [(file, read_labels(file)) for file in args.labels]
    least = data["minimum_pictures"]
    pictures = prepare([], [], labelled, LeaveOut(), work / "cache", None, data["at_most"], least)
    chosen, apart = held_out(pictures.sha256, pictures.backgrounds, data["held_out"])
    faces = Faces(pictures, chosen)
    if not len(faces):
        held = f"{len(apart)} pictures are held out"
        raise DataError(f"no face with landmarks to train on: {held}, and none of the other {len(chosen)} has one")
    scenes = Scenes(pictures, apart, config.make(Composition, "scene"))
    views = [scenes.draw(np.random.default_rng((77, i)), 320, 320) for i in range(data["held_out_scenes"])]
    trainer = PointsTrainer(config.make(Settings, "optimiser"), published, config["seed"])
    resume(trainer, work / "checkpoints", None if args.fresh else target / HEAD_NAME)
    say(f"{len(faces)} faces to train on, at step {trainer.steps_done} of {trainer.settings.steps}")
    batches = PartBatches(faces, data["batch"], config.make(Changes, "part"), config["seed"])
    run(trainer, batches, lambda: trainer.look(views), config["log"], work / "checkpoints")
    with staged(target, HEAD_NAME) as stage:
        told = {"step": trainer.steps_done, "faces": len(faces), "average": faces.average_values()}
        torch.save({**told, "head": halved(trainer.average.state_dict())}, stage / HEAD_NAME)


@dataclass(frozen=True)
class Settings:
    """config.toml, [optimiser]."""

    steps: int
    warmup: int
    rate: float
    ema: float
    weight_decay: float


class PointsTrainer:
    """State of a training run; `step(batch)` advances it by one step and returns the values for the log."""

    device = torch.device("cpu")

    def __init__(self, settings: Settings, published: Published, seed: int) -> None:
        torch.manual_seed(seed)
        self.settings, self.published, self.steps_done, self.started_at = settings, published, 0, 0
        self.parts, self.head = Parts(), PointsHead()
        self.average = copy.deepcopy(self.head).eval().requires_grad_(False)
        self.adam = adamw(self.head.parameters(), settings.rate, settings.weight_decay)

    def step(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """One update; returns the mean error of the landmarks in per cent of the longer side of the box."""
        s, done = self.settings, self.steps_done - self.started_at
        for group in self.adam.param_groups:
            group["lr"] = s.rate * cosine_factor(done, s.warmup, done / max(1, s.steps - self.started_at))
        part, values = torch.as_tensor(batch["part"]), torch.as_tensor(batch["values"])
        off = self.head.train()(planes(part)) - values
        self.adam.zero_grad(set_to_none=True)
        F.smooth_l1_loss(off, torch.zeros_like(off), beta=_NEAR).backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 5.0)
        self.adam.step()
        self.steps_done += 1
        update_average(self.average, self.head, s.ema, self.steps_done - self.started_at)
        return {"points %": 100 * SCALE * AROUND * float(off.detach().unflatten(1, (5, 2)).norm(dim=2).mean())}

    @torch.no_grad()
    def look(self, views: list[tuple[np.ndarray, np.ndarray]]) -> str:
        """Mean errors of the landmarks in held-out scenes, in per cent of the face's size, for each range of sizes.

        views: pictures uint8 [H, W, 3] RGB, and their faces float32 [M, 16] (`models/detector/faces.py`).
        """
        errors = []
        for picture, faces in views:
            image = torch.from_numpy(picture[None])
            smaller = shrunk(image)
            for group, one in zip(GROUPS, self.published(image), strict=True):
                boxes, labels = matched(one.scores[0], one.boxes[0], torch.from_numpy(faces))
                if not len(boxes):
                    continue
                parts = self.parts(smaller[group.shrink], boxes[None], group.shrink)
                off = landmarks(boxes, self.average(parts)) - labels[:, rows_of.POINTS]
                sides = rows_of.sides(labels.numpy())
                errors += list(zip(sides, off.unflatten(1, (5, 2)).norm(dim=2).mean(1).numpy() / sides, strict=True))
        table, told = np.array(errors).reshape(-1, 2), []
        for low, high in SIZES:
            part = table[(table[:, 0] >= low) & (table[:, 0] < high), 1]
            if len(part):
                told.append(f"{len(part)} boxes from {low:.0f} px: {100 * part.mean():.1f} %")
        return ", ".join(told) or "no face found"

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        parts = {"head": self.head.state_dict(), "average": self.average.state_dict(), "adam": self.adam.state_dict()}
        return {"step": self.steps_done, "started_at": self.started_at, **parts}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()` of an earlier run."""
        self.head.load_state_dict(state["head"])
        self.average.load_state_dict(state["average"])
        self.adam.load_state_dict(state["adam"])
        self.steps_done, self.started_at = int(state["step"]), int(state["started_at"])

    def load_warm(self, weights: Mapping[str, Any]) -> None:
        """Start from the head that an earlier run wrote, with a fresh optimiser."""
        for head in (self.head, self.average):
            head.load_state_dict(floats(weights["head"]))
        self.steps_done = self.started_at = int(weights["step"])


def matched(scores: Tensor, boxes: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The boxes of one picture that match labelled faces with landmarks (K, 4), and the face of each box (K, 16).

    scores (P,), boxes (P, 4): of `ssd.Found`; faces (M, 16): see `models/detector/faces.py`.
    """
    boxes = boxes[scores >= _FOUND]
    known = faces[(faces[:, rows_of.SCORE] == 1) & (faces[:, rows_of.HAS_POINTS] > 0)]
    if not len(known) or not len(boxes):
        return boxes[:0], faces[:0]
    shared, best = torch.from_numpy(rows_of.overlap(corners(boxes).numpy(), known[:, rows_of.BOX].numpy())).max(1)
    return boxes[shared >= _OVERLAP], known[best[shared >= _OVERLAP]]


def deploy(published: Published, terms: dict[str, Any], target: Path) -> str:
    """Write the detector, with the head in `target`/head.pth, and its card into `target`; returns what was written."""
    if not (target / HEAD_NAME).is_file():
        raise DataError(f"{target / HEAD_NAME}: there is no head; train one with --labels")
    trained, head = load_weights(target / HEAD_NAME), PointsHead()
    try:
        head.load_state_dict(floats(trained["head"]))
        told = {"training_steps": int(trained["step"]), "training_faces": int(trained["faces"])}
        graph = Pixels(published, head.eval(), trained["average"].reshape(VALUES))
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{target / HEAD_NAME}: not a head that points.py wrote; train one with --labels") from error
    model = export(graph, "face", LAYOUTS[LAYOUT].outputs, noise(1, 128, 192, 3), noise(2, 96, 160, 3), free_size=True)
    with staged(target, ONNX_NAME, CARD_NAME) as stage:
        write_onnx(model, stage / ONNX_NAME)
        digest = hashlib.sha256((stage / ONNX_NAME).read_bytes()).hexdigest()
        card = {
            "role": "detector",
            "roles": ["detector"],
            "name": terms["name"],
            "version": "1",
            "file": ONNX_NAME,
            "sha256": digest,
            "licence": terms["licence"],
            "training_data": terms["training_data"],
            **told,
            "distilled_from": terms["distilled_from"],
            "converted_from": {"file": "face-detection-adas-0001.bin", "sha256": SHA256},
            "research_only": terms["research_only"],
            "input": {},
            "output": {"layout": LAYOUT},
            "opset": OPSET,
        }
        (stage / CARD_NAME).write_text(json.dumps(card, indent=2) + "\n")
    return f"{target / ONNX_NAME} {digest[:12]}"


if __name__ == "__main__":
    sys.exit(main())
