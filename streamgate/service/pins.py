"""What is held of a main stream for the faces that may yet be told, however long their tracks go on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from streamgate.service.alignment import Look
from streamgate.service.mainstream import MainStream, Playing
from streamgate.sources.packetring import Pin

_COMPARED_S = 0.6
"""Of the substream, before and after the face."""
_LEAST_S = 0.15


@dataclass(slots=True, eq=False)
class Pinned:
    """A face's instant: what the substream showed around it, and the packets of the main stream."""

    pts_seconds: float
    looks: list[Look]
    playing: Playing
    pin: Pin

    def again(self) -> Pinned:
        """The same, held for itself."""
        return replace(self, pin=self.playing.ring.pin(self.pin.start, self.pin.end))


class Pins:
    """Of the tracks of one epoch. One thread uses it."""

    def __init__(self, main: MainStream) -> None:
        self._main = main
        self._pinned: dict[int, dict[float, Pinned]] = {}

    def hold(self, track_id: int, times: Iterable[float]) -> None:
        """Hold the instants of the faces that may still be kept, pts seconds, and let go of the others."""
        playing, offset = self._main.playing, self._main.alignment.offset
        known, wanted = self._pinned.setdefault(track_id, {}), set(times)
        release([known.pop(pts) for pts in list(known) if pts not in wanted])
        for pts in wanted:
            looks = self._main.looks.between(pts - _COMPARED_S, pts + _COMPARED_S)
            one = known.get(pts)
            if one is not None:
                # What came after it may not have been there.
                if len(looks) > len(one.looks):
                    one.looks = looks
            elif playing is not None and offset is not None:
                reach = max(self._main.alignment.doubt, _LEAST_S)
                pin = playing.ring.pin(pts + offset - reach, pts + offset + reach)
                known[pts] = Pinned(pts, looks, playing, pin)

    def of(self, track_id: int, pts_seconds: float) -> Pinned | None:
        """What is held of a face; None where nothing is."""
        return self._pinned.get(track_id, {}).get(pts_seconds)

    def take(self, track_id: int) -> list[Pinned]:
        """What is held of a track that has ended; whoever takes it lets go of it with `release`."""
        return list(self._pinned.pop(track_id, {}).values())


def release(pinned: Iterable[Pinned]) -> None:
    for one in pinned:
        one.playing.ring.unpin([one.pin])
