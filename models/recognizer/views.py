"""The sections of the evaluation on pose and speed, and the labelled faces of AFW."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.common.images import read_rgb
from models.common.report import Section
from models.common.stats import mean_estimate
from models.recognizer.network import Face, OwnNetwork, detect
from streamgate.networks import Networks
from streamgate.networks.device import load_onnxruntime
from streamgate.weights.store import models_folder

MATCH_IOU = 0.35
LARGEST_YAW = 60


def read_afw(folder: Path, networks: Networks) -> tuple[list[Face], np.ndarray]:
    """AFW's labelled faces that the detector finds, and their yaw in degrees."""
    faces, labels = [], []
    for entry in json.loads((folder / "annotations.json").read_text()):
        picture = read_rgb(folder / entry["file"])
        found = detect(picture, networks, min(1.0, 640 / max(picture.shape[:2])))
        for labelled in entry["faces"]:
            match = max(found, key=lambda face: overlap(face.box, np.array(labelled["box"])), default=None)
            if match and overlap(match.box, np.array(labelled["box"])) >= MATCH_IOU:
                faces.append(match)
                labels.append(labelled["yaw_deg"])
    return faces, np.array(labels)


def yaw(faces: Sequence[Face], labels: np.ndarray, own: OwnNetwork) -> Section:
    """Yaw error of faces of up to 60 degrees, and the deviation between a face and its mirror image."""
    near = np.abs(labels) <= LARGEST_YAW
    labels, crops = labels[near], np.stack([face.crop for face, close in zip(faces, near, strict=True) if close])
    pose, mirrored = own.run(crops).pose, own.run(np.ascontiguousarray(crops[:, :, ::-1])).pose
    error = mean_estimate(np.abs(pose[:, 0] - labels))
    section = Section("Pose", ["figure", "degrees"], note=f"{len(crops)} faces of AFW with |yaw| <= {LARGEST_YAW}.")
    section.rows.append(["yaw, mean absolute error", error.text(1)])
    section.goal("yaw error on AFW", error.value, 10, at_most=True, unit=" degrees")
    for name, column, sign in (("yaw", 0, -1), ("pitch", 1, 1), ("roll", 2, -1)):
        off = mean_estimate(np.abs(mirrored[:, column] - sign * pose[:, column]))
        section.rows.append([f"{name} of the mirrored face, deviation", off.text(1)])
    return section


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of boxes [x1, y1, x2, y2]."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def speed(own: OwnNetwork, runs: int = 200) -> Section:
    """CPU time for one face on one thread: this graph, this graph without heads, the standard networks; interleaved."""
    import onnx.utils
    onnxruntime = load_onnxruntime()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.onnx"
        onnx.utils.extract_model(str(own.path), str(bare), ["face"], ["embedding", "spread", "features"])
        files = {"this": own.path, "this without heads": bare}
        for name, weights in (("recognizer", "mobilefacenet-foamliu"), ("pose", "fsanet-headpose")):
            standard = models_folder() / weights / "model.onnx"
            if standard.is_file():
                files[f"standard {name}"] = standard
        sessions = {
            name: onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            for name, file in files.items()
        }
    noise = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    faces = {name: noise[:, : 64 if name == "standard pose" else 112] for name in sessions}
    faces = {name: np.ascontiguousarray(face[:, :, : face.shape[1]]) for name, face in faces.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(runs):
        for name, session in sessions.items():
            start = time.process_time()
            session.run(None, {session.get_inputs()[0].name: faces[name]})
            times[name].append(1000 * (time.process_time() - start))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    section = Section("Speed, one thread", ["graph", "ms per face"], [[n, f"{m:.2f}"] for n, m in medians.items()])
    if {"standard recognizer", "standard pose"} <= medians.keys():
        both = medians["standard recognizer"] + medians["standard pose"]
        name = "standard recognizer and standard pose together, which this network replaces"
        section.rows.append([name, f"{both:.2f}"])
    extra = medians["this"] / medians["this without heads"] - 1
    section.goal("what the heads add", extra, 0.05, at_most=True, unit=" %")
    if "standard recognizer" in medians:
        ratio = medians["this"] / medians["standard recognizer"]
        section.goal("time divided by the standard recognizer's time", ratio, 1.0, at_most=True)
    return section
