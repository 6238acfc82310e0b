#!/usr/bin/env python3
"""Measure the recognizer on faces it never saw and write the tables into card.md.

    python models/recognizer/evaluate.py [--lfw IMAGES PAIRS] [--masks DIR] [--afw DIR] [--lightqnet FILE]
        [--clips FRONTAL TURNING] [--model DIR]

What is not given is named on the card as not measured. --masks: a folder with with_mask/ and without_mask/; --afw: a
folder with annotations.json; --clips: a video of one frontal face, and one of a face that turns.
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
from models.recognizer import sections, views  # noqa: E402
from models.recognizer.network import OwnNetwork  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks import Networks  # noqa: E402

GATE = {"serfiq": 50.0, "visible": 0.75, "yaw": 30.0}
"""Limits of the mask section's gate: SER-FIQ's scalar, the visible share, degrees."""

BLINKS = "blinks: the graph has no `eyes` output yet; no listed set labels open and closed eyes"


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
    p.add_argument("--lightqnet", type=Path, help="LightQNet's ONNX file, a peer in error versus discard")
    p.add_argument("--clips", nargs=2, type=Path, metavar=("FRONTAL", "TURNING"))
    p.add_argument("--model", type=Path, default=HERE, help="folder of recognizer.onnx, card.json and card.md")
    p.add_argument("--page", type=Path, help="the page to write (default: card.md in --model)")
    p.add_argument("--only-lfw", action="store_true", help="print LFW accuracy and write nothing")
    return p.parse_args(arguments)


def evaluate(args: argparse.Namespace) -> None:
    """Run every section there is data for, write card.md and evaluation.json."""
    cv2.setNumThreads(1)
    own = OwnNetwork(args.model)
    absent, done = [BLINKS], []
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
    """The sections that can be answered; what is missing is added to `absent`."""
    asked: list[Callable[[], Section]] = []
    if args.lfw:
        names, faces, pairs = sections.read_lfw(*args.lfw, networks)
        crops = np.stack([face.crop for face in faces])
        standard = networks.recognizer.run(crops).embedding
        vectors = {
            "this": own.run(crops).normalised(),
            "standard": standard / np.linalg.norm(standard, axis=1, keepdims=True),
        }
        asked.append(lambda: sections.verification(vectors, pairs))
        if args.only_lfw:
            return asked
        asked.append(lambda: sections.discard(names, faces, pairs, own, networks, args.lightqnet))
        if not args.lightqnet:
            absent.append("LightQNet as a peer: no --lightqnet given")
    else:
        absent.append("LFW and error versus discard: no --lfw given")
    if args.masks:
        asked.append(lambda: sections.masks(args.masks, own, networks, GATE))
    else:
        absent.append("masks: no --masks given")
    if args.afw:
        asked.append(lambda: views.yaw(args.afw, own, networks))
    else:
        absent.append("pose: no --afw given")
    if args.clips:
        asked.append(lambda: views.same_face(own, networks, *args.clips))
    else:
        absent.append("one face in four views: no --clips given")
    asked.append(lambda: identity(own))
    asked.append(lambda: views.speed(own))
    return asked


def identity(own: OwnNetwork) -> Section:
    """The threshold on the card."""
    section = Section("Identity", ["cosine from which two faces are one person", "estimated FMR", "how"])
    found = own.card.get("identity")
    if found:
        section.rows.append([f"{found['threshold']:.3f}", f"{found['fmr']:g}", found["how"]])
        section.met.append(f"identity threshold on the card: {found['threshold']:.3f}")
    else:
        section.missed.append("identity threshold on the card: none")
    return section


def say(line: str) -> None:
    """A timestamped line on stdout, at once."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
