"""Faces for the evaluation, which are never used for training: faces labelled by hand, and AFW with its angles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from models.common.images import DataError, read_rgb
from models.expression.faces import Crops, faces_of, frames
from streamgate.networks import Networks

_SLACK = 0.002
"""Maximum difference in seconds between the time of a label and of its frame."""
_SAME_FACE = 0.3
"""Minimum overlap (IoU) at which a detected face is taken for the labelled one."""


def cut_labelled(labels: Path, videos: Path, base: Path, networks: Networks) -> None:
    """Write crops of the labelled faces that the detector finds; the face is named `clip|track|number`, its clip
    `clip|track`.

    Existing crops are left unchanged. Raises DataError if no labelled face is found.
    """
    if base.with_suffix(".json").is_file():
        return
    crops = Crops()
    for clip, tracks in json.loads(labels.read_text()).items():
        wanted = sorted(
            (face["pts"], track, i, face["box"]) for track, faces in tracks.items() for i, face in enumerate(faces)
        )
        position = 0
        for seconds, picture in frames(videos / clip, 0.0, 10_000):
            while position < len(wanted) and wanted[position][0] < seconds - _SLACK:
                position += 1
            found = None
            while position < len(wanted) and abs(wanted[position][0] - seconds) <= _SLACK:
                _, track, number, box = wanted[position]
                found = faces_of(picture, networks, 0.0, boxes=True) if found is None else found
                best = max(found, key=lambda item: overlap(item[3], box), default=None)
                if best is not None and overlap(best[3], box) >= _SAME_FACE:
                    crops.add(f"{clip}|{track}|{number}", f"{clip}|{track}", best[:3])
                position += 1
    if not crops.names:
        raise DataError(f"{videos}: none of the labelled faces was found")
    crops.save(base)


def cut_afw(folder: Path, base: Path, networks: Networks) -> None:
    """Write crops of AFW's faces, named `file#number|yaw|pitch|roll`, in degrees with the signs of docs/design.md 5."""
    if base.with_suffix(".json").is_file():
        return
    crops = Crops()
    for entry in json.loads((folder / "annotations.json").read_text()):
        picture = read_rgb(next(path for path in folder.rglob(entry["file"])))
        found = faces_of(picture, networks, 0.0, boxes=True)
        for number, face in enumerate(entry["faces"]):
            best = max(found, key=lambda item: overlap(item[3], face["box"]), default=None)
            if best is not None and overlap(best[3], face["box"]) >= _SAME_FACE:
                angles = f"{face['yaw_deg']}|{face['pitch_deg']}|{-face['roll_deg']}"
                crops.add(f"{entry['file']}#{number}|{angles}", "", best[:3])
    crops.save(base)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes [4]: x1, y1, x2, y2."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(shared / (area - shared + 1e-9))
