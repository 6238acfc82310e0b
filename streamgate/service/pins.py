"""What is held of a main stream for the faces that may yet be told, however long their tracks go on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from streamgate.service.alignment import Look
from streamgate.service.mainstream import MainStream, Playing
from streamgate.sources.packetring import Pin
from streamgate.tracks import Candidate

_SPARE = 3
"""Faces of a track besides those that are kept: a later one may push one out, and at the end all are judged again."""
_COMPARED_S = 0.6
"""Of the substream, before and after the face."""
_LEAST_S = 0.15


@dataclass(slots=True, eq=False)
class Pinned:
    """A face's instant: what the substream showed around it, and the packets of the main stream."""

    pts_seconds: float
    order: tuple[bool, float]
    looks: list[Look]
    playing: Playing
    pin: Pin

    def again(self) -> Pinned:
        """The same, held for itself."""
        return replace(self, pin=self.playing.ring.pin(self.pin.start, self.pin.end))


class Pins:
    """Of the tracks of one epoch. One thread uses it."""

    def __init__(self, main: MainStream, top_k: int) -> None:
        self._main = main
        self._most = top_k + _SPARE
        self._pinned: dict[int, list[Pinned]] = {}

    def note(self, candidate: Candidate) -> None:
        """A face was scored: hold its instant while it is among the best of its track."""
        playing, offset = self._main.playing, self._main.alignment.offset
        if playing is None or offset is None:
            return
        order = candidate.gate.passed, candidate.quality if candidate.quality is not None else candidate.bound
        known = self._pinned.setdefault(candidate.track_id, [])
        if len(known) >= self._most:
            worst = min(known, key=lambda one: one.order)
            if order <= worst.order:
                return
            known.remove(worst)
            worst.playing.ring.unpin([worst.pin])
        pts = candidate.pts_seconds
        reach = max(self._main.alignment.doubt, _LEAST_S)
        pin = playing.ring.pin(pts + offset - reach, pts + offset + reach)
        looks = self._main.looks.between(pts - _COMPARED_S, pts + _COMPARED_S)
        known.append(Pinned(pts, order, looks, playing, pin))

    def of(self, track_id: int, pts_seconds: float) -> Pinned | None:
        """What is held of a face; None where nothing is."""
        return next((one for one in self._pinned.get(track_id, ()) if one.pts_seconds == pts_seconds), None)

    def take(self, track_id: int) -> list[Pinned]:
        """What is held of a track that has ended; whoever takes it lets go of it with `release`."""
        return self._pinned.pop(track_id, [])


def release(pinned: Iterable[Pinned]) -> None:
    for one in pinned:
        one.playing.ring.unpin([one.pin])
