"""A folder of results without any network: what the disk sink makes of given values."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgate.sinks.disk import DiskSink
from support.sink_values import Make


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, three kept faces each; the second source has a dot in its name."""
    make = Make()
    out = tmp_path_factory.mktemp("results") / "out"
    with DiskSink(out, make.run()) as sink:
        for name in ("studio", "take.2"):
            writer = sink.open_source(make.source(name))
            make.fill(writer, name)
            writer.commit(make.result(name))
        sink.finish([], {})
    return out
