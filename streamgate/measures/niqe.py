"""niqe: distance from the statistics of undistorted photographs (Mittal, Soundararajan, Bovik: NIQE, 2013)."""

from __future__ import annotations

from streamgate.measures.crop_card import CropCard
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

EXTRA_MEASURE = MeasureSpec(
    name="niqe",
    label="NIQE",
    hint="distance from the statistics of undistorted photographs",
    purpose="How far is the face's texture from that of undistorted photographs? The method is not specific to faces.",
    source="niqe",
    output="value",
    read=lambda output: output.value,
    better="lower",
    # Fitted on FFHQ faces: the median of clean faces maps to 90, the median at the strongest degradation to 10.
    mapping=Sigmoid(8.4, 1.65),
    limits=(Limit("min", 0.0, {"niqe_low": "NIQE too high"}),),
    card=CropCard("niqe"),
    use=False,
    order=130,
)
