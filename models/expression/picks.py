"""How good are the faces that are picked with the network's outputs? Models are fitted to labelled faces, and evaluated
on held-out clips.

Two models separate good faces from usable and bad ones: a logistic regression on all values, and a monotone model, in
which a worse value never increases the output, as in the fusion of measures. In each track, the face with the highest
output is picked. The clips are split into folds, and each face is rated by a model that was fitted without its clip.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.common.stats import auc
from models.expression.architecture import SIGNALS, words
from models.expression.batches import gaze_of

FOLDS, SEEDS = 8, 5
MONOTONE = "monotone, absolute except for the eyes"
Answer = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Answer]
"""Takes values [n, k], good (0 or 1) [n] and track [n]; returns the function that rates other values."""
_REFERENCE = 20
"""Percentile in the track that is subtracted from a value to make it relative."""
_RIDGE = 3.0
_OPEN = 90
"""Percentile of the opening of the lids in a track at which an eye counts as open."""
_WORSE = words(
    "jaw gap close pucker funnel smile frown stretch upper lower press yaw pitch roll squint down up wide look_aside "
    "gaze_across gaze_away smile_asymmetry brow_down brow_up blink_worse"
)
"""Values that are small in a good portrait."""
_OWN_FAULTS = "metz"
"""Reasons in the labels that the network should detect: mouth, eyes, turn, gaze."""
_KNOTS = (0.4, 0.75)
_MONOTONE_RIDGE = 10.0
_STEPS = 250


@dataclass(frozen=True)
class Labelled:
    """Labelled faces: label (g good, m usable, b bad); reasons; clip; track (clip and number); time in seconds."""

    label: np.ndarray
    why: list[str]
    clip: np.ndarray
    track: np.ndarray
    pts: np.ndarray

    @classmethod
    def read(cls, labels: Path, names: Sequence[str]) -> Labelled:
        """Read the labels of faces that are named `clip|track|number` (yardstick.py)."""
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
    """The values that a model may use, [n, k], and their names; left and right are combined.

    pose: [n, 3], in the picture, not in the crop.
    """
    at = {name: signals[:, i] for i, name in enumerate(SIGNALS)}
    columns = {
        "jaw": at["jawOpen"], "gap": at["lipGap"], "close": at["mouthClose"], "pucker": at["mouthPucker"],
        "funnel": at["mouthFunnel"], "width": at["mouthWidth"], "yaw": np.abs(pose[:, 0]), "pitch": np.abs(pose[:, 1]),
        "roll": np.abs(pose[:, 2]), "gaze_across": np.abs(at["irisAcrossLeft"] + at["irisAcrossRight"]) / 2,
    }  # fmt: skip
    for short, stem in (
        ("blink", "eyeBlink"), ("squint", "eyeSquint"), ("down", "eyeLookDown"), ("up", "eyeLookUp"),
        ("wide", "eyeWide"),
        ("smile", "mouthSmile"), ("frown", "mouthFrown"), ("stretch", "mouthStretch"), ("upper", "mouthUpperUp"),
        ("lower", "mouthLowerDown"), ("press", "mouthPress"), ("brow_down", "browDown"), ("lids", "lids"),
    ):  # fmt: skip
        columns[short] = (at[f"{stem}Left"] + at[f"{stem}Right"]) / 2
    columns["smile_asymmetry"] = np.abs(at["mouthSmileLeft"] - at["mouthSmileRight"])
    columns["blink_worse"] = np.maximum(at["eyeBlinkLeft"], at["eyeBlinkRight"])
    columns["lids_worse"] = np.minimum(at["lidsLeft"], at["lidsRight"])
    columns["look_aside"] = np.abs(
        at["eyeLookInLeft"] - at["eyeLookOutLeft"] + at["eyeLookOutRight"] - at["eyeLookInRight"]
    )
    columns["brow_up"] = at["browInnerUp"]
    columns["gaze_away"] = np.hypot(*gaze_of(signals, pose).T)
    return np.stack(list(columns.values()), axis=1), list(columns)


def relative(table: np.ndarray, track: np.ndarray) -> np.ndarray:
    """Each value minus the 20th percentile of this value in the track."""
    out = np.empty_like(table)
    for name in np.unique(track):
        rows = track == name
        out[rows] = table[rows] - np.percentile(table[rows], _REFERENCE, axis=0)
    return out


def penalties(signals: np.ndarray, pose: np.ndarray, track: np.ndarray) -> np.ndarray:
    """[n, k], larger is worse: absolute values, and 1 minus the openness of the less open eye."""
    table, names = values(signals, pose)
    closed = 1.0 - openness(table[:, names.index("lids_worse")], track)
    return np.column_stack([table[:, [names.index(name) for name in _WORSE]], closed])


def openness(lids: np.ndarray, track: np.ndarray) -> np.ndarray:
    """[n]: opening of the less open eye, divided by the 90th percentile of this value in the track."""
    out = np.empty_like(lids)
    for name in np.unique(track):
        rows = track == name
        out[rows] = lids[rows] / max(float(np.percentile(lids[rows], _OPEN)), 0.05)
    return out


def out_of_clip(table: np.ndarray, labelled: Labelled, seed: int, fit: Fit) -> np.ndarray:
    """The output for every face of a model that was fitted on the other folds."""
    clips = np.random.default_rng(seed).permutation(np.unique(labelled.clip))
    fold = {clip: i % FOLDS for i, clip in enumerate(clips)}
    folds = np.array([fold[clip] for clip in labelled.clip])
    good = (labelled.label == "g").astype(float)
    answer = np.empty(len(table))
    for number in range(FOLDS):
        out = folds == number
        answer[out] = fit(table[~out], good[~out], labelled.track[~out])(table[out])
    return answer


def logistic(table: np.ndarray, good: np.ndarray, track: np.ndarray) -> Answer:
    """Logistic regression by Newton's method; all tracks have the same weight."""
    mean, scale = table.mean(axis=0), table.std(axis=0) + 1e-6
    x = np.column_stack([np.ones(len(table)), (table - mean) / scale])
    weight = _weights(track)
    penalty = np.full(x.shape[1], _RIDGE)
    penalty[0] = 1e-3
    beta = np.zeros(x.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (weight * (p - good)) + penalty * beta
        curvature = (x * (weight * p * (1 - p) + 1e-6)[:, None]).T @ x + np.diag(penalty)
        beta = beta - np.linalg.solve(curvature, gradient)
    return lambda rows: np.column_stack([np.ones(len(rows)), (rows - mean) / scale]) @ beta


def monotone(table: np.ndarray, good: np.ndarray, track: np.ndarray) -> Answer:
    """Logistic regression with coefficients of one sign, on each value and on the amounts by which it exceeds two
    knots, so that mild flaws count little.

    Fitted by projected gradient descent (Adam) with a ridge penalty.
    """
    knots = [np.quantile(table, knot, axis=0) for knot in _KNOTS]

    def spread(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows, *(np.maximum(rows - knot, 0.0) for knot in knots)], axis=1)

    x = spread(table)
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    x = np.column_stack([np.ones(len(x)), -(x - mean) / scale])
    weight = _weights(track) / len(x)
    beta = np.zeros(x.shape[1])
    beta[0] = -2.0
    first, second = np.zeros_like(beta), np.zeros_like(beta)
    for step in range(1, _STEPS + 1):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        gradient = x.T @ (weight * (p - good))
        gradient[1:] += _MONOTONE_RIDGE * beta[1:] / len(x)
        first, second = 0.9 * first + 0.1 * gradient, 0.99 * second + 0.01 * gradient**2
        beta = beta - 0.05 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)
        beta[1:] = np.maximum(beta[1:], 0.0)
    return lambda rows: np.column_stack([np.ones(len(rows)), -(spread(rows) - mean) / scale]) @ beta


def _weights(track: np.ndarray) -> np.ndarray:
    """Weights [n] with mean 1 and the same sum for every track."""
    _, place, counts = np.unique(track, return_inverse=True, return_counts=True)
    weight = 1.0 / counts[place]
    return weight * (len(weight) / weight.sum())


def shares(answer: np.ndarray, labelled: Labelled) -> dict[str, float]:
    """For the tracks with a good face: shares of good (g), usable (m) and bad (b) picks, share of picks that are bad
    for a reason that the network should detect (own), and number of tracks; also the AUC of good faces among all faces
    (auc).
    """
    picks = []
    for name in np.unique(labelled.track):
        rows = np.nonzero(labelled.track == name)[0]
        if (labelled.label[rows] == "g").any():
            picks.append(rows[np.argmax(answer[rows])])
    found = labelled.label[picks]
    own = [labelled.label[row] == "b" and bool(set(labelled.why[row]) & set(_OWN_FAULTS)) for row in picks]
    good = labelled.label == "g"
    figures = {f"{key}": float((found == key).mean()) for key in "gmb"}
    return {**figures, "own": float(np.mean(own)), "tracks": len(found), "auc": auc(answer[good], answer[~good])}


def experiment(signals: np.ndarray, pose: np.ndarray, labelled: Labelled) -> dict[str, dict[str, float]]:
    """The shares for each model, as the mean over several random splits into folds."""
    table, _ = values(signals, pose)
    own = relative(table, labelled.track)
    fits: dict[str, tuple[np.ndarray, Fit]] = {
        "logistic, absolute": (table, logistic),
        "logistic, relative": (own, logistic),
        "logistic, both": (np.concatenate([table, own], axis=1), logistic),
        MONOTONE: (penalties(signals, pose, labelled.track), monotone),
    }
    found = {}
    for name, (columns, fit) in fits.items():
        runs = [shares(out_of_clip(columns, labelled, seed, fit), labelled) for seed in range(SEEDS)]
        found[name] = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    return found
