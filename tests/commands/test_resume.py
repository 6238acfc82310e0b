"""`run --resume`: whatever ended a run, the finished folder is that of an undisturbed one."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.command import Done, lines, streamgate
from support.killing import Running, small_clips, tree
from support.media import astronaut_frames, write_clip
from support.mounted import mount, remount  # noqa: F401 (a fixture)

KILLS = 5
"""For one job and for two: ten together."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_clips(tmp_path_factory.mktemp("clips"), 4, frames=30)


@pytest.fixture(scope="module")
def undisturbed(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = run(clips, out)
    assert done.code == 0 and len(lines(out / "faces.jsonl")) == len(clips), done.err
    return out


def run(clips: list[Path], out: Path, *options: object) -> Done:
    return streamgate("run", *clips, "-o", out, *options)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds worker processes in /proc")
def test_killed_at_random_moments_and_resumed_the_results_are_the_same(
    clips: list[Path], undisturbed: Path, tmp_path: Path, jobs: int
) -> None:
    """One folder is killed and resumed until it is whole, then the next, until there were enough kills."""
    dice = random.Random(jobs)
    timing = json.loads((undisturbed / "summary.json").read_text())["timing"]
    whole = sum(source["seconds"] for source in timing["sources"].values())
    expected = tree(undisturbed)
    folders = iter(tmp_path / str(number) for number in range(100))
    out, kills = next(folders), 0
    ways = ["parent", "worker", "both", "interrupt", dice.choice(["parent", "worker", "both"])]
    dice.shuffle(ways)
    while kills < KILLS:
        running = Running([*clips, "-o", out, "--resume", "--jobs", jobs])
        if running.until_locked(out):
            time.sleep(dice.uniform(0, whole))
        if not running.ended:
            if ways[kills] == "interrupt":
                running.kill("all", signal.SIGINT)
            else:
                running.kill(ways[kills])
            kills += 1
        code, _, err = running.end()
        assert code in (0, 130, -signal.SIGKILL), err
        if code == 0:
            assert tree(out) == expected
            out = next(folders)
    done = run(clips, out, "--resume", "--jobs", jobs)
    assert done.code == 0, done.err
    assert tree(out) == expected


def test_what_is_done_is_passed_over_and_what_is_new_is_added(
    clips: list[Path], undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(clips[:1], out, "--resume").code == 0  # nothing there yet: a run like any other
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/source.json")}
    done = run(clips, out, "--resume", "--json")
    assert done.code == 0 and "1 of 4 sources are already done" in done.err, done.err
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    printed = {json.loads(line)["source_id"] for line in done.out.splitlines()}
    assert len(printed) == 3 and not printed & {path.parent.name for path in before}
    again = run(clips, out, "--resume", "--json")
    assert again.code == 0 and again.out == "" and "4 of 4 sources" in again.err
    assert len(lines(out / "faces.jsonl")) == len(clips)
    # A smaller request does not take away what an earlier one put there.
    assert run(clips[:1], out, "--resume").code == 0
    assert len(lines(out / "faces.jsonl")) == len(clips)


def test_another_configuration_other_weights_or_another_schema_are_refused(
    clips: list[Path], undisturbed: Path, tmp_path: Path
) -> None:
    before = tree(undisturbed)
    done = run(clips, undisturbed)
    assert done.code == 2 and "--resume" in done.err and "--overwrite" in done.err
    assert run(clips, undisturbed, "--resume", "--overwrite").code == 2
    done = run(clips, undisturbed, "--resume", "--top-k", 3, "--set", "measures.yaw.max=12.5")
    assert done.code == 2 and "keep.top_k (1, now 3)" in done.err and "measures.yaw.max (20.0, now 12.5)" in done.err
    manifest = undisturbed / ".streamgate" / "manifest.json"
    content = manifest.read_text()
    record = json.loads(content)
    for entry in record["run"]["weights"]:
        entry["sha256"] = "0" * 64
    record["run"]["digest"] = "0" * 64
    manifest.write_text(json.dumps(record))
    done = run(clips, undisturbed, "--resume")
    assert done.code == 2 and "the weights of the detector (sha256 000000000000, now" in done.err
    manifest.write_text(json.dumps({**record, "schema": 99}))
    done = run(clips, undisturbed, "--resume")
    assert done.code == 3 and "schema 99" in done.err
    manifest.write_text(content)
    assert tree(undisturbed) == before


def test_what_failed_is_tried_again(clips: list[Path], undisturbed: Path, tmp_path: Path) -> None:
    broken = tmp_path / clips[0].name
    broken.write_text("no video\n" * 100)
    out = tmp_path / "out"
    assert run([broken, *clips[1:]], out).code == 1
    broken.write_bytes(clips[0].read_bytes())
    done = run([broken, *clips[1:]], out, "--resume")
    assert done.code == 0 and "3 of 4 sources" in done.err
    ids = {record["source_id"] for record in lines(out / "faces.jsonl")}
    assert ids == {record["source_id"] for record in lines(undisturbed / "faces.jsonl")}


def test_an_interrupted_source_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    frames = astronaut_frames(60, (320, 240), step=0.5, zoom=1.6)
    clip = write_clip(tmp_path / "long.mp4", frames * 3)
    out = tmp_path / "out"

    def interrupted() -> int:
        running = Running([clip, "-o", out, "--resume", "--set", "exhaustive=true"])
        assert running.until(lambda: any(out.glob(".streamgate/staging/*/candidates.jsonl.gz")))
        time.sleep(0.1)
        running.kill("all", signal.SIGINT)
        code, _, err = running.end()
        assert code == 130, err
        (source,) = json.loads((out / "summary.json").read_text())["sources"]
        assert source["status"] == "interrupted" and 0 < source["frames"] < len(frames) * 3
        return source["frames"]

    first = interrupted()
    record = out / next(out.glob("long-*")).name / "source.json"
    # Interrupted again, earlier: what was found the first time is worth more.
    written = json.loads(record.read_text())
    record.write_text(json.dumps({**written, "frames": 100 + first}))
    assert interrupted() == 100 + first
    done = streamgate("run", clip, "-o", out, "--resume", "--set", "exhaustive=true")
    assert done.code == 0 and "already" not in done.err
    assert json.loads(record.read_text())["status"] == "done"
    assert not list(out.glob(".streamgate/staging*"))


def test_a_full_disk_at_resuming_costs_nothing(
    clips: list[Path], undisturbed: Path, mount: Callable[[str], Path]  # noqa: F811
) -> None:
    disk = mount("size=50m")
    out = disk / "out"
    assert run(clips[:1], out).code == 0
    before = tree(out)
    used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*"))
    remount(disk, f"size={used // 1024 + 60}k")
    done = run(clips, out, "--resume")
    assert done.code == 5 and "no space left" in done.err, done.err
    assert [path.read_bytes() for path in out.glob("clip0-*/*/*.png")] == [
        data for name, data in before.items() if name.endswith(".png")
    ]
    remount(disk, "size=50m")
    done = run(clips, out, "--resume")
    assert done.code == 0 and "of 4 sources are already done" in done.err, done.err
    ids = [record["id"] for record in lines(out / "faces.jsonl")]
    assert ids == [record["id"] for record in lines(undisturbed / "faces.jsonl")]


DIE_WHILE_REMOVING = """
import os, signal
from streamgate.store import files

remove = files.remove_listed

def dies(root, names):
    names = list(names)
    remove(root, names[: len(names) // 2])
    if {both}:
        os.kill(os.getppid(), signal.SIGKILL)
    if not os.path.exists({flag!r}):
        os.mkdir({flag!r})
        os.kill(os.getpid(), signal.SIGKILL)
    remove(root, names)

files.remove_listed = dies
"""


def test_resuming_after_an_overwriting_was_cut_off(clips: list[Path], tmp_path: Path) -> None:
    clips, out, other = clips[:2], tmp_path / "out", tmp_path / "other"
    assert run(clips, out).code == 0
    before = tree(out)
    code = DIE_WHILE_REMOVING.format(both=True, flag=str(tmp_path / "died"))
    killed = Running([*clips, "-o", out, "--overwrite", "--top-k", 2], code=code)
    assert killed.end()[0] == -signal.SIGKILL
    # Half of the earlier results are there still, and they are not the new run's.
    done = run(clips, out, "--resume", "--top-k", 2)
    assert done.code == 2 and "keep.top_k (1, now 2)" in done.err
    done = run(clips, out, "--resume")
    assert done.code == 0 and "1 of 2 sources are already done" in done.err
    assert tree(out) == before
    # The worker alone: the run begins anew, and nothing of the earlier one is taken for its own.
    code = DIE_WHILE_REMOVING.format(both=False, flag=str(tmp_path / "died again"))
    result, _, err = Running([*clips, "-o", out, "--overwrite", "--top-k", 2], code=code).end()
    assert result == 0 and "a new worker takes over" in err, err
    assert run(clips, other, "--top-k", 2).code == 0
    assert tree(out) == tree(other)
