#!/usr/bin/env python3
"""Train the expression network's head `visible` on covered faces; the rest of the network keeps its weights.

    python models/expression/cutouts.py --hands FOLDER --things FOLDER --out DIR/covers.npz   # collect occluders
    TEACHER/bin/python models/expression/hands.py DIR/crops    # find frames with a real hand in front of the face
    python models/expression/visible.py --work DIR             # train, or continue a stopped run
    python models/expression/visible.py --work DIR --export    # only write the deliverables
    python models/expression/visible.py --smoke                # takes less than a minute

DIR is the folder of train.py. The head is trained with the crops in DIR, on the trunk of the newest checkpoint in DIR
or, if there is none, of the committed weights. Train it again whenever the trunk has changed. The head's own
checkpoints are written to DIR/visible. The first start loads the committed head unless --fresh is given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

# Threads that spin while they wait starve each other on a shared machine. This must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from models.common.checkpoint import load_latest  # noqa: E402
from models.common.images import DataError  # noqa: E402
from models.common.training import choose_device, load_config, resume, run, say, work_folder  # noqa: E402
from models.expression.batches import Augmentation  # noqa: E402
from models.expression.covered import CoveredBatches, Seen, Share, hand_masks  # noqa: E402
from models.expression.covers import KINDS, Bank  # noqa: E402
from models.expression.cutouts import load_bank  # noqa: E402
from models.expression.dataset import FaceSet, prepare  # noqa: E402
from models.expression.deploy import CARD_NAME, WARM_NAME, deploy_network  # noqa: E402
from models.expression.head import HeadSettings, HeadTrainer, separation  # noqa: E402
from models.expression.smoke import synthetic_bank, synthetic_crops  # noqa: E402
from models.expression.train import split  # noqa: E402

SMOKE = {
    "data": {"minimum_faces": 8, "held_out_clips": 0.3},
    "batch": {"size": 8},
    "visible": {"steps": 6, "warmup": 2, "ema": 0.8},
    "log": {"every": 3, "monitor": 6, "checkpoint": 3},
    "optimiser": {},
}
SEEN_NAME = "looked_at.toml"
_BARE, _EACH_KIND = 256, 48
"""Numbers of views of held-out faces for the log: of uncovered faces, and of faces with each kind of occluder."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data, weights or arguments (one line on stderr)."""
    args = parse(arguments)
    try:
        return train(args)
    except DataError as error:
        print(f"visible.py: {error}", file=sys.stderr)
        return 2


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, help="train.py's folder (default: $STREAMGATE_WORK/expression)")
    p.add_argument("--config", type=Path, default=HERE / "config.toml")
    p.add_argument("--cover-source", nargs="*", default=[], help="sources of the pictures in covers.npz, for the card")
    p.add_argument("--steps", type=int, help="total number of steps, instead of the config's")
    p.add_argument("--seed", type=int)
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    p.add_argument("--fresh", action="store_true", help="ignore the committed head")
    p.add_argument("--export", action="store_true", help="do not train: export the newest checkpoint")
    p.add_argument("--target", type=Path, default=HERE, help="folder for the exported files")
    p.add_argument("--smoke", action="store_true", help="one minute on synthetic faces; exports to DIR/smoke")
    return p.parse_args(arguments)


def train(args: argparse.Namespace) -> int:
    """Prepare the data, then run to the configured number of steps."""
    config = load_config(args, SMOKE)
    if args.steps is not None:
        config["visible"]["steps"] = args.steps
    work = work_folder(args.work, args.smoke, "expression")
    cv2.setNumThreads(1)
    device = choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.smoke:
        synthetic_crops(work / "crops")
    bank = synthetic_bank() if args.smoke else load_bank(work / "covers.npz")
    bases = [path.with_suffix("") for path in sorted((work / "crops").glob("*.json"))]
    faces = prepare([base for base in bases if base.with_suffix(".npz").is_file()], work / "aligned",
                    config["data"]["smallest_eyes"])  # fmt: skip
    if len(faces) < config["data"]["minimum_faces"]:
        raise DataError(f"only {len(faces)} labelled faces: at least {config['data']['minimum_faces']} are needed")
    chosen, held = split(faces, config["data"]["held_out_clips"], frozenset(config["data"]["leave_out"]))
    masks, seen = hand_masks(bases, faces), Seen.read(HERE / SEEN_NAME)
    say(f"{len(chosen)} faces to train on, {len(held)} held out; {len(masks)} with a hand in front of or next to them")
    trainer = HeadTrainer(config.make(HeadSettings, "visible"), config["seed"], device, args.precision == "bf16")
    base, _ = load_latest(work / "checkpoints")
    warm = torch.load(HERE / WARM_NAME, map_location="cpu", weights_only=True)
    trained, trunk = (warm, warm["network"]) if base is None else (base, base["average"])
    trainer.take_network(trunk)
    resume(trainer, work / "visible", None if args.fresh or args.smoke else HERE / WARM_NAME)
    say(f"device {device}, {args.precision}, at step {trainer.steps_done} of {trainer.settings.steps}")
    share, how = config.make(Share, "covers"), config.make(Augmentation, "augment")
    batches = CoveredBatches(faces, chosen, config["batch"]["size"], how, config["seed"], share, bank, masks, seen)
    views = held_out(faces, held, how, share, bank, masks, seen)

    def look() -> dict[str, float]:
        return separation(trainer.look(views[""]), {kind: trainer.look(views[kind]) for kind in KINDS})

    def told() -> str:
        return ", ".join(f"{name} {value:.2f}" for name, value in look().items())

    if not args.export:
        run(trainer, batches, told, config["log"], work / "visible")
    target = work / "smoke" if args.smoke else args.target
    card = json.loads((HERE / CARD_NAME).read_text())
    card["visible"] = {
        "training_steps": trainer.steps_done,
        "training_faces": len(chosen),
        "faces_with_hands": len(masks),
        "cover_sources": args.cover_source,
        "found_at_1_percent_lost": {name: round(value, 3) for name, value in look().items()},
    }
    wrote = deploy_network(trainer.whole(), int(trained["step"]), card, target)
    say(f"wrote {target}: {wrote}")
    return 0


def held_out(
    faces: FaceSet,
    held: np.ndarray,
    how: Augmentation,
    share: Share,
    bank: Bank,
    masks: dict[int, np.ndarray],
    seen: Seen,
) -> dict[str, np.ndarray]:
    """Crops of held-out faces by kind of occluder, "" for none; the same crops on every call."""
    drawn = CoveredBatches(faces, held, 1, how, 0, share, bank, masks, seen)
    rng = np.random.default_rng(0)
    bare = drawn.bare
    views = {}
    for kind, count in (("", _BARE), *((kind, _EACH_KIND) for kind in KINDS)):
        crops: list[np.ndarray] = []
        while len(crops) < min(count, 4 * len(bare)):
            view = drawn.covered_view(int(rng.choice(bare)), rng, kind)
            # If almost nothing of a face is hidden, it counts neither as uncovered nor as covered.
            if not kind or view.covered > 0.05:
                crops.append(view.crop)
        views[kind] = np.stack(crops)
    return views


if __name__ == "__main__":
    sys.exit(main())
