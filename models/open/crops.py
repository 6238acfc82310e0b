#!/usr/bin/env python3
"""Cut the faces of the labelled portraits for the expression network's heads `visible` and `real`.

    python models/open/crops.py PICTURES... --labels labels.npz --only models/open/pictures.sha256 --out DIR

PICTURES are folders or tar files; labels.npz is the file that label.py wrote for them. The script writes
DIR/crops/portraits in the format of `models/expression/faces.py` and `teacher.py`. Each face is named after the sha256
of its picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from models.common.images import DataError, decode_rgb  # noqa: E402
from models.expression.faces import Crops, loose_crop  # noqa: E402
from models.open.inputs import read_arrays  # noqa: E402
from models.open.portraits import labelled_pictures, run_cut  # noqa: E402

NAME = "portraits"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data or arguments (one line on stderr)."""
    return run_cut(
        "crops.py",
        __doc__,
        lambda pictures, labels, out, only: cut(pictures, labels, out / "crops" / NAME, only),
        arguments,
    )


def cut(pictures: list[Path], labels: Path, base: Path, only: frozenset[str] | None = None) -> int:
    """Write crops and labels of the largest face of each picture; returns the number of faces.

    only: hashes of the pictures that may be used (None: all). Raises DataError if the labels cannot be read or if there
    is no face.
    """
    crops = Crops()
    points, shapes, poses = [], [], []
    told: dict[str, np.ndarray] = {}
    first: dict[str, int] = {}
    for digest, landmarks, content in labelled_pictures(pictures, labels, only):
        if not told:
            told = read_arrays(labels, "mesh", "box", "shapes", "pose")
            first = {digest: row for row, digest in reversed(list(enumerate(told["sha256"])))}
        picture, row = decode_rgb(content), first[digest]
        if picture is None:
            continue
        crop, placed = loose_crop(picture, told["box"][row], np.concatenate([landmarks, told["mesh"][row]]))
        eyes = float(np.hypot(*(landmarks[1] - landmarks[0])))
        crops.add(digest, "", (crop, placed[:5], eyes))
        points.append(np.column_stack([placed[5:], np.zeros(len(placed) - 5)]))
        shapes.append(told["shapes"][row])
        poses.append(told["pose"][row])
    if not crops.names:
        raise DataError(f"{labels}: no labelled face in {', '.join(map(str, pictures))}")
    crops.save(base)
    np.savez(
        base.with_suffix(".npz"),
        points=np.array(points, np.float32),
        blendshapes=np.array(shapes, np.float32),
        pose=np.array(poses, np.float32),
    )
    return len(crops.names)


if __name__ == "__main__":
    sys.exit(main())
