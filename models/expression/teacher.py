#!/usr/bin/env python3
"""Label loose crops with MediaPipe's Face Landmarker; runs in a separate environment.

    python3 -m venv TEACHER && TEACHER/bin/pip install mediapipe==0.10.21      # numpy below 2; needs libgl1, libegl1
    TEACHER/bin/python models/expression/teacher.py face_landmarker.task WORK/crops

For every NAME.json of the folder (faces.py) it writes NAME.npz: `points` float32 [n, 478, 3] in pixels of the crop (z
in the same unit; NaN where the teacher found no face), `blendshapes` float32 [n, 52], `pose` float32 [n, 3] yaw, pitch,
roll in degrees in the signs of docs/design.md 5. Existing labels are left unchanged.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np


def angles(transform: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch, roll in degrees of a head transform [4, 4] (camera looks along -z, y up)."""
    forward, right = transform[:3, 2], transform[:3, 0]
    yaw = np.degrees(np.arctan2(forward[0], forward[2]))
    pitch = np.degrees(np.arctan2(forward[1], np.hypot(forward[0], forward[2])))
    # The roll is the rotation of the eye line in the picture (y points down) after yaw and pitch have been removed.
    cy, sy, cp, sp = (
        np.cos(np.radians(yaw)),
        np.sin(np.radians(yaw)),
        np.cos(np.radians(pitch)),
        np.sin(np.radians(pitch)),
    )
    turn_yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    turn_pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    level = (turn_yaw @ turn_pitch).T @ right
    return float(yaw), float(pitch), float(np.degrees(np.arctan2(-level[1], level[0])))


def label(landmarker: object, media: object, jpegs: bytes, starts: list[int]) -> dict[str, np.ndarray]:
    """The arrays that the module's docstring describes, for the crops in one file."""
    count = len(starts) - 1
    points = np.full((count, 478, 3), np.nan, np.float32)
    shapes, pose = np.zeros((count, 52), np.float32), np.zeros((count, 3), np.float32)
    for i, (start, end) in enumerate(pairwise(starts)):
        crop = cv2.imdecode(np.frombuffer(jpegs[start:end], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        image = media.Image(image_format=media.ImageFormat.SRGB, data=np.ascontiguousarray(crop))
        found = landmarker.detect(image)
        if not found.face_landmarks:
            continue
        side = crop.shape[0]
        points[i] = np.array([(p.x * side - 0.5, p.y * side - 0.5, p.z * side) for p in found.face_landmarks[0]])
        shapes[i] = [shape.score for shape in found.face_blendshapes[0]]
        transform = np.asarray(found.facial_transformation_matrixes[0], np.float64)
        transform[:3, :3] /= np.cbrt(np.linalg.det(transform[:3, :3]))
        pose[i] = angles(transform)
    return {"points": points, "blendshapes": shapes, "pose": pose}


def main() -> int:
    """Exit status: 0 done, 2 wrong arguments."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    import mediapipe as media
    from mediapipe.tasks import python as tasks
    from mediapipe.tasks.python import vision

    cv2.setNumThreads(1)
    options = vision.FaceLandmarkerOptions(
        base_options=tasks.BaseOptions(model_asset_path=sys.argv[1]),
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
        num_faces=1,
    )
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        for index in sorted(Path(sys.argv[2]).rglob("*.json")):
            target = index.with_suffix(".npz")
            if target.is_file():
                continue
            starts = json.loads(index.read_text())["starts"]
            found = label(landmarker, media, index.with_suffix(".jpegs").read_bytes(), starts)
            part = index.with_name(index.stem + ".part.npz")
            np.savez(part, **found)
            part.replace(target)
            seen = int(np.isfinite(found["points"][:, 0, 0]).sum())
            print(f"{index.stem}: {seen} of {len(starts) - 1} faces seen", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
