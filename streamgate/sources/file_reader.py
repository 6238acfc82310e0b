"""One pass over a video file: from its packets to timed frames."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av import Packet, VideoFrame
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from streamgate.errors import SourceError
from streamgate.frames import Frame
from streamgate.sources.base import MAX_PIXELS, HintProvider, SourceStats
from streamgate.sources.clock import Clock, ClockState, FrameTime, StorageOrderClock
from streamgate.sources.container import has_times, open_video, stall_seconds
from streamgate.sources.damage import DamageTracker
from streamgate.sources.deinterlace import Deinterlacer
from streamgate.sources.encryption import ENCRYPTED, is_scrambled
from streamgate.sources.hardware import CPU, DecoderHealth, decoder, is_on_gpu, no_gpu
from streamgate.sources.picture import PictureMaker
from streamgate.sources.references import reference_test
from streamgate.sources.remote import AnyPath, trouble_of
from streamgate.sources.skipping_decoder import SkippingDecoder
from streamgate.sources.truncation import is_truncated

_MAX_SILENT_PACKETS = 2000
"""Number of consecutive packets without a picture after which reading stops; key frames are usually closer together."""

NO_TIMES = frozenset({"avi", "mpegvideo"})
"""Containers that store packets at a fixed rate without presentation times; FFmpeg guesses times for them."""

_NEVER_SKIP = frozenset({"h264", "hevc"})
"""Codecs whose decoders eventually output a frame for every packet."""

_FLUSH_ERRORS = (av.error.EOFError,)


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """A file and the options for reading it.

    Attributes:
        path: the file.
        location: display name.
        threads: decoder threads, 0 for one per core.
        decode: "cpu" or "cuda:N".
        max_pixels: pictures with more pixels are not decoded.
        turned: extra clockwise quarter turns of the pictures, in addition to the file's own metadata.
        interlaced: whether the video was found to be interlaced although it is not flagged as interlaced.
    """

    path: AnyPath
    location: str
    threads: int = 0
    decode: str = CPU
    max_pixels: int = MAX_PIXELS
    turned: int = 0
    interlaced: bool = False


@dataclass(frozen=True, slots=True)
class SeekPoint:
    """A key frame from which reading can start again, and the clock state that is needed to do so.

    Attributes:
        packet: number of the frame's packet in the stream, counted from 1.
        pts_seconds: corrected time of the frame.
        before: state of the clock before this frame.
    """

    packet: int
    pts_seconds: float
    before: ClockState


class FileReader:
    """One pass over a file.

    Raises SourceError if the file cannot be opened, DeviceError if there is no GPU to decode on.
    """

    def __init__(self, opening: OpenOptions, stats: SourceStats) -> None:
        path, location = opening.path, opening.location
        self._opening = opening
        self._location = location
        self._stats = stats
        self._scout: tuple[InputContainer, VideoStream] | None = None
        self._container, self._stream = open_video(
            path, location, opening.threads, opening.decode, opening.max_pixels
        )
        stream = self._stream
        try:
            self._codec = decoder(stream, opening.decode, self._second_stream)
        except SourceError:
            self._close_files()
            raise
        except (av.error.FFmpegError, OSError, ValueError):
            self._close_files()
            raise no_gpu(opening.decode) from None
        self._health = DecoderHealth(opening.decode)
        self._time_base = stream.time_base or Fraction(1, 1000)
        self.fps = _positive(stream.average_rate) or _positive(stream.guessed_rate)
        self.duration_seconds = _duration(self._container, stream)
        self.estimated_frames = stream.frames or None
        if self.estimated_frames is None and self.duration_seconds and self.fps:
            self.estimated_frames = max(1, round(self.duration_seconds * self.fps))
        nominal = 1 / self.fps if self.fps else None
        self._clock: Clock | StorageOrderClock
        if self._container.format.name in NO_TIMES:
            self._clock = StorageOrderClock(nominal, skips=stream.codec_context.name not in _NEVER_SKIP)
        else:
            self._clock = Clock(nominal, trusted=has_times(self._container.format))
        self._maker = PictureMaker(stream.codec_context.name, stream.sample_aspect_ratio, opening.turned)
        self._silent = 0
        self._headless: bool | None = None
        self.interlaced = opening.interlaced
        """Whether frames are deinterlaced, that is, rebuilt from their neighbours."""
        self._deinterlacer = Deinterlacer(self._time_base, stats, interlaced=opening.interlaced)
        self._count = 0
        self._enters_at = 0
        self._keys: dict[int, int] | None = None
        self.marks: list[SeekPoint] = []
        """Points from which reading can start again; recorded if `mark` was called."""
        # The index of an MP4 gives the number of packets; packets that are missing at the end were cut off.
        self._promised = stream.frames if "mp4" in self._container.format.name else 0
        self._cut_off = is_truncated(path)
        self._damage = DamageTracker(self._codec)
        self._skipping = SkippingDecoder(
            self._packets(), self._codec, self._decode, self._scouting, reference_test(self._codec), self._sees_face,
            self._time_base,
        )  # fmt: skip
        self._frames = self._timed()
        self._first: Frame | None = None

    @property
    def falls_back(self) -> bool:
        """Whether a GPU was requested but the frames so far were decoded on the CPU."""
        return self._opening.decode != CPU and not is_on_gpu(self._codec)

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._codec.codec.canonical_name

    @property
    def reorders(self) -> bool:
        """Whether times are derived from packet order and frames are reordered, so that packets have no known times."""
        return isinstance(self._clock, StorageOrderClock) and self._clock.holds_back

    def mark(self) -> None:
        """Record key frames in `marks` from now on; must be called before the first frame is decoded."""
        self._keys = {}

    def enter(self, mark: SeekPoint) -> None:
        """Start at a key frame that an earlier reader recorded; all times are the same as for that reader.

        This method must be called before the first frame is decoded.
        """
        self._promised, self._enters_at = 0, mark.packet
        self._clock.resume(mark.before)

    def seek(self, pts_seconds: float) -> None:
        """Seek to the last key frame at or before a time; must be called before the first frame is decoded."""
        self._promised = 0
        try:
            self._container.seek(int(pts_seconds / self._time_base), stream=self._stream, backward=True)
        except (av.error.FFmpegError, OSError):
            return  # the format cannot seek: start at the beginning

    def first(self) -> Frame:
        """Decode up to the first frame, and return it; `frames()` still yields it as well."""
        self._first = next(self._frames, None)
        if self._first is None:
            if is_scrambled(self._opening.path):
                raise SourceError(f"{self._location}: {ENCRYPTED}")
            if not self._count and not self._stats.decode_errors:
                raise SourceError(
                    f"{self._location}: has a header but no frames: it was cut off, or is the first segment of a "
                    "stream; give the whole recording in one file"
                )
            # If the decoder rejected the size of every frame, it reports no size.
            unknown = not self._stream.codec_context.width
            most = self._opening.max_pixels
            large = f", or its frames are larger than decoding.max_pixels ({most})" if unknown else ""
            raise SourceError(
                f"{self._location}: no frame could be decoded; the file is damaged or cut off{large}; copy it again"
            )
        return self._first

    def frames(self, hints: HintProvider | None, until: float = 0.0) -> Iterator[Frame]:
        """Yield all frames; `hints` apply to frames before `until` seconds, or to all frames if `until` is 0.0."""
        frame: Frame | None = self._first or self.first()
        self._first = None
        assert frame is not None
        self._skipping.begin(hints if self._clock.trusted and not self.interlaced else None, until)
        self._skipping.shown(frame.frame_index or 0, frame.pts_seconds)
        while frame is not None:
            self._stats.frames += 1
            yield frame
            # Without `del`, the loop would keep the frame alive while the next frame is decoded.
            del frame
            frame = next(self._frames, None)

    def close(self) -> None:
        self._first = None
        try:
            self._frames.close()
        except ValueError:
            # Another thread is stuck in the generator and was abandoned: closing the container now would crash.
            return
        # The skipping decoder holds callbacks to this object. This reference cycle would keep the last decoded picture
        # alive.
        vars(self).pop("_skipping", None)
        self._close_files()

    def _close_files(self) -> None:
        if self._scout is not None:
            self._scout[0].close()
            self._scout = None
        self._container.close()

    def frame(self, time: FrameTime, decoded: VideoFrame, torn: bool) -> Frame:
        """Wrap a decoded frame as an upright frame."""
        picture = self._maker.picture(decoded)
        return Frame(
            picture, time.pts_seconds, time.duration_seconds, time.frame_index, time.estimated, corrupt=torn
        )

    def _timed(self) -> Generator[Frame, None, None]:
        for time, decoded, torn in self.decoded():
            frame = self.frame(time, decoded, torn)
            # The times of deinterlaced frames differ from those of their packets, but once frames are deinterlaced, no
            # frames are left out.
            frame.left_out = self._skipping.left_out(None if self.interlaced else decoded.pts)
            yield frame
            del decoded, frame
        self._stats.left_out_at_end = self._skipping.left_out()

    def decoded(self) -> Generator[tuple[FrameTime, VideoFrame, bool], None, None]:
        """Yield the decoder's frames with their corrected times and whether they are torn."""
        clock, stats = self._clock, self._stats
        for frame, torn in self._pictures():
            base = frame.time_base or self._time_base
            packet = None if self._keys is None or frame.pts is None else self._keys.pop(frame.pts, None)
            before = None if packet is None else clock.state
            time = clock.frame(
                _seconds(frame.pts, base),
                # A filter rescales pts but not dts, which stays in the stream's time base.
                _seconds(frame.dts, self._time_base),
                _seconds(frame.duration or None, base),
            )
            if packet is not None and before is not None and frame.key_frame:
                self.marks.append(SeekPoint(packet, time.pts_seconds, before))
            stats.pts_estimated = clock.estimated
            if frame.is_corrupt:
                stats.decode_errors += 1
                self._skipping.damaged(time.frame_index)
            if self._headless:
                # Earlier packets produced no picture, because the key frame that they depend on is missing.
                stats.decode_errors += max(0, time.frame_index - stats.decode_errors)
                self._headless = False
            if not clock.trusted:
                self._skipping.begin(None)
            if self._deinterlacer.unflagged and not stats.combed:
                self._skipping.stop_after(time.frame_index)
            stats.combed = self._deinterlacer.unflagged
            self._skipping.shown(time.frame_index, time.pts_seconds)
            yield time, frame, torn
            del frame

    def _pictures(self) -> Iterator[tuple[VideoFrame, bool]]:
        for frame in self._skipping.frames():
            if frame.interlaced_frame and not self.interlaced:
                self.interlaced = True
                self._skipping.begin(None)
            yield from self._deinterlacer.feed(frame, self._damage.is_torn(frame))
            del frame
        yield from self._deinterlacer.flush()

    def _decode(self, packet: Packet | None, counted: bool) -> list[VideoFrame]:
        try:
            frames = self._codec.decode(packet)
        except _FLUSH_ERRORS:
            return []
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._health.failed(error)
            if counted:
                self._stats.decode_errors += 1
                self._clock.packet_lost()
                self._skipping.failed()
            self._damage.failed(packet)
            frames = []
        if frames:
            self._health.decoded()
        # Packets outside the edit list and packets that are decoded a second time do not count towards
        # `_MAX_SILENT_PACKETS`.
        self._silent = 0 if frames else self._silent + counted
        return frames

    def _scouting(self) -> VideoCodecContext:
        """A second decoder, set up by FFmpeg like the first, for probing key frames."""
        return self._second_stream().codec_context

    def _second_stream(self) -> VideoStream:
        # This stream is decoded on the CPU: only a few of its frames are needed, too few to justify a GPU context.
        if self._scout is None:
            opening = self._opening
            self._scout = open_video(opening.path, opening.location, 1, max_pixels=opening.max_pixels)
        return self._scout[1]

    def _sees_face(self, hints: HintProvider, frame: VideoFrame) -> bool:
        seconds = _seconds(frame.pts, self._time_base)
        assert seconds is not None
        return hints.sees_face(Frame(self._maker.picture(frame), seconds))

    def _packets(self) -> Iterator[Packet]:
        """The packets of the video stream; damage between them is counted and skipped."""
        base, failures = self._time_base, 0
        packets = self._container.demux(self._stream)
        while failures < _MAX_SILENT_PACKETS and self._silent < _MAX_SILENT_PACKETS:
            try:
                packet = next(packets)
            except StopIteration:
                self._check_store()
                self._stats.decode_errors += max(0, self._promised) or self._cut_off
                return
            except av.error.ExitError:
                self._stats.decode_errors += 1
                raise SourceError(
                    f"{self._location}: no more data could be read for {stall_seconds():g} s; "
                    "the rest of the file is skipped"
                ) from None
            except (av.error.FFmpegError, OSError):
                self._check_store()
                self._stats.decode_errors += failures == 0  # consecutive failures count as one error
                self._skipping.failed(decoding=False)
                failures += 1
                packets = self._container.demux(self._stream)
                continue
            pts, dts = packet.pts, packet.dts
            real = packet.size > 0 or pts is not None or dts is not None  # otherwise it is the flush packet at the end
            self._promised -= real
            self._count += packet.size > 0
            if self._count < self._enters_at:
                continue
            if self._keys is not None and packet.is_keyframe and pts is not None:
                self._keys[pts] = self._count
            if packet.is_discard:
                # This packet is outside the edit list: its frame is never shown, but other frames depend on it. The
                # decoder drops the frame.
                if self._headless is None:
                    self._headless = not packet.is_keyframe
                if packet.size:
                    self._damage.packet(packet)
                    yield packet
                continue
            if packet.size == 0:
                # An empty packet is not passed on, because the decoder would treat it as the end of the stream.
                if real:
                    self._clock.packet(_seconds(pts, base), _seconds(dts, base))
                    self._clock.packet_lost()
                continue
            failures = 0
            if self._headless is None:
                self._headless = not packet.is_keyframe
            self._clock.packet(_seconds(pts, base), _seconds(dts, base))
            self._damage.packet(packet)
            yield packet
        self._stats.decode_errors += 1

    def _check_store(self) -> None:
        """Raise SourceError if the packets end because a store failed, which FFmpeg sees as the end of the file."""
        if (trouble := trouble_of(self._opening.path)) is not None:
            self._stats.decode_errors += 1
            raise SourceError(f"{self._location}: {trouble.words}; the rest of the file is skipped")


def _seconds(value: int | None, base: Fraction) -> float | None:
    # A single division gives the float nearest to the exact time, which is also the time that other tools print.
    return None if value is None else value * base.numerator / base.denominator


def _positive(rate: Fraction | None) -> float | None:
    return float(rate) if rate is not None and rate > 0 else None


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None
