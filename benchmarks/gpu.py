"""Does the GPU work, how fast, and does it compute what the CPU computes? Under three minutes, no network.

    python benchmarks/gpu.py [CLIP] [--device cuda] [--faces FOLDER] [--models embedded]

For each network at batches of 1 and 16: rows a second on the device and on one CPU core, and the largest deviation of
any output over 50 real faces. Then one clip from end to end on both. Without a card it says what is missing and exits
with 6; `--device cpu` goes the same way on the CPU, to try the script. Writes its section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from common import RESULTS, SHARED, Machine, command_line, say, table, target, write_section

from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import StreamgateError
from streamgate.frames import Array
from streamgate.networks.alignment import EXPRESSION_SIZE, arcface_matrix, box_matrix, expression_matrix, ffhq_matrix
from streamgate.networks.detector import Detector
from streamgate.networks.device import Device, choose_device, load_onnxruntime
from streamgate.networks.runtime import Session, as_input
from streamgate.weights.store import Weights, resolve

BATCHES = (1, 16)
FACES = 50
SECONDS = 2.0
"""For which each network and batch size is run."""
TOLERANCE = 1e-3
"""Largest deviation of a raw value from the CPU's, of its own size where that is above 1 (DESIGN 3)."""
SCENE = (384, 640)


@dataclass(frozen=True, slots=True)
class Measured:
    """One network: rows a second by batch size on device and CPU, and the largest deviation with its output's name."""

    roles: tuple[str, ...]
    device: Mapping[int, float]
    cpu: Mapping[int, float]
    deviation: float
    where: str


def main() -> int:
    given = _arguments()
    try:
        device = choose_device(given.device)
        networks = resolve(given.models)
        say(f"device: {device}")
        crops = _crops(given.faces, networks)
        measured = [
            _measure(weights, roles, crops[roles[0]], device) for weights, roles in _distinct(networks)
        ]
        runs = {name: _run(given.clip, name, given.models) for name in dict.fromkeys((device.name, "cpu"))}
    except StreamgateError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return error.exit_code
    write_section(given.results, "gpu", _body(device, measured, runs, given))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=SHARED / "videos" / "fsgan_conan.mp4")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--faces", type=Path, default=SHARED / "faces" / "hq_val", help="pictures with a face each")
    parser.add_argument("--models", default=DEFAULT_MODELS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def _distinct(networks: Mapping[str, Weights]) -> list[tuple[Weights, tuple[str, ...]]]:
    """Each file once, with the roles it fills."""
    paths = dict.fromkeys(weights.path for weights in networks.values())
    groups = [[role for role, weights in networks.items() if weights.path == path] for path in paths]
    return [(networks[roles[0]], tuple(roles)) for roles in groups]


def _crops(folder: Path, networks: Mapping[str, Weights]) -> dict[str, Array]:
    """`FACES` rows RGB uint8 for each role, cut from the pictures of `folder`."""
    detector = Detector(Session(networks["detector"], "cpu"))
    rows: dict[str, list[Array]] = {role: [] for role in networks}
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        picture = cv2.imread(str(path))
        if picture is None or len(rows["detector"]) == FACES:
            continue
        picture = np.ascontiguousarray(picture[..., ::-1])
        if not (found := detector.detect([picture])[0]):
            continue
        face = found[0]
        scale = SCENE[0] / max(picture.shape[:2])
        views = {
            "detector": (np.array([[scale, 0, 0], [0, scale, 0]]), SCENE[::-1]),
            "recognizer": (arcface_matrix(face.landmarks), (112, 112)),
            "pose": (box_matrix(face.box, 64), (64, 64)),
            "expression": (expression_matrix(face.landmarks), EXPRESSION_SIZE[::-1]),
            "ifqa": (ffhq_matrix(face.landmarks, 256), (256, 256)),
        }
        for role in rows:
            matrix, size = views[role]
            rows[role].append(cv2.warpAffine(picture, matrix, size))
    if not rows["detector"]:
        raise StreamgateError(f"no faces in {folder}; give a folder of pictures with --faces")
    return {role: np.stack(pictures) for role, pictures in rows.items()}


def _measure(weights: Weights, roles: tuple[str, ...], crops: Array, device: Device) -> Measured:
    rows = as_input(crops, weights.input)
    sessions = {"device": Session(weights, device), "cpu": Session(weights, "cpu")}
    outputs = {name: session.run_rows(rows) for name, session in sessions.items()}
    deviations = {
        name: float((np.abs(outputs["device"][name] - value) / np.maximum(1, np.abs(value))).max())
        for name, value in outputs["cpu"].items()
    }
    where = max(deviations, key=lambda name: deviations[name])
    rates = {name: {batch: _rate(session, rows, batch) for batch in BATCHES} for name, session in sessions.items()}
    say(f"{', '.join(roles)}: {rates['device'][BATCHES[-1]]:.0f} rows a second, deviation {deviations[where]:.1e}")
    return Measured(roles, rates["device"], rates["cpu"], deviations[where], where)


def _rate(session: Session, rows: Array, batch: int) -> float:
    """Rows a second in batches of `batch`, transfers included, over `SECONDS` after one run to warm up."""
    chunk = np.resize(rows, (batch, *rows.shape[1:]))
    session.run_rows(chunk)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        session.run_rows(chunk)
        count += batch
    return count / (time.perf_counter() - began)


def _run(clip: Path, device: str, models: str) -> dict[str, object]:
    """`streamgate run` on a clip: seconds of wall, what ran, and which faces were kept."""
    with tempfile.TemporaryDirectory() as out:
        options = ["-o", out, "--device", device, "--models", models, "--overwrite", "--quiet"]
        command = [sys.executable, "-m", "streamgate", "run", str(clip), *options]
        began = time.perf_counter()
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
        wall = time.perf_counter() - began
        if ran.returncode != 0:
            raise StreamgateError(f"streamgate run --device {device} ended with {ran.returncode}: {ran.stderr.strip()}")
        summary = json.loads((Path(out) / "summary.json").read_text())
        records = [json.loads(line) for line in (Path(out) / "faces.jsonl").read_text().splitlines()]
    picks = [(one["track_id"], one["pts_seconds"], one["quality"]) for one in records]
    return {"wall": wall, "device": summary["device"], "picks": picks}


def _body(device: Device, measured: list[Measured], runs: Mapping[str, dict], given: argparse.Namespace) -> str:
    machine = Machine.here()
    ort = load_onnxruntime()
    rows = [
        [
            ", ".join(one.roles),
            *(f"{one.device[batch]:.0f}" for batch in BATCHES),
            *(f"{one.cpu[batch]:.0f}" for batch in BATCHES),
            f"{one.deviation:.1e} ({one.where})",
        ]
        for one in measured
    ]
    worst = max(one.deviation for one in measured)
    own, cpu = runs[device.name], runs["cpu"]
    same = [one[:2] for one in own["picks"]] == [one[:2] for one in cpu["picks"]]
    lines = [
        "## GPU",
        "",
        f"`{command_line('gpu.py', sys.argv[1:])}`",
        "",
        *machine.lines(),
        f"- card: {_card()}",
        f"- ONNX Runtime {ort.__version__}, CUDA {ort.cuda_version or 'none'}; device: {device}",
        "" if device.index is not None else "- **not run on a card: device and CPU are the same here**",
        "",
        "Rows a second, transfers included; one core on the CPU.",
        "",
        table(
            ["network", *(f"{device.name}, batch {n}" for n in BATCHES), *(f"CPU, batch {n}" for n in BATCHES),
             "largest deviation"],
            rows,
        ),
        "",
        f"`streamgate run {given.clip.name}`, start-up included: {own['wall']:.1f} s on {own['device']}, "
        f"{cpu['wall']:.1f} s on the CPU; kept faces {len(own['picks'])} and {len(cpu['picks'])}, "
        f"{'the same' if same else '**other**'} ones.",
        "",
        target("largest deviation", f"{worst:.1e}", f"{TOLERANCE:.0e}", worst <= TOLERANCE),
        target("kept faces", "the same" if same else "others", "the same", same),
    ]  # fmt: skip
    return "\n".join(lines)


def _card() -> str:
    """Name, memory and driver of the cards, as the driver's own tool tells them."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        ran = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "none that nvidia-smi knows"
    return "; ".join(ran.stdout.split("\n")).rstrip("; ")


if __name__ == "__main__":
    sys.exit(main())
