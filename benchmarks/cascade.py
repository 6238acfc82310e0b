"""One configuration over some clips, for `bestshot.py`: what it keeps and what that costs.

    python benchmarks/cascade.py CLIP... [--preset studio] [--models embedded] [--set key=value]

It prints one JSON object: for each clip the kept faces, the tracks' ends, CPU seconds without start-up, and how many
network runs of each kind were asked for, which unlike CPU time does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from collector import Collector, Ended
from contestants import cpu_seconds, open_decoder
from regret import Pick
from yardstick import code_digest

from streamgate.defaults import DEFAULT_MODELS


@dataclass(frozen=True, slots=True)
class Passed:
    """One clip under one configuration.

    `decode_cpu` are the CPU seconds of decoding alone, in the same process; `runs` counts network runs by kind
    (detect, refine, pose, recognizer, ifqa), with `detect_mpx` the megapixels that `detect` looked at.
    """

    clip: str
    seconds: float
    cpu: float
    decode_cpu: float
    runs: dict[str, float]
    faces_scored: int
    picks: list[Pick]
    ended: list[Ended]
    scored: list[tuple[float, tuple[float, ...], float]]
    """Every face that got a quality: pts, box, quality."""
    frames: int = 0
    """Frames decoded."""


def run(clips: Sequence[Path], preset: str, models: str, settings: Sequence[str]) -> list[Passed]:
    """Run a configuration over the clips, one after the other."""
    from streamgate.config import load_config
    from streamgate.engine import Engine
    from streamgate.sources import open_source

    decode = open_decoder(models)
    found = []
    with counted_runs() as runs, Engine(load_config(preset, settings), models=models, device="cpu") as engine:
        for clip in clips:
            began = cpu_seconds()
            decode(clip)
            alone = cpu_seconds() - began
            sink = Collector()
            runs.clear()
            runs["detect"] = 0
            began = cpu_seconds()
            (result,) = engine.run([partial(open_source, clip)], sink)
            spent = cpu_seconds() - began
            if result.status != "done":
                raise ValueError(f"{clip.name}: {result.error or result.status}")
            found.append(
                Passed(
                    clip.stem,
                    result.duration_seconds,
                    round(spent, 4),
                    round(alone, 4),
                    dict(sorted(runs.items())),
                    result.faces_scored,
                    sink.picks,
                    sink.ended,
                    [
                        (face.pts, face.box, face.quality)
                        for faces in sink.evaluated_faces.values()
                        for face in faces
                        if face.quality is not None
                    ],
                    result.frames,
                )
            )
    return found


@contextmanager
def counted_runs() -> Iterator[Counter[str]]:
    """Counts what is asked of the networks while it is open."""
    from streamgate.networks.batcher import Batcher, InferenceRequest
    from streamgate.scoring.faces import REFINE_SIDE

    counts: Counter[str] = Counter()
    lock = threading.Lock()
    infer = Batcher.infer

    def counting(self: Batcher, requests: Sequence[InferenceRequest], client: str = "") -> list[Any]:
        with lock:
            for request in requests:
                height, width = request.crop.shape[:2]
                kind = request.role
                if kind == "detector":
                    kind = "refine" if (height, width) == (REFINE_SIDE, REFINE_SIDE) else "detect"
                counts[kind] += 1
                if kind == "detect":
                    counts["detect_mpx"] += height * width / 1e6
        return infer(self, requests, client)

    Batcher.infer = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        Batcher.infer = infer  # type: ignore[method-assign]


def kept_file(
    work: Path, clips: Sequence[Path], preset: str, weights: Sequence[Mapping[str, Any]], settings: Sequence[str]
) -> Path:
    """Where a run's figures are kept: named by clips, configuration, weights and the package's code."""
    from streamgate.config import load_config

    made_of = {
        "clips": [hashlib.sha256(clip.read_bytes()).hexdigest() for clip in clips],
        "config": load_config(preset, settings).model_dump(mode="json"),
        "weights": {str(one["role"]): str(one["sha256"]) for one in weights},
        "code": code_digest((".",)),
    }
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    return work / f"cascade-{key}.json"


def read(printed: Sequence[dict[str, Any]]) -> list[Passed]:
    """What `main` printed."""
    return [
        Passed(
            **{
                **one,
                "picks": [Pick(**{**pick, "box": tuple(pick["box"])}) for pick in one["picks"]],
                "ended": [Ended(**{**end, "reasons": tuple(end["reasons"])}) for end in one["ended"]],
                "scored": [(pts, tuple(box), quality) for pts, box, quality in one["scored"]],
            }
        )
        for one in printed
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--preset", default="studio")
    parser.add_argument("--models", default=DEFAULT_MODELS)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    given = parser.parse_args()
    found = run(given.clips, given.preset, given.models, given.settings)
    print(json.dumps([asdict(one) for one in found]))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
