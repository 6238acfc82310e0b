"""What `streamgate run` reads and how it says where it is: parts of videos, lists of inputs, stretches of a track."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from streamgate.commands.input_lists import expanded
from streamgate.commands.progress import short_names
from streamgate.errors import SourceError, UsageError
from support.command import inside, lines, streamgate
from support.media import astronaut_frames, write_clip

EMBEDDED = ("--models", "embedded", "--set", "output.report=false")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of a face."""
    frames = astronaut_frames(150, (640, 480), step=0.3, zoom=1.6)
    return write_clip(tmp_path_factory.mktemp("clips") / "speaker.mp4", frames, options={"g": "40"})


def test_only_the_stretch_between_start_and_end_is_read(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = streamgate("run", clip, "-o", out, *EMBEDDED, "--start", "0:02", "--end", "4")
    assert done.code == 0, done.err
    assert "speaker.mp4: 50 frames, 1 track, 1 kept" in done.err
    (record,) = lines(out / "faces.jsonl")
    assert 2.0 <= record["track"]["first_pts"] < 2.1 and 3.5 < record["track"]["last_pts"] < 4.0
    # What was read before is no part of other settings.
    again = streamgate("run", clip, "-o", out, *EMBEDDED, "--start", "3", "--resume")
    assert again.code == 2 and "start_s" in again.err


def test_a_stretch_behind_the_end_says_so(clip: Path, tmp_path: Path) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "out", *EMBEDDED, "--start", "1:00:00")
    assert done.code == 3 and "has no frame from 3600 s" in done.err
    wrong = streamgate("run", clip, "--start", "5", "--end", "4")
    assert wrong.code == 2 and "--end 4" in wrong.err
    assert streamgate("run", clip, "--start", "1:xx").code == 2


def test_every_so_many_seconds_of_a_track_give_a_face(clip: Path, tmp_path: Path) -> None:
    done = streamgate("run", clip, "-o", tmp_path / "out", *EMBEDDED, "--every", 2)
    assert done.code == 0, done.err
    records = lines(tmp_path / "out" / "faces.jsonl")
    assert len(records) >= 3 and {record["person_id"] for record in records} == {"p0001"}
    assert all(record["track"]["last_pts"] - record["track"]["first_pts"] <= 2.5 for record in records)
    times = sorted(record["pts_seconds"] for record in records)
    assert times[0] < 2.5 and times[-1] > 3.5


def test_inputs_come_from_lists_and_from_standard_input(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"# footage\n\n{clip}\n{tmp_path / 'gone.mp4'}\n")
    done = streamgate("run", f"@{tmp_path / 'list.txt'}", "-o", tmp_path / "a", *EMBEDDED, "--end", "1")
    assert done.code == 1 and "gone.mp4: no such file" in done.err and "[1/1] speaker.mp4" in done.err
    piped = subprocess.run(
        [sys.executable, "-m", "streamgate", "run", "-", "-o", tmp_path / "b", *EMBEDDED, "--end", "1"],
        input=f"{clip.parent}/*.mp4\n".encode(), capture_output=True, timeout=300,
    )  # fmt: skip
    assert piped.returncode == 0 and b"[1/1] speaker.mp4" in piped.stderr


def test_lists_are_read_as_find_writes_them(tmp_path: Path) -> None:
    assert expanded(["a.mp4", "-"], io.BytesIO(b"b c.mp4\0d\n.mp4\0")) == ("a.mp4", "b c.mp4", "d\n.mp4")
    with pytest.raises(SourceError, match="the list is empty"):
        expanded(["-"], io.BytesIO(b"\n"))
    for wrong in (b"x" * 5000, b"\0\0\0 ftypisom\0\0\2\0isomiso2"):
        with pytest.raises(UsageError, match="not a list of paths"):
            expanded(["-"], io.BytesIO(wrong))
    with pytest.raises(SourceError, match=r"nothing\.txt"):
        expanded([f"@{tmp_path}/nothing.txt"])
    with pytest.raises(UsageError, match="once"):
        expanded(["-", "-"])
    named = tmp_path / "@me.mp4"
    named.write_bytes(b"")
    assert expanded([str(named), "@"]) == (str(named), "@")


def test_a_web_address_leads_to_a_downloader(tmp_path: Path) -> None:
    done = streamgate("run", "https://user:secret@video.example/watch?v=1", "-o", tmp_path / "out")
    assert done.code == 2 and "yt-dlp 'https://***@video.example/watch?v=1'" in done.err and "secret" not in done.err


def test_log_levels_say_more_and_less(clip: Path, tmp_path: Path) -> None:
    words = ("run", clip, tmp_path / "gone.mp4", *EMBEDDED, "--end", "1")
    least = streamgate(*words, "-o", tmp_path / "a", "--log-level", "warning")
    assert least.code == 1 and len(least.err.splitlines()) == 1 and "gone.mp4" in least.err
    most = streamgate(*words, "-o", tmp_path / "b", "--log-level", "debug")
    assert "debug: weights: detector" in most.err and "debug: writing" in most.err


def test_names_in_lines_are_as_short_as_they_can_be() -> None:
    assert short_names(["/a/b/one.mp4", "/a/c/two.mp4"]) == ["one.mp4", "two.mp4"]
    assert short_names(["/a/b/one.mp4", "/x/b/one.mp4", "/a/c/one.mp4"]) == ["a/b/one.mp4", "x/b/one.mp4", "c/one.mp4"]


@pytest.mark.parametrize("command", ["run", "score", "clips", "report", "people"])
def test_names_that_no_file_system_takes_are_names_of_nothing(command: str) -> None:
    done = inside(command, "a" * 300)
    assert done.code in (1, 3) and "no such" in done.err and "internal" not in done.err
