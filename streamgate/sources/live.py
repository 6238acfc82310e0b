"""Live streams: one connection to a camera, a playlist, or a file that plays at its own pace.

A connection ends in a `LiveError` that says what kind of trouble it was; whoever holds the stream decides when to
come back. FFmpeg's own words about RTSP are few: a dead server looks like the end of a file, a silent one hangs
until the time-out of `av.open` (its options `stimeout` and `rw_timeout` do nothing).
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import av
from av import Packet, VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from streamgate.config_sections import LiveConfig
from streamgate.errors import SourceError, UsageError, one_line, redact_url, scrub
from streamgate.frames import Frame
from streamgate.sources.base import SourceStats
from streamgate.sources.container import open_video, over_limit, pixel_limit
from streamgate.sources.damage import DamageTracker
from streamgate.sources.deinterlace import Deinterlacer
from streamgate.sources.hardware import CPU, DecoderHealth, accelerator, check_decoder, is_on_gpu
from streamgate.sources.liveclock import Lateness, LiveClock, Pace
from streamgate.sources.picture import PictureMaker
from streamgate.sources.pyav import METADATA_ERRORS
from streamgate.sources.rtsplogin import LoginRelay, has_login

SCHEMES = ("rtsp", "rtsps", "http", "https", "file")
_WHITELIST = {
    "rtsp": "rtsp,rtp,tcp,udp,http,https,tls,crypto",
    "rtsps": "rtsp,rtsps,rtp,srtp,tcp,udp,tls,crypto",
    # No `file`: a playlist from the network must not read what lies on this machine.
    "http": "http,https,httpproxy,tcp,tls,crypto,hls,data",
    "https": "https,http,httpproxy,tcp,tls,crypto,hls,data",
}
LATE_S = 3.0
"""So far behind the camera only key frames are decoded, until this is made up for: a live picture is worth more than
a complete one. Cameras and networks that merely stutter stay below it."""
_MAX_URL_LENGTH = 4096
_HOST = re.compile(r"[^/]*@|[0-9]{1,3}(\.[0-9]{1,3}){3}([:/]|$)|[^/]+:[0-9]{1,5}(/|$)")
"""How the address of a camera begins whose scheme was forgotten."""
_DAMAGED_IN_A_ROW = 500
"""Packets without a picture after which a connection is given up: some twenty seconds."""


class FailureKind(StrEnum):
    """Why a stream gives no pictures."""

    REFUSED = "refused"
    """Wrong user or password, or not allowed: trying on may lock the account."""
    MISSING = "missing"
    """The server is there, the stream is not."""
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    """Connected, and then nothing came."""
    UNREADABLE = "unreadable"
    """What came is no video that can be decoded."""
    ENDED = "ended"
    """The other side closed; on a live stream that is a disconnect."""


class LiveError(SourceError):
    """A stream could not be opened, or stopped; one line without secrets."""

    def __init__(self, kind: FailureKind, message: str, location: str) -> None:
        super().__init__(message, location)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class ArrivedFrame:
    """A decoded frame with the moment (`time.monotonic()`) at which its last packet came in."""

    frame: Frame
    monotonic: float


def check_address(url: str) -> str:
    """Return `url` in its full form (a path becomes file://). Raises UsageError for what cannot be a stream."""
    if len(url) > _MAX_URL_LENGTH:
        raise UsageError(f"the address of a stream has {len(url)} letters; at most {_MAX_URL_LENGTH} make sense")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in url):
        # They would end up in the lines of a protocol.
        raise UsageError(f"{one_line(redact_url(url))}: an address holds no control characters")
    if "://" not in url:
        if not url.strip():
            raise UsageError("the address of a stream is empty; give rtsp://HOST/PATH")
        if slip := re.match(r"([A-Za-z]{3,6}):/*", url):
            near = difflib.get_close_matches(slip[1].lower(), SCHEMES, 1, 0.6)
            if near:
                raise UsageError(f"an address begins with {near[0]}://; write {near[0]}://HOST/PATH")
        if _HOST.match(url) and not Path(url).exists():
            raise UsageError(
                "there is no file of this name, and the address of a camera begins with rtsp://; write rtsp://HOST/PATH"
            )
        return f"file://{Path(url).absolute()}"
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, SCHEMES, 1, 0.6)
        hint = f"did you mean {near[0]}://?" if near else f"use {', '.join(SCHEMES)}, or a file's path"
        raise UsageError(f"{redact_url(url)}: not a stream known here; {hint}")
    malformed = True
    with suppress(ValueError):
        parts = urlsplit(url)
        _ = parts.port
        malformed = False
    if malformed:
        # Neither with the reason nor inside a handler: a parser's words may quote the password.
        raise UsageError(f"{redact_url(url)}: host or port is malformed; special characters of a password "
                         "must be percent-encoded")  # fmt: skip
    if scheme != "file" and not parts.hostname:
        raise UsageError(f"{redact_url(url)}: the host is missing")
    return url


class LiveConnection:
    """One connection, from the handshake to its end; `frames()` is read once. A context manager.

    Args:
        url: as `check_address` returns it, secrets included; they reach no message.
        options: time-outs and transport.
        decode: "cpu" or "cuda:N"; what the GPU does not decode the CPU does, which `not_on_gpu` tells.

    Raises:
        LiveError: it cannot be opened.
        DeviceError: there is no GPU to decode on; `frames()` raises it when the GPU is lost on the way.
    """

    def __init__(self, url: str, options: LiveConfig, decode: str = CPU) -> None:
        self.location = redact_url(url)
        self.stats = SourceStats()
        self.decode_seconds = 0.0
        """Time spent in the decoder since this was last set to zero."""
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
        # One thread: others would hold frames back, and with many streams all cores are busy anyway.
        codec.thread_count = 1
        self._time_base = self._stream.time_base or Fraction(1, 90_000)
        self._maker = PictureMaker(codec.name, self._stream.sample_aspect_ratio)
        self._clock = LiveClock()
        self._damage = DamageTracker(codec)
        self._health = DecoderHealth(decode)
        # A camera paces itself; a file or a playlist would come as fast as it can be read.
        self._pace = None if scheme in ("rtsp", "rtsps") else Pace()
        self._damaged = 0
        self.left_out = 0
        """Packets not decoded because reading was far behind the camera."""
        self._lateness = Lateness()
        self._late = False

    def frames(self) -> Iterator[ArrivedFrame]:
        """Yield frames as they come. Never ends by itself but with a LiveError.

        `pts_seconds` counts from the first frame, `captured_at` is the wall clock's time of arrival.
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
                raise self._error(FailureKind.UNREADABLE, f"data comes in but no picture can be decoded{self._doubt()}")

    @property
    def not_on_gpu(self) -> str:
        """After the first frame: the codec that the CPU decodes although a GPU was asked for; empty otherwise."""
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
        # FFmpeg 9 verifies certificates unless told otherwise, and cameras sign their own.
        options = {"protocol_whitelist": _WHITELIST[scheme], "tls_verify": "0", **limit}
        if scheme in ("rtsp", "rtsps"):
            # Size and codec stand in the session description: looking long would only delay the first picture.
            options |= {"rtsp_transport": self._options.transport, "allowed_media_types": "video",
                        "probesize": "32768", "analyzeduration": "500000"}  # fmt: skip
        failed: LiveError | None = None
        try:
            address = self._url
            if has_login(self._url):
                # FFmpeg would take user and password along to wherever the camera sends it.
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
            failed = self._explain(error, opening=True)
        if failed is not None:
            # Out here: on the chain FFmpeg's own error would show the whole address.
            check_decoder(self._decoder)
            raise failed
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.codec_context is None:
            container.close()
            raise self._error(FailureKind.UNREADABLE, "has no video that can be decoded here; check the stream's codec")
        if (words := over_limit(stream, self._options.max_pixels)) is not None:
            container.close()
            raise self._error(FailureKind.UNREADABLE, f"{words} live.max_pixels; take a smaller one, or raise that")
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
                failed = self._explain(error, opening=False)
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
            if self._damaged >= _DAMAGED_IN_A_ROW:
                raise self._error(FailureKind.UNREADABLE, f"its pictures cannot be decoded{self._doubt()}") from None
        self.decode_seconds += time.perf_counter() - began
        if frames:
            self._health.decoded()
            self._damaged = 0
            self.stats.decode_errors += sum(frame.is_corrupt for frame in frames)
        return frames

    def _doubt(self) -> str:
        """A decoder that was told no size it would take has none: the pictures may be too large."""
        return "" if self._stream.codec_context.width else "; they may be larger than live.max_pixels"

    def _timed(self, decoded: VideoFrame, torn: bool, index: int, arrived: float) -> ArrivedFrame:
        base = decoded.time_base or self._time_base
        pts = None if decoded.pts is None else float(decoded.pts * base)
        if self._pace is not None:
            arrived = self._pace.wait(pts)
        seconds, estimated = self._clock.stamp(pts, arrived)
        if self._pace is None:
            lateness = self._lateness.of(seconds, arrived)
            self._late = lateness > (LATE_S / 2 if self._late else LATE_S)
        self.stats.frames += 1
        self.stats.pts_estimated += estimated
        duration = float(decoded.duration * base) if decoded.duration else 0.0
        frame = Frame(
            self._maker.picture(decoded),
            seconds,
            duration,
            index,
            estimated,
            # What lies between arrival and now was spent here, in decoding.
            datetime.fromtimestamp(time.time() - (time.monotonic() - arrived), UTC),
            corrupt=torn,
        )
        return ArrivedFrame(frame, arrived)

    def _explain(self, error: Exception, *, opening: bool) -> LiveError:
        """FFmpeg's error as trouble in plain words."""
        for kinds, kind, text in _TROUBLES:
            if isinstance(error, kinds):
                return self._error(kind, text)
        if isinstance(error, (av.error.ExitError, TimeoutError)):
            if opening:
                limit = self._options.connect_timeout_s
                return self._error(FailureKind.UNREACHABLE, f"no answer within {limit:g} s; check address and network")
            return self._error(FailureKind.SILENT, f"nothing came for {self._options.read_timeout_s:g} s")
        if isinstance(error, av.error.InvalidDataError):
            return self._error(FailureKind.UNREADABLE, "what comes from there is no video stream; check the address")
        said = scrub(str(getattr(error, "strerror", None) or error), self._url, unquote(self._url))
        what = "cannot be reached" if opening else "the connection broke"
        return self._error(FailureKind.UNREACHABLE, f"{what} ({said}); check address and network")

    def _error(self, kind: FailureKind, text: str) -> LiveError:
        return LiveError(kind, f"{self.location}: {text}", self.location)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_TROUBLES: tuple[tuple[Any, FailureKind, str], ...] = (
    (
        av.error.HTTPUnauthorizedError,
        FailureKind.REFUSED,
        "the camera refuses user or password (401); correct them in its address",
    ),
    (
        av.error.HTTPForbiddenError,
        FailureKind.REFUSED,
        "this user may not see the stream (403); allow it in the camera",
    ),
    (
        av.error.HTTPNotFoundError,
        FailureKind.MISSING,
        "there is no such stream (404); check the path of the address",
    ),
    (
        (av.error.HTTPError,),
        FailureKind.UNREACHABLE,
        "the server answers with an error; check it",
    ),
    (
        ConnectionRefusedError,
        FailureKind.UNREACHABLE,
        "connection refused; check that the camera is on, and the port",
    ),
)
"""Most special first."""
