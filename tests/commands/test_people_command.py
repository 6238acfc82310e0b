"""`streamgate people`, and the persons that `run` finds, on the networks of the package."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.command import lines, streamgate
from support.media import astronaut_frames, plain_frames, write_clip


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One woman in two clips, one of them with a cut."""
    folder = tmp_path_factory.mktemp("clips")
    one = astronaut_frames(25, (640, 480), step=1.0, zoom=1.6)
    two = astronaut_frames(25, (640, 480), step=-1.0, zoom=1.2)
    write_clip(folder / "a.mp4", [*one, *plain_frames(10, (640, 480)), *two])
    write_clip(folder / "b.mp4", astronaut_frames(25, (480, 360), step=-1.5, zoom=1.5))
    out = folder / "out"
    done = streamgate("run", folder, "-o", out, "--models", "embedded", models=folder / "nothing")
    assert done.code == 0, done.err
    return out


def test_one_person_in_several_shots_and_clips_is_one(result: Path) -> None:
    assert [one["person_id"] for one in lines(result / "faces.jsonl")] == ["p0001"] * 3
    done = streamgate("people", result, "list", "--json")
    (record,) = [json.loads(line) for line in done.out.splitlines()]
    assert (record["tracks"], record["sources"], record["faces"]) == (3, 2, 3)
    assert (result / record["image"]).is_file()
    assert not (result / ".streamgate" / "identity").exists()


def test_people_are_listed_named_split_and_merged(result: Path) -> None:
    first, *_ = lines(result / "faces.jsonl")
    assert streamgate("people", result, "name", "p0001", "Eileen Collins").code == 0
    split = streamgate("people", result, "split", "p0001", f"{first['source_id']}/{first['track_id']}")
    assert (split.code, split.out.strip()) == (0, "p0002")
    assert [one["person_id"] for one in lines(result / "faces.jsonl")] == ["p0002", "p0001", "p0001"]
    listed = streamgate("people", result)
    assert "Eileen Collins" in listed.out and "p0002" in listed.out
    assert streamgate("people", result, "merge", "p0001", "p0002").code == 0
    (record,) = lines(result / "persons.jsonl")
    assert (record["person_id"], record["name"], record["merged"]) == ("p0001", "Eileen Collins", ["p0002"])
    assert streamgate("export", result, "--to", "csv", "--overwrite").code == 0
    with open(result / "exports" / "faces.csv", newline="", encoding="utf-8") as file:
        assert {row["person_name"] for row in csv.DictReader(file)} == {"Eileen Collins"}
    assert streamgate("people", result, "name", "eileen collins", "Eileen M. Collins").code == 0
    (record,) = lines(result / "persons.jsonl")
    assert (record["person_id"], record["name"]) == ("p0001", "Eileen M. Collins")
    wrong = streamgate("people", result, "merge", "p0001", "p0007")
    assert wrong.code == 2 and "p0007" in wrong.err
    assert streamgate("people", result.parent, "merge", "p0001", "p0002").code == 3


def test_the_best_of_each_person_are_counted_apart_from_what_is_kept(result: Path, tmp_path: Path) -> None:
    clips = [result.parent / "a.mp4", result.parent / "b.mp4"]
    done = streamgate("run", *clips, "-o", tmp_path / "out", "--per", "person", models=tmp_path)
    assert done.code == 0, done.err
    assert len(lines(tmp_path / "out" / "faces.jsonl")) == 1
    assert "3 faces kept" in done.err and "faces.jsonl lists the best 1" in done.err


def test_merging_who_was_seen_together_is_done_with_a_warning_that_names_the_way_back(tmp_path: Path) -> None:
    portrait = astronaut_frames(25, (320, 320), step=0.5, zoom=1.0)
    write_clip(tmp_path / "twins.mp4", [np.hstack([one, one[:, ::-1]]) for one in portrait])
    out = tmp_path / "out"
    done = streamgate("run", tmp_path / "twins.mp4", "-o", out, "--min-size", 40, models=tmp_path)
    assert done.code == 0, done.err
    # The same picture twice is one person, until somebody says that it is two.
    assert [one["person_id"] for one in lines(out / "persons.jsonl")] == ["p0001"]
    second = lines(out / "faces.jsonl")[1]
    done = streamgate("people", out, "split", "p0001", f"{second['source_id']}/{second['track_id']}")
    assert done.code == 0, done.err
    assert [one["person_id"] for one in lines(out / "persons.jsonl")] == ["p0001", "p0002"]
    done = streamgate("people", out, "merge", "p0001", "p0002")
    assert done.code == 0 and "seen at the same time" in done.err
    (way_back,) = [line for line in done.err.splitlines() if "split" in line]
    person, track = way_back.rpartition("split ")[2].split()
    assert streamgate("people", out, "split", person, track).code == 0
    assert len(lines(out / "persons.jsonl")) == 2


def test_a_folder_of_another_schema_takes_no_decisions_and_no_exports(result: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(result, tmp_path / "out"))
    manifest = out / ".streamgate" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": 99}))

    def written() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "lock"}

    before = written()
    for command in (["people", out, "name", "p0001", "Somebody"], ["export", out, "--to", "csv"]):
        done = streamgate(*command)
        assert done.code == 3 and "schema 99" in done.err and "use the version that wrote it" in done.err
    assert written() == before


@pytest.mark.parametrize("store", ["session", "disk"])
def test_sources_that_come_later_join_persons_whose_embeddings_are_left(
    result: Path, tmp_path: Path, store: str
) -> None:
    clips, out = [result.parent / "a.mp4", result.parent / "b.mp4"], tmp_path / "out"
    options = ["-o", out, "--resume", "--models", "embedded", "--set", f"identity.store={store}"]
    done = streamgate("run", clips[0], *options, models=tmp_path)
    assert done.code == 0 and "earlier person" not in done.err, done.err
    done = streamgate("run", *clips, *options, models=tmp_path)
    assert done.code == 0, done.err
    found = {one["person_id"] for one in lines(out / "faces.jsonl")}
    if store == "disk":
        assert found == {"p0001"} and "earlier person" not in done.err
    else:
        assert found == {"p0001", "p0002"} and "1 earlier person" in done.err and "identity.store=disk" in done.err
    again = streamgate("run", *clips, *options, models=tmp_path)
    assert again.code == 0 and "earlier person" not in again.err


@pytest.mark.parametrize("tier", ["embedded", "standard"])
def test_the_singer_is_one_across_his_cuts_and_nobody_else_is_merged(
    shared_clip: Callable[[str], Path], tmp_path: Path, tier: str
) -> None:
    if tier == "standard":
        from support.real_weights import standard_models

        models = standard_models()
    else:
        models = tmp_path / "nothing"
    clips = [shared_clip(name) for name in ("ghost_nggyup.mp4", "vretalk_1.mp4")]
    # Who sings has an open mouth, and narrows the eyes; frames of this clip are blended with their neighbours.
    wanted = (
        "keep.expression=any", "keep.min_quality=0", "measures.eyes.min=0", "measures.yaw.max=25",
        "measures.ifqa.min=0",
    )  # fmt: skip
    lenient = [word for one in wanted for word in ("--set", one)]
    done = streamgate("run", *clips, "-o", tmp_path / "out", "--models", tier, *lenient, models=models)
    assert done.code == 0, done.err
    by_person = {one["person_id"]: one for one in lines(tmp_path / "out" / "persons.jsonl")}
    assert sorted(one["tracks"] for one in by_person.values()) == [1, 3]


def test_the_report_shows_decisions_at_once(result: Path) -> None:
    assert streamgate("people", result, "name", "p0001", "Eileen M. Collins").code == 0
    assert "Eileen M. Collins" in (result / "report.html").read_text()
