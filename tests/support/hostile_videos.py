"""Videos that are broken, lie about themselves, or are merely unusual."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np

from support.hostile import Hostile, Make
from support.media import astronaut_frames, plain_frames, write_audio, write_clip

SIZE = (320, 240)


def face(count: int = 12, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Frames with a face that the studio preset keeps."""
    return astronaut_frames(count, size, zoom=1.6)


@cache
def clip_bytes(suffix: str = ".mp4", movflags: str | None = None) -> bytes:
    """A sound clip with a face."""
    with TemporaryDirectory() as folder:
        path = write_clip(Path(folder) / f"clip{suffix}", face(24), movflags=movflags, options={"g": "12"})
        return path.read_bytes()


def clip(**options: Any) -> Make:
    frames = options.pop("frames", None)
    return lambda path: (write_clip(path, frames or face(), **options), None)[1]


def data(content: bytes | Callable[[], bytes]) -> Make:
    return lambda path: (path.write_bytes(content if isinstance(content, bytes) else content()), None)[1]


def cut(suffix: str, share: float, movflags: str | None = None) -> Make:
    def make(path: Path) -> None:
        whole = clip_bytes(suffix, movflags)
        path.write_bytes(whole[: int(len(whole) * share)])

    return make


def audio(path: Path) -> None:
    write_audio(path)


def cover_only(path: Path) -> None:
    """A song with a cover picture, which FFmpeg shows as a video stream."""
    with av.open(str(path), "w", format="mp3") as container:
        sound: Any = container.add_stream("mp3", rate=48000)
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for index in range(40):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16p", layout="mono")
            frame.sample_rate, frame.pts = 48000, index * 1152
            container.mux(sound.encode(frame))
        picture = av.VideoFrame.from_ndarray(face(1, (64, 48))[0], format="rgb24").reformat(format="yuvj420p")
        picture.pts = 0
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
        container.mux(sound.encode())


def remuxed(path: Path, change: Callable[[int, Any], bool], suffix: str = ".mkv", source: str = ".mp4") -> None:
    """The sound clip with its packets passed through `change` (number, packet), which says whether to keep it."""
    with TemporaryDirectory() as folder:
        origin = Path(folder) / f"origin{source}"
        origin.write_bytes(clip_bytes(source))
        target = Path(folder) / f"target{suffix}"
        with av.open(str(origin)) as reader, av.open(str(target), "w") as writer:
            stream = reader.streams.video[0]
            copy = writer.add_stream_from_template(stream)
            kept = [packet for packet in reader.demux(stream) if packet.size]
            for number, packet in enumerate(kept):
                if change(number, packet):
                    packet.stream = copy
                    writer.mux(packet)
        shutil.copy(target, path)


def no_keyframe(path: Path) -> None:
    remuxed(path, lambda number, packet: number > 0)


def zero_durations(path: Path) -> None:
    def still(number: int, packet: Any) -> bool:
        packet.duration = 0
        packet.pts = packet.dts = number // 3  # three packets a time
        return True

    with TemporaryDirectory() as folder:
        origin = Path(folder) / "origin.mkv"
        write_clip(origin, face(12), codec="mpeg4", options={"g": "4"})
        with av.open(str(origin)) as reader, av.open(str(path), "w") as writer:
            stream = reader.streams.video[0]
            copy = writer.add_stream_from_template(stream)
            for number, packet in enumerate(one for one in reader.demux(stream) if one.size):
                if still(number, packet):
                    packet.stream = copy
                    writer.mux(packet)


def changing_size(path: Path) -> None:
    with TemporaryDirectory() as folder:
        parts = []
        for number, size in enumerate((SIZE, (480, 360), (160, 120))):
            part = write_clip(Path(folder) / f"{number}.ts", face(8, size), options={"g": "8"})
            parts.append(part.read_bytes())
        path.write_bytes(b"".join(parts))


def patched(search: bytes, offset: int, value: bytes, suffix: str = ".mp4") -> Make:
    """The sound clip with `value` written `offset` bytes behind each occurrence of `search`."""

    def make(path: Path) -> None:
        content = bytearray(clip_bytes(suffix))
        index = content.find(search)
        assert index >= 0, search
        while index >= 0:
            content[index + offset : index + offset + len(value)] = value
            index = content.find(search, index + 1)
        path.write_bytes(content)

    return make


def zeros_behind(share: float) -> Make:
    """A transport stream that breaks off, and 10 GB of zeros behind, as a recorder leaves that reserves its file."""

    def make(path: Path) -> None:
        cut(".ts", share)(path)
        os.truncate(path, 10_000_000_000)

    return make


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", len(body) + 8) + kind + body


def giant_frames(path: Path) -> None:
    """A Y4M-like raw video in AVI form that says 30,000 x 30,000 pixels and holds none."""
    with TemporaryDirectory() as folder:
        origin = write_clip(Path(folder) / "o.avi", face(2, (64, 48)), codec="png", pix_fmt="rgb24").read_bytes()
    content = bytearray(origin)
    for index in (content.find(b"avih") + 8 + 32, content.find(b"strf") + 8 + 4):
        content[index : index + 8] = struct.pack("<II", 30_000, 30_000)
    start = 0
    while (start := content.find(b"IHDR", start + 1)) >= 0:
        content[start + 4 : start + 12] = struct.pack(">II", 30_000, 30_000)
    path.write_bytes(content)


def large_gif(path: Path) -> None:
    """An animated GIF whose screen is 65,535 x 65,535; its one picture is a single pixel."""
    header = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    picture = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\x00"
    path.write_bytes(header + picture + b";")


def nested_boxes(path: Path) -> None:
    """An MP4 whose boxes hold boxes, 20,000 deep."""
    content = b""
    for _ in range(20_000):
        content = box(b"moov", content) if len(content) < 1 << 18 else content
    path.write_bytes(box(b"ftyp", b"isom\0\0\2\0isom") + content)


TINY_INTERLACED = Hostile(
    "rows.mkv", "interlaced frames of 16 x 2 px",
    clip(frames=plain_frames(10, (16, 2)), codec="mpeg2video", options={"flags": "+ildct+ilme"}),
    "no frame could be decoded",
)  # fmt: skip

DAMAGED = [
    TINY_INTERLACED,
    Hostile("zero.mp4", "empty file", data(b""), "empty"),
    Hostile("text.mp4", "text named .mp4", data(b"this is a shopping list\n" * 50), "text"),
    Hostile("noise.mp4", "random bytes", data(lambda: np.random.default_rng(0).bytes(50_000)), "not a video"),
    Hostile("cut.mp4", "MP4 cut off, index lost", cut(".mp4", 0.8), "cut off"),
    Hostile("cut-front.mp4", "MP4 cut off, index in front", cut(".mp4", 0.6, "faststart"), damaged=True),
    Hostile("cut.mkv", "Matroska cut off", cut(".mkv", 0.6), damaged=True),
    Hostile("cut.avi", "AVI cut off", cut(".avi", 0.6), damaged=True),
    Hostile("cut.ts", "transport stream cut off", cut(".ts", 0.6), damaged=None),
    Hostile("header.mp4", "only the first 40 bytes", cut(".mp4", 0.0005), "cut off|not a video"),
    Hostile("audio.mp4", "audio without video", audio, "only audio"),
    Hostile("cover.mp4", "a song with a cover picture", cover_only, "only audio"),
    Hostile("headless.mkv", "key frame missing at the start", no_keyframe, damaged=True),
]
"""What a disk, a network or a camera leaves behind."""

UNUSUAL = [
    Hostile("one-pixel.mkv", "1 x 1 video", clip(frames=plain_frames(5, (1, 1)), codec="ffv1", pix_fmt="bgr0")),
    Hostile("tall.mov", "1 x 4000 video", clip(frames=plain_frames(5, (1, 4000)), codec="png", pix_fmt="rgb24")),
    Hostile("wide.mov", "4000 x 1 video", clip(frames=plain_frames(5, (4000, 1)), codec="png", pix_fmt="rgb24")),
    Hostile("fast.mp4", "10,000 fps",
            clip(frames=face(1) * 1200, fps=Fraction(1000), pts=list(range(1200)), time_base=Fraction(1, 10_000))),
    Hostile("still.mkv", "packets without duration, three with each time stamp", zero_durations),
    Hostile("changing.ts", "the resolution changes twice", changing_size, damaged=None),
    Hostile("phone.mp4", "rotated video of a phone",
            clip(frames=[np.rot90(one).copy() for one in face()], rotation=90)),
    Hostile("tv.mp4", "interlaced video", clip(interlaced=True)),
    Hostile("hlg.mkv", "HLG, 10 bit", clip(pix_fmt="yuv420p10le", matrix="bt2020", transfer=18, primaries=9)),
    Hostile("pq.mkv", "PQ, 10 bit", clip(pix_fmt="yuv420p10le", matrix="bt2020", transfer=16, primaries=9)),
    Hostile("deep.mkv", "4:4:4, 12 bit", clip(codec="libx265", pix_fmt="yuv444p12le",
                                             options={"x265-params": "log-level=none"})),
    Hostile("film.mov", "ProRes 4:2:2, 10 bit", clip(codec="prores_ks", pix_fmt="yuv422p10le")),
]  # fmt: skip
"""Sound files that are out of the ordinary: all of them are read, and their face is found."""

LIES = [
    Hostile("giant-frames.avi", "AVI header that claims frames of 30,000 x 30,000 px", giant_frames,
            "no frame could be decoded|pixels"),
    Hostile("screen.gif", "GIF header that claims a screen of 65,535 x 65,535 px", large_gif, "."),
    Hostile("samples.mp4", "MP4 header that claims 268 million frames",
            patched(b"stsz", 12, b"\x0f\xff\xff\xff"), ".", None),
    Hostile("box.mp4", "MP4 header that claims a box of 2 GiB",
            patched(b"mdat", -4, b"\x7f\xff\xff\xff"), ".", None),
    Hostile("long.mp4", "MP4 header that claims a duration of 49 days",
            patched(b"mvhd", 20, b"\xff\xff\xff\xff"), "", None),
    Hostile("nested.mp4", "MP4 with 20,000 nested boxes", nested_boxes, "cut off|not a video"),
    Hostile("zeros.ts", "transport stream followed by 10 GB of zeros", zeros_behind(1.0), "", True),
    Hostile("mostly-zeros.ts", "a few packets followed by 10 GB of zeros", zeros_behind(0.02), "."),
]  # fmt: skip
"""Sizes that are not true: memory has to stay bounded."""
