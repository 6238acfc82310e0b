"""Corrected times: the container's times, made strictly increasing, and the rank of each frame."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

_FALLBACK_DURATION = 1 / 25
_SAME_TIME = 1e-5  # smaller differences are lost in records, which store microseconds
_PENDING_LIMIT = 4096  # packets that have produced no frame yet; decoders hold back a few dozen frames at most


@dataclass(frozen=True, slots=True)
class FrameTime:
    """Time and duration of a frame in seconds (duration 0.0 if unknown), its rank among the packets, and whether the
    time is estimated."""

    pts_seconds: float
    duration_seconds: float
    frame_index: int
    estimated: bool


ClockState = tuple[float | None, float, bool]
"""What a clock needs to know about earlier frames to resume in the middle of a file: time and duration of the previous
frame in seconds, and whether packet times have been reliable so far."""


class Clock:
    """Assigns time and rank to the frames of one source, in presentation order.

    The time of a frame is its pts, else its dts. If it has neither, or its time is not later than that of the previous
    frame, its time is estimated: the previous frame's time plus that frame's duration.

    The rank of a frame is the number of demuxed packets with earlier times, including packets that produced no picture.
    This requires reliable packet times. If they turn out to be wrong (AVI has none, and FFmpeg's guesses step
    backwards), the rank is the number of earlier frames and of packets that are known to have failed. Memory is bounded
    by the number of packets inside the decoder.

    Args:
        frame_seconds: nominal duration of a frame, None when unknown.
        trusted: whether packet times come from the container and are not guessed by FFmpeg.
    """

    def __init__(self, frame_seconds: float | None = None, *, trusted: bool = True) -> None:
        self._nominal = frame_seconds or _FALLBACK_DURATION
        self._trusted = trusted
        self._pending: list[float] = []
        self._previous: float | None = None
        self._previous_duration = 0.0
        self._index = -1
        self._lost = 0
        self.estimated = 0
        """Number of frames whose time had to be estimated."""

    @property
    def trusted(self) -> bool:
        """Whether packet times have been reliable so far."""
        return self._trusted

    @property
    def state(self) -> ClockState:
        """The state to pass to `resume`."""
        return self._previous, self._previous_duration, self._trusted

    def resume(self, state: ClockState) -> None:
        """Continue after the frames that `state` describes; ranks start from 0 again."""
        self._previous, self._previous_duration, self._trusted = state

    def packet(self, pts: float | None, dts: float | None) -> None:
        """Register the times of a demuxed packet in seconds, before it is decoded."""
        time = dts if pts is None else pts
        if not self._trusted:
            return
        if time is None or len(self._pending) >= _PENDING_LIMIT:
            self._distrust()
            return
        heapq.heappush(self._pending, time)

    def packet_lost(self) -> None:
        """Record that the last registered packet could not be decoded and will produce no frame."""
        self._lost += 1

    def frame(self, pts: float | None, dts: float | None, duration: float | None) -> FrameTime:
        """Assign a time to the next frame in presentation order, from its own times and duration in seconds."""
        time = dts if pts is None else pts
        previous = self._previous
        step = self._previous_duration or self._nominal
        estimated = False
        if time is None:
            time, estimated = (0.0 if previous is None else previous + step), True
        elif previous is not None and time <= previous + _SAME_TIME:
            time, estimated = previous + step, True
            self._distrust()
        index = self._rank(time)
        self._previous, self._previous_duration = time, duration or 0.0
        self._index = index
        self.estimated += estimated
        return FrameTime(time, duration or 0.0, index, estimated)

    def _rank(self, time: float) -> int:
        passed = 0
        # A quarter of a millisecond absorbs rounding when a filter uses another time base.
        while self._pending and self._pending[0] <= time + 0.00025:
            heapq.heappop(self._pending)
            passed += 1
        if self._trusted:
            return self._index + max(1, passed)
        lost, self._lost = self._lost, 0
        return self._index + 1 + lost

    def _distrust(self) -> None:
        self._trusted = False
        self._pending.clear()
        self._lost = 0


class StorageOrderClock:
    """A clock for containers without presentation times, such as AVI.

    The position of a packet in storage order gives a time at which a frame is shown (a slot), but not which frame it
    is. Therefore, the first frame gets the earliest slot, the second frame gets the next slot, and so on.

    Args:
        frame_seconds: nominal duration of a frame, None when unknown.
        skips: whether the decoder outputs nothing for packets that mean "repeat the previous frame", as the MPEG-4
            decoder does. Other decoders output nothing only when they hold a frame back.
    """

    trusted = False
    """Ranks and times are correct only if every packet is decoded."""

    def __init__(self, frame_seconds: float | None = None, *, skips: bool = False) -> None:
        self._nominal = frame_seconds or _FALLBACK_DURATION
        self._skips = skips
        self._slots: list[float] = []
        self._empty: set[float] = set()
        self._newest = -self._nominal
        self._previous: float | None = None
        self._held: int | None = None
        self._passed = 0
        self._taken = float("-inf")  # slots up to this time were assigned before `resume`
        self.estimated = 0
        """Number of frames for which no slot was left."""

    @property
    def holds_back(self) -> bool:
        """Whether the decoder holds frames back, so that it outputs a frame only after it was given packets later than
        the packet whose slot the frame gets."""
        return bool(self._held)

    @property
    def state(self) -> ClockState:
        """The state to pass to `resume`."""
        return self._previous, 0.0, False

    def resume(self, state: ClockState) -> None:
        """Continue after the frames that `state` describes; ranks start from 0 again."""
        self._previous = state[0]
        if self._previous is not None:
            self._taken = self._previous + _SAME_TIME

    def packet(self, pts: float | None, dts: float | None) -> None:
        """Register a packet in storage order, before it is decoded."""
        self._newest = self._newest + self._nominal if dts is None else dts
        if len(self._slots) < _PENDING_LIMIT and self._newest > self._taken:
            heapq.heappush(self._slots, self._newest)

    def packet_lost(self) -> None:
        """Record that the last registered packet will produce no frame."""
        self._empty.add(self._newest)

    def frame(self, pts: float | None, dts: float | None, duration: float | None) -> FrameTime:
        """Assign a time to the next frame; `dts` belongs to the packet after which the decoder output the frame."""
        self._pass_empty()
        if dts is None:
            # A frame that comes out only when the decoder is flushed was held back.
            self._held = 1 if self._held is None else self._held
        else:
            held = sum(slot <= dts for slot in self._slots if slot not in self._empty) - 1
            if self._held is None:
                self._held = held
            for _ in range(held - self._held if self._skips else 0):
                self._pass()
                self._pass_empty()
        previous = self._previous
        if self._slots:
            time, estimated = self._pass(), False
        else:
            time, estimated = (0.0 if previous is None else previous + self._nominal), True
        if previous is not None and time <= previous + _SAME_TIME:
            time, estimated = previous + self._nominal, True
        self._previous = time
        self.estimated += estimated
        return FrameTime(time, duration or 0.0, max(0, self._passed - 1), estimated)

    def _pass_empty(self) -> None:
        while self._slots and self._slots[0] in self._empty:
            self._empty.discard(self._pass())

    def _pass(self) -> float:
        self._passed += 1
        return heapq.heappop(self._slots)
