"""How much of a quality is chance? Faces scored again with their landmarks moved by less than anyone could see.

    python benchmarks/steadiness.py YARDSTICK CLIP [--preset studio] [--models embedded]

For the best face of each track of a kept yardstick (see `yardstick.py`) it prints, as JSON, the quality as stored and
the qualities at `DRAWS` sets of landmarks with a normal error of `SHIFT` eye distances in x and y. What these differ
by no selection can know, and the best of many faces is the luckiest of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from regret import value
from yardstick import load

from streamgate.defaults import DEFAULT_MODELS

SHIFT = 0.005
DRAWS = 12


def measure(kept: Path, clip: Path, preset: str, models: str) -> dict[str, list[float]]:
    """Track id -> [quality as stored, qualities with moved landmarks...]."""
    from streamgate.config import load_config
    from streamgate.frames import Candidate, Face
    from streamgate.networks import Networks
    from streamgate.networks.batcher import Batcher
    from streamgate.scoring.context import ScoringContext
    from streamgate.scoring.faces import FaceScorer
    from streamgate.scoring.lockstep import no_floor, run_in_lockstep
    from streamgate.sources import open_source

    best = {}
    for track_id, faces in load(kept).tracks.items():
        passing = [face for face in faces if face.passed and face.quality is not None]
        if passing:
            best[track_id] = max(passing, key=lambda face: (value(face), -face.pts))
    config = load_config(preset, ["advanced.refine=false"])
    networks = Networks.open(models, "cpu", 1, config.advanced.nms_iou)
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    with networks, Batcher.over(networks, config.advanced.low_score) as batcher, open_source(clip) as source:
        scorer = FaceScorer(ScoringContext.over(networks, config, batcher.infer))
        for frame in source.frames():
            for track_id, face in best.items():
                if face.pts != frame.pts_seconds:
                    continue
                points = np.array(face.landmarks, np.float32)
                eye = float(np.hypot(*(points[1] - points[0])))
                tried = []
                for _ in range(DRAWS):
                    moved = (points + rng.normal(0.0, SHIFT * eye, points.shape)).astype(np.float32)
                    candidate = Candidate(track_id, face.pts, Face(np.array(face.box, np.float32), moved, 1.0))
                    run_in_lockstep([scorer.score(candidate, frame.picture, no_floor, full=True)], batcher.infer)
                    if candidate.quality is not None:
                        tried.append(round(candidate.quality, 3))
                found[str(track_id)] = [value(face), *tried]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("yardstick", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--preset", default="studio")
    parser.add_argument("--models", default=DEFAULT_MODELS)
    given = parser.parse_args()
    print(json.dumps(measure(given.yardstick, given.clip, given.preset, given.models)))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
