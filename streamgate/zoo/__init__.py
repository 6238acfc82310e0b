"""Weights: which there are, fetching, converting and verifying them, and finding them for a run.

`streamgate models` is a thin layer over `list_models`, `pull`, `import_weights` and `verify`; networks are opened from
what `resolve` answers. torch is imported only while a checkpoint is converted.
"""

from __future__ import annotations

from streamgate.zoo.catalog import REQUIRED_ROLES, ROLES, LogisticCalibration, SerfiqCalibration
from streamgate.zoo.importing import Imported, import_weights
from streamgate.zoo.listing import ModelState, Verified, list_models, verify
from streamgate.zoo.pulling import Progress, Pulled, pull
from streamgate.zoo.store import Fallback, Resolution, Weights, embedded_folder, models_folder, resolve

__all__ = [
    "REQUIRED_ROLES",
    "ROLES",
    "Fallback",
    "Imported",
    "LogisticCalibration",
    "ModelState",
    "Progress",
    "Pulled",
    "Resolution",
    "SerfiqCalibration",
    "Verified",
    "Weights",
    "embedded_folder",
    "import_weights",
    "list_models",
    "models_folder",
    "pull",
    "resolve",
    "verify",
]
