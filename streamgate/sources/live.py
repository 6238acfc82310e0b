"""Live streams: one connection to a camera or a playlist, or a file played in real time.

A connection ends with a `LiveError` that gives the kind of failure; the caller decides when to reconnect. FFmpeg
reports little about RTSP: the loss of a server looks like the end of a file, and reading from a server that sends
nothing blocks until the timeout of `av.open` (FFmpeg's options `stimeout` and `rw_timeout` have no effect).
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

import av
from av import Packet, VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from streamgate.config_sections import LiveConfig
from streamgate.errors import SourceError, UsageError, one_line
from streamgate.frames import Frame
from streamgate.redaction import redact_url, scrub
from streamgate.sources.base import SourceStats
from streamgate.sources.container import open_video, over_limit, pixel_limit
from streamgate.sources.damage import DamageTracker
from streamgate.sources.deinterlace import Deinterlacer
from streamgate.sources.hardware import CPU, DecoderHealth, accelerator, check_decoder, is_on_gpu
from streamgate.sources.live_clock import lateness, live_clock, pacing
from streamgate.sources.picture import PictureMaker
from streamgate.sources.pyav import METADATA_ERRORS
from streamgate.sources.rtsp_login import LoginRelay, has_login

SCHEMES = ("rtsp", "rtsps", "http", "https", "file")
_WHITELIST = {
    "rtsp": "rtsp,rtp,tcp,udp,http,https,tls,crypto",
    "rtsps": "rtsp,rtsps,rtp,srtp,tcp,udp,tls,crypto",
    # No `file`: a playlist from the network must not read files on this machine.
    "http": "http,https,httpproxy,tcp,tls,crypto,hls,data",
    "https": "https,http,httpproxy,tcp,tls,crypto,hls,data",
}
LATE_S = 3.0
"""When reading is this many seconds behind the camera, only key frames are decoded until it has caught up, because live
video must be current rather than complete. Cameras and networks that merely stutter stay below this delay."""
_MAX_URL_LENGTH = 4096
_HOST = re.compile(r"[^/]*@|[0-9]{1,3}(\.[0-9]{1,3}){3}([:/]|$)|[^/]+:[0-9]{1,5}(/|$)")
"""Matches the beginning of a camera's URL whose scheme is missing."""
_MAX_DAMAGED_PACKETS = 500
"""Number of consecutive packets without a picture after which a connection is closed: about twenty seconds of video."""


class FailureKind(StrEnum):
    """Why a stream delivers no pictures."""

    REFUSED = "refused"
    """Wrong user name or password, or access denied: further attempts may lock the account."""
    MISSING = "missing"
    """The server exists, but the stream does not."""
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    """The connection is open, but no data arrives."""
    UNREADABLE = "unreadable"
    """The data is not video that can be decoded."""
    ENDED = "ended"
    """The other side closed the connection."""


class LiveError(SourceError):
    """A stream could not be opened, or it stopped; the message is one line without secrets."""

    def __init__(self, kind: FailureKind, message: str, location: str) -> None:
        super().__init__(message, location)
        self.kind = kind


def check_address(url: str) -> str:
    """Return `url` in its full form (a path becomes file://). Raises UsageError if it cannot be a stream."""
    if len(url) > _MAX_URL_LENGTH:
        raise UsageError(f"the stream's URL has {len(url)} characters; at most {_MAX_URL_LENGTH} are allowed")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in url):
        # Control characters would end up in the request lines of a protocol.
        raise UsageError(f"{one_line(redact_url(url))}: a URL must not contain control characters")
    if "://" not in url:
        if not url.strip():
            raise UsageError("the stream's URL is empty; give rtsp://HOST/PATH")
        if slip := re.match(r"([A-Za-z]{3,6}):/*", url):
            near = difflib.get_close_matches(slip[1].lower(), SCHEMES, 1, 0.6)
            if near:
                raise UsageError(f"a URL must begin with {near[0]}://; write {near[0]}://HOST/PATH")
        if _HOST.match(url) and not Path(url).exists():
            raise UsageError(
                "there is no file with this name, and a camera's URL begins with rtsp://; write rtsp://HOST/PATH"
            )
        return f"file://{Path(url).absolute()}"
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, SCHEMES, 1, 0.6)
        hint = f"did you mean {near[0]}://?" if near else f"use {', '.join(SCHEMES)}, or a file's path"
        raise UsageError(f"{redact_url(url)}: not a supported stream URL; {hint}")
    malformed = True
    with suppress(ValueError):
        parts = urlsplit(url)
        _ = parts.port
        malformed = False
    if malformed:
        # Raised outside the handler and without the parser's message, which may quote the password.
        raise UsageError(f"{redact_url(url)}: the host or the port is malformed; special characters in a password "
                         "must be percent-encoded")  # fmt: skip
    if scheme != "file" and not parts.hostname:
        raise UsageError(f"{redact_url(url)}: the host is missing")
    return url


class LiveConnection:
    """One connection, from the handshake to its end; `frames()` can be read once. A context manager.

    Args:
        url: as returned by `check_address`, including secrets, which never appear in messages.
        options: timeouts and transport.
        decode: "cpu" or "cuda:N"; the CPU decodes what the GPU cannot decode, see `not_on_gpu`.

    Raises:
        LiveError: the stream cannot be opened.
        DeviceError: there is no GPU to decode on; `frames()` raises it if the GPU is lost later.
    """

    def __init__(self, url: str, options: LiveConfig, decode: str = CPU) -> None:
        self.location = redact_url(url)
        self.stats = SourceStats()
        self.decode_seconds = 0.0
        """Seconds spent in the decoder since this attribute was last reset to zero."""
        self._url = url
        self._options = options
        self._decoder = decode
        scheme = url.partition("://")[0].lower()
        self._relay: LoginRelay | None = None
        try:
            self._container, self._stream = self._open(scheme)
        except BaseException:
            self._end_relay()
            raise
        codec = self._stream.codec_context
        # Only one thread: more threads would delay frames, and with many streams, all cores are busy anyway.
        codec.thread_count = 1
        self._time_base = self._stream.time_base or Fraction(1, 90_000)
        self._maker = PictureMaker(codec.name, self._stream.sample_aspect_ratio)
        self._stamp = live_clock()
        self._damage = DamageTracker(codec)
        self._health = DecoderHealth(decode)
        # A camera sends in real time; without pacing, a file or a playlist would be read as fast as possible.
        self._pace = None if scheme in ("rtsp", "rtsps") else pacing()
        self._damaged = 0
        self.left_out = 0
        """Number of packets that were not decoded because reading was far behind the camera."""
        self._late_by = lateness()
        self._late = False

    def frames(self) -> Iterator[tuple[Frame, float]]:
        """Yield frames as they arrive, each with the time (`time.monotonic()`) at which its last packet arrived.

        The iterator ends only by raising LiveError. `pts_seconds` is relative to the first frame; `captured_at` is the
        wall-clock time of arrival.
        """
        deinterlacer = Deinterlacer(self._time_base, self.stats)
        index = 0
        last_picture = time.monotonic()
        for packet, arrived in self._packets():
            for decoded in self._decode(packet):
                for picture, torn in deinterlacer.feed(decoded, self._damage.is_torn(decoded)):
                    last_picture = time.monotonic()
                    yield self._timed(picture, torn, index, arrived)
                    index += 1
                    del picture
                del decoded
            if time.monotonic() - last_picture > self._options.read_timeout_s:
                raise self._error(FailureKind.UNREADABLE, f"data arrives but no frame can be decoded{self._hint()}")

    @property
    def not_on_gpu(self) -> str:
        """The codec that the CPU decodes although a GPU was requested; otherwise empty. Known after the first frame."""
        codec = self._stream.codec_context
        return "" if self._decoder == CPU or is_on_gpu(codec) else codec.codec.canonical_name

    def close(self) -> None:
        """Release the connection; closing twice is fine."""
        self._container.close()
        self._end_relay()

    def _end_relay(self) -> None:
        if self._relay is not None:
            self._relay.close()

    def _open(self, scheme: str) -> tuple[InputContainer, VideoStream]:
        if scheme == "file":
            try:
                path = Path(unquote(self._url.partition("://")[2]))
                return open_video(
                    path, self.location, 1, self._decoder, self._options.max_pixels, limited_by="live.max_pixels"
                )
            except SourceError as error:
                kind = FailureKind.UNREADABLE if path.exists() else FailureKind.MISSING
                raise LiveError(kind, str(error), self.location) from None
        limit = pixel_limit(self._options.max_pixels)
        # FFmpeg 9 verifies certificates by default, but cameras use self-signed ones.
        options = {"protocol_whitelist": _WHITELIST[scheme], "tls_verify": "0", **limit}
        if scheme in ("rtsp", "rtsps"):
            # The session description names the codec; longer probing would only delay the first picture.
            options |= {"rtsp_transport": self._options.transport, "allowed_media_types": "video",
                        "probesize": "32768", "analyzeduration": "500000"}  # fmt: skip
        failed: LiveError | None = None
        try:
            address = self._url
            if has_login(self._url):
                # FFmpeg would send the user name and the password to any server to which the camera redirects it.
                self._relay = LoginRelay(self._url, self._options.connect_timeout_s)
                address = self._relay.url
            container = av.open(
                address,
                options=options,
                timeout=(self._options.connect_timeout_s, self._options.read_timeout_s),
                **METADATA_ERRORS,
                hwaccel=accelerator(self._decoder),
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            failed = explained(error, self._url, self._options, opening=True)
        if failed is not None:
            # Raised outside the handler, because a chained FFmpeg error would show the whole URL.
            check_decoder(self._decoder)
            raise failed
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.codec_context is None:
            container.close()
            raise self._error(FailureKind.UNREADABLE, "has no video with a supported codec; check the camera's codec")
        if (words := over_limit(stream, self._options.max_pixels)) is not None:
            container.close()
            text = f"{words} live.max_pixels; use a smaller stream or raise the limit"
            raise self._error(FailureKind.UNREADABLE, text)
        stream.codec_context.options = limit
        return container, stream

    def _packets(self) -> Iterator[tuple[Packet, float]]:
        packets = self._container.demux(self._stream)
        failed: LiveError | None = None
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError, ValueError) as error:
                failed = explained(error, self._url, self._options, opening=False)
                break
            if self._late and not packet.is_keyframe:
                self.left_out += 1
                self._damage.left_out()
            elif packet.size:
                self._damage.packet(packet)
                yield packet, time.monotonic()
        raise failed or self._error(FailureKind.ENDED, "the other side closed the connection")

    def _decode(self, packet: Packet) -> list[VideoFrame]:
        began = time.perf_counter()
        frames: list[VideoFrame] = []
        try:
            frames = self._stream.codec_context.decode(packet)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._health.failed(error)
            self.stats.decode_errors += 1
            self._damage.failed(packet)
            self._damaged += 1
            if self._damaged >= _MAX_DAMAGED_PACKETS:
                raise self._error(FailureKind.UNREADABLE, f"its frames cannot be decoded{self._hint()}") from None
        self.decode_seconds += time.perf_counter() - began
        if frames:
            self._health.decoded()
            self._damaged = 0
            self.stats.decode_errors += sum(frame.is_corrupt for frame in frames)
        return frames

    def _hint(self) -> str:
        """A hint for messages if the decoder reports no size, as it does after rejecting the size of every frame."""
        return "" if self._stream.codec_context.width else "; the frames may be larger than live.max_pixels"

    def _timed(self, decoded: VideoFrame, torn: bool, index: int, arrived: float) -> tuple[Frame, float]:
        base = decoded.time_base or self._time_base
        pts = None if decoded.pts is None else float(decoded.pts * base)
        if self._pace is not None:
            arrived = self._pace(pts)
        seconds, estimated = self._stamp(pts, arrived)
        if self._pace is None:
            self._late = self._late_by(seconds, arrived) > (LATE_S / 2 if self._late else LATE_S)
        self.stats.frames += 1
        self.stats.pts_estimated += estimated
        duration = float(decoded.duration * base) if decoded.duration else 0.0
        frame = Frame(
            self._maker.picture(decoded),
            seconds,
            duration,
            index,
            estimated,
            # The wall-clock time at which the frame arrived; the time since then was spent on decoding.
            datetime.fromtimestamp(time.time() - (time.monotonic() - arrived), UTC),
            corrupt=torn,
        )
        return frame, arrived

    def _error(self, kind: FailureKind, text: str) -> LiveError:
        return LiveError(kind, f"{self.location}: {text}", self.location)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_FAILURES: tuple[tuple[type[Exception], int], ...] = (
    (av.error.HTTPUnauthorizedError, 401), (av.error.HTTPForbiddenError, 403), (av.error.HTTPNotFoundError, 404),
    (av.error.HTTPError, 0),
)  # fmt: skip
"""FFmpeg's errors, most specific first, and the HTTP or RTSP status of each; the status is 0 if it is not known."""


def status_error(status: int, url: str) -> LiveError:
    """The error for a server's response with an HTTP or RTSP status, which is 0 if it is not known."""
    kind = FailureKind.UNREACHABLE
    text = f"the server responded with an error{f' ({status})' if status else ''}; check the server"
    if status == 401:
        kind = FailureKind.REFUSED
        text = "the camera refuses the user name or password (401); correct them in the URL"
    elif status == 403:
        kind = FailureKind.REFUSED
        text = "this user is not allowed to view the stream (403); grant the permission in the camera's settings"
    elif status == 404:
        kind, text = FailureKind.MISSING, "there is no such stream (404); check the path in the URL"
    location = redact_url(url)
    return LiveError(kind, f"{location}: {text}", location)


def explained(error: Exception, url: str, options: LiveConfig, *, opening: bool) -> LiveError:
    """A LiveError for an error that FFmpeg or a socket raised while a stream was opened or read.

    `url` may contain secrets; the LiveError never does.
    """
    for failure, status in _FAILURES:
        if isinstance(error, failure):
            return status_error(status, url)
    kind, location = FailureKind.UNREACHABLE, redact_url(url)
    if isinstance(error, ConnectionRefusedError):
        text = "connection refused; check that the camera is on and that the port is right"
    elif isinstance(error, (av.error.ExitError, TimeoutError)) and opening:
        text = f"no answer within {options.connect_timeout_s:g} s; check the address and the network"
    elif isinstance(error, (av.error.ExitError, TimeoutError)):
        kind, text = FailureKind.SILENT, f"no data for {options.read_timeout_s:g} s"
    elif isinstance(error, av.error.InvalidDataError):
        kind, text = FailureKind.UNREADABLE, "the data is not a video stream; check the address"
    else:
        said = scrub(str(getattr(error, "strerror", None) or str(error) or type(error).__name__), url, unquote(url))
        what = "cannot be reached" if opening else "the connection was lost"
        text = f"{what} ({one_line(said)}); check the address and the network"
    return LiveError(kind, f"{location}: {text}", location)
