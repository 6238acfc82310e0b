"""Evaluates and selects the faces of a whole output folder again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamgate.config import leaves, stored_config
from streamgate.errors import ResultsError, SourceError
from streamgate.people.ledger import Ledger, has_people
from streamgate.report.write import write_report
from streamgate.sinks.derive import derive
from streamgate.store import files, staging
from streamgate.store.folder import RunFolder, result_of
from streamgate.store.identity import load_identity
from streamgate.store.layout import REPORT
from streamgate.store.manifest import Manifest, run_record
from streamgate.store.run import IdentityInfo, RunInfo
from streamgate.tuning.footage import FootageScorer
from streamgate.tuning.rewriting import write_source
from streamgate.tuning.settings import Tuning, tuning_of
from streamgate.tuning.source import SourceOutcome, SourceTuning


@dataclass(slots=True)
class TuneResult:
    """The counts before and after a tuning."""

    before: SourceOutcome
    after: SourceOutcome
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Keys of the configuration that differ, with the values before and after."""
    sources: int = 0
    """Number of sources whose records changed."""
    same_meaning: bool = True
    """Whether the qualities can be compared with those before the tuning."""
    left_out: list[str] = field(default_factory=list)
    """A message for each source that is unchanged because its stored results are damaged."""
    problems: list[str] = field(default_factory=list)
    """A message for each other result that could not be read."""


Report = Callable[[int, int], None]


def tune(
    out: Path,
    settings: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    *,
    preset: str | None = None,
    folders: Sequence[Path] = (),
    models: str | None = None,
    device: str = "auto",
    dry: bool = False,
    pictured: bool = False,
    report: Report = lambda done, total: None,
) -> TuneResult:
    """Evaluate all stored faces with changed settings, select again, and write what has changed.

    The results are changed only after everything has been computed and staged, so an error changes nothing.

    Args:
        settings, flags: as for `run`.
        preset: a preset, applied before `settings` and `flags`; only its sections `[measures]`, `[keep]` and
            `[smoothing]` are used.
        folders: folders in which to search for moved sources.
        dry: compute the result, but write nothing.
        pictured: do not read the footage, and pick only among faces with existing pictures.
        report: called with the number of completed sources and the number of all sources.

    Raises:
        UsageError: a setting is invalid or needs a new run.
        ResultsError: `out` has no results, or the results are not sufficient to evaluate the faces again.
        SourceError: footage is needed but missing.
        WeightsError: footage is needed, but the networks of the run are not available.
        SinkError: the folder is in use or not writable.
    """
    with RunFolder(out).lock():
        finish_pending(out)
        folder = RunFolder(out)
        tuning = tuning_of(folder.summary, settings, flags or {}, preset)
        footage = FootageScorer(out, tuning, folders=folders, models=models, device=device)
        with closing(footage):
            return _tune(folder, tuning, footage, report, dry=dry, pictured=pictured)


def finish_pending(out: Path) -> bool:
    """Finish a committed tuning that was interrupted. The caller holds the lock.

    Returns whether there was such a tuning. Raises SinkError.
    """
    if not staging.is_pending(out):
        return False
    manifest = Manifest.read(out)
    report = staging.finish(out, manifest)
    _derive(out, manifest, report)
    staging.clean(out)
    return True


def _tune(
    folder: RunFolder, tuning: Tuning, footage: FootageScorer, report: Report, *, dry: bool, pictured: bool
) -> TuneResult:
    out = folder.out
    result = TuneResult(SourceOutcome(), SourceOutcome(), _changes(tuning), same_meaning=tuning.same_meaning)
    if not tuning.changed:
        return result
    Ledger.read(out)
    names: dict[str, list[str]] = {}
    failed: list[str] = []
    if not dry:
        staging.begin(out)
    try:
        for index, source_id in enumerate(folder.source_ids):
            report(index, len(folder.source_ids))
            source = SourceTuning(folder, source_id, tuning, dry=dry, pictured=pictured)
            load_identity(out, source_id)  # fail now if the file is damaged, because it is needed at the end
            _add(result.before, source.before())
            try:
                source.read()
                source.pick(footage)
            except ResultsError as error:
                result.left_out.append(str(error))
                _add(result.after, source.before())
                continue
            except SourceError as error:
                # Continue with the other sources, so that the error lists all missing footage.
                failed.append(str(error))
                continue
            _add(result.after, source.outcome)
            result.sources += source.changed
            if source.changed and not dry and not failed:
                with files.sink_errors(out):
                    source.put_aside()
                    listed = folder.manifest.sources[source_id]
                    names[source_id] = write_source(source, staging.add_source(out, source_id), listed)
        if len(result.left_out) == len(folder.source_ids) > 0:
            raise ResultsError(result.left_out[0])
        if failed:
            more = f" ({len(failed) - 5} more)" if len(failed) > 5 else ""
            raise SourceError(
                f"better faces are in footage that cannot be read, so nothing was changed: {'; '.join(failed[:5])}"
                f"{more}. If the footage was moved, give --footage DIR; with --pictured, only faces that already have "
                "pictures are selected"
            )
        if not dry:
            _put_in_place(folder, tuning, names)
            result.problems = _report(out)
    except BaseException:
        if not dry and not staging.is_pending(out):
            staging.clean(out)
        raise
    return result


def _put_in_place(folder: RunFolder, tuning: Tuning, names: Mapping[str, list[str]]) -> None:
    out, summary = folder.out, folder.summary
    report = {
        "run": run_record(tuning.run),
        "info": {
            "config": tuning.run.config,
            "measure_set": list(tuning.run.measure_set),
            "absent_measures": dict(tuning.run.absent_measures),
            "calibration_id": tuning.run.calibration_id,
            "weights": [dict(one) for one in tuning.run.weights],
            "versions": dict(tuning.run.versions),
            "device": tuning.run.device,
            "calibration": dict(tuning.run.calibration),
        },
        # Sources without results are recorded only in the summary.
        "failed": [one for one in summary["sources"] if one["source_id"] not in set(folder.source_ids)],
        "timing": summary["timing"]["run"],
        "complete": summary["complete"],
    }
    staging.commit(out, report, names)
    _derive(out, folder.manifest, staging.finish(out, folder.manifest))
    staging.clean(out)


def _derive(out: Path, manifest: Manifest, report: Mapping[str, Any]) -> None:
    """Derive faces.jsonl, persons.jsonl and summary.json from the current sources. Raises SinkError."""
    info = report["info"]
    # Existing persons stay as they are. A track that kept no face before becomes a new person (hence the threshold of
    # 1.0): its embedding was not stored, and a track is not merged if its person is uncertain.
    threshold = 1.0 if has_people(out) else None
    run = RunInfo(
        **{**info, "measure_set": tuple(info["measure_set"]), "weights": tuple(info["weights"])},
        identity=IdentityInfo(stored_config(info["config"]).identity.store, threshold),
    )
    results = [result_of(one) for one in report["failed"]]
    derive(out, manifest.present(), run, results, report["timing"], complete=report["complete"])


def _report(out: Path) -> list[str]:
    manifest = Manifest.read(out)
    if REPORT not in manifest.owned:
        return []
    return write_report(out, manifest, Ledger.read(out).names)


def _changes(tuning: Tuning) -> dict[str, tuple[Any, Any]]:
    before, after = (dict(leaves(one.model_dump(mode="json"))) for one in (tuning.before, tuning.after))
    return {key: (before.get(key), after.get(key)) for key in tuning.changed}


def _add(total: SourceOutcome, one: SourceOutcome) -> None:
    for name in SourceOutcome.__slots__:
        value = getattr(one, name)
        if isinstance(value, Counter):
            getattr(total, name).update(value)
        else:
            setattr(total, name, getattr(total, name) + value)
