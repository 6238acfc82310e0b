"""Fits a preset to labels, and reports the changes and how well fitted presets agree with labels of unseen sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamgate.config import Config, differing_keys, leaves, load_config, with_settings
from streamgate.errors import UsageError
from streamgate.frames import Array
from streamgate.labels import BAD, GOOD, USABLE
from streamgate.measures import MeasureSpec
from streamgate.tuning.fitting import RIDGE, FitData, Fusion, fit, picks
from streamgate.tuning.fusion import of_preset
from streamgate.tuning.limits import Threshold, as_settings, fit_limits, parted, passing, thresholds_of
from streamgate.tuning.settings import Tuning

MIN_LABELS = 12
"""A fit needs at least this many labels."""
ENOUGH = 150
ENOUGH_TRACKS = 12
"""A fit is reliable if there are at least `ENOUGH` labels, and at least `ENOUGH_TRACKS` tracks with faces of two
grades."""
_WORSE = 0.01
_MORE, _LESS = 1.2, 1 / 1.2


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """How well a preset agrees with labels.

    Attributes:
        ordered: of the pairs of faces in a track that have different grades, the share that the quality orders
            correctly, as a mean over tracks; NaN if no track has two grades.
        auc: probability that a good face has a higher quality than a bad face; NaN if either grade is missing.
        good, usable, bad: of the tracks that contain a good face, the number in which the pick (the best face that
            passes) has this grade.
        none: of the tracks that contain a good face, the number in which no face passes.
        passed: shares of the good, usable and bad faces that pass; NaN for a grade without faces.
    """

    ordered: float
    auc: float
    good: int
    usable: int
    bad: int
    none: int
    passed: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class FittedPreset:
    """A fitted preset.

    `before` and `after` are the agreement with the labels. For `after`, each source (each track, if there is only one
    source) is evaluated with a fit that did not use it; None if that is impossible. `limits` maps the key of each moved
    limit to whether the limit is stricter now. The values of other limits may change, but only with their mappings.
    """

    config: Config
    run: Config
    start: Fusion
    fusion: Fusion
    before: LabelAgreement
    after: LabelAgreement | None
    limits: Mapping[str, bool]
    warnings: tuple[str, ...]


def fit_preset(tuning: Tuning, specs: Sequence[MeasureSpec], judged: FitData) -> FittedPreset:
    """Fit weights, mappings and limits, regularised towards those of the run. `labelled_faces` returns the arguments.

    Raises UsageError if the labels are not sufficient for a fit.
    """
    count = len(judged.grades)
    if count < MIN_LABELS:
        raise UsageError(f"{_labels(count)} can be used, but a fit needs at least {MIN_LABELS}; label more faces")
    if len(np.unique(judged.grades)) < 2:
        word = {GOOD: "good", USABLE: "usable", BAD: "bad"}[int(judged.grades[0])]
        raise UsageError(f"all labels are {word}, but a fit learns from differences; label other faces as well")
    config = tuning.before
    start = of_preset(config, specs, tuning.evaluator.calibration)
    limits = thresholds_of(config, specs, start)
    ridge = RIDGE * max(1.0, 30 / _telling(judged))
    try:
        fusion = fit(judged, start, ridge=ridge)
    except ValueError:
        raise UsageError(
            "there is nothing to learn from: no track has faces with two grades, and either no face is good or none is "
            "bad; label more faces"
        ) from None
    fitted = fit_limits(limits, judged)
    settings = {f"measures.{spec.name}.{key}": value for spec, key, value in _fused(specs, fusion)}
    settings |= as_settings(fitted, fusion)
    before = _agreement(judged, start.log_quality(judged.values), passing(limits, judged))
    after = _unseen(judged, start, limits, ridge)
    warnings = list(_warnings(judged))
    if after is not None and (after.ordered < before.ordered - _WORSE or after.auc < before.auc - _WORSE):
        warnings.append(
            "in cross-validation, fitted settings agreed less with the labels of unseen sources than the original "
            "settings did: keep the original settings, or label more sources"
        )
    stricter = {
        now.key: now.value > was.value for was, now in zip(limits, fitted, strict=True) if now.value != was.value
    }
    return FittedPreset(
        with_settings(config, [], settings), config, start, fusion, before, after, stricter, tuple(warnings)
    )


def _telling(judged: FitData) -> int:
    """Number of tracks that have faces with different labels; at least 1."""
    tracks = [judged.grades[judged.tracks == track] for track in np.unique(judged.tracks)]
    return max(1, sum(len(np.unique(grades)) > 1 for grades in tracks))


def _fused(specs: Sequence[MeasureSpec], fusion: Fusion) -> Iterator[tuple[MeasureSpec, str, float]]:
    for column, spec in enumerate(specs):
        yield spec, "weight", float(f"{min(100.0, fusion.weight[column]):.3g}")
        if fusion.movable[column]:
            x0 = fusion.x0[column] if spec.better == "higher" else -fusion.x0[column]
            yield spec, "x0", float(f"{x0:.5g}")
            yield spec, "w", float(f"{fusion.w[column]:.4g}")


def _unseen(judged: FitData, start: Fusion, limits: list[Threshold], ridge: float) -> LabelAgreement | None:
    """How well fits agree with labels that they did not use; None if there is only one track."""
    parts = parted(judged)
    if not parts:
        return None
    quality, passed = np.empty(len(judged.grades)), np.empty(len(judged.grades), bool)
    for test in parts:
        rest = judged.of(~test)
        try:
            fusion = fit(rest, start, ridge=ridge)
        except ValueError:
            fusion = start
        found = fit_limits(limits, rest) if len(rest.grades) else limits
        quality[test] = fusion.log_quality(judged.values[test])
        passed[test] = passing(found, judged.of(test))
    return _agreement(judged, quality, passed)


def _agreement(judged: FitData, quality: Array, passed: Array) -> LabelAgreement:
    tracks = [np.nonzero(judged.tracks == track)[0] for track in np.unique(judged.tracks)]
    shares = [share for rows in tracks if (share := _ordered(judged.grades[rows], quality[rows])) is not None]
    chosen = np.where(passed, quality, -np.inf)
    kinds = [0, 0, 0, 0]
    best = picks(judged, chosen)
    for rows, pick in zip(tracks, best, strict=True):
        if (judged.grades[rows] == GOOD).any():
            kinds[int(judged.grades[pick]) if passed[pick] else 3] += 1
    good, bad = quality[judged.grades == GOOD], quality[judged.grades == BAD]
    pairs = (good[:, None] > bad[None]) + 0.5 * (good[:, None] == bad[None])
    through = tuple(
        float(passed[judged.grades == grade].mean()) if (judged.grades == grade).any() else float("nan")
        for grade in (GOOD, USABLE, BAD)
    )
    return LabelAgreement(
        float(np.mean(shares)) if shares else float("nan"),
        float(pairs.mean()) if pairs.size else float("nan"),
        kinds[GOOD], kinds[USABLE], kinds[BAD], kinds[3], (through[0], through[1], through[2]),
    )  # fmt: skip


def _ordered(grades: Array, quality: Array) -> float | None:
    higher = grades[:, None] > grades[None]
    if not higher.any():
        return None
    right = (quality[:, None] > quality[None]) + 0.5 * (quality[:, None] == quality[None])
    return float(right[higher].mean())


def _labels(count: int) -> str:
    return f"{count} label{'' if count == 1 else 's'}"


def _warnings(judged: FitData) -> Iterator[str]:
    count, tracks = len(judged.grades), _telling(judged)
    if count < ENOUGH or tracks < ENOUGH_TRACKS:
        yield (
            f"few labels: there are {count} labels, and {tracks} track{'' if tracks == 1 else 's'} with faces of two "
            f"grades; a reliable fit needs {ENOUGH} labels and {ENOUGH_TRACKS} such tracks"
        )
    for word, grade in (("good", GOOD), ("bad", BAD)):
        if not (judged.grades == grade).any():
            yield f"no face is labelled {word}: limits cannot be fitted well without such labels"
    if len(np.unique(judged.clips)) == 1:
        yield "all labels are from one source: the agreement on other sources is unknown"


def changes(specs: Sequence[MeasureSpec], fitted: FittedPreset) -> list[str]:
    """Describe what changed, one line per change; empty if nothing changed."""
    lines = []
    before, after = (fusion.weight / fusion.weight.sum() for fusion in (fitted.start, fitted.fusion))
    for title, chosen in (("counts more", after >= before * _MORE), ("counts less", after <= before * _LESS)):
        order = np.argsort(-np.abs(np.log((after + 1e-9) / (before + 1e-9))))
        named = [
            f"{specs[k].name} (from {100 * before[k]:.0f} % to {100 * after[k]:.0f} % of the quality)"
            for k in order
            if chosen[k] and before[k] > 0
        ]
        lines += [f"{title}: {', '.join(named)}"] if named else []
    moved = (fitted.fusion.x0 - fitted.start.x0) / fitted.start.w
    for title, picked in (("mapped more strictly", moved > 0.25), ("mapped more leniently", moved < -0.25)):
        named = [spec.name for spec, one in zip(specs, picked, strict=True) if one]
        lines += [f"{title}: {', '.join(named)}"] if named else []
    was, now = (dict(leaves(one.model_dump(mode="json"))) for one in (fitted.run, fitted.config))
    for key, stricter in fitted.limits.items():
        name, _, end = key.rpartition(".")
        lines.append(f"limit of {name.removeprefix('measures.')}: {end} changed from {was[key]:g} to {now[key]:g}, "
                     f"{'stricter' if stricter else 'more lenient'}")  # fmt: skip
    return lines


def toml_text(config: Config, notes: list[str]) -> str:
    """A preset as TOML: `notes` as comments, then all keys that differ from the preset `studio`."""
    tables: dict[str, list[str]] = {}
    studio = load_config("studio")
    values: Mapping[str, Any] = dict(leaves(config.model_dump(mode="json")))
    for key in differing_keys(config, studio):
        table, _, name = key.rpartition(".")
        # The fitted preset leaves out `[identity]`, which may name the person that the run searched for.
        if key in values and not key.startswith("identity."):
            tables.setdefault(table, []).append(f"{name} = {_toml(values[key])}")
    lines = [*(f"# {note}" for note in notes), 'extends = "studio"', *tables.pop("", [])]
    for table, rows in tables.items():
        lines += ["", f"[{table}]", *rows]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON escapes are also valid in TOML.
        import json

        return json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return repr(value)
