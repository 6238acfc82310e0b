#!/usr/bin/env python3
"""Collect photographs of occluders for training the head `visible`: hands cut out of plain backgrounds, and objects.

    python models/expression/cutouts.py --hands FOLDER --things FOLDER --out DIR/covers.npz

Hands must be in front of white or grey paper, with the arm coming from below (as in
ardamavi/Sign-Language-Digits-Dataset); pixels that are redder than the paper count as skin. The pictures of objects are
only used as textures, so any everyday pictures will do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from models.common.images import DataError, decode_rgb  # noqa: E402
from models.expression.covers import Bank  # noqa: E402

SIDE = 100
THINGS_SIDE = 160
_SUFFIXES = (".jpg", ".jpeg", ".png")
_LEAST, _MOST = 0.06, 0.65
"""Minimum and maximum share of the picture that a hand fills; outside this range, the cut-out is probably wrong."""


def cut_hand(picture: np.ndarray) -> np.ndarray | None:
    """The hand, uint8 [100, 100, 4], RGB and opacity; None if no hand is found or its arm does not come from below."""
    picture = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(picture, (0, 0), 0.8).astype(np.float32)
    warmth = soft[..., 0] - soft[..., 2]
    paper = np.concatenate([warmth[:, :4].ravel(), warmth[:, -4:].ravel(), warmth[:6].ravel()])
    levels = np.clip((warmth - np.median(paper)) * 2, 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)
    count, parts, sizes, _ = cv2.connectedComponentsWithStats((levels > 0.75 * threshold).astype(np.uint8))
    if count < 2:
        return None
    shape = (parts == 1 + int(np.argmax(sizes[1:, 4]))).astype(np.uint8)
    shape = cv2.morphologyEx(shape, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    if not _LEAST < shape.mean() < _MOST or shape[-2:].max() == 0:
        return None
    # Pixels at the rim show both hand and paper.
    rim = cv2.GaussianBlur(cv2.erode(shape, np.ones((3, 3), np.uint8)).astype(np.float32), (0, 0), 0.7)
    inside = cv2.erode(shape, np.ones((3, 3), np.uint8))
    colour = cv2.inpaint(picture, 1 - inside, 3, cv2.INPAINT_TELEA)
    return np.dstack([colour, np.round(rim * 255).astype(np.uint8)])


def collect(hands: Path, things: Path) -> Bank:
    """Every hand that can be cut out, and the middle square of every picture in `things`.

    Raises DataError if a folder does not exist or has no usable picture.
    """
    cut = [found for picture in _pictures(hands) if (found := cut_hand(picture)) is not None]
    squares = []
    for picture in _pictures(things):
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        square = picture[top : top + side, left : left + side]
        squares.append(cv2.resize(square, (THINGS_SIDE, THINGS_SIDE), interpolation=cv2.INTER_AREA))
    if not cut or not squares:
        raise DataError(f"{hands if not cut else things}: no usable picture")
    return Bank(np.stack(cut), np.stack(squares))


def load_bank(path: Path) -> Bank:
    """Read the file that this script wrote. Raises DataError if it is missing."""
    if not path.is_file():
        raise DataError(f"{path}: missing; run cutouts.py first")
    with np.load(path, allow_pickle=False) as arrays:
        return Bank(arrays["hands"], arrays["things"])


def _pictures(folder: Path) -> list[np.ndarray]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return [picture for file in files if (picture := decode_rgb(file.read_bytes())) is not None]


def main() -> int:
    """Exit status: 0 done, 2 bad data (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--hands", type=Path, required=True, help="folder of pictures of hands")
    p.add_argument("--things", type=Path, required=True, help="folder of everyday pictures")
    p.add_argument("--out", type=Path, required=True, help="the file to write, DIR/covers.npz")
    args = p.parse_args()
    try:
        bank = collect(args.hands, args.things)
    except DataError as error:
        print(f"cutouts.py: {error}", file=sys.stderr)
        return 2
    np.savez(args.out, hands=bank.hands, things=bank.things)
    print(f"wrote {args.out}: {len(bank.hands)} hands, {len(bank.things)} things")
    return 0


if __name__ == "__main__":
    sys.exit(main())
