"""Selective decoding: non-reference frames are dropped, and spans without faces are skipped.

While there is no face, only the decoded frames that are due for detection are yielded.

All packets are read, even those that are not decoded. Therefore, frames have the same times and ranks as if all packets
were decoded, the accuracy of seeking does not matter, and skipped packets can still be decoded when a face appears
after them.

The result does not depend on speed or on the number of decoder threads: a hint about a frame takes effect a fixed
number of packets later, and hints are requested only for frames that were already yielded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal

from av import Packet, VideoFrame
from av.codec import Capabilities
from av.video.codeccontext import VideoCodecContext

from streamgate.errors import SourceError
from streamgate.sources.base import HintProvider, Interest
from streamgate.sources.references import IsReference

LAG = 36
"""Number of packets after which the hint about a frame takes effect. A decoder holds back at most 16 frames for its
threads and 16 for reordering, so it has already returned the frame when it is given the packet `LAG` packets later."""
AHEAD_BYTES = 32 << 20
"""Maximum total size in bytes of the packets that wait to be decoded; the same limit applies to the packets that are
kept so that they can be decoded again."""
_REORDERED = 16
"""Maximum distance, in packets, between a frame and another frame that is stored later but shown earlier."""
PATIENCE = 3
"""Skipping ends after this many consecutive key frames that cannot be decoded on their own."""

_IDLE = (Interest.EMPTY, Interest.KNOWN)
"""Hints after which spans between key frames may be skipped."""

Numbered = tuple[int, Packet]


class SkippingDecoder:
    """Decodes packets to frames.

    Without hints, it decodes everything in order. Hints require reliable packet times. The source calls `begin(None)`
    if the times are wrong, and for interlaced video, because deinterlacing a frame requires the adjacent frames.

    Args:
        packets: packets of one stream, in storage order; may raise SourceError if no more packets can be read.
        codec: the stream's decoder; its `skip_frame` is set here.
        decode: decodes a packet, or flushes the decoder if the packet is None; the second argument says whether to
            count damage.
        scout: returns a second decoder of the stream, without threads, for individual key frames.
        is_reference: returns whether other frames are predicted from the frame of a packet.
        sees_face: asks the hint provider whether a picture shows a face, before that picture is yielded.
        time_base: time base of the packets.
    """

    def __init__(
        self,
        packets: Iterator[Packet],
        codec: VideoCodecContext,
        decode: Callable[[Packet | None, bool], list[VideoFrame]],
        scout: Callable[[], VideoCodecContext],
        is_reference: IsReference,
        sees_face: Callable[[HintProvider, VideoFrame], bool],
        time_base: Fraction,
    ) -> None:
        self._hints: HintProvider | None = None
        self._packets = packets
        self._codec = codec
        self._decode = decode
        self._scout = scout
        self._is_reference = is_reference
        self._sees_face = sees_face
        self._base = time_base
        self._failure: SourceError | None = None
        self._number = 0  # number of packets read, without those outside the edit list
        self._sent = 0  # highest number of the packets sent to the decoder
        self._sent_pts = -(1 << 62)
        self._waiting: deque[Numbered] = deque()  # packets read ahead, to be decoded
        # Packets sent to the decoder since the last key frame, including that frame; recorded even before `begin`.
        self._group: list[Numbered] | None = None
        self._keeps_group = True
        self._group_bytes = 0
        self._thins = False
        self._held = 0  # skips start only after this packet number
        self._failures = 0
        self._shown: deque[tuple[int, float]] = deque()  # rank and time of frames with pending hints
        self._settled: float | None = None
        self._latest: float | None = None
        self._stops_at = 1 << 62  # number of the packet where hints end
        self._hints_end = 1 << 62  # time of the packet where hints end
        self._whole_from = 1 << 62  # from this packet number on, no frame is discarded, because of damage
        self._skip_until = -(1 << 62)  # frames up to this pts were already yielded
        self._bridges: deque[int] = deque(maxlen=_REORDERED)  # times of the last frames that are certain to be yielded
        self._spared: set[int] = set()  # times of frames that may be left out

    def begin(self, hints: HintProvider | None, until: float = 0.0) -> None:
        """From now on, use `hints` for frames before `until` seconds (0.0: all frames); if None, decode everything."""
        self._hints_end = self._after(0, until) if until else 1 << 62
        self._hints = hints
        self._keeps_group = hints is not None and hints.max_skip_s > 0
        if not self._keeps_group:
            self._group = None
        if hints is None:
            self._shown.clear()
            self._codec_skips(False)
            self._thins = False

    def stop_after(self, rank: int) -> None:
        """Stop skipping `LAG` packets after the frame with `rank`; the decoder has returned that frame by then."""
        self._stops_at = rank + LAG

    def damaged(self, rank: int) -> None:
        """Stop discarding frames `LAG` packets after the damaged frame with `rank`.

        Where one frame is damaged, others often are, too, and damage to a discarded frame would not be noticed. A
        packet that is marked as corrupt has the same effect at once.
        """
        self._whole_from = min(self._whole_from, rank + LAG)

    def failed(self, *, decoding: bool = True) -> None:
        """Stop discarding frames, like `damaged`, after an error that has just been raised by the decoder, or by the
        container if not `decoding`."""
        # With frame threading, the decoder raises an error late, by one packet for each additional thread.
        threaded = decoding and self._codec.codec.capabilities & Capabilities.frame_threads
        self.damaged(self._sent - (self._codec.thread_count - 1 if threaded else 0))

    def shown(self, rank: int, pts_seconds: float) -> None:
        """Record that a frame is yielded."""
        self._latest = pts_seconds
        if self._hints is not None:
            self._shown.append((rank, pts_seconds))

    def left_out(self, until: int | None = None) -> int:
        """Number of frames before the yielded frame at `until` that were left out and not counted by earlier calls.

        At the end of the stream, `until` is None.
        """
        past = {pts for pts in self._spared if until is None or pts <= until}
        self._spared -= past
        return len(past - {until})

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames in presentation order. Raises SourceError after all frames that could be read."""
        while (item := self._take()) is not None:
            number, packet = item
            if self._hints is not None and (
                packet.pts is None or number > self._stops_at or packet.pts >= self._hints_end
            ):
                self.begin(None)
            if self._hints is not None:
                word = self._interest(self._hints, number)
                if word in _IDLE and self._may_skip(self._hints, number):
                    self._waiting.appendleft(item)
                    yield from self._skip(self._hints, word)
                    continue
                discards = word in self._hints.discards and number < self._whole_from
                self._thins = discards and word is Interest.EMPTY
                spares = self._thins or (discards and not self._is_needed(packet, self._hints.max_gap_s))
                self._codec_skips(spares)
                if spares:
                    self._spare(packet, self._skip_until)
                elif packet.pts is not None:
                    self._bridges.append(packet.pts)
            self._remember(item)
            yield from self._send(item)
        yield from self._fresh(self._decode(None, True))
        if self._failure is not None:
            raise self._failure

    def _is_needed(self, packet: Packet, max_gap_s: float) -> bool:
        """Whether the frame is a reference, or the frames before and after it are too far apart to leave it out."""
        if self._is_reference(packet):
            return True
        pts, limit = packet.pts, max_gap_s * self._base.denominator / self._base.numerator * (1 + 1e-9)
        assert pts is not None
        before = max((one for one in self._bridges if one < pts), default=None)
        after = min((one for one in self._bridges if one > pts), default=None)
        if before is None or (after is not None and after - before <= limit):
            return before is None
        # The next frame may still be close enough to the previous one.
        return pts + (packet.duration or 0) - before > limit

    def _spare(self, packet: Packet, after: int = -(1 << 62), before: int = 1 << 62) -> None:
        """Record that the packet's frame may be left out, if it is shown between `after` and `before`."""
        if packet.pts is not None and not packet.is_discard and after < packet.pts < before:
            self._spared.add(packet.pts)

    def _take(self) -> Numbered | None:
        return self._waiting.popleft() if self._waiting else self._read()

    def _read(self) -> Numbered | None:
        if self._failure is not None:
            return None
        try:
            packet = next(self._packets, None)
        except SourceError as error:
            # The error is raised after the packets that were read before it are decoded.
            self._failure = error
            return None
        if packet is None:
            return None
        # Packets that are not shown do not count: packet numbers are compared with the ranks of the shown frames.
        self._number += not packet.is_discard
        if packet.is_corrupt:
            self._whole_from = min(self._whole_from, self._number)
        return self._number, packet

    def _send(self, item: Numbered) -> Iterator[VideoFrame]:
        number, packet = item
        # If a packet is decoded a second time, its damage was already counted.
        counted, self._sent = number > self._sent, max(self._sent, number)
        frames = self._decode(packet, counted)
        if packet.pts is not None:
            self._sent_pts = max(self._sent_pts, packet.pts)
        return self._fresh(frames)

    def _fresh(self, frames: list[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield the given frames, except those that were already yielded or are not needed now."""
        for frame in frames:
            if frame.pts is None or (frame.pts > self._skip_until and (not self._thins or self._due(frame.pts))):
                yield frame
            elif frame.pts > self._skip_until:
                self._spared.add(frame.pts)

    def _due(self, pts: int) -> bool:
        """Whether a frame is due for detection, or the hint about the last yielded frame is not EMPTY."""
        hints, latest = self._hints, self._latest
        if hints is None or latest is None or pts * self._base >= latest + hints.probe_interval_s - 1e-6:
            return True
        return hints.interest(latest) is not Interest.EMPTY

    def _remember(self, item: Numbered) -> None:
        if not self._keeps_group:
            return
        if item[1].is_keyframe:
            self._group, self._group_bytes = [], 0
        if self._group is not None:
            self._group.append(item)
            self._group_bytes += item[1].size
            if self._group_bytes > AHEAD_BYTES:
                self._group = None

    def _codec_skips(self, skips: bool) -> None:
        wanted: Literal["NONREF", "DEFAULT"] = "NONREF" if skips else "DEFAULT"
        if self._codec.skip_frame != wanted:
            self._codec.skip_frame = wanted

    def _interest(self, hints: HintProvider, number: int) -> Interest:
        """The hint about the newest frame that is more than `LAG` packets older than packet `number`."""
        while self._shown and self._shown[0][0] < number - LAG:
            self._settled = self._shown.popleft()[1]
        return Interest.LIVELY if self._settled is None else hints.interest(self._settled)

    def _may_skip(self, hints: HintProvider, number: int) -> bool:
        # If a face appears in frames that are still in the decoder, decoding restarts at the key frame of `_group`.
        return hints.max_skip_s > 0 and number > self._held and self._failures < PATIENCE and self._group is not None

    def _skip(self, hints: HintProvider, word: Interest) -> Iterator[VideoFrame]:
        """Skip from key frame to key frame, as long as none of them is interesting.

        If there is no face (EMPTY), the skip ends at the last key frame without a face. The packets after this key
        frame, which were read ahead, are decoded later, so a face that appears before the next key frame is not missed.
        If all faces are known (KNOWN), decoding continues from the first key frame whose hint is neither EMPTY nor
        KNOWN.
        """
        assert self._group is not None
        group = self._group
        index = self._next_face(hints, self._sent_pts)
        picture = None if index is None else self._probe(hints, index, word)
        if index is None or picture is None:
            return
        for _, packet in self._waiting:
            self._spare(packet, before=self._sent_pts)
        yield from self._fresh(self._decode(None, True))
        self._codec.flush_buffers()
        if self._hints is None or self._latest is None or hints.interest(self._latest) not in _IDLE:
            self._held = self._waiting[index][0] + LAG
            self._waiting.extendleft(reversed(group))
            self._skip_until = self._sent_pts
            return
        while index is not None and picture is not None:
            for _ in range(index):
                self._spare(self._waiting.popleft()[1], self._sent_pts)
            start = self._waiting[0][1].pts
            assert start is not None
            self._skip_until = self._sent_pts = start
            self._read_past(start)
            for _, packet in self._waiting:
                self._spare(packet, before=start)
            yield picture
            if self._hints is None:
                break
            if word is Interest.KNOWN and (word := hints.interest(self._latest)) not in _IDLE:
                self._held = self._waiting[0][0] + LAG
                break
            index = self._next_face(hints, start, 1)
            picture = None if index is None else self._probe(hints, index, word)
        # Drop frames that are shown before the key frame, because they depend on skipped packets.
        key, *rest = self._waiting
        self._waiting = deque([key, *(one for one in rest if one[1].pts is None or one[1].pts >= self._skip_until)])
        self._group = None

    def _next_face(self, hints: HintProvider, since: int, first: int = 0) -> int | None:
        """Index in `_waiting` of the key frame to probe next, at or after index `first`. Reads packets up to it.

        This is the first key frame that is due for detection, or else the last key frame within `max_skip_s`. If there
        is none, returns None, and no skip starts until the packets that were read ahead are decoded.
        """
        due = self._after(since, hints.probe_interval_s)
        limit = min(self._after(since, hints.max_skip_s), self._hints_end)
        found, index, size = None, first, sum(packet.size for _, packet in self._waiting)
        while True:
            if index == len(self._waiting):
                item = self._read()
                if item is None:
                    # The file ends before the next key frame: decode the rest.
                    found = None
                    break
                self._waiting.append(item)
                size += item[1].size
            packet = self._waiting[index][1]
            if packet.pts is None:
                found = None
                break
            if packet.pts > limit or size > AHEAD_BYTES:
                break
            if packet.is_keyframe and not packet.is_discard and packet.pts > since:
                found = index
                if packet.pts >= due:
                    break
            index += 1
        if found is None:
            self._held = self._waiting[-1][0]
        return found

    def _read_past(self, pts: int) -> None:
        """Read ahead until no later packet can be shown before `pts`.

        This is necessary because the rank of a frame is the number of packets that are shown before that frame.
        """
        for index in range(_REORDERED + 1):
            if index == len(self._waiting):
                item = self._read()
                if item is None:
                    return
                self._waiting.append(item)
            dts = self._waiting[index][1].dts
            if dts is not None and dts >= pts:
                return

    def _after(self, since: int, seconds: float) -> int:
        return since + int(seconds * self._base.denominator / self._base.numerator)

    def _probe(self, hints: HintProvider, index: int, word: Interest) -> VideoFrame | None:
        """The decoded key frame at an index of `_waiting`.

        None if it cannot be decoded on its own, or if it shows a face and the hint is EMPTY. In these cases, no skip
        starts before the frame is decoded and examined in order.
        """
        number, packet = self._waiting[index]
        picture = self._alone(packet)
        self._failures = 0 if picture is not None else self._failures + 1
        if picture is None or (word is Interest.EMPTY and self._sees_face(hints, picture)):
            self._held = number + LAG
            return None
        return picture

    def _alone(self, packet: Packet) -> VideoFrame | None:
        """The key frame, decoded without the packets before it; None if that is not possible."""
        scout = self._scout()
        try:
            frames = [*scout.decode(packet), *scout.decode(None)]
        except (OSError, ValueError):
            frames = []
        scout.flush_buffers()
        frames = [frame for frame in frames if frame.pts == packet.pts]
        if len(frames) != 1:
            return None
        (frame,) = frames
        usable = frame.key_frame and not frame.is_corrupt and not frame.interlaced_frame
        return frame if usable else None
