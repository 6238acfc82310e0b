"""Limits of the gate as thresholds on the values that a fit takes, and their fit to labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamgate.config import Config
from streamgate.frames import Array
from streamgate.labels import BAD, GOOD, USABLE
from streamgate.measures import MeasureSpec
from streamgate.measures.spec import Limit
from streamgate.tuning.fitting import Fusion, Judged
from streamgate.tuning.judged import logit

_COST = {GOOD: 1.0, USABLE: 0.25, BAD: -1.0}
"""What rejecting a face costs; a bad one that is rejected is a gain."""
_PRIOR = 0.01
"""A limit moves by one width when that improves so large a share of the faces."""
_FURTHEST = 2.0
"""Widths that it moves at most."""
_SWEEPS = 2


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit of column `column`: values below `value` are rejected; `width`: how far a move is far."""

    column: int
    spec: MeasureSpec
    limit: Limit
    value: float
    width: float

    @property
    def key(self) -> str:
        """Its dotted key in the configuration."""
        return f"measures.{self.spec.name}.{self.limit.key}"


def is_movable(spec: MeasureSpec, limit: Limit) -> bool:
    """Whether a limit is one on the values that a fit takes."""
    if limit.of == "scalar":
        return limit.key == "min"
    return limit.of == "raw" and (limit.key == "min") == (spec.better == "higher") and spec.reference is None


def thresholds_of(config: Config, specs: Sequence[MeasureSpec], fusion: Fusion) -> list[Threshold]:
    """The limits that can be moved, in the values' terms under the fusion's mappings."""
    found = []
    for column, spec in enumerate(specs):
        for limit in spec.limits:
            if is_movable(spec, limit):
                given = config.measures[spec.name].limit(limit.key)
                width = float(fusion.w[column])
                at = float(fusion.x0[column]) + width * logit(given) if limit.of == "scalar" else spec.upward(given)
                found.append(Threshold(column, spec, limit, at, width))
    return found


def passing(thresholds: Sequence[Threshold], values: Array, barred: Array) -> Array:
    """Which faces are within all limits, bool (N,)."""
    passed = ~barred
    for one in thresholds:
        passed = passed & (values[:, one.column] >= one.value)
    return passed


def fit_limits(thresholds: Sequence[Threshold], judged: Judged, barred: Array) -> list[Threshold]:
    """Move each limit to where it rejects bad faces and spares good ones, given the others; held near its place."""
    tracks, place, sizes = np.unique(judged.tracks, return_inverse=True, return_counts=True)
    share = 1.0 / (len(tracks) * sizes[place])
    cost = share * np.vectorize(_COST.__getitem__)(judged.grades)
    prior = _PRIOR * max(1.0, 30 / len(tracks))
    found = list(thresholds)
    for _ in range(_SWEEPS):
        for number, one in enumerate(found):
            others = passing(found[:number] + found[number + 1 :], judged.values, barred)
            moved = _best(judged.values[others, one.column], cost[others], thresholds[number], prior)
            found[number] = Threshold(one.column, one.spec, one.limit, moved, one.width)
    return found


def _best(values: Array, cost: Array, start: Threshold, prior: float) -> float:
    order = np.argsort(values)
    values, cost = values[order], cost[order]
    near = np.abs(values - start.value) <= _FURTHEST * start.width
    # Between two neighbours, so that no face stands on the limit.
    tried = np.concatenate([[start.value], ((values[1:] + values[:-1]) / 2)[near[1:] & near[:-1]]])
    below = np.concatenate([[0.0], np.cumsum(cost)])[np.searchsorted(values, tried)]
    total = below + prior * ((tried - start.value) / start.width) ** 2
    best = int(np.argmin(total))
    # The first is where it stands: nothing moves for nothing.
    return float(tried[best] if total[best] < total[0] - 1e-9 else start.value)


def as_settings(thresholds: Sequence[Threshold], fusion: Fusion) -> Mapping[str, float]:
    """Keys of the configuration with the limits' values, within their bounds, under the fusion's mappings."""
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
