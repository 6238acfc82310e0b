"""Snapshots of a running service: its streams, its latest faces, and an overview.

Snapshots are immutable, consistent and without secrets; `ServiceState` creates them.
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
    """State of a stream. Frames are delivered only in the state `RUNNING`."""

    CONNECTING = "connecting"
    RUNNING = "running"
    STALLED = "stalled"
    """Connected, but no frame has arrived for longer than the stall limit; the connection will be closed soon."""
    WAITING = "waiting"
    """Waiting for the next attempt to connect."""
    FAILED = "failed"
    """The camera rejected the user name or password; attempts are far apart, because cameras lock accounts after
    repeated failures."""


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """One stream at one point in time. Counters start at 0 when the process starts; times are UTC.

    Attributes:
        name: unique name that is safe as part of a path; also the `source_id` of the stream's records.
        url: the address, redacted.
        state, since: the state, and when the stream entered that state.
        error: why the stream is not running, or why it stopped last, as one redacted line; None once frames arrive
            again.
        retry_at: when the next attempt is due; set only in the states `WAITING` and `FAILED`.
        epoch: UUIDv7 of the connection; None before the first connection.
        width, height: size of the frames in pixels; 0 before the first frame.
        fps: frames analysed per second, over the last ten seconds.
        frames_in: frames that the camera delivered, including dropped and skipped frames.
        frames_dropped: delivered frames that were dropped, oldest first, because analysis was too slow.
        frames_skipped: delivered frames that were skipped because of live.max_fps.
        frames_in_error: packets or frames that could not be decoded.
        connects, reconnects: successful connections; `reconnects` does not count the first.
        attempts_failed: failed connection attempts.
        queue_depth: frames that wait for analysis now.
        tracks_open: tracks that are open now.
        tracks: tracks that have ended.
        faces: `final` events with a face.
        last_frame_at: arrival time of the latest frame.
        main: state of the main stream of a camera with two streams (see `MainStream.summary`); None for other cameras.
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
        """JSON-ready dictionary of all attributes by name; times in RFC 3339."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["state"] = self.state.value
        values["fps"] = round(self.fps, 2)
        for name in ("since", "retry_at", "last_frame_at"):
            values[name] = utc_text(values[name])
        return values


@dataclass(frozen=True, slots=True)
class LatestFace:
    """The latest event for one kept rank of one track: an `improved` event, and later the `final` event.

    Attributes:
        key: `track_key/rank`; it stays the same when an `improved` event is replaced by a better one or by the `final`
            event.
        id: id of the event.
        kind: "improved" or "final".
        track_key: source_id/epoch/track_id.
        stream: name of the stream.
        record: JSON-ready record as in records.face_record, plus `ended_at` (null while the track is open).
        jpeg: the FFHQ-aligned crop as JPEG.
        heatmap: IFQA's map as a transparent PNG overlay for the crop, from `heatmap.heatmap_png`; None if IFQA did not
            run.
        image: path of the crop relative to OUT, with `/`; None without `--out`. The file may have been removed
            in the meantime (max_days, max_gb), so pages should show `jpeg`.
        series: at most 300 evaluated faces of the track, evenly spaced and in order of time.
        number: increases with every event; the page shows faces in this order.
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
        """JSON-ready, without pictures and series; `heatmap` is true if there is a heatmap."""
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
        ready: whether the models are loaded and at least one stream is running.
        healthy: whether the supervisor is responsive.
        stopping: whether the service is stopping.
        config_error: why the current configuration file is not active; None if it is active or if there is no such
            file.
        config_read_at: when the active configuration was read.
        destinations: state of each destination, by kind. "redis": {url (redacted), ok, error (one line or null),
            spool_events, spool_bytes, spool_dropped, spool_damaged, spool_set_aside, delivered}. "disk": {path, ok,
            error, bytes, files_removed}.
        notes: notes for the user about the weights in use, one line each.
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
