"""What the training log shows: the correlation between the network's outputs and the teacher's on held-out faces."""

from __future__ import annotations

import numpy as np

from models.expression.architecture import SIGNALS
from models.expression.dataset import MARGIN, FaceSet
from streamgate.networks.alignment import EXPRESSION_SIZE

SHOWN = {
    "jaw": "jawOpen", "gap": "lipGap", "close": "mouthClose", "pucker": "mouthPucker", "funnel": "mouthFunnel",
    "smile": "mouthSmileLeft", "blink": "eyeBlinkLeft", "lids": "lidsLeft", "down": "eyeLookDownLeft",
    "in": "eyeLookInLeft", "iris": "irisAcrossLeft", "brow": "browInnerUp",
}  # fmt: skip


def crops_of(faces: FaceSet, indexes: np.ndarray) -> np.ndarray:
    """The middle of each canvas, uint8 [n, 144, 128, 3]."""
    rows, columns = slice(MARGIN, MARGIN + EXPRESSION_SIZE[0]), slice(MARGIN, MARGIN + EXPRESSION_SIZE[1])
    return np.stack([faces.canvases[int(i)][rows, columns] for i in indexes])


def correlations(got: dict[str, np.ndarray], signals: np.ndarray, pose: np.ndarray) -> dict[str, float]:
    """Correlation with the teacher for every signal and for yaw, pitch and roll, by name."""
    found = {name: _correlation(got["signals"][:, i], signals[:, i]) for i, name in enumerate(SIGNALS)}
    found |= {name: _correlation(got["pose"][:, i], pose[:, i]) for i, name in enumerate(("yaw", "pitch", "roll"))}
    return found


def told(found: dict[str, float]) -> str:
    """The correlations in `SHOWN`, yaw and pitch, as text for the log."""
    shown = " ".join(f"{short} {found[name]:.2f}" for short, name in SHOWN.items())
    return f"{shown} yaw {found['yaw']:.2f} pitch {found['pitch']:.2f}"


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
