"""How much does it cost to take a face from the main stream, and is the face from the right moment?

    python benchmarks/twostreams.py [FOLDER] [--seconds 60] [--cameras 8] [--clips NAME...] [--set KEY=VALUE...]
        [--results FILE]

Real clips are encoded like the two streams of a camera (main: 1920x1080, 4 Mbit/s; sub: 640x360, 0.5 Mbit/s; both H.264
at 25 fps without B frames). Separate processes serve them as cameras, whose two streams show the same scene. The main
streams arrive 0 to 3 s later than the substreams, their clocks run 200 ppm faster or slower, their key frames are 1 to
4 s apart, and each camera starts at a different time of its clip. `serve` first watches only the substreams, and then
both streams of each camera. Only the CPU time of the `serve` process is counted.

The pixels of a face show whether it is from the right moment: the same crop is cut out of the neighbouring frames of
the clip, and the frame with the most similar crop is the one that was decoded. The frame that the substream showed at
its time 0 is determined in the same way, from `improved` faces of the substream.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import redis
from common import RESULTS, SHARED, Machine, command_line, find_clips, say, table, target, write_section
from live import (
    STREAM,
    Outcome,
    Sample,
    dropped_share,
    free_port,
    get,
    listed,
    process,
    wait_for_port,
)
from processes import cpu_seconds, resident_mib

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.two_streams import encode, scenes, which_picture

CLIPS = ("generated_10", "liveportrait_s18", "liveportrait_d3", "drive_d10")
"""Clips of 9 to 15 s, each with one talking head."""
FPS = 25
GROUPS = (50, 25, 100, 50)
"""Number of frames from one key frame to the next in the main streams of the clips."""
DELAYS = (0.0, 0.15, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0)
DRIFTS = (200.0, -200.0)
EMPTY_S = 4.0
"""Time without a face between two repetitions of a clip."""
WARM_S = 25.0
EXTRA_LIMIT, LATENCY_LIMIT, SHARE_LIMIT = 15.0, 1.5, 98.0
_REACH = 30


@dataclass(slots=True)
class Run:
    outcome: Outcome = field(default_factory=Outcome)
    faces: list[dict[str, Any]] = field(default_factory=list)
    out: Path = Path()
    begins: dict[str, float] = field(default_factory=dict)
    """For each camera, the number of the clip's frame that the substream showed at its time 0."""

    @property
    def cpu(self) -> float:
        """CPU use of `serve`, in per cent of one core."""
        first, last = self.outcome.samples[0], self.outcome.samples[-1]
        return 100 * (last.cpu["serve"] - first.cpu["serve"]) / (last.seconds - first.seconds)

    @property
    def frames(self) -> int:
        first, last = self.outcome.samples[0].streams, self.outcome.samples[-1].streams
        return sum(one["frames_in"] - one["frames_dropped"] for one in last) - sum(
            one["frames_in"] - one["frames_dropped"] for one in first
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="?", type=Path, default=SHARED / "videos")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--clips", nargs="+", default=list(CLIPS))
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    machine = Machine.here()
    clips, missing = find_clips(options.videos, options.clips)
    if not clips:
        raise SystemExit("; ".join(missing))
    with tempfile.TemporaryDirectory(prefix="streamgate-two-") as name:
        folder = Path(name)
        pairs = []
        for index, clip in enumerate(clips):
            say(f"{clip.stem}: encoding")
            group = GROUPS[index % len(GROUPS)]
            pairs.append((
                encode(clip, folder / f"main-{clip.stem}.mp4", (1920, 1080), FPS, 4_000_000, group, empty=EMPTY_S),
                encode(clip, folder / f"sub-{clip.stem}.mp4", (640, 360), FPS, 500_000, 50, empty=EMPTY_S),
                group,
            ))  # fmt: skip
        alone = run(pairs, options, folder, both=False)
        both = run(pairs, options, folder, both=True)
        mains = [face for face in both.faces if face["stream"] == "main" and face["source_id"] in both.begins]
        judged = [judge(face, both, pairs) for face in mains]
        body = report(machine, alone, both, judged, pairs, options, missing)
    write_section(options.results, "twostreams", body)
    print(body)


def run(pairs: Sequence[tuple[Path, Path, int]], options: Any, folder: Path, *, both: bool) -> Run:
    epoch = time.monotonic() - 1000
    mains, subs = {}, {}
    for index in range(options.cameras):
        main_clip, sub_clip, _ = pairs[index % len(pairs)]
        common = {"epoch": epoch, "phase": 2.3 * index}
        subs[f"/sub{index}"] = {"clip": str(sub_clip), **common}
        if both:
            delay, drift = DELAYS[index % len(DELAYS)], DRIFTS[index % len(DRIFTS)]
            mains[f"/main{index}"] = {"clip": str(main_clip), "delay": delay, "drift": drift, **common}
    ports = {name: free_port() for name in ("redis", "http")}
    found = Run(out=folder / ("both" if both else "alone"))
    with (
        scenes(subs, mains, folder=folder) as (sub_cameras, main_cameras),
        process("redis", ["redis-server", "--port", str(ports["redis"]), "--save", "", "--dir", str(folder)],
                sorted_cores(), folder),
    ):  # fmt: skip
        wait_for_port(ports["redis"])
        command = [sys.executable, "-m", "streamgate", "serve", "--http", f"127.0.0.1:{ports['http']}",
                   "--redis", f"redis://127.0.0.1:{ports['redis']}/0", "--out", str(found.out)]  # fmt: skip
        for index in range(options.cameras):
            sub = sub_cameras.url(f"/sub{index}")
            address = f"{main_cameras.url(f'/main{index}')},{sub}" if both else sub
            command += ["--rtsp", f"cam{index}={address}"]
        for setting in options.settings:
            command += ["--set", setting]
        with process("serve", command, sorted_cores(), folder) as service:
            began = time.time()
            watch(found.outcome, service.pid, ports["http"], options)
            ended = time.time()
            service.terminate()
            service.wait(60)
        read_finals(ports["redis"], found.outcome, began + WARM_S, ended)
        found.faces = faces_of(found.out)
        if both:
            found.begins = beginnings(ports["redis"], pairs)
    return found


def sorted_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def watch(outcome: Outcome, pid: int, port: int, options: Any) -> None:
    deadline = time.monotonic() + 120
    while sum(one["state"] == "running" for one in listed(port)) < options.cameras:
        if time.monotonic() > deadline:
            raise SystemExit("the streams did not start within 120 s")
        time.sleep(0.5)
    say(f"all streams are running; warming up for {WARM_S:.0f} s")
    time.sleep(WARM_S)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < options.seconds or not outcome.samples:
        outcome.samples.append(Sample(passed, {"serve": cpu_seconds(pid)}, resident_mib(pid), listed(port)))
        time.sleep(max(0.0, min(2.0, options.seconds - passed)))
    sample = Sample(time.monotonic() - began, {"serve": cpu_seconds(pid)}, resident_mib(pid), listed(port))
    outcome.samples.append(sample)
    outcome.metrics = get(port, "/metrics")


def read_finals(port: int, outcome: Outcome, first: float, last: float) -> None:
    """Latencies of the tracks that ended between `first` and `last`: Redis's time stamp minus `ended_at`."""
    with redis.Redis(port=port) as client:
        for number, fields in client.xrange(STREAM):
            record = json.loads(fields[b"json"])
            if fields[b"kind"] != b"final" or not record["rank"]:
                continue
            ended = datetime.fromisoformat(record["ended_at"]).timestamp()
            if first <= ended <= last:
                outcome.finals += 1
                outcome.latencies.append(int(number.split(b"-")[0]) / 1000 - ended)


def faces_of(out: Path) -> list[dict[str, Any]]:
    """The records of the kept faces."""
    lines = [line for path in sorted(out.glob("cam*/*/faces.jsonl")) for line in path.read_text().splitlines()]
    return [record for record in map(json.loads, lines) if "stream" in record]


def beginnings(port: int, pairs: Sequence[tuple[Path, Path, int]]) -> dict[str, float]:
    """For each camera, the number of the frame that the substream showed at its time 0, from its `improved` faces."""
    found: dict[str, list[float]] = {}
    with redis.Redis(port=port) as client:
        for _, fields in client.xrange(STREAM):
            record = json.loads(fields[b"json"])
            name = record["source_id"]
            if record.get("stream") != "sub" or b"jpeg" not in fields or len(found.get(name, ())) >= 6:
                continue
            image = cv2.imdecode(np.frombuffer(fields[b"jpeg"], np.uint8), cv2.IMREAD_COLOR)
            index = which_picture(image, record, pairs[int(name.removeprefix("cam")) % len(pairs)][1], None)
            if index is not None:
                found.setdefault(name, []).append(index - record["pts_seconds"] * FPS)
    # Neighbouring frames of a substream are similar, so a face may be matched with a neighbour of the right frame.
    return {name: _middle(indexes, pairs, name) for name, indexes in found.items()}


def _middle(indexes: Sequence[float], pairs: Sequence[tuple[Path, Path, int]], name: str) -> float:
    """The median of frame numbers of a looped clip."""
    with av.open(str(pairs[int(name.removeprefix("cam")) % len(pairs)][1])) as container:
        count = container.streams.video[0].frames
    return indexes[0] + float(np.median([(index - indexes[0] + count / 2) % count - count / 2 for index in indexes]))


def judge(face: dict[str, Any], run: Run, pairs: Sequence[tuple[Path, Path, int]]) -> int | None:
    """By how many frames the face from the main stream is too late; None if it matches no frame nearby."""
    clip = pairs[int(face["source_id"].removeprefix("cam")) % len(pairs)][0]
    number = round(run.begins[face["source_id"]] + face["pts_seconds"] * FPS)
    with av.open(str(clip)) as container:
        count = container.streams.video[0].frames
    wanted = {(number + step) % count: step for step in range(-_REACH, _REACH + 1)}
    index = which_picture(cv2.imread(str(run.out / face["image"])), face, clip, wanted)
    return None if index is None else wanted[index]


def report(
    machine: Machine, alone: Run, both: Run, judged: Sequence[int | None], pairs: Sequence[Any], options: Any,
    missing: Sequence[str],
) -> str:  # fmt: skip
    extra = 100 * (both.cpu / alone.cpu - 1)
    each = 100 * (both.cpu / max(1, both.frames)) / (alone.cpu / max(1, alone.frames)) - 100
    right = sum(one is not None and abs(one) <= 1 for one in judged)
    latency = sorted(both.outcome.latencies)
    p95 = latency[min(len(latency) - 1, int(0.95 * len(latency)))] if latency else float("nan")
    before = sorted(alone.outcome.latencies)
    p95_alone = before[min(len(before) - 1, int(0.95 * len(before)))] if before else float("nan")
    last = both.outcome.samples[-1]
    ring = sum(one["main"]["ring_bytes"] for one in last.streams if one["main"]) / (1 << 20)
    fallbacks: Counter[str] = Counter()
    rows = []
    for index, one in enumerate(last.streams):
        told = one["main"]
        fallbacks.update(told["fallbacks"])
        rows.append([
            one["name"], f"{DELAYS[index % len(DELAYS)]:g}", f"{DRIFTS[index % len(DRIFTS)]:+g}",
            f"{pairs[index % len(pairs)][2] / FPS:g}", str(one["tracks"]), str(told["faces"]),
            ", ".join(f"{name} {count}" for name, count in told["fallbacks"].items() if count) or "none",
            "not measured" if told["drift"] is None else f"{told['drift']:+.0f}", f"{told['confidence']:.2f}",
        ])  # fmt: skip
    main = sum(face["stream"] == "main" for face in both.faces)
    spent = dict(re.findall(r'^streamgate_stage_seconds_(sum|count)\{stage="main"\} (\S+)', both.outcome.metrics, re.M))
    took = f"{1000 * float(spent['sum']) / float(spent['count']):.0f} ms" if spent else "nothing"
    share = 100 * right / max(1, len(judged))
    head = [
        "camera", "delay, s", "drift, ppm", "time between key frames, s", "tracks", "faces from the main stream",
        "fallbacks to the substream", "measured drift, ppm", "confidence",
    ]  # fmt: skip
    lines = [
        "## Two streams per camera",
        "",
        f"`{command_line('twostreams.py', sys.argv[1:])}`",
        "",
        *machine.lines(),
        f"- {options.cameras} cameras, measured for {options.seconds:.0f} s after a warm-up of {WARM_S:.0f} s: once "
        "with both streams, and once with the substreams alone",
        "- delay and drift are those of the main stream relative to the substream; [Two streams](../docs/streams.md) "
        "explains the fallbacks and the confidence",
        *(f"- **missing: {one}**" for one in missing),
        "",
        table(head, rows),
        "",
        target(
            "checked faces from the main stream that are at most one frame away from the right frame",
            f"{right} of {len(judged)} ({share:.1f} %); faces by distance in frames: "
            + ", ".join(f"{count} at {off}" for off, count in sorted(Counter(map(str, judged)).items())),
            f"at least {SHARE_LIMIT:g} %", share >= SHARE_LIMIT,
        ),
        f"- of {len(both.faces)} finals, {main} have a face from the main stream "
        f"({100 * main / max(1, len(both.faces)):.0f} %); reasons for using the substream: "
        + (", ".join(f"{name} {count}" for name, count in fallbacks.items() if count) or "none"),
        target(
            "additional CPU time compared with the substreams alone",
            f"{extra:+.1f} % ({both.cpu:.0f} % of a core with both streams, {alone.cpu:.0f} % with the substreams "
            f"alone; per analysed frame {each:+.1f} %)",
            f"at most {EXTRA_LIMIT:g} %", extra <= EXTRA_LIMIT,
        ),
        target(
            "delay from `ended_at` until the `final` is in Redis, p95",
            f"{p95:.2f} s with both streams ({both.outcome.finals} finals), {p95_alone:.2f} s with the substreams "
            f"alone ({alone.outcome.finals} finals)",
            f"at most {LATENCY_LIMIT:g} s", p95 <= LATENCY_LIMIT,
        ),
        f"- memory of `serve` at the end: {last.rss_mib:.0f} MiB with both streams, of which the main streams' recent "
        f"packets take {ring:.0f} MiB, and {alone.outcome.samples[-1].rss_mib:.0f} MiB with the substreams alone",
        f"- looking up a face in the main stream took {took} on average (wall time, including the wait for the "
        "networks)",
        f"- frames dropped: {dropped_share(both.outcome):.1f} % with both streams, {dropped_share(alone.outcome):.1f} "
        "% with the substreams alone",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    main()
