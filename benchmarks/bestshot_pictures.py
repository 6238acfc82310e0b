"""The worst picks beside the best faces, to look at. Footage: never to be published with the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from common import say
from regret import Scored, TrackResult, value
from tried import Tried
from yardstick import Yardstick

from streamgate.networks.alignment import ffhq_matrix
from streamgate.sources import open_source

SIDE = 384
LEAST = 0.5
"""Regret from which a track is shown; those without a pick always are."""


def write_pictures(folder: Path, clips: Sequence[Path], tried: Tried, yardsticks: Mapping[str, Yardstick]) -> None:
    """A strip a track into `folder`: our pick, what exhaustive mode keeps, the face of highest quality."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        wanted = [
            track
            for track in tried.results[clip.stem]
            if (track.regret or 0.0) >= LEAST or (track.pick is None and track.counts_for_recall)
        ]
        crops = _crops(clip, [face for track in wanted for _, face in _faces(track)])
        for track in wanted:
            parts = [
                _captioned(crops[face.pts, face.box], f"{name} {_caption(face)}", face) for name, face in _faces(track)
            ]
            regret = "missed" if track.regret is None else f"{track.regret:05.2f}"
            path = folder / f"{regret}-{clip.stem}-{track.track_id}.png"
            cv2.imwrite(str(path), np.hstack(parts)[:, :, ::-1])
            say(f"picture {path.name}")


def _faces(track: TrackResult) -> list[tuple[str, Scored]]:
    pairs = [("pick", track.at), ("exhaustive", track.own), ("best", track.best)]
    return [(name, face) for name, face in pairs if face is not None]


def _caption(face: Scored) -> str:
    return f"{face.pts:.2f} s  q {value(face):.1f}"


def _crops(clip: Path, faces: Sequence[Scored]) -> dict[tuple[float, tuple[float, ...]], np.ndarray]:
    by_time: dict[float, list[Scored]] = {}
    for face in faces:
        by_time.setdefault(face.pts, []).append(face)
    crops = {}
    with open_source(clip) as source:
        for frame in source.frames():
            for face in by_time.pop(frame.pts_seconds, []):
                crops[face.pts, face.box] = frame.warp(ffhq_matrix(np.array(face.landmarks), SIDE), SIDE)
    return crops


def _captioned(crop: np.ndarray, text: str, face: Scored) -> np.ndarray:
    strip = np.full((46, SIDE, 3), 255, np.uint8)
    figures = " ".join(f"{name[:5]}{scalar:.0f}" for name, scalar in face.scalars.items())
    for line, shown in enumerate((text, figures)):
        cv2.putText(strip, shown, (4, 16 + 20 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([crop, strip])
