"""brisque: distortion as people would rate it, estimated by a model (Mittal, Moorthy, Bovik: BRISQUE, 2012)."""

from __future__ import annotations

from streamgate.measures.crop_card import CropCard
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

EXTRA_MEASURE = MeasureSpec(
    name="brisque",
    label="BRISQUE",
    hint="distortion of the texture, as people would rate it",
    purpose="How distorted does the picture look to people? Estimated from its texture by a model trained on the LIVE "
    "data set.",
    source="brisque",
    output="value",
    read=lambda output: output.value,
    better="lower",
    # Fitted on FFHQ faces: the median of clean faces maps to 90, the median at the strongest degradation to 10.
    mapping=Sigmoid(36.8, 14.6),
    limits=(Limit("min", 0.0, {"brisque_low": "BRISQUE too high"}),),
    card=CropCard("brisque"),
    use=False,
    order=130,
)
