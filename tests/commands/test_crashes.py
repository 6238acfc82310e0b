"""A worker that dies costs the source it died of, and nothing else."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from support.command import lines
from support.killing import Running, is_alive, small_clips, tree
from support.media import astronaut_frames, write_clip

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds worker processes in /proc")

DIE_AT_COMMIT = """
import os, signal, sys
from streamgate.store import files

rename = files.rename_folder

def dies(root, name, final):
    first = not os.path.exists({flag!r})
    if {after} or not first:
        rename(root, name, final)
    if not first:
        return
    os.mkdir({flag!r})
    if {both}:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)

files.rename_folder = dies
"""
"""The first commit ends the worker, or both processes, before or after its rename."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_clips(tmp_path_factory.mktemp("clips"), 2)


@pytest.fixture(scope="module")
def deadly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = astronaut_frames(100, (640, 480), step=0.5, zoom=1.6)
    return write_clip(tmp_path_factory.mktemp("deadly") / "deadly.mp4", frames)


@pytest.fixture(scope="module")
def undisturbed(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    code, _, err = Running([*clips, "-o", out]).end()
    assert code == 0 and len(lines(out / "faces.jsonl")) == len(clips), err
    return out


def kill_at(running: Running, out: Path, name: str, number: int = signal.SIGKILL) -> int:
    """Kill the worker whenever it reads a source of that name; returns how often that was."""
    kills = 0

    def reads() -> bool:
        try:
            return any((out / ".streamgate" / "staging").glob(f"{name}-*"))
        except FileNotFoundError:  # the folder went away between two looks
            return False

    while running.until(reads):
        running.kill("worker", number)
        kills += 1
        running.until(lambda: not reads())
    return kills


def statuses(out: Path) -> dict[str, str]:
    summary = json.loads((out / "summary.json").read_text())
    return {Path(source["source"]).stem: source["status"] for source in summary["sources"]}


@pytest.mark.parametrize(("jobs", "number"), [(1, signal.SIGKILL), (3, signal.SIGSEGV)])
def test_a_source_that_kills_the_worker_twice_is_crashed_and_the_rest_complete(
    clips: list[Path], deadly: Path, undisturbed: Path, tmp_path: Path, jobs: int, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    running = Running([clips[0], deadly, clips[1], "-o", out, "--jobs", jobs])
    assert kill_at(running, out, "deadly", number) == 2
    code, _, err = running.end()
    assert code == 1, err
    assert statuses(out) == {"clip0": "done", "clip1": "done", "deadly": "crashed"}
    told = [line for line in err.splitlines() if line.startswith("streamgate:") and "warning" not in line]
    assert len(told) == 1 and "deadly.mp4" in told[0] and number.name in told[0], err
    assert sum("a new worker takes over" in line for line in err.splitlines()) == 1
    folders = {path.name for path in out.iterdir() if path.is_dir()}
    for record in lines(undisturbed / "faces.jsonl"):
        assert record["source_id"] in folders
        name = f"{record['source_id']}/faces.jsonl"
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()
    # It may have been the machine's fault: resuming tries it again.
    code, _, err = Running([clips[0], deadly, clips[1], "-o", out, "--resume"]).end()
    assert code == 0 and "2 of 3 sources are already done" in err, err
    assert set(statuses(out).values()) == {"done"}


def test_nothing_but_a_deadly_source_is_a_run_that_could_read_nothing(deadly: Path, tmp_path: Path) -> None:
    running = Running([deadly, "-o", tmp_path / "out", "--json"])
    assert kill_at(running, tmp_path / "out", "deadly") == 2
    code, printed, err = running.end()
    assert (code, printed) == (3, ""), err
    assert statuses(tmp_path / "out") == {"deadly": "crashed"}


@pytest.mark.parametrize("after", [False, True])
def test_a_worker_that_dies_in_a_commit_is_made_good(
    clips: list[Path], undisturbed: Path, tmp_path: Path, after: bool
) -> None:
    code = DIE_AT_COMMIT.format(after=after, both=False, flag=str(tmp_path / "died"))
    running = Running([*clips, "-o", tmp_path / "out", "--json"], code=code)
    result, printed, err = running.end()
    assert result == 0 and (tmp_path / "died").is_dir(), err
    assert "killed by signal 9, SIGKILL" in err
    assert tree(tmp_path / "out") == tree(undisturbed)
    # Every record once, although the worker died before it could tell of the first source.
    records = [json.loads(line) for line in printed.splitlines()]
    assert sorted(record["id"] for record in records) == [record["id"] for record in lines(undisturbed / "faces.jsonl")]


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_is_killed_in_a_commit_is_resumed(
    clips: list[Path], undisturbed: Path, tmp_path: Path, after: bool
) -> None:
    out = tmp_path / "out"
    code = DIE_AT_COMMIT.format(after=after, both=True, flag=str(tmp_path / "died"))
    assert Running([*clips, "-o", out], code=code).end()[0] == -signal.SIGKILL
    commits = out / ".streamgate" / "commits.jsonl"
    assert len(commits.read_bytes().splitlines()) == 1
    if not after:
        # Power may go while the line is written, too.
        commits.write_bytes(commits.read_bytes()[:-10])
    result, _, err = Running([*clips, "-o", out, "--resume"]).end()
    assert result == 0 and ("1 of 2 sources are already done" in err) == after, err
    assert tree(out) == tree(undisturbed)


def test_a_worker_that_dies_before_it_reads_anything_ends_the_run(clips: list[Path], tmp_path: Path) -> None:
    code = "import os\nfrom streamgate.store.lock import Lock\nLock.acquire = lambda lock: os.abort()"
    result, _, err = Running([*clips, "-o", tmp_path / "out"], code=code).end()
    assert result == 1 and "died 2 times without reading anything (killed by signal 6, SIGABRT" in err, err


def test_a_file_at_whose_look_the_worker_dies_is_left_out(clips: list[Path], tmp_path: Path) -> None:
    code = """
import os
from streamgate.runtime import processes

send = processes.Channel.send

def dies(line, message, file=None):
    send(line, message, file)
    if getattr(message, "func", message).__name__ == "probing" and "odd" in message.keywords["path"]:
        os.abort()

processes.Channel.send = dies
"""
    for name in ("odd", "even"):
        (tmp_path / name).write_bytes(clips[0].read_bytes())
    running = Running([tmp_path / "odd", tmp_path / "even", clips[1], "-o", tmp_path / "out"], code=code)
    result, _, err = running.end()
    assert result == 0 and "SIGABRT) while it opened" in err, err
    assert statuses(tmp_path / "out") == {"even": "done", "clip1": "done"}
    result, _, err = Running([tmp_path / "odd", "-o", tmp_path / "other"], code=code).end()
    assert result == 3, err


def test_a_killed_parent_takes_its_worker_along(deadly: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = Running([deadly, "-o", out, "--set", "exhaustive=true"])
    assert running.until(lambda: any(out.glob(".streamgate/staging/*/*")))
    worker = running.worker()
    assert worker is not None and is_alive(worker)
    running.kill("parent")
    running.end()
    deadline = time.monotonic() + 30
    while is_alive(worker):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_run_on_the_same_folder_is_told_which_process_has_it(
    clips: list[Path], deadly: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    running = Running([deadly, *clips, "-o", out, "--set", "exhaustive=true"])
    assert running.until(lambda: any(out.glob(".streamgate/staging/*/*")))
    # The lock is the run's, not the worker's: no other run slips in while the worker is replaced.
    running.kill("worker")
    for options in ([], ["--resume"], ["--overwrite"]):
        code, _, err = Running([*clips, "-o", out, *options]).end()
        assert code == 5 and f"in use by another run (process {running.process.pid})" in err, err
    running.kill("parent")
    running.end()


def test_a_second_interrupt_ends_at_once_and_keeps_what_is_committed(
    clips: list[Path], deadly: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    running = Running([clips[0], deadly, "-o", out, "--set", "exhaustive=true"])
    assert running.until(lambda: any(out.glob(".streamgate/staging/deadly-*/*")))
    running.kill("parent", signal.SIGTERM)
    running.kill("parent", signal.SIGINT)
    code, _, err = running.end()
    assert code == 130 and err.count("interrupted") <= 2, err
    assert not (out / ".streamgate" / "staging").exists()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["complete"] is False and statuses(out)["clip0"] == "done"
    assert [record["source_id"].startswith("clip0-") for record in lines(out / "faces.jsonl")] == [True]
