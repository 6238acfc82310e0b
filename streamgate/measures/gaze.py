"""gaze: towards the camera?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

EYES_TURN = 30.0
"""Degrees that the eyes turn in their sockets for a `look` blendshape of 1."""
LEVEL = -4.0
"""Degrees above the camera's axis that the network says of eyes that look into it."""
PARALLEL, CROSSED = 1.2, 4.0
"""Degrees that it says eyes turn towards each other when they do not, and how much more than a look aside the rest
counts: of crossed eyes it says 3 to 6.
"""


def _read(output: Any) -> Mapping[str, float]:
    """Degrees between where the eyes look and the camera, head and eyes together; more where they squint.

    And the head's turn, by which `yaw` and `pitch` are guessed.
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
    purpose="Do the eyes look into the camera? Degrees that they look past it, head and eyes together.",
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
