"""Publishes events to any number of listeners without ever waiting for a listener."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

HISTORY = 256
"""Number of events that are remembered for listeners that reconnect."""

HubEvent = tuple[int, str, str]
"""One event as listeners receive it: number, kind and data.

The numbers of a process ascend from 1; they can be used as an SSE `id`. The kind is "face" (a face is new or better),
"stream" (the state of a stream changed), "removed" (a stream was removed from the configuration) or "config" (the
configuration file was read again). The data is one line of JSON, encoded once for all listeners:
`LatestFace.summary()` for "face", `StreamSnapshot.summary()` for "stream", {"name"} for "removed", {"error": text or
null} for "config".
"""
Take = Callable[[], list[HubEvent]]


class EventHub:
    """Publishes events to listeners with bounded queues; a slow listener loses its oldest events. Thread-safe."""

    def __init__(self) -> None:
        # Reentrant, because garbage collection may remove an abandoned listener during `publish`.
        self._mutex = threading.RLock()
        self._queues: dict[Take, tuple[deque[HubEvent], Callable[[], None] | None]] = {}
        self._history: deque[HubEvent] = deque(maxlen=HISTORY)
        self._number = 0

    def publish(self, kind: str, data: Mapping[str, Any]) -> None:
        """Send an event to all listeners; never blocks."""
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        with self._mutex:
            self._number += 1
            event = (self._number, kind, text)
            self._history.append(event)
            for take, (queue, wake) in list(self._queues.items()):
                queue.append(event)
                try:
                    if wake is not None:
                        wake()
                except RuntimeError:
                    # The listener's event loop has been closed.
                    self._queues.pop(take, None)

    @contextmanager
    def subscribe(
        self, *, limit: int = 256, after: int | None = None, wake: Callable[[], None] | None = None
    ) -> Iterator[Take]:
        """Listen while the `with` block runs; yields a function that returns all waiting events, oldest first, without
        blocking.

        Args:
            limit: maximum number of waiting events; when it is exceeded, the oldest are dropped.
            after: number of the last event seen; later events that are still remembered are queued first.
            wake: called from another thread whenever an event has been queued. It must not block: an asyncio listener
                passes `lambda: loop.call_soon_threadsafe(flag.set)`.
        """
        queue: deque[HubEvent] = deque(maxlen=max(1, limit))

        def take() -> list[HubEvent]:
            with self._mutex:
                taken = list(queue)
                queue.clear()
            return taken

        with self._mutex:
            if after is not None:
                queue.extend(event for event in self._history if event[0] > after)
            self._queues[take] = queue, wake
        try:
            yield take
        finally:
            with self._mutex:
                self._queues.pop(take, None)

    @property
    def listeners(self) -> int:
        """Number of open subscriptions."""
        with self._mutex:
            return len(self._queues)
