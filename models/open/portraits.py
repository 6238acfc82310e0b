#!/usr/bin/env python3
"""Cut FFHQ-aligned faces, on which the IFQA recipe trains, out of pictures.

    python models/open/portraits.py PICTURES... --labels labels.npz --only models/open/pictures.sha256 --out FACES
    python models/ifqa/train.py FACES/large --everyday FACES/everyday --config models/open/ifqa/config.toml --work DIR

PICTURES are folders or tar files; labels.npz is the file that label.py wrote for them. The largest face of each picture
is written as a PNG file. If its FFHQ square has a side of at least `SIDE` px and does not reach beyond the edge of the
picture, it is written to FACES/large, with `SIDE` px. Otherwise, it is written to FACES/everyday, with `EVERYDAY_SIDE`
px, if its eyes are at least `EVERYDAY_EYES` px apart. Faces in FACES/large are never enlarged; those in FACES/everyday
may be. Portraits that kinds.txt lists are left out, because they are paintings, or may be.

train.py uses FACES/everyday only if the configuration sets `everyday` in [batch].
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from models.common.images import DataError, decode_rgb, list_sources, write_rgb  # noqa: E402
from models.open.inputs import read_arrays, read_kinds, read_list  # noqa: E402
from streamgate.networks.alignment import ffhq_corners, ffhq_matrix, ffhq_side  # noqa: E402

SIDE = 512
EVERYDAY_SIDE, EVERYDAY_EYES = 256, 34.0
OUTSIDE = 0.02
"""Share of the face square's side that may lie outside the picture; there, the border pixels are repeated."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    return run_cut("portraits.py", __doc__, cut, arguments)


def run_cut(
    script: str,
    about: str | None,
    cut: Callable[[list[Path], Path, Path, frozenset[str] | None], int],
    arguments: list[str] | None,
) -> int:
    """The command line of a script that cuts the faces of labelled pictures; returns the exit status of `main`.

    cut: receives the pictures, the labels, --out and the hashes in --only; returns the number of faces.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--only", type=Path, metavar="LIST", help="leave out pictures that this list does not have (pictures.sha256)"
    )
    args = parser.parse_args(arguments)
    try:
        only = read_list(args.only) if args.only else None
        print(f"{args.out}: {cut(args.pictures, args.labels, args.out, only)} faces")
    except (DataError, OSError) as error:
        print(f"{script}: {error}", file=sys.stderr)
        return 2
    return 0


def cut(pictures: list[Path], labels: Path, out: Path, only: frozenset[str] | None = None) -> int:
    """Write the faces into `out`, named by the sha256 of their pictures; returns the number of faces.

    only: hashes of the pictures that may be used (None: all). Raises DataError if no face was written.
    """
    kinds = read_kinds()
    for name in ("large", "everyday"):
        (out / name).mkdir(parents=True, exist_ok=True)
    count = 0
    for digest, landmarks, content in labelled_pictures(pictures, labels, only):
        if digest[:16] in kinds or np.hypot(*(landmarks[1] - landmarks[0])) < EVERYDAY_EYES:
            continue
        picture = decode_rgb(content)
        if picture is None:
            continue
        large = ffhq_side(landmarks) >= SIDE and _inside(landmarks, picture)
        side = SIDE if large else EVERYDAY_SIDE
        write_rgb(out / ("large" if large else "everyday") / f"{digest[:16]}.png", _aligned(picture, landmarks, side))
        count += 1
    if not count:
        raise DataError(f"no face with eyes at least {EVERYDAY_EYES:g} px apart in {', '.join(map(str, pictures))}")
    return count


def labelled_pictures(
    pictures: list[Path], labels: Path, only: frozenset[str] | None = None
) -> Iterator[tuple[str, np.ndarray, bytes]]:
    """Yield sha256, landmarks float64 [5, 2] of the largest face, and content of each picture in which label.py found a
    face.

    only: hashes of the pictures that may be used (None: all). Raises DataError.
    """
    arrays = read_arrays(labels, "points")
    points, digests = arrays["points"].astype(np.float64), arrays["sha256"]
    # The largest face of a picture is its first row.
    rows = reversed(list(enumerate(digests)))
    first = {digest: row for row, digest in rows if only is None or digest in only}
    for source in list_sources(pictures):
        digest = hashlib.sha256(source.data).hexdigest()
        if digest in first and np.isfinite(points[first[digest]]).all():
            yield digest, points[first[digest]], source.data


def _inside(landmarks: np.ndarray, picture: np.ndarray) -> bool:
    slack = OUTSIDE * ffhq_side(landmarks)
    corners, size = ffhq_corners(landmarks), np.array(picture.shape[1::-1])
    return bool((corners >= -slack).all() and (corners <= size + slack).all())


def _aligned(picture: np.ndarray, landmarks: np.ndarray, side: int) -> np.ndarray:
    """The aligned face, uint8 (side, side, 3); a larger face is scaled down by area, to avoid aliasing."""
    whole = side * max(1, int(np.ceil(ffhq_side(landmarks) / side)))
    matrix = ffhq_matrix(landmarks, whole)
    large = cv2.warpAffine(picture, matrix, (whole, whole), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    sys.exit(main())
