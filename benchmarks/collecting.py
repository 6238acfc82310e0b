"""Collects the scored faces, the kept faces and the cost of one configuration on a clip, for `bestshot.py`.

    python benchmarks/collecting.py CLIP FILE [--preset studio] [--models embedded] [--set key=value]

Writes a `Collected` to FILE (JSON, gzip). CPU times exclude start-up. Network runs are counted by kind when they are
requested; unlike CPU times, these counts do not depend on the load of the machine.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import threading
from collections import Counter as Counts
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import REPOSITORY, arguments
from contestants import open_decoder
from passing import Counter, run
from processes import answer, cpu_seconds
from regret import Pick, Scored


@dataclass(frozen=True, slots=True)
class Collected:
    """The results of one configuration on one clip.

    `decode_cpu` is the CPU time of decoding alone, in seconds, measured in the same process. `runs` counts network runs
    by kind (detector, refine, pose, ...); `detector_mpx` is the total of megapixels for `detector`. `code` is a digest
    of the code of the package.
    """

    clip: str
    seconds: float
    cpu: float
    decode_cpu: float
    runs: dict[str, float]
    tracks: dict[int, list[Scored]]
    picks: list[Pick]
    code: str


class Collector(Counter):
    """A sink that collects the scored faces by track, and the picks, without their pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.tracks_of: dict[int, list[Scored]] = {}
        self.picks: list[Pick] = []

    def evaluated(self, candidate: Any) -> None:
        face = Scored(candidate.pts_seconds, _box(candidate.face), candidate.quality, candidate.gate.passed)
        self.tracks_of.setdefault(candidate.track_id, []).append(face)

    def track(self, ended: Any) -> None:
        super().track(ended)
        for shot in ended.shots:
            if shot.rank == 1 and shot.gate.passed:
                self.picks.append(Pick(ended.track.track_id, shot.pts_seconds, _box(shot.face), shot.quality))


def _box(face: Any) -> tuple[float, ...]:
    return tuple(round(float(one), 2) for one in face.box)


def collect(clip: Path, preset: str, models: str, settings: Sequence[str]) -> Collected:
    """Run a configuration on a clip."""
    from streamgate.config import load_config
    from streamgate.engine import Engine

    decode, sink = open_decoder(models), Collector()
    with counted_runs() as runs, Engine(load_config(preset, settings), models=models, device="cpu") as engine:
        began = cpu_seconds()
        decode(clip)
        alone = cpu_seconds() - began
        runs.clear()
        began = cpu_seconds()
        (result,) = run(engine, [clip], sink)
        spent = cpu_seconds() - began
    tracks = {track_id: sorted(faces, key=lambda face: face.pts) for track_id, faces in sorted(sink.tracks_of.items())}
    seconds = result.duration_seconds
    return Collected(clip.stem, seconds, round(spent, 4), round(alone, 4), dict(runs), tracks, sink.picks, digest())


@contextmanager
def counted_runs() -> Iterator[Counts[str]]:
    """Count the requests to the networks while the block runs."""
    from streamgate.networks.batcher import Batcher, InferenceRequest
    from streamgate.scoring.faces import REFINE_SIDE

    counts: Counts[str] = Counts()
    lock = threading.Lock()
    infer = Batcher.infer

    def counting(self: Batcher, requests: Sequence[InferenceRequest], client: str = "") -> list[Any]:
        with lock:
            for request in requests:
                height, width = request.crop.shape[:2]
                refines = request.role == "detector" and (height, width) == (REFINE_SIDE, REFINE_SIDE)
                counts["refine" if refines else request.role] += 1
                if request.role == "detector" and not refines:
                    counts["detector_mpx"] += height * width / 1e6
        return infer(self, requests, client)

    Batcher.infer = counting  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        Batcher.infer = infer  # type: ignore[method-assign]


def digest() -> str:
    """A digest of the code of the package."""
    found = hashlib.sha256()
    for file in sorted((REPOSITORY / "streamgate").rglob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()[:12]


def kept_file(work: Path, clip: Path, config: Mapping[str, Any], weights: Sequence[Mapping[str, Any]]) -> Path:
    """The file for the result of a clip; its name depends on clip, configuration and weights."""
    made_of = [
        hashlib.sha256(clip.read_bytes()).hexdigest(), config, {one["role"]: one["sha256"] for one in weights}
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]
    return work / f"{clip.stem}-{key}.json.gz"


def save(path: Path, found: Collected) -> None:
    """Write a result atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with gzip.open(temporary, "wt", encoding="utf-8") as file:
        json.dump(asdict(found), file)
    os.replace(temporary, path)


def load(path: Path) -> Collected:
    """Read a result that `save` wrote."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        record = json.load(file)
    tracks = {
        int(name): [Scored(**{**face, "box": tuple(face["box"])}) for face in faces]
        for name, faces in record.pop("tracks").items()
    }
    picks = [Pick(**{**pick, "box": tuple(pick["box"])}) for pick in record.pop("picks")]
    return Collected(**record, tracks=tracks, picks=picks)


def main() -> dict[str, Any]:
    parser = arguments(__doc__, videos=False, gate=True, results=None)
    parser.add_argument("clip", type=Path)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    found = collect(given.clip, given.preset, given.models, given.settings)
    save(given.file, found)
    return {"faces": sum(map(len, found.tracks.values())), "tracks": len(found.tracks), "cpu": found.cpu}


if __name__ == "__main__":
    answer(main)
