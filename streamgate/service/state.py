"""What a running service knows about itself: the one thing that the engine writes and the HTTP side reads.

`ServiceState` is thread-safe; what it hands out are immutable values, complete at their moment. Nothing in them
holds a secret of a URL. No web framework here: whoever shows these values chooses how.

    state.overview()        how the service as a whole is: ready, healthy, what is configured wrongly, destinations
    state.streams()         a StreamSnapshot a configured stream, in the order of the configuration
    state.faces()           the latest best faces, newest first: one a track and rank, the newest word on it
    state.face(key_or_id)   one of them
    state.metrics()         every figure, ready for exposition as it is
    state.hub.subscribe()   what happens from now on (see hub.py)

`serve --http HOST:PORT` enters `streamgate.service.http.serving(state, "HOST:PORT")`, a context manager: it raises
UsageError for an address or a missing token, SinkError when it cannot bind, gives the address it serves
("http://127.0.0.1:8080", the real port for port 0), runs in threads of its own, takes no signals, and is gone
within a second of leaving, listeners or not.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from streamgate import __version__
from streamgate.frames import ScoredFace
from streamgate.measures import MeasureSpec, known_measures
from streamgate.report.notes import Point
from streamgate.service.hub import EventHub, HubEvent, Subscription
from streamgate.service.meters import SECONDS, SIZES, Counts, Distribution, Histogram, Metric, Sample

__all__ = [
    "Distribution", "EventHub", "HubEvent", "LatestFace", "Metric", "Overview", "Sample",
    "ServiceState", "StreamMeter", "StreamSnapshot", "StreamState", "Subscription",
]  # fmt: skip

LATEST_FACES = 240
"""Faces that the wall can show; each holds its pictures, up to 250 kB."""
HEARTBEAT_LIMIT_S = 15.0
"""The supervisor beats every half second; silent for this long, something hangs."""


class StreamState(StrEnum):
    """Where a stream is. Only RUNNING gives frames."""

    CONNECTING = "connecting"
    RUNNING = "running"
    STALLED = "stalled"
    """Connected, but no frame for longer than the stall limit; about to be closed."""
    WAITING = "waiting"
    """Until the next attempt."""
    FAILED = "failed"
    """Refused (user or password wrong); tried again rarely, since cameras lock accounts."""


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """One stream at one moment. All counters are over the life of the process; times are UTC.

    Attributes:
        name: unique, safe as a path part; also the `source_id` of its records.
        url: redacted.
        state, since: and when it came into that state.
        error: why it is not running, or why it last stopped; one line, redacted; None after frames came again.
        retry_at: when the next attempt is due, in WAITING and FAILED.
        epoch: UUIDv7 of the connection, None before the first.
        width, height: of the picture, 0 before the first frame.
        fps: frames analysed a second, over the last ten seconds.
        frames_in: pictures that the camera delivered, decoded or counted as dropped.
        frames_dropped: of them, the oldest ones thrown away because analysis was behind.
        frames_skipped: of them, those left out on purpose (live.max_fps).
        frames_in_error: packets or pictures that could not be decoded.
        connects, reconnects: successful ones; `reconnects` is all but the first.
        attempts_failed: connections that did not come about.
        queue_depth: frames that wait for analysis now.
        tracks_open: tracks followed now.
        tracks: tracks ended.
        faces: finals sent that hold a face.
        last_frame_at: arrival of the latest frame.
        main: of a camera with two streams, its main stream: see `MainStream.summary`.
    """

    name: str
    url: str
    state: StreamState = StreamState.CONNECTING
    since: datetime | None = None
    error: str | None = None
    retry_at: datetime | None = None
    epoch: str | None = None
    width: int = 0
    height: int = 0
    fps: float = 0.0
    frames_in: int = 0
    frames_dropped: int = 0
    frames_skipped: int = 0
    frames_in_error: int = 0
    connects: int = 0
    reconnects: int = 0
    attempts_failed: int = 0
    queue_depth: int = 0
    tracks_open: int = 0
    tracks: int = 0
    faces: int = 0
    last_frame_at: datetime | None = None
    main: Mapping[str, Any] | None = None

    def summary(self) -> dict[str, Any]:
        """JSON-ready; every attribute under its own name, times RFC 3339."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["state"] = self.state.value
        values["fps"] = round(self.fps, 2)
        for name in ("since", "retry_at", "last_frame_at"):
            values[name] = utc_text(values[name])
        return values


@dataclass(frozen=True, slots=True)
class LatestFace:
    """The newest word on one kept rank of one track: an `improved`, later its `final`.

    Attributes:
        key: `track_key/rank`; stays when an improved is replaced by a better one or by its final.
        id: of the event (changes with it).
        kind: "improved" or "final".
        track_key: source_id/epoch/track_id.
        stream: its name.
        record: as in records.face_record with `ended_at` added (null while the track lives); JSON-ready.
        jpeg: the FFHQ-aligned crop as JPEG.
        heatmap: IFQA's map as a transparent PNG to lay over the crop, from `heatmap.heatmap_png`; None without IFQA.
        image: path of the crop relative to OUT with `/`, None without `--out`. It may have been removed since
            (max_days, max_gb): show `jpeg`.
        series: the evaluated faces of the track by time, at most 300 evenly thinned.
        number: ascending with every arrival; the wall's order.
    """

    key: str
    id: str
    kind: str
    track_key: str
    stream: str
    record: Mapping[str, Any]
    jpeg: bytes
    heatmap: bytes | None = None
    image: str | None = None
    series: tuple[Point, ...] = ()
    number: int = 0

    def summary(self) -> dict[str, Any]:
        """JSON-ready, without pictures and series; `heatmap` says whether there is one."""
        names = ("key", "id", "kind", "track_key", "stream", "image", "number")
        return {
            **{name: getattr(self, name) for name in names},
            "heatmap": self.heatmap is not None,
            "record": dict(self.record),
        }


@dataclass(frozen=True, slots=True)
class Overview:
    """The service as a whole.

    Attributes:
        ready: models are loaded and at least one stream is running.
        healthy: the supervisor lives.
        stopping: a stop is under way.
        config_error: why the configuration file, as it is now, is not in force; None when it is (or none is used).
        config_read_at: when the configuration in force was read.
        destinations: by kind. "redis": {url (redacted), ok, error (one line or null), spool_events, spool_bytes,
            spool_dropped, spool_damaged, spool_set_aside, delivered}. "disk": {path, ok, error, bytes, files_removed}.
        notes: what a user should know about the weights in use, a line each.
    """

    version: str
    started_at: datetime
    models_loaded: bool
    ready: bool
    healthy: bool
    stopping: bool
    streams_running: int
    streams: int
    config_error: str | None
    config_read_at: datetime | None
    destinations: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """JSON-ready."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["started_at"] = utc_text(self.started_at)
        values["config_read_at"] = utc_text(self.config_read_at)
        values["destinations"] = {name: dict(one) for name, one in self.destinations.items()}
        values["notes"] = list(self.notes)
        return values


class StreamMeter:
    """The engine's hand on one stream's figures. Thread-safe."""

    def __init__(self, state: ServiceState, name: str, url: str) -> None:
        self._state = state
        self._mutex = threading.Lock()
        self._snapshot = StreamSnapshot(name, url, since=datetime.now(UTC))

    def snapshot(self) -> StreamSnapshot:
        with self._mutex:
            return self._snapshot

    def update(self, **changes: Any) -> None:
        """Set attributes of the snapshot; a change of `state` sets `since` and is told to listeners."""
        with self._mutex:
            before = self._snapshot.state
            if changes.get("state", before) != before:
                changes.setdefault("since", datetime.now(UTC))
            self._snapshot = replace(self._snapshot, **changes)
            now = self._snapshot
        if now.state != before:
            self._state.hub.publish("stream", now.summary())

    def count(self, **amounts: int) -> None:
        """Add to counters."""
        with self._mutex:
            grown = {name: getattr(self._snapshot, name) + amount for name, amount in amounts.items()}
            self._snapshot = replace(self._snapshot, **grown)


@dataclass(frozen=True, slots=True)
class Scorer:
    """What scores single pictures: `score(image, aligned=...)` as `Gate.score`, of at most `max_pixels`."""

    score: Callable[..., list[ScoredFace]]
    max_pixels: int


class ServiceState:
    """See the module. The engine writes with `add_stream`, `note`, `show` and the meters below.

    Attributes:
        stages: seconds by stage (decode, follow, choose, encode, detector, pose, recognizer, ifqa).
        batches: batch sizes by network role.
        final_latency: from `ended_at` of a track to the acknowledgement of its final by Redis (or by the disk,
            where there is no Redis), seconds.
        capture_latency: from `captured_at` of a face to the acknowledgement of its event, seconds, by kind.
        events: events acknowledged, by kind.
        faults: things that went wrong and were survived, by what.
        measures: those that records of the streams can list; the page says what they are.
        scorer: for `POST /api/score`, once the networks are loaded.
    """

    def __init__(self, measures: Sequence[MeasureSpec] | None = None) -> None:
        """measures: the known ones unless given."""
        self.measures = known_measures() if measures is None else tuple(measures)
        self.hub = EventHub()
        self.stages = Histogram("stage")
        self.batches = Histogram("role", SIZES)
        self.final_latency = Histogram()
        self.capture_latency = Histogram("kind", (*SECONDS, 30.0, 60.0, 120.0, 300.0))
        self.events = Counts("kind", ("improved", "final"))
        self.faults = Counts("what")
        self._mutex = threading.Lock()
        self._meters: dict[str, StreamMeter] = {}
        self._faces: OrderedDict[str, LatestFace] = OrderedDict()
        self._ids: dict[str, str] = {}
        self._snapshots: dict[str, bytes] = {}
        self.scorer: Scorer | None = None
        self._number = 0
        self._collectors: list[Callable[[], list[Metric]]] = []
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
            meters = list(self._meters.values())
        return tuple(meter.snapshot() for meter in meters)

    def faces(self, limit: int = LATEST_FACES, stream: str | None = None) -> tuple[LatestFace, ...]:
        """Newest first; of one stream when named."""
        with self._mutex:
            known = list(reversed(self._faces.values()))
        return tuple(one for one in known if stream is None or one.stream == stream)[: max(0, limit)]

    def face(self, key_or_id: str) -> LatestFace | None:
        """By its key, or by the id of the event it came with; None when it is not among the latest (any more)."""
        with self._mutex:
            return self._faces.get(key_or_id) or self._faces.get(self._ids.get(key_or_id, ""))

    def metrics(self) -> list[Metric]:
        """Every figure. Names begin with `streamgate_`."""
        streams = self.streams()
        overview = self.overview()
        gauge: list[tuple[str, str, float]] = [
            ("streamgate_ready", "Models are loaded and a stream is running.", overview.ready),
            ("streamgate_healthy", "The supervisor of streams lives.", overview.healthy),
            ("streamgate_config_error", "The configuration file has an error; the old one is in force.",
             overview.config_error is not None),
            ("streamgate_start_time_seconds", "When the service started, seconds since 1970.",
             overview.started_at.timestamp()),
            ("streamgate_listeners", "Open event subscriptions.", self.hub.listeners),
        ]  # fmt: skip
        found = [Metric(name, text, "gauge", (Sample(float(value)),)) for name, text, value in gauge]
        for name, text, attribute in _STREAM_COUNTERS:
            found.append(_by_stream(name, text, "counter", streams, attribute))
        for name, text, attribute in _STREAM_GAUGES:
            found.append(_by_stream(name, text, "gauge", streams, attribute))
        states = tuple(
            Sample(float(one.state is state), {"stream": one.name, "state": state.value})
            for one in streams
            for state in StreamState
        )
        found.append(Metric("streamgate_stream_state", "1 for the state a stream is in.", "gauge", states))
        found += [
            Metric("streamgate_events", "Events acknowledged, by kind.", "counter", self.events.samples()),
            Metric("streamgate_faults", "Faults survived, by what went wrong.", "counter", self.faults.samples()),
            Metric("streamgate_stage_seconds", "Time by stage.", "histogram", self.stages.samples()),
            Metric("streamgate_batch_size", "Items a network run.", "histogram", self.batches.samples()),
            Metric("streamgate_final_latency_seconds", "From the end of a track to its final's acknowledgement.",
                   "histogram", self.final_latency.samples()),
            Metric("streamgate_capture_latency_seconds", "From a face's capture to its event's acknowledgement.",
                   "histogram", self.capture_latency.samples()),
        ]  # fmt: skip
        for collect in list(self._collectors):
            found += collect()
        return found

    # What follows is for the engine.

    def add_stream(self, name: str, url: str) -> StreamMeter:
        """A configured stream; `url` is redacted. One that is changed keeps its place and its counters."""
        with self._mutex:
            meter = self._meters.get(name)
            if meter is None:
                meter = self._meters[name] = StreamMeter(self, name, url)
        meter.update(url=url)
        return meter

    def show_snapshot(self, name: str, jpeg: bytes) -> None:
        """What a stream shows now, small; in memory only."""
        with self._mutex:
            if name in self._meters:
                self._snapshots[name] = jpeg

    def snapshot_of(self, name: str) -> bytes | None:
        """The latest snapshot of a stream, JPEG; None where there is none."""
        with self._mutex:
            return self._snapshots.get(name)

    def remove_stream(self, name: str) -> None:
        """A stream that left the configuration; its faces stay on the wall."""
        with self._mutex:
            known = self._meters.pop(name, None)
            self._snapshots.pop(name, None)
        if known is not None:
            self.hub.publish("removed", {"name": name})

    def show(self, face: LatestFace) -> None:
        """Put a face on the wall, in the place of an earlier one with its key."""
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
        """Merge figures into one destination of the overview."""
        with self._mutex:
            known = dict(self._overview.destinations)
            known[kind] = {**known.get(kind, {"ok": True, "error": None}), **figures}
            self._overview = replace(self._overview, destinations=known)

    def beat(self) -> None:
        """The supervisor lives."""
        with self._mutex:
            self._beat = time.monotonic()

    def collect(self, collector: Callable[[], list[Metric]]) -> None:
        """Have further metrics asked for at each exposition."""
        self._collectors.append(collector)

    def _drop(self, key: str) -> None:
        before = self._faces.pop(key, None)
        if before is not None:
            self._ids.pop(before.id, None)


def utc_text(moment: datetime | None) -> str | None:
    """RFC 3339 with milliseconds and Z."""
    if moment is None:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


_STREAM_COUNTERS = (
    ("streamgate_frames", "Frames that a camera delivered.", "frames_in"),
    ("streamgate_frames_dropped", "Frames thrown away because analysis was behind.", "frames_dropped"),
    ("streamgate_frames_skipped", "Frames left out on purpose (live.max_fps).", "frames_skipped"),
    ("streamgate_frames_in_error", "Packets or pictures that could not be decoded.", "frames_in_error"),
    ("streamgate_connects", "Connections made.", "connects"),
    ("streamgate_reconnects", "Connections made after the first.", "reconnects"),
    ("streamgate_attempts_failed", "Connections that did not come about.", "attempts_failed"),
    ("streamgate_tracks", "Tracks ended.", "tracks"),
    ("streamgate_faces", "Faces kept.", "faces"),
)
_STREAM_GAUGES = (
    ("streamgate_fps", "Frames analysed a second.", "fps"),
    ("streamgate_queue_depth", "Frames that wait for analysis.", "queue_depth"),
    ("streamgate_tracks_open", "Tracks followed now.", "tracks_open"),
)


def _by_stream(name: str, text: str, kind: Any, streams: tuple[StreamSnapshot, ...], attribute: str) -> Metric:
    samples = tuple(Sample(float(getattr(one, attribute)), {"stream": one.name}) for one in streams)
    return Metric(name, text, kind, samples)
