"""live: is it a person in front of the camera, or a picture of a person? (MiniFASNetV2, Minivision 2020)"""

from __future__ import annotations

from streamgate.measures.crop_card import CropCard
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

EXTRA_MEASURE = MeasureSpec(
    name="live",
    label="Live",
    hint="a person, not a picture on a screen or on paper",
    purpose="Is it a person in front of the camera, or a picture of a person on a screen or on paper?",
    source="live",
    output="value",
    read=lambda output: output.value,
    # The network's decision threshold, a probability of 0.5, is the middle of the scale.
    mapping=Sigmoid(0.5, 0.1),
    limits=(Limit("min", 50.0, {"spoof": "on a screen or a print"}),),
    # Used only as a limit: the network's confidence does not tell which of two pictures of live faces is better.
    weight=0.0,
    card=CropCard("pulled", "minifasnet-v2", "box", size=80, margin=0.85, output="live"),
    use=False,
    # A ready-made crop does not contain the surroundings that the network needs.
    of_source=True,
    order=150,
)
