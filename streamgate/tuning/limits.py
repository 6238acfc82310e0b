"""Converts limits of the gate to thresholds on the values of a fit, and fits them to labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgate.config import Config
from streamgate.frames import Array
from streamgate.labels import BAD, GOOD, USABLE
from streamgate.measures import MeasureSpec
from streamgate.measures.spec import Limit
from streamgate.tuning.fitting import FitData, Fusion
from streamgate.tuning.fusion import logit

_COST = {GOOD: 2.0, USABLE: 0.5, BAD: -1.0}
"""Cost of rejecting all faces of a grade. The gain for bad faces is smaller than the cost for good ones, because bad
faces usually have low ranks anyway."""
_PRIOR = 0.01
"""Cost of moving a limit by one `Threshold.width`; it grows with the square of the distance."""
_FURTHEST = 2.0
"""Maximum distance by which a limit is moved, in multiples of `Threshold.width`."""
_SWEEPS = 2
_FOLDS = 8
_PAYS = 0.002
"""A limit is only moved if the gain on unseen faces is larger than this value."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit on a column of `FitData.values`: smaller values than `value` are rejected.

    `width` is the unit of the distances by which the limit is moved.
    """

    column: int
    spec: MeasureSpec
    limit: Limit
    value: float
    width: float

    @property
    def key(self) -> str:
        """The dotted key of the limit in the configuration."""
        return f"measures.{self.spec.name}.{self.limit.key}"


def is_movable(spec: MeasureSpec, limit: Limit) -> bool:
    """Whether a limit can be expressed as a threshold on the values of a fit."""
    if limit.of == "scalar":
        return limit.key == "min"
    return limit.of == "raw" and (limit.key == "min") == (spec.better == "higher") and spec.reference is None


def thresholds_of(config: Config, specs: Sequence[MeasureSpec], fusion: Fusion) -> list[Threshold]:
    """The movable limits as thresholds on values, given the mappings of the fusion."""
    found = []
    for column, spec in enumerate(specs):
        for limit in spec.limits:
            if is_movable(spec, limit):
                given = config.measures[spec.name].limit(limit.key)
                width = float(fusion.w[column])
                at = float(fusion.x0[column]) + width * logit(given) if limit.of == "scalar" else spec.upward(given)
                found.append(Threshold(column, spec, limit, at, width))
    return found


def passing(thresholds: Sequence[Threshold], judged: FitData) -> Array:
    """Whether each face is within all limits, bool (N,)."""
    passed = ~judged.barred
    for one in thresholds:
        passed = passed & (judged.values[:, one.column] >= one.value)
    return passed


def fit_limits(thresholds: Sequence[Threshold], judged: FitData) -> list[Threshold]:
    """Move each limit so that, together with the other limits, it rejects bad faces and keeps good ones.

    No limit is moved far, and a limit is only moved if that helps on unseen sources (on unseen tracks, if there is only
    one source).
    """
    moved = _moved(thresholds, judged, range(len(thresholds)))
    paid = np.zeros(len(thresholds))
    for test in parted(judged):
        rest = _moved(thresholds, judged.of(~test), range(len(thresholds)))
        cost = _costs(judged)[test]
        for number, one in enumerate(rest):
            others = passing([*thresholds[:number], *thresholds[number + 1 :]], judged.of(test))
            values = judged.values[test, one.column]
            before, after = (others & (values < at) for at in (thresholds[number].value, one.value))
            paid[number] += cost[before].sum() - cost[after].sum()
    if not (paid > _PAYS).any():
        return list(thresholds)
    return _moved(thresholds, judged, np.nonzero(paid > _PAYS)[0]) if (paid <= _PAYS).any() else moved


def parted(judged: FitData) -> list[Array]:
    """Split the faces into parts; returns one mask per part, bool (N,).

    All faces of a source are in the same part. If there is only one source, all faces of a track are in the same part.
    The list is empty if there is only one track.
    """
    units = judged.clips if len(np.unique(judged.clips)) > 1 else judged.tracks
    names = np.random.default_rng(0).permutation(np.unique(units))
    if len(names) < 2:
        return []
    fold = {name: index % _FOLDS for index, name in enumerate(names)}
    here = np.array([fold[name] for name in units])
    return [here == number for number in range(min(_FOLDS, len(names)))]


def _costs(judged: FitData) -> Array:
    """The cost of rejecting each face, float (N,).

    All tracks have the same weight, and the total cost of a grade does not depend on the number of its faces.
    """
    _, index, sizes = np.unique(judged.tracks, return_inverse=True, return_counts=True)
    cost = 1.0 / sizes[index]
    for grade, all_of_it in _COST.items():
        cost[judged.grades == grade] *= all_of_it / max(1e-9, cost[judged.grades == grade].sum())
    return np.asarray(cost)


def _moved(thresholds: Sequence[Threshold], judged: FitData, which: Iterable[int]) -> list[Threshold]:
    """Move the limits whose indexes are in `which`. Returns all limits."""
    cost = _costs(judged)
    prior = _PRIOR * max(1.0, 30 / len(np.unique(judged.tracks)))
    found, which = list(thresholds), list(which)
    for _ in range(_SWEEPS):
        for number in which:
            one = found[number]
            others = passing(found[:number] + found[number + 1 :], judged)
            moved = _best(judged.values[others, one.column], cost[others], thresholds[number], prior)
            found[number] = Threshold(one.column, one.spec, one.limit, moved, one.width)
    return found


def _best(values: Array, cost: Array, start: Threshold, prior: float) -> float:
    order = np.argsort(values)
    values, cost = values[order], cost[order]
    near = np.abs(values - start.value) <= _FURTHEST * start.width
    # Try only limits halfway between two neighbouring values, so that no face is exactly at the limit.
    tried = np.concatenate([[start.value], ((values[1:] + values[:-1]) / 2)[near[1:] & near[:-1]]])
    below = np.concatenate([[0.0], np.cumsum(cost)])[np.searchsorted(values, tried)]
    total = below + prior * ((tried - start.value) / start.width) ** 2
    best = int(np.argmin(total))
    # Index 0 is the current value: a limit is only moved if that improves the result.
    return float(tried[best] if total[best] < total[0] - 1e-9 else start.value)


def as_settings(thresholds: Sequence[Threshold], fusion: Fusion) -> Mapping[str, float]:
    """The limits as keys and values of the configuration, within their bounds, given the mappings of the fusion."""
    found = {}
    for one in thresholds:
        if one.limit.of == "scalar":
            scaled = (one.value - fusion.x0[one.column]) / fusion.w[one.column]
            value = 100.0 / (1.0 + float(np.exp(np.clip(-scaled, -60, 60))))
        else:
            value = abs(one.value) if one.spec.better == "near zero" else one.spec.upward(one.value)
        low, high = one.limit.bounds
        found[one.key] = min(high, max(low, float(f"{value:.3g}")))
    return found
