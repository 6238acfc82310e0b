"""The measures of a face: one module with one `MeasureSpec` per measure.

To add a measure, write a module in this package that defines `MEASURE`; no other code has to change. The configuration,
records, columns, `calibration_id`, the report, the live page and the tables in the terminal include the measure
automatically. Other packages add measures through entry points of the group `streamgate.measures`, and a preset can
define a measure by an ONNX file. The code of a measure depends on faces, pictures and evidence, not on tracks.
"""

from __future__ import annotations

from streamgate.measures.crop_card import CropCard
from streamgate.measures.face_view import FaceView
from streamgate.measures.registry import built_in_measures, known_measures
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

__all__ = [
    "CropCard", "FaceView", "Limit", "MeasureSpec", "Sigmoid", "built_in_measures", "known_measures",
]  # fmt: skip
