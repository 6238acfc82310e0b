"""`/metrics`: the figures of a ServiceState in the exposition formats of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

from streamgate.service.meters import Distribution, Metric
from streamgate.service.state import ServiceState


class Exposition:
    """Writes the figures that the state has when it is asked, and those of the process (CPU, memory, files).

    It has a registry of its own, so several services in one process, and whatever else the process measures,
    stay apart. Thread-safe.
    """

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The body and its content type: OpenMetrics where the Accept header asks for it, else the text format."""
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:
            # The library trips over headers that mean nothing.
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Family]:
        """For the registry: every figure of the state."""
        overview = self._state.overview()
        yield InfoMetricFamily("streamgate_build", "The version in service.", {"version": overview.version})
        for metric in self._state.metrics():
            yield _family(metric)

    def describe(self) -> list[Family]:
        """Nothing: names follow from the state at each exposition and are not checked against others."""
        return []


def _family(metric: Metric) -> Family:
    # Label names are the same for every sample of a metric; one without samples stands there with its help alone.
    labels = list(metric.samples[0].labels) if metric.samples else []
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        for sample in metric.samples:
            if isinstance(sample.value, Distribution):
                buckets = [(floatToGoString(bound), float(count)) for bound, count in sample.value.buckets]
                histogram.add_metric([sample.labels[name] for name in labels], buckets, sample.value.total)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=labels)
    for sample in metric.samples:
        if not isinstance(sample.value, Distribution):
            family.add_metric([sample.labels[name] for name in labels], sample.value)
    return family
