"""Files that are shorter than they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streamgate.sources import open_source
from streamgate.sources.truncation import is_truncated
from support.hostile_videos import clip_bytes


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_a_missing_byte_is_seen_and_a_whole_file_is_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    content = clip_bytes(suffix)
    path.write_bytes(content)
    assert not is_truncated(path)
    path.write_bytes(content + b"more")
    assert not is_truncated(path)
    path.write_bytes(content[:-1])
    assert is_truncated(path)


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_reading_counts_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    for share, damaged in ((1.0, False), (0.6, True)):
        content = clip_bytes(suffix)
        path.write_bytes(content[: int(len(content) * share)])
        with open_source(path) as source:
            frames = sum(1 for _ in source.frames())
        assert frames > 5 and (source.stats.decode_errors > 0) is damaged


def test_recordings_that_were_never_closed_promise_nothing(tmp_path: Path) -> None:
    content = bytearray(clip_bytes(".mkv"))
    index = content.find(b"\x18\x53\x80\x67") + 4
    content[index : index + 8] = b"\x01" + b"\xff" * 7
    (tmp_path / "clip.mkv").write_bytes(content[: len(content) // 2])
    assert not is_truncated(tmp_path / "clip.mkv")
    content = bytearray(clip_bytes(".avi"))
    for open_end in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        content[4:8] = open_end
        (tmp_path / "clip.avi").write_bytes(content[: len(content) // 2])
        assert not is_truncated(tmp_path / "clip.avi")


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".mp4"])
def test_any_beginning_is_no_error(tmp_path: Path, suffix: str) -> None:
    content = clip_bytes(suffix)
    for length in range(80):
        (tmp_path / "clip").write_bytes(content[:length])
        is_truncated(tmp_path / "clip")
    assert not is_truncated(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["moviepy_bbb.webm", "mmaction2_tests_test.avi"])
def test_real_files_are_whole(shared_clip: Callable[[str], Path], name: str) -> None:
    assert not is_truncated(shared_clip(name))
