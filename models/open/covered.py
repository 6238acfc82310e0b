#!/usr/bin/env python3
"""Train the head `visible` of the open expression network on portraits with drawn covers.

    python models/open/crops.py PICTURES... --labels labels.npz --out DIR
    python models/open/hands.py MAKEHUMAN/makehuman/data PICTURES... --out DIR/covers.npz
    python models/open/covered.py face_landmarker.task --work DIR

A run continues from the head in heads.pth, unless --fresh is given.

The covers are those used for the embedded network (`models/expression/covers.py`), except that hands are drawn and
textures come from the portraits. No photograph of a covered face is used. The head is written to
models/open/expression/heads.pth; landmarker.py then adds it to the network.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
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

from models.common.images import DataError  # noqa: E402
from models.common.training import adamw, cosine_factor, floats, read_config, say, update_average  # noqa: E402
from models.expression.architecture import visible_share  # noqa: E402
from models.expression.batches import Augmentation  # noqa: E402
from models.expression.covered import CoveredBatches, Seen, Share, View  # noqa: E402
from models.expression.covers import KINDS, covered_share  # noqa: E402
from models.expression.cutouts import load_bank  # noqa: E402
from models.expression.dataset import prepare  # noqa: E402
from models.expression.head import separation  # noqa: E402
from models.open.crops import NAME  # noqa: E402
from models.open.trunk import BOTTOM, CELLS, LEFT, RIGHT, TOP, CoveredHead, Trunk, read_heads, write_head  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402

_BARE, _EACH_KIND = 192, 32
"""Numbers of views of held-out faces for the log: of uncovered faces, and of faces with each kind of cover."""
_CELL = 12
"""Side of a cell of the head's map, in pixels of the crop. The map of 16 x 16 cells extends beyond the crop: its
corner is CORNER pixels (to the left, above) from that of the crop."""
CORNER = (32, 29)
_LIT = 0.2
"""Share of crops in coloured light."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("task", type=Path, help="face_landmarker.task as published by Google")
    p.add_argument("--work", type=Path, required=True, help="the folder with crops and covers.npz")
    p.add_argument("--config", type=Path, default=HERE / "expression/config.toml")
    p.add_argument("--steps", type=int, help="total number of steps, instead of the config's")
    p.add_argument("--fresh", action="store_true", help="start from random weights")
    p.add_argument("--target", type=Path, default=HERE / "expression", help="folder of heads.pth")
    args = p.parse_args(arguments)
    try:
        train(args)
    except (DataError, StreamgateError, OSError, ValueError) as error:
        print(f"covered.py: {error}", file=sys.stderr)
        return 2
    return 0


def train(args: argparse.Namespace) -> None:
    """Train the head, and write it. Raises DataError if there are too few faces."""
    config = read_config(args.config)
    settings = config["visible"]
    steps = args.steps or settings["steps"]
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.manual_seed(config["seed"])
    trunk = Trunk(args.task, "visible")
    faces = prepare([args.work / "crops" / NAME], args.work / "aligned", settings["smallest_eyes"])
    held = np.array([i for i, name in enumerate(faces.names) if int(name[:8], 16) % settings["held_out_of"] == 0])
    chosen = np.setdiff1d(np.arange(len(faces)), held)
    if not len(held) or not len(chosen):
        raise DataError(f"{args.work}: only {len(faces)} faces, too few to hold some of them out")
    bank = load_bank(args.work / "covers.npz")
    how, share = config.make(Augmentation, "augment"), config.make(Share, "covers")
    batches = MapBatches(faces, chosen, config["batch"]["size"], how, config["seed"], share, bank, {}, Seen())
    drawn = MapBatches(faces, held, 1, how, 0, share, bank, {}, Seen())
    views = {kind: _views(drawn, kind, count) for kind, count in (("", _BARE), *((k, _EACH_KIND) for k in KINDS))}
    say(f"{len(chosen)} faces to train on, {len(held)} held out")
    before = {} if args.fresh else read_heads(args.target)
    head, done = CoveredHead(), 0
    if "visible" in before:
        head.load_state_dict(floats(before["visible"]["weights"]))
        done = before["visible"]["card"]["training_steps"]
        steps = max(0, steps - done)
    average = copy.deepcopy(head).eval().requires_grad_(False)
    optimiser = adamw(head.parameters(), settings["rate"], settings["weight_decay"])

    def look() -> dict[str, float]:
        with torch.no_grad():
            seen = {kind: visible_share(average(trunk.maps(crops))[1]).numpy() for kind, crops in views.items()}
        return separation(seen[""], {kind: seen[kind] for kind in KINDS})

    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = settings["rate"] * cosine_factor(step, settings["warmup"], step / steps)
        losses = _step(head.train(), trunk, batches[done + step], optimiser, settings["cells"])
        update_average(average, head, settings["ema"], step + 1)
        if (step + 1) % config["log"]["every"] == 0:
            say(f"step {done + step + 1}/{done + steps}: extent {losses[0]:.3f}, cells {losses[1]:.3f}")
        if (step + 1) % config["log"]["monitor"] == 0:
            say(", ".join(f"{name} {value:.2f}" for name, value in look().items()))
            write_head(args.target, "visible", average, {"training_steps": done + step + 1})
    found = look()
    told = {
        "training_steps": done + steps,
        "training_faces": len(chosen),
        "training_data": ["portraits A, B", "drawn covers (E); hands from MakeHuman (D)"],
        "found_at_1_percent_lost": {name: round(value, 3) for name, value in found.items()},
    }
    write_head(args.target, "visible", average, told)
    say(f"wrote the head `visible` to {args.target}")


def _step(
    head: CoveredHead, trunk: Trunk, batch: dict[str, np.ndarray], optimiser: torch.optim.Optimizer, share: float
) -> tuple[float, float]:
    with torch.autocast("cpu", torch.bfloat16):
        logits, extent = (part.float() for part in head(trunk.maps(batch["face"])))
    covered, cells, weight = (torch.from_numpy(batch[name]) for name in ("covered", "cells", "weight"))
    whole = F.binary_cross_entropy_with_logits(extent, covered.sqrt())
    each = F.binary_cross_entropy_with_logits(logits, cells.clamp(0, 1), reduction="none")
    parts = (each * weight).sum() / weight.sum()
    optimiser.zero_grad(set_to_none=True)
    (whole + share * parts).backward()
    torch.nn.utils.clip_grad_norm_(head.parameters(), 5.0)
    optimiser.step()
    return float(whole.detach()), float(parts.detach())


class MapBatches(CoveredBatches):
    """Batches whose `cells` and `weight` are float32 [N, 13, 12], like the map of `CoveredHead`; some of the faces are
    in coloured light, as on a stage.
    """

    def _coloured(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return super()._coloured(coloured_light(crop, rng) if rng.random() < _LIT else crop, rng)

    def _told(self, crop: np.ndarray, hidden: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> View:
        cells = map_means(weights)
        share = map_means(hidden * weights) / np.maximum(cells, 1e-3)
        return View(self._coloured(crop, rng), covered_share(hidden, weights), share, np.minimum(cells, 1.0))


def coloured_light(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The crop, uint8 [height, width, 3] RGB, in the light of two coloured lamps, one on each side."""
    height, width = crop.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    along = (x - width / 2) * np.cos(angle) + (y - height / 2) * np.sin(angle)
    share = (1 / (1 + np.exp(-along / rng.uniform(8, 80))))[..., None]
    near, far = (np.exp(rng.normal(-0.15, 0.55, 3)) for _ in range(2))
    return np.clip(crop * (near * share + far * (1 - share)), 0, 255).astype(np.uint8)


def map_means(values: np.ndarray) -> np.ndarray:
    """Means over the cells of the head's map, float32 [13, 12], of values [144, 128] for the pixels of a crop; outside
    the crop, values count as 0.
    """
    across, down = CORNER
    square = np.zeros((16 * _CELL, 16 * _CELL), np.float32)
    square[down : down + values.shape[0], across : across + values.shape[1]] = values
    means = square.reshape(16, _CELL, 16, _CELL).mean(axis=(1, 3))[TOP:BOTTOM, LEFT:RIGHT]
    assert means.shape == CELLS
    return means


def _views(drawn: MapBatches, kind: str, count: int) -> np.ndarray:
    """Crops of held-out faces with one kind of cover ("": uncovered); the same crops on every call."""
    rng = np.random.default_rng((0, len(kind)))
    crops: list[Any] = []
    while len(crops) < count:
        view = drawn.covered_view(int(rng.choice(drawn.bare)), rng, kind)
        # If almost nothing of a face is hidden, it counts neither as uncovered nor as covered.
        if not kind or view.covered > 0.05:
            crops.append(view.crop)
    return np.stack(crops)


if __name__ == "__main__":
    sys.exit(main())
