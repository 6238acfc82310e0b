"""What a running service has counted, as Prometheus would read it."""

from __future__ import annotations

from streamgate.service.state import ServiceState


def metric(state: ServiceState, name: str, **labels: str) -> float:
    """One sample; 0 where nothing has been counted yet."""
    return state.registry.get_sample_value(name, labels) or 0.0
