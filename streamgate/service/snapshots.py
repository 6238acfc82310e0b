"""Snapshots of a running service: its streams, its latest faces, and an overview.

Immutable values, consistent in themselves and without secrets; `ServiceState` creates them.
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
    """State of a stream. Only RUNNING delivers frames."""

    CONNECTING = "connecting"
    RUNNING = "running"
    STALLED = "stalled"
    """Connected, but no frame for longer than the stall limit; about to be closed."""
    WAITING = "waiting"
    """Waiting for the next attempt."""
    FAILED = "failed"
    """Refused (wrong user name or password); retried at long intervals, since cameras lock accounts."""


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """One stream at one moment. All counters run from the start of the process; times are UTC.

    Attributes:
        name: unique, safe as a path part; also the `source_id` of its records.
        url: redacted.
        state, since: the state and when the stream entered it.
        error: why it is not running, or why it last stopped; one line, redacted; None once frames arrive again.
        retry_at: when the next attempt is due, in WAITING and FAILED.
        epoch: UUIDv7 of the connection, None before the first.
        width, height: of the picture in pixels, 0 before the first frame.
        fps: frames analysed per second, over the last ten seconds.
        frames_in: frames that the camera delivered, decoded or counted as dropped.
        frames_dropped: those of them that were dropped, oldest first, because analysis was behind.
        frames_skipped: those of them that were skipped on purpose (live.max_fps).
        frames_in_error: packets or frames that could not be decoded.
        connects, reconnects: successful connections; `reconnects` does not count the first.
        attempts_failed: failed connection attempts.
        queue_depth: frames waiting for analysis now.
        tracks_open: tracks being followed now.
        tracks: tracks ended.
        faces: finals sent with a face.
        last_frame_at: arrival of the latest frame.
        main: the main stream of a camera with two streams, see `MainStream.summary`; else None.
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
    """The latest event of one kept rank of one track: an `improved`, later its `final`.

    Attributes:
        key: `track_key/rank`; does not change when an improved is replaced by a better one or by its final.
        id: of the event.
        kind: "improved" or "final".
        track_key: source_id/epoch/track_id.
        stream: name of the stream.
        record: as in records.face_record, plus `ended_at` (null while the track is open); JSON-ready.
        jpeg: the FFHQ-aligned crop as JPEG.
        heatmap: IFQA's map as a transparent PNG overlay for the crop, from `heatmap.heatmap_png`; None without IFQA.
        image: path of the crop relative to OUT with `/`, None without `--out`. The file may have been removed since
            (max_days, max_gb), so show `jpeg`.
        series: the evaluated faces of the track by time, evenly thinned to at most 300.
        number: ascending with every arrival; the order of the wall.
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
        """JSON-ready, without pictures and series; `heatmap` is whether there is one."""
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
        healthy: the supervisor is responsive.
        stopping: the service is stopping.
        config_error: why the current configuration file is not active; None when it is active or none is used.
        config_read_at: when the active configuration was read.
        destinations: by kind. "redis": {url (redacted), ok, error (one line or null), spool_events, spool_bytes,
            spool_dropped, spool_damaged, spool_set_aside, delivered}. "disk": {path, ok, error, bytes, files_removed}.
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
