"""A local S3 server, and a proxy before it that cuts, drips, delays or denies what is read from it."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY, SECRET = "AKIDQx7zQx7", "very-secret-Qx7zQx7"
DENIED = b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code><Message>AKIDQx7zQx7 is unknown</Message></Error>"


@dataclass
class Faults:
    """What goes wrong with an object between two of its bytes, for the next `times` requests that go there."""

    kind: str = ""
    """"cut", "drip", "hang" or "deny"; "" for nothing."""
    after: int = 0
    before: int = 1 << 60
    times: int = 1 << 30
    key: str = ""
    """Only objects whose key ends so."""
    read: dict[str, int] = field(default_factory=dict)
    """Bytes given out by key."""


class Store:
    """The server, the proxy before it, and what the environment of a command must hold to use it."""

    def __init__(self, port: int, proxy: str, faults: Faults) -> None:
        import boto3

        self.faults = faults
        self.environment = {
            "AWS_ENDPOINT_URL": proxy, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "STREAMGATE_STALL_S": "4",
        }  # fmt: skip
        self.client: Any = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id=KEY, aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )  # fmt: skip
        self.proxy = proxy

    def put(self, bucket: str, key: str, path: Path) -> None:
        self.client.upload_file(str(path), bucket, key)

    def keys(self, bucket: str, prefix: str) -> dict[str, bytes]:
        found = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        return {
            one["Key"]: self.client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in found
        }


@contextmanager
def object_store(*buckets: str) -> Iterator[Store]:
    """Needs moto."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    faults = Faults()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            self._pass()

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            key = self.path.partition("?")[0]
            fault = ""
            if key.endswith(faults.key) and faults.kind and faults.times > 0:
                first = int((self.headers.get("Range") or "bytes=0-").partition("=")[2].partition("-")[0])
                inside = first + len(data) > faults.after > 0 and first < faults.before
                if faults.kind == "deny" or (self.command == "GET" and inside):
                    fault, faults.times = faults.kind, faults.times - 1
            if fault == "deny":
                self._send(403, {"Content-Type": "application/xml"}, DENIED)
                return
            if self.command == "GET":
                faults.read[key] = faults.read.get(key, 0) + len(data)
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            self._send(answer.status, headers, data, fault, int(answer.getheader("Content-Length") or len(data)))

        def _send(
            self, status: int, headers: dict[str, str], data: bytes, fault: str = "", length: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                if fault == "cut":
                    self.wfile.write(data[: len(data) // 2])
                    self.close_connection = True
                elif fault == "hang":
                    time.sleep(30)
                elif fault == "drip":
                    for byte in data[:60]:
                        self.wfile.write(bytes([byte]))
                        self.wfile.flush()
                        time.sleep(0.5)
                    self.close_connection = True
                else:
                    self.wfile.write(data)
            except OSError:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = Store(port, f"http://127.0.0.1:{server.server_port}", faults)
    for bucket in buckets:
        store.client.create_bucket(Bucket=bucket)
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        moto.stop()


_HOP = frozenset({"content-length", "transfer-encoding", "connection", "server", "date"})
