#!/usr/bin/env python3
"""Draw the maps of the shipped IFQA for a picture that may be published: scikit-image's portrait of an astronaut.

python models/ifqa/heatmaps.py       # writes heatmaps.png next to the model
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from models.common.degrade import greyscale  # noqa: E402
from models.common.images import write_rgb  # noqa: E402
from models.common.smoke import astronaut_face  # noqa: E402
from models.ifqa import protocol  # noqa: E402
from models.ifqa.scoring import Shipped  # noqa: E402
from streamgate.convert.ifqa import face_ellipse  # noqa: E402

SIDE = 192


def cases(face: np.ndarray) -> dict[str, np.ndarray]:
    """The pictures to be shown, uint8 [256, 256, 3] RGB, by caption."""
    return {
        "original": face,
        "blur 2.2 px": protocol.blur(face, 2.2),
        "noise 14": protocol.noise(face, 14, 0),
        "JPEG 17": protocol.jpeg(face, 17),
        "eyes blurred": protocol.local("blur", "eyes", face, 0),
        "nose, noise": protocol.local("noise", "nose", face, 0),
        "mouth, mixture": protocol.local("mixture", "mouth", face, 0),
        "NLM h=10": protocol.nlm(10)(face),
    }


def overlay(face: np.ndarray, realness: np.ndarray) -> np.ndarray:
    """The face in grey under its map: blue is real, red is not; outside the ellipse of the score, the colours fade."""
    grey = greyscale(face).astype(np.float32)
    levels = np.round((1 - realness) * 255).astype(np.uint8)
    colour = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1].astype(np.float32)
    share = 0.15 + 0.4 * cv2.GaussianBlur(face_ellipse(face.shape[0]), (0, 0), 3)[..., None]
    return np.clip(grey * (1 - share) + colour * share, 0, 255).astype(np.uint8)


def draw(shipped: Shipped) -> np.ndarray:
    """A sheet, uint8 RGB: for each picture the caption with the score, the picture, and below it the map."""
    shown = cases(astronaut_face())
    scores, maps = shipped.scores(list(shown.values())), shipped.maps(list(shown.values()))
    columns = []
    for (caption, face), score, realness in zip(shown.items(), scores, maps, strict=True):
        pictures = [cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for p in (face, overlay(face, realness))]
        text = np.full((24, SIDE, 3), 255, np.uint8)
        cv2.putText(text, f"{caption}: {score:.3f}", (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        columns.append(np.vstack([text, *pictures]))
    half = len(columns) // 2
    return np.vstack([np.hstack(columns[:half]), np.hstack(columns[half:])])


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE, help="folder of ifqa.onnx and card.json")
    parser.add_argument("--out", type=Path, default=HERE / "heatmaps.png")
    args = parser.parse_args(arguments)
    write_rgb(args.out, draw(Shipped(args.model)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
