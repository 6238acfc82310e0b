"""Predicts face positions with a Kalman filter that assumes decaying velocities; time is in seconds, not in frames."""

from __future__ import annotations

import numpy as np

from streamgate.frames import Array

ACCELERATION = 3.0
"""Expected acceleration of a head in face widths per second squared (one sigma)."""
JITTER = 0.04
"""Jitter of a detected box in face widths (one sigma)."""
DAMPING_S = 0.6
"""Time constant in seconds with which the velocity decays, because heads do not keep moving in one direction."""


class BoxMotion:
    """Filters the centre and the size of a box, as four independent coordinates.

    The noise of all four is proportional to the size of the face, so they share one 2x2 covariance matrix, whose unit
    of length is the face width.
    """

    def __init__(self, box: Array, pts_seconds: float) -> None:
        self._position = _to_centre(box)
        self._velocity = np.zeros(4)
        self._covariance = np.diag([JITTER**2, 1.5**2])
        self._pts = pts_seconds

    @property
    def speed(self) -> float:
        """Speed of the centre of the box, in face widths per second."""
        return float(np.hypot(*self._velocity[:2]) / max(self._position[2], 1.0))

    def predict(self, pts_seconds: float) -> Array:
        """The box [x1, y1, x2, y2] expected at `pts_seconds`. Does not change the state of the filter."""
        return _to_box(self._position + self._velocity * _travel(pts_seconds - self._pts))

    def update(self, box: Array, pts_seconds: float) -> None:
        """Update the filter with the box detected at `pts_seconds`, which must not be earlier than the last update."""
        dt = max(pts_seconds - self._pts, 0.0)
        move = np.array([[1.0, _travel(dt)], [0.0, float(np.exp(-dt / DAMPING_S))]])
        noise = ACCELERATION**2 * np.array([[dt**4 / 4, dt**3 / 2], [dt**3 / 2, dt**2]])
        covariance = move @ self._covariance @ move.T + noise
        gain = covariance[:, 0] / (covariance[0, 0] + JITTER**2)
        position = self._position + self._velocity * move[0, 1]
        velocity = self._velocity * move[1, 1]
        surprise = _to_centre(box) - position
        self._position = position + gain[0] * surprise
        self._velocity = velocity + gain[1] * surprise
        self._covariance = covariance - np.outer(gain, covariance[0])
        self._pts = pts_seconds


def _travel(dt: float) -> float:
    """Duration in seconds at constant velocity that covers the same distance as `dt` seconds of decaying velocity."""
    return DAMPING_S * (1.0 - float(np.exp(-max(dt, 0.0) / DAMPING_S)))


def _to_centre(box: Array) -> Array:
    x1, y1, x2, y2 = (float(value) for value in box)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def _to_box(state: Array) -> Array:
    x, y, width, height = state
    width, height = max(width, 1.0), max(height, 1.0)
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
