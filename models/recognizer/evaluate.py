#!/usr/bin/env python3
"""Evaluate the recognizer on faces it was not trained on and write the tables into card.md.

    python models/recognizer/evaluate.py [--lfw IMAGES PAIRS] [--masks DIR] [--afw DIR] [--lightqnet FILE]
        [--videos DIR] [--model DIR]

The card lists parts without data as not measured. --masks: a folder with with_mask/ and without_mask/; --afw: a
folder with annotations.json; --videos: the folder with the clips of blinks.toml and a turning head.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from models.common.images import DataError  # noqa: E402
from models.common.report import Section, write_card  # noqa: E402
from models.common.sets import beside  # noqa: E402
from models.recognizer import footage, sections, views  # noqa: E402
from models.recognizer.network import OwnNetwork  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks import Networks  # noqa: E402
from streamgate.networks.cohort import Cohort  # noqa: E402
from streamgate.networks.recognizer import Recognizer  # noqa: E402
from streamgate.networks.sessions import Session  # noqa: E402
from streamgate.weights.store import from_card  # noqa: E402

PROFILE = 60
"""Minimum yaw of a profile face, in degrees."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 bad data or weights (one line on stderr)."""
    args = parse(arguments)
    try:
        evaluate(args)
    except (DataError, StreamgateError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--lfw", nargs=2, type=Path, metavar=("IMAGES", "PAIRS"))
    p.add_argument("--masks", type=Path)
    p.add_argument("--afw", type=Path)
    p.add_argument("--lightqnet", type=Path, help="LightQNet's ONNX file, for comparison in error versus discard")
    p.add_argument("--videos", type=Path)
    p.add_argument("--model", type=Path, default=HERE, help="folder of recognizer.onnx, card.json and card.md")
    p.add_argument("--page", type=Path, help="the page to write (default: card.md in --model)")
    p.add_argument("--only-lfw", action="store_true", help="print LFW accuracy and write nothing")
    return p.parse_args(arguments)


def evaluate(args: argparse.Namespace) -> None:
    """Run every section for which there is data, and write card.md and evaluation.json."""
    cv2.setNumThreads(1)
    own = OwnNetwork(args.model)
    absent: list[str] = []
    done: list[Section] = []
    with Networks.open("standard", "cpu") as networks:
        for section in questions(args, own, networks, absent):
            done.append(section())
            say(done[-1].title)
            print(done[-1].markdown(), flush=True)
            for line in done[-1].missed:
                print(f"  misses {line}", flush=True)
    for line in absent:
        say(f"not measured: {line}")
    if not args.only_lfw:
        page = args.page or args.model / "card.md"
        sha256 = own.card["sha256"]
        intro = (
            f"Weights sha256 `{sha256[:16]}`, {own.card['training_steps']} training steps; 95 % bootstrap intervals."
        )
        met, missed = write_card(page, page.with_name("evaluation.json"), intro, done, absent, sha256)
        say(f"wrote {page}: {met} goals met, {missed} missed")


def questions(
    args: argparse.Namespace, own: OwnNetwork, networks: Networks, absent: list[str]
) -> list[Callable[[], Section]]:
    """The sections for which there is data; the others are added to `absent`."""
    asked: list[Callable[[], Section]] = []
    lfw: tuple[list[str], np.ndarray, sections.Pairs] | None = None
    if args.lfw:
        names, faces, pairs = sections.read_lfw(*args.lfw, networks)
        crops = np.stack([face.crop for face in faces])
        standard = networks.recognizer.run(crops).embedding
        vectors = {"this": own.run(crops).normalised()}
        for name, weights in beside(args.model).items():
            embedding = Recognizer(Session(weights, "cpu")).run(crops).embedding
            vectors[name] = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        vectors["standard"] = standard / np.linalg.norm(standard, axis=1, keepdims=True)
        lfw = names, vectors["this"], pairs
        asked.append(lambda: sections.verification(vectors, pairs))
        if args.only_lfw:
            return asked
        asked.append(lambda: sections.discard(names, faces, pairs, own, networks, args.lightqnet))
        if not args.lightqnet:
            absent.append("comparison with LightQNet: no --lightqnet given")
    else:
        absent.append("LFW and error versus discard: no --lfw given")
    afw, labels = views.read_afw(args.afw, networks) if args.afw else ([], np.array([]))
    profiles = [face for face, label in zip(afw, labels, strict=True) if abs(label) >= PROFILE]
    if args.masks:
        asked.append(lambda: sections.masks(args.masks, profiles, own, networks))
    else:
        absent.append("masks: no --masks given")
    if args.afw:
        asked.append(lambda: views.yaw(afw, labels, own))
    else:
        absent.append("pose: no --afw given")
    if args.videos:
        asked.append(lambda: footage.blinks(args.videos, own))
        asked.append(lambda: footage.same_face(args.videos, own))
    else:
        absent.append("blinks, one face in four views: no --videos given")
    asked.append(lambda: identity(own, args.model, lfw))
    asked.append(lambda: views.speed(own))
    return asked


def identity(
    own: OwnNetwork, folder: Path, lfw: tuple[list[str], np.ndarray, sections.Pairs] | None
) -> Section:
    """The threshold on the card, and its error rates on the faces of the evaluation."""
    section = Section("Identity", ["figure", "value"])
    found = own.card.get("identity")
    if not found:
        section.missed.append("identity threshold on the card: none")
        return section
    section.rows.append(
        [f"threshold for an estimated FMR of {found['fmr']:g} ({found['how']})", f"{found['threshold']:.3f}"]
    )
    section.met.append(f"identity threshold on the card: {found['threshold']:.3f}")
    if lfw is not None:
        weights = from_card(folder, str(folder))
        cohort = Cohort.read(weights.cohort) if weights is not None and weights.cohort is not None else None
        section.rows += sections.beyond(found["threshold"], cohort, *lfw)
    return section


def say(line: str) -> None:
    """Print a line with a timestamp, and flush stdout."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
