"""Logs in to RTSP cameras without leaking the user name and the password to servers to which a camera redirects.

FFmpeg follows redirects by itself and sends the password to any host, in any form that the host asks for. Therefore,
FFmpeg never gets the password: it connects to a relay on the loopback interface, which answers the camera's
authentication challenges and connects only to the server that the URL names. If the camera redirects FFmpeg to another
server, FFmpeg has no password to send there.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from urllib.parse import unquote, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

_PORTS = {"rtsp": 554, "rtsps": 322}
_MAX_HEAD_BYTES = 1 << 16
_MAX_OPEN = 64
"""Maximum number of requests that wait for a response; FFmpeg never has more than two."""
_SEND_S = 30.0
_HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
_END = b"\r\n\r\n"
_TEXT = ("utf-8", "surrogateescape")
"""User names and passwords are UTF-8 (RFC 7616); other bytes are passed on unchanged."""


def has_login(url: str) -> bool:
    """Whether an RTSP URL contains a user name or a password."""
    parts = urlsplit(url)
    return parts.scheme.lower() in _PORTS and parts.username is not None


def authorization(user: str, password: str, challenges: list[str], method: str, url: str) -> str | None:
    """The value of the Authorization header: for the first supported Digest challenge, else for Basic.

    None if no challenge is supported. See RFC 7616 and RFC 7617.
    """
    basic = None
    for challenge in challenges:
        kind, _, rest = challenge.strip().partition(" ")
        if kind.lower() == "digest" and (answer := _digest(user, password, rest, method, url)) is not None:
            return answer
        if kind.lower() == "basic":
            basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    return None if basic is None else f"Basic {basic}"


def _digest(user: str, password: str, challenge: str, method: str, url: str) -> str | None:
    try:
        given = parse_keqv_list(parse_http_list(challenge))
    except (ValueError, IndexError):
        return None
    name = given.get("algorithm", "MD5")
    make = _HASHES.get(name.upper().removesuffix("-SESS"))
    if make is None or "realm" not in given or "nonce" not in given:
        return None

    def hashed(*parts: str) -> str:
        return make(":".join(parts).encode(*_TEXT)).hexdigest()

    count, own = "00000001", secrets.token_hex(8)
    first = hashed(user, given["realm"], password)
    if name.upper().endswith("-SESS"):
        first = hashed(first, given["nonce"], own)
    second = hashed(method, url)
    fields = {"username": user, "realm": given["realm"], "nonce": given["nonce"], "uri": url}
    tail = f", algorithm={name}" if "algorithm" in given else ""
    if "auth" in [one.strip() for one in given.get("qop", "").split(",")]:
        fields["response"] = hashed(first, given["nonce"], count, own, "auth", second)
        fields["cnonce"] = own
        tail += f", qop=auth, nc={count}"
    else:
        fields["response"] = hashed(first, given["nonce"], second)
    if "opaque" in given:
        fields["opaque"] = given["opaque"]
    if any(set(text) & set('"\r\n') for text in fields.values()):
        return None  # a quote or a line break would end the field
    return "Digest " + ", ".join(f'{key}="{text}"' for key, text in fields.items()) + tail


class LoginRelay:
    """Relays data between FFmpeg and a camera in a separate thread, until `close` is called.

    Args:
        url: rtsp:// or rtsps:// URL with a user name and a password.
        timeout_s: timeout in seconds for connecting to the camera.

    Raises OSError if the camera cannot be reached.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        self._login = partial(authorization, unquote(parts.username or ""), unquote(parts.password or ""))
        self._tls = scheme == "rtsps"
        self._timeout_s = timeout_s
        self._peer = (parts.hostname or "", parts.port or _PORTS[scheme])
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self._camera_base = f"{scheme}://{host}{f':{parts.port}' if parts.port else ''}"
        camera = self._connect()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        # The random path keeps other users of this machine from viewing the camera through this relay.
        self._base = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/{secrets.token_hex(16)}"
        self.url = f"{self._base}{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        """The URL for FFmpeg to open."""
        self._open: list[socket.socket] = [camera, self._listener]
        self._mutex = threading.Lock()
        self._thread = threading.Thread(target=self._work, args=(camera,), name="streamgate-login", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the relay. Closing it twice is allowed."""
        with self._mutex:
            waiting, self._open = self._open, []
        for one in waiting:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(self._peer, self._timeout_s)
        return camera_tls(made, self._peer[0]) if self._tls else made

    def _work(self, camera: socket.socket) -> None:
        first: socket.socket | None = camera
        while True:
            try:
                ours, _ = self._listener.accept()
                theirs = first or self._connect()
            except OSError:
                return
            first = None
            with self._mutex:
                if not self._open:
                    ours.close()
                    theirs.close()
                    return
                self._open = [self._listener, ours, theirs]
            with ours, theirs, suppress(OSError, ValueError):
                ours.settimeout(_SEND_S)
                theirs.settimeout(_SEND_S)
                _Session(ours, theirs, self._login, self._base, self._camera_base, self._peer).run()


class _Open:
    """A request that waits for its response."""

    def __init__(self, number: str, lines: list[str], body: bytes) -> None:
        self.number = number
        self.lines = lines
        self.body = body
        self.answered: set[str] = set()
        """Challenges that were already answered by sending the request again."""
        self.repeated = False
        """Whether the request was sent again. After a wrong password, most cameras send a new challenge with another
        nonce; answering all of these challenges would cause thousands of failed attempts per second."""


class _Session:
    """Relays data between one connection from FFmpeg and one connection to the camera."""

    def __init__(
        self,
        ours: socket.socket,
        theirs: socket.socket,
        login: Callable[[list[str], str, str], str | None],
        base: str,
        camera: str,
        peer: tuple[str, int],
    ) -> None:
        self._ours, self._theirs = ours, theirs
        self._login, self._base, self._camera, self._peer = login, base, camera, peer
        self._from_us, self._from_them = b"", b""
        self._passing = {True: 0, False: 0}
        """Remaining number of bytes of a frame or a body to pass on without parsing: from FFmpeg (True) and from the
        camera (False)."""
        self._known = False
        self._challenges: list[str] = []
        self._number = 0
        self._waiting: dict[str, _Open] = {}

    def run(self) -> None:
        """Relay data until one side closes its connection.

        Raises OSError, and ValueError if the client is not the FFmpeg of this process.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._ours, selectors.EVENT_READ, True)
            selector.register(self._theirs, selectors.EVENT_READ, False)
            while True:
                for key, _ in selector.select():
                    connection = self._ours if key.data else self._theirs
                    more = True
                    while more:
                        data = _received(connection)
                        if data is None:
                            break
                        if not data:
                            return
                        self._take(key.data, data)
                        # The selector does not report data that TLS has already decrypted.
                        more = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0

    def _take(self, from_us: bool, data: bytes) -> None:
        buffer = (self._from_us if from_us else self._from_them) + data
        target, out = (self._theirs if from_us else self._ours), bytearray()
        while buffer:
            passing = min(self._passing[from_us], len(buffer))
            if passing:
                out += buffer[:passing]
                self._passing[from_us] -= passing
                buffer = buffer[passing:]
                continue
            if buffer[:1] == b"$":  # interleaved RTP or RTCP (RFC 2326, 10.12)
                if len(buffer) < 4:
                    break
                self._passing[from_us] = 4 + int.from_bytes(buffer[2:4], "big")
                continue
            end = buffer.find(_END)
            if end < 0 and len(buffer) < _MAX_HEAD_BYTES and (from_us or b"RTSP/"[: len(buffer)] == buffer[:5]):
                break
            if end < 0 or (not from_us and not buffer.startswith(b"RTSP/")):
                # This data is neither media nor RTSP: pass it on up to the next byte at which either may begin.
                found = [index for mark in (b"$", b"RTSP/") if (index := buffer.find(mark, 1)) > 0]
                self._passing[from_us] = min(found, default=len(buffer))
                continue
            lines = buffer[:end].decode(*_TEXT).split("\r\n")
            length = _number(field_of(lines, "content-length"))
            if from_us:
                if len(buffer) < end + 4 + length:
                    break
                out += self._on_request(lines, buffer[end + 4 : end + 4 + length])
                buffer = buffer[end + 4 + length :]
                continue
            again, shown = self._on_response(lines)
            if again and len(buffer) < end + 4 + length:
                break
            buffer = buffer[end + 4 + (length if again else 0) :]
            if again:
                self._theirs.sendall(again)
            else:
                out += shown
                self._passing[False] = length
        if from_us:
            self._from_us = buffer
        else:
            self._from_them = buffer
        if out:
            target.sendall(out)

    def _on_request(self, lines: list[str], body: bytes) -> bytes:
        """A request from FFmpeg, rewritten for the camera."""
        if not self._known and self._base not in lines[0]:
            raise ValueError("not FFmpeg")
        self._known = True
        lines = [lines[0].replace(self._base, self._camera, 1), *_without(lines[1:], "authorization")]
        request = _Open(field_of(lines, "cseq"), lines, body)
        return self._with_sequence_number(request)

    def _with_sequence_number(self, request: _Open) -> bytes:
        self._number += 1
        if len(self._waiting) >= _MAX_OPEN:
            self._waiting.pop(next(iter(self._waiting)))
        self._waiting[str(self._number)] = request
        method, _, rest = request.lines[0].partition(" ")
        lines = [request.lines[0], f"CSeq: {self._number}", *_without(request.lines[1:], "cseq")]
        answer = self._login(self._challenges, method, rest.rpartition(" ")[0]) if self._challenges else None
        if answer is not None:
            request.answered.update(self._challenges)
            lines.append(f"Authorization: {answer}")
        return _written(lines) + request.body

    def _on_response(self, lines: list[str]) -> tuple[bytes, bytes]:
        """Handle a response of the camera.

        Returns the request to send again, with a login, and the response for FFmpeg; one of the two is empty.
        """
        number = field_of(lines, "cseq")
        request = self._waiting.pop(number, None)
        status = lines[0].split(" ")[1:2]
        challenges = fields_of(lines, "www-authenticate")
        if status == ["401"] and request and not request.repeated and set(challenges) - request.answered:
            self._challenges = challenges
            request.repeated = True
            if self._login(challenges, "OPTIONS", "*") is not None:
                return self._with_sequence_number(request), b""
        shown = [self._shown(line, status) for line in lines]
        if request is not None:
            shown = [f"CSeq: {request.number}" if _is(line, "cseq") else line for line in shown]
        return b"", _written(shown)

    def _shown(self, line: str, status: list[str]) -> str:
        if _is(line, "location") and status and status[0].startswith("3"):
            with suppress(ValueError):
                target = urlsplit(line.partition(":")[2].strip())
                port = target.port or _PORTS.get(target.scheme.lower())
                same_scheme = target.scheme.lower() == self._camera.partition(":")[0]
                if same_scheme and (target.hostname or "", port) == (self._peer[0], self._peer[1]):
                    # The target is another path on the same camera, so it is also reached through the relay.
                    return f"Location: {self._base}{target.path or '/'}{f'?{target.query}' if target.query else ''}"
        if _is(line, "transport") and "server_port=" in line.lower() and "source=" not in line.lower():
            # Without `source`, FFmpeg would expect the media to come from the relay.
            return f"{line};source={self._theirs.getpeername()[0]}"
        return line


def _received(connection: socket.socket) -> bytes | None:
    """The available data; b"" if the connection was closed.

    None if TLS needs more data before it can return any (after a session ticket or a partial record): waiting for
    more data here would also block the other direction.
    """
    connection.settimeout(0.0)
    try:
        return connection.recv(65536)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
        return None
    finally:
        connection.settimeout(_SEND_S)


def _written(lines: list[str]) -> bytes:
    return "\r\n".join(lines).encode(*_TEXT) + _END


def _is(line: str, name: str) -> bool:
    return line.partition(":")[0].strip().lower() == name


def field_of(lines: list[str], name: str) -> str:
    """The value of the first header field called `name` (lower case); empty if there is none."""
    return next(iter(fields_of(lines, name)), "")


def fields_of(lines: list[str], name: str) -> list[str]:
    """The values of all header fields called `name` (lower case); the first line is not a field."""
    return [line.partition(":")[2].strip() for line in lines[1:] if _is(line, name)]


def _without(lines: list[str], name: str) -> list[str]:
    return [line for line in lines if not _is(line, name)]


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,7}", text) else 0


def camera_tls(connected: socket.socket, host: str) -> socket.socket:
    """Start TLS on a connection to a camera, without verifying its certificate. Closes the connection on failure."""
    # Cameras use self-signed certificates, which cannot be verified, and outdated ciphers.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        return context.wrap_socket(connected, server_hostname=host)
    except BaseException:
        connected.close()
        raise
