"""Do the costs of listing, sharding, merging, resuming and exporting grow linearly with the number of sources?

    python benchmarks/many.py [--sources 2000 10000] [--shards 10] [--work FOLDER]

The sources are synthetic: copies of one tiny clip, made unique by a counter that is appended to each copy. They are
committed to shards with made-up faces (one or two tracks, a crop of 64 pixels, a random template per track), like those
of a job array. No video is decoded, so that only the cost that grows with the number of sources is measured. Then the
script runs the commands that users run: merge, merge again, `run --resume` for all sources, and export. It uses a
separate folder for each number of sources, and writes its section of RESULTS.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from common import Machine, arguments, heading, publish, say, table, target

GROWTH = 1.3
"""A step counts as linear if its CPU time grows at most this many times as much as the number of sources."""
MEMORY = 700.0
"""The memory budget of a run, in MiB."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command with a number of sources: CPU and wall time in seconds, peak memory (MiB) of the largest process."""

    name: str
    cpu: float
    wall: float
    peak_mib: float


def main() -> None:
    parser = arguments(__doc__, videos=False)
    parser.add_argument("--sources", type=int, nargs="+", default=[2000, 10000], metavar="N")
    parser.add_argument("--shards", type=int, default=10, metavar="N")
    parser.add_argument("--work", type=Path, help="folder for sources and results [default: a temporary folder]")
    options = parser.parse_args()
    machine = Machine.here()
    measured: dict[int, list[Step]] = {}
    for count in sorted(options.sources):
        folder = Path(tempfile.mkdtemp(prefix="streamgate-many-", dir=options.work))
        try:
            measured[count] = list(_measure(folder, count, options.shards))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    publish(options.results, "many", _section(machine, measured, options.shards))


def _measure(folder: Path, count: int, shards: int) -> Iterator[Step]:
    footage, out = folder / "footage", folder / "out"
    footage.mkdir()
    say(f"{count} sources: making them")
    _make_clips(footage, count)
    yield _step("listing and committing", [sys.executable, __file__, "--commit", footage, out, shards], count)
    yield _step("merge", ["merge", out], count)
    yield _step("merge again (nothing new)", ["merge", out], count)
    yield _step("run --resume (nothing new)", ["run", footage, "-o", out, "--resume", "--quiet"], count)
    yield _step("export to Parquet and CSV", ["export", out, "--to", "parquet", "--to", "csv"], count)
    yield _step("export to WebDataset", ["export", out, "--to", "webdataset"], count)


def _step(name: str, command: Sequence[object], count: int) -> Step:
    words = [str(word) for word in command]
    if words[0] != sys.executable:
        words = [sys.executable, "-m", "streamgate", *words]
    say(f"{count} sources: {name}")
    began = time.monotonic()
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{name}: ended with {child.returncode}")
    return Step(name, usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss / 1024)


def _make_clips(footage: Path, count: int) -> None:
    import av
    import numpy as np

    first = footage.with_name("first.mp4")
    with av.open(str(first), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = first.read_bytes()
    for index in range(count):
        # A box that readers skip makes each file unique.
        (footage / f"clip{index:06d}.mp4").write_bytes(data + b"\0\0\0\x10free" + index.to_bytes(8, "big"))


def commit(footage: Path, out: Path, shards: int) -> None:
    """For each shard, list the clips, as its machine would do, and commit made-up results of the shard's clips."""
    from streamgate.config import load_config
    from streamgate.engine import Engine
    from streamgate.sharding import Shard
    from streamgate.sinks.disk import DiskSink
    from streamgate.sinks.merging import write_part
    from streamgate.sources import discover
    from streamgate.store.run import SourceInfo

    with Engine(load_config()) as engine:
        info = engine.run_info()
    for index in range(1, shards + 1):
        shard = Shard(index, shards)
        found = discover([str(footage)], output=out)
        shard.share(found)
        folder = shard.folder(out)
        with DiskSink(folder, info, part=True, report=False) as sink:
            write_part(folder, shard, info)
            results = []
            for spec in found.sources:
                source = SourceInfo(spec.location, spec.source_id())
                writer = sink.open_source(source)
                result = _made_up(source, writer, info.calibration_id)
                writer.commit(result)
                results.append(result)
            sink.finish(results, {"seconds": 1.0})


def _made_up(source, writer, calibration_id):  # type: ignore[no-untyped-def]
    """Write one or two tracks with one kept face each; returns the result of the source."""
    import numpy as np

    from streamgate.faces import Evidence, Face, GateResult, Measure, Pose
    from streamgate.store.run import SourceResult
    from streamgate.tracks import BestShot, Candidate, Template, TrackEnd, TrackInfo

    random = np.random.default_rng(int(source.source_id[-8:], 16))
    tracks = 1 + int(random.integers(2))
    measures = {"serfiq": Measure.ok(0.89, 91.0), "yaw": Measure.ok(1.5, 99.9)}
    for track_id in range(1, tracks + 1):
        track = TrackInfo(track_id, 3.0 * track_id, 3.0 * track_id + 2.0, 50, 9)
        face = Face(np.array([10, 20, 110, 140], np.float32), random.random((5, 2), np.float32) * 99, 0.9)
        for step in range(10):
            writer.evaluated(
                Candidate(
                    face, track_id=track_id, pts_seconds=track.first_pts + step / 5,
                    evidence=Evidence({"spread": 0.2}),
                    measures=measures,
                )
            )
        vector = random.standard_normal(128).astype(np.float32)
        template = Template(vector / np.linalg.norm(vector), 9, 0.8, 0.9, 60.0)
        shot = BestShot(
            image=random.integers(0, 255, (64, 64, 3), np.uint8), source=source.location, source_id=source.source_id,
            track=track, rank=1, pts_seconds=track.first_pts, face=face, evidence=Evidence(pose=Pose(1.0, 2.0, 3.0)),
            measures=measures, quality=80.0, quality_smoothed=79.0, quality_context=78.0,
            calibration_id=calibration_id, gate=GateResult(True),
        )  # fmt: skip
        writer.track(TrackEnd(track, (shot,), {}, (), source.source_id, template=template))
    return SourceResult(source, frames=150, duration_seconds=6.0, width=64, height=64, tracks=tracks, kept=tracks)


def _section(machine: Machine, measured: dict[int, list[Step]], shards: int) -> list[str]:
    counts = sorted(measured)
    head = ["step", *(f"{count:,} sources" for count in counts), "CPU ms per source", "peak MiB"]
    rows = []
    for steps in zip(*(measured[count] for count in counts), strict=True):
        rows.append([
            steps[0].name, *(f"{step.cpu:.1f} s CPU, {step.wall:.1f} s wall" for step in steps),
            f"{1000 * steps[-1].cpu / counts[-1]:.2f}", f"{steps[-1].peak_mib:.0f}",
        ])  # fmt: skip
    lines = [
        *heading("Many sources", machine),
        f"- the sources are synthetic and committed in {shards} shards; no video is decoded", "", table(head, rows), "",
    ]  # fmt: skip
    for small, large in pairwise(counts):
        for before, after in zip(measured[small], measured[large], strict=True):
            limit = GROWTH * large / small
            ratio = after.cpu / before.cpu
            lines.append(target(
                before.name, f"with {large:,} sources, {ratio:.1f} times the CPU time of {small:,} sources",
                f"at most {limit:g}", ratio <= limit,
            ))  # fmt: skip
    peak = max(step.peak_mib for step in measured[counts[-1]])
    what = f"peak memory with {counts[-1]:,} sources"
    lines.append(target(what, f"{peak:.0f} MiB", f"below {MEMORY:g}", peak < MEMORY))
    return lines


if __name__ == "__main__":
    if sys.argv[1:2] == ["--commit"]:
        commit(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
