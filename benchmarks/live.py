"""Does `serve` keep up with eight cameras on two cores, for any length of time?

    python benchmarks/live.py [VIDEOS] [--seconds 600] [--streams 8] [--clips NAME...] [--set KEY=VALUE...]

Real clips are encoded like the stream of a 720p camera (1280x720, 25 fps, H.264 without B frames, about 3 Mbit/s). A
separate process serves them over RTSP, looped and with different starting times, and a real redis-server receives the
events. If the machine has more than two cores, `serve` is limited to two of them and the other processes run on the
others. With two cores, all processes share them, and the CPU time of the cameras and of Redis is reported separately.
The script writes its section of benchmarks/RESULTS.md.
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
from common import REPOSITORY, Machine, arguments, find_clips, heading, publish, say, table, target
from processes import cpu_seconds, describe, gate_options, resident_mib

from streamgate.parallel import usable_cores
from streamgate.service.state import LATEST_FACES

CAMERA = REPOSITORY / "tests" / "support" / "rtsp_server.py"
CLIPS = ("liveportrait_s18", "ghost_nggyup", "fsgan_conan", "mmaction2_demo_skeleton")
"""Each clip is sent by two cameras. It shows a talking head, or cuts, or two people who come closer."""
SIZE, FPS, BITRATE = (1280, 720), 25, 3_000_000
CORES = 2
WARM_S = 10.0
DROP_LIMIT = 1.0
LATENCY_LIMIT = 1.0
MEMORY_LIMIT = 20.0
EARLY, MIDDLE, LATE = (0.1, 0.2), (0.45, 0.55), (0.9, 1.0)
"""Parts of the measurement whose memory use is compared, as shares of its duration."""
STREAM = "streamgate:faces"


@dataclass(slots=True)
class Sample:
    """The service at one moment: CPU seconds by process, memory of `serve`, and its list of streams."""

    seconds: float
    cpu: dict[str, float]
    rss_mib: float
    streams: list[dict[str, Any]]


@dataclass(slots=True)
class Outcome:
    samples: list[Sample] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    finals: int = 0
    improved: int = 0
    metrics: str = ""
    stopped_in: float = 0.0


def main() -> None:
    parser = arguments(__doc__, clips=True, gate=True)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--streams", type=int, default=8)
    parser.set_defaults(preset="live")
    options = parser.parse_args()
    if shutil.which("redis-server") is None:
        raise SystemExit("redis-server is not installed (apt install redis-server)")
    machine = Machine.here()
    clips, missing = find_clips(options.videos, options.clips or CLIPS)
    if not clips:
        raise SystemExit("; ".join(missing))
    with tempfile.TemporaryDirectory(prefix="streamgate-live-") as folder:
        recorded = [as_camera(clip, Path(folder)) for clip in clips]
        outcome = run(recorded, options, Path(folder))
    facts, _ = describe(options.models)
    publish(options.results, "live", [*heading("Live", machine, facts, missing), *report(outcome, clips, options)])


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
            # Frames are repeated or left out to get 25 fps.
            while given <= (frame.time or 0.0) * FPS:
                picture = frame.reformat(*SIZE, format="yuv420p")
                picture.pts, picture.time_base = given, Fraction(1, FPS)
                made.mux(out.encode(picture))
                given += 1
        made.mux(out.encode(None))
    return target_path


def run(clips: Sequence[Path], options: argparse.Namespace, folder: Path) -> Outcome:
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
                   "--redis", f"redis://127.0.0.1:{ports['redis']}/0", "--out", str(folder / "out"),
                   *gate_options(options)]  # fmt: skip
        for index in range(options.streams):
            url = f"rtsp://127.0.0.1:{ports['camera']}/stream{index % len(clips)}"
            command += ["--rtsp", f"cam{index + 1}={url}"]
        with process("serve", command, ours, folder) as service:
            pids = {"serve": service.pid, "cameras": camera.pid, "redis": server.pid}
            outcome = watch(pids, ports["http"], options.streams, options.seconds)
            began = time.monotonic()
            service.terminate()
            service.wait(60)
            outcome.stopped_in = time.monotonic() - began
            read_events(ports["redis"], outcome)
    return outcome


def watch(pids: dict[str, int], port: int, streams: int, seconds: float) -> Outcome:
    """Sample the service once per second, starting 10 s after all streams are running."""
    outcome = Outcome()
    deadline = time.monotonic() + 120
    while sum(one["state"] == "running" for one in listed(port)) < streams:
        if time.monotonic() > deadline:
            raise SystemExit("the streams did not start within 120 s")
        time.sleep(0.5)
    say(f"{streams} streams are running; warming up for {WARM_S:.0f} s")
    time.sleep(WARM_S)
    began = time.monotonic()
    passed = 0.0
    while passed < seconds or len(outcome.samples) < 2:
        passed = time.monotonic() - began
        cpu = {name: cpu_seconds(pid) for name, pid in pids.items()}
        outcome.samples.append(Sample(passed, cpu, resident_mib(pids["serve"]), listed(port)))
        if len(outcome.samples) % 30 == 0:
            say(f"{passed:.0f} s: {outcome.samples[-1].rss_mib:.0f} MiB, {dropped_share(outcome):.2f} % dropped")
        time.sleep(max(0.0, min(1.0, seconds - passed)))
    outcome.metrics = get(port, "/metrics")
    return outcome


def read_events(port: int, outcome: Outcome) -> None:
    """Read the events and compute latencies: Redis's time stamp of an entry minus the `ended_at` in it."""
    with redis.Redis(port=port) as client:
        for number, fields in client.xrange(STREAM):
            if fields[b"kind"] != b"final":
                outcome.improved += 1
                continue
            outcome.finals += 1
            ended = datetime.fromisoformat(json.loads(fields[b"json"])["ended_at"])
            outcome.latencies.append(int(number.split(b"-")[0]) / 1000 - ended.timestamp())


def report(outcome: Outcome, clips: Sequence[Path], options: argparse.Namespace) -> list[str]:
    first, last = outcome.samples[0], outcome.samples[-1]
    seconds = last.seconds - first.seconds
    used = {name: (last.cpu[name] - first.cpu[name]) / seconds for name in first.cpu}
    share = dropped_share(outcome)
    latency = sorted(outcome.latencies) or [float("nan")]
    p95 = latency[min(len(latency) - 1, int(0.95 * len(latency)))]
    waits = f"{p95:.2f} s (median {statistics.median(latency):.2f}, worst {latency[-1]:.2f}; {outcome.finals} finals)"
    memory = [one.rss_mib for one in outcome.samples]
    parts = [(int(start * len(memory)), int(end * len(memory))) for start, end in (EARLY, MIDDLE, LATE)]
    early, middle, late = (statistics.median(memory[start : max(start + 1, end)]) for start, end in parts)
    held = "was limited to two cores" if usable_cores() > CORES else "shared all cores with the cameras and Redis"
    rows = []
    for before, after in zip(first.streams, last.streams, strict=True):
        frames = after["frames_in"] - before["frames_in"]
        dropped = after["frames_dropped"] - before["frames_dropped"]
        rows.append([
            after["name"], f"{frames / seconds:.1f}", str(dropped), f"{100 * dropped / max(1, frames):.2f} %",
            str(after["frames_in_error"]), str(after["tracks"]), str(after["faces"]), str(after["reconnects"]),
        ])  # fmt: skip
    head = [
        "stream", "frames/s received", "frames dropped", "share dropped", "frames with errors", "tracks", "faces",
        "reconnects",
    ]  # fmt: skip
    return [
        f"- cameras: {options.streams} streams of {SIZE[0]}x{SIZE[1]} px, {FPS} fps and {BITRATE / 1e6:g} Mbit/s; they "
        f"show these clips in turn: {', '.join(clip.stem for clip in clips)}",
        f"- `serve` was measured for {seconds:.0f} s after a warm-up of {WARM_S:.0f} s; it {held}",
        "",
        table(head, rows),
        "",
        target("frames dropped", f"{share:.2f} %", f"at most {DROP_LIMIT:g} %", share <= DROP_LIMIT),
        target(
            "delay from `ended_at` until the `final` is in Redis, p95",
            waits,
            f"at most {LATENCY_LIMIT:g} s",
            p95 <= LATENCY_LIMIT,
        ),
        target(
            "memory growth of `serve` from the middle tenth to the last tenth of the measurement",
            f"{late - middle:+.0f} MiB ({last.rss_mib:.0f} MiB at the end, maximum {max(memory):.0f} MiB; "
            f"{late - early:+.0f} MiB from the second to the last tenth, while the {LATEST_FACES} latest faces of the "
            "page accumulate)",
            f"at most {MEMORY_LIMIT:g} MiB",
            late - middle <= MEMORY_LIMIT,
        ),
        f"- CPU: `serve` {100 * used['serve']:.0f} % of one core ({1000 * used['serve'] / options.streams:.0f} core-ms "
        f"per stream and second), cameras {100 * used['cameras']:.0f} %, Redis {100 * used['redis']:.0f} %",
        f"- mean time per call of each stage: {stages(outcome.metrics)}",
        f"- {outcome.improved} `improved` events were sent in addition to the finals; stopping `serve` took "
        f"{outcome.stopped_in:.1f} s",
    ]


def dropped_share(outcome: Outcome) -> float:
    """Dropped frames since the first sample, in per cent of the received frames."""
    first, last = outcome.samples[0].streams, outcome.samples[-1].streams
    pairs = list(zip(first, last, strict=True))
    frames, dropped = (sum(b[of] - a[of] for a, b in pairs) for of in ("frames_in", "frames_dropped"))
    return 100 * dropped / max(1, frames)


def stages(metrics: str) -> str:
    """Mean time per call of each stage, from the histograms of the service."""
    found: dict[str, dict[str, float]] = {}
    pattern = r'^streamgate_stage_seconds_(sum|count)\{stage="(\w+)"\} (\S+)'
    for kind, stage, value in re.findall(pattern, metrics, re.M):
        found.setdefault(stage, {})[kind] = float(value)
    means = {stage: 1000 * one["sum"] / one["count"] for stage, one in sorted(found.items()) if one.get("count")}
    return ", ".join(f"{stage} {mean:.1f} ms" for stage, mean in means.items())


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


if __name__ == "__main__":
    main()
