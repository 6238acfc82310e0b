#!/usr/bin/env python3
"""Compare the detector with the standard detector, on pictures not used for training, and write tables into card.md.

    python models/detector/evaluate.py [--afw DIR] [--aligned DIR] [--empty VIDEO...] [--model DIR]

The card lists parts without data as not measured. --afw: a folder with annotations.json; --aligned: aligned
faces of 256 px (landmarks and close-ups); --empty: videos without faces, the first of which must stay without boxes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import cv2  # noqa: E402

from models.common.images import DataError  # noqa: E402
from models.common.report import Section, write_card  # noqa: E402
from models.common.sets import beside  # noqa: E402
from models.detector import sections  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks.detector import Detector  # noqa: E402
from streamgate.networks.sessions import Session  # noqa: E402
from streamgate.weights.store import CARD_NAME, Weights, from_card, scan  # noqa: E402

STANDARD = "retinaface-mnet025-foamliu"


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
    p.add_argument("--afw", type=Path)
    p.add_argument("--aligned", type=Path)
    p.add_argument("--empty", type=Path, nargs="*", default=[])
    p.add_argument("--model", type=Path, default=HERE, help="folder of detector.onnx, card.json and card.md")
    p.add_argument("--page", type=Path, help="the page to write (default: card.md in --model)")
    p.add_argument("--only", nargs="*", choices=("afw", "landmarks", "close-ups", "empty", "speed"),
                   help="run only these parts, print them, and write nothing")  # fmt: skip
    return p.parse_args(arguments)


def evaluate(args: argparse.Namespace) -> None:
    """Run every section for which there is data, and write card.md and evaluation.json."""
    cv2.setNumThreads(1)
    if not (args.model / CARD_NAME).is_file():
        raise DataError(f"{args.model}: there is no {CARD_NAME}; train the detector first (models/detector/train.py)")
    card = json.loads((args.model / CARD_NAME).read_text())
    own = from_card(args.model, str(args.model))
    standard = next((weights for weights in scan("standard") if weights.name == STANDARD), None)
    if own is None or standard is None:
        raise DataError("the ONNX file of this or of the standard detector (`streamgate models pull`) is missing")
    others = {name: _open(weights) for name, weights in beside(args.model).items()}
    networks = {"this": _open(own), **others, "standard": _open(standard)}
    done, absent = [], []
    for name, given, ask in questions(args, networks):
        if args.only and name not in args.only:
            continue
        if not given:
            absent.append(f"{name}: no data given")
            continue
        done.append(ask())
        print(time.strftime("%H:%M:%S"), done[-1].title, flush=True)
        print(done[-1].markdown(), flush=True)
        for line in done[-1].missed:
            print(f"  misses {line}", flush=True)
    if not args.only:
        page = args.page or args.model / "card.md"
        intro = f"Weights sha256 `{card['sha256'][:16]}`, {card['training_steps']} steps; 95 % bootstrap intervals."
        write_card(page, page.with_name("evaluation.json"), intro, done, absent, card["sha256"])
        print(f"wrote {page}")


def questions(args: argparse.Namespace, networks: sections.Networks) -> list[tuple[str, bool, Callable[[], Section]]]:
    """For each section: its name, whether its data was given, and the function that computes it."""
    return [
        ("afw", bool(args.afw), lambda: sections.afw(args.afw, networks)),
        ("landmarks", bool(args.aligned), lambda: sections.landmarks(args.aligned, networks)),
        ("close-ups", bool(args.aligned), lambda: sections.close_ups(args.aligned, networks)),
        ("empty", bool(args.empty), lambda: sections.empty_footage(args.empty, networks)),
        ("speed", True, lambda: sections.speed(networks)),
    ]


def _open(weights: Weights) -> Detector:
    return Detector(Session(weights, "cpu"))


if __name__ == "__main__":
    sys.exit(main())
