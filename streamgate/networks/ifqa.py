"""IFQA: how clean and real a face looks, as a score and a map (docs/design.md 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamgate.frames import Array
from streamgate.networks.crop_measures import CropOutput
from streamgate.networks.sessions import Session, check_pictures

CROP_SIDE = 256
OUTPUTS = ("score", "map")
"""Outputs that the graph must have."""


def ifqa_scores(session: Session, crops: Sequence[Array]) -> list[CropOutput]:
    """The score of each crop as `value`, and its map float32 (256, 256), both 0..1, higher is better.

    Crops are RGB uint8 (256, 256, 3), aligned with `ffhq_matrix`; never pass an upscaled 112 px crop.
    """
    outputs = session.run_pictures(check_pictures(np.stack(crops), CROP_SIDE))
    return [CropOutput(float(score), found) for score, found in zip(outputs["score"], outputs["map"], strict=True)]
