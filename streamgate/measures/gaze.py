"""gaze: do the eyes look into the camera?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

EYES_TURN = 30.0
"""Degrees by which the eyes turn in their sockets for an `eyeLook…` blendshape of 1."""
LEVEL = -4.0
"""The vertical angle, in degrees, that the network returns for eyes that look into the camera."""
PARALLEL, CROSSED = 1.2, 4.0
"""Convergence in degrees that the network returns for parallel eyes, and the weight of each degree beyond this
convergence; a degree of looking to the side has weight 1. For crossed eyes, the network returns 3 to 6 degrees.
"""


def _read(output: Any) -> Mapping[str, float]:
    """The angle, in degrees, by which the gaze (head and eyes together) misses the camera; crossed eyes increase it.

    Also returns the head's yaw and pitch, from which `yaw` and `pitch` are estimated.
    """
    at = output.signals
    across = (at["eyeLookOutLeft"] - at["eyeLookInLeft"] + at["eyeLookInRight"] - at["eyeLookOutRight"]) / 2
    above = (at["eyeLookUpLeft"] + at["eyeLookUpRight"] - at["eyeLookDownLeft"] - at["eyeLookDownRight"]) / 2
    inward = (at["eyeLookInLeft"] - at["eyeLookOutLeft"] + at["eyeLookInRight"] - at["eyeLookOutRight"]) / 2
    crossed = CROSSED * max(0.0, EYES_TURN * inward - PARALLEL)
    away = math.hypot(output.yaw + EYES_TURN * across, output.pitch + EYES_TURN * above - LEVEL, crossed)
    return {"gaze": away, "head_yaw": output.yaw, "head_pitch": output.pitch}


MEASURE = MeasureSpec(
    name="gaze",
    label="Gaze",
    hint="towards the camera",
    purpose="Do the eyes look into the camera? Measured as the angle by which the gaze (head and eyes together) misses "
    "the camera.",
    source="expression",
    output="signals",
    read=_read,
    evidence=("gaze", "head_yaw", "head_pitch"),
    unit="degrees",
    better="lower",
    mapping=Sigmoid(8.5, 2.5),
    limits=(Limit("max", 13.0, {"gaze_away": "looks away"}, of="raw", bounds=(0.0, 180.0), span=90.0),),
    frontal=True,
    at_rest=True,
    version=3,
    weight=0.9,
    order=116,
)
