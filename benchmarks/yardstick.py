"""The yardstick of `bestshot.py`: every face of every frame of a clip, scored, by track. Slow, so it is kept.

    python benchmarks/yardstick.py CLIP FILE [--preset studio] [--models embedded] [--peers FOLDER]

Scores CLIP in exhaustive mode into FILE (JSON, gzip), then reads the clip again and asks measures that the selector
never uses (LightQNet, NIQE) about the same faces. A process of its own, so that several can run side by side.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from collector import Collector
from common import REPOSITORY
from contestants import cpu_seconds
from regret import Scored

from streamgate.defaults import DEFAULT_MODELS

PEERS = ("LightQNet", "NIQE")
MATTERS = ("measures", "scoring", "networks", "sources", "tracking", "runtime", "selection", "frames.py")
"""Parts of the package that decide what exhaustive mode says."""
_CHOOSING = frozenset(
    {"dense_interval_s", "empty_interval_s", "window_s", "per_window", "min_gain", "prescore_interval_s",
     "prescore_share", "cooldown_ratio", "confirm_delay_s", "network_margin", "lookback_s"}
)  # fmt: skip
"""Keys of `advanced` that only decide which faces are looked at."""


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What exhaustive mode said about a clip.

    `cpu` is what it cost in CPU seconds, `code` a digest of the package's code that said it; `absent` names peers
    that could not be asked.
    """

    clip: str
    seconds: float
    frames: int
    cpu: float
    code: str
    names: tuple[str, ...]
    tracks: Mapping[int, Sequence[Scored]]
    absent: tuple[str, ...] = ()


def settings_that_matter(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that exhaustive scores depend on: not how candidates are chosen or kept."""
    whole = {name: config[name] for name in ("tracking", "measures", "serfiq")}
    advanced = {name: value for name, value in config["advanced"].items() if name not in _CHOOSING}
    output = {name: config["output"][name] for name in ("size", "upscale", "max_upscale")}
    return {**whole, "advanced": advanced, "output": output}


def cache_key(clip: Path, config: Mapping[str, Any], weights: Sequence[Mapping[str, Any]], peers: Path | None) -> str:
    """Names a clip's yardstick by all that it was made of, save the code."""
    made_of = {
        "clip": hashlib.sha256(clip.read_bytes()).hexdigest(),
        "config": settings_that_matter(config),
        "weights": {one["role"]: one["sha256"] for one in weights},
        "peers": peers is not None,
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def code_digest(parts: Sequence[str] = MATTERS) -> str:
    """Of the package's files that exhaustive scores depend on, or of other parts ("." for all)."""
    package = REPOSITORY / "streamgate"
    digest = hashlib.sha256()
    for part in parts:
        path = package / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def save(path: Path, found: Yardstick) -> None:
    """In one step or not at all."""
    record = {
        "clip": found.clip,
        "seconds": found.seconds,
        "frames": found.frames,
        "cpu": found.cpu,
        "code": found.code,
        "names": found.names,
        "absent": found.absent,
        "tracks": {str(track_id): [_to_list(face) for face in faces] for track_id, faces in found.tracks.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with gzip.open(temporary, "wt", encoding="utf-8") as file:
        json.dump(record, file)
    os.replace(temporary, path)


def load(path: Path) -> Yardstick:
    """What `save` wrote."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        record = json.load(file)
    tracks = {int(name): [_from_list(one) for one in faces] for name, faces in record.pop("tracks").items()}
    record["names"], record["absent"] = tuple(record["names"]), tuple(record["absent"])
    return Yardstick(**record, tracks=tracks)


def measure(clip: Path, preset: str, models: str, settings: Sequence[str], peers: Path | None) -> Yardstick:
    """Score every face of a clip."""
    from streamgate import Gate
    from streamgate.sources import open_source

    code = code_digest()
    with Gate(preset, models=models, device="cpu", settings=[*settings, "exhaustive=true"]) as gate:
        before = cpu_seconds()
        sink = Collector()
        (result,) = gate.process([partial(open_source, clip)], sink)
        if result.status != "done":
            raise ValueError(f"{clip.name}: {result.error or result.status}")
        names = gate.run_info().measure_set
    spent = cpu_seconds() - before
    asked, absent = _peers(peers)
    if asked:
        _ask_peers(clip, sink.evaluated_faces, asked)
    faces = sorted(sink.evaluated_faces.items())
    tracks = {track_id: sorted(found, key=lambda face: face.pts) for track_id, found in faces}
    return Yardstick(
        clip.stem, result.duration_seconds, result.frames, round(spent, 3), code, names, tracks, tuple(absent)
    )


def _peers(folder: Path | None) -> tuple[dict[str, Any], list[str]]:
    sys.path.insert(0, str(REPOSITORY))
    try:
        from models.ifqa.peers import load_peers
    except ImportError as error:
        return {}, [f"{name}: {error}" for name in PEERS]
    found, absent = load_peers(folder)
    return {name: found[name] for name in PEERS if name in found}, [
        line for line in absent if line.partition(":")[0] in PEERS
    ]


def _ask_peers(clip: Path, tracks: dict[int, list[Scored]], peers: Mapping[str, Any]) -> None:
    """Let the peers look at every face that passes, on the picture that would be kept at their size."""
    import numpy as np

    from streamgate.networks.alignment import ffhq_matrix
    from streamgate.sources import open_source

    wanted: dict[float, list[tuple[int, int]]] = {}
    for track_id, faces in tracks.items():
        for index, face in enumerate(faces):
            if face.passed:
                wanted.setdefault(face.pts, []).append((track_id, index))
    with open_source(clip) as source:
        for frame in source.frames():
            for track_id, index in wanted.pop(frame.pts_seconds, []):
                face = tracks[track_id][index]
                crop = frame.warp(ffhq_matrix(np.array(face.landmarks), 256), 256)
                figures = {name: round(ask(crop), 6) for name, ask in peers.items()}
                tracks[track_id][index] = replace(face, peers=figures)


def _to_list(face: Scored) -> list[Any]:
    return [
        face.pts, face.box, face.landmarks, face.quality, face.passed, face.reasons, face.scalars, face.peers
    ]  # fmt: skip


def _from_list(stored: list[Any]) -> Scored:
    pts, box, landmarks, quality, passed, reasons, scalars, peers = stored
    return Scored(
        pts, tuple(box), tuple(tuple(one) for one in landmarks), quality, passed, tuple(reasons), scalars, peers
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--preset", default="studio")
    parser.add_argument("--models", default=DEFAULT_MODELS)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--peers", type=Path, help="folder with the peers' weights")
    given = parser.parse_args()
    found = measure(given.clip, given.preset, given.models, given.settings, given.peers)
    save(given.file, found)
    faces = sum(len(one) for one in found.tracks.values())
    print(json.dumps({"clip": found.clip, "cpu": found.cpu, "tracks": len(found.tracks), "faces": faces}))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
