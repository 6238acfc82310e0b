"""The loop a user would write without this project, for `contestants.py`: the cost that `throughput.py` compares with.

Every frame becomes RGB and goes through the detector; each face found is aligned, embedded, its SER-FIQ sampled with
T = 100, and judged by IFQA: by our own network, or by one of the official architecture. Networks get all cores.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import usable_cores

DETECTOR_SIDE = 640
"""Longer side of what the detector sees, in pixels; RetinaFace's examples use 640."""
MIN_SCORE = 0.6
SAMPLES = 100
IFQA_SIDE, ARCFACE_SIDE = 256, 112

Judge = Callable[[np.ndarray], float]
"""Takes an FFHQ crop, RGB uint8 (256, 256, 3)."""


def open_loop(models: str, official: bool) -> Callable[[Path, float], tuple[int, float, int, int, int]]:
    """Load the networks.

    The loop takes a clip and how many seconds of it, and returns frames, seconds of video, height, width and faces.
    """
    from streamgate.measures.serfiq import sample_embeddings, sampled_spread
    from streamgate.networks import Networks
    from streamgate.networks.alignment import arcface_matrix, ffhq_matrix
    from streamgate.weights import SerfiqCalibration

    networks = Networks.open(models, "cpu", usable_cores())
    layer = networks.recognizer.last_affine()
    card = networks.calibration("recognizer")
    rate = card.drop_rate if isinstance(card, SerfiqCalibration) else 0.5
    evaluator = _official() if official else _own(networks)

    def score(rgb: np.ndarray, landmarks: np.ndarray) -> tuple[float, float]:
        aligned = cv2.warpAffine(rgb, arcface_matrix(landmarks), (ARCFACE_SIDE, ARCFACE_SIDE))
        features = networks.recognizer.run(aligned[None]).features[0]
        spread = sampled_spread(sample_embeddings(layer.weight, features, layer.bias, rate, SAMPLES))
        face = cv2.warpAffine(rgb, ffhq_matrix(landmarks, IFQA_SIDE), (IFQA_SIDE, IFQA_SIDE))
        return spread, evaluator(face)

    def run(clip: Path, seconds: float) -> tuple[int, float, int, int, int]:
        import av

        frames = faces = 0
        first, end = None, 0.0
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            step = float(1 / stream.average_rate) if stream.average_rate else 0.04
            for frame in container.decode(stream):
                time = frame.time if frame.time is not None else end + step
                first = time if first is None else first
                if time - first >= seconds - 1e-6:
                    break
                end = time + step
                rgb = frame.to_ndarray(format="rgb24")
                scale = min(1.0, DETECTOR_SIDE / max(rgb.shape[:2]))
                small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
                for face in networks.detector.detect([small], MIN_SCORE)[0]:
                    score(rgb, (face.landmarks + 0.5) / scale - 0.5)
                    faces += 1
                frames += 1
            return frames, end - (first or 0.0), stream.height, stream.width, faces

    return run


def _own(networks: Any) -> Judge:
    if networks.ifqa is None:
        raise ValueError("there are no IFQA weights")
    return lambda face: float(networks.ifqa.run(face[None]).score[0])


def _official() -> Judge:
    """The architecture of the paper with random weights: they take as long as trained ones."""
    import torch

    from streamgate.convert.ifqa import OFFICIAL, Ifqa, IfqaScorer

    torch.manual_seed(0)
    torch.set_num_threads(usable_cores())
    scorer = IfqaScorer(Ifqa(OFFICIAL), pool="full").eval()

    def evaluator(face: np.ndarray) -> float:
        values = torch.from_numpy(face.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1.0)
        with torch.inference_mode():
            return float(scorer(values)[0][0])

    return evaluator
