"""Is static int8 worth it? Detector and IFQA quantised, beside themselves: time, and what their outputs differ by.

    python benchmarks/int8.py [VIDEOS] [--clips NAME...]

Every clip gives a frame each --every seconds. The first half of the frames calibrates (min and max, a scale a
channel), the other half is compared: boxes at 0.5 that appear or vanish, landmarks in eye distances, the IFQA scalar.
The recognizer is left alone: SER-FIQ's head must not be quantised (DESIGN 3), and its input is what the body gives.
Needs the convert extra (onnx). Writes its section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, SHARED, Machine, command_line, find_clips, say, table, target, write_section

from streamgate.frames import Array, Face
from streamgate.measures import Sigmoid
from streamgate.networks.alignment import ffhq_matrix
from streamgate.networks.detector import Detector
from streamgate.networks.device import load_onnxruntime
from streamgate.networks.priors import decode, priors, suppress
from streamgate.networks.sessions import Session
from streamgate.sources import open_source
from streamgate.tracking.overlap import iou
from streamgate.weights.store import LogisticCalibration, Weights, scan

SIDE = 352
"""Longer side of the detector's input for a 720p frame with the studio preset."""
REPEATS = 30
THRESHOLD, SAME = 0.5, 0.4
WORST_SCALAR, LEAST_RANK = 1.0, 0.999
"""Equal enough to take: no more than the scalar moves by a hair's shift of the landmarks."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="?", type=Path, default=SHARED / "videos")
    parser.add_argument("--clips", nargs="+")
    parser.add_argument("--every", type=float, default=2.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    machine = Machine.here()
    clips, notes = find_clips(given.videos, given.clips)
    try:
        import onnx  # noqa: F401
    except ImportError:
        notes.append("onnx is not installed (pip install '.[convert]'): nothing could be quantised")
        clips = []
    body = ["## Static int8", "", f"`{command_line('int8.py', sys.argv[1:])}`", "", *machine.lines()]
    if clips:
        body += measure(clips, given.every)
    body += [f"- **missing: {note}**" for note in notes]
    write_section(given.results, "int8", "\n".join(body))
    print("\n".join(body))
    return 0 if clips else 1


def measure(clips: Sequence[Path], every: float) -> list[str]:
    weights = {weights.roles[0]: weights for weights in scan("embedded") if weights.roles[0] in ("detector", "ifqa")}
    thumbnails, crops = collect(clips, every, weights["detector"])
    say(f"{len(thumbnails)} frames, {len(crops)} faces")
    used = ", ".join(f"{one.name} {one.sha256[:8]}" for one in weights.values())
    seen = f"{len(thumbnails)} frames and {len(crops)} faces of {len(clips)} clips; every second one calibrates"
    lines = [f"- weights: {used}", f"- {seen}"]
    rows = []
    with tempfile.TemporaryDirectory(prefix="streamgate-int8-") as folder:
        for role, inputs in (("detector", thumbnails), ("ifqa", crops)):
            one = weights[role]
            quantised = Path(folder) / f"{role}.onnx"
            feeds = [feed(one, picture) for picture in inputs]
            quantise(one.path, quantised, feeds[::2])
            plain, small = session(one.path), session(quantised)
            took = times(plain, small, feeds[1])
            compare = faces_apart if role == "detector" else scalars_apart
            said, equal = compare(one, plain, small, feeds[1::2])
            rows.append([one.name, f"{took[0]:.2f}", f"{took[1]:.2f}", f"{took[0] / took[1]:.2f}", said])
            lines.append(target(f"{one.name}: faster and equal", f"{took[0] / took[1]:.2f} x, {said}",
                                "to be taken", equal and took[1] < took[0]))  # fmt: skip
    return [*lines, "", table(["network", "float32, CPU ms", "int8, CPU ms", "faster by", "difference"], rows)]


def collect(clips: Sequence[Path], every: float, detector: Weights) -> tuple[list[Array], list[Array]]:
    """Detector inputs of one size, and FFHQ crops of the faces on them, all RGB uint8."""
    finder = Detector(Session(detector, "cpu"))
    thumbnails, crops = [], []
    for clip in clips:
        with open_source(clip) as source:
            due = 0.0
            for frame in source.frames():
                if frame.pts_seconds < due:
                    continue
                due = frame.pts_seconds + every
                small = frame.thumbnail(SIDE)
                thumbnails.append(padded(small))
                ratio = frame.width / small.shape[1]
                for face in finder.detect([small], THRESHOLD)[0]:
                    if face.inter_eye * ratio >= 24:
                        points = (face.landmarks + 0.5) * ratio - 0.5
                        crops.append(frame.picture.warp(ffhq_matrix(points, 256), 256))
    return thumbnails, crops


def padded(picture: Array) -> Array:
    """The picture in the corner of a square input, so that all inputs have one size."""
    square = np.full((SIDE, SIDE, 3), (123, 117, 104), np.uint8)
    square[: picture.shape[0], : picture.shape[1]] = picture
    return square


def feed(weights: Weights, picture: Array) -> dict[str, Array]:
    """One run's input by name, as the graph wants it."""
    if weights.roles[0] == "ifqa":
        return {"face": (picture.astype(np.float32).transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5}
    return {"image": picture[None]}


def quantise(path: Path, target_path: Path, feeds: Sequence[dict[str, Array]]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, Array]] = iter(feeds)

        def get_next(self) -> dict[str, Array] | None:
            return next(self._feeds, None)

    # Constants folded and float16 initialisers cast first, else the weights cannot be seen.
    options = load_onnxruntime().SessionOptions()
    options.graph_optimization_level = load_onnxruntime().GraphOptimizationLevel.ORT_ENABLE_BASIC
    folded = target_path.with_suffix(".folded.onnx")
    options.optimized_model_filepath = str(folded)
    load_onnxruntime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    quantize_static(
        str(folded), str(target_path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "LeakyRelu", "Relu", "Add", "AveragePool", "Resize", "Mul"],
    )  # fmt: skip


def session(path: Path) -> Any:
    options = load_onnxruntime().SessionOptions()
    options.intra_op_num_threads = 1
    return load_onnxruntime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def times(one: Any, other: Any, inputs: dict[str, Array]) -> tuple[float, float]:
    """Median CPU milliseconds of a run each, alternated."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for index, network in enumerate((one, other)):
            began = time.thread_time()
            network.run(None, inputs)
            taken[index].append(time.thread_time() - began)
    return 1000 * float(np.median(taken[0])), 1000 * float(np.median(taken[1]))


def faces_apart(weights: Weights, plain: Any, small: Any, feeds: Sequence[dict[str, Array]]) -> tuple[str, bool]:
    gone = new = both = 0
    moved = []
    for inputs in feeds:
        before, after = faces(plain, inputs), faces(small, inputs)
        matched = set()
        for face in before:
            overlaps = [float(iou(face.box[None], other.box[None])[0, 0]) for other in after]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best < 0 or overlaps[best] < SAME:
                gone += 1
                continue
            matched.add(best)
            both += 1
            apart = np.hypot(*(face.landmarks - after[best].landmarks).T)
            moved.append(float(apart.mean()) / max(face.inter_eye, 1.0))
        new += len(after) - len(matched)
    text = f"{both} faces in both, {gone} gone, {new} new; landmarks moved by {100 * float(np.median(moved)):.1f} % " \
           "of the eye distance in the median"  # fmt: skip
    return text, gone + new == 0 and float(np.median(moved)) < 0.01


def faces(network: Any, inputs: dict[str, Array]) -> list[Face]:
    loc, scores, landmarks = network.run(["loc", "conf", "landm"], inputs)
    above = np.flatnonzero(scores[0] >= THRESHOLD)
    boxes, points = decode(loc[0][above], landmarks[0][above], priors(SIDE, SIDE)[above])
    kept = suppress(boxes, scores[0][above], 0.4)
    return [Face(boxes[i], points[i], float(scores[0][above[i]])) for i in kept]


def scalars_apart(weights: Weights, plain: Any, small: Any, feeds: Sequence[dict[str, Array]]) -> tuple[str, bool]:
    assert isinstance(weights.calibration, LogisticCalibration)
    mapping = Sigmoid(weights.calibration.x0, weights.calibration.w)
    scalars = np.array([[mapping.scalar(float(network.run(["score"], inputs)[0].item())) for network in (plain, small)]
                        for inputs in feeds])  # fmt: skip
    apart = np.abs(scalars[:, 0] - scalars[:, 1])
    ranks = scalars.argsort(axis=0).argsort(axis=0)
    rank = float(np.corrcoef(ranks.T)[0, 1])
    text = f"scalar off by {apart.mean():.1f} in the mean, {apart.max():.1f} at most; rank correlation {rank:.4f}"
    return text, bool(apart.mean() < WORST_SCALAR and rank > LEAST_RANK)


if __name__ == "__main__":
    sys.exit(main())
