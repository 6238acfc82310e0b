"""yaw, pitch, roll: how far the head is turned away from the camera."""

from __future__ import annotations

import math

from streamgate.frames import Evidence, Measure, Status


def angle_scalar(degrees: float) -> float:
    """100 * max(0, cos)^2 of the angle (DESIGN 4.3)."""
    return 100.0 * max(0.0, math.cos(math.radians(degrees))) ** 2


def measure_yaw(evidence: Evidence) -> Measure:
    """Raw: degrees, > 0 when the nose moves to larger x."""
    return _angle(evidence.pose.yaw if evidence.pose else None)


def measure_pitch(evidence: Evidence) -> Measure:
    """Raw: degrees, > 0 when the nose moves to smaller y."""
    return _angle(evidence.pose.pitch if evidence.pose else None)


def measure_roll(evidence: Evidence) -> Measure:
    """Raw: degrees, > 0 when the head tilts clockwise on the screen."""
    return _angle(evidence.pose.roll if evidence.pose else None)


def _angle(degrees: float | None) -> Measure:
    if degrees is None:
        return Measure.missing(Status.NOT_SCORED)
    return Measure.ok(degrees, angle_scalar(degrees))
