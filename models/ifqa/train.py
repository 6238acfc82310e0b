#!/usr/bin/env python3
"""Train the small IFQA on folders or tar files of clean, FFHQ-aligned faces (at least 512 px by default).

    python models/ifqa/train.py FACES... --work DIR            # train, or continue a stopped run
    python models/ifqa/train.py FACES... --work DIR --export   # only write the deliverables
    python models/ifqa/train.py FACES... --work DIR --export --average OTHER/ifqa_warm.pth --share 0.35
    python models/ifqa/train.py --smoke                        # takes about a minute

A run is seeded and resumes from its newest intact checkpoint in DIR (default: $STREAMGATE_WORK/ifqa). Unless --fresh is
given, the first start loads two files from the folder of --config, if they exist: `ifqa_warm.pth`, the committed
weights, and `ifqa_teacher.pth`, the larger network from which the small network learns in its first steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

# Threads that spin while they wait starve each other on a shared machine. This must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from models.common.images import DataError, FaceCache, build_cache  # noqa: E402
from models.common.overlap import EvaluationSet, find_overlaps  # noqa: E402
from models.common.smoke import synthetic_faces  # noqa: E402
from models.common.training import choose_device, load_config, resume, run, say, work_folder  # noqa: E402
from models.ifqa.batches import SIDE, Batches, BatchSizes  # noqa: E402
from models.ifqa.deploy import TEACHER_NAME, WARM_NAME, deploy  # noqa: E402
from models.ifqa.films import build_films  # noqa: E402
from models.ifqa.monitor import Monitor, table  # noqa: E402
from models.ifqa.trainer import Settings, Trainer, bf16_is_faster  # noqa: E402

SMOKE = {
    "data": {"cache_px": 256, "minimum_faces": 8, "held_out": 4, "calibration": 4, "films": 8},
    "batch": {
        "pairs": 3,
        "swaps": 2,
        "restored": 2,
        "restored_swaps": 1,
        "graded_groups": 1,
        "graded_faces": 2,
        "graded_severities": 2,
        "steady": 2,
        "kept": 1,
        "unreal": 2,
        "everyday": 2,
    },
    "optimiser": {"steps": 12, "warmup": 2, "decay": 4, "ema": 0.8},
    "log": {"every": 4, "monitor": 12, "checkpoint": 6},
}


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    args = parse(arguments)
    try:
        return train(args)
    except DataError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", nargs="*", type=Path, help="folders or tar files of clean FFHQ-aligned faces")
    p.add_argument("--unreal", type=Path, nargs="*", default=[], help="aligned drawings, renders, puppets, statues")
    p.add_argument(
        "--everyday", type=Path, nargs="*", default=[], help="aligned photographs and video frames of everyday quality"
    )
    p.add_argument("--work", type=Path, help="checkpoints and decoded faces (default: $STREAMGATE_WORK/ifqa)")
    p.add_argument("--config", type=Path, default=HERE / "config.toml")
    p.add_argument("--leave-out", type=Path, nargs="*", default=[], help="evaluation pictures, not used for training")
    p.add_argument("--name", nargs="*", help="names of the data sets on the card (default: names of the paths)")
    p.add_argument("--steps", type=int, help="total number of steps, instead of the config's")
    p.add_argument("--seed", type=int)
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument(
        "--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: measure which one is faster"
    )
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    p.add_argument("--fresh", action="store_true", help="ignore the committed weights and the teacher")
    p.add_argument("--export", action="store_true", help="do not train: export the newest checkpoint")
    p.add_argument(
        "--average",
        type=Path,
        metavar="PTH",
        help="with --export: average the weights with those of another run (its ifqa_warm.pth) that started from the "
        "same weights",
    )
    p.add_argument("--share", type=float, default=0.5, help="weight of the other run in this average, 0..1")
    p.add_argument("--target", type=Path, help="folder for the exported files (default: the folder of --config)")
    p.add_argument("--smoke", action="store_true", help="one minute on synthetic faces; exports to DIR/smoke")
    args = p.parse_args(arguments)
    if not args.data and not args.smoke:
        p.error("give folders or tar files of aligned faces (or --smoke)")
    if args.average and (not args.export or not 0 <= args.share <= 1):
        p.error("--average needs --export, and a --share from 0 to 1")
    return args


@dataclasses.dataclass(frozen=True)
class Split:
    """Indices of the cached faces in three disjoint sets."""

    train: np.ndarray
    held_out: np.ndarray
    calibration: np.ndarray


def split_faces(cache: FaceCache, data: dict[str, Any], dropped: set[int]) -> Split:
    """Split the faces by content, so that the sets change little when a few faces are added.

    data: config.toml, [data]; dropped: indices of faces that are left out. Raises DataError if too few faces remain.
    """
    order = np.array(sorted((i for i in range(len(cache.names)) if i not in dropped), key=lambda i: cache.sha256[i]))
    if len(order) < data["minimum_faces"]:
        raise DataError(
            f"only {len(order)} faces remain after leaving out evaluation pictures: at least {data['minimum_faces']} "
            "are needed"
        )
    held, calibration = data["held_out"], data["calibration"]
    return Split(order[held + calibration :], order[:held], order[held : held + calibration])


def aligned_faces(
    paths: list[Path], kind: str, work: Path, evaluation: EvaluationSet | None = None
) -> np.ndarray | None:
    """Aligned faces, uint8 [n, 256, 256, 3], decoded once and cached in `work`; None if `paths` is empty.

    kind: what the pictures show, for the log; evaluation: pictures that must not be used for training.
    """
    if not paths:
        return None
    cache = build_cache(paths, work / "cache", SIDE)
    same = frozenset(cache.sha256[o.index] for o in find_overlaps(cache, evaluation)) if evaluation else frozenset()
    if same:
        cache = build_cache(paths, work / "cache", SIDE, leave_out=same)
    say(f"{len(cache.names)} {kind}, {cache.skipped_small} too small, {len(same)} left out for overlap")
    return cache.faces


def train(args: argparse.Namespace) -> int:
    """Prepare the data, then run to the configured number of steps."""
    config = load_config(args, SMOKE)
    work = work_folder(args.work, args.smoke, "ifqa")
    device = choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    data, names = args.data, args.name or [p.name for p in args.data]
    if args.smoke:
        data, names = [synthetic_faces(work / "faces")], ["synthetic"]
        args.unreal = args.everyday = data
    sizes, settings = config.make(BatchSizes, "batch"), config.make(Settings, "loss", "optimiser")
    if not args.export and sizes.everyday and not args.everyday:
        raise DataError("the configuration needs everyday photographs: give their folders with --everyday")
    if not args.export and args.everyday and not sizes.everyday:
        raise DataError(f"{args.config}: [batch] has no everyday photographs, so --everyday would have no effect")
    say(f"reading {', '.join(map(str, data))}")
    cache = build_cache(data, work / "cache", config["data"]["cache_px"], config["data"]["minimum_faces"])
    evaluation = EvaluationSet.read(args.leave_out) if args.leave_out else None
    overlaps = find_overlaps(cache, evaluation) if evaluation else []
    (work / "overlaps.json").write_text(json.dumps([dataclasses.asdict(o) for o in overlaps], indent=1))
    split = split_faces(cache, config["data"], {o.index for o in overlaps})
    say(
        f"{len(split.train)} faces to train on, {len(split.held_out)} held out, "
        f"{len(split.calibration)} for calibration, {len(overlaps)} left out for overlap, "
        f"{cache.skipped_small} too small, {cache.skipped_unreadable} unreadable"
    )
    half = bf16_is_faster(device) if args.precision == "auto" else args.precision == "bf16"
    trainer = Trainer(settings, sizes.restored, config["seed"], device, half)
    # The committed weights and the teacher are next to the config; another config has different ones, or none.
    folder = args.config.parent
    teacher = folder / TEACHER_NAME
    if teacher.is_file() and not args.fresh:
        trainer.load_teacher(torch.load(teacher, map_location="cpu", weights_only=True))
    resume(trainer, work / "checkpoints", None if args.fresh or args.smoke else folder / WARM_NAME)
    precision = "bfloat16 autocast" if half else "float32"
    say(f"device {device}, {precision}, at step {trainer.steps_done} of {settings.steps}")
    if args.average:
        try:
            other = torch.load(args.average, map_location="cpu", weights_only=True)
            trainer.average_with(other, args.share)
        except (OSError, KeyError, TypeError, AttributeError, RuntimeError, EOFError, UnpicklingError) as error:
            raise DataError(f"{args.average}: not the ifqa_warm.pth of a run of this network") from error
    if not args.export:
        unreal = aligned_faces(args.unreal, "drawings, renders, puppets and statues", work, evaluation)
        everyday = aligned_faces(args.everyday, "everyday photographs and video frames", work, evaluation)
        say("encoding the training films, or loading those of an earlier run")
        films = build_films(cache.faces, split.train, config["data"]["films"], work / "cache", config["seed"])
        batches = Batches(cache.faces, split.train, sizes, config["seed"], unreal, films, everyday)
        monitor = Monitor(cache.faces, split.held_out)
        run(trainer, batches, lambda: table(monitor.look(trainer)), config["log"], work / "checkpoints")
    target = work / "smoke" if args.smoke else args.target or folder
    card = deploy(trainer, cache, split.calibration, names, config["card"], target)
    figures = card["calibration"]
    say(f"wrote {target}: sha256 {card['sha256'][:12]}, x0 {figures['x0']}, w {figures['w']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
