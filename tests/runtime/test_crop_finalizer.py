"""Pictures from the whole frame, looked up again in the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.frames import BestShot, Face, Frame, GateResult, TrackEnd, TrackInfo
from streamgate.networks.alignment import ffhq_matrix
from streamgate.runtime.crop_finalizer import CropFinalizer, loose_box
from streamgate.scoring.context import ScoringContext
from streamgate.sources import open_source
from support.evaluators import evaluator
from support.media import astronaut_frames, write_clip

TRACK = TrackInfo(1, 0.0, 2.0, 50, 5)
LANDMARKS = np.array([[120, 60], [160, 60], [140, 82], [124, 102], [156, 102]], np.float32)
FACE = Face(np.array([100, 40, 180, 120], np.float32), LANDMARKS, 0.9)


def no_networks(requests: Any) -> list[Any]:
    raise AssertionError("no network is needed")


def context(*settings: str) -> ScoringContext:
    return ScoringContext(load_config("studio", ["output.size=128", *settings]), evaluator(), no_networks)


def shot_of(frame: Frame) -> BestShot:
    image = frame.warp(ffhq_matrix(LANDMARKS, 128), 128, fine=True)
    return BestShot(
        image, "clip", "clip-1", TRACK, 1, frame.pts_seconds, FACE, None, {}, 50.0, 50.0, 50.0, "cal", GateResult(True)
    )


def ended(*shots: BestShot) -> TrackEnd:
    return TrackEnd(TRACK, shots, {}, (), "clip-1")


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".ts", ".mkv", ".gif"])
def test_the_whole_frame_is_the_one_the_face_was_kept_from(suffix: str, tmp_path: Path) -> None:
    codecs = {".avi": ("mpeg4", "yuv420p"), ".gif": ("gif", "rgb8")}
    codec, pix_fmt = codecs.get(suffix, ("libx264", "yuv420p"))
    clip = write_clip(
        tmp_path / f"clip{suffix}", astronaut_frames(60, (320, 240)), codec=codec, pix_fmt=pix_fmt, options={"g": "12"}
    )
    with open_source(str(clip)) as source:
        wanted = (0, 11, 30, 59)
        shots, whole = [], []
        for index, frame in enumerate(source.frames()):
            if index in wanted:
                shots.append(shot_of(frame))
                whole.append(frame.warp(np.eye(2, 3), (320, 240)))
        finalizer = CropFinalizer(context('output.crops=["loose", "frame"]'), source)
        finished = finalizer.finish(ended(*shots))
    assert finalizer.missed == 0
    for shot, picture in zip(finished.shots, whole, strict=True):
        assert list(shot.crops) == ["loose", "frame"]
        assert np.abs(shot.crops["frame"].image.astype(int) - picture).mean() < 1.0
        left, top, right, bottom = shot.crops["loose"].box
        assert (left, top, right, bottom) == (60, 0, 220, 160)
        assert np.abs(shot.crops["loose"].image.astype(int) - picture[top:bottom, left:right]).mean() < 1.0


def test_a_frame_that_is_not_there_any_more_costs_only_its_pictures(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", astronaut_frames(30, (320, 240)))
    with open_source(str(clip)) as source:
        shots = [shot_of(frame) for frame in source.frames()][10:11]
        write_clip(clip, [np.full((240, 320, 3), 40, np.uint8)] * 30)
        finalizer = CropFinalizer(context('output.crops=["frame"]'), source)
        (shot,) = finalizer.finish(ended(*shots)).shots
    assert finalizer.missed == 1 and shot.crops == {} and shot.image is shots[0].image


def test_the_loose_box_is_cut_at_the_frames_edges() -> None:
    box = np.array([10, 20, 30, 60], np.float32)
    face = Face(box, LANDMARKS, 0.9)
    assert loose_box(face, 0.5, 1000, 1000) == (0, 0, 60, 80)
    assert loose_box(face, 0.0, 1000, 1000) == (0, 20, 40, 60)
    beside = Face(box - 500, LANDMARKS, 0.9)
    left, top, right, bottom = loose_box(beside, 0.5, 100, 100)
    assert 0 <= left < right <= 100 and 0 <= top < bottom <= 100


def test_quality_is_that_of_the_configuration(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", astronaut_frames(5, (320, 240)))
    with open_source(str(clip)) as source:
        shots = [shot_of(frame) for frame in source.frames()][:1]
        made = context("output.format=webp", "output.quality=70")
        (shot,) = CropFinalizer(made, source).finish(ended(*shots)).shots
    assert (shot.encoding.format, shot.encoding.quality, shot.encoding.suffix) == ("webp", 70, "webp")
