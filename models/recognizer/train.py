#!/usr/bin/env python3
"""Train the recognizer on folders or tar files of pictures with one face each; no identity labels are needed.

    python models/recognizer/train.py PICTURES... --masked MASKS... --work DIR   # train, or continue a stopped run
    python models/recognizer/train.py PICTURES... --work DIR --export            # only write the deliverables
    python models/recognizer/train.py --smoke                                    # takes less than a minute

Three options exclude faces from training: --leave-out takes evaluation pictures and excludes people who look like the
people in them; --leave-out-people takes LFW pair lists; --leave-out-digests takes folders whose files are named after
the first digits of the sha256 of a picture. Faces are detected and labelled by the standard weights (`streamgate models
pull`), or taken from the files of --labels. A run is seeded and resumes from its newest intact checkpoint in DIR
(default: $STREAMGATE_WORK/recognizer). The first start loads the committed weights next to --config unless --fresh is
given.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
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
from models.common.smoke import synthetic_faces  # noqa: E402
from models.common.training import (  # noqa: E402
    Config,
    Sums,
    choose_device,
    load_config,
    resume,
    run,
    say,
    terms,
    work_folder,
)
from models.recognizer import eyes  # noqa: E402
from models.recognizer.batches import Augmentation, Batches  # noqa: E402
from models.recognizer.deploy import WARM_NAME, Terms, deploy  # noqa: E402
from models.recognizer.faces import FaceSet, Labels, LeaveOut, evaluation_embeddings, people_in, prepare  # noqa: E402
from models.recognizer.labels import FileLabels  # noqa: E402
from models.recognizer.last_layer import Settings as LastLayer  # noqa: E402
from models.recognizer.monitor import Monitor, table  # noqa: E402
from models.recognizer.teacher import Teacher, load_teacher  # noqa: E402
from models.recognizer.trainer import Settings, Trainer  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks import Networks  # noqa: E402

SMOKE = {
    "data": {"minimum_faces": 8, "held_out": 4, "calibration": 4},
    "last_layer": {"faces": 64},
    "batch": {"size": 4},
    "optimiser": {"steps": 12, "chain_from": 2, "chain_full": 6, "join": 8, "warmup": 2, "decay": 4, "ema": 0.8},
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
    p.add_argument("data", nargs="*", type=Path, help="folders or tar files of pictures with one face each")
    p.add_argument("--masked", type=Path, nargs="*", default=[], help="the same, of people with masks")
    p.add_argument("--eyes", nargs=2, type=Path, metavar=("OPEN", "CLOSED"), help="folders to train the eyes head")
    p.add_argument("--work", type=Path, help="checkpoints and aligned faces (default: $STREAMGATE_WORK/recognizer)")
    p.add_argument("--config", type=Path, default=HERE / "config.toml")
    p.add_argument("--leave-out", type=Path, nargs="*", default=[], help="evaluation pictures")
    p.add_argument("--leave-out-people", type=Path, nargs="*", default=[], help="LFW pair lists")
    p.add_argument("--leave-out-digests", type=Path, nargs="*", default=[], help="folders of files named by sha256")
    p.add_argument("--name", nargs="*", help="names of the data sets on the card (default: names of the paths)")
    p.add_argument("--labels", type=Path, nargs="*", default=[], help="files that models/open/label.py wrote")
    p.add_argument("--teacher", type=Path, help="the teacher's checkpoint (default: the pulled recognizer)")
    p.add_argument("--steps", type=int, help="total number of steps, instead of the config's")
    p.add_argument("--seed", type=int)
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    p.add_argument("--fresh", action="store_true", help="ignore the committed weights")
    p.add_argument("--export", action="store_true", help="do not train: export the newest checkpoint")
    p.add_argument("--target", type=Path, help="folder for the exported files (default: the folder of --config)")
    p.add_argument("--warm-only", action="store_true", help="export only the weights from which the next run starts")
    p.add_argument("--smoke", action="store_true", help="one minute on synthetic faces; exports to DIR/smoke")
    args = p.parse_args(arguments)
    if not args.data and not args.masked and not args.smoke:
        p.error("give folders or tar files of pictures (or --smoke)")
    return args


@dataclass(frozen=True)
class Split:
    """Indices of the faces in three disjoint sets."""

    train: np.ndarray
    held_out: np.ndarray
    calibration: np.ndarray


def split_faces(faces: FaceSet, data: dict[str, Any]) -> Split:
    """Split the faces by content, so that the sets stay the same when data is added.

    The calibration set has one face of each of several LFW people, whose other pictures are not used for training. If
    there are too few LFW people (a smoke run, or other data), any faces are used; in other data, these faces must show
    different people.
    """
    order = sorted(range(len(faces.names)), key=lambda i: faces.sha256[i])
    people = faces.people()
    one_each: dict[str, int] = {}
    for index in order:
        person = people[index]
        if person is not None and faces.names[index].startswith("lfw"):
            one_each.setdefault(person, index)
    count = data["calibration"]
    calibration = list(one_each.values())[:count] if len(one_each) >= 2 * count else order[-count:]
    apart = {people[i] for i in calibration} - {None}
    taken = set(calibration)
    rest = [i for i in order if i not in taken and people[i] not in apart]
    held = data["held_out"]
    return Split(np.array(rest[held:]), np.array(rest[:held]), np.array(calibration))


def read_faces(args: argparse.Namespace, config: Config, work: Path, teacher: Teacher) -> FaceSet:
    """The training faces, aligned by this or an earlier run."""
    data = args.data
    if args.smoke:
        data = [synthetic_faces(work / "faces")]
    with labeller(args, teacher) as networks:
        leave_out = left_out(args, config, networks, work)
        paths = [*data, *args.masked]
        return prepare(paths, args.masked, leave_out, work / "cache", networks, config["data"]["minimum_faces"])


def labeller(args: argparse.Namespace, teacher: Teacher) -> AbstractContextManager[Networks | Labels]:
    """The source of faces and their labels: --labels, or the standard networks."""
    return nullcontext(FileLabels(args.labels, teacher)) if args.labels else Networks.open("standard", "cpu")


def left_out(args: argparse.Namespace, config: Config, networks: Networks | Labels, work: Path) -> LeaveOut:
    """The exclusions from training."""
    seen = evaluation_embeddings(args.leave_out, networks, work / "cache") if args.leave_out else None
    digests = frozenset(file.stem for folder in args.leave_out_digests for file in folder.rglob("*") if file.is_file())
    found = LeaveOut(people_in(args.leave_out_people), digests, seen, config["data"]["similarity"])
    say(
        f"leaving out {len(found.people)} people, {len(digests)} digests, "
        f"and people who look like one of {0 if seen is None else len(seen)} evaluation faces"
    )
    return found


def eyes_head(
    args: argparse.Namespace, config: Config, work: Path, faces: FaceSet, clean: np.ndarray
) -> eyes.Eyes | None:
    """The eyes head: trained on --eyes or, without --eyes, the committed head; None if there is neither."""
    if not args.eyes:
        committed = args.config.parent / WARM_NAME
        state = torch.load(committed, map_location="cpu", weights_only=True) if committed.is_file() else {}
        return eyes.Eyes.of(state["eyes"]) if "eyes" in state and not args.fresh else None
    settings = config["eyes"].make(eyes.Settings, "training")
    with Networks.open("standard", "cpu") as networks:
        labelled = eyes.read(*args.eyes, left_out(args, config, networks, work), work / "cache", networks)
    how = config["eyes"].make(Augmentation, "augment")
    return eyes.trained(labelled, faces, clean[: settings.assumed_open], settings, how, config["eyes"]["seed"], work)


def train(args: argparse.Namespace) -> int:
    """Prepare the data, then run to the configured number of steps."""
    config = load_config(args, SMOKE)
    work = work_folder(args.work, args.smoke, "recognizer")
    device = choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    teacher = Teacher(load_teacher(args.teacher, config["network"]["shape"]), device)
    faces = read_faces(args, config, work, teacher)
    split = split_faces(faces, config["data"])
    told = ", ".join(f"{count} {reason}" for reason, count in faces.counts.items())
    say(
        f"{len(split.train)} faces to train on, {len(split.held_out)} held out, "
        f"{len(split.calibration)} for calibration"
    )
    say(f"not used: {told}")
    augmentation = config.make(Augmentation, "augment")
    monitor = Monitor(faces, split.held_out, augmentation, teacher)
    trainer = Trainer(
        config.make(Settings, "loss", "optimiser"), teacher, config["seed"], device, args.precision == "bf16"
    )
    # The committed weights are next to the config; another config has different weights, or none.
    warm = args.config.parent / WARM_NAME
    resume(trainer, work / "checkpoints", None if args.fresh or args.smoke else warm)
    say(f"device {device}, {args.precision}, at step {trainer.steps_done} of {trainer.settings.steps}")
    if not args.export:
        batches = Batches(faces, split.train, config["batch"]["size"], augmentation, config["seed"])
        run(trainer, batches, lambda: table(monitor.look(trainer)), config["log"], work / "checkpoints", tell)
    target = work / "smoke" if args.smoke else args.target or args.config.parent
    names = args.name or (
        ["synthetic"] if args.smoke else [p.name for p in (*args.data, *args.masked, *(args.eyes or ()))]
    )
    bare = split.train[~faces.masked[split.train]]
    head = eyes_head(args, config, work, faces, bare)
    last = config.make(LastLayer, "last_layer")
    clean = bare[: last.faces]
    terms_ = config.make(Terms, "card")
    wrote = deploy(trainer, faces, clean, last, split.calibration, head, names, terms_, target, args.warm_only)
    say(f"wrote {target}: {wrote}")
    return 0


def tell(sums: Sums) -> str:
    """The loss terms, and the unexplained variance of each unit's map."""
    maps = " ".join(f"{np.mean(v):.2f}" for k, v in sums.items() if k.startswith("map"))
    return f"{terms({k: v for k, v in sums.items() if not k.startswith('map')})} maps {maps}"


if __name__ == "__main__":
    sys.exit(main())
