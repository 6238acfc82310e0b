"""An RTSP camera on the loopback that loops real clips, and misbehaves when asked to.

    python tests/support/rtsp_server.py PORT CLIP [CLIP2...] [--fps 25] [--user NAME --password SECRET]

H.264 over RTP, interleaved in the RTSP connection (TCP) or over UDP as the client asks, paced as a camera paces. What
a path answers:

    /stream     CLIP, round and round           /streamN    the Nth clip (from 0)
    /once       CLIP, then the connection ends  /change     CLIP, then CLIP2 (another resolution), in turn
    /mute       all well, but no media comes    /jump       time stamps leap by an hour every 2 s
    /missing    404                             /closed     401 whatever one says
    /forbidden  403                             /garbage    bytes that are no RTSP
    /noise      some bytes of the pictures changed
    /rubbish    random bytes for pictures        /moved      302 to /stream of this camera, for who has the password

With --user, every other path wants them (Basic; with --digest Digest, whose nonces hold for 20 requests each). The
process can be stopped (SIGSTOP) or killed: `start_camera` gives tests one of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import itertools
import os
import random
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import pytest
from av.bitstream import BitStreamFilterContext

PAYLOAD = 1400
CLOCK = 90_000


@dataclass
class Clip:
    """Access units in decoding order: seconds since the clip's start as shown, and their NAL units."""

    units: list[tuple[float, list[bytes]]]
    seconds: float

    @property
    def parameter_sets(self) -> list[bytes]:
        return [nal for nal in self.units[0][1] if nal[0] & 31 in (7, 8)]


def load(path: str, fps: float | None = None) -> Clip:
    """Read an H.264 clip; with `fps` it is played at that rate instead of its own."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        annex_b = BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = []
        for packet in container.demux(stream):
            packets += [(one.pts, bytes(one)) for one in annex_b.filter(packet if packet.size else None)]
        base = float(stream.time_base)
        rate = float(stream.average_rate)
    pace = rate / fps if fps else 1.0
    first = min(pts for pts, _ in packets)
    units = [((pts - first) * base * pace, list(_nals(data))) for pts, data in packets]
    return Clip(units, len(units) / rate * pace)


def _nals(data: bytes) -> Iterator[bytes]:
    marks = [(found.start(), found.end()) for found in re.finditer(b"\x00\x00\x00?\x01", data)]
    for (_, start), (end, _) in itertools.zip_longest(marks, marks[1:], fillvalue=(len(data), 0)):
        if nal := data[start:end]:
            yield nal


class Packets:
    """RTP packets of one connection (RFC 3550, RFC 6184); of their payloads' bytes the share `damage` is changed."""

    def __init__(self, damage: float = 0.0) -> None:
        self._sequence = 0
        self._damage = damage
        self._random = random.Random(1)

    def unit(self, seconds: float, nals: list[bytes]) -> Iterator[bytes]:
        stamp = int(seconds * CLOCK) & 0xFFFFFFFF
        parts = [part for nal in nals for part in self._parts(nal)]
        for index, part in enumerate(parts):
            marker = 0x80 if index == len(parts) - 1 else 0
            head = struct.pack(">BBHII", 0x80, 96 | marker, self._sequence & 0xFFFF, stamp, 0xC0FFEE)
            yield head + self._damaged(part)
            self._sequence += 1

    def _damaged(self, payload: bytes) -> bytes:
        if self._damage == 0:
            return payload
        if self._damage == 1:
            return self._random.randbytes(len(payload))
        changed = bytearray(payload)
        for _ in range(round(len(payload) * self._damage + self._random.random())):
            changed[self._random.randrange(len(changed))] = self._random.randrange(256)
        return bytes(changed)

    @staticmethod
    def _parts(nal: bytes) -> Iterator[bytes]:
        if len(nal) <= PAYLOAD:
            yield nal
            return
        indicator, kind, body = nal[0] & 0xE0 | 28, nal[0] & 31, nal[1:]
        for start in range(0, len(body), PAYLOAD - 2):
            edge = (0x80 if start == 0 else 0) | (0x40 if start + PAYLOAD - 2 >= len(body) else 0)
            yield bytes((indicator, edge | kind)) + body[start : start + PAYLOAD - 2]


def _interleaved(packet: bytes) -> bytes:
    """Framed for channel 0 of the RTSP connection (RFC 2326, 10.12)."""
    return struct.pack(">BBH", 36, 0, len(packet)) + packet


class Camera:
    def __init__(self, clips: list[Clip], credentials: str = "", digest: bool = False) -> None:
        self._clips = clips
        self._credentials = credentials
        self._digest = digest
        self._asked = 0
        self._wanted = "Basic " + base64.b64encode(credentials.encode()).decode() if credentials else None

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        playing: asyncio.Task[None] | None = None
        udp: tuple[str, int] | None = None
        try:
            while True:
                first = await reader.readexactly(1)
                if first == b"$":  # RTCP from the client
                    _, length = struct.unpack(">BH", await reader.readexactly(3))
                    await reader.readexactly(length)
                    continue
                lines = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, url, _ = lines[0].split(" ", 2)
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
                path = "/" + re.sub(r"^rtsps?://[^/]*/?", "", url).split("/")[0].split("?")[0]
                if method == "SETUP" and (found := re.search(r"client_port=(\d+)", headers.get("transport", ""))):
                    udp = writer.get_extra_info("peername")[0], int(found[1])
                answer = self._answer(method, path, url, headers)
                writer.write(answer)
                await writer.drain()
                if path == "/garbage" or method == "TEARDOWN":
                    return
                if method == "PLAY" and path != "/mute":
                    playing = asyncio.create_task(self._play(path, writer, udp))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass
        finally:
            if playing is not None:
                playing.cancel()
            writer.close()

    def _answer(self, method: str, path: str, url: str, headers: dict[str, str]) -> bytes:
        def reply(status: str = "200 OK", body: str = "", **fields: str) -> bytes:
            head = [f"RTSP/1.0 {status}", f"CSeq: {headers.get('cseq', '0')}"]
            head += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
            if body:
                head.append(f"Content-Length: {len(body)}")
            return ("\r\n".join(head) + "\r\n\r\n" + body).encode()

        if path == "/garbage":
            return os.urandom(4096)
        if method == "OPTIONS":
            return reply(Public="OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER")
        refused = self._wanted is not None and not self._admitted(method, url, headers.get("authorization", ""))
        if path == "/closed" or (refused and path not in ("/missing", "/forbidden")):
            asked = f'Digest realm="camera", nonce="{self._nonce()}"' if self._digest else 'Basic realm="camera"'
            return reply("401 Unauthorized", WWW_Authenticate=asked)
        if path == "/moved":
            return reply("302 Moved", Location=url.partition("/moved")[0] + "/stream")
        if path == "/forbidden":
            return reply("403 Forbidden")
        clip = self._clip(path)
        if clip is None:
            return reply("404 Not Found")
        if method == "DESCRIBE":
            sets = ",".join(base64.b64encode(nal).decode() for nal in clip.parameter_sets)
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n"
                "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
                f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:track0\r\n"
            )
            return reply(body=body, Content_Type="application/sdp", Content_Base=url + "/")
        if method == "SETUP":
            transport = headers.get("transport", "")
            if "TCP" not in transport:
                return reply(Transport=f"{transport};server_port=40000-40001", Session="1;timeout=60")
            return reply(Transport="RTP/AVP/TCP;unicast;interleaved=0-1", Session="1;timeout=60")
        if method == "PLAY":
            return reply(Session="1", Range="npt=0.000-")
        return reply(Session="1")

    def _nonce(self) -> str:
        return f"nonce{self._asked // 20}"

    def _admitted(self, method: str, url: str, answer: str) -> bool:
        if not self._digest:
            return answer == self._wanted
        self._asked += 1
        given = dict(re.findall(r'(\w+)="([^"]*)"', answer))
        user, _, password = self._credentials.partition(":")
        first = hashlib.md5(f"{user}:camera:{password}".encode()).hexdigest()
        second = hashlib.md5(f"{method}:{url}".encode()).hexdigest()
        wanted = hashlib.md5(f"{first}:{self._nonce()}:{second}".encode()).hexdigest()
        return answer.startswith("Digest ") and given.get("response") == wanted and given.get("uri") == url

    def _clip(self, path: str) -> Clip | None:
        if path in ("/stream", "/once", "/change", "/mute", "/jump", "/noise", "/rubbish"):
            return self._clips[0]
        found = re.fullmatch(r"/stream(\d+)", path)
        return self._clips[int(found[1])] if found and int(found[1]) < len(self._clips) else None

    async def _play(self, path: str, writer: asyncio.StreamWriter, udp: tuple[str, int] | None) -> None:
        clip = self._clip(path)
        assert clip is not None
        turns = itertools.cycle(self._clips[:2]) if path == "/change" else itertools.repeat(clip)
        packets = Packets({"/noise": 0.002, "/rubbish": 1.0}.get(path, 0.0))
        began, offset = time.monotonic(), 0.0
        with suppress(ConnectionError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for clip in turns:
                spacing = clip.seconds / len(clip.units)
                for index, (shown, nals) in enumerate(clip.units):
                    due = began + offset + index * spacing
                    if (wait := due - time.monotonic()) > 0:
                        await asyncio.sleep(wait)
                    seconds = offset + shown
                    if path == "/jump":
                        seconds += 3600 * int(seconds / 2)
                    if udp is not None:
                        for packet in packets.unit(seconds, nals):
                            datagrams.sendto(packet, udp)
                        continue
                    writer.write(b"".join(_interleaved(packet) for packet in packets.unit(seconds, nals)))
                    await writer.drain()
                offset += clip.seconds
                if path == "/once":
                    break
            writer.close()


async def serve(
    port: int, clips: list[Clip], credentials: str = "", certificate: str = "", digest: bool = False
) -> None:
    secure = None
    if certificate:
        secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secure.load_cert_chain(certificate)
    server = await asyncio.start_server(Camera(clips, credentials, digest).client, "127.0.0.1", port, ssl=secure)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


@dataclass
class CameraProcess:
    """A camera in a process of its own, which can be killed, stopped and started again on its port."""

    clips: list[Path]
    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None)

    def url(self, path: str = "stream", credentials: str = "") -> str:
        scheme = "rtsps" if "--certificate" in self.options else "rtsp"
        return f"{scheme}://{credentials}127.0.0.1:{self.port}/{path}"

    def start(self) -> None:
        command = [sys.executable, __file__, str(self.port), *map(str, self.clips), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != b"ready":
            raise RuntimeError("the camera did not come up")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def cameras() -> Iterator[Callable[..., CameraProcess]]:
    """Gives a function that starts a camera over clips on a spare port of the loopback; ends them all."""
    running: list[CameraProcess] = []

    def start(*clips: Path, options: tuple[str, ...] = ()) -> CameraProcess:
        camera = CameraProcess(list(clips), free_port(), options)
        camera.start()
        running.append(camera)
        return camera

    try:
        yield start
    finally:
        for camera in running:
            camera.kill()


@pytest.fixture
def start_camera() -> Iterator[Callable[..., CameraProcess]]:
    """Starts cameras that end with the test."""
    with cameras() as start:
        yield start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--fps", type=float)
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--digest", action="store_true")
    parser.add_argument("--certificate", default="", help="PEM with key and certificate: speaks TLS")
    arguments = parser.parse_args()
    clips = [load(path, arguments.fps) for path in arguments.clips]
    credentials = f"{arguments.user}:{arguments.password}" if arguments.user else ""
    asyncio.run(serve(arguments.port, clips, credentials, arguments.certificate, arguments.digest))


if __name__ == "__main__":
    main()
