"""The last seconds of one connection to an undecoded stream: whole groups of pictures, bounded in bytes and seconds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from streamgate.sources.rtp import Unit
from streamgate.sources.rtsp_client import Media

_LAST_S = 0.5
"""Longest duration of a group's last picture, in seconds."""


@dataclass(slots=True, eq=False)
class Group:
    """A key frame and the frames that depend on it, in decoding order."""

    number: int
    units: list[Unit] = field(default_factory=list)
    nbytes: int = 0

    @property
    def first(self) -> int:
        """Time of the key frame, in units of the stream's clock."""
        return self.units[0].time

    @property
    def last(self) -> int:
        """Latest time in the group; the last few pictures may be out of order."""
        return max(unit.time for unit in self.units[-8:])


class PacketRing:
    """Keeps whole groups and drops the oldest; pinned groups are kept longer. Thread-safe.

    Args:
        media, channel: the video and its interleaved channel.
        seconds, nbytes: limits for what is kept; pinned groups may take another `nbytes`. The incoming group is always
            kept, unless it alone exceeds `nbytes`; then nothing is kept until the next key frame.
    """

    def __init__(self, media: Media, channel: int, seconds: float, nbytes: int) -> None:
        self.media = media
        self.channel = channel
        self.spacing = 1 / 25
        """Seconds between two pictures."""
        self._spacings: list[float] = []
        self._last: int | None = None
        self._seconds = seconds
        self._limit = nbytes
        self._groups: deque[Group] = deque()
        self._pinned: list[Group] = []
        self._pins: dict[Hashable, tuple[float, float]] = {}
        """The pinned times in seconds, from and to, by holder."""
        self._number = 0
        self._open = False
        self._newest: int | None = None
        self._mutex = threading.Lock()

    def add(self, units: Iterable[Unit]) -> None:
        """Add pictures in decoding order; those before the first key frame are not kept."""
        with self._mutex:
            for unit in units:
                self._measure(unit.time)
                if unit.key:
                    self._number += 1
                    self._groups.append(Group(self._number))
                    self._open = True
                elif not self._open:
                    continue
                group = self._groups[-1]
                group.units.append(unit)
                group.nbytes += len(unit.data)
                self._newest = unit.time if self._newest is None else max(self._newest, unit.time)
                self._trim()

    def pin(self, holder: Hashable, start: float, end: float) -> None:
        """Keep the groups, present and future, that overlap these times, in seconds, until `holder` unpins them."""
        with self._mutex:
            self._pins[holder] = start, end

    def unpin(self, holder: Hashable) -> None:
        """Release what `holder` pinned, if anything."""
        with self._mutex:
            self._pins.pop(holder, None)
            self._pinned = [group for group in self._pinned if self._is_pinned(group)]

    def units(self, start: float, end: float) -> list[Unit]:
        """The units to decode for the pictures from `start` to `end`, in seconds; empty if they are not available.

        Starts with the last key frame at or before `start` and may span several groups.
        """
        first, last = start * self.media.clock_rate, end * self.media.clock_rate
        with self._mutex:
            groups = [*self._pinned, *self._groups]
            begins = max((index for index, group in enumerate(groups) if group.first <= first), default=None)
            if begins is None:
                return []
            found = list(groups[begins].units)
            for before, group in pairwise(groups[begins:]):
                if group.number != before.number + 1 or group.first > last:
                    break
                found += group.units
        if max(unit.time for unit in found[-8:]) < first - _LAST_S * self.media.clock_rate:
            return []  # the following groups were dropped or have not arrived
        until = max((index for index, unit in enumerate(found) if unit.time <= last), default=-1)
        return found[: until + 1]

    @property
    def newest(self) -> float | None:
        """Latest time received, in seconds."""
        newest = self._newest
        return None if newest is None else newest / self.media.clock_rate

    @property
    def nbytes(self) -> int:
        """Bytes held, including pinned groups."""
        with self._mutex:
            return sum(group.nbytes for group in (*self._groups, *self._pinned))

    @property
    def seconds(self) -> float:
        """Seconds from the oldest group to the newest time, without groups that are kept only because of a pin."""
        with self._mutex:
            if not self._groups or not self._groups[0].units or self._newest is None:
                return 0.0
            return max(0.0, (self._newest - self._groups[0].first) / self.media.clock_rate)

    def _measure(self, time: int) -> None:
        """Update `spacing` with the time of the next picture; later pictures of a connection change nothing."""
        last, self._last = self._last, time
        if last is not None and len(self._spacings) < 50:
            seconds = (time - last) / self.media.clock_rate
            if 0.001 < seconds < 1.0:
                self._spacings.append(seconds)
                self.spacing = sorted(self._spacings)[len(self._spacings) // 2]

    def _trim(self) -> None:
        assert self._newest is not None
        groups = self._groups
        size = sum(group.nbytes for group in groups)
        # The first group is dropped only if the size limit is exceeded or the second group reaches back far enough.
        while len(groups) > 1 and (
            size > self._limit or self._newest - groups[1].first >= self._seconds * self.media.clock_rate
        ):
            gone = groups.popleft()
            size -= gone.nbytes
            if self._is_pinned(gone):
                self._pinned.append(gone)
        if size > self._limit:
            groups.clear()
            self._open = False
        held = sum(group.nbytes for group in self._pinned)
        while held > self._limit:
            held -= self._pinned.pop(0).nbytes

    def _is_pinned(self, group: Group) -> bool:
        # The last picture is shown until the first one of the next group.
        first, last = group.first / self.media.clock_rate, group.last / self.media.clock_rate + _LAST_S
        return any(start <= last and end >= first for start, end in self._pins.values())
