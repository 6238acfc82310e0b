"""One connection's frames into events: `improved` while a track lives, `final` when it ends (DESIGN 6)."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

from streamgate.frames import BestShot, Candidate, TrackEnd
from streamgate.report.heatmap import heatmap_png
from streamgate.report.notes import Point
from streamgate.runtime.prefetch import prefetch
from streamgate.runtime.selection_stage import SelectionStage
from streamgate.runtime.tracking_stage import TrackedFrame, TrackingStage
from streamgate.scoring.context import ScoringContext
from streamgate.service.delivery import LiveEvent
from streamgate.service.framequeue import ArrivalTimes, FrameQueue, Timestamp
from streamgate.service.state import LatestFace, ServiceState, utc_text
from streamgate.sinks.livefolder import LiveFolder
from streamgate.store.images import JPEG_QUALITY, encode_jpeg
from streamgate.store.jsonlines import Record
from streamgate.store.records import face_record, missed_record, track_record
from streamgate.store.run import SourceInfo

_SERIES = 300


@dataclass(slots=True)
class StreamCounts:
    """Figures that one thread each writes; `Stream.tick` brings them to the state."""

    frames_in: int = 0
    dropped: int = 0
    skipped: int = 0
    errors: int = 0
    frames: int = 0
    """Analysed."""
    tracks: int = 0
    tracks_open: int = 0
    faces: int = 0


@dataclass(slots=True)
class _Sent:
    """What has been said about a track so far."""

    seq: int = 0
    quality: float = 0.0
    pts_seconds: float = float("-inf")
    news: bool = False
    """Faces were judged since it was last asked for its best."""
    face_pts: float = float("nan")
    """Time of the face that was told of last."""


class StreamSession:
    """Runs one epoch of one stream.

    Args:
        name: the stream's; its `source_id`.
        location: its address without secrets.
        emit: takes events.
        written: finals go to disk as well; then the wall knows the path.
    """

    def __init__(
        self,
        name: str,
        location: str,
        epoch: str,
        context: ScoringContext,
        state: ServiceState,
        counts: StreamCounts,
        emit: Callable[[LiveEvent], None],
        *,
        written: bool,
    ) -> None:
        self._name = name
        self._location = location
        self._epoch = epoch
        self._context = context
        self._state = state
        self._counts = counts
        self._emit = emit
        self._written = written
        live, tracking = context.config.live, context.config.tracking
        self._arrivals = ArrivalTimes(live.max_track_s + tracking.max_gap_s + 10.0)
        self._sent: defaultdict[int, _Sent] = defaultdict(_Sent)
        self._series: defaultdict[int, list[Point]] = defaultdict(list)
        self._selection = SelectionStage(
            context, SourceInfo(location, name), self._evaluated, epoch=epoch
        )

    def run(self, queue: FrameQueue, stop: threading.Event) -> None:
        """Take frames until the queue is closed and empty, or `stop` is set; then every track ends."""
        config = self._context.config
        tracking = TrackingStage(config, self._context.infer, max_track_s=config.live.max_track_s, live=True)
        tracked_frames = self._timed(tracking.tracked_frames(queue.frames(self._arrivals)), queue)
        with closing(prefetch(tracked_frames, config.live.queue_tracked)) as ahead:
            for tracked in ahead:
                if stop.is_set():
                    # What is in the queues would take its time; the faces found so far are what counts now.
                    break
                began = time.perf_counter()
                for ended in self._selection.take(tracked):
                    self._final(ended, self._end_of(ended, tracked))
                for track_id in self._selection.judged:
                    self._sent[track_id].news = True
                for track_id in self._selection.open_tracks if tracked.people else ():
                    self._improved(track_id, tracked.pts_seconds)
                self._counts.frames += 1
                self._counts.tracks_open = len(self._selection.open_tracks)
                self._state.stages.observe(time.perf_counter() - began, "choose")
        lost = queue.closed_at or Timestamp.now()
        for ended in self._selection.finish():
            self._final(ended, lost)
        self._counts.tracks_open = 0

    def _timed(self, tracked_frames: Iterator[TrackedFrame], queue: FrameQueue) -> Iterator[TrackedFrame]:
        """Measures following, without the wait for frames."""
        while True:
            began, waited = time.perf_counter(), queue.waited
            tracked = next(tracked_frames, None)
            if tracked is None:
                return
            self._state.stages.observe(time.perf_counter() - began - (queue.waited - waited), "follow")
            yield tracked

    def _end_of(self, ended: TrackEnd, tracked: TrackedFrame) -> Timestamp:
        """When a track ended: the first frame at which its gap was too long, else (a cut, old age) this frame."""
        here = self._arrivals.at(tracked.pts_seconds) or Timestamp.now()
        gap = self._arrivals.after(ended.track.last_pts + self._context.config.tracking.max_gap_s)
        return gap if gap is not None and gap.monotonic < here.monotonic else here

    def _evaluated(self, candidate: Candidate) -> None:
        self._series[candidate.track_id].append(Point.of(candidate))

    def _improved(self, track_id: int, now: float) -> None:
        """Tell of a better face, at most once in a while and only when it is clearly better."""
        live = self._context.config.live
        sent = self._sent[track_id]
        if not sent.news or now - sent.pts_seconds < live.improved_interval_s:
            return
        sent.news = False
        shot = self._selection.standing(track_id)
        if shot is None or shot.quality_smoothed is None:
            return
        if sent.seq and shot.quality_smoothed < sent.quality + live.improved_gain:
            return
        if shot.pts_seconds == sent.face_pts:  # Only judged otherwise since more is known of the person.
            return
        sent.seq += 1
        sent.quality, sent.pts_seconds, sent.face_pts = shot.quality_smoothed, now, shot.pts_seconds
        record = self._record(shot, None)
        record["id"] = f"{self._name}/{self._epoch}/{track_id}/improved/{shot.rank}/{sent.seq}"
        self._send("improved", shot, record, None)

    def _final(self, ended: TrackEnd, when: Timestamp) -> None:
        self._counts.tracks += 1
        for shot in ended.shots:
            self._counts.faces += 1
            self._send("final", shot, self._record(shot, when), when)
        if not ended.shots:
            record = missed_record(track_record(ended), self._location, self._context.evaluator.calibration_id)
            record["ended_at"] = utc_text(when.wall)
            self._emit(LiveEvent("final", record, None, None, None, when))
        self._sent.pop(ended.track.track_id, None)
        self._series.pop(ended.track.track_id, None)

    def _record(self, shot: BestShot, ended: Timestamp | None) -> Record:
        return {**face_record(shot, None), "ended_at": None if ended is None else utc_text(ended.wall)}

    def _send(self, kind: str, shot: BestShot, record: Record, ended: Timestamp | None) -> None:
        began = time.perf_counter()
        jpeg = encode_jpeg(shot.image, JPEG_QUALITY)
        track_key = f"{self._name}/{self._epoch}/{shot.track.track_id}"
        self._emit(LiveEvent(kind, record, jpeg, shot, self._arrivals.at(shot.pts_seconds), ended))
        image = LiveFolder.relative_path(shot) if self._written and kind == "final" else None
        self._state.show(
            LatestFace(
                key=f"{track_key}/{shot.rank}",
                id=record["id"],
                kind=kind,
                track_key=track_key,
                stream=self._name,
                record={**record, "image": image},
                jpeg=jpeg,
                heatmap=None if shot.ifqa_map is None else heatmap_png(shot.ifqa_map),
                image=image,
                series=_thinned(sorted(self._series[shot.track.track_id], key=lambda point: point.pts_seconds)),
            )
        )
        self._state.stages.observe(time.perf_counter() - began, "encode")


def new_epoch() -> str:
    """A UUIDv7 (RFC 9562): ordered by the time at which it was made."""
    now = int(datetime.now(UTC).timestamp() * 1000) & ((1 << 48) - 1)
    value = now << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _thinned(points: list[Point]) -> tuple[Point, ...]:
    """Evenly thinned to what a chart can show."""
    if len(points) <= _SERIES:
        return tuple(points)
    return tuple(points[index * len(points) // _SERIES] for index in range(_SERIES))
