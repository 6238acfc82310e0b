"""brisque: distortion as people rated it in the LIVE data set (Mittal, Moorthy, Bovik: BRISQUE, 2012)."""

from __future__ import annotations

from streamgate.measures.cropcard import CropCard
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

EXTRA_MEASURE = MeasureSpec(
    name="brisque",
    label="BRISQUE",
    hint="distortion as people rated it in the LIVE data set",
    purpose="How distorted would people call the picture? Texture statistics, learned on the LIVE data set.",
    source="brisque",
    output="value",
    read=lambda output: output.value,
    better="lower",
    # Fitted on FFHQ faces: the median of clean faces maps to 90, that of the strongest mix of degradations to 10.
    mapping=Sigmoid(36.8, 14.6),
    limits=(Limit("min", 0.0, {"brisque_low": "BRISQUE too high"}),),
    card=CropCard("brisque"),
    use=False,
    order=130,
)
