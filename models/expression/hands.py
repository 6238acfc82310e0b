#!/usr/bin/env python3
"""Find hands on loose crops of clips with MediaPipe's hand model; runs in a separate environment, like teacher.py.

    TEACHER/bin/python models/expression/hands.py WORK/crops

For every clips-NAME.json of the folder (faces.py) it writes clips-NAME.hands.npz: `faces` int64 [h], which crop each
hand is on, and `points` float32 [h, 21, 2], its joints in pixels of the crop. Existing files are left unchanged.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

_CONFIDENCE = 0.35
"""Lower than the model's default of 0.5, because hands in front of a face are often cut off by the crop or blurred."""


def find(model: object, jpegs: bytes, starts: list[int]) -> dict[str, np.ndarray]:
    """The arrays that the module's docstring describes, for the crops in one file."""
    faces, points = [], []
    for number, (start, end) in enumerate(pairwise(starts)):
        crop = cv2.imdecode(np.frombuffer(jpegs[start:end], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        found = model.process(np.ascontiguousarray(crop))  # type: ignore[attr-defined]
        for hand in found.multi_hand_landmarks or ():
            faces.append(number)
            points.append([(joint.x * crop.shape[1], joint.y * crop.shape[0]) for joint in hand.landmark])
    return {"faces": np.array(faces, np.int64), "points": np.array(points, np.float32).reshape(-1, 21, 2)}


def main() -> int:
    """Exit status: 0 done, 2 wrong arguments."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    import mediapipe

    cv2.setNumThreads(1)
    with mediapipe.solutions.hands.Hands(
        static_image_mode=True, max_num_hands=2, min_detection_confidence=_CONFIDENCE
    ) as model:
        for index in sorted(Path(sys.argv[1]).glob("clips-*.json")):
            target = index.with_name(index.stem + ".hands.npz")
            if target.is_file():
                continue
            starts = json.loads(index.read_text())["starts"]
            found = find(model, index.with_suffix(".jpegs").read_bytes(), starts)
            part = index.with_name(index.stem + ".part.npz")
            np.savez(part, **found)
            part.replace(target)
            print(f"{index.stem}: hands on {len(set(found['faces']))} of {len(starts) - 1} crops", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
