"""Publishes events to any number of listeners without ever waiting for one."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

HISTORY = 256
"""Events remembered for listeners that reconnect."""


@dataclass(frozen=True, slots=True)
class HubEvent:
    """One event as listeners receive it.

    Attributes:
        number: ascending from 1 over the life of the process; usable as an SSE `id`.
        kind: "face" (a face is new or better), "stream" (the state of a stream changed), "removed" (a stream
            was removed from the configuration) or "config" (the file was read again).
        data: the event as one line of JSON, encoded once for all listeners: `LatestFace.summary()` for "face",
            `StreamSnapshot.summary()` for "stream", {"name"} for "removed", {"error": text or null} for "config".
    """

    number: int
    kind: str
    data: str


class EventHub:
    """Publishes events to subscriptions with bounded queues; a slow one loses its oldest events. Thread-safe."""

    def __init__(self) -> None:
        # Reentrant: a listener that turns out to be gone during `publish` is removed at once.
        self._mutex = threading.RLock()
        self._subscriptions: set[Subscription] = set()
        self._history: deque[HubEvent] = deque(maxlen=HISTORY)
        self._number = 0

    def publish(self, kind: str, data: Mapping[str, Any]) -> None:
        """Send an event to all listeners; never blocks."""
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        with self._mutex:
            self._number += 1
            event = HubEvent(self._number, kind, text)
            self._history.append(event)
            for listener in list(self._subscriptions):
                listener._offer(event)

    def subscribe(
        self, *, limit: int = 256, after: int | None = None, wake: Callable[[], None] | None = None
    ) -> Subscription:
        """Listen from now on; the subscription is a context manager and is closed on leaving it.

        Args:
            limit: events that may wait; beyond it the oldest are dropped and counted.
            after: number of the last event seen; later events that are still remembered are queued first.
            wake: called from another thread whenever events were queued. It must not block: an asyncio listener
                passes `lambda: loop.call_soon_threadsafe(flag.set)`.
        """
        subscription = Subscription(self, limit, wake)
        with self._mutex:
            if after is not None:
                subscription._queue.extend(event for event in self._history if event.number > after)
            self._subscriptions.add(subscription)
        return subscription

    @property
    def listeners(self) -> int:
        """Number of open subscriptions."""
        with self._mutex:
            return len(self._subscriptions)

    def _leave(self, subscription: Subscription) -> None:
        with self._mutex:
            self._subscriptions.discard(subscription)


class Subscription:
    """One listener's queue. Call `take` from one thread at a time."""

    def __init__(self, hub: EventHub, limit: int, wake: Callable[[], None] | None) -> None:
        self._hub = hub
        self._wake = wake
        self._queue: deque[HubEvent] = deque(maxlen=max(1, limit))
        self._mutex = threading.Lock()
        self._lost = 0

    @property
    def lost(self) -> int:
        """Events dropped because this listener was too slow."""
        return self._lost

    def take(self) -> list[HubEvent]:
        """All waiting events, oldest first; returns at once, possibly with none."""
        with self._mutex:
            taken = list(self._queue)
            self._queue.clear()
        return taken

    def close(self) -> None:
        """Stop listening; closing twice is fine."""
        self._hub._leave(self)

    def _offer(self, event: HubEvent) -> None:
        with self._mutex:
            self._lost += len(self._queue) == self._queue.maxlen
            self._queue.append(event)
        if self._wake is not None:
            try:
                self._wake()
            except RuntimeError:
                # The listener's event loop is gone.
                self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
