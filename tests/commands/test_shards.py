"""`run --shard` and `merge`: many machines, one run."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamgate.sharding import Shard
from streamgate.sources.discovery import SourceSpec
from support.command import lines, streamgate
from support.media import astronaut_frames, plain_frames, write_clip

FAST = ("--set", "output.size=128", "--set", "measures.ifqa.min=0", "--per", "person")


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips (one without a face, one a copy) and one broken file."""
    folder = tmp_path_factory.mktemp("footage")
    for index, name, step in ((1, "left", -1.0), (2, "right", 1.0)):
        clip = write_clip(folder / f"{name}.mp4", astronaut_frames(20, (480, 360), step=step, zoom=1.5))
        into(clip, Shard(index, 2))
    write_clip(folder / "nobody.mp4", plain_frames(20, (320, 240)))
    (folder / "copy").mkdir()
    left = next(folder.glob("left*"))
    shutil.copy(left, folder / "copy" / left.name)
    (folder / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    return folder


def into(clip: Path, shard: Shard) -> None:
    """Give the clip a name with which it belongs to `shard`."""
    for number in itertools.count():
        named = clip.rename(clip.with_name(f"{clip.stem.rstrip('0123456789')}{number}.mp4"))
        if shard.has(SourceSpec(named.name, (named,))):
            return
        clip = named


@pytest.fixture(scope="module")
def whole(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert streamgate("run", footage, "-o", out, *FAST).code == 1
    return out


@pytest.fixture(scope="module")
def sharded(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both shards have run and nothing is merged yet."""
    out = tmp_path_factory.mktemp("sharded") / "out"
    codes = [streamgate("run", footage, "-o", out, "--shard", f"{index}/2", *FAST).code for index in (1, 2)]
    assert codes.count(0) <= 1, "one of them has the broken file"
    return out


@pytest.fixture
def shards(sharded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharded, tmp_path / "out"))


def tree(out: Path) -> dict[str, Any]:
    """All results by name; of JSON with timings all but those."""
    found: dict[str, Any] = {}
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if not path.is_file() or name.startswith((".streamgate", "shards/")):
            continue
        found[name] = path.read_bytes()
        if path.name in ("summary.json", "source.json"):
            found[name] = json.loads(found[name])
            del found[name]["timing"]
    return found


def test_two_shards_merged_equal_one_run(whole: Path, shards: Path) -> None:
    done = streamgate("merge", shards)
    assert done.code == 0, done.err
    merged, expected = tree(shards), tree(whole)
    assert merged.keys() == expected.keys()
    for name, content in expected.items():
        assert merged[name] == content, name
    (face,) = lines(shards / "faces.jsonl")
    assert face["person_id"], "the best of one person who is in both shards"
    statuses = {source["status"] for source in json.loads((shards / "summary.json").read_text())["sources"]}
    assert statuses == {"done", "failed", "duplicate"}


def test_every_source_is_in_one_shard(shards: Path) -> None:
    found = [{path.parent.name for path in (shards / "shards" / name).glob("*/source.json")} for name in "12"]
    assert found[0] and found[1] and not found[0] & found[1]
    assert len(found[0] | found[1]) == 3


def test_merging_again_changes_nothing(shards: Path) -> None:
    assert streamgate("merge", shards).code == 0
    before = tree(shards)
    done = streamgate("merge", shards)
    assert done.code == 0 and "(0 new)" in done.err
    assert tree(shards) == before


def test_shards_that_are_missing_are_named_and_can_come_later(shards: Path, whole: Path, tmp_path: Path) -> None:
    (shards / "shards" / "2").rename(tmp_path / "later")
    done = streamgate("merge", shards)
    assert done.code == 1 and "1 of 2 shards have not been run: 2" in done.err
    assert json.loads((shards / "summary.json").read_text())["complete"] is False
    (tmp_path / "later").rename(shards / "shards" / "2")
    assert streamgate("merge", shards).code == 0
    assert tree(shards) == tree(whole)


def test_shards_of_another_run_are_refused(shards: Path, footage: Path) -> None:
    done = streamgate("run", footage, "-o", shards, "--shard", "2/2", "--overwrite", *FAST, "--max-yaw", 12)
    assert done.code in (0, 1)
    done = streamgate("merge", shards)
    assert done.code == 2 and "measures.yaw.max (" in done.err and "12.0" in done.err and "20.0" in done.err
    assert not (shards / "faces.jsonl").exists()


def test_shards_that_count_differently_are_refused(shards: Path, footage: Path) -> None:
    assert streamgate("run", footage, "-o", shards, "--shard", "3/3", *FAST).code in (0, 1)
    done = streamgate("merge", shards)
    assert done.code == 2 and "one of 3 shards" in done.err and "one of 2" in done.err


@pytest.mark.parametrize(
    ("spoil", "code", "told"),
    [
        (lambda house: (house / "shard.json").unlink(), 3, "was not written by --shard"),
        (lambda house: (house / "shard.json").write_text("{"), 3, "was not written by --shard"),
        (lambda house: (house.parent / "summary.json").unlink(), 1, "was interrupted: run it again with --resume"),
        (lambda house: (house / "manifest.json").write_text("{"), 3, "damaged"),
    ],
)
def test_a_damaged_shard_is_named(spoil: Callable[[Path], None], code: int, told: str, shards: Path) -> None:
    spoil(shards / "shards" / "1" / ".streamgate")
    done = streamgate("merge", shards)
    assert done.code == code and told in done.err


def test_a_shard_without_sources_is_no_error(footage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    codes = [
        streamgate("run", footage / "nobody.mp4", "-o", out, "--shard", f"{index}/3", *FAST).code for index in (1, 2, 3)
    ]
    assert codes == [0, 0, 0]
    assert streamgate("merge", out).code == 0
    assert json.loads((out / "summary.json").read_text())["totals"]["sources"] == {"done": 1}


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_wrong_shard_is_named(shard: str, footage: Path, tmp_path: Path) -> None:
    done = streamgate("run", footage, "-o", tmp_path / "out", "--shard", shard)
    assert done.code == 2 and "I/N" in done.err


def test_a_folder_without_shards_is_named(whole: Path, tmp_path: Path) -> None:
    done = streamgate("merge", whole)
    assert done.code == 3 and "contains no shards" in done.err
