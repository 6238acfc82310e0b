"""Retains packets of a main stream for faces that may still be kept, no matter how long their tracks are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from streamgate.service.main_stream import MainStream
from streamgate.service.stream_alignment import Look, around
from streamgate.sources.packet_ring import PacketRing

_COMPARED_S = 0.6
"""Seconds of the substream before and after the face that are compared with the main stream."""
_LEAST_S = 0.15


@dataclass(slots=True, eq=False)
class Pinned:
    """The data retained for a face: small pictures of the substream from around its time, and main stream packets.

    The packets from `start` to `end`, in seconds of the main stream, are retained until `release` is called.
    """

    looks: list[Look]
    ring: PacketRing
    start: float
    end: float

    def __post_init__(self) -> None:
        self.ring.pin(self, self.start, self.end)

    def again(self) -> Pinned:
        """A copy that must be released too."""
        return replace(self)


class Pins:
    """The pins of the tracks of one epoch. Not thread-safe."""

    def __init__(self, main: MainStream) -> None:
        self._main = main
        self._pinned: dict[int, dict[float, Pinned]] = {}

    def hold(self, track_id: int, times: Iterable[float]) -> None:
        """Retain data for the `times` (pts in seconds) of the faces that may still be kept, and release the rest."""
        ring, offset = self._main.ring, self._main.alignment.offset
        known, wanted = self._pinned.setdefault(track_id, {}), set(times)
        # Packets of an ended connection are useless, because its clock is no longer known.
        gone = [pts for pts, one in known.items() if pts not in wanted or one.ring is not ring]
        release([known.pop(pts) for pts in gone])
        for pts in wanted:
            looks = around(self._main.looks, pts - _COMPARED_S, pts + _COMPARED_S)
            one = known.get(pts)
            if one is not None:
                # Pictures after the face may have arrived since the last call.
                if len(looks) > len(one.looks):
                    one.looks = looks
            elif ring is not None and offset is not None:
                reach = max(self._main.alignment.doubt, _LEAST_S)
                known[pts] = Pinned(looks, ring, pts + offset - reach, pts + offset + reach)
        if not known:
            self._pinned.pop(track_id)

    def of(self, track_id: int, pts_seconds: float) -> Pinned | None:
        """The data retained for a face; None if nothing is retained for it."""
        return self._pinned.get(track_id, {}).get(pts_seconds)

    def take(self, track_id: int) -> list[Pinned]:
        """Remove and return the data retained for an ended track; the caller must pass it to `release`."""
        return list(self._pinned.pop(track_id, {}).values())


def release(pinned: Iterable[Pinned]) -> None:
    """Release retained data."""
    for one in pinned:
        one.ring.unpin(one)
