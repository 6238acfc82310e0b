"""A service in this process, over real networks, for tests to watch."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from streamgate.service.settings import ServiceTable, Settings, read_settings
from streamgate.service.state import ServiceState, StreamSnapshot, StreamState
from streamgate.service.supervisor import Service
from support.real_weights import standard_models

QUICK = (
    "live.backoff_min_s=0.2", "live.backoff_max_s=0.5", "live.connect_timeout_s=8", "live.read_timeout_s=3",
    "live.stall_s=1", "live.improved_interval_s=0.5",
)  # fmt: skip
"""Times of cameras, shortened."""


@dataclass
class Running:
    state: ServiceState
    service: Service
    log: list[str]
    stop: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)

    def stream(self, name: str) -> StreamSnapshot:
        return next(one for one in self.state.streams() if one.name == name)

    def until(self, condition: Callable[[], bool], what: str = "it", seconds: float = 90.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                streams = "\n".join(str(one) for one in self.state.streams())
                pytest.fail(f"waited in vain for {what}\n{streams}\n" + "\n".join(self.log))
            time.sleep(0.05)

    def until_state(self, name: str, state: StreamState) -> StreamSnapshot:
        self.until(lambda: self.stream(name).state is state, f"{name} to be {state}")
        return self.stream(name)

    def until_frames(self, name: str, more: int) -> None:
        """Wait until so many further frames have come."""
        before = self.stream(name).frames_in
        self.until(lambda: self.stream(name).frames_in >= before + more, f"{more} frames of {name}")


def settings_of(streams: Mapping[str, str], *settings: str, **table: object) -> Settings:
    """Settings as the command line would make them."""
    return read_settings(
        rtsp=tuple(f"{name}={url}" for name, url in streams.items()),
        table=ServiceTable(models=str(standard_models()), http="off", **table),  # type: ignore[arg-type]
        settings=(*QUICK, *settings),
    )


@contextmanager
def running(settings: Settings, read: Callable[[], Settings] | None = None) -> Iterator[Running]:
    """Run until the block ends, then stop as SIGTERM would."""
    state, log = ServiceState(), []
    with Service(settings, state, log.append) as service:
        here = Running(state, service, log)
        thread = threading.Thread(target=service.run, args=(here.stop, here.reload, read), daemon=True)
        thread.start()
        try:
            yield here
        finally:
            here.stop.set()
            thread.join(10)


def records(out: Path, stream: str) -> list[dict]:
    """All faces that a stream wrote."""
    return [
        json.loads(line)
        for path in sorted(out.glob(f"{stream}/*/faces.jsonl"))
        for line in path.read_text().splitlines()
    ]
