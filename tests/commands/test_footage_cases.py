"""Footage that once went wrong, through the commands; skips where ../shared/cases is missing."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from streamgate.sources import open_source
from streamgate.sources.combing import combed
from support.command import lines, streamgate
from support.media import write_clip

Case = Callable[[str], Path]


def run(out: Path, *inputs: object) -> dict[str, Any]:
    """`streamgate run` into `out`; its summary."""
    done = streamgate("run", *inputs, "-o", out, "--quiet")
    assert done.code == 0, done.err
    return json.loads((out / "summary.json").read_text())


def candidates(out: Path, source: dict[str, Any]) -> list[dict[str, Any]]:
    with gzip.open(out / source["source_id"] / "candidates.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def test_after_packet_loss_a_face_from_before_it_is_kept(shared_case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (source,) = run(out, shared_case("packet_loss.ts"))["sources"]
    (face,) = lines(out / "faces.jsonl")
    assert face["pts_seconds"] < 1.41 + 23 / 30
    torn = [one for one in candidates(out, source) if one["gate"]["reasons"] == ["corrupt"]]
    assert len(torn) == source["rejected"]["corrupt"] > 25
    assert all(one["pts_seconds"] > 2.0 and one["quality"] is None for one in torn)


def test_of_combed_footage_a_clean_face_is_kept(shared_case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (source,) = run(out, shared_case("combed_unflagged.mp4"))["sources"]
    (face,) = lines(out / "faces.jsonl")
    assert any("deinterlaced" in note for note in source["notes"]) and face["gate"]["passed"]
    luma = cv2.cvtColor(cv2.imread(str(out / face["image"])), cv2.COLOR_BGR2GRAY)
    assert combed(luma).mean() < 1e-4


def test_of_a_drawn_film_no_face_is_kept(shared_case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (source,) = run(out, shared_case("fate_dash_video1_bunny.mp4"))["sources"]
    assert source["tracks"] and lines(out / "faces.jsonl") == []


def test_a_banner_over_the_mouth_covers_the_face(shared_case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (source,) = run(out, shared_case("banner_over_mouth.mp4"))["sources"]
    assert lines(out / "faces.jsonl") == []
    seen = candidates(out, source)
    assert len(seen) > 3 and all("occluded" in one["gate"]["reasons"] for one in seen)


def test_an_encrypted_file_says_so_and_skipped_files_are_named(shared_case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "card"
    folder.mkdir()
    (folder / "film.mp4").symlink_to(shared_case("encrypted_cenc.mp4"))
    (folder / "notes.txt").touch()
    done = streamgate("run", folder, "-o", tmp_path / "out")
    assert done.code == 3 and "the video is encrypted" in done.err
    assert "skipped 1 file(s) that are neither videos nor pictures (1 .txt)" in done.err


def test_of_a_stereo_pair_one_man_is_one_person(shared_case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run(out, shared_case("sbs3d.mkv"))
    assert summary["totals"]["persons"] == summary["totals"]["tracks"] == 1


@pytest.mark.parametrize("mirrored", [False, True])
def test_one_person_in_two_tiles_is_two_tracks_of_one_person(mirrored: bool, shared_clip: Case, tmp_path: Path) -> None:
    """Neither takes the other for a duplicate or a picture."""
    with open_source(shared_clip("podium_man.mp4")) as source:
        left = [frame.thumbnail(640) for frame, _ in zip(source.frames(), range(75), strict=False)]
    clip = tmp_path / "tiles.mp4"
    write_clip(clip, [np.hstack([one, one[:, ::-1] if mirrored else one]) for one in left], fps=30)
    out = tmp_path / "out"
    done = streamgate("run", clip, "-o", out, "--quiet", "--set", "keep.expression=any")
    assert done.code == 0, done.err
    faces = lines(out / "faces.jsonl")
    assert [face["track_id"] for face in faces] == [1, 2] and not any(face["still"] for face in faces)
    assert [face["person_id"] for face in faces] == ["p0001", "p0001"]


def test_a_portrait_on_the_wall_is_marked_and_not_kept_and_tune_says_the_same(
    shared_case: Case, tmp_path: Path
) -> None:
    clip = shared_case("poster_on_wall.mp4")
    summary = run(tmp_path / "out", clip)
    source = tmp_path / "out" / summary["sources"][0]["source_id"]
    tracks = lines(source / "tracks.jsonl")
    still, moving = sorted(tracks, key=lambda one: not one["still"])
    assert (still["still"], still["kept"], still["reasons"]) == (True, 0, ["still"])
    assert (moving["still"], moving["kept"]) == (False, 1)
    (face,) = lines(tmp_path / "out" / "faces.jsonl")
    assert face["track_id"] == moving["track_id"] and face["still"] is False

    done = streamgate("run", clip, "-o", tmp_path / "all", "--quiet", "--set", "keep.stills=true")
    assert done.code == 0, done.err
    assert sorted(one["still"] for one in lines(tmp_path / "all" / "faces.jsonl")) == [False, True]
    for folder, value in (("all", "false"), ("out", "true")):
        done = streamgate("tune", tmp_path / folder, "--set", f"keep.stills={value}")
        assert done.code == 0, done.err
    assert lines(tmp_path / "all" / source.name / "tracks.jsonl") == tracks
    # Persons keep their numbers.
    (left,) = lines(tmp_path / "all" / "faces.jsonl")
    assert {**left, "person_id": face["person_id"]} == face
    # What a run left out, tune fetches from the footage.
    assert sorted(one["still"] for one in lines(tmp_path / "out" / "faces.jsonl")) == [False, True]


@pytest.mark.parametrize("name, at_least", [
    ("nokey_tune_clips.ts", 1), ("joined_tune_clips.ts", 3), ("editlist_trim_copy.mp4", 1), ("nopts_bframes.avi", 1),
])  # fmt: skip
def test_what_run_reads_tune_and_clips_read(name: str, at_least: int, shared_case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, shared_case(name), "--crop", "loose")
    faces = lines(out / "faces.jsonl")
    assert len(faces) >= at_least and all("loose" in face["crops"] for face in faces)
    tuned = streamgate("tune", out, "--top-k", 3, "--set", "keep.min_gap_seconds=0.2", "--set",
                       "keep.duplicate_cosine=1.5")  # fmt: skip
    assert tuned.code == 0, tuned.err
    assert len(lines(out / "faces.jsonl")) > len(faces) and "scored in the footage" in tuned.out
    cut = streamgate("clips", out, "--seconds", 0.4)
    assert cut.code == 0, cut.err
    clips = lines(out / "clips" / "clips.jsonl")
    assert len(clips) >= at_least
    for clip in clips:
        with open_source(out / "clips" / clip["clip"]) as source:
            assert sum(1 for _ in source.frames()) == clip["frames"] > 5


def test_footage_on_its_side_is_turned_for_every_command(shared_case: Case, tmp_path: Path) -> None:
    out, clip = tmp_path / "out", shared_case("sideways_90.mp4")
    (source,) = run(out, clip, "--crop", "frame")["sources"]
    assert source["turned"] == 270 and (source["width"], source["height"]) == (960, 540)
    assert json.loads((out / source["source_id"] / "source.json").read_text())["turned"] == 270
    (face,) = lines(out / "faces.jsonl")
    assert face["crops"]["frame"]["size"] == [960, 540] and abs(face["pose"]["roll"]) < 15
    again = streamgate("run", clip, "-o", out, "--crop", "frame", "--resume")
    assert again.code == 0 and "already done" in again.err
    tuned = streamgate("tune", out, "--top-k", 3, "--set", "keep.min_gap_seconds=0.2", "--set",
                       "keep.duplicate_cosine=1.5")  # fmt: skip
    assert tuned.code == 0, tuned.err
    faces = lines(out / "faces.jsonl")
    assert len(faces) > 1 and all(one["crops"]["frame"]["size"] == [960, 540] for one in faces)
    cut = streamgate("clips", out, "--seconds", 0.4)
    assert cut.code == 0, cut.err
    (written,) = lines(out / "clips" / "clips.jsonl")
    with open_source(out / "clips" / written["clip"]) as shown:
        assert (shown.width, shown.height) == (960, 540)


def tracks(out: Path, source: dict[str, Any]) -> list[dict[str, Any]]:
    return lines(out / source["source_id"] / "tracks.jsonl")


def test_two_people_who_dissolve_into_each_other_are_two_tracks(shared_case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (source,) = run(out, shared_case("diss_0.6.mp4"), "--set", "keep.expression=any", "--set", "measures.edge.min=0.5")[
        "sources"
    ]
    first, second = tracks(out, source)
    assert first["last_pts"] < 2.8 and second["first_pts"] > 2.6
    between = [one for one in candidates(out, source) if one["gate"]["reasons"] == ["transition"]]
    assert between and all(2.0 <= one["pts_seconds"] <= 2.75 and one["quality"] is None for one in between)
    kept = [face["pts_seconds"] for face in lines(out / "faces.jsonl")]
    assert len(kept) == 2 and kept[0] < 2.05 and kept[1] > 2.65
    assert len({face["person_id"] for face in lines(out / "faces.jsonl")}) == 2


def test_flashes_end_no_track(shared_case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (source,) = run(out, shared_case("flash.mp4"))["sources"]
    (track,) = tracks(out, source)
    assert track["kept"] == 1 and track["last_pts"] > 4.0


def test_a_tile_that_shows_somebody_else_begins_a_new_track(shared_case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lenient = ["keep.expression=any", "measures.edge.min=0.5", "measures.eyes.min=0"]
    settings = [word for setting in lenient for word in ("--set", setting)]
    (source,) = run(out, shared_case("tile_switch.mp4"), *settings)["sources"]
    stays, before, after = sorted(tracks(out, source), key=lambda track: (track["first_pts"], -track["last_pts"]))
    assert stays["first_pts"] < 0.1 and stays["last_pts"] > 4.5
    assert before["last_pts"] == pytest.approx(2.48, abs=0.05) and after["first_pts"] == pytest.approx(2.52, abs=0.05)
    faces = lines(out / "faces.jsonl")
    assert len(faces) == len({face["person_id"] for face in faces}) == 3


def test_split_tracks_are_the_same_for_any_jobs(shared_case: Case, tmp_path: Path) -> None:
    cases = [shared_case(name) for name in ("diss_0.6.mp4", "tile_switch.mp4", "flash.mp4")]
    one, two = tmp_path / "one", tmp_path / "two"
    sources = run(one, *cases, "--jobs", "1")["sources"]
    run(two, *cases, "--jobs", "3")
    for source in sources:
        assert candidates(one, source) == candidates(two, source) and tracks(one, source) == tracks(two, source)
    assert lines(one / "faces.jsonl") == lines(two / "faces.jsonl")
