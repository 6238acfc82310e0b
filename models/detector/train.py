#!/usr/bin/env python3
"""Train the detector on pictures with faces, labelled by people or by the standard detector.

    python models/detector/train.py PICTURES... --backgrounds EVERYDAY... --work DIR   # train, or continue
    python models/detector/train.py --labels widerface/train/label.txt --work DIR      # labels made by people
    python models/detector/train.py PICTURES... --work DIR --export                    # only write the deliverables
    python models/detector/train.py --smoke                                            # under a minute

PICTURES are folders or tar files; the standard detector (`streamgate models pull`) labels them. --backgrounds are
everyday pictures: pictures without any detection become backgrounds and hard negatives. --labels takes files in the
format that RetinaFace published for WIDER FACE (models/detector/labels.py). Three options exclude pictures from
training: --leave-out takes evaluation pictures, --leave-out-people takes LFW pair lists, and --leave-out-digests takes
folders whose files are named after the first digits of the sha256 of a picture. A run is seeded and resumes from its
newest intact checkpoint in DIR (default: $STREAMGATE_WORK/detector). The first start loads the committed weights next
to --config unless --fresh is given.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

# Waiting threads must not spin: on a shared machine, they would starve other threads. Set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from models.common.images import DataError  # noqa: E402
from models.common.overlap import EvaluationSet  # noqa: E402
from models.common.training import Sums, choose_device, load_config, resume, run, say, terms, work_folder  # noqa: E402
from models.detector.batches import Batches  # noqa: E402
from models.detector.deploy import WARM_NAME, deploy  # noqa: E402
from models.detector.labels import read_labels  # noqa: E402
from models.detector.monitor import Monitor, held_out, table  # noqa: E402
from models.detector.pictures import LeaveOut, PictureSet, prepare  # noqa: E402
from models.detector.scenes import Composition, Scenes  # noqa: E402
from models.detector.smoke import synthetic_pictures  # noqa: E402
from models.detector.teacher import Teacher, load_teacher  # noqa: E402
from models.detector.trainer import Settings, Trainer  # noqa: E402
from models.recognizer.faces import people_in  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks.detector import Detector  # noqa: E402
from streamgate.networks.sessions import Session  # noqa: E402
from streamgate.weights.store import resolve  # noqa: E402

SMOKE = {
    "data": {"minimum_pictures": 4, "held_out": 2, "held_out_scenes": 2},
    "batch": {"early": [[2, 96, 128]], "late": [[2, 128, 96]]},
    "optimiser": {"calibrate": 1, "join": 7, "steps": 12, "warmup": 2, "decay": 4, "ema": 0.8},
    "log": {"every": 4, "monitor": 12, "checkpoint": 6},
}


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
    p.add_argument("data", nargs="*", type=Path, help="folders or tar files of pictures with faces")
    p.add_argument("--backgrounds", type=Path, nargs="*", default=[], help="folders or tar files of everyday pictures")
    p.add_argument("--labels", type=Path, nargs="*", default=[], help="label files, with the pictures in images/")
    p.add_argument("--work", type=Path, help="checkpoints and packed pictures (default: $STREAMGATE_WORK/detector)")
    p.add_argument("--config", type=Path, default=HERE / "config.toml")
    p.add_argument("--leave-out", type=Path, nargs="*", default=[], help="evaluation pictures")
    p.add_argument("--leave-out-people", type=Path, nargs="*", default=[], help="LFW pair lists")
    p.add_argument("--leave-out-digests", type=Path, nargs="*", default=[], help="folders of files named by sha256")
    p.add_argument("--name", nargs="*", help="names of the data sets on the card (default: names of the paths)")
    p.add_argument("--teacher", type=Path, help="checkpoint of the standard detector (default: the pulled file)")
    p.add_argument("--steps", type=int, help="total number of steps, instead of the config's")
    p.add_argument("--seed", type=int)
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    p.add_argument("--fresh", action="store_true", help="ignore the committed weights")
    p.add_argument("--export", action="store_true", help="do not train: export the newest checkpoint")
    p.add_argument("--target", type=Path, help="folder for the exported files (default: the folder of --config)")
    p.add_argument("--warm-only", action="store_true", help="export only the weights from which the next run starts")
    p.add_argument("--smoke", action="store_true", help="one minute on synthetic pictures; exports to DIR/smoke")
    args = p.parse_args(arguments)
    if not args.data and not args.labels and not args.smoke:
        p.error("give folders or tar files of pictures, or --labels (or --smoke)")
    return args


def read_pictures(args: argparse.Namespace, data: dict[str, Any], work: Path) -> PictureSet:
    """The training pictures, packed and labelled by this or an earlier run."""
    labelled = [(file, read_labels(file)) for file in args.labels]
    paths, backgrounds = args.data, args.backgrounds
    if args.smoke:
        faces, empty = synthetic_pictures(work / "pictures")
        paths, backgrounds = [faces], [empty]
    digests = frozenset(f.stem for folder in args.leave_out_digests for f in folder.rglob("*") if f.is_file())
    seen = EvaluationSet.read(args.leave_out) if args.leave_out else None
    leave_out = LeaveOut(people_in(args.leave_out_people), digests, seen)
    say(
        f"leaving out {len(leave_out.people)} people, {len(digests)} digests, "
        f"and pictures that look like one of {len(seen.names) if seen else 0} evaluation pictures"
    )
    # The detector is needed only to label PICTURES and --backgrounds.
    detector = Detector(Session(resolve("standard")["detector"], "cpu")) if paths or backgrounds else None
    return prepare(
        paths, backgrounds, labelled, leave_out, work / "cache", detector, data["at_most"], data["minimum_pictures"]
    )


def train(args: argparse.Namespace) -> int:
    """Prepare the data, then run to the configured number of steps."""
    config = load_config(args, SMOKE)
    work = work_folder(args.work, args.smoke, "detector")
    device = choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    teacher = Teacher(load_teacher(args.teacher), device)
    pictures = read_pictures(args, config["data"], work)
    chosen, apart = held_out(pictures.sha256, pictures.backgrounds, config["data"]["held_out"])
    told = ", ".join(f"{count} {reason}" for reason, count in pictures.counts.items())
    say(f"{len(chosen)} pictures to train on, {int(pictures.backgrounds.sum())} backgrounds among all; {told}")
    how = config.make(Composition, "scene")
    monitor = Monitor(Scenes(pictures, apart, how), config["data"]["held_out_scenes"])
    settings = config.make(Settings, "loss", "optimiser")
    half = args.precision == "bf16"
    trainer = Trainer(settings, teacher, config["seed"], device, half)
    # The committed weights are next to the config; another config has different weights, or none.
    warm = args.config.parent / WARM_NAME
    resume(trainer, work / "checkpoints", None if args.fresh or args.smoke else warm)
    say(f"device {device}, {args.precision}, at step {trainer.steps_done} of {trainer.settings.steps}")
    if not args.export:
        shapes = config["batch"]
        batches = Batches(Scenes(pictures, chosen, how), shapes["early"], shapes["late"], settings.join, config["seed"])
        run(trainer, batches, lambda: table(monitor.look(trainer)), config["log"], work / "checkpoints", tell)
    target = work / "smoke" if args.smoke else args.target or args.config.parent
    paths = [*args.data, *args.backgrounds, *args.labels]
    names = args.name or (["synthetic"] if args.smoke else [p.name for p in paths])
    wrote = deploy(trainer, len(chosen), names, config["card"], target, args.warm_only)
    say(f"wrote {target}: {wrote}")
    return 0


def tell(sums: Sums) -> str:
    """The loss terms, and the unexplained variance of each unit in per cent."""
    maps = " ".join(f"{100 * np.mean(v):.1f}" for k, v in sums.items() if k.startswith("map_"))
    return f"{terms({k: v for k, v in sums.items() if not k.startswith('map_')})} maps % {maps}"


if __name__ == "__main__":
    sys.exit(main())
