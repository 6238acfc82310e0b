#!/usr/bin/env python3
"""Train the expression network on pictures and clips with faces, which a teacher labels.

    python models/expression/train.py FOLDERS... --cut --work DIR        # find faces, write loose crops to DIR/crops
    TEACHER/bin/python models/expression/teacher.py face_landmarker.task DIR/crops   # label the crops
    python models/expression/train.py --work DIR                         # train, or continue a stopped run
    python models/expression/train.py --work DIR --export                # only write the deliverables
    python models/expression/train.py --smoke                            # takes less than a minute

A run is seeded and resumes from its newest intact checkpoint in DIR (default: $STREAMGATE_WORK/expression); the first
start loads the committed weights next to this file unless --fresh is given.
"""

from __future__ import annotations

import argparse
import hashlib
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

from models.common.images import DataError  # noqa: E402
from models.common.training import choose_device, load_config, resume, run, say, work_folder  # noqa: E402
from models.expression.batches import Augmentation, Batches  # noqa: E402
from models.expression.dataset import MARGIN, FaceSet, prepare  # noqa: E402
from models.expression.deploy import WARM_NAME, deploy  # noqa: E402
from models.expression.faces import cut  # noqa: E402
from models.expression.monitor import correlations, crops_of, told  # noqa: E402
from models.expression.smoke import synthetic_crops  # noqa: E402
from models.expression.trainer import Settings, Trainer  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks import Networks  # noqa: E402

SMOKE = {
    "data": {"minimum_faces": 8, "held_out_clips": 0.3},
    "batch": {"size": 8},
    "optimiser": {"steps": 6, "warmup": 2, "decay": 2, "ema": 0.8},
    "log": {"every": 3, "monitor": 6, "checkpoint": 3},
}
_MOST_HELD_OUT = 512


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data, weights or arguments (one line on stderr)."""
    args = parse(arguments)
    try:
        return train(args)
    except (DataError, StreamgateError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", nargs="*", type=Path, help="with --cut: folders of pictures and clips")
    p.add_argument("--cut", action="store_true", help="only find faces and write loose crops for the teacher")
    p.add_argument("--interval", type=float, default=0.12, help="with --cut: seconds between frames of a clip")
    p.add_argument("--longest", type=int, default=130, help="with --cut: maximum number of frames of a clip")
    p.add_argument("--work", type=Path, help="crops, aligned faces, checkpoints (default: $STREAMGATE_WORK/expression)")
    p.add_argument("--config", type=Path, default=HERE / "config.toml")
    p.add_argument("--name", nargs="*", help="names of the data sets on the card (default: names of the crops' files)")
    p.add_argument("--clip-source", nargs="*", default=[], help="sources of the clips, for the card")
    p.add_argument("--steps", type=int, help="total number of steps, instead of the config's")
    p.add_argument("--seed", type=int)
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    p.add_argument("--fresh", action="store_true", help="ignore the committed weights")
    p.add_argument("--export", action="store_true", help="do not train: export the newest checkpoint")
    p.add_argument("--target", type=Path, default=HERE, help="folder for the exported files")
    p.add_argument("--warm-only", action="store_true", help="export only the weights from which the next run starts")
    p.add_argument("--smoke", action="store_true", help="one minute on synthetic faces; exports to DIR/smoke")
    args = p.parse_args(arguments)
    if args.cut != bool(args.data):
        p.error("give folders of pictures and clips with --cut, and none without it")
    return args


def cut_all(args: argparse.Namespace, work: Path) -> int:
    """Write loose crops of the faces in every folder to work/crops."""
    with Networks.open("embedded", "cpu") as networks:
        for folder in args.data:
            if not folder.is_dir():
                raise DataError(f"{folder}: no such folder")
            count = cut(folder, work / "crops" / folder.name, networks, args.interval, args.longest)
            say(f"{folder.name}: {count} faces")
    return 0


def split(faces: FaceSet, share: float, leave_out: frozenset[str]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and the held-out faces. Clips (with all their frames) and stills are split by the hash of
    their name, so that the sets stay the same when data is added. Clips in `leave_out` are in neither set.

    share: share of the clips and stills that is held out.
    """

    def drawn(name: str) -> float:
        return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32

    held = np.array([drawn(clip or name) < share for clip, name in zip(faces.clips, faces.names, strict=True)])
    barred = np.array([clip in leave_out for clip in faces.clips])
    out = np.nonzero(held & ~barred)[0]
    return np.nonzero(~held & ~barred)[0], out[:: max(1, len(out) // _MOST_HELD_OUT)]


def train(args: argparse.Namespace) -> int:
    """Prepare the data, then run to the configured number of steps."""
    config = load_config(args, SMOKE)
    work = work_folder(args.work, args.smoke, "expression")
    cv2.setNumThreads(1)
    if args.cut:
        return cut_all(args, work)
    device = choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.smoke:
        synthetic_crops(work / "crops")
    bases = [
        path.with_suffix("") for path in sorted((work / "crops").glob("*.json")) if path.with_suffix(".npz").is_file()
    ]
    faces = prepare(bases, work / "aligned", config["data"]["smallest_eyes"])
    if len(faces) < config["data"]["minimum_faces"]:
        raise DataError(f"only {len(faces)} labelled faces: at least {config['data']['minimum_faces']} are needed")
    chosen, held = split(faces, config["data"]["held_out_clips"], frozenset(config["data"]["leave_out"]))
    clips = len({faces.clips[i] for i in chosen} - {""})
    say(f"{len(chosen)} faces to train on, {len(held)} held out; {clips} clips")
    settings = config.make(Settings, "loss", "optimiser")
    trainer = Trainer(settings, config["seed"], device, args.precision == "bf16")
    batches = Batches(faces, chosen, config["batch"]["size"], config.make(Augmentation, "augment"), config["seed"])
    trainer.fit_units(faces.points[chosen] - MARGIN, faces.signals[chosen])
    resume(trainer, work / "checkpoints", None if args.fresh or args.smoke else HERE / WARM_NAME)
    say(f"device {device}, {args.precision}, at step {trainer.steps_done} of {settings.steps}")
    crops = crops_of(faces, held)

    def look() -> str:
        return told(correlations(trainer.look(crops), faces.signals[held], faces.pose[held]))

    if not args.export:
        run(trainer, batches, look, config["log"], work / "checkpoints")
    found = correlations(trainer.look(crops), faces.signals[held], faces.pose[held])
    target = work / "smoke" if args.smoke else args.target
    sources = args.name or sorted({base.name for base in bases})
    wrote = deploy(
        trainer, found, len(chosen), clips, sources, args.clip_source, config["card"], target, args.warm_only
    )
    say(f"wrote {target}: {wrote}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
