"""A configured stream: it connects, reads, and reconnects until it is removed from the configuration."""

from __future__ import annotations

import os
import random
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from streamgate.errors import DeviceError
from streamgate.frames import Frame
from streamgate.redaction import scrub
from streamgate.scoring.context import ScoringContext
from streamgate.service.delivery import LiveEvent
from streamgate.service.frame_queue import FrameQueue, Timestamp
from streamgate.service.main_faces import MainFaces
from streamgate.service.main_stream import MainStream
from streamgate.service.settings import StreamSpec
from streamgate.service.state import ServiceState, StreamState
from streamgate.service.stream_alignment import LOOK_S, ArrivalClock, Look, small_picture
from streamgate.service.stream_session import StreamCounts, StreamSession, new_epoch
from streamgate.sources.hardware import CPU
from streamgate.sources.live import FailureKind, LiveConnection, LiveError
from streamgate.store.images import encode_jpeg

SNAPSHOT_S = 5.0
"""Interval between snapshots of a camera for the page."""
_SNAPSHOT_SIDE, _SNAPSHOT_QUALITY = 320, 70
_STEADY_S = 10.0
"""A connection that delivered frames for this long resets the reconnect backoff."""
_FPS_WINDOW_S = 10.0
_COUNTERS = ("frames_in", "frames_dropped", "frames_skipped", "frames_in_error", "tracks", "faces")
_FLUSH_S = 30.0
"""Maximum time to finish the last faces of a lost connection before the next connection is opened."""


class Stream:
    """Watches one camera in its own threads and reconnects until it is stopped.

    Args:
        emit: called with each event, from the stream's threads.
        log: called with a line for each change of state.
        written: whether finals are also written to disk.
        decode: "cpu" or "cuda:N".
        main_faces: crops faces from main streams; used for cameras with two streams.
    """

    def __init__(
        self,
        spec: StreamSpec,
        context: ScoringContext,
        state: ServiceState,
        emit: Callable[[LiveEvent], None],
        log: Callable[[str], None],
        *,
        written: bool,
        decode: str = CPU,
        main_faces: MainFaces | None = None,
    ) -> None:
        self.spec = spec
        self.main: MainStream | None = None
        """The main stream of a camera with two streams; this stream is then the substream. None for other cameras."""
        self._main_faces = main_faces
        if spec.main_url is not None and main_faces is not None:
            self.main = MainStream(spec.name, spec.main_url, spec.config.live, log)
            main_faces.watch(self.main)
        self._main_clock: ArrivalClock | None = None
        self._compared_at = 0.0
        self.device_error: DeviceError | None = None
        """The device error after which the stream gives no more results; None if there was no such error."""
        self._decode = decode
        self._context = context
        self._state = state
        state.add_stream(spec.name, spec.location)
        self._update = partial(state.update_stream, spec.name)
        self._emit = emit
        self._log = log
        self._written = written
        self._live = spec.config.live
        self._counts = StreamCounts()
        self._shown = dict.fromkeys(_COUNTERS, 0)
        """The counter values that were last added to the state."""
        self._rate: deque[tuple[float, int]] = deque()
        self._stop = threading.Event()
        self._queue: FrameQueue | None = None
        self._watcher: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._last_frame: Timestamp | None = None
        self._snapshot_due = 0.0
        self._due = 0.0
        """Timestamp (pts seconds) before which frames are skipped because of `live.max_fps`."""
        self._thread = threading.Thread(target=self._work, name=f"streamgate-read-{spec.name}", daemon=True)

    def start(self) -> None:
        if self.main is not None:
            self.main.start()
        self._thread.start()

    def stop(self) -> None:
        """Ask the stream to stop: its tracks end now, whatever the camera does. Returns at once."""
        self._stop.set()
        queue = self._queue
        if queue is not None:
            queue.close()

    def join(self, seconds: float) -> bool:
        """Wait until the last events are emitted; returns False on timeout. A hanging reader thread is abandoned."""
        watcher = self._watcher
        if watcher is not None:
            watcher.join(max(0.0, seconds))
        self.tick()
        ended = watcher is None or not watcher.is_alive()
        if ended and self.main is not None and self._main_faces is not None:
            self.main.stop()
            self._main_faces.forget(self.main)
        return ended

    def tick(self) -> None:
        """Update counters and state; called about every half second."""
        now, counts = time.monotonic(), self._counts
        values = {name: getattr(counts, name) for name in _COUNTERS}
        self._state.count(self.spec.name, **{name: values[name] - self._shown[name] for name in _COUNTERS})
        self._shown = values
        if self._stop.is_set():
            # After a reload, the name may already belong to the stream that replaces this one.
            return
        self._rate.append((now, counts.frames))
        while now - self._rate[0][0] > _FPS_WINDOW_S:
            self._rate.popleft()
        span = now - self._rate[0][0]
        last, queue = self._last_frame, self._queue
        self._update(
            fps=(counts.frames - self._rate[0][1]) / span if span > 0 else 0.0,
            queue_depth=0 if queue is None else len(queue),
            tracks_open=counts.tracks_open,
            main=None if self.main is None else self.main.summary(),
        )
        if last is None:
            return
        self._update(last_frame_at=last.wall)
        if self._is_shown_running() and now - last.monotonic > self._live.stall_s:
            self._update(state=StreamState.STALLED, error=f"no frame for {self._live.stall_s:g} s")
            self._log_line("stalled: no frames arrive")

    def _work(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            kind, error = self._connect()
            if self._stop.is_set():
                break
            last = self._last_frame
            if last is not None and last.monotonic - began >= _STEADY_S:
                failures = 0
            pause = self._pause(kind, failures)
            failures += 1
            refused = kind is FailureKind.REFUSED
            self._state.faults.labels(str(kind) if kind else "internal").inc()
            self._update(
                state=StreamState.FAILED if refused else StreamState.WAITING,
                error=error,
                retry_at=datetime.now(UTC) + timedelta(seconds=pause),
            )
            if failures <= 3 or failures % 20 == 0 or refused:
                self._log_line(f"{error}; next attempt in {pause:.0f} s")
            self._stop.wait(pause)

    def _connect(self) -> tuple[FailureKind | None, str]:
        """Run one connection until it ends; returns the kind of failure, if known, and its description."""
        self._update(state=StreamState.CONNECTING, retry_at=None)
        reached = False
        try:
            with LiveConnection(self.spec.url, self._live, self._decode) as connection:
                reached = True
                self._read(connection)
            return None, ""
        except LiveError as error:
            if not reached:
                self._state.count(self.spec.name, attempts_failed=1)
            # The location is left out, because the message is always shown together with the stream's name.
            return error.kind, str(error).removeprefix(f"{error.location}: ")
        except DeviceError as error:
            self.device_error = error
            return None, str(error)
        except Exception as error:
            # A bug in this code must not end the stream, so the stream reconnects after a pause.
            if os.environ.get("STREAMGATE_DEBUG"):
                traceback.print_exc()
            return (
                None,
                f"internal error ({scrub(f'{type(error).__name__}: {error}', self.spec.url)}); please report it",
            )

    def _read(self, connection: LiveConnection) -> None:
        keep_s = self._live.max_track_s + self.spec.config.tracking.max_gap_s + 10.0
        queue = FrameQueue(self._live.queue_frames, keep_s)
        counts, errors = self._counts, self._counts.frames_in_error
        self._due = 0.0
        self._queue, self._failure = queue, None
        try:
            for frame, arrived in connection.frames():
                if self._stop.is_set():
                    return
                if self._failure is not None:
                    raise self._failure
                # Frames that were skipped before decoding were delivered by the camera, so they count as dropped.
                left_out, connection.left_out = connection.left_out, 0
                counts.frames_in += 1 + left_out
                counts.frames_dropped += left_out
                counts.frames_in_error = errors + connection.stats.decode_errors
                self._state.stages.labels("decode").observe(connection.decode_seconds)
                connection.decode_seconds = 0.0
                if self._watcher is None:
                    self._begin(queue, frame, connection)
                self._snapshot(frame, arrived)
                self._compare(frame, arrived)
                if self._is_wanted(frame.pts_seconds):
                    counts.frames_dropped += queue.put(frame, arrived)
                else:
                    counts.frames_skipped += 1
                self._last_frame = Timestamp(arrived, frame.captured_at or datetime.now(UTC))
                if not self._is_shown_running():
                    self._update(state=StreamState.RUNNING, error=None)
                del frame
        finally:
            counts.frames_in_error = errors + connection.stats.decode_errors
            queue.close()
            watcher = self._watcher
            if watcher is not None:
                watcher.join(_FLUSH_S)
            self._watcher = None

    def _compare(self, frame: Frame, arrived: float) -> None:
        """Record small pictures and arrival times, which are used to align the main stream."""
        if self.main is not None and self._main_clock is not None:
            seconds = frame.pts_seconds
            self._main_clock.note(seconds, arrived)
            if seconds - self._compared_at >= LOOK_S and self.main.alignment.due:
                self._compared_at = seconds
                self.main.looks.append(Look(seconds, small_picture(frame, 1)))

    def _snapshot(self, frame: Frame, arrived: float) -> None:
        """Update the snapshot on the page every `SNAPSHOT_S`."""
        if arrived >= self._snapshot_due:
            self._snapshot_due = arrived + SNAPSHOT_S
            picture = frame.thumbnail(_SNAPSHOT_SIDE)
            self._state.show_snapshot(self.spec.name, encode_jpeg(picture, _SNAPSHOT_QUALITY))

    def _is_wanted(self, pts_seconds: float) -> bool:
        """Decide whether `live.max_fps` allows this frame to be analysed, and update when the next frame is due."""
        if not self._live.max_fps:
            return True
        if pts_seconds < self._due:
            return False
        spacing = 1 / self._live.max_fps
        # The next due time is counted from the last due time, not from this frame, to keep the mean rate. After a
        # pause, it is counted from this frame.
        self._due = max(self._due, pts_seconds - spacing) + spacing
        return True

    def _begin(self, queue: FrameQueue, first: Frame, connection: LiveConnection) -> None:
        """Start an epoch with the first frame of a connection."""
        epoch = new_epoch()
        known = self._state.stream(self.spec.name)
        again = known is not None and known.connects > 0
        self._state.count(self.spec.name, connects=1, reconnects=int(again))
        width, height = first.width, first.height
        if self.main is not None:
            self.main.size, self._main_clock = (width, height), self.main.connected()
            self._compared_at = float("-inf")
        self._update(state=StreamState.RUNNING, error=None, epoch=epoch, width=width, height=height)
        self._log_line(f"running, {width}x{height}")
        if connection.not_on_gpu:
            self._log_line(f"decoded on the CPU: the GPU cannot decode this {connection.not_on_gpu} video")
        watch = StreamSession(
            self.spec.name,
            self.spec.location,
            epoch,
            queue,
            self._context,
            self._state,
            self._counts,
            self._emit,
            written=self._written,
            main=self.main,
            main_faces=self._main_faces,
        )
        watcher = threading.Thread(
            target=self._run_session, args=(watch, queue), name=f"streamgate-watch-{self.spec.name}", daemon=True
        )
        watcher.start()
        # Set only after the start: `join` joins this thread, and a thread that was not started cannot be joined.
        self._watcher = watcher

    def _run_session(self, watch: StreamSession, queue: FrameQueue) -> None:
        try:
            watch.run(self._stop)
        except BaseException as error:  # raised again in the reader thread
            self._failure = error
            if os.environ.get("STREAMGATE_DEBUG"):
                traceback.print_exc()
            queue.close()

    def _is_shown_running(self) -> bool:
        known = self._state.stream(self.spec.name)
        return known is not None and known.state is StreamState.RUNNING

    def _pause(self, kind: FailureKind | None, failures: int) -> float:
        """Seconds until the next attempt: exponential backoff with jitter, so that streams do not retry together."""
        if kind is FailureKind.REFUSED:
            return self._live.refused_retry_s
        longest = min(self._live.backoff_max_s, self._live.backoff_min_s * 2 ** min(failures, 30))
        return longest * random.uniform(0.5, 1.0)

    def _log_line(self, text: str) -> None:
        self._log(f"{self.spec.name}: {text}")
