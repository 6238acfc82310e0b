"""Weights of networks: the catalog, the installed files, the selection for a run, and integrity checks.

`resolve` returns the weights from which the networks of a run are opened. `streamgate.convert` converts weights.
"""

from __future__ import annotations

from streamgate.weights.catalog import REQUIRED_ROLES, ROLES, LogisticCalibration, SerfiqCalibration
from streamgate.weights.listing import ModelState, list_models, verify
from streamgate.weights.store import Weights, embedded_folder, models_folder, resolve

__all__ = [
    "REQUIRED_ROLES",
    "ROLES",
    "LogisticCalibration",
    "ModelState",
    "SerfiqCalibration",
    "Weights",
    "embedded_folder",
    "list_models",
    "models_folder",
    "resolve",
    "verify",
]
