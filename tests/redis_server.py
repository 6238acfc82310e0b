"""A real redis-server on a spare port of the loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class RedisServer:
    port: int
    command: list[str]
    process: subprocess.Popen[bytes]

    def url(self, credentials: str = "", database: int = 0) -> str:
        return f"redis://{credentials}127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def start_again(self) -> None:
        """Come back on the same port, with the data that was saved."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait()

    def wait(self) -> None:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("redis-server did not come up")


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts a redis-server on a spare port of the loopback, with more options if given."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (apt install redis-server)")
    running: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        folder = tmp_path / f"redis{port}"
        folder.mkdir()
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                   "--dir", str(folder), *options]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        running.append(RedisServer(port, command, process))
        running[-1].wait()
        return running[-1]

    yield start
    for server in running:
        server.stop()
