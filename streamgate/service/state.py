"""The state of a running service: written by the streams, their delivery and their supervisor; read by the HTTP server.

`ServiceState` is thread-safe and returns immutable, consistent values, which never contain secrets of a URL. It is
independent of any web framework.

    state.overview()        the service as a whole: ready, healthy, configuration errors, destinations
    state.streams()         a StreamSnapshot per configured stream, in the order of the configuration
    state.faces()           the latest best faces, newest first: the latest event of each track and rank
    state.face(key_or_id)   one of these faces, by its key or by the id of its event
    state.registry          all metrics, for Prometheus
    state.hub.subscribe()   all events from now on (see hub.py)

`serve --http HOST:PORT` enters `streamgate.service.http.serving(state, "HOST:PORT")`, a context manager. The context
manager raises UsageError for an invalid address or a missing token, and SinkError when the server cannot listen on the
address. It yields the base URL, such as "http://127.0.0.1:8080"; if the given port is 0, the URL has the port that was
chosen. The server runs in its own threads, handles no signals, and stops within a second after the context is left,
even with open event streams.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from streamgate import __version__
from streamgate.faces import ScoredFace
from streamgate.measures import MeasureSpec, known_measures
from streamgate.service.hub import EventHub
from streamgate.service.metrics import SECONDS, SIZES, snapshot_metrics
from streamgate.service.snapshots import LatestFace, Overview, StreamSnapshot, StreamState

__all__ = [
    "EventHub", "LatestFace", "Overview", "ServiceState", "StreamSnapshot", "StreamState",
]  # fmt: skip

Scorer = Callable[[bytes, str | None], list[ScoredFace]]
"""Returns the scored faces of a picture file, given the file's bytes and `aligned` as in `Gate.score`.

Raises SourceError if the picture cannot be read. The message has no subject; an example is "is empty (0 bytes)"."""

LATEST_FACES = 240
"""Maximum number of faces on the wall, which is the page's list of faces. Each face is kept in memory with its
pictures, which take up to 250 kB."""
HEARTBEAT_LIMIT_S = 15.0
"""The supervisor sends a heartbeat every half second; if none arrives for this long, the service is not healthy."""


class ServiceState(Collector):
    """See the module. The parts of the service update the state with the methods at the end of the class.

    Attributes:
        registry: all metrics; other components may register their own.
        stages: seconds by stage (`decode`, `follow`, `choose`, `encode`, `detector`, `pose`, `recognizer`, `ifqa`).
        batches: batch sizes by network role.
        final_latency: seconds from `ended_at` of a track until Redis has acknowledged its final (without Redis: until
            the final is on disk).
        capture_latency: seconds from `captured_at` of a face until its event has been acknowledged, by kind of event.
        events: acknowledged events, by kind.
        faults: errors that the service recovered from, by kind.
        connections: open HTTP connections.
        closed: connections closed by the service, by reason: `late` (the request did not arrive in time), `behind` (the
            response was not read), `crowded` (too many connections were open).
        measures: the measures that the streams' records can contain; the page describes them.
        scorer: scores the pictures sent to `POST /api/score`; None until the networks are loaded.
    """

    def __init__(self, measures: Sequence[MeasureSpec] | None = None) -> None:
        """measures: all known measures by default."""
        self.measures = known_measures() if measures is None else tuple(measures)
        self.hub = EventHub()
        self.registry = registry = CollectorRegistry()  # not the global one: a process may run several services
        registry.register(self)
        ProcessCollector(registry=registry)
        self.events = Counter("streamgate_events", "Acknowledged events, by kind.", ["kind"], registry=registry)
        self.faults = Counter(
            "streamgate_faults", "Errors that the service recovered from, by kind.", ["what"], registry=registry
        )
        self.stages = Histogram(
            "streamgate_stage_seconds", "Processing time, by stage.", ["stage"], buckets=SECONDS, registry=registry
        )
        self.batches = Histogram(
            "streamgate_batch_size", "Items per network run.", ["role"], buckets=SIZES, registry=registry
        )
        self.final_latency = Histogram(
            "streamgate_final_latency_seconds", "Time from the end of a track to the acknowledgement of its final.",
            buckets=SECONDS, registry=registry,
        )
        self.capture_latency = Histogram(
            "streamgate_capture_latency_seconds",
            "Time from the capture of a face to the acknowledgement of its event.", ["kind"],
            buckets=(*SECONDS, 30.0, 60.0, 120.0, 300.0), registry=registry,
        )
        self.connections = Gauge("streamgate_http_connections", "Open connections.", registry=registry)
        self.closed = Counter(
            "streamgate_http_closed", "Connections closed by the service, by reason.", ["why"], registry=registry
        )
        for kind in ("improved", "final"):  # created at the start, so that rates include the first event
            self.events.labels(kind)
        self._mutex = threading.Lock()
        self._streams: dict[str, StreamSnapshot] = {}
        self._faces: OrderedDict[str, LatestFace] = OrderedDict()
        self._ids: dict[str, str] = {}
        self._snapshots: dict[str, bytes] = {}
        self.scorer: Scorer | None = None
        self._number = 0
        self._beat = time.monotonic()
        self._overview = Overview(
            version=__version__,
            started_at=datetime.now(UTC),
            models_loaded=False,
            ready=False,
            healthy=True,
            stopping=False,
            streams_running=0,
            streams=0,
            config_error=None,
            config_read_at=None,
            destinations={},
            notes=(),
        )

    def overview(self) -> Overview:
        streams = self.streams()
        running = sum(one.state is StreamState.RUNNING for one in streams)
        with self._mutex:
            known, beat = self._overview, self._beat
        return replace(
            known,
            streams=len(streams),
            streams_running=running,
            ready=known.models_loaded and running > 0 and not known.stopping,
            healthy=time.monotonic() - beat < HEARTBEAT_LIMIT_S,
        )

    def streams(self) -> tuple[StreamSnapshot, ...]:
        with self._mutex:
            return tuple(self._streams.values())

    def stream(self, name: str) -> StreamSnapshot | None:
        """A stream; None if it is no longer configured."""
        with self._mutex:
            return self._streams.get(name)

    def faces(self, limit: int = LATEST_FACES, stream: str | None = None) -> tuple[LatestFace, ...]:
        """The latest faces, newest first; only those of `stream` if given."""
        with self._mutex:
            known = list(reversed(self._faces.values()))
        return tuple(one for one in known if stream is None or one.stream == stream)[: max(0, limit)]

    def face(self, key_or_id: str) -> LatestFace | None:
        """A face by its key or by the id of its latest event; None when it is not among the latest faces."""
        with self._mutex:
            return self._faces.get(key_or_id) or self._faces.get(self._ids.get(key_or_id, ""))

    def collect(self) -> Iterator[Metric]:
        """Metrics for the registry."""
        return snapshot_metrics(self)

    # The methods below are for the parts of the service that update the state.

    def add_stream(self, name: str, url: str, **values: Any) -> None:
        """Add a configured stream; `url` must already be redacted.

        A stream whose configuration changed keeps its position and its counters.
        """
        with self._mutex:
            if name not in self._streams:
                self._streams[name] = StreamSnapshot(name, url, since=datetime.now(UTC))
        self.update_stream(name, url=url, **values)

    def update_stream(self, name: str, **values: Any) -> None:
        """Set attributes of a stream, if it is still configured.

        A change of `state` sets `since` and is published to listeners.
        """
        with self._mutex:
            before = self._streams.get(name)
            if before is None:
                return
            if values.get("state", before.state) != before.state:
                values.setdefault("since", datetime.now(UTC))
            now = self._streams[name] = replace(before, **values)
        if now.state != before.state:
            self.hub.publish("stream", now.summary())

    def count(self, name: str, **amounts: int) -> None:
        """Increase counters of a stream by the given amounts, if the stream is still configured."""
        with self._mutex:
            if (known := self._streams.get(name)) is not None:
                grown = {key: getattr(known, key) + amount for key, amount in amounts.items()}
                self._streams[name] = replace(known, **grown)

    def show_snapshot(self, name: str, jpeg: bytes) -> None:
        """Set the current snapshot of a stream, a small JPEG; it is held only in memory."""
        with self._mutex:
            if name in self._streams:
                self._snapshots[name] = jpeg

    def snapshot_of(self, name: str) -> bytes | None:
        """The latest snapshot of a stream as JPEG; None if there is none."""
        with self._mutex:
            return self._snapshots.get(name)

    def remove_stream(self, name: str) -> None:
        """Remove a stream that is no longer configured; its faces stay on the wall."""
        with self._mutex:
            known = self._streams.pop(name, None)
            self._snapshots.pop(name, None)
        if known is not None:
            self.hub.publish("removed", {"name": name})

    def show(self, face: LatestFace) -> None:
        """Put a face on the wall; it replaces an earlier one with the same key."""
        with self._mutex:
            self._number += 1
            face = replace(face, number=self._number)
            self._drop(face.key)
            self._faces[face.key] = face
            self._ids[face.id] = face.key
            while len(self._faces) > LATEST_FACES:
                self._drop(next(iter(self._faces)))
        self.hub.publish("face", face.summary())

    def note(self, **changes: Any) -> None:
        """Set attributes of the overview."""
        with self._mutex:
            self._overview = replace(self._overview, **changes)
        if "config_error" in changes:
            self.hub.publish("config", {"error": changes["config_error"]})

    def destination(self, kind: str, **figures: Any) -> None:
        """Update values of one destination in the overview."""
        with self._mutex:
            known = dict(self._overview.destinations)
            known[kind] = {**known.get(kind, {"ok": True, "error": None}), **figures}
            self._overview = replace(self._overview, destinations=known)

    def beat(self) -> None:
        """Record a heartbeat of the supervisor."""
        with self._mutex:
            self._beat = time.monotonic()

    def _drop(self, key: str) -> None:
        before = self._faces.pop(key, None)
        if before is not None:
            self._ids.pop(before.id, None)
