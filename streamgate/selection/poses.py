"""Yaw x pitch bins for `keep.poses = "all"`, which keeps faces of a person from all sides.

Bins are separated by ascending edges in degrees; the outermost bins are unbounded.
"""

from __future__ import annotations

import bisect

from streamgate.config_sections import KeepConfig
from streamgate.faces import Pose

Bin = tuple[int, int]
"""Indices in yaw and in pitch; 0 is the bin of the most negative angles."""


def pose_bin(pose: Pose, keep: KeepConfig) -> Bin:
    """The bin of a pose; an angle on an edge belongs to the bin above the edge."""
    return yaw_bin(pose.yaw, keep), bisect.bisect_right(keep.pitch_edges, pose.pitch)


def yaw_bin(yaw: float, keep: KeepConfig) -> int:
    """The index of a yaw angle's bin."""
    return bisect.bisect_right(keep.yaw_edges, yaw)


def bin_name(bin_key: Bin, keep: KeepConfig) -> str:
    """The name of a bin in records: `yaw -15..15 pitch ..-12`, in degrees."""
    return f"yaw {_range(keep.yaw_edges, bin_key[0])} pitch {_range(keep.pitch_edges, bin_key[1])}"


def _range(edges: tuple[float, ...], bin_key: int) -> str:
    low = f"{edges[bin_key - 1]:g}" if bin_key > 0 else ""
    high = f"{edges[bin_key]:g}" if bin_key < len(edges) else ""
    return f"{low}..{high}"
