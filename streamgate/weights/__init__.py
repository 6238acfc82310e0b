"""Weights: which there are, where they are on this machine, which of them serve a run, and whether they are intact.

Networks are opened from what `resolve` returns. What is converted comes from `streamgate.convert`.
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
