"""Decoding on a GPU, which is a decoder of the CPU that gives what one on a GPU gives."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.errors import DeviceError
from streamgate.frames import Frame
from streamgate.sources import container, file_reader, hardware, live
from streamgate.sources.file import VideoFile
from streamgate.sources.live import LiveConnection, LiveError
from support.media import astronaut_frames, write_clip
from support.simulated_gpu import GpuDecoder, decoder

GPU = "cuda:0"


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that FFmpeg can open."""
    monkeypatch.setattr(hardware, "_missing", lambda: None)
    for module in (container, hardware, live):
        monkeypatch.setattr(module, "accelerator", lambda decode: None)
    monkeypatch.setattr(file_reader, "decoder", decoder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    return write_clip(path, astronaut_frames(40, (320, 240), step=1.0), options={"g": "10"})


def read(path: Path, decode: str = GPU) -> tuple[list[Frame], str]:
    with VideoFile(path, decode=decode) as source:
        return list(source.frames()), source.stats.not_on_gpu


@pytest.mark.parametrize(
    "told",
    [{}, {"rotation": 90}, {"full_range": True}, {"interlaced": True}, {"pix_fmt": "yuv420p10le"}],
    ids=["plain", "turned", "full range", "interlaced", "10 bits"],
)
def test_frames_are_those_of_the_cpu(card: None, tmp_path: Path, told: dict[str, Any]) -> None:
    path = write_clip(tmp_path / "clip.mp4", astronaut_frames(20, (320, 240), step=1.0), **told)
    ours, fallen = read(path)
    theirs, _ = read(path, "cpu")
    assert not fallen and len(ours) == len(theirs) == 20
    for one, other in zip(ours, theirs, strict=True):
        assert (one.pts_seconds, one.frame_index) == (other.pts_seconds, other.frame_index)
    for one, other in ((ours[3], theirs[3]), (ours[-1], theirs[-1])):
        assert np.abs(one.thumbnail(320).astype(int) - other.thumbnail(320)).mean() < 1
        assert np.abs(one.luma().astype(int) - other.luma()).max() <= 1


def test_pictures_that_change_to_what_the_card_does_not_decode_are_reported(
    card: None, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = GpuDecoder.decode
    count = iter(range(1000))

    def falling(self: GpuDecoder, packet: Any = None) -> list[Any]:
        if next(count) == 20:
            vars(self)["pix_fmt"] = "yuv420p"
        return decode(self, packet)

    monkeypatch.setattr(GpuDecoder, "decode", falling)
    frames, fallen = read(clip)
    assert len(frames) == 40 and fallen == "h264"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """From the 20th packet on the card raises errors."""
    decode = GpuDecoder.decode
    count = iter(range(1000))

    def lost(self: GpuDecoder, packet: Any = None) -> list[Any]:
        if next(count) >= 20:
            raise av.error.ExternalError(-542398533, "Generic error in an external library")
        return decode(self, packet)

    monkeypatch.setattr(GpuDecoder, "decode", lost)
    yield


def test_a_card_that_is_lost_while_it_decodes_ends_the_run_instead_of_the_file(
    card: None, failing: None, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VideoFile(clip, decode=GPU) as source:
        asked = []

        def gone(decode: str) -> None:
            asked.append(decode)
            raise hardware.no_gpu(decode)

        monkeypatch.setattr(hardware, "check_decoder", gone)
        with pytest.raises(DeviceError, match="lost") as caught:
            list(source.frames())
    assert caught.value.exit_code == 6 and asked == [GPU]


def test_errors_of_a_card_that_is_there_are_damage_of_the_file(
    card: None, failing: None, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hardware, "check_decoder", asked.append)
    with VideoFile(clip, decode=GPU) as source:
        frames = list(source.frames())
        assert 0 < len(frames) < 40 and source.stats.decode_errors >= 20
    assert asked == [GPU], "once for a row of errors"


def test_a_stream_whose_card_is_lost_does_not_blame_the_camera(
    card: None, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(decode: str) -> None:
        if decode != "cpu":
            raise hardware.no_gpu(decode)

    monkeypatch.setattr(hardware, "check_decoder", gone)
    monkeypatch.setattr(live, "check_decoder", gone)
    options = load_config("live").live.model_copy(update={"connect_timeout_s": 2.0})
    nobody = "http://127.0.0.1:9/stream"
    with pytest.raises(LiveError):
        LiveConnection(nobody, options)
    with pytest.raises(DeviceError):
        LiveConnection(nobody, options, GPU)
    with LiveConnection(f"file://{clip}", options, GPU) as connection:
        frames = connection.frames()
        next(frames)

        def failing(packet: Any) -> list[Any]:
            raise av.error.ExternalError(-542398533, "Generic error in an external library")

        class Failing:
            """Its decoder, whose card is lost."""

            codec_context = type("Context", (), {"decode": staticmethod(failing), "width": 320})

        connection._stream = Failing  # type: ignore[assignment]
        with pytest.raises(DeviceError):
            list(frames)


def test_what_is_missing_for_decoding_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "COPIES_FRAMES_WHOLE", False)
    with pytest.raises(DeviceError, match="needs PyAV 18 or later"):
        hardware.check_decoder(GPU)
    monkeypatch.setattr(hardware, "COPIES_FRAMES_WHOLE", True)

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(DeviceError, match="NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"):
        hardware.check_decoder(GPU)
    hardware.check_decoder("cpu")


@pytest.mark.parametrize("rotation", [0, 90])
def test_av1_gets_the_decoder_that_knows_gpus_unless_its_container_turns_it(
    rotation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder made here is not told what the container says."""
    frames = astronaut_frames(6, (320, 240))
    path = write_clip(tmp_path / "a.mp4", frames, codec="libsvtav1", rotation=rotation)
    monkeypatch.setattr(hardware, "accelerator", lambda decode: None)

    def opened() -> Any:
        return container.open_video(path, "a.mp4", 1)

    (file, stream), (other, beside) = opened(), opened()
    with file, other:
        assert hardware.decoder(stream, "cpu", lambda: beside) is stream.codec_context
        found = hardware.decoder(stream, GPU, lambda: beside)
        if stream.codec_context.name == "av1":
            pytest.skip("this version of FFmpeg already prefers its own AV1 decoder")
        assert found.name == ("av1" if rotation == 0 else "libdav1d")
        assert rotation or (found.extradata == stream.codec_context.extradata and found.options["max_pixels"])
    theirs, _ = read(path, "cpu")
    monkeypatch.setattr(container, "accelerator", lambda decode: None)
    ours, fallen = read(path)
    assert fallen == "av1" and len(ours) == len(theirs) == 6 and ours[0].width == theirs[0].width


@pytest.mark.parametrize("codec", ["h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "vc1"])
def test_ffmpeg_has_a_decoder_for_gpus_of_each_codec_that_is_promised(codec: str) -> None:
    configs = av.Codec(codec, "r").hardware_configs
    assert any(one.is_supported and one.device_type.name == "cuda" for one in configs)
