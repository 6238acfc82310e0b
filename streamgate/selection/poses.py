"""Yaw x pitch bins, so that a person is covered from all sides."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from streamgate.config import KeepConfig
from streamgate.frames import Pose

Bin = tuple[int, int]
"""Place in yaw and in pitch, from the most negative angle."""


@dataclass(frozen=True, slots=True)
class PoseBins:
    """Bins between ascending edges in degrees; the outermost are open to their side."""

    yaw_edges: tuple[float, ...]
    pitch_edges: tuple[float, ...]

    @classmethod
    def of(cls, keep: KeepConfig) -> PoseBins | None:
        """The bins of `keep.poses` = all, None for frontal."""
        return cls(keep.yaw_edges, keep.pitch_edges) if keep.poses == "all" else None

    def bin(self, pose: Pose) -> Bin:
        """Where a pose belongs; an edge belongs to the bin above it."""
        return self.yaw_bin(pose.yaw), bisect.bisect_right(self.pitch_edges, pose.pitch)

    def yaw_bin(self, yaw: float) -> int:
        """Its place in yaw alone."""
        return bisect.bisect_right(self.yaw_edges, yaw)

    def name(self, place: Bin) -> str:
        """A bin as records name it: `yaw -15..15 pitch ..-12`, in degrees."""
        return f"yaw {_range(self.yaw_edges, place[0])} pitch {_range(self.pitch_edges, place[1])}"


def _range(edges: tuple[float, ...], place: int) -> str:
    low = f"{edges[place - 1]:g}" if place > 0 else ""
    high = f"{edges[place]:g}" if place < len(edges) else ""
    return f"{low}..{high}"
