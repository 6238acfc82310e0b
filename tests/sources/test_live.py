"""One connection to a real RTSP server on the loopback, or to a file played as a camera."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.config_sections import LiveConfig
from streamgate.errors import UsageError
from streamgate.sources.file import VideoFile
from streamgate.sources.live import FailureKind, LiveConnection, LiveError, check_address
from streamgate.sources.pyav import TAKES_STREAM_OPTIONS
from support.hostile import Hostile
from support.hostile_giants import GIANTS
from support.hostile_videos import TINY_INTERLACED
from support.media import astronaut_frames, write_clip
from support.rtsp_server import CameraProcess, cameras, free_port

SECRETS = ("ann", "pw12345")


def options(**changes: object) -> LiveConfig:
    quick = {"connect_timeout_s": 10.0, "read_timeout_s": 2.0}
    return load_config("live").live.model_copy(update={**quick, **changes})


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    small = write_clip(folder / "small.mp4", astronaut_frames(30, (320, 240)), options={"g": "15"})
    large = write_clip(folder / "large.mp4", astronaut_frames(30, (640, 360)), options={"g": "15"})
    return [small, large]


@pytest.fixture(scope="module")
def camera(clips: list[Path]) -> Iterator[CameraProcess]:
    with cameras() as start:
        yield start(*clips)


def test_frames_come_with_times_from_zero_and_the_moment_of_arrival(camera: CameraProcess):
    with LiveConnection(camera.url(), options()) as connection:
        got = []
        for frame, arrived in islice(connection.frames(), 12):
            got.append((frame.pts_seconds, arrived, frame.captured_at, frame.frame_index))
            size = frame.width, frame.height
    times = [one[0] for one in got]
    assert times[0] == 0.0 and size == (320, 240)
    # Over RTSP the first time stamps are often missing; from then on the camera's count.
    assert all(after - before == pytest.approx(0.04, abs=0.002) for before, after in pairwise(times[4:]))
    assert [one[3] for one in got] == list(range(12))
    assert all(before[1] <= after[1] and before[2] <= after[2] for before, after in pairwise(got))


def test_a_camera_that_speaks_tls(clips: list[Path], tmp_path: Path):
    trustme = pytest.importorskip("trustme", reason="trustme makes the certificates")
    certificate = tmp_path / "camera.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    secured = ("--user", SECRETS[0], "--password", SECRETS[1], "--certificate", str(certificate))
    with cameras() as start:
        camera = start(*clips, options=secured)
        assert camera.url().startswith("rtsps://")
        with LiveConnection(camera.url(credentials=":".join(SECRETS) + "@"), options()) as connection:
            assert len(list(islice(connection.frames(), 12))) == 12
        with pytest.raises(LiveError) as caught, LiveConnection(camera.url(), options()):
            pass
        assert caught.value.kind is FailureKind.REFUSED


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("closed", FailureKind.REFUSED, "refuses the user name or password"),
        ("forbidden", FailureKind.REFUSED, "is not allowed to view"),
        ("missing", FailureKind.MISSING, "no such stream"),
        ("garbage", FailureKind.UNREADABLE, "not a video stream"),
        ("mute", FailureKind.SILENT, "no data for"),
        ("once", FailureKind.ENDED, "closed the connection"),
    ],
)
def test_troubles_are_told_apart_without_secrets(camera: CameraProcess, path: str, kind: FailureKind, text: str):
    with pytest.raises(LiveError, match=text) as caught:
        quick = options(connect_timeout_s=2.0 if path == "mute" else 10.0)
        with LiveConnection(camera.url(path, "ann:pw12345@"), quick) as connection:
            for _ in connection.frames():
                pass
    assert caught.value.kind is kind
    assert not any(secret in str(caught.value) for secret in SECRETS)


def test_user_and_password_open_the_camera(start_camera: Callable[..., CameraProcess], clips: list[Path]):
    camera = start_camera(*clips, options=("--user", "ann", "--password", "pw12345"))
    with LiveConnection(camera.url(credentials="ann:pw12345@"), options()) as connection:
        assert next(iter(connection.frames()))[0].width == 320
    with pytest.raises(LiveError) as caught:
        LiveConnection(camera.url(credentials="ann:wrongpw@"), options())
    assert caught.value.kind is FailureKind.REFUSED and "wrongpw" not in str(caught.value)


def test_nobody_there_is_unreachable():
    with pytest.raises(LiveError, match="connection refused") as caught:
        LiveConnection(f"rtsp://127.0.0.1:{free_port()}/stream", options())
    assert caught.value.kind is FailureKind.UNREACHABLE


def test_another_resolution_goes_on_in_the_same_connection(camera: CameraProcess):
    sizes, times = [], []
    with LiveConnection(camera.url("change"), options()) as connection:
        for frame, _ in islice(connection.frames(), 70):
            sizes.append((frame.width, frame.height))
            times.append(frame.pts_seconds)
            pixels = frame.luma()
            assert pixels.shape == sizes[-1][::-1]
    assert {(320, 240), (640, 360)} <= set(sizes)
    assert times == sorted(set(times))


def test_a_jumping_clock_does_not_reach_the_frames(camera: CameraProcess):
    with LiveConnection(camera.url("jump"), options()) as connection:
        times = [frame.pts_seconds for frame, _ in islice(connection.frames(), 75)]
    assert times == sorted(set(times))
    assert times[-1] < 600, "the camera's leap of an hour came through"


def test_a_file_plays_at_its_own_pace_and_its_end_is_a_disconnect(clips: list[Path]):
    url = check_address(str(clips[0]))
    began = time.monotonic()
    pixels = []
    with pytest.raises(LiveError) as caught, LiveConnection(url, options()) as connection:
        for frame, _ in connection.frames():
            pixels.append(frame.luma(np.array([0, 0, 16, 16])).copy())
    assert caught.value.kind is FailureKind.ENDED
    assert time.monotonic() - began >= 29 * 0.04 * 0.95
    with VideoFile(clips[0]) as file:
        expected = [frame.luma(np.array([0, 0, 16, 16])).copy() for frame in file.frames()]
    # The last ones may still be inside the decoder when the file ends.
    assert len(expected) - len(pixels) <= 4
    assert all(np.array_equal(a, b) for a, b in zip(pixels, expected, strict=False))


@pytest.mark.parametrize("url", [
    "ftp://host/x", "rtsp://", "", "rtsp://ann:pw12345@host:port/x", "rtsp://ann:pw12345@h/" + "x" * 5000,
    "rtsp://ann:pw12345@h/\r\nX: y", "a\0b",
])
def test_what_cannot_be_a_stream_is_refused_without_secrets(url: str):
    with pytest.raises(UsageError) as caught:
        check_address(url)
    assert not any(secret in str(caught.value) for secret in SECRETS)


def test_a_reader_that_falls_behind_catches_up_by_key_frames(camera: CameraProcess, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("streamgate.sources.live.LATE_S", 1.0)
    with LiveConnection(camera.url(), options()) as connection:
        delays, began = [], None
        for frame, arrived in islice(connection.frames(), 100):
            time.sleep(0.1)  # a frame comes every 0.04 s, a key frame every 0.6 s
            began = arrived - frame.pts_seconds if began is None else began
            delays.append(arrived - frame.pts_seconds - began)
    assert max(delays) > 0.5, "it never was behind"
    assert connection.left_out > 20
    # Without it the delay would grow by 0.06 s a frame, to 6 s.
    assert max(delays) < 3.0


def test_pictures_come_over_udp_too(camera: CameraProcess):
    with LiveConnection(camera.url(), options(transport="udp")) as connection:
        frames = [(frame.width, frame.pts_seconds) for frame, _ in islice(connection.frames(), 20)]
    assert {width for width, _ in frames} == {320}


def test_pictures_beyond_the_limit_are_refused_at_the_start(camera: CameraProcess):
    with pytest.raises(LiveError, match=r"frames of 320 x 240 px, more than live\.max_pixels") as caught:
        LiveConnection(camera.url(), options(max_pixels=320 * 240 - 1))
    assert caught.value.kind is FailureKind.UNREADABLE


def test_pictures_that_outgrow_the_limit_are_counted_and_the_others_go_on(camera: CameraProcess):
    with LiveConnection(camera.url("change"), options(max_pixels=320 * 240, read_timeout_s=5.0)) as connection:
        sizes, times = set(), []
        for frame, _ in connection.frames():
            sizes.add((frame.width, frame.height))
            times.append(frame.pts_seconds)
            if len(times) == 45:
                break
    # 30 small ones, 30 large ones of which none comes, small ones again.
    assert sizes == {(320, 240)} and connection.stats.decode_errors >= 25


def test_noise_on_the_line_is_counted_and_pictures_go_on(camera: CameraProcess):
    with LiveConnection(camera.url("noise"), options(read_timeout_s=8.0)) as connection:
        for frame, _ in islice(connection.frames(), 40):
            frame.luma()
        assert connection.stats.decode_errors > 0


def test_rubbish_for_pictures_is_a_stream_that_cannot_be_read(camera: CameraProcess):
    with pytest.raises(LiveError), LiveConnection(camera.url("rubbish"), options()) as connection:
        for frame, _ in connection.frames():
            frame.luma()


def test_pictures_that_cannot_be_deinterlaced_are_counted(tmp_path: Path):
    clip = TINY_INTERLACED.put(tmp_path)
    with pytest.raises(LiveError) as caught, LiveConnection(check_address(str(clip)), options()) as connection:
        list(connection.frames())
    assert caught.value.kind is FailureKind.ENDED and connection.stats.decode_errors >= 9


@pytest.mark.parametrize("giant", GIANTS, ids=lambda giant: giant.name)
def test_giant_pictures_cost_no_memory(giant: Hostile, tmp_path: Path):
    if not TAKES_STREAM_OPTIONS:
        pytest.skip("this version of PyAV cannot limit FFmpeg's probing (17 and newer can)")
    path = giant.put(tmp_path)
    script = (
        "import resource, sys\nfrom streamgate.config import load_config\n"
        "from streamgate.sources.live import LiveConnection, LiveError\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\nbefore = used()\ntry:\n"
        f"    next(LiveConnection('file://{path}', load_config('live').live).frames())\n"
        "except LiveError as error:\n    print(used() - before, error.kind, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    mib, kind, words = done.stdout.split(" ", 2)
    assert int(mib) < 150, "the decoder took memory for what is not decoded"
    assert kind in ("unreadable", "ended") and (kind == "ended" or "live.max_pixels" in words)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    handler = partial(QuietHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path, f"http://ann:pw12345@127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


def as_hls(clip: Path, playlist: Path) -> None:
    with av.open(str(clip)) as source, av.open(str(playlist), "w", format="hls", options={"hls_time": "1"}) as made:
        stream = source.streams.video[0]
        copy = made.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                made.mux(packet)


def test_a_playlist_is_watched_at_its_own_pace(clips: list[Path], web: tuple[Path, str]):
    folder, address = web
    as_hls(clips[0], folder / "live.m3u8")
    began = time.monotonic()
    with pytest.raises(LiveError) as caught, LiveConnection(f"{address}/live.m3u8", options()) as connection:
        times = [frame.pts_seconds for frame, _ in connection.frames()]
        assert times
    assert caught.value.kind is FailureKind.ENDED
    assert time.monotonic() - began >= 20 * 0.04, "the playlist came as fast as it could be read"
    with pytest.raises(LiveError) as missing:
        LiveConnection(f"{address}/other.m3u8", options())
    assert missing.value.kind is FailureKind.MISSING and "pw12345" not in str(missing.value)


def test_a_playlist_cannot_name_files_of_this_machine(clips: list[Path], web: tuple[Path, str]):
    folder, address = web
    (folder / "evil.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\nfile://{clips[0]}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(LiveError):  # noqa: SIM117
        with LiveConnection(f"{address}/evil.m3u8", options()) as connection:
            next(iter(connection.frames()))
