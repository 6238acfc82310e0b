"""What may be changed about results that are there, and the run as it would then have been."""

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
"""Sections of the configuration that judging and picking again can follow; all else decides what was looked at."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Results as they are and as they shall be.

    `same_meaning`: qualities mean what they meant (one calibration id), so those that are stored stand.
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
    """Read a run's configuration from summary.json and lay the changes over it: what a preset says of them first.

    Raises UsageError for a key or value that cannot be, or that takes another run; ResultsError for a summary without
    what judging again takes.
    """
    try:
        before = stored_config(summary["config"])
        calibration = Calibration.of_summary(summary["calibration"])
        Evaluator(before, calibration)
    except (UsageError, KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"summary.json lacks what judging again takes or is of another version ({error}); run the sources again"
        ) from error
    after = with_settings(before if preset is None else _under_preset(before, preset), settings, flags)
    changed = tuple(differing_keys(after, before))
    for key in changed:
        if key.partition(".")[0] not in SECTIONS:
            raise UsageError(
                f"{key} decides what is looked at or written, so it takes a run: `streamgate run ... --set {key}=...`; "
                f"tune changes {', '.join(SECTIONS)}"
            )
    calibration = calibration.under(after)
    evaluator = Evaluator(after, calibration)
    if not evaluator.can_rank:
        raise UsageError("none of the measures in use that have a weight was to be had in this run")
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
    """A run's configuration with the sections of a preset that can be tuned. Raises UsageError."""
    given = load_config(preset).model_dump(mode="json")
    known = set(before.measures.recorded)
    tables = {name: given[name] for name in SECTIONS}
    # A measure that is not used and was unknown to the run stays so.
    tables["measures"] = {name: table for name, table in given["measures"].items() if name in known or table["use"]}
    if new := sorted(tables["measures"].keys() - set(before.measures.names)):
        raise UsageError(f"the run knew no measure {', '.join(new)}: `streamgate run ... --preset` measures it")
    return with_settings(before, [], dict(leaves(tables)))


def tuned_totals(record: Record, rejected: Mapping[str, int], *, kept: int, scored: int) -> Record:
    """A source.json with other counts."""
    return {**record, "kept": kept, "rejected": dict(sorted(rejected.items())), "faces_scored": scored}
