"""`streamgate serve` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.live_service import QUICK
from support.real_weights import standard_models


@dataclass
class Serving:
    process: subprocess.Popen[str]
    stderr: Path

    def said(self) -> str:
        return self.stderr.read_text()

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, f"it ended: {self.said()}"
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.said()}"
            time.sleep(0.05)
        return found

    @property
    def address(self) -> str:
        return str(self.until(lambda: re.search(r"web page at (http://\S+)", self.said()), "the address")[1])

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return answer.read().decode()

    def stream(self, name: str) -> dict[str, Any] | None:
        listed = json.loads(self.get("/api/streams"))
        listed = listed["streams"] if isinstance(listed, dict) else listed
        return next((one for one in listed if one["name"] == name), None)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(
    folder: Path,
    *arguments: object,
    settings: tuple[str, ...] = QUICK,
    descriptors: int | None = None,
    **variables: str,
) -> Iterator[Serving]:
    """Run the command in `folder` until the block ends; `descriptors` is its limit of open files."""

    def limit() -> None:
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    log = folder / f"stderr-{time.monotonic_ns()}.txt"
    command = [sys.executable, "-m", "streamgate", "serve", *map(str, arguments)]
    command += [part for setting in settings for part in ("--set", setting)]
    env = os.environ | {"STREAMGATE_MODELS": str(standard_models())} | variables
    with open(log, "w") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stderr=errors, stdout=errors, text=True, preexec_fn=limit
        )
    try:
        yield Serving(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        assert "Traceback" not in log.read_text(), log.read_text()
