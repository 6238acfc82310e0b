"""Scores of pictures by the shipped IFQA and by its peers; the peers' scores are cached on disk."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.common.images import DataError
from models.ifqa.peers import Measure
from streamgate.networks.device import load_onnxruntime

CHUNK = 16


def to_blob(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The network's input, float32 [N, 3, 256, 256], from pictures uint8 [256, 256, 3] RGB: (x / 255 - 0.5) / 0.5."""
    stacked = np.stack(pictures).astype(np.float32)
    return np.ascontiguousarray(((stacked / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2))


class Shipped:
    """The ONNX file that is shipped.

    Raises DataError if the card is missing, or if the file does not have the sha256 that the card states.
    """

    def __init__(self, folder: Path, threads: int = 0) -> None:
        card_path = folder / "card.json"
        if not card_path.is_file():
            raise DataError(f"{card_path} is missing: run train.py first")
        self.card: dict[str, Any] = json.loads(card_path.read_text())
        data = (folder / self.card["file"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.card["sha256"]:
            raise DataError(f"{folder / self.card['file']}: sha256 differs from {card_path}; export the network again")
        options = load_onnxruntime().SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = load_onnxruntime().InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def scores(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Scores, [N] in 0..1."""
        parts = [pictures[i : i + CHUNK] for i in range(0, len(pictures), CHUNK)]
        return np.concatenate([self.session.run(["score"], {"face": to_blob(p)})[0] for p in parts])

    def maps(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Realness maps, [N, 256, 256] in 0..1."""
        parts = [pictures[i : i + CHUNK] for i in range(0, len(pictures), CHUNK)]
        return np.concatenate([self.session.run(["map"], {"face": to_blob(p)})[0] for p in parts])


def one_thread_milliseconds(model: Path, repeats: int = 40) -> float:
    """Median time in ms for one face of 256 x 256 px on one CPU thread."""
    options = load_onnxruntime().SessionOptions()
    options.intra_op_num_threads = 1
    session = load_onnxruntime().InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    blob = np.random.default_rng(0).uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        session.run(None, {"face": blob})
        times.append(time.perf_counter() - start)
    return float(np.median(times[4:]) * 1000)


class Scorers:
    """All measures: IFQA first, then the peers. The peers' scores are stored in the folder `cache` for later runs."""

    def __init__(self, shipped: Shipped, peers: dict[str, Measure], cache: Path) -> None:
        self.shipped, self.peers, self.cache = shipped, peers, cache
        cache.mkdir(parents=True, exist_ok=True)

    @property
    def names(self) -> list[str]:
        """Names of the measures: IFQA, and the peers that could be loaded."""
        return ["IFQA", *self.peers]

    def score(self, pictures: Sequence[np.ndarray], peers: bool = True) -> dict[str, np.ndarray]:
        """Scores [N] by name of the measure; peers: also compute the peers' scores."""
        out = {"IFQA": self.shipped.scores(pictures)}
        if not peers:
            return out
        digest = hashlib.sha256()
        for picture in pictures:
            digest.update(picture.tobytes())
        for name, measure in self.peers.items():
            path = self.cache / f"{name}-{digest.hexdigest()[:20]}.npy"
            if not path.is_file():
                np.save(path, np.array([measure(p) for p in pictures]))
            out[name] = np.load(path)
        return out
