"""Weights: which exist, where they are on this machine, which of them a run uses, and whether they are intact.

Networks are opened from the result of `resolve`. Converted weights come from `streamgate.convert`.
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
