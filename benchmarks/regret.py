"""Computes the regret, percentile and track recall of docs/design.md 4.5 from given qualities.

The reference is the result of exhaustive mode on a clip: the scored faces of every frame, by track. Picks are the kept
faces of rank 1. A pick belongs to the reference track that has a face at the pick's time and place.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgate.selection.smoothing import QualityHistory
from streamgate.tracking.overlap import iou

SAME_FACE_IOU = 0.4
"""Minimum overlap (IoU) of two boxes of the same moment that show the same face."""
NEAR_S = 0.1
"""If there is no reference face at a pick's exact time, the nearest reference face within this time is used."""
SHOWN_S = 0.5
"""docs/design.md 4.5: a track counts for recall if it shows passing faces for at least this time."""
LONGEST_FRAME_S = 0.25
"""The longest time for which one face counts as shown, even if the next face is later."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One face, as scored in the reference."""

    pts: float
    box: tuple[float, ...]
    quality: float | None
    passed: bool


@dataclass(frozen=True, slots=True)
class Pick:
    """A kept face of rank 1."""

    track_id: int
    pts: float
    box: tuple[float, ...]
    quality: float | None


@dataclass(frozen=True, slots=True)
class TrackResult:
    """The result for a reference track with a passing face.

    Attributes:
        best: the passing face of the track with the highest quality.
        own: the passing face with the highest smoothed quality.
        shown_s: time for which the track shows passing faces, in seconds.
        pick, at: our pick, and the reference face at the pick's time and place; None if no face was kept.
        regret: quality of `best` minus that of `at`, at least 0; None without a pick.
        smoothed_regret: the same for smoothed qualities, by which the selection ranks faces.
        own_regret: the price of smoothing: quality of `best` minus that of `own`.
        percentile: share of the track's faces that are no better than the pick, 0..100.
        percentile_passing: the same among the passing faces.
    """

    track_id: int
    best: Scored
    own: Scored
    shown_s: float
    pick: Pick | None
    at: Scored | None
    regret: float | None
    smoothed_regret: float | None
    own_regret: float
    percentile: float | None
    percentile_passing: float | None

    @property
    def counts_for_recall(self) -> bool:
        return self.shown_s >= SHOWN_S


def evaluate(
    tracks: Mapping[int, Sequence[Scored]], picks: Sequence[Pick], short_s: float, long_s: float
) -> tuple[list[TrackResult], list[Pick]]:
    """The results of the reference tracks with a passing face, and the picks that belong to none of these tracks."""
    by_track: dict[int, list[tuple[Pick, Scored]]] = {}
    strays = []
    for pick in picks:
        index = locate(tracks, pick)
        if index is None:
            strays.append(pick)
        else:
            by_track.setdefault(index[0], []).append((pick, index[1]))
    results = []
    for track_id, faces in sorted(tracks.items()):
        if any(face.passed and face.quality is not None for face in faces):
            results.append(_judge_track(track_id, faces, by_track.pop(track_id, []), short_s, long_s))
    strays += [pick for pairs in by_track.values() for pick, _ in pairs]
    return results, strays


def locate(tracks: Mapping[int, Sequence[Scored]], pick: Pick) -> tuple[int, Scored] | None:
    """The track and the face at a pick's place and exact time or, if there is none, shortly before or after."""
    found: list[tuple[float, float, int, Scored]] = []
    for track_id, faces in tracks.items():
        for face in faces:
            away = abs(face.pts - pick.pts)
            if away <= NEAR_S and face.quality is not None:
                overlap = float(iou(np.array([face.box]), np.array([pick.box]))[0, 0])
                if overlap >= SAME_FACE_IOU:
                    found.append((away, -overlap, track_id, face))
    if not found:
        return None
    _, _, track_id, face = min(found, key=lambda one: one[:3])
    return track_id, face


def _judge_track(
    track_id: int, faces: Sequence[Scored], pairs: Sequence[tuple[Pick, Scored]], short_s: float, long_s: float
) -> TrackResult:
    scored = [face for face in faces if face.quality is not None]
    passing = [face for face in scored if face.passed]
    history = QualityHistory(short_s, long_s)
    for face in scored:
        history.add(face.pts, value(face))

    def smoothed(face: Scored) -> float:
        return history.smoothed(face.pts, value(face))

    best = max(passing, key=lambda face: (value(face), -face.pts))
    own = max(passing, key=lambda face: (smoothed(face), value(face), -face.pts))
    shown = shown_seconds(faces)
    own_regret = value(best) - value(own)
    if not pairs:
        return TrackResult(track_id, best, own, shown, None, None, None, None, own_regret, None, None)
    # If the run split this track, there are several picks; the best of them counts.
    pick, at = max(pairs, key=lambda pair: (value(pair[1]), -pair[0].pts))
    return TrackResult(
        track_id, best, own, shown, pick, at,
        regret=max(0.0, value(best) - value(at)),
        smoothed_regret=max(0.0, smoothed(own) - smoothed(at)),
        own_regret=own_regret,
        percentile=percentile(value(at), [value(face) for face in scored]),
        percentile_passing=percentile(value(at), [value(face) for face in passing]),
    )  # fmt: skip


def value(face: Scored) -> float:
    """The quality of the face, which must not be None."""
    assert face.quality is not None
    return face.quality


def percentile(value: float, values: Sequence[float]) -> float:
    """Share of `values` that are not higher than `value`, 0..100; 100 for the highest."""
    return 100.0 * sum(one <= value + 1e-9 for one in values) / len(values)


def shown_seconds(faces: Sequence[Scored]) -> float:
    """Time for which passing faces are shown, in seconds: each of them until the next face of the track."""
    total = 0.0
    ordered = sorted(faces, key=lambda face: face.pts)
    steps = [after.pts - before.pts for before, after in itertools.pairwise(ordered)]
    usual = float(np.median(steps)) if steps else 0.0
    for face, step in zip(ordered, [*steps, usual], strict=True):
        if face.passed:
            total += min(step, LONGEST_FRAME_S)
    return total
