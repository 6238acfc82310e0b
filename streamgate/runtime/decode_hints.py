"""Hints from tracking to decoding about which of the next frames may be skipped.

Decoding runs ahead of tracking in its own thread, so each hint belongs to a particular frame. The source asks for the
hint of a frame that it has already delivered, and waits until tracking has given that hint. Therefore, which frames are
skipped never depends on how far ahead decoding is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from streamgate.config import Config
from streamgate.faces import Face
from streamgate.frames import Frame
from streamgate.sources.base import Interest

_CHANGES = 256
"""Maximum number of remembered changes of interest; enough, because a source asks only about its last few dozen
frames."""

DISCARDS: dict[str, frozenset[Interest]] = {
    "none": frozenset(),
    "empty": frozenset({Interest.EMPTY}),
    "followed": frozenset({Interest.STEADY, Interest.KNOWN}),
    "steady": frozenset({Interest.EMPTY, Interest.STEADY, Interest.KNOWN}),
    "all": frozenset(Interest),
}
"""The interests whose frames are discarded, for each value of `decoding.discard`."""


class DecodeHints:
    """A `HintProvider` between the tracking thread and the decoding thread.

    Args:
        detect: finds the faces of a frame; called in the decoding thread.
    """

    def __init__(self, config: Config, detect: Callable[[Frame], Sequence[Face]]) -> None:
        self.discards = DISCARDS[config.decoding.discard]
        self.max_gap_s = config.smoothing.short_s / 2
        self.max_skip_s = config.decoding.max_skip_s
        self.probe_interval_s = config.advanced.empty_interval_s
        self._detect = detect
        self._score = config.advanced.high_score
        self._changes: deque[tuple[float, Interest]] = deque(maxlen=_CHANGES)
        self._until = float("-inf")
        self._closed = False
        self._changed = threading.Condition()
        self._looked: tuple[float, Sequence[Face]] | None = None

    def note(self, pts_seconds: float, interest: Interest) -> None:
        """Record how interesting a frame is; must be called for every frame, in order."""
        with self._changed:
            if not self._changes or self._changes[-1][1] is not interest:
                self._changes.append((pts_seconds, interest))
            self._until = pts_seconds
            self._changed.notify_all()

    def interest(self, pts_seconds: float) -> Interest:
        """See `HintProvider.interest`; returns LIVELY after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._until >= pts_seconds)
            if self._closed:
                return Interest.LIVELY
            changes = reversed(self._changes)
            return next((interest for since, interest in changes if since <= pts_seconds), Interest.LIVELY)

    def sees_face(self, frame: Frame) -> bool:
        """See `HintProvider.sees_face`."""
        faces = self._detect(frame)
        if any(face.score >= self._score for face in faces):
            return True
        self._looked = frame.pts_seconds, faces
        return False

    def looked(self, pts_seconds: float) -> Sequence[Face] | None:
        """The faces that `sees_face` found in the frame at `pts_seconds`; None if `sees_face` was not called for that
        frame or returned True."""
        if self._looked is None or self._looked[0] != pts_seconds:
            return None
        return self._looked[1]

    def close(self) -> None:
        """Stop the source from waiting for a hint, because tracking has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
