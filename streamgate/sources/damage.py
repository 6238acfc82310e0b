"""Detects torn frames: frames that are damaged or depend on data that is damaged or missing.

After a loss, decoders continue with the data that they have, and their output can still look like a picture. All frames
from the first sign of a loss up to the next intact key frame count as torn. Signs of a loss are:

- a packet is marked as corrupt, as FFmpeg does where the continuity counters of a transport stream have a gap;
- a reference picture is missing according to H.264's frame numbers;
- the decoder fails on a packet, or marks a frame as corrupt.

Damage without any of these signs is not detected: changed bytes that can still be decoded, and losses over UDP inside a
picture, which FFmpeg does not report.
"""

from __future__ import annotations

from collections import deque

from av import Packet, VideoFrame
from av.video.codeccontext import VideoCodecContext

from streamgate.sources.h264 import FrameNumbers

_HELD_BACK = 32
"""Maximum number of frames that a decoder holds back, for its threads and for reordering."""
_REMEMBERED = 4096
"""Maximum number of packets that are remembered because their frames will be torn and have not been output yet."""
_KEYS = 16
_STARTS_ANYWHERE = frozenset(
    {
        "flv1", "h261", "h263", "h263i", "h263p", "mpeg4", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "rv10",
        "rv20", "wmv1", "wmv2",
    }
)  # fmt: skip
"""Decoders that output frames from the first packet of a stream on, even if that packet is not a key frame; other
decoders wait for a key frame."""


class DamageTracker:
    """Follows one pass over a stream, from its packets to its frames.

    Args:
        codec: the stream's decoder, before it has read anything.
    """

    def __init__(self, codec: VideoCodecContext) -> None:
        self._alone = bool(codec.codec.intra_only)
        self._numbers = FrameNumbers(codec.extradata) if codec.name == "h264" else None
        self._starts_anywhere = codec.name in _STARTS_ANYWHERE
        self._started = False
        # State of the packets, in storage order:
        self._broken = False
        self._left = 0  # number of pictures until a recovery point is reached
        self._flagged = False  # the previous packet was marked as corrupt
        self._intact_from: int | None = None  # frames before this pts depend on data before the last key packet
        self._torn: dict[int, None] = {}
        self._torn_without_pts = 0
        # State of the frames, in the order in which the decoder outputs them:
        self._waits_for_key = False
        self._failed_dts: int | None = None
        self._since_failure = 0
        self._keys: deque[tuple[int, int | None]] = deque(maxlen=_KEYS)

    def packet(self, packet: Packet) -> None:
        """Register a packet, in storage order, before it is decoded."""
        key = bool(packet.is_keyframe)
        if not self._started:
            self._started, self._waits_for_key = True, self._starts_anywhere and not key
        gap = self._numbers is not None and self._numbers.gap_before(bytes(packet))
        flagged = bool(packet.is_corrupt)
        if flagged or gap or self._broken or self._flagged or self._intact_from is not None or key:
            self._note(packet, key=key, gap=gap, flagged=flagged)

    def left_out(self) -> None:
        """Record that a packet was not decoded although other packets may depend on it."""
        self._broken = True

    def failed(self, packet: Packet | None) -> None:
        """Record that the decoder raised an error on `packet`."""
        if not self._alone:
            self._waits_for_key, self._since_failure = True, 0
            self._failed_dts = None if packet is None else packet.dts

    def is_torn(self, frame: VideoFrame) -> bool:
        """Whether a decoded frame is damaged or depends on damaged data; call once per frame."""
        pts = frame.pts
        torn = bool(frame.is_corrupt)
        if torn and not self._alone:
            self._waits_for_key, self._failed_dts = True, None
        if self._torn and pts in self._torn:
            del self._torn[pts]
            return True
        if self._torn_without_pts and pts is None:
            self._torn_without_pts -= 1
            return True
        if self._waits_for_key:
            self._since_failure += 1
            self._waits_for_key = not self._is_recovered(frame) or torn
            return self._waits_for_key
        return torn

    def _note(self, packet: Packet, *, key: bool, gap: bool, flagged: bool) -> None:
        pts = packet.pts
        # If a parser splits the data into packets, the packet before the damaged one is marked as corrupt.
        if key and pts is not None and not flagged and not self._flagged:
            self._keys.append((pts, packet.dts))
            if self._broken or gap:
                self._intact_from = pts
                self._left = 0 if self._numbers is None else self._numbers.recovers_after(bytes(packet))
                self._broken = self._left > 0
            elif self._intact_from is not None and pts > self._intact_from:
                self._intact_from = None
        elif flagged or gap:
            self._broken, self._left = True, 0
        elif self._left:
            self._left -= 1
            if self._left == 0:
                self._broken, self._intact_from = False, pts
        self._flagged = flagged
        if self._broken or (self._intact_from is not None and (pts is None or pts < self._intact_from)):
            if pts is None:
                self._torn_without_pts += 1
                return
            self._torn[pts] = None
            if len(self._torn) > _REMEMBERED:
                del self._torn[next(iter(self._torn))]

    def _is_recovered(self, frame: VideoFrame) -> bool:
        """Whether this frame and all later ones are independent of everything that failed."""
        keys = [dts for pts, dts in self._keys if pts == frame.pts]
        if self._failed_dts is None or self._since_failure > _HELD_BACK:
            return bool(keys or frame.key_frame)
        # With frame threading, each decoder thread reports its errors late.
        return any(dts is None or dts > self._failed_dts for dts in keys)
