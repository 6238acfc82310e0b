"""`/metrics`: the counters and measurements of a service in the exposition formats of Prometheus.

Counters and histograms that are updated as events happen are attributes of `ServiceState`; values of its snapshots are
collected at scrape time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from streamgate.service.snapshots import StreamState

if TYPE_CHECKING:
    from streamgate.service.state import ServiceState

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bucket bounds of durations."""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Bucket bounds of batch sizes."""
_STREAM_COUNTERS = (
    ("streamgate_frames", "Frames delivered by the camera.", "frames_in"),
    ("streamgate_frames_dropped", "Frames dropped because analysis was too slow.", "frames_dropped"),
    ("streamgate_frames_skipped", "Frames skipped because of live.max_fps.", "frames_skipped"),
    ("streamgate_frames_in_error", "Packets or pictures that could not be decoded.", "frames_in_error"),
    ("streamgate_connects", "Successful connections.", "connects"),
    ("streamgate_reconnects", "Successful connections after the first.", "reconnects"),
    ("streamgate_attempts_failed", "Failed connection attempts.", "attempts_failed"),
    ("streamgate_tracks", "Tracks ended.", "tracks"),
    ("streamgate_faces", "Faces kept.", "faces"),
)
_STREAM_GAUGES = (
    ("streamgate_fps", "Frames analysed per second.", "fps"),
    ("streamgate_queue_depth", "Frames waiting for analysis.", "queue_depth"),
    ("streamgate_tracks_open", "Tracks that are open now.", "tracks_open"),
)

# Creation times are disabled because they would add a second series for each counter.
disable_created_metrics()


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The body of the response and its content type: OpenMetrics if the Accept header asks for it, otherwise the text
    format."""
    try:
        encode, content_type = choose_encoder(accept)
    except Exception:
        # The library raises an error for a malformed Accept header; respond in the text format.
        encode, content_type = choose_encoder("")
    return encode(registry), content_type


def snapshot_metrics(state: ServiceState) -> Iterator[Metric]:
    """Yield the metrics that are read from the snapshots of a service."""
    overview, streams = state.overview(), state.streams()
    yield InfoMetricFamily("streamgate_build", "The running version.", {"version": overview.version})
    for name, text, value in (
        ("streamgate_ready", "1 if the models are loaded and a stream is running.", overview.ready),
        ("streamgate_healthy", "1 if the supervisor of the streams is responsive.", overview.healthy),
        ("streamgate_config_error", "1 if the configuration file is invalid and therefore not active.",
         overview.config_error is not None),
        ("streamgate_start_time_seconds", "When the service started, seconds since the epoch.",
         overview.started_at.timestamp()),
        ("streamgate_listeners", "Open event subscriptions.", state.hub.listeners),
    ):  # fmt: skip
        yield GaugeMetricFamily(name, text, float(value))
    for kind, table in ((CounterMetricFamily, _STREAM_COUNTERS), (GaugeMetricFamily, _STREAM_GAUGES)):
        for name, text, attribute in table:
            family = kind(name, text, labels=["stream"])
            for stream in streams:
                family.add_metric([stream.name], float(getattr(stream, attribute)))
            yield family
    text = "1 for the current state of the stream, 0 for other states."
    states = GaugeMetricFamily("streamgate_stream_state", text, labels=["stream", "state"])
    for stream in streams:
        for one in StreamState:
            states.add_metric([stream.name, one.value], float(stream.state is one))
    yield states
