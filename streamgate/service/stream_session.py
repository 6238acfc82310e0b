"""Turns the frames of one connection into events: `improved` during a track, `final` at its end (docs/design.md 6)."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from streamgate.report.heatmap import heatmap_png
from streamgate.report.notes import Point
from streamgate.runtime.prefetch import prefetch
from streamgate.runtime.selection_stage import SelectionStage
from streamgate.runtime.tracking_stage import TrackedFrame, TrackingStage
from streamgate.scoring.context import ScoringContext
from streamgate.scoring.full_scorer import FullScorer
from streamgate.service.delivery import LiveEvent
from streamgate.service.frame_queue import FrameQueue, Timestamp
from streamgate.service.live_folder import LiveFolder
from streamgate.service.main_faces import MainFaces
from streamgate.service.main_lookup import Lookup
from streamgate.service.main_stream import MainStream
from streamgate.service.pins import Pinned, Pins, release
from streamgate.service.state import LatestFace, ServiceState
from streamgate.store.images import JPEG_QUALITY, encode_jpeg
from streamgate.store.jsonlines import Record
from streamgate.store.records import face_record, missed_record, track_record, utc_text
from streamgate.store.run import SourceInfo
from streamgate.tracks import BestShot, Candidate, TrackEnd

_SERIES = 300
_LEAST_WAIT_S = 0.3
"""Minimum time to wait for a face from the main stream, even if the analysis requests it late."""
_DECODING_S = 1.5
"""Additional time after `live.main_wait_s` for lookups in the main stream to finish."""


@dataclass(slots=True)
class StreamCounts:
    """Counters of one stream, each written by a single thread; `Stream.tick` copies them to the state."""

    frames_in: int = 0
    frames_dropped: int = 0
    frames_skipped: int = 0
    frames_in_error: int = 0
    frames: int = 0
    """Frames analysed."""
    tracks: int = 0
    tracks_open: int = 0
    faces: int = 0


@dataclass(slots=True)
class _Sent:
    """What has been sent about a track so far."""

    seq: int = 0
    quality: float = 0.0
    pts_seconds: float = float("-inf")
    news: bool = False
    """Whether faces of the track have been judged since its best face was last considered for an `improved`."""
    face_pts: float = float("nan")
    """Time of the face that was sent last."""
    main_pts: float | None = None
    """Time of the last lookup in the main stream, in pts seconds; None if there was no lookup."""
    main_shot: BestShot | None = None
    """The face that the last successful lookup found in the main stream."""
    ended: bool = False


class StreamSession:
    """Runs one epoch of one stream.

    Args:
        name: name of the stream, which is also its `source_id`.
        location: address of the stream without secrets.
        queue: the frames of the connection.
        emit: called with each event.
        written: whether finals are also written to disk; if so, the web page shows their paths.
        main: the main stream of a camera with two streams, in which `main_faces` finds faces.
    """

    def __init__(
        self,
        name: str,
        location: str,
        epoch: str,
        queue: FrameQueue,
        context: ScoringContext,
        state: ServiceState,
        counts: StreamCounts,
        emit: Callable[[LiveEvent], None],
        *,
        written: bool,
        main: MainStream | None = None,
        main_faces: MainFaces | None = None,
    ) -> None:
        self._name = name
        self._location = location
        self._epoch = epoch
        self._queue = queue
        self._context = context
        self._state = state
        self._counts = counts
        self._emit = emit
        self._written = written
        self._main = main if main_faces is not None else None
        self._main_faces = main_faces
        self._pins = None if main is None else Pins(main)
        self._scorer = None if self._main is None else FullScorer(context)
        self._telling = threading.Condition()
        """Held while a face is sent for a camera with two streams, because some faces are sent from another thread."""
        self._outstanding = 0
        self._sent: defaultdict[int, _Sent] = defaultdict(_Sent)
        self._series: defaultdict[int, list[Point]] = defaultdict(list)
        self._selection = SelectionStage(
            context, SourceInfo(location, name), self._evaluated, epoch=epoch
        )

    def run(self, stop: threading.Event) -> None:
        """Process frames until the queue is closed and empty, or `stop` is set; then end all tracks."""
        config, queue = self._context.config, self._queue
        tracking = TrackingStage(config, self._context.infer, max_track_s=config.live.max_track_s, live=True)
        tracked_frames = self._timed(tracking.tracked_frames(queue.frames()))
        with closing(prefetch(tracked_frames, config.live.queue_tracked)) as ahead:
            for tracked in ahead:
                if stop.is_set():
                    # Processing the queued frames would take too long; only the faces found so far are sent.
                    break
                began = time.perf_counter()
                for ended in self._selection.take(tracked):
                    self._final(ended, self._end_of(ended, tracked))
                for track_id in self._selection.judged:
                    self._sent[track_id].news = True
                    if self._pins is not None:
                        self._pins.hold(track_id, self._selection.contenders(track_id))
                for track_id in self._selection.open_tracks if tracked.people else ():
                    self._improved(track_id, tracked.pts_seconds)
                self._counts.frames += 1
                self._counts.tracks_open = len(self._selection.open_tracks)
                self._state.stages.labels("choose").observe(time.perf_counter() - began)
        lost, live = queue.closed_at or Timestamp.now(), config.live
        for ended in self._selection.finish():
            self._final(ended, lost)
        self._counts.tracks_open = 0
        with self._telling:
            self._telling.wait_for(lambda: not self._outstanding, live.main_wait_s + _DECODING_S)

    def _timed(self, tracked_frames: Iterator[TrackedFrame]) -> Iterator[TrackedFrame]:
        """Yield the tracked frames and record how long tracking takes, without the time spent waiting for frames."""
        queue = self._queue
        while True:
            began, waited = time.perf_counter(), queue.waited
            tracked = next(tracked_frames, None)
            if tracked is None:
                return
            self._state.stages.labels("follow").observe(time.perf_counter() - began - (queue.waited - waited))
            yield tracked

    def _end_of(self, ended: TrackEnd, tracked: TrackedFrame) -> Timestamp:
        """When a track ended.

        A track whose gap became too long ended at the first frame after `tracking.max_gap_s` had passed. A track
        that was ended by a cut or by its maximum age ended at the frame `tracked`.
        """
        here = self._queue.arrival_at(tracked.pts_seconds) or Timestamp.now()
        gap = self._queue.arrival_after(ended.track.last_pts + self._context.config.tracking.max_gap_s)
        return gap if gap is not None and gap.monotonic < here.monotonic else here

    def _evaluated(self, candidate: Candidate) -> None:
        self._series[candidate.track_id].append(Point.of(candidate))

    def _improved(self, track_id: int, now: float) -> None:
        """Send the track's best face if it is clearly better than the last one sent and the interval between two events
        has passed."""
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
        if shot.pts_seconds == sent.face_pts:  # the same face, judged again with more known about the person
            return
        sent.quality, sent.pts_seconds, sent.face_pts = shot.quality_smoothed, now, shot.pts_seconds
        series = self._series_of(track_id)
        if self._main is None:
            self._send_improved(shot, sent, series)
            return
        shot = replace(shot, stream="sub")
        with self._telling:
            self._send_improved(shot, sent, series)
        # Decoding is expensive, and a track that has just started will soon have a better face.
        since = shot.track.first_pts if sent.main_pts is None else sent.main_pts
        if now - since >= live.main_interval_s:
            sent.main_pts = now

            def found(better: BestShot | None) -> None:
                if better is None:
                    return
                with self._telling:
                    sent.main_shot = better
                    if not sent.ended:
                        self._send_improved(better, sent, series)

            pinned = None if self._pins is None else self._pins.of(track_id, shot.pts_seconds)
            self._look_up(shot, self._selection.usual(track_id), pinned, None, found)

    def _send_improved(self, shot: BestShot, sent: _Sent, series: tuple[Point, ...]) -> None:
        sent.seq += 1
        record = self._record(shot, None)
        record["id"] = f"{self._name}/{self._epoch}/{shot.track.track_id}/improved/{shot.rank}/{sent.seq}"
        self._send("improved", shot, record, None, series)

    def _final(self, ended: TrackEnd, when: Timestamp) -> None:
        self._counts.tracks += 1
        with self._telling:
            self._sent[ended.track.track_id].ended = True
        for shot in ended.shots:
            self._counts.faces += 1
            self._final_shot(shot, ended, when)
        if not ended.shots:
            record = missed_record(track_record(ended), self._location, self._context.evaluator.calibration_id)
            record["ended_at"] = utc_text(when.wall)
            self._emit(LiveEvent("final", record, None, None, None, when))
        self._sent.pop(ended.track.track_id, None)
        self._series.pop(ended.track.track_id, None)
        if self._pins is not None:
            release(self._pins.take(ended.track.track_id))

    def _final_shot(self, shot: BestShot, ended: TrackEnd, when: Timestamp) -> None:
        series = self._series_of(ended.track.track_id)
        if self._main is None:
            self._send("final", shot, self._record(shot, when), when, series)
            return
        shot = replace(shot, stream="sub")
        sent = self._sent[ended.track.track_id]
        with self._telling:
            known = sent.main_shot
        if known is not None and known.pts_seconds == shot.pts_seconds and known.rank == shot.rank:
            known = replace(known, track=shot.track)
            self._send("final", known, self._record(known, when), when, series)
            return

        def found(better: BestShot | None) -> None:
            final = better or shot
            with self._telling:
                self._send("final", final, self._record(final, when), when, series)

        pinned = None if self._pins is None else self._pins.of(ended.track.track_id, shot.pts_seconds)
        self._look_up(shot, ended.reference, pinned, when, found)

    def _look_up(
        self,
        shot: BestShot,
        usual: Mapping[str, float],
        pinned: Pinned | None,
        ended: Timestamp | None,
        found: Callable[[BestShot | None], None],
    ) -> None:
        """Request a face from the main stream; `found` is called with the result, from another thread."""
        assert self._main is not None and self._main_faces is not None and self._scorer is not None
        held = [] if pinned is None else [pinned.again()]

        def done(better: BestShot | None) -> None:
            try:
                found(better)
            finally:
                release(held)
                with self._telling:
                    self._outstanding -= 1
                    self._telling.notify_all()

        with self._telling:
            self._outstanding += 1
        now, wait_s = time.monotonic(), self._context.config.live.main_wait_s
        until = max(now + min(_LEAST_WAIT_S, wait_s), (now if ended is None else ended.monotonic) + wait_s)
        ours = held[0] if held else None
        self._main_faces.put(Lookup(self._main, self._scorer, shot, usual, ours, ended is not None, until, done))

    def _series_of(self, track_id: int) -> tuple[Point, ...]:
        return _thinned(sorted(self._series[track_id], key=lambda point: point.pts_seconds))

    def _record(self, shot: BestShot, ended: Timestamp | None) -> Record:
        return {**face_record(shot, None), "ended_at": None if ended is None else utc_text(ended.wall)}

    def _send(
        self, kind: str, shot: BestShot, record: Record, ended: Timestamp | None, series: tuple[Point, ...]
    ) -> None:
        began = time.perf_counter()
        jpeg = encode_jpeg(shot.image, JPEG_QUALITY)
        track_key = f"{self._name}/{self._epoch}/{shot.track.track_id}"
        self._emit(LiveEvent(kind, record, jpeg, shot, self._queue.arrival_at(shot.pts_seconds), ended))
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
                series=series,
            )
        )
        self._state.stages.labels("encode").observe(time.perf_counter() - began)


def new_epoch() -> str:
    """A UUIDv7 (RFC 9562), ordered by creation time."""
    now = int(datetime.now(UTC).timestamp() * 1000) & ((1 << 48) - 1)
    value = now << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _thinned(points: list[Point]) -> tuple[Point, ...]:
    """At most `_SERIES` of the points, evenly spaced: a chart cannot show more."""
    if len(points) <= _SERIES:
        return tuple(points)
    return tuple(points[index * len(points) // _SERIES] for index in range(_SERIES))
