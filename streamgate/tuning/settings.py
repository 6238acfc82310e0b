"""The settings that may be changed for existing results, and the properties of a run with the changed settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from streamgate.config import Config, differing_keys, leaves, load_config, stored_config, with_settings
from streamgate.errors import ResultsError, UsageError
from streamgate.scoring.calibration import Calibration
from streamgate.scoring.evaluator import Evaluator
from streamgate.store.jsonlines import Record
from streamgate.store.run import RunInfo

SECTIONS = ("measures", "keep", "smoothing")
"""Sections of the configuration that can be applied to stored faces; all others affect what a run reads or writes."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The configuration with which results were made, and the one to apply to them.

    `same_meaning` is true if the calibration id is unchanged. In that case, stored qualities are still valid.
    """

    before: Config
    after: Config
    changed: tuple[str, ...]
    evaluator: Evaluator
    run: RunInfo
    same_meaning: bool


def tuning_of(
    summary: Mapping[str, Any], settings: Iterable[str], flags: Mapping[str, Any], preset: str | None = None
) -> Tuning:
    """Read the configuration of a run from summary.json and apply the changes: first the preset, then the settings.

    Raises UsageError if a key or value is invalid or needs a new run, and ResultsError if the summary does not have the
    data that is needed to evaluate faces again.
    """
    try:
        before = stored_config(summary["config"])
        calibration = Calibration.of_summary(summary["calibration"])
        Evaluator(before, calibration)
    except (UsageError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"summary.json is incomplete or was written by another version ({error}); run the sources again"
        ) from error
    after = with_settings(before if preset is None else _under_preset(before, preset), settings, flags)
    changed = tuple(differing_keys(after, before))
    for key in changed:
        if key.partition(".")[0] not in SECTIONS:
            raise UsageError(
                f"{key} affects what is read or written, so it needs a new run: `streamgate run ... --set {key}=...`; "
                f"`tune` changes only {', '.join(SECTIONS)}"
            )
    calibration = calibration.under(after)
    evaluator = Evaluator(after, calibration)
    if not evaluator.can_rank:
        raise UsageError(
            "this run has none of the measures that have a weight; give a weight to one of the measures of the run"
        )
    run = RunInfo(
        config=after.model_dump(mode="json"),
        measure_set=evaluator.names,
        absent_measures=calibration.missing(after),
        calibration_id=evaluator.calibration_id,
        weights=tuple(summary["weights"]),
        versions=summary["versions"],
        device=summary.get("device") or "",
        calibration=calibration.summary(),
    )
    return Tuning(before, after, changed, evaluator, run, evaluator.calibration_id == summary["calibration_id"])


def _under_preset(before: Config, preset: str) -> Config:
    """The configuration of a run, with the tunable sections replaced by those of a preset. Raises UsageError."""
    given = load_config(preset).model_dump(mode="json")
    known = set(before.measures.recorded)
    tables = {name: given[name] for name in SECTIONS}
    # Leave out measures that the run does not know and the preset does not use.
    tables["measures"] = {name: table for name, table in given["measures"].items() if name in known or table["use"]}
    if new := sorted(tables["measures"].keys() - set(before.measures.names)):
        raise UsageError(
            f"the run did not have the measure {', '.join(new)}: use `streamgate run ... --preset` to compute it"
        )
    return with_settings(before, [], dict(leaves(tables)))


def tuned_totals(record: Record, rejected: Mapping[str, int], *, kept: int, scored: int) -> Record:
    """The record of a source.json, with new counts."""
    return {**record, "kept": kept, "rejected": dict(sorted(rejected.items())), "faces_scored": scored}
