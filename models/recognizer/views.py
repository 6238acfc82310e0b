"""The evaluation's questions on pose, kinds of views and speed."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from models.common.images import DataError, read_rgb
from models.common.report import Section
from models.common.stats import mean_estimate
from models.recognizer.covers import mask, texture
from models.recognizer.network import Face, OwnNetwork, detect
from streamgate.networks import Networks
from streamgate.networks.alignment import arcface_matrix
from streamgate.zoo.store import models_folder

MATCH_IOU = 0.35
LARGEST_YAW = 60


def yaw(folder: Path, own: OwnNetwork, networks: Networks) -> Section:
    """AFW's labelled faces up to 60 degrees, and what mirroring does."""
    faces, labels = [], []
    for entry in json.loads((folder / "annotations.json").read_text()):
        picture = read_rgb(folder / entry["file"])
        found = detect(picture, networks, min(1.0, 640 / max(picture.shape[:2])))
        for labelled in entry["faces"]:
            match = max(found, key=lambda face: overlap(face.box, np.array(labelled["box"])), default=None)
            if match and overlap(match.box, np.array(labelled["box"])) >= MATCH_IOU and abs(labelled["yaw_deg"]) <= 60:
                faces.append(match)
                labels.append(labelled["yaw_deg"])
    crops = np.stack([face.crop for face in faces])
    pose, mirrored = own.run(crops).pose, own.run(np.ascontiguousarray(crops[:, :, ::-1])).pose
    error = mean_estimate(np.abs(pose[:, 0] - np.array(labels)))
    section = Section("Pose", ["figure", "degrees"], note=f"{len(faces)} faces of AFW with |yaw| <= {LARGEST_YAW}.")
    section.rows.append(["yaw, mean absolute error", error.text(1)])
    section.goal("yaw error on AFW", error.value, 10, at_most=True, unit=" degrees")
    for name, column, sign in (("yaw", 0, -1), ("pitch", 1, 1), ("roll", 2, -1)):
        off = mean_estimate(np.abs(mirrored[:, column] - sign * pose[:, column]))
        section.rows.append([f"{name} of the mirrored face, off by", off.text(1)])
    return section


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of boxes [x1, y1, x2, y2]."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def same_face(own: OwnNetwork, networks: Networks, frontal: Path, turning: Path) -> Section:
    """One face at 1080p, 360p and with a mask, and one from the side: what each figure says."""
    front = _largest(_frames(frontal, 30), networks)
    small = cv2.resize(front.picture, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(5)
    cloth = mask(rng)[..., None]
    covered = (front.crop * (1 - cloth) + cloth * texture(rng, "mask", front.crop)).astype(np.uint8)
    turned = [face for frame in _frames(turning, 6) for face in detect(frame, networks, 1.0)[:1]]
    poses = own.run(np.stack([face.crop for face in turned])).pose
    side = turned[int(np.abs(poses[:, 0]).argmax())]
    crops = {
        f"{frontal.stem}, as it is": front.crop,
        "the same frame at a third of its height": Face(small, (front.landmarks + 0.5) / 3 - 0.5, front.box / 3).crop,
        "the same with a drawn mask": covered,
        f"{turning.stem}, its most turned frame": side.crop,
    }
    section = Section("One face, four views", ["view", "SER-FIQ raw", "scalar", "visible", "yaw"])
    for name, crop in crops.items():
        output = own.run(crop[None])
        figures = (output.serfiq()[0], own.scalar(output)[0], output.visible[0], output.pose[0, 0])
        section.rows.append([name, *(f"{x:.{d}f}" for x, d in zip(figures, (3, 0, 2, 0), strict=True))])
    return section


def speed(own: OwnNetwork, runs: int = 60) -> Section:
    """One face on one thread: this graph, the same without its heads, the standard recognizer; interleaved."""
    import onnx.utils
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.onnx"
        onnx.utils.extract_model(str(own.path), str(bare), ["face"], ["embedding", "spread", "features"])
        files = {"this": own.path, "this without heads": bare}
        standard = models_folder() / "mobilefacenet-foamliu" / "model.onnx"
        if standard.is_file():
            files["standard recognizer"] = standard
        sessions = {
            name: onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            for name, file in files.items()
        }
    face = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(runs):
        for name, session in sessions.items():
            start = time.process_time()
            session.run(None, {session.get_inputs()[0].name: face})
            times[name].append(1000 * (time.process_time() - start))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    section = Section("Speed, one thread", ["graph", "ms a face"], [[n, f"{m:.2f}"] for n, m in medians.items()])
    extra = medians["this"] / medians["this without heads"] - 1
    section.goal("what the heads add", extra, 0.05, at_most=True, unit=" %")
    if "standard recognizer" in medians:
        ratio = medians["this"] / medians["standard recognizer"]
        section.goal("time over the standard recognizer's", ratio, 1.0, at_most=True)
    return section


def _frames(video: Path, every: int) -> list[np.ndarray]:
    import av

    with av.open(str(video)) as container:
        return [frame.to_ndarray(format="rgb24") for i, frame in enumerate(container.decode(video=0)) if i % every == 0]


def _largest(frames: Sequence[np.ndarray], networks: Networks) -> Face:
    """The face with the greatest eye distance of all frames: the most frontal, nearest one."""
    found = [face for frame in frames for face in detect(frame, networks, 640 / max(frame.shape[:2]))]
    if not found:
        raise DataError("no face found in the video")
    return max(found, key=lambda face: 1 / np.linalg.det(arcface_matrix(face.landmarks)[:, :2]))
