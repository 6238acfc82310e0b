#!/usr/bin/env python3
"""Find faces in everyday photographs, scaled to several sizes, with the detector of `--models open`.

    python models/open/scan.py PICTURES... --out found.npz
    TEACHER/bin/python models/open/label.py face_landmarker.task PICTURES... --found found.npz --out labels.npz

The Face Landmarker alone finds only the largest faces of a picture. Therefore, scan.py finds the places where label.py
should look for faces; compose.py uses the same file. The arrays that are written have one row for each possible face:

    sha256  of the picture's file
    box     float32 [n, 4]  x1, y1, x2, y2 in pixels
    points  float32 [n, 5, 2]  viewer's left and right eye, nose, left and right mouth corner, in pixels
    score   float32 [n]  0..1

A picture without any possible face has one row with NaN and the score 0.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from models.common.images import DataError, list_sources  # noqa: E402
from models.open.inputs import check_target, usable_picture, write_arrays  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks.detector import Detector  # noqa: E402
from streamgate.networks.priors import suppress  # noqa: E402
from streamgate.networks.sessions import Session  # noqa: E402
from streamgate.weights.store import from_card  # noqa: E402

SIDES = (320, 960)
"""Long sides in pixels to which each picture is scaled before it is searched. A side that is more than twice as long as
the picture's long side is left out; if no side remains, the picture is searched at its own size."""
CANDIDATE = 0.25
"""Minimum score of a possible face."""
SAME = 0.35
"""Minimum intersection over union at which two boxes count as the same face."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pictures", nargs="+", type=Path)
    p.add_argument("--detector", type=Path, default=HERE / "detector", help="folder of a detector and its card.json")
    p.add_argument("--out", type=Path, required=True)
    args = p.parse_args(arguments)
    cv2.setNumThreads(1)
    try:
        check_target(args.out)
        weights = from_card(args.detector, str(args.detector))
        if weights is None:
            raise DataError(f"{args.detector}: contains no detector")
        detector = Detector(Session(weights, "cpu"))
        digests: list[str] = []
        rows: list[np.ndarray] = []
        seen: set[str] = set()
        for source in list_sources(args.pictures):
            digest = hashlib.sha256(source.data).hexdigest()
            if digest in seen or (picture := usable_picture(source.data)) is None:
                continue
            found = search(detector, picture)
            digests += [digest] * len(found)
            rows += list(found)
            seen.add(digest)
            if len(seen) % 100 == 0:
                print(f"{len(seen)} pictures, {len(rows)} rows", flush=True)
        if not rows:
            raise DataError(f"no readable picture in {', '.join(map(str, args.pictures))}")
        table = np.array(rows, np.float32)
        points = table[:, 4:14].reshape(-1, 5, 2)
        write_arrays(args.out, sha256=np.array(digests), box=table[:, :4], points=points, score=table[:, 14])
    except (DataError, StreamgateError, OSError) as error:
        print(f"scan.py: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {int((table[:, 14] > 0).sum())} possible faces in {len(seen)} pictures")
    return 0


def search(detector: Detector, picture: np.ndarray) -> np.ndarray:
    """Box, points and score of every possible face, float32 [n, 15]; one row of NaN with score 0 if there is none."""
    long = max(picture.shape[:2])
    found = []
    for side in [side for side in SIDES if side <= 2 * long] or [long]:
        scale = side / long
        filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        view = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=filter_)
        for face in detector.detect([view], CANDIDATE)[0]:
            points = (face.landmarks + 0.5) / scale - 0.5
            found.append(np.concatenate([face.box / scale, points.reshape(-1), [face.score]]))
    if not found:
        return np.array([[np.nan] * 14 + [0.0]], np.float32)
    rows = np.array(found, np.float32)
    return rows[suppress(rows[:, :4], rows[:, 14], SAME)]


if __name__ == "__main__":
    sys.exit(main())
