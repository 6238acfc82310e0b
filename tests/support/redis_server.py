"""A real redis-server on a spare port of the loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

STREAM = "streamgate:faces"


@dataclass
class RedisServer:
    port: int
    command: list[str]
    process: subprocess.Popen[bytes]
    folder: Path = field(default_factory=Path)

    def url(self, credentials: str = "", database: int = 0) -> str:
        return f"redis://{credentials}127.0.0.1:{self.port}/{database}"

    def entries(self, credentials: str = "") -> list[dict[str, bytes]]:
        """What lies on the stream, as fields."""
        return entries(self.url(credentials))

    def client(self, credentials: str = "") -> redis.Redis:
        return redis.Redis.from_url(self.url(credentials))

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


def entries(url: str) -> list[dict[str, bytes]]:
    """What lies on the stream, as fields."""
    with redis.Redis.from_url(url) as client:
        return [{key.decode(): value for key, value in fields.items()} for _, fields in client.xrange(STREAM)]


def spare_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(folder: Path, *options: str) -> RedisServer:
    """A redis-server that keeps its files in `folder`; whoever asked stops it. Skips where there is none."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (apt install redis-server)")
    port = spare_port()
    home = folder / f"redis{port}"
    home.mkdir(parents=True)
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
               "--dir", str(home), *options]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = RedisServer(port, command, process, home)
    server.wait()
    return server


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts a redis-server on a spare port of the loopback, with more options if given."""
    running: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        running.append(launch(tmp_path, *options))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@dataclass
class TlsServer:
    """Speaks TLS on `port` with a certificate for 127.0.0.1, and plainly on `plain.port`."""

    port: int
    plain: RedisServer
    authority: Path
    """The certificate that signed the server's, PEM."""

    def url(self, credentials: str = "", options: str = "") -> str:
        return f"rediss://{credentials}127.0.0.1:{self.port}/0{options}"

    @property
    def trusted(self) -> str:
        """What makes the URL trust the server."""
        return f"?ssl_ca_certs={self.authority}"


@pytest.fixture
def start_tls_redis(tmp_path: Path, start_redis: Callable[..., RedisServer]) -> Callable[..., TlsServer]:
    """Starts a redis-server that also speaks TLS, for the host names given (127.0.0.1)."""
    trustme = pytest.importorskip("trustme", reason="the certificates are made with trustme (pip install '.[test]')")

    def start(*options: str, host: str = "127.0.0.1") -> TlsServer:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        authority.issue_cert(host).private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
        port = spare_port()
        pem = str(tmp_path / "server.pem")
        plain = start_redis(
            "--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem,
            "--tls-ca-cert-file", str(tmp_path / "ca.pem"), "--tls-auth-clients", "no", *options,
        )  # fmt: skip
        return TlsServer(port, plain, tmp_path / "ca.pem")

    return start
