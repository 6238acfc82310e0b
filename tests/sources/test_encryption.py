"""Encrypted files say so, whatever FFmpeg makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streamgate.errors import SourceError
from streamgate.sources import open_source
from support.media import astronaut_frames, write_clip

SIZE = (160, 120)


def refused(path: Path) -> None:
    with pytest.raises(SourceError, match="encrypted") as caught:
        open_source(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", astronaut_frames(10, SIZE), audio=True)


def test_a_protected_sample_entry_in_an_mp4(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(clip.read_bytes().replace(b"avc1\0\0\0\0\0\0\0\1", b"encv\0\0\0\0\0\0\0\1"))
    refused(path)


def test_one_that_ffmpeg_does_not_open(tmp_path: Path) -> None:
    pieces = "frag_keyframe+empty_moov+default_base_moof"
    data = bytearray(write_clip(tmp_path / "clear.mp4", astronaut_frames(5, SIZE), movflags=pieces).read_bytes())
    entry, fragment = data.index(b"avc1\0\0\0\0"), data.index(b"tfhd")
    data[entry : entry + 4], data[fragment + 8 : fragment + 12] = b"encv", b"\0\0\0\7"
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    refused(path)


def test_protected_sound_is_no_protected_picture(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    path.write_bytes(clip.read_bytes().replace(b"mp4a\0\0\0\0\0\0\0\1", b"enca\0\0\0\0\0\0\0\1"))
    with open_source(path) as source:
        assert sum(1 for _ in source.frames()) == 10


def test_a_scrambled_transport_stream(tmp_path: Path) -> None:
    data = bytearray(write_clip(tmp_path / "clear.ts", astronaut_frames(30, SIZE)).read_bytes())
    for at in range(0, len(data), 188):
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == 0x100:
            data[at + 3] |= 0x80
            data[at + 30 : at + 188] = bytes(byte ^ 0x5A for byte in data[at + 30 : at + 188])
    path = tmp_path / "paid.ts"
    path.write_bytes(data)
    refused(path)


def test_words_in_the_pictures_mean_nothing(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    path.write_bytes(clip.read_bytes() + b"encv sinf tenc \x6d\x80\x82\x50\x35")
    with open_source(path) as source:
        assert sum(1 for _ in source.frames()) == 10


def test_case_common_encryption(shared_case: Callable[[str], Path]) -> None:
    refused(shared_case("encrypted_cenc.mp4"))
