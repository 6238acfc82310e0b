"""Inference: runs the networks of the roles detector, recognizer, pose, expression and ifqa (docs/design.md 2).

`Networks.open` finds the weights and opens one network per role; `Batcher` shares them among many tracks and sources;
`alignment` computes the crop transforms.
"""

from __future__ import annotations

from streamgate.networks.batcher import Batcher
from streamgate.networks.detector import Detector
from streamgate.networks.expression import ExpressionNetwork, ExpressionOutput
from streamgate.networks.network_set import Networks
from streamgate.networks.recognizer import Recognizer, RecognizerOutput

__all__ = [
    "Batcher",
    "Detector",
    "ExpressionNetwork",
    "ExpressionOutput",
    "Networks",
    "Recognizer",
    "RecognizerOutput",
]
