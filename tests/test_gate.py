"""The Python API."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from streamgate import Gate
from streamgate.errors import SourceError, UsageError, WeightsError
from streamgate.frames import Frame
from streamgate.sources.discovery import SourceSpec
from streamgate.sources.file import VideoFile
from support.media import astronaut, astronaut_frames, plain_frames, write_clip
from support.real_weights import standard_models


@pytest.fixture(scope="module")
def gate():
    with Gate(models=str(standard_models()), device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = astronaut_frames(30, (640, 480), step=1.0, zoom=1.6)
    return write_clip(
        tmp_path_factory.mktemp("clips") / "twice.mp4", [*frames, *plain_frames(50, (640, 480)), *frames]
    )


def test_run_yields_a_shot_a_track(gate: Gate, clip: Path) -> None:
    shots = list(gate.run(clip))
    assert [shot.track.track_id for shot in shots] == [1, 2]
    for shot in shots:
        assert shot.image.dtype == np.uint8 and shot.image.shape == (512, 512, 3)
        assert shot.gate.passed and shot.quality is not None
        assert shot.track.first_pts <= shot.pts_seconds <= shot.track.last_pts


def test_run_yields_a_track_as_soon_as_it_ends(gate: Gate, clip: Path) -> None:
    shots = gate.run(clip)
    assert next(shots).track.track_id == 1
    shots.close()


def test_run_takes_several_and_reports_what_failed_after_the_others(gate: Gate, clip: Path) -> None:
    found = []
    with pytest.raises(SourceError, match=r"missing\.mp4"):
        for shot in gate.run([clip.with_name("missing.mp4"), clip]):
            found.append(shot)
    assert len(found) == 2


def test_score_gives_the_faces_of_a_picture(gate: Gate) -> None:
    (face,) = gate.score(astronaut())
    assert face.quality is not None and face.embedding is not None and face.embedding.shape == (128,)
    assert abs(face.face.landmarks[2] - [226, 131]).max() < 12


def test_score_finds_a_face_that_fills_the_picture_and_several(gate: Gate) -> None:
    close = astronaut()[40:190, 150:290]
    assert len(gate.score(np.ascontiguousarray(close))) == 1
    image = astronaut()
    assert len(gate.score(np.hstack([image, image[:, ::-1]]))) == 2


def test_mirroring_negates_yaw_and_roll(gate: Gate) -> None:
    image = astronaut()
    (face,) = gate.score(image)
    (mirrored,) = gate.score(np.ascontiguousarray(image[:, ::-1]))
    assert face.pose.yaw == pytest.approx(-mirrored.pose.yaw, abs=6)
    assert face.pose.roll == pytest.approx(-mirrored.pose.roll, abs=4)
    assert face.pose.pitch == pytest.approx(mirrored.pose.pitch, abs=6)


@pytest.mark.parametrize(
    "wrong", [np.zeros((10, 10), np.uint8), np.zeros((10, 10, 3), np.float32), np.zeros((10, 10, 4), np.uint8)]
)
def test_score_refuses_what_is_no_rgb_picture(gate: Gate, wrong: np.ndarray) -> None:
    with pytest.raises(UsageError, match="RGB"):
        gate.score(wrong)


def test_opening_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="studio"):
        Gate("stduio")
    with pytest.raises(WeightsError, match="no weights in this folder"):
        Gate(models=str(tmp_path))


def test_sampled_serfiq_agrees_with_the_closed_form() -> None:
    with Gate(
        models=str(standard_models()), settings=["serfiq.method=sampled", "serfiq.samples=500"]
    ) as sampled:
        (one,) = sampled.score(astronaut())
    with Gate(models=str(standard_models())) as closed:
        (other,) = closed.score(astronaut())
    assert one.measures["serfiq"].raw != other.measures["serfiq"].raw
    assert one.measures["serfiq"].raw == pytest.approx(other.measures["serfiq"].raw, abs=0.006)


def test_an_input_that_cannot_be_opened_in_time_is_given_up_and_the_others_are_read(
    gate: Gate, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, whole = threading.Event(), SourceSpec.open

    def hang(spec: SourceSpec, **more: object) -> object:
        if spec.location.endswith("hangs.mp4"):
            go.wait(60)
        return whole(spec, **more)

    hanging = clip.with_name("hangs.mp4")
    hanging.write_bytes(clip.read_bytes())
    monkeypatch.setattr(SourceSpec, "open", hang)
    monkeypatch.setattr("streamgate.gate.MARGIN_S", 0.0)
    monkeypatch.setenv("STREAMGATE_STALL_S", "5")
    shots = []
    with pytest.raises(SourceError, match=r"hangs\.mp4: could not be opened within 5 s"):
        for shot in gate.run([hanging, clip]):
            shots.append(shot)
    assert len(shots) == 2
    go.set()


def test_frames_that_stop_coming_end_a_run_with_what_was_found(
    gate: Gate, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, whole = threading.Event(), VideoFile.frames

    def frames(video: VideoFile, hints: object = None) -> Iterator[Frame]:
        for number, frame in enumerate(whole(video)):
            if number == 40:
                go.wait(60)
            yield frame

    monkeypatch.setattr(VideoFile, "frames", frames)
    monkeypatch.setattr("streamgate.runtime.pipeline.MARGIN_S", 0.0)
    monkeypatch.setenv("STREAMGATE_STALL_S", "5")
    # The first track was whole by then.
    with pytest.warns(UserWarning, match=r"twice\.mp4: no frame arrived for 5 s"):
        assert [shot.track.track_id for shot in gate.run(clip)] == [1]
    go.set()
