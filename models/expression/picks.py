"""Do the network's outputs pick better faces? Labelled faces, a fit on other clips than it is judged on.

A fit is a logistic regression of good against bad-and-usable on a few values; the pick of a track is the face with the
highest answer. Clips are split into folds; every face is judged by a fit that never saw its clip.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.common.stats import auc
from models.expression.architecture import SIGNALS

FOLDS, SEEDS = 8, 5
_REFERENCE = 20
"""Percentile of a track that relative values are counted from."""
_RIDGE = 3.0


@dataclass(frozen=True)
class Labelled:
    """Faces with what people said: label g, m or b; why; clip; track (clip and number); seconds."""

    label: np.ndarray
    why: list[str]
    clip: np.ndarray
    track: np.ndarray
    pts: np.ndarray

    @classmethod
    def read(cls, labels: Path, names: Sequence[str]) -> Labelled:
        """Of faces named `clip|track|number` (yardstick.py)."""
        told = json.loads(labels.read_text())
        faces, clips, tracks = [], [], []
        for name in names:
            clip, track, number = name.split("|")
            faces.append(told[clip][track][int(number)])
            clips.append(clip)
            tracks.append(f"{clip}|{track}")
        return cls(
            np.array([face["label"] for face in faces]),
            ["".join(face["why"]) for face in faces],
            np.array(clips),
            np.array(tracks),
            np.array([face["pts"] for face in faces]),
        )


def values(signals: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """What a fit may use, [n, k], and its names; sides are brought together, pose is as the picture shows it."""
    at = {name: signals[:, i] for i, name in enumerate(SIGNALS)}
    columns = {
        "jaw": at["jawOpen"], "gap": at["lipGap"], "close": at["mouthClose"], "pucker": at["mouthPucker"],
        "funnel": at["mouthFunnel"], "width": at["mouthWidth"], "yaw": np.abs(pose[:, 0]), "pitch": np.abs(pose[:, 1]),
        "roll": np.abs(pose[:, 2]), "gaze across": np.abs(at["irisAcrossLeft"] + at["irisAcrossRight"]) / 2,
    }  # fmt: skip
    for short, stem in (
        ("blink", "eyeBlink"), ("squint", "eyeSquint"), ("down", "eyeLookDown"), ("up", "eyeLookUp"),
        ("wide", "eyeWide"),
        ("smile", "mouthSmile"), ("frown", "mouthFrown"), ("stretch", "mouthStretch"), ("upper", "mouthUpperUp"),
        ("lower", "mouthLowerDown"), ("press", "mouthPress"), ("brow down", "browDown"), ("lids", "lids"),
    ):  # fmt: skip
        columns[short] = (at[f"{stem}Left"] + at[f"{stem}Right"]) / 2
    columns["smile asymmetry"] = np.abs(at["mouthSmileLeft"] - at["mouthSmileRight"])
    columns["blink worse"] = np.maximum(at["eyeBlinkLeft"], at["eyeBlinkRight"])
    columns["lids worse"] = np.minimum(at["lidsLeft"], at["lidsRight"])
    columns["look aside"] = np.abs(
        at["eyeLookInLeft"] - at["eyeLookOutLeft"] + at["eyeLookOutRight"] - at["eyeLookInRight"]
    )
    columns["brow up"] = at["browInnerUp"]
    return np.stack(list(columns.values()), axis=1), list(columns)


def relative(table: np.ndarray, track: np.ndarray) -> np.ndarray:
    """Each value less its track's own 20th percentile."""
    out = np.empty_like(table)
    for name in np.unique(track):
        rows = track == name
        out[rows] = table[rows] - np.percentile(table[rows], _REFERENCE, axis=0)
    return out


def out_of_clip(table: np.ndarray, labelled: Labelled, seed: int, ridge: float = _RIDGE) -> np.ndarray:
    """Answer for every face by a fit on the clips of the other folds."""
    clips = np.random.default_rng(seed).permutation(np.unique(labelled.clip))
    fold = {clip: i % FOLDS for i, clip in enumerate(clips)}
    folds = np.array([fold[clip] for clip in labelled.clip])
    good = (labelled.label == "g").astype(float)
    answer = np.empty(len(table))
    for number in range(FOLDS):
        out = folds == number
        answer[out] = fitted(table[~out], good[~out], labelled.track[~out], ridge)(table[out])
    return answer


def fitted(table: np.ndarray, good: np.ndarray, track: np.ndarray, ridge: float):
    """Logistic regression by Newton steps; every track weighs alike."""
    mean, scale = table.mean(axis=0), table.std(axis=0) + 1e-6
    x = np.column_stack([np.ones(len(table)), (table - mean) / scale])
    counts = {name: np.sum(track == name) for name in np.unique(track)}
    weight = np.array([1.0 / counts[name] for name in track])
    weight *= len(weight) / weight.sum()
    penalty = np.full(x.shape[1], ridge)
    penalty[0] = 1e-3
    beta = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (weight * (p - good)) + penalty * beta
        curvature = (x * (weight * p * (1 - p) + 1e-6)[:, None]).T @ x + np.diag(penalty)
        beta = beta - np.linalg.solve(curvature, gradient)
    return lambda rows: np.column_stack([np.ones(len(rows)), (rows - mean) / scale]) @ beta


def shares(answer: np.ndarray, labelled: Labelled) -> dict[str, float]:
    """Among tracks with a good face: shares of good, usable, bad picks and how many tracks; AUC of good over all."""
    picks = []
    for name in np.unique(labelled.track):
        rows = np.nonzero(labelled.track == name)[0]
        if (labelled.label[rows] == "g").any():
            picks.append(labelled.label[rows[np.argmax(answer[rows])]])
    found = np.array(picks)
    good = labelled.label == "g"
    figures = {f"{key}": float((found == key).mean()) for key in "gmb"}
    return {**figures, "tracks": len(found), "auc": auc(answer[good], answer[~good])}


def experiment(signals: np.ndarray, pose: np.ndarray, labelled: Labelled) -> dict[str, dict[str, float]]:
    """Shares for absolute values, relative ones and both, the mean over seeds of the split into folds."""
    table, _ = values(signals, pose)
    own = relative(table, labelled.track)
    tables = {"absolute": table, "relative": own, "both": np.concatenate([table, own], axis=1)}
    found = {}
    for name, columns in tables.items():
        runs = [shares(out_of_clip(columns, labelled, seed), labelled) for seed in range(SEEDS)]
        found[name] = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    return found
