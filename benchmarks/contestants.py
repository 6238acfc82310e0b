"""The contestants that `throughput.py` compares. Each of them runs in a separate process, which runs this file:

    python benchmarks/contestants.py NAME CLIP [--models embedded] [--limit SECONDS]

The process prints a `Measured` as one JSON object; with the NAME `describe`, it prints versions and weights. A
contestant is a function (models, limit) -> (clip -> Outcome) in `CONTESTANTS`; everything that it imports and loads
before it returns counts as start-up.

`plain` and `plain_official` are the loop that a user would write without this project. Every frame is converted to RGB
and goes through the detector. Each detected face is aligned and embedded, its SER-FIQ is sampled with T = 100, and IFQA
scores it: `plain` uses our own IFQA network, `plain_official` the official architecture with random weights, which are
as fast as trained weights.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from common import arguments
from processes import STARTED, answer, cpu_seconds, peak_mib

from streamgate.parallel import usable_cores

DETECTOR_SIDE = 640
"""Longer side of the detector's input in the plain loop, in pixels; RetinaFace's examples use 640."""
MIN_SCORE = 0.6
SAMPLES = 100
IFQA_SIDE, ARCFACE_SIDE = 256, 112


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one pass over a clip. `video_seconds` is 0 if the contestant does not determine it.

    `faces` counts the scored faces of a contestant that scores every detected face. `networks` has the seconds spent in
    network runs (one thread each), by role.
    """

    frames: int = 0
    video_seconds: float = 0.0
    height: int = 0
    width: int = 0
    tracks: int = 0
    kept: int = 0
    faces: int = 0
    networks: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """One pass and its cost: wall time and CPU time (user + system, all threads) in seconds, peak memory in MiB."""

    outcome: Outcome
    startup_wall: float
    wall: float
    cpu: float
    peak_mib: float


Run = Callable[[Path], Outcome]


def open_decoder(models: str, limit: float = 0.0) -> Run:
    """Decoding alone: PyAV with automatic threads, every frame dropped."""
    import av

    def run(clip: Path) -> Outcome:
        frames, end = 0, 0.0
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                frames += 1
                if frame.pts is not None and frame.time_base is not None:
                    end = max(end, float((frame.pts + (frame.duration or 0)) * frame.time_base))
            start = float((stream.start_time or 0) * stream.time_base)
            return Outcome(frames, end - start, stream.height, stream.width)

    return run


def open_gate(models: str, limit: float, preset: str = "studio") -> Run:
    """streamgate's pipeline, with a sink that writes nothing."""
    import passing

    from streamgate.config import load_config
    from streamgate.engine import Engine

    spent: Counter[str] = Counter()
    mutex = threading.Lock()

    def observe(role: str, count: int, seconds: float) -> None:
        with mutex:
            spent[role] += seconds

    # The process ends with the run, so the engine is never closed.
    engine = Engine(load_config(preset), models=models, device="cpu", observe=observe)

    def run(clip: Path) -> Outcome:
        sink = passing.Counter()
        passing.run(engine, [clip], sink)
        return Outcome(tracks=sink.tracks, kept=sink.kept, networks=dict(spent))

    return run


def open_plain(models: str, limit: float, official: bool = False) -> Run:
    """The plain loop over the first `limit` seconds (0: the whole clip), with the networks on all cores."""
    import av
    import cv2

    from streamgate.measures.serfiq import sample_embeddings, sampled_spread
    from streamgate.networks import Networks
    from streamgate.networks.alignment import arcface_matrix, ffhq_matrix
    from streamgate.networks.ifqa import ifqa_scores
    from streamgate.weights import SerfiqCalibration

    networks = Networks.open(models, "cpu", usable_cores())
    weight, bias = networks.recognizer.last_affine()
    card = networks.calibration("recognizer")
    rate = card.drop_rate if isinstance(card, SerfiqCalibration) else 0.5
    ifqa = _official_ifqa() if official else lambda face: ifqa_scores(networks.ifqa, [face])[0].value

    def score(rgb: Any, landmarks: Any) -> tuple[float, float]:
        aligned = cv2.warpAffine(rgb, arcface_matrix(landmarks), (ARCFACE_SIDE, ARCFACE_SIDE))
        features = networks.recognizer.run(aligned[None]).features[0]
        spread = sampled_spread(sample_embeddings(weight, features, bias, rate, SAMPLES))
        return spread, ifqa(cv2.warpAffine(rgb, ffhq_matrix(landmarks, IFQA_SIDE), (IFQA_SIDE, IFQA_SIDE)))

    def run(clip: Path) -> Outcome:
        frames = faces = 0
        first, end = None, 0.0
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            step = float(1 / stream.average_rate) if stream.average_rate else 0.04
            for frame in container.decode(stream):
                shown = frame.time if frame.time is not None else end + step
                first = shown if first is None else first
                if limit and shown - first >= limit - 1e-6:
                    break
                end = shown + step
                rgb = frame.to_ndarray(format="rgb24")
                scale = min(1.0, DETECTOR_SIDE / max(rgb.shape[:2]))
                small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
                for face in networks.detector.detect([small], MIN_SCORE)[0]:
                    score(rgb, (face.landmarks + 0.5) / scale - 0.5)
                    faces += 1
                frames += 1
            return Outcome(frames, end - (first or 0.0), stream.height, stream.width, faces=faces)

    return run


def _official_ifqa() -> Callable[[Any], float]:
    """The official IFQA network. The function scores an FFHQ crop, RGB uint8 (256, 256, 3)."""
    import torch

    from streamgate.convert.ifqa import OFFICIAL, Ifqa, IfqaScorer

    torch.manual_seed(0)
    torch.set_num_threads(usable_cores())
    scorer = IfqaScorer(Ifqa(OFFICIAL), pool="full").eval()

    def score(face: Any) -> float:
        values = torch.from_numpy(face.transpose(2, 0, 1)[None].astype("float32") / 127.5 - 1.0)
        with torch.inference_mode():
            return float(scorer(values)[0][0])

    return score


CONTESTANTS: dict[str, Callable[[str, float], Run]] = {
    "decode": open_decoder,
    "streamgate": open_gate,
    "archive": partial(open_gate, preset="archive"),
    "plain": open_plain,
    "plain_official": partial(open_plain, official=True),
}


def describe(models: str) -> dict[str, object]:
    """The versions and weights with which the pipeline runs on this machine."""
    from streamgate.config import load_config
    from streamgate.engine import Engine

    with Engine(load_config("studio"), models=models, device="cpu") as engine:
        info = engine.run_info()
        return {"versions": dict(info.versions), "weights": [dict(one) for one in info.weights]}


def measure(name: str, clip: Path, models: str, limit: float = 0.0) -> Measured:
    """Load a contestant, run it once over the clip and return the cost of each part."""
    began = float(os.environ.get(STARTED) or time.monotonic())
    run = CONTESTANTS[name](models, limit)
    ready, ready_cpu = time.monotonic(), cpu_seconds()
    outcome = run(clip)
    done, done_cpu = time.monotonic(), cpu_seconds()
    return Measured(outcome, ready - began, done - ready, done_cpu - ready_cpu, peak_mib())


def main() -> object:
    parser = arguments(__doc__, videos=False, gate=True, results=None)
    parser.add_argument("name", choices=[*CONTESTANTS, "describe"])
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--limit", type=float, default=0.0, help="seconds of video that the plain loops read; 0: all")
    given = parser.parse_args()
    if given.name == "describe":
        return describe(given.models)
    if given.clip is None:
        parser.error(f"{given.name} needs a CLIP")
    return asdict(measure(given.name, given.clip, given.models, given.limit))


if __name__ == "__main__":
    answer(main)
