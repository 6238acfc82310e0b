"""What a running service says of itself at one moment: its streams, its latest faces, the whole.

Immutable values, complete at their moment and without secrets; `ServiceState` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from streamgate.report.notes import Point
from streamgate.store.records import utc_text


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
