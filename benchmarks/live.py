"""Does `serve` keep up with eight cameras on two cores, for as long as one likes?

    python benchmarks/live.py [VIDEOS] [--seconds 600] [--streams 8] [--clips NAME...] [--set KEY=VALUE...]

Real clips, made into what a 720p camera sends (1280x720, 25 fps, H.264 without B frames, about 3 Mbit/s), are served
over RTSP by a process of their own, looped and staggered; a real redis-server takes the events. Where the machine
has more than two cores, `serve` is held to two and the rest runs beside it; on two cores all share them, and what
cameras and Redis took is told apart. Writes its section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import redis
from common import (
    RESULTS,
    SHARED,
    Machine,
    child,
    command_line,
    find_clips,
    say,
    table,
    target,
    usable_cores,
    weights_facts,
    write_section,
)  # fmt: skip

from streamgate.service.state import LATEST_FACES

HERE = Path(__file__).resolve().parent
CAMERA = HERE.parent / "tests" / "support" / "rtsp_server.py"
CLIPS = ("liveportrait_s18", "ghost_nggyup", "fsgan_conan", "mmaction2_demo_skeleton")
"""Each is seen by two cameras: two talking heads near the camera, one with cuts, two people who walk up."""
SIZE, FPS, BITRATE = (1280, 720), 25, 3_000_000
CORES = 2
WARM_S = 10.0
DROP_LIMIT = 1.0
LATENCY_LIMIT = 1.0
MEMORY_LIMIT = 20.0
EARLY, MIDDLE, LATE = (0.1, 0.2), (0.45, 0.55), (0.9, 1.0)
"""Parts of the time whose memory is compared."""
STREAM = "streamgate:faces"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Sight:
    """The service at one moment."""

    seconds: float
    cpu: dict[str, float]
    rss_mib: float
    streams: list[dict[str, Any]]


@dataclass(slots=True)
class Outcome:
    sights: list[Sight] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    finals: int = 0
    improved: int = 0
    metrics: str = ""
    stopped_in: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="?", type=Path, default=SHARED / "videos")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--clips", nargs="+", default=list(CLIPS))
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if shutil.which("redis-server") is None:
        raise SystemExit("redis-server is not installed (apt install redis-server)")
    machine = Machine.here()
    clips, missing = find_clips(options.videos, options.clips)
    if not clips:
        raise SystemExit("; ".join(missing))
    with tempfile.TemporaryDirectory(prefix="streamgate-live-") as folder:
        recorded = [as_camera(clip, Path(folder)) for clip in clips]
        outcome = run(recorded, options.streams, options.seconds, options.settings, Path(folder))
    facts, _ = child("contestants.py", "describe")
    body = report(machine, outcome, clips, options, missing, facts)
    write_section(options.results, "live", body)
    print(body)


def as_camera(clip: Path, folder: Path) -> Path:
    """The clip as a 720p camera would send it: scaled to 1280x720, 25 fps."""
    target_path = folder / f"{clip.stem}.mp4"
    say(f"{clip.stem}: encoding")
    with av.open(str(clip)) as source, av.open(str(target_path), "w") as made:
        stream = source.streams.video[0]
        stream.thread_type = "AUTO"
        out = made.add_stream("libx264", rate=FPS, options={
            "preset": "veryfast", "tune": "zerolatency", "g": "50", "maxrate": "4M", "bufsize": "4M",
        })  # fmt: skip
        out.width, out.height, out.pix_fmt, out.bit_rate = *SIZE, "yuv420p", BITRATE
        given = 0
        for frame in source.decode(stream):
            # As many copies as it takes to be at 25 fps; frames beyond it are left out.
            while given <= (frame.time or 0.0) * FPS:
                picture = frame.reformat(*SIZE, format="yuv420p")
                picture.pts, picture.time_base = given, Fraction(1, FPS)
                made.mux(out.encode(picture))
                given += 1
        made.mux(out.encode(None))
    return target_path


def run(clips: Sequence[Path], streams: int, seconds: float, settings: Sequence[str], folder: Path) -> Outcome:
    cores = sorted(os.sched_getaffinity(0))
    apart = len(cores) > CORES
    ours, theirs = (cores[:CORES], cores[CORES:]) if apart else (cores, cores)
    ports = {name: free_port() for name in ("camera", "redis", "http")}
    with (
        process("camera", [sys.executable, str(CAMERA), str(ports["camera"]), *map(str, clips)], theirs, folder)
        as camera,
        process("redis", ["redis-server", "--port", str(ports["redis"]), "--save", "", "--dir", str(folder)],
                theirs, folder) as server,
    ):  # fmt: skip
        wait_for_port(ports["camera"])
        wait_for_port(ports["redis"])
        command = [sys.executable, "-m", "streamgate", "serve", "--http", f"127.0.0.1:{ports['http']}",
                   "--redis", f"redis://127.0.0.1:{ports['redis']}/0", "--out", str(folder / "out")]  # fmt: skip
        for index in range(streams):
            url = f"rtsp://127.0.0.1:{ports['camera']}/stream{index % len(clips)}"
            command += ["--rtsp", f"cam{index + 1}={url}"]
        for setting in settings:
            command += ["--set", setting]
        with process("serve", command, ours, folder) as service:
            pids = {"serve": service.pid, "cameras": camera.pid, "redis": server.pid}
            outcome = watch(pids, ports["http"], streams, seconds)
            began = time.monotonic()
            service.terminate()
            service.wait(60)
            outcome.stopped_in = time.monotonic() - began
            read_events(ports["redis"], outcome)
    return outcome


def watch(pids: dict[str, int], port: int, streams: int, seconds: float) -> Outcome:
    """Look at the service once a second, from 10 s after all streams run."""
    outcome = Outcome()
    deadline = time.monotonic() + 120
    while sum(one["state"] == "running" for one in listed(port)) < streams:
        if time.monotonic() > deadline:
            raise SystemExit("the streams did not come up")
        time.sleep(0.5)
    say(f"{streams} streams run; warming up for {WARM_S:.0f} s")
    time.sleep(WARM_S)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds or not outcome.sights:
        cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
        outcome.sights.append(Sight(passed, cpu, rss_mib(pids["serve"]), listed(port)))
        if len(outcome.sights) % 30 == 0:
            say(f"{passed:.0f} s: {outcome.sights[-1].rss_mib:.0f} MiB, {dropped_share(outcome):.2f} % dropped")
        time.sleep(max(0.0, min(1.0, seconds - passed)))
    cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
    outcome.sights.append(Sight(time.monotonic() - began, cpu, rss_mib(pids["serve"]), listed(port)))
    outcome.metrics = get(port, "/metrics")
    return outcome


def read_events(port: int, outcome: Outcome) -> None:
    """Latencies: Redis's own time of an entry minus the `ended_at` inside."""
    with redis.Redis(port=port) as client:
        for number, fields in client.xrange(STREAM):
            if fields[b"kind"] != b"final":
                outcome.improved += 1
                continue
            outcome.finals += 1
            ended = datetime.fromisoformat(json.loads(fields[b"json"])["ended_at"])
            outcome.latencies.append(int(number.split(b"-")[0]) / 1000 - ended.timestamp())


def report(
    machine: Machine, outcome: Outcome, clips: Sequence[Path], options: Any, missing: Sequence[str], facts: Any
) -> str:
    first, last = outcome.sights[0], outcome.sights[-1]
    seconds = last.seconds - first.seconds
    used = {name: (last.cpu[name] - first.cpu[name]) / seconds for name in first.cpu}
    share = dropped_share(outcome)
    latency = sorted(outcome.latencies)
    p95 = latency[min(len(latency) - 1, int(0.95 * len(latency)))] if latency else float("nan")
    early, middle, late = (statistics.median(memory_of(outcome, *part)) for part in (EARLY, MIDDLE, LATE))
    growth = late - middle
    held = "held to two of them" if usable_cores() > CORES else "sharing them with cameras and Redis"
    rows = []
    for before, after in zip(first.streams, last.streams, strict=True):
        frames = after["frames_in"] - before["frames_in"]
        dropped = after["frames_dropped"] - before["frames_dropped"]
        rows.append([
            after["name"], f"{frames / seconds:.1f}", str(dropped), f"{100 * dropped / max(1, frames):.2f} %",
            str(after["frames_in_error"]), str(after["tracks"]), str(after["faces"]), str(after["reconnects"]),
        ])  # fmt: skip
    head = ["stream", "frames/s in", "dropped", "share", "in error", "tracks", "faces", "reconnects"]
    lines = [
        "## Live",
        "",
        f"`{command_line('live.py', sys.argv[1:])}`",
        "",
        *machine.lines(),
        *(weights_facts(facts) if facts else []),
        f"- cameras: {', '.join(clip.stem for clip in clips)}, in turn, as {SIZE[0]}x{SIZE[1]} at {FPS} fps, "
        f"{BITRATE / 1e6:g} Mbit/s; {options.streams} streams for {seconds:.0f} s after {WARM_S:.0f} s; serve {held}",
        *(f"- **missing: {one}**" for one in missing),
        "",
        table(head, rows),
        "",
        target("frames dropped", f"{share:.2f} %", f"at most {DROP_LIMIT:g} %", share <= DROP_LIMIT),
        target(
            "`final` in Redis after `ended_at`, p95",
            f"{p95:.2f} s (median {statistics.median(latency) if latency else float('nan'):.2f}, "
            f"worst {latency[-1] if latency else float('nan'):.2f}; {outcome.finals} finals)",
            f"at most {LATENCY_LIMIT:g} s",
            p95 <= LATENCY_LIMIT,
        ),
        target(
            "memory of serve, last tenth minus the one in the middle",
            f"{growth:+.0f} MiB ({last.rss_mib:.0f} MiB at the end, {max(one.rss_mib for one in outcome.sights):.0f} "
            f"at most; last minus second tenth, while the page's {LATEST_FACES} latest faces gather: "
            f"{late - early:+.0f} MiB)",
            f"at most {MEMORY_LIMIT:g} MiB",
            growth <= MEMORY_LIMIT,
        ),
        f"- CPU: serve {100 * used['serve']:.0f} % of one core ({1000 * used['serve'] / options.streams:.0f} core-ms a "
        f"stream and second), cameras {100 * used['cameras']:.0f} %, Redis {100 * used['redis']:.0f} %",
        f"- stages, mean: {stages(outcome.metrics)}",
        f"- {outcome.improved} `improved` beside the finals; a stop took {outcome.stopped_in:.1f} s",
    ]
    return "\n".join(lines)


def dropped_share(outcome: Outcome) -> float:
    """Per cent of the frames since the first sight."""
    first, last = outcome.sights[0].streams, outcome.sights[-1].streams
    frames = sum(one["frames_in"] for one in last) - sum(one["frames_in"] for one in first)
    return (
        100
        * (sum(one["frames_dropped"] for one in last) - sum(one["frames_dropped"] for one in first))
        / max(1, frames)
    )


def memory_of(outcome: Outcome, start: float, end: float) -> list[float]:
    count = len(outcome.sights)
    return [one.rss_mib for one in outcome.sights[int(start * count) : max(int(start * count) + 1, int(end * count))]]


def stages(metrics: str) -> str:
    """Mean time by stage, from the service's own histograms."""
    figures: dict[str, dict[str, float]] = {}
    pattern = r'^streamgate_stage_seconds_(sum|count)\{stage="(\w+)"\} (\S+)'
    for kind, stage, value in re.findall(pattern, metrics, re.M):
        figures.setdefault(stage, {})[kind] = float(value)
    parts = [
        f"{stage} {1000 * one['sum'] / one['count']:.1f} ms"
        for stage, one in sorted(figures.items())
        if one.get("count")
    ]
    return ", ".join(parts)


@contextmanager
def process(name: str, command: Sequence[str], cores: Sequence[int], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = folder / f"{name}.log"
    with open(log, "wb") as out:
        started = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=lambda: os.sched_setaffinity(0, cores))
    try:
        yield started
        if started.poll() not in (None, 0):
            raise SystemExit(f"{name} ended with {started.returncode}: {log.read_text()[-500:]}")
    finally:
        if started.poll() is None:
            started.kill()
            started.wait(10)


def listed(port: int) -> list[dict[str, Any]]:
    try:
        answer = json.loads(get(port, "/api/streams"))
    except OSError:
        return []
    return list(answer["streams"] if isinstance(answer, dict) else answer)


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return str(answer.read().decode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


if __name__ == "__main__":
    main()
