"""Receives a camera's main stream and buffers the last few seconds; the stream is never decoded completely."""

from __future__ import annotations

import os
import random
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from streamgate.config_sections import LiveConfig
from streamgate.redaction import redact_url, scrub
from streamgate.service.state import StreamState
from streamgate.service.stream_alignment import LOOKS_KEPT, Alignment, ArrivalClock, Look
from streamgate.sources.live import FailureKind, LiveError
from streamgate.sources.packet_ring import PacketRing
from streamgate.sources.rtp import UnitReader
from streamgate.sources.rtsp_client import RtspClient
from streamgate.store.records import utc_text

GULP_S = 0.2
"""Interval at which received data is processed. A shorter interval would use more CPU time, because each processing
step has a fixed cost, which is about as high as the cost of handling a hundred packets."""
_GULP_BYTES = 1 << 17
"""If more bytes than this were received at once, the next interval is shorter, so that a full socket buffer does not
slow down the camera."""
_STEADY_S = 10.0
FALLBACKS = ("away", "late", "dropped", "unsure", "no_face", "rejected", "damaged", "busy")
"""Reasons for using the substream's face, in this order: the main stream is not connected; the main stream's picture
did not arrive in time; the packets of that picture were dropped; the face's time in the main stream was not found; no
face was found in the picture; the gate rejects the face; the picture cannot be decoded; too many lookups are
waiting, or the lookup took too long."""


class MainStream:
    """Receives the main stream of one camera in its own thread, and reconnects until it is stopped.

    Attributes:
        alignment: the alignment of the main stream with the substream.
        looks: small pictures of the substream's current connection.
        ring: the packets of the current connection; None while there is none.
        wake: called when pictures have arrived.
    """

    def __init__(self, name: str, url: str, live: LiveConfig, log: Callable[[str], None]) -> None:
        self.name = name
        self.location = redact_url(url)
        self.alignment = Alignment()
        self.looks: deque[Look] = deque(maxlen=LOOKS_KEPT)
        self.ring: PacketRing | None = None
        self.wake: Callable[[], None] = lambda: None
        self.live = live
        self.size = (0, 0)
        """Size of the substream's pictures."""
        self._url = url
        self._log = log
        self._stop = threading.Event()
        self._mutex = threading.Lock()
        self._state = StreamState.CONNECTING
        self._error: str | None = None
        self._retry_at: datetime | None = None
        self._connects = 0
        self._pictures = 0
        self._last_at: float | None = None
        self.lookups = 0
        self._fallbacks: Counter[str] = Counter(dict.fromkeys(FALLBACKS, 0))
        self._thread = threading.Thread(target=self._work, name=f"streamgate-read-{name}-main", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to stop; returns at once."""
        self._stop.set()

    def connected(self) -> ArrivalClock:
        """Record that the substream has a new connection, with new time stamps. Returns the clock for the arrival times
        of the new connection."""
        clock = ArrivalClock()
        self.looks = deque(maxlen=LOOKS_KEPT)
        self.alignment.connected(sub=clock)
        return clock

    def fell_back(self, reason: str) -> None:
        """Count a face taken from the substream, for a reason in `FALLBACKS`."""
        with self._mutex:
            self._fallbacks[reason] += 1

    def looked_up(self) -> None:
        """Count a face found in the main stream."""
        with self._mutex:
            self.lookups += 1

    def summary(self) -> dict[str, Any]:
        """JSON-ready: url (redacted), state, error, retry_at, connects, pictures, ring_seconds, ring_bytes, offset
        (seconds), aligned, drift (parts per million), confidence, faces (found in the main stream),
        fallbacks {reason: number of faces}.
        """
        ring, alignment = self.ring, self.alignment
        offset, drift = alignment.offset, alignment.drift
        state = self._state
        last = self._last_at
        if state is StreamState.RUNNING and last is not None and time.monotonic() - last > self.live.stall_s:
            state = StreamState.STALLED
        with self._mutex:
            return {
                "url": self.location,
                "state": state.value,
                "error": self._error,
                "retry_at": utc_text(self._retry_at),
                "connects": self._connects,
                "pictures": self._pictures,
                "ring_seconds": 0.0 if ring is None else round(ring.seconds, 2),
                "ring_bytes": 0 if ring is None else ring.nbytes,
                "offset": None if offset is None else round(offset, 4),
                "aligned": alignment.found,
                "drift": None if drift is None else round(drift, 1),
                "confidence": round(alignment.confidence, 3),
                "faces": self.lookups,
                "fallbacks": dict(self._fallbacks),
            }

    def _work(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            trouble, error = self._connect()
            if self._stop.is_set():
                return
            if self._last_at is not None and self._last_at - began >= _STEADY_S:
                failures = 0
            live = self.live
            pause = live.refused_retry_s
            if trouble is not FailureKind.REFUSED:
                longest = min(live.backoff_max_s, live.backoff_min_s * 2 ** min(failures, 30))
                pause = longest * random.uniform(0.5, 1.0)
            failures += 1
            refused = trouble is FailureKind.REFUSED
            with self._mutex:
                self._state = StreamState.FAILED if refused else StreamState.WAITING
                self._error, self._retry_at = error, datetime.now(UTC) + timedelta(seconds=pause)
            if failures <= 3 or failures % 20 == 0 or refused:
                self._log(f"{self.name}: main stream: {error}; next attempt in {pause:.0f} s")
            self._stop.wait(pause)

    def _connect(self) -> tuple[FailureKind | None, str]:
        """Run one connection until it ends; returns the kind of failure and its description."""
        self._state, self._retry_at = StreamState.CONNECTING, None
        try:
            with RtspClient(self._url, self.live) as client:
                self._read(client)
            return None, ""
        except LiveError as error:
            return error.kind, str(error).removeprefix(f"{error.location}: ")
        except Exception as error:
            # A bug in this code must only cause a reconnection, not end the main stream.
            if os.environ.get("STREAMGATE_DEBUG"):
                traceback.print_exc()
            return None, f"internal error ({scrub(f'{type(error).__name__}: {error}', self._url)}); please report it"
        finally:
            self.ring = None

    def _read(self, client: RtspClient) -> None:
        media, live = client.media, self.live
        ring = PacketRing(media, client.channel, live.main_ring_s, live.main_ring_mb << 20)
        clock = ArrivalClock()
        reader = UnitReader(media.codec, client.channel, self.location)
        while not self._stop.is_set():
            data = client.read()
            units = reader.feed(data)
            if units:
                self._last_at = time.monotonic()
                for unit in units:
                    clock.note(unit.time / media.clock_rate, self._last_at)
                ring.add(units)
                with self._mutex:
                    self._pictures += len(units)
                if self.ring is None:
                    self.alignment.connected(main=clock)
                    self.ring = ring
                    with self._mutex:
                        self._connects += 1
                        self._state, self._error = StreamState.RUNNING, None
                    self._log(f"{self.name}: main stream: running, {media.codec}")
                self.wake()
            elif self._last_at is not None and time.monotonic() - self._last_at > live.read_timeout_s:
                raise LiveError(
                    FailureKind.SILENT, f"{self.location}: no frame for {live.read_timeout_s:g} s", self.location
                )
            self._stop.wait(GULP_S * min(1.0, _GULP_BYTES / len(data)))


def metrics_of(streams: Sequence[MainStream]) -> Iterator[Metric]:
    """Metrics of the main streams, by stream."""
    values = [(one.name, one.summary()) for one in streams]
    if not values:
        return
    for name, text, key in (
        ("streamgate_main_ring_seconds", "Duration of the buffered part of the main stream, seconds.", "ring_seconds"),
        ("streamgate_main_ring_bytes", "Size of the buffered part of the main stream, bytes.", "ring_bytes"),
        ("streamgate_main_aligned", "1 if the offset between the streams was found in pictures.", "aligned"),
        ("streamgate_main_offset_seconds", "Time in the main stream minus time in the substream.", "offset"),
        ("streamgate_main_drift_ppm", "Drift between the clocks of the two streams, parts per million.", "drift"),
        ("streamgate_main_confidence", "Confidence of the last comparison of the two streams, 0 to 1.", "confidence"),
    ):
        gauge = GaugeMetricFamily(name, text, labels=["stream"])
        for stream, one in values:
            if one[key] is not None:
                gauge.add_metric([stream], float(one[key]))
        yield gauge
    running = GaugeMetricFamily("streamgate_main_running", "1 while the main stream is running.", labels=["stream"])
    for stream, one in values:
        running.add_metric([stream], float(one["state"] == "running"))
    yield running
    for name, text, key in (
        ("streamgate_main_pictures", "Pictures received from the main stream.", "pictures"),
        ("streamgate_main_connects", "Connections made to the main stream.", "connects"),
        ("streamgate_main_faces", "Faces found in the main stream.", "faces"),
    ):
        counter = CounterMetricFamily(name, text, labels=["stream"])
        for stream, one in values:
            counter.add_metric([stream], float(one[key]))
        yield counter
    text = "Faces taken from the substream instead of the main stream, by reason."
    fallbacks = CounterMetricFamily("streamgate_main_fallbacks", text, labels=["stream", "reason"])
    for stream, one in values:
        for reason, count in sorted(one["fallbacks"].items()):
            fallbacks.add_metric([stream, reason], float(count))
    yield fallbacks
