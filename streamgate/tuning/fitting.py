"""Fits weights and mappings of measures to labelled faces.

The quality is computed as in a run: log quality is the sum of weight * log scalar, divided by the sum of weights, and
each scalar is 100 * sigmoid. Therefore, a lower scalar never increases the quality, and the fitted values can be used
as a preset. There are few parameters: one weight per measure, and x0 and w of each mapping that a preset may set. They
are regularised towards their initial values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from streamgate.frames import Array
from streamgate.labels import BAD, GOOD, USABLE

_ACROSS = 0.3
"""Total weight of the pairs of a good and a bad face from different tracks, relative to that of pairs within tracks."""
_ACROSS_PAIRS = 20_000
RIDGE = 0.2
_SHARPNESS = 1.5
_STEPS = 250
_RATE = 0.05
_FURTHEST = 2.0
"""Maximum change of x0 in multiples of w; w changes by a factor of two at most."""


@dataclass(frozen=True)
class FitData:
    """N labelled faces with K measures each.

    Attributes:
        values: float (N, K), the input of each measure's mapping (`MeasureSpec.compared`), transformed so that larger
            is better. This is the raw value, its negative if lower values are better, or its negative absolute value
            if values near zero are best.
        grades: int (N,), GOOD, USABLE or BAD.
        tracks, clips: (N,), the track and the clip of each face.
        barred: bool (N,), whether a limit that is not fitted rejects the face (for example, the face is too small).
    """

    values: Array
    grades: Array
    tracks: Array
    clips: Array
    barred: Array

    def of(self, rows: Array) -> FitData:
        """The faces selected by `rows` (indexes or a mask)."""
        return FitData(*(part[rows] for part in (self.values, self.grades, self.tracks, self.clips, self.barred)))


@dataclass(frozen=True)
class Fusion:
    """The settings of K measures in a preset; each array has the shape (K,).

    `movable` marks measures whose x0 and w may be fitted.
    """

    weight: Array
    x0: Array
    w: Array
    movable: Array

    def log_quality(self, values: Array) -> Array:
        """The logarithm of quality / 100 of each face, float (N,)."""
        scalars = -np.logaddexp(0.0, -(values - self.x0) / self.w)
        return np.maximum(scalars, np.log(0.01)) @ self.weight / self.weight.sum()


def fit(judged: FitData, start: Fusion, *, seed: int = 0, ridge: float = RIDGE) -> Fusion:
    """Fit a fusion that ranks good faces above usable faces, and usable faces above bad ones, within and across tracks.

    Adam minimises the logistic loss over pairs of faces. Every track has the same weight. The result is the same for
    the same `seed`. `ridge` is the strength of the regularisation towards `start`.
    """
    better, worse, share = _pairs(judged, np.random.default_rng(seed))
    count = len(start.weight)
    # First the changes of the logarithms of the weights, then the changes of x0 and of w; all are 0 at the start.
    moves = np.zeros(3 * count)
    frozen = np.concatenate([np.zeros(count, bool), ~start.movable, ~start.movable])
    first, second = np.zeros_like(moves), np.zeros_like(moves)
    for step in range(1, _STEPS + 1):
        slope = _slope(judged.values, better, worse, share, start, moves) + 2 * ridge * moves / len(moves)
        slope[frozen] = 0.0
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        moves = moves - _RATE * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return _moved(start, moves)


def out_of_clip(judged: FitData, start: Fusion, *, folds: int = 8, seed: int = 0) -> Array:
    """Log quality of every face, float (N,), each computed by a fit that did not use the clip of the face."""
    clips = np.random.default_rng(seed).permutation(np.unique(judged.clips))
    fold = {clip: index % folds for index, clip in enumerate(clips)}
    here = np.array([fold[clip] for clip in judged.clips])
    found = np.empty(len(here))
    for number in range(min(folds, len(clips))):
        fitted = fit(judged.of(here != number), start, seed=seed)
        found[here == number] = fitted.log_quality(judged.values[here == number])
    return found


def picks(judged: FitData, quality: Array) -> Array:
    """Index of the best face of each track, int (tracks,)."""
    return np.array([rows[np.argmax(quality[rows])] for rows in _by_track(judged)])


def _by_track(judged: FitData) -> Iterator[Array]:
    for track in np.unique(judged.tracks):
        yield np.nonzero(judged.tracks == track)[0]


def _moved(start: Fusion, moves: Array) -> Fusion:
    weight, centre, width = np.split(moves, 3)
    return replace(
        start,
        weight=start.weight * np.exp(weight),
        x0=start.x0 + _FURTHEST * start.w * np.tanh(centre),
        w=start.w * np.exp2(np.tanh(width)),
    )


def _slope(values: Array, better: Array, worse: Array, share: Array, start: Fusion, moves: Array) -> Array:
    """Gradient of the loss with respect to `moves`.

    The loss uses the weighted sum of log scalars, not the mean, so that the weights also determine how confidently
    pairs are separated.
    """
    fusion = _moved(start, moves)
    scaled = (values - fusion.x0) / fusion.w
    scalars = -np.logaddexp(0.0, -scaled)
    total = scalars @ fusion.weight
    wrong = 1.0 / (1.0 + np.exp(np.clip(_SHARPNESS * (total[better] - total[worse]), -30.0, 30.0)))
    pull = np.zeros(len(values))
    np.add.at(pull, better, -_SHARPNESS * share * wrong)
    np.add.at(pull, worse, _SHARPNESS * share * wrong)
    # The derivative of `total` with respect to `scaled`.
    rising = fusion.weight / (1.0 + np.exp(np.clip(scaled, -30.0, 30.0)))
    _, centre, width = np.split(moves, 3)
    by_weight = (pull @ scalars) * fusion.weight
    by_place = -(pull @ rising) / fusion.w * _FURTHEST * start.w / np.cosh(centre) ** 2
    by_width = -(pull @ (rising * scaled)) * np.log(2.0) / np.cosh(width) ** 2
    return np.concatenate([by_weight, by_place, by_width])


def _pairs(judged: FitData, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Pairs of faces as (better, worse, weight). For each kind of pair, the weights have the same sum in all tracks."""
    found: list[tuple[Array, Array, Array]] = []
    for rows in _by_track(judged):
        for high, low, weight in ((GOOD, USABLE, 1.0), (GOOD, BAD, 1.0), (USABLE, BAD, 0.3)):
            one, other = rows[judged.grades[rows] == high], rows[judged.grades[rows] == low]
            if len(one) and len(other):
                better, worse = (part.ravel() for part in np.meshgrid(one, other, indexing="ij"))
                found.append((better, worse, np.full(len(better), weight / len(better))))
    if found:
        total = sum(float(weights.sum()) for _, _, weights in found)
        found = [(better, worse, weights / total) for better, worse, weights in found]
    chance = np.zeros(len(judged.grades))
    for rows in _by_track(judged):
        chance[rows] = 1.0 / len(rows)
    good, bad = (chance * (judged.grades == grade) for grade in (GOOD, BAD))
    if good.any() and bad.any():
        drawn = [rng.choice(len(chance), _ACROSS_PAIRS, p=one / one.sum()) for one in (good, bad)]
        found.append((drawn[0], drawn[1], np.full(_ACROSS_PAIRS, _ACROSS / _ACROSS_PAIRS)))
    if not found:
        raise ValueError("nothing to learn from: no track has faces with two grades")
    better, worse, share = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return better, worse, share
