"""What `serve` is asked for: flags, the file, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamgate.errors import UsageError
from streamgate.service.settings import ServiceTable, Settings, read_settings

FILE = """
[service]
redis = "redis://ann:pw12345@localhost:6379/0"
max_gb = 1.5
set = { "measures.yaw.max" = 40, "live.stall_s" = 2 }

[streams.door]
url = "rtsp://ann:pw12345@10.0.0.1/1"

[streams.hall]
url = "rtsp://10.0.0.2/1"
[streams.hall.set]
measures.size = { min = 80, x0 = 60, w = 10 }
"""


def read(tmp_path: Path, text: str = FILE, **request: object) -> Settings:
    path = tmp_path / "streams.toml"
    path.write_text(text)
    return read_settings(config_file=path, **request)  # type: ignore[arg-type]


def test_a_stream_has_the_services_settings_and_its_own(tmp_path: Path):
    settings = read(tmp_path)
    door, hall = settings.streams
    assert (door.name, hall.name) == ("door", "hall")
    assert door.config.measures.yaw.max == hall.config.measures.yaw.max == 40
    assert (door.config.measures.size.min, hall.config.measures.size.min) == (48, 80)
    assert hall.config.measures.size.x0 == 60 and door.config.keep.fallback == "best"
    assert settings.max_bytes == 1_500_000_000 and settings.out is None


def test_flags_win_over_the_file_and_add_streams(tmp_path: Path):
    settings = read(
        tmp_path,
        rtsp=("gate=rtsp://10.0.0.3/1", "rtsp://10.0.0.3:8554/2", "rtsp://10.0.0.3/3"),
        table=ServiceTable(max_gb=2.0, out="faces"),
        settings=("measures.yaw.max=20",),
    )
    assert [spec.name for spec in settings.streams] == ["door", "hall", "gate", "10.0.0.3", "10.0.0.3-2"]
    assert all(spec.config.measures.yaw.max == 20 for spec in settings.streams)
    assert settings.max_bytes == 2_000_000_000
    assert settings.spool == Path("faces/.streamgate/spool")


def test_unchanged_streams_compare_equal_and_changed_ones_do_not(tmp_path: Path):
    before = {spec.name: spec for spec in read(tmp_path).streams}
    after = {spec.name: spec for spec in read(tmp_path, FILE.replace("min = 80", "min = 81")).streams}
    assert before["door"] == after["door"] and before["hall"] != after["hall"]
    moved = {spec.name: spec for spec in read(tmp_path, FILE.replace("10.0.0.1", "10.0.0.9")).streams}
    assert before["door"] != moved["door"]


def test_a_stream_shows_no_secret_of_its_address(tmp_path: Path):
    door = read(tmp_path).streams[0]
    assert "pw12345" in door.url
    assert "pw12345" not in f"{door!r} {door.location}" and "ann" not in door.location


def test_without_a_destination_faces_go_to_a_folder():
    settings = read_settings(rtsp=("rtsp://10.0.0.3/1",))
    assert settings.out == Path("streamgate-live")


def test_a_file_is_a_stream(tmp_path: Path):
    (spec,) = read_settings(rtsp=(str(tmp_path / "a clip.mp4"),)).streams
    assert spec.url == f"file://{tmp_path}/a clip.mp4" and spec.name == "a-clip"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[streams.a\n", "not valid TOML"),
        ("[stream.a]\nurl = 'rtsp://h/1'\n", "did you mean [streams]"),
        ("[streams.a]\nuri = 'rtsp://ann:pw12345@h/1'\n", "there is no such key"),
        ("[streams.a]\nurl = 5\n", "url"),
        ("[streams.a]\nurl = 'ftp://ann:pw12345@h/1'\n", "not a supported stream URL"),
        ("[streams.'a b']\nurl = 'rtsp://h/1'\n", "letters"),
        ("[streams.a]\nurl = 'rtsp://h/1'\nset = { 'measures.yaw.mox' = 3 }\n", "did you mean measures.yaw.max"),
        ("[streams.a]\nurl = 'rtsp://h/1'\nset = { 'measures.yaw.max' = 300 }\n", "measures.yaw.max"),
        ("[service]\nmax_gb = 0\n", "max_gb"),
        ("[service]\nspool_mb = 'many'\n", "spool_mb"),
        ("streams = 3\n", "tables"),
        ("[streams]\na = 'rtsp://h/1'\n", "tables"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_secrets(tmp_path: Path, text: str, said: str):
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert said in message and "\n" not in message
    assert "pw12345" not in message and "ann:" not in message
