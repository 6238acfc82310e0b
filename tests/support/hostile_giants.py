"""Videos of few bytes whose pictures would take gigabytes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av

from support.hostile import Hostile
from support.hostile_pictures import giant_png
from support.media import plain_frames, write_clip


class _Bits:
    """The bits of an H.264 parameter set, with its exponential Golomb codes."""

    def __init__(self, data: bytes) -> None:
        self.text = "".join(f"{byte:08b}" for byte in data)
        self.index = 0

    def skip(self, count: int) -> None:
        for _ in range(count):
            self.number()

    def number(self) -> int:
        zeros = self.text.index("1", self.index) - self.index
        self.index += 2 * zeros + 1
        return int(self.text[self.index - zeros - 1 : self.index], 2) - 1

    @staticmethod
    def code(value: int) -> str:
        bits = f"{value + 1:b}"
        return "0" * (len(bits) - 1) + bits


def resized_h264(content: bytes, width: int, height: int) -> bytes:
    """A baseline Annex B stream without B frames whose parameter set says another size (multiples of 16)."""
    start = content.index(b"\0\0\0\1\x67") + 5
    end = content.index(b"\0\0\1", start)
    end -= content[end - 1] == 0
    bits = _Bits(content[start:end].replace(b"\0\0\3", b"\0\0"))
    bits.index = 24
    bits.skip(2)
    assert bits.number() == 2, "its pictures are stored in another order than they are shown"
    bits.skip(1)
    bits.index += 1
    before = bits.text[: bits.index]
    bits.skip(2)
    text = before + bits.code(width // 16 - 1) + bits.code(height // 16 - 1) + bits.text[bits.index :].rstrip("0")
    text += "0" * (-len(text) % 8)
    changed = bytes(int(text[index : index + 8], 2) for index in range(0, len(text), 8))
    return content[:start] + changed.replace(b"\0\0\0", b"\0\0\3\0") + content[end:]


def giant_h264(path: Path) -> None:
    """H.264 whose pictures are 16,384 x 9,216 by their parameter set, in 2 kB."""
    with TemporaryDirectory() as folder:
        options = {"profile": "baseline", "bf": "0"}
        small = write_clip(Path(folder) / "o.h264", plain_frames(6, (64, 48)), options=options).read_bytes()
    path.write_bytes(resized_h264(small, 16_384, 9_216))


def giant_png_frames(path: Path) -> None:
    """True pictures of 16,000 x 16,000 pixels in an AVI of 100 kB."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("png", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        content = giant_png(16_000, 16_000)
        container.start_encoding()
        for index in range(2):
            packet = av.Packet(content)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, index, index, True
            packet.time_base = Fraction(1, 5)
            container.mux(packet)


GIANTS = [
    Hostile("giant.h264", "H.264 of 2 kB whose parameter set claims 16,384 x 9,216 px",
            giant_h264, "decoding.max_pixels"),
    Hostile("giant-png.avi", "AVI of 70 kB with PNG frames of 16,000 x 16,000 px",
            giant_png_frames, "decoding.max_pixels"),
]
