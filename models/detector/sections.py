"""The sections of the evaluation: AFW, landmarks, close-ups, footage without faces, speed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.common.images import DataError, list_sources, read_rgb
from models.common.report import Section
from models.common.stats import mean_estimate
from models.detector.faces import overlap
from streamgate.faces import Face
from streamgate.networks.detector import Detector

THRESHOLD, MATCH_IOU, LONG_SIDE = 0.5, 0.35, 640
FRAME = (1280, 720)
FILLS = (0.3, 0.45, 0.6, 0.75, 0.9)
"""Heights of the faces in close-ups, as shares of the frame's height."""
LEAST_HQ_SCORE = 0.5

Networks = Mapping[str, Detector]
"""Detectors by name: "this", "open" or "embedded" (the other set in the package), "standard"."""


@dataclass(frozen=True)
class _Photo:
    picture: np.ndarray
    boxes: np.ndarray
    yaws: np.ndarray


def at_long_side(picture: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """The picture, scaled down if its longer side exceeds `side`, and the scale factor."""
    scale = min(1.0, side / max(picture.shape[:2]))
    if scale == 1.0:
        return picture, 1.0
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA), scale


def pairs(found: Sequence[Face], boxes: np.ndarray) -> dict[int, int]:
    """Match detections to labelled boxes: {index of the label: index of the detection}.

    In descending order of score, each detection takes the unmatched box that it overlaps most.
    """
    taken: dict[int, int] = {}
    if len(boxes) and found:
        shared = overlap(np.stack([face.box for face in found]), boxes)
        for number in range(len(found)):
            for label in np.argsort(-shared[number]):
                if shared[number, label] < MATCH_IOU:
                    break
                if int(label) not in taken:
                    taken[int(label)] = number
                    break
    return taken


def afw(folder: Path, networks: Networks) -> Section:
    """Recall and unmatched boxes on AFW's photos."""
    photos = list(_photos(folder))
    yaws = np.concatenate([photo.yaws for photo in photos])
    near = np.abs(yaws) <= 45
    section = Section(
        "AFW",
        ["detector", "recall", "recall, \\|yaw\\| <= 45", "unmatched boxes", "found, by size of face"],
        note=f"{len(photos)} photographs with {len(yaws)} faces, scaled to a long side of {LONG_SIDE} px; score "
        f"threshold {THRESHOLD}; a box matches a labelled face if their IoU is at least {MATCH_IOU}. Most unmatched "
        "boxes show people who have no label in AFW. The last column counts the faces below 24 px, from 24 to 64 px, "
        "and above 64 px.",
    )
    counts = {}
    for name, network in networks.items():
        hits, sides, unmatched = [], [], 0
        for photo in photos:
            found = network.detect([photo.picture], THRESHOLD)[0]
            taken = pairs(found, photo.boxes)
            hits += [i in taken for i in range(len(photo.boxes))]
            sides += list(np.sqrt(np.prod(photo.boxes[:, 2:] - photo.boxes[:, :2], axis=1)))
            unmatched += len(found) - len(taken)
        hit, side = np.array(hits, float), np.array(sides)
        groups = [hit[(side >= low) & (side < high)] for low, high in ((0, 24), (24, 64), (64, 1e9))]
        told = ", ".join(f"{int(g.sum())} of {len(g)}" for g in groups)
        every, frontal = mean_estimate(hit), mean_estimate(hit[near])
        section.rows.append([name, every.text(1, True), frontal.text(1, True), str(unmatched), told])
        counts[name] = (every.value, frontal.value, unmatched)
    own = counts["this"]
    section.goal("recall on AFW", own[0], 0.96, unit=" %")
    section.goal("recall on AFW, |yaw| <= 45", own[1], 0.98, unit=" %")
    if "standard" in counts:
        ratio = own[2] / max(1, counts["standard"][2])
        section.goal("unmatched boxes divided by the standard detector's", ratio, 1.3, at_most=True)
    return section


def landmarks(folder: Path, networks: Networks) -> Section:
    """Distances between this and the standard detector's landmarks on aligned faces, as shares of the eye distance."""
    errors, missed = [], 0
    for source_picture in _pictures(folder):
        faces = {name: _largest(network.detect([source_picture], THRESHOLD)[0]) for name, network in networks.items()}
        own, standard = faces["this"], faces["standard"]
        if standard is None:
            continue
        if own is None:
            missed += 1
            continue
        eyes = float(np.linalg.norm(standard.landmarks[1] - standard.landmarks[0]))
        errors.append(np.linalg.norm(own.landmarks - standard.landmarks, axis=1) / eyes)
    if not errors:
        raise DataError(f"{folder}: no face that both detectors find")
    table = np.stack(errors)
    distance = "mean distance to the standard detector's landmark, relative to the eye distance"
    section = Section(
        "Landmarks", ["landmark", distance, "95th percentile"],
        note=f"{len(table)} aligned faces of {folder.name} at 256 px; this detector missed {missed} of them.",
    )  # fmt: skip
    names = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
    for i, name in enumerate(names):
        column = table[:, i]
        section.rows.append([name, mean_estimate(column).text(1, True), f"{100 * np.quantile(column, 0.95):.1f} %"])
    whole = table.mean(axis=1)
    section.rows.append(["all five", mean_estimate(whole).text(1, True), f"{100 * np.quantile(whole, 0.95):.1f} %"])
    name = "distance of landmarks to the standard detector's, mean"
    section.goal(name, float(whole.mean()), 0.06, at_most=True, unit=" %")
    worst = float(np.quantile(whole, 0.95))
    name = "distance of landmarks to the standard detector's, 95th percentile"
    section.goal(name, worst, 0.06, at_most=True, unit=" %")
    return section


def close_ups(folder: Path, networks: Networks) -> Section:
    """Faces with 30 to 90 % of the height of a 1280x720 picture, detected at long sides of 640 and 1280 px."""
    found: dict[tuple[str, int, float], list[bool]] = {}
    several: dict[tuple[str, int], list[bool]] = {}
    for picture in _pictures(folder):
        face = _largest(networks["standard"].detect([picture], LEAST_HQ_SCORE)[0])
        if face is None:
            continue
        for fill in FILLS:
            frame, box = close_up(picture, face.box, fill)
            for side in (640, 1280):
                small, scale = at_long_side(frame, side)
                for name, network in networks.items():
                    boxes = [f.box for f in network.detect([small], THRESHOLD)[0]]
                    over = overlap(np.stack(boxes), box[None] * scale).max() if boxes else 0.0
                    found.setdefault((name, side, fill), []).append(over >= MATCH_IOU)
                    several.setdefault((name, side), []).append(len(boxes) > 1)
    section = Section(
        "Close-ups", ["detector", "long side", *(f"{100 * fill:.0f} %" for fill in FILLS), "all", "several boxes"],
        note=f"Faces of {folder.name} were pasted over a blurred copy of themselves in a picture of "
        f"{FRAME[0]}x{FRAME[1]}, so that the box has the given share of the picture's height. The columns "
        f"{100 * FILLS[0]:.0f} % to *all* show the share of faces that were found. The last column shows the share of "
        "faces with several boxes.",
    )  # fmt: skip
    for name in networks:
        for side in (640, 1280):
            columns = [np.array(found[name, side, fill], float) for fill in FILLS]
            every = np.concatenate(columns)
            twice = float(np.mean(several[name, side]))
            cells = [f"{100 * c.mean():.1f} %" for c in columns]
            section.rows.append([name, str(side), *cells, mean_estimate(every).text(1, True), f"{100 * twice:.1f} %"])
            if name == "this":
                section.goal(f"close-ups found at long side {side}", float(every.mean()), 0.99, unit=" %")
    return section


def close_up(picture: np.ndarray, box: np.ndarray, fill: float) -> tuple[np.ndarray, np.ndarray]:
    """A frame of 1280x720 with the face in the middle, at `fill` times the frame's height, and the box of the face."""
    width, height = FRAME
    scale = fill * height / float(box[3] - box[1])
    shift = np.array([width, height]) / 2 - (box[:2] + box[2:]) / 2 * scale
    backdrop = cv2.GaussianBlur(cv2.resize(picture, FRAME, interpolation=cv2.INTER_LINEAR), (0, 0), 40)
    matrix = np.array([[scale, 0, shift[0] + 0.5 * scale - 0.5], [0, scale, shift[1] + 0.5 * scale - 0.5]])
    frame = cv2.warpAffine(picture, matrix, FRAME, dst=backdrop, flags=cv2.INTER_CUBIC,
                           borderMode=cv2.BORDER_TRANSPARENT)  # fmt: skip
    placed = np.concatenate([box[:2] * scale + shift, box[2:] * scale + shift])
    return frame, np.clip(placed, 0, [width, height, width, height])


def empty_footage(videos: Sequence[Path], networks: Networks) -> Section:
    """Boxes in every frame of videos without faces, at the pipeline's long side of 640 px."""
    header = ["video", "frames", "detector", "boxes", "frames with a box", "highest score"]
    section = Section("Footage without faces", header)
    for video in videos:
        scores: dict[str, list[list[float]]] = {name: [] for name in networks}
        for frame in frames(video):
            small, _ = at_long_side(frame, LONG_SIDE)
            for name, network in networks.items():
                scores[name].append([face.score for face in network.detect([small], 0.05)[0]])
        for name, rows in scores.items():
            above = [sum(score >= THRESHOLD for score in row) for row in rows]
            top = max((max(row, default=0.0) for row in rows), default=0.0)
            section.rows.append(
                [video.name, str(len(rows)), name, str(sum(above)), str(sum(a > 0 for a in above)), f"{top:.2f}"]
            )
        if video is videos[0]:
            section.goal(
                f"boxes in {video.name}", sum(s >= THRESHOLD for row in scores["this"] for s in row), 0, at_most=True
            )
    return section


def speed(networks: Networks, runs: int = 40) -> Section:
    """CPU time for one picture of 640x360 on one thread, with the runs of all detectors interleaved."""
    picture = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(runs):
        for name, network in networks.items():
            start = time.process_time()
            network.detect([picture], 0.99)
            times[name].append(1000 * (time.process_time() - start))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    section = Section("Speed at 640x360, one thread", ["detector", "ms"], [[n, f"{m:.1f}"] for n, m in medians.items()])
    if "standard" in medians:
        ratio = medians["this"] / medians["standard"]
        section.goal("time divided by the standard detector's (noise: 5 %)", ratio, 1.05, at_most=True)
    return section


def frames(video: Path) -> Iterator[np.ndarray]:
    """Every frame, uint8 RGB."""
    import av

    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _photos(folder: Path) -> Iterator[_Photo]:
    try:
        entries = json.loads((folder / "annotations.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'annotations.json'}: {error}") from error
    for entry in entries:
        picture, scale = at_long_side(read_rgb(folder / entry["file"]), LONG_SIDE)
        boxes = np.array([face["box"] for face in entry["faces"]], float).reshape(-1, 4) * scale
        yield _Photo(picture, boxes, np.array([face["yaw_deg"] for face in entry["faces"]], float))


def _pictures(folder: Path) -> Iterator[np.ndarray]:
    for source in list_sources([folder]):
        picture = cv2.imdecode(np.frombuffer(source.data, np.uint8), cv2.IMREAD_COLOR)
        if picture is not None:
            yield np.ascontiguousarray(picture[..., ::-1])


def _largest(found: Sequence[Face]) -> Face | None:
    return max(found, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])), default=None)
