"""`run --ray` on a cluster of this machine: what dies, comes and goes makes no difference to the results."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamgate.errors import DeviceError, SinkError, UsageError
from support.command import lines, streamgate
from support.killing import Running, small_clips, tree
from support.media import astronaut_frames, write_clip

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'streamgate[ray]'")
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds readers in /proc")

FAST = ("--set", "output.size=128", "--device", "cpu")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with two cores."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100 << 20},
    )
    yield started
    if ray.is_initialized():
        ray.shutdown()
    started.shutdown()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A long clip and two short ones."""
    folder = tmp_path_factory.mktemp("clips")
    long = write_clip(folder / "along.mp4", astronaut_frames(160, (640, 480), step=0.2, zoom=1.6))
    return [long, *small_clips(folder, 2)]


@pytest.fixture(scope="module")
def undisturbed(clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What one machine makes of them."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = streamgate("run", *clips, "-o", out, *FAST)
    assert done.code == 0 and lines(out / "faces.jsonl"), done.err
    return tree(out)


def start(cluster: Any, out: Path, *arguments: object) -> Running:
    return Running([*arguments, "-o", out, "--ray", cluster.address, *FAST])


def readers(out: Path, name: str = "along") -> dict[str, int]:
    """Process ids of the readers that are reading a source of that name, by their folders."""
    found = {}
    for staging in out.glob(f".streamgate/ray-*/*/.streamgate/staging/{name}-*"):
        try:
            found[staging.parents[2].name] = int((staging.parents[1] / "lock").read_text())
        except (OSError, ValueError):
            continue
    return found


def kill_reader(running: Running, out: Path) -> bool:
    """Kill the reader of the long clip once it reads it; False when the run ended before."""
    if not running.until(lambda: readers(out)):
        return False
    ((_, pid),) = readers(out).items()
    os.kill(pid, signal.SIGKILL)
    return running.until(lambda: pid not in readers(out).values())


def statuses(out: Path) -> dict[str, str]:
    summary = json.loads((out / "summary.json").read_text())
    return {Path(source["source"]).stem: source["status"] for source in summary["sources"]}


def test_a_reader_that_is_killed_changes_nothing(
    cluster: Any, clips: list[Path], undisturbed: dict[str, object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    running = start(cluster, out, *clips)
    assert kill_reader(running, out)
    code, printed, err = running.end()
    assert code == 0 and printed == "", err
    assert re.search(r"warning: a reader on \S+ died \(its process was killed.*along\.mp4; .* again, last", err), err
    assert "raylet" not in err and err.count("died") == 1
    assert tree(out) == undisturbed


def test_a_source_of_which_two_readers_die_is_crashed_and_resuming_tries_it_again(
    cluster: Any, clips: list[Path], undisturbed: dict[str, object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    running = start(cluster, out, *clips)
    assert kill_reader(running, out) and kill_reader(running, out)
    code, _, err = running.end()
    assert code == 1 and "along.mp4: the reader died 2 times while it read this source" in err, err
    assert statuses(out) == {"along": "crashed", "clip0": "done", "clip1": "done"}
    code, _, err = start(cluster, out, *clips, "--resume").end()
    assert code == 0 and "2 of 3 sources are already done" in err, err
    assert tree(out) == undisturbed


def test_a_node_that_comes_gets_work_and_one_that_goes_costs_nothing(
    cluster: Any, clips: list[Path], undisturbed: dict[str, object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    running = start(cluster, out, *clips)
    assert running.until(lambda: readers(out))
    ((first, pid),) = readers(out).items()
    # The first reader stands still meanwhile, so that there is work left however long a node takes to start.
    os.kill(pid, signal.SIGSTOP)
    added = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
    try:
        assert running.until(lambda: set(readers(out, "clip*")) - {first}), "the new node reads nothing"
    finally:
        os.kill(pid, signal.SIGCONT)
        cluster.remove_node(added)
    code, _, err = running.end()
    assert code == 0, err
    assert tree(out) == undisturbed


def test_a_driver_that_is_killed_is_resumed(
    cluster: Any, clips: list[Path], undisturbed: dict[str, object], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    order = [clips[1], clips[0], clips[2]]
    running = start(cluster, out, *order)
    assert running.until(lambda: readers(out))
    running.kill("both")
    running.end()
    assert list(out.glob(".streamgate/ray-*"))
    code, _, err = start(cluster, out, *order, "--resume").end()
    assert code == 0 and "1 of 3 sources are already done" in err, err
    assert tree(out) == undisturbed


def test_an_interrupted_run_keeps_what_was_found(cluster: Any, clips: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = start(cluster, out, *clips)
    assert running.until(lambda: readers(out))
    running.kill("all", signal.SIGINT)
    code, _, err = running.end()
    assert code == 130 and "the results so far have been written" in err, err
    assert statuses(out) == {"along": "interrupted", "clip0": "not_started", "clip1": "not_started"}
    assert not list(out.glob(".streamgate/ray-*"))


def test_faces_of_a_pipeline_are_rows_of_the_export(cluster: Any, clips: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="Ray Data needs pandas")
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow: pip install 'streamgate[data]'")
    import ray.data

    from streamgate.ray import KeptFaces

    short = clips[1:]
    out = tmp_path / "out"
    assert streamgate("run", *short, "-o", out, *FAST).code == 0
    assert streamgate("export", out, "--to", "parquet", "--images", "-o", tmp_path / "faces.parquet").code == 0
    wanted = pq.read_table(tmp_path / "faces.parquet").to_pylist()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
    ray.data.DataContext.get_current().enable_progress_bars = False
    options = {"settings": {"output.size": 128}, "device": "cpu", "skip_errors": True}
    paths = [{"path": str(path)} for path in [*short, tmp_path / "nothing.mp4"]]
    faces = ray.data.from_items(paths).map_batches(
        KeptFaces, fn_constructor_kwargs=options, batch_size=1, num_cpus=1, concurrency=1
    )
    found = sorted(faces.take_all(), key=lambda row: row["id"])
    assert len(found) == len(wanted) > 0
    for mine, exported in zip(found, wanted, strict=True):
        assert mine.keys() == exported.keys()
        assert mine["image"]["bytes"] == exported["image"]["bytes"]
        same = mine.keys() - {"person_id", "person_rank", "image"}
        assert {key: _plain(mine[key]) for key in same} == {key: exported[key] for key in same}
    ray.shutdown()


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def test_what_cannot_be_is_said_before_anything_starts(clips: list[Path], tmp_path: Path) -> None:
    for arguments, code, words in (
        (["--ray", "auto", "--shard", "1/2"], 2, "give only one of the two"),
        (["--ray", "auto", "--sink", "redis://127.0.0.1:9/0"], 2, "streamgate replay OUT --sink"),
        (["--ray", "nonsense"], 2, "use local, auto, HOST:PORT or ray://HOST:PORT"),
        (["--ray", "127.0.0.1:9"], 6, "cannot connect; start the cluster"),
    ):
        done = streamgate("run", clips[1], "-o", tmp_path / "out", *arguments)
        assert done.code == code and words in done.err, done.err
    assert not (tmp_path / "out" / "faces.jsonl").exists()


def test_without_ray_the_extra_is_named(clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise ImportError('hidden')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = streamgate("run", clips[1], "-o", tmp_path / "out", "--ray", "local", PYTHONPATH=path)
    assert done.code == 2 and "pip install 'streamgate[ray]'" in done.err, done.err


def test_a_reader_takes_cores_or_a_gpu_with_its_share_of_them() -> None:
    from streamgate.ray.connection import share_of

    nodes: list[dict[str, Any]] = [{"CPU": 16.0}, {"CPU": 32.0, "GPU": 4.0}, {}]
    assert share_of(nodes, "auto", 1) == (8, True) and share_of(nodes, "cuda", 8) == (8, True)
    assert share_of(nodes, "cpu", 1) == (2, False) and share_of(nodes, "cpu", 64) == (32, False)
    assert share_of([{"CPU": 1.0}], "auto", 1) == (1, False) and share_of([{}], "auto", 1) == (1, False)
    with pytest.raises(DeviceError, match="no node of the Ray cluster has a GPU"):
        share_of(nodes[:1], "cuda", 1)


def test_a_reader_says_what_its_node_lacks(tmp_path: Path) -> None:
    from streamgate.ray.reader import Reader, ReaderOptions

    options = ReaderOptions(tmp_path / "out" / ".streamgate" / "ray-1", "token", {}, "embedded", "cpu", "auto", 1)
    error = Reader("reader1", options).open()
    assert isinstance(error, SinkError) and "a file system that all nodes share" in str(error)
    other = ReaderOptions(tmp_path, "token", {}, "embedded", "cpu", "auto", 1, version="0.0.1")
    assert isinstance(Reader("reader1", other).open(), UsageError)
