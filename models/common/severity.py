"""Code that all degradations share: the type of a picture, and how strength grows with severity."""

from __future__ import annotations

import numpy as np

Picture = np.ndarray
"""uint8 [H, W, 3] RGB."""


def geometric(low: float, high: float, t: float) -> float:
    """low at t = 0, high at t = 1, and geometric in between, so that equal steps of t look about equally large."""
    return low * (high / low) ** t
