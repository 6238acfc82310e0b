"""gaze: towards the camera?"""

from __future__ import annotations

import math
from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

EYES_TURN = 30.0
"""Degrees that the eyes turn in their sockets for a `look` blendshape of 1."""
LEVEL = -2.0
"""Degrees above the camera's axis that the network says of eyes that look into it."""


def _read(output: Any) -> float:
    """Degrees between where the eyes look and the camera: head and eyes together."""
    at = output.signals
    across = (at["eyeLookOutLeft"] - at["eyeLookInLeft"] + at["eyeLookInRight"] - at["eyeLookOutRight"]) / 2
    above = (at["eyeLookUpLeft"] + at["eyeLookUpRight"] - at["eyeLookDownLeft"] - at["eyeLookDownRight"]) / 2
    return math.hypot(output.yaw + EYES_TURN * across, output.pitch + EYES_TURN * above - LEVEL)


MEASURE = MeasureSpec(
    name="gaze",
    label="Gaze",
    hint="towards the camera",
    purpose="Do the eyes look into the camera? Degrees that they look past it, head and eyes together.",
    source="expression",
    output="signals",
    read=_read,
    unit="degrees",
    better="lower",
    mapping=Sigmoid(8.0, 2.5),
    limits=(Limit("max", 15.0, {"gaze_away": "looks away"}, of="raw", bounds=(0.0, 180.0), span=90.0),),
    frontal=True,
    at_rest=True,
    order=116,
)
