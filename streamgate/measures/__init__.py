"""What is measured of a face: one module and one `MeasureSpec` a measure.

To add one, write a module here that defines `MEASURE`; nothing else needs to know. Configuration, records, columns,
`calibration_id`, report, page and table take it from there. Another package gives its own by an entry point of the
group `streamgate.measures`, and a preset defines one by the table of an ONNX file. Measures know faces, pictures and
evidence, and no tracks.
"""

from __future__ import annotations

from streamgate.measures.cropcard import CropCard
from streamgate.measures.faceview import FaceView
from streamgate.measures.registry import built_in_measures, known_measures
from streamgate.measures.spec import Limit, MeasureSpec, Sigmoid

__all__ = [
    "CropCard", "FaceView", "Limit", "MeasureSpec", "Sigmoid", "built_in_measures", "known_measures",
]  # fmt: skip
