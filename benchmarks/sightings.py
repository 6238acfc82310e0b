"""The faces of every frame of a clip with an embedding each, for `tracking.py`; kept, since it takes a while.

    python benchmarks/sightings.py CLIP FILE [--preset studio] [--models embedded] [--judge standard]

Detections are those of the pipeline in exhaustive mode: its detector's input, its cuts. Embeddings come from the
recognizer of --judge.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import child

from streamgate.defaults import DEFAULT_MODELS
from streamgate.frames import Array, Face
from streamgate.measures.size import shorter_side
from streamgate.measures.yaw import yaw_proxy

SURE_SIDE = 32.0
"""Shorter side of a box in pixels from which an embedding may judge who it is."""
SURE_YAW = 40.0
SURE_SERFIQ = 0.1
"""... with the head turned no further than so many degrees by its landmarks, and SER-FIQ's scalar no lower."""
SURE_SCORE = 0.6


@dataclass(frozen=True, slots=True)
class Detected:
    """A face of one frame; `embedding` float32 (D,), unit length; `serfiq` is SER-FIQ's scalar, 0..100."""

    face: Face
    embedding: Array
    serfiq: float

    @property
    def sure(self) -> bool:
        """Its embedding may judge who it is."""
        box = self.face.box
        side = shorter_side(box)
        turned = abs(yaw_proxy(self.face))
        return self.face.score >= SURE_SCORE and side >= SURE_SIDE and turned <= SURE_YAW and self.serfiq >= SURE_SERFIQ


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame: its faces by score, whether it begins a shot, and which shot it is in."""

    pts: float
    shot: int
    cut: bool
    faces: tuple[Detected, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A clip."""

    moments: tuple[Moment, ...]


def load_seen(
    clip: Path, preset: str, models: str, judge: str, weights: Sequence[Mapping[str, Any]], work: Path
) -> tuple[Seen | None, str]:
    """A clip's detections, kept or made now in a child; None and why when there are none."""
    from yardstick import code_digest

    made_of = [hashlib.sha256(clip.read_bytes()).hexdigest(), preset, judge, code_digest(), Path(__file__).read_text()]
    made_of += [str(one["sha256"]) for one in weights]
    file = work / f"{clip.stem}-faces-{hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]}.npz"
    if not file.is_file():
        which = ("--preset", preset, "--models", models, "--judge", judge)
        made, problem = child("sightings.py", str(clip), str(file), *which)
        if made is None:
            return None, problem
    return load(file), ""


def detect(clip: Path, preset: str, models: str, judge: str) -> Seen:
    """Detect the faces of every frame with the networks of `models`, and embed them with those of `judge`."""
    from streamgate.config import load_config
    from streamgate.measures import Sigmoid
    from streamgate.measures.serfiq import raw_from_spread
    from streamgate.networks import Networks
    from streamgate.networks.alignment import arcface_matrix
    from streamgate.networks.batcher import Batcher, InferenceRequest
    from streamgate.runtime.tracking_stage import TrackingStage
    from streamgate.scoring.calibration import Calibration
    from streamgate.scoring.faces import enlarged
    from streamgate.sources import open_source
    from streamgate.tracking.cuts import Change, CutDetector

    config = load_config(preset, ["exhaustive=true"])
    networks = Networks.open(models, "cpu", 1, config.advanced.nms_iou)
    judging = networks if judge == models else Networks.open(judge, "cpu", 1)
    mapping = Calibration.of_networks(judging, config).mappings.get("serfiq", Sigmoid(0.0, 1.0))
    cuts = CutDetector(config.advanced)
    shots = itertools.count(1)
    shot = 0
    moments: list[Moment] = []
    with networks, Batcher.over(networks, config.advanced.low_score) as batcher, open_source(clip) as source:
        answered: list[tuple[Array, list[Face]]] = []

        def infer(requests: Sequence[InferenceRequest]) -> list[Any]:
            found = batcher.infer(requests)
            answered.append((requests[0].crop, found[0]))
            return found

        tracking = TrackingStage(config, infer)
        for frame in source.frames():
            cut = cuts.look(frame) is Change.CUT
            shot = next(shots) if cut else shot
            # The follower chooses the detector's input; what it makes of the faces is not of interest here.
            list(tracking.moments([frame]))
            thumbnail, found = answered.pop()
            faces = enlarged(found, thumbnail, frame.picture)
            detected = []
            for face in faces:
                output = judging.recognizer.run(frame.warp(arcface_matrix(face.landmarks), 112)[None]).row(0)
                serfiq = mapping.scalar(raw_from_spread(float(output.spread)))
                detected.append(Detected(face, _unit(output.embedding), serfiq))
            moments.append(Moment(frame.pts_seconds, shot, cut, tuple(detected)))
    return Seen(tuple(moments))


def save(path: Path, seen: Seen) -> None:
    """In one step or not at all."""
    faces = [(index, one) for index, moment in enumerate(seen.moments) for one in moment.faces]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    np.savez_compressed(
        temporary,
        pts=np.array([moment.pts for moment in seen.moments]),
        shot=np.array([moment.shot for moment in seen.moments], int),
        cut=np.array([moment.cut for moment in seen.moments], bool),
        frame=np.array([index for index, _ in faces], int),
        box=np.array([one.face.box for _, one in faces], np.float32).reshape(-1, 4),
        landmarks=np.array([one.face.landmarks for _, one in faces], np.float32).reshape(-1, 5, 2),
        score=np.array([one.face.score for _, one in faces]),
        embedding=np.array([one.embedding for _, one in faces], np.float32),
        serfiq=np.array([one.serfiq for _, one in faces]),
    )
    os.replace(temporary, path)


def load(path: Path) -> Seen:
    """What `save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        parts = {name: stored[name] for name in stored.files}
    faces: dict[int, list[Detected]] = {}
    for index, frame in enumerate(parts["frame"]):
        face = Face(parts["box"][index], parts["landmarks"][index], float(parts["score"][index]))
        faces.setdefault(int(frame), []).append(
            Detected(face, parts["embedding"][index], float(parts["serfiq"][index]))
        )
    return Seen(
        tuple(
            Moment(float(pts), int(shot), bool(cut), tuple(faces.get(index, ())))
            for index, (pts, shot, cut) in enumerate(zip(parts["pts"], parts["shot"], parts["cut"], strict=True))
        )
    )


def _unit(vector: Array) -> Array:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--preset", default="studio")
    parser.add_argument("--models", default=DEFAULT_MODELS)
    parser.add_argument("--judge", default=DEFAULT_MODELS)
    given = parser.parse_args()
    seen = detect(given.clip, given.preset, given.models, given.judge)
    save(given.file, seen)
    print(json.dumps({"frames": len(seen.moments), "faces": sum(len(moment.faces) for moment in seen.moments)}))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
