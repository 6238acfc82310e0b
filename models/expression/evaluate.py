#!/usr/bin/env python3
"""Evaluate the expression network on faces it was not trained on and write the tables into card.md.

    python models/expression/evaluate.py --cut --work DIR --labels picks.json --videos CLIPS --afw AFW   # find faces
    TEACHER/bin/python models/expression/teacher.py face_landmarker.task DIR/yardstick                   # label them
    python models/expression/evaluate.py --work DIR --labels picks.json                                  # evaluate

CLIPS: folder of the clips with the faces that were labelled by hand in picks.json; AFW: folder with the pictures and
annotations.json of AFW.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

# Matrices are small, so more threads would cost more time than they save. This must be set before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from models.common.images import DataError, decode_rgb  # noqa: E402
from models.common.report import write_card  # noqa: E402
from models.expression import sections  # noqa: E402
from models.expression.dataset import FaceSet, align, prepare  # noqa: E402
from models.expression.faces import read_crops  # noqa: E402
from models.expression.network import OwnNetwork  # noqa: E402
from models.expression.picks import Labelled  # noqa: E402
from models.expression.yardstick import cut_afw, cut_labelled  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks import Networks  # noqa: E402
from streamgate.networks.alignment import ARCFACE_SIDE, arcface_matrix  # noqa: E402
from streamgate.networks.pose import upright  # noqa: E402

_ANY_SIZE = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 bad data or weights (one line on stderr)."""
    args = parse(arguments)
    try:
        if args.cut:
            cut(args)
        else:
            evaluate(args)
    except (DataError, StreamgateError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, required=True, help="folder for the crops of the faces (DIR/yardstick)")
    p.add_argument("--labels", type=Path, required=True, help="picks.json, the labels of the faces")
    p.add_argument("--videos", type=Path, help="with --cut: folder of the labelled clips")
    p.add_argument("--afw", type=Path, help="with --cut: folder of AFW with annotations.json")
    p.add_argument("--cut", action="store_true", help="only find the faces and write their crops")
    p.add_argument("--model", type=Path, default=HERE, help="folder of expression.onnx, card.json and card.md")
    args = p.parse_args(arguments)
    if args.cut and not (args.videos and args.afw):
        p.error("--cut needs --videos and --afw")
    return args


def cut(args: argparse.Namespace) -> None:
    """Write the crops of the labelled faces and of AFW's faces, for the teacher."""
    cv2.setNumThreads(1)
    with Networks.open("embedded", "cpu") as networks:
        cut_labelled(args.labels, args.videos, args.work / "yardstick/labelled", networks)
        cut_afw(args.afw, args.work / "yardstick/afw", networks)


def evaluate(args: argparse.Namespace) -> None:
    """Compute every section, and write card.md and evaluation.json."""
    cv2.setNumThreads(1)
    own = OwnNetwork(args.model)
    aligned = args.work / "aligned"
    faces = prepare([args.work / "yardstick/labelled"], aligned, _ANY_SIZE)
    labelled = Labelled.read(args.labels, faces.names)
    answers = sections.judged(own, faces)
    teacher = sections.Answers(faces.pose, faces.signals, faces.points, *[np.full(len(faces), np.nan)] * 2)
    afw = prepare([args.work / "yardstick/afw"], aligned, _ANY_SIZE)
    poses = {
        "this": afw.upright(sections.judged(own, afw).pose),
        "the recognizer's head": recognizer_pose(args.work / "yardstick/afw", afw),
        "the teacher": afw.upright(afw.pose),
    }
    networks = {"this": answers, "the teacher": teacher}
    absent = []
    if args.model.resolve() != HERE:
        networks["the embedded network"] = sections.judged(OwnNetwork(HERE), faces)
    table = {name: (found.signals, faces.upright(found.pose)) for name, found in networks.items()}
    done = [
        sections.picks(labelled, table),
        sections.measures(labelled, table),
        sections.eyes(labelled, networks),
        sections.pose(sections.labels_of(afw.names), poses),
        sections.agreement(own, faces, answers),
        sections.speed(own),
    ]
    if np.isnan(answers.visible).any():
        absent.append("covered faces: the network has no output `visible`")
    else:
        judged = {name: found for name, found in networks.items() if not np.isnan(found.visible).any()}
        done.insert(3, sections.covers(labelled, judged))
    for section in done:
        print(section.markdown(), flush=True)
    page, sha256 = args.model / "card.md", own.card["sha256"]
    intro = f"Weights sha256 `{sha256[:16]}`, {own.card['training_steps']} training steps."
    met, missed = write_card(page, page.with_name("evaluation.json"), intro, done, absent, sha256)
    print(time.strftime("%H:%M:%S"), f"wrote {page}: {met} goals met, {missed} missed", flush=True)


def recognizer_pose(base: Path, faces: FaceSet) -> np.ndarray:
    """Pose in the pictures, [n, 3] in degrees, by the pose head of the embedded recognizer on the same faces."""
    index, jpegs = read_crops(base)
    at = {name: i for i, name in enumerate(index["names"])}
    found = []
    with Networks.open("embedded", "cpu") as networks:
        for name in faces.names:
            picture = decode_rgb(jpegs[at[name]])
            assert picture is not None
            matrix = arcface_matrix(np.array(index["landmarks"][at[name]]))
            crop = align(picture, matrix, (ARCFACE_SIDE, ARCFACE_SIDE))
            pose = networks.recognizer.run(crop[None]).pose
            assert pose is not None
            found.append(upright(pose[0], matrix))
    return np.array(found)


if __name__ == "__main__":
    sys.exit(main())
