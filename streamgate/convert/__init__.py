"""Conversion of checkpoints to ONNX files: the standard weights (`pull`) and a user's own weights (`import_weights`).

torch and onnx are needed only here (`pip install 'streamgate[convert]'`) and are imported when a file is converted.
"""

from __future__ import annotations

from streamgate.convert.importing import import_weights
from streamgate.convert.pulling import pull

__all__ = ["import_weights", "pull"]
