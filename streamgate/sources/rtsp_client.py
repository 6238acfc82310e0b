"""Receives a stream over RTSP without decoding it, on a single TCP connection that is read in large chunks.

FFmpeg reads every RTP packet separately and depacketizes it immediately. Doing this for a main stream, of which only an
occasional picture is needed, takes more time than the entire analysis of the substream. This client sets up the session
as FFmpeg does, and then reads the buffered data a few times per second. The client does not follow redirects, so the
user name and the password are sent only to the server that the URL names.
"""

from __future__ import annotations

import base64
import binascii
import re
import select
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urljoin, urlsplit

from streamgate.config_sections import LiveConfig
from streamgate.redaction import redact_url
from streamgate.sources.live import FailureKind, LiveError, explained, status_error
from streamgate.sources.rtsp_login import authorization, camera_tls, field_of, fields_of

CODECS = {"H264": "h264", "H265": "hevc"}
_PORTS = {"rtsp": 554, "rtsps": 322}
_CHUNK_BYTES = 1 << 18
_MAX_READ_BYTES = 1 << 22
_SOCKET_BUFFER_BYTES = 1 << 20
"""Size of the socket's receive buffer, for data that arrives between two reads."""
_MAX_HEAD_BYTES, _MAX_BODY_BYTES = 1 << 16, 1 << 18
_START = b"\x00\x00\x00\x01"
_TEXT = ("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Media:
    """The video of a session description (RFC 8866).

    Attributes:
        codec: "h264" or "hevc".
        clock_rate: timestamp units per second.
        control: control URL of the media, absolute or relative; "*" stands for the URL of the session.
        parameter_sets: the NAL units of the parameter sets, with start codes; empty if the camera sends parameter sets
            only with the pictures.
    """

    codec: str
    clock_rate: int
    control: str
    parameter_sets: bytes


class RtspClient:
    """An RTSP session in which the server is sending video. A context manager.

    Raises LiveError if the session cannot be opened.
    """

    def __init__(self, url: str, options: LiveConfig) -> None:
        parts = urlsplit(url)
        self.location = redact_url(url)
        self._secret = url
        self._options = options
        self._login = None
        if parts.username is not None:
            self._login = partial(authorization, unquote(parts.username), unquote(parts.password or ""))
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        scheme = parts.scheme.lower()
        self._base = f"{scheme}://{host}{f':{parts.port}' if parts.port else ''}"
        self._url = f"{self._base}{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        self._peer = (parts.hostname or "", parts.port or _PORTS[scheme])
        self._challenges: list[str] = []
        self._number = 0
        self._session = ""
        self._rest = b""
        self._alive_due = 0.0
        try:
            self._socket = self._connect(secure=scheme == "rtsps")
        except OSError as error:
            raise explained(error, self._secret, self._options, opening=True) from None
        try:
            self.media = self._begin()
        except BaseException as error:
            self._socket.close()
            if isinstance(error, (OSError, ValueError)):
                raise explained(error, self._secret, self._options, opening=True) from None
            raise

    def read(self) -> bytes:
        """The data received since the last call, at least one byte.

        Raises LiveError if no data arrives for `live.read_timeout_s`.
        """
        failed: LiveError | None = None
        try:
            if time.monotonic() >= self._alive_due:
                self._alive_due = time.monotonic() + self._alive_s
                self._ask(self._alive_method, self._url)
            rest, self._rest = self._rest, b""
            return rest or self._receive_available()
        except OSError as error:
            failed = explained(error, self._secret, self._options, opening=False)
        raise failed

    def close(self) -> None:
        """End the session. Closing it twice is allowed."""
        if self._session:
            with suppress(OSError, ValueError):
                self._socket.settimeout(0.2)
                self._ask("TEARDOWN", self._url)
            self._session = ""
        self._socket.close()

    def _receive_available(self) -> bytes:
        found = [self._socket.recv(_CHUNK_BYTES)]
        size = len(found[0])
        if not size:
            raise self._error(FailureKind.ENDED, "the other side closed the connection")
        secure = self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        while size < _MAX_READ_BYTES and (
            secure.pending() or select.select([secure], [], [], 0)[0] if secure else len(found[-1]) == _CHUNK_BYTES
        ):
            try:
                self._socket.settimeout(0.0)
                more = self._socket.recv(_CHUNK_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            finally:
                self._socket.settimeout(self._options.read_timeout_s)
            if not more:
                break
            found.append(more)
            size += len(more)
        return b"".join(found) if len(found) > 1 else found[0]

    def _connect(self, *, secure: bool) -> socket.socket:
        made = socket.create_connection(self._peer, self._options.connect_timeout_s)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
        return camera_tls(made, self._peer[0]) if secure else made

    def _begin(self) -> Media:
        until = time.monotonic() + self._options.connect_timeout_s
        options, _ = self._answer("OPTIONS", self._url, until)
        described, body = self._answer("DESCRIBE", self._url, until, "Accept: application/sdp")
        content_base = field_of(described, "content-base")
        base = content_base or field_of(described, "content-location") or self._url
        media = media_of(body.decode(*_TEXT))
        if media is None:
            raise self._error(
                FailureKind.UNREADABLE,
                "the main stream must be H.264 or HEVC; change the codec of the main stream in the camera's settings",
            )
        # Requests contain the login, so they must not be sent to another host that the server names.
        control = urljoin(base if base.endswith("/") else f"{base}/", media.control) if media.control != "*" else base
        if urlsplit(control).hostname != self._peer[0]:
            control = f"{self._base}{urlsplit(control).path}"
        made, _ = self._answer("SETUP", control, until, "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        session, _, rest = field_of(made, "session").partition(";")
        self._session = session.strip()
        found = re.search(r"timeout=([0-9]{1,5})", rest)
        self._alive_s = max(1.0, (float(found[1]) if found else 60.0) / 2)
        public = field_of(options, "public").upper()
        self._alive_method = "GET_PARAMETER" if "GET_PARAMETER" in public else "OPTIONS"
        channel = re.search(r"interleaved=([0-9]{1,3})", field_of(made, "transport"))
        self.channel = int(channel[1]) if channel else 0
        self._answer("PLAY", base if content_base else self._url, until, "Range: npt=0.000-")
        self._alive_due = time.monotonic() + self._alive_s
        self._socket.settimeout(self._options.read_timeout_s)
        return media

    def _ask(self, method: str, url: str, *lines: str) -> None:
        self._number += 1
        head = [f"{method} {url} RTSP/1.0", f"CSeq: {self._number}", "User-Agent: streamgate", *lines]
        if self._session:
            head.append(f"Session: {self._session}")
        if self._challenges and self._login is not None:
            answer = self._login(self._challenges, method, url)
            if answer is not None:
                head.append(f"Authorization: {answer}")
        self._socket.sendall(("\r\n".join(head) + "\r\n\r\n").encode(*_TEXT))

    def _answer(self, method: str, url: str, until: float, *lines: str) -> tuple[list[str], bytes]:
        """Send a request, and return the head and the body of the response.

        If the server requires a login, the request is repeated once with it. Raises OSError, LiveError, ValueError.
        """
        for again in (True, False):
            self._ask(method, url, *lines)
            head, body = self._receive(until)
            status = int(head[0].split(" ")[1][:3])
            challenges = fields_of(head, "www-authenticate")
            if status == 401 and again and self._login and challenges and challenges != self._challenges:
                self._challenges = challenges
                continue
            break
        if status == 200:
            return head, body
        if method == "OPTIONS" and status in (405, 501):
            return head, body
        if status == 461:
            raise self._error(
                FailureKind.UNREADABLE, "the camera refuses RTSP over TCP (461); allow it in the camera's settings"
            )
        raise status_error(status, self._secret)

    def _receive(self, until: float) -> tuple[list[str], bytes]:
        """The head of the next response, as lines, and its body. Raises OSError, LiveError."""
        buffer = self._rest
        while True:
            while buffer[:1] == b"$" and len(buffer) >= 4 + int.from_bytes(buffer[2:4]):
                buffer = buffer[4 + int.from_bytes(buffer[2:4]) :]
            end = buffer.find(b"\r\n\r\n") if buffer[:1] != b"$" else -1
            if end >= 0:
                head = buffer[:end].decode(*_TEXT).split("\r\n")
                length = field_of(head, "content-length")
                size = int(length) if re.fullmatch("[0-9]{1,7}", length) else 0
                if not re.match(r"RTSP/[0-9.]+ [0-9]{3}", head[0]) or size > _MAX_BODY_BYTES:
                    raise self._error(FailureKind.UNREADABLE, "the response is not RTSP; check the address")
                if len(buffer) >= end + 4 + size:
                    self._rest = buffer[end + 4 + size :]
                    return head, buffer[end + 4 : end + 4 + size]
            if len(buffer) > _MAX_HEAD_BYTES + _MAX_BODY_BYTES or (buffer and buffer[:1] not in b"R$"):
                raise self._error(FailureKind.UNREADABLE, "the response is not RTSP; check the address")
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            more = self._socket.recv(_MAX_HEAD_BYTES)
            if not more:
                raise self._error(
                    FailureKind.UNREACHABLE, "the server closed the connection; check the address and the port"
                )
            buffer += more

    def _error(self, kind: FailureKind, text: str) -> LiveError:
        return LiveError(kind, f"{self.location}: {text}", self.location)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def media_of(description: str) -> Media | None:
    """The first video with a supported codec in a session description; None if there is none."""
    sections = re.split(r"(?m)^m=", description)[1:]
    for section in sections:
        head, *lines = section.splitlines()
        kind, *rest = head.split()
        if kind != "video" or len(rest) < 3:
            continue
        number = rest[2]
        found = re.search(rf"(?mi)^a=rtpmap:{re.escape(number)} +([\w-]+)/([0-9]{{1,7}})", section)
        if found is None or found[1].upper() not in CODECS or int(found[2]) <= 0:
            continue
        sets = bytearray()
        formats = re.search(rf"(?m)^a=fmtp:{re.escape(number)} +(.*)", section)
        given = dict(re.findall(r"([\w-]+)=([^;\s]+)", formats[1])) if formats else {}
        for name in ("sprop-vps", "sprop-sps", "sprop-pps", "sprop-parameter-sets"):
            for text in given.get(name, "").split(","):
                with suppress(binascii.Error, ValueError):
                    unit = base64.b64decode(text, validate=True)
                    sets += _START + unit if unit else b""
        control = next((line[10:].strip() for line in lines if line.startswith("a=control:")), "*")
        return Media(CODECS[found[1].upper()], int(found[2]), control, bytes(sets))
    return None
