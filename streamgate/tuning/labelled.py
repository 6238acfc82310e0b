"""Finds the labelled faces among the stored faces of one or more runs, with all values that a fit needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from streamgate.errors import SourceError, UsageError, WeightsError, display
from streamgate.labels import FaceKey
from streamgate.measures import MeasureSpec
from streamgate.scoring.calibration import recorded_measures
from streamgate.store.folder import RunFolder
from streamgate.store.records import candidate_of
from streamgate.tracks import Candidate
from streamgate.tuning.fitting import FitData
from streamgate.tuning.footage import FootageScorer
from streamgate.tuning.fusion import value_of
from streamgate.tuning.limits import is_movable
from streamgate.tuning.settings import Tuning, tuning_of

Report = Callable[[str], None]


def labelled_faces(
    outs: Sequence[Path],
    labels: Mapping[FaceKey, int],
    *,
    folders: Sequence[Path] = (),
    models: str | None = None,
    device: str = "auto",
    report: Report = lambda words: None,
) -> tuple[Tuning, list[MeasureSpec], FitData, dict[str, int]]:
    """Find the labelled faces in the results. Faces that were not fully scored are scored in the footage.

    Returns the configuration and calibration of the first run, the measures of its measure set (the columns of
    `FitData.values`), the faces, and the number of labels that are not used, by reason. Raises UsageError if the runs
    had different networks or measures, and ResultsError if a folder has no results.
    """
    runs = [(RunFolder(out), tuning_of(RunFolder(out).summary, [], {})) for out in outs]
    first = runs[0][1]
    for folder, tuning in runs[1:]:
        if _networks(tuning) != _networks(first):
            raise UsageError(
                f"{display(folder.out)} and {display(outs[0])} were made with different networks or measures, so their "
                "values cannot be compared; fit them separately"
            )
    specs = [spec for spec in recorded_measures(first.before) if spec.name in first.evaluator.names]
    unused: Counter[str] = Counter()
    found: list[tuple[FaceKey, Candidate]] = []
    wanted = {key.source_id for key in labels}
    known = {source_id for folder, _ in runs for source_id in folder.source_ids}
    for source_id in sorted(wanted - known):
        count = sum(key.source_id == source_id for key in labels)
        unused[f"source {display(source_id)} is not in these results"] += count
    for folder, tuning in runs:
        with closing(FootageScorer(folder.out, tuning, folders=folders, models=models, device=device)) as footage:
            for source_id in (one for one in folder.source_ids if one in wanted):
                report(source_id)
                found += _of_source(folder, source_id, tuning, labels, footage, unused)
    judged = _joined(first, specs, found, labels, unused)
    return first, specs, judged, {words: count for words, count in unused.items() if count}


def _networks(tuning: Tuning) -> tuple[object, ...]:
    weights = sorted((str(one["role"]), str(one["sha256"])) for one in tuning.run.weights)
    return tuple(weights), tuning.evaluator.names


def _of_source(
    folder: RunFolder,
    source_id: str,
    tuning: Tuning,
    labels: Mapping[FaceKey, int],
    footage: FootageScorer,
    unused: Counter[str],
) -> list[tuple[FaceKey, Candidate]]:
    usual = {track["track_id"]: track.get("reference") or {} for track in folder.tracks(source_id)}
    known = tuning.before.measures.names
    left = {key for key in labels if key.source_id == source_id}
    found: list[tuple[FaceKey, Candidate]] = []
    for record in folder.candidates(source_id):
        key = FaceKey(source_id, record["track_id"], round(float(record["pts_seconds"]), 6))
        if key in left:
            left.discard(key)
            try:
                candidate = candidate_of(record, known)
            except ValueError as error:
                raise folder.error(f"{source_id}/candidates.jsonl.gz", f"is damaged ({error})") from None
            candidate.usual = usual.get(candidate.track_id, {})
            found.append((key, candidate))
    unused["no face in these results has the track and time of the label"] += len(left)
    scorable = [face for _, face in found if not face.spoiled and not face.evidence.failed]
    if unscored := [face for face in scorable if face.quality is None]:
        try:
            with footage.open(folder.source(source_id)) as source:
                footage.score(source, unscored)
        except (SourceError, WeightsError) as error:
            # Continue with the faces that the run did score.
            unused[f"the run did not fully score these faces, and now they cannot be scored ({error})"] += len(unscored)
            missing = {id(face) for face in unscored}
            found = [(key, face) for key, face in found if id(face) not in missing]
    return found


def _joined(
    tuning: Tuning,
    specs: list[MeasureSpec],
    found: Sequence[tuple[FaceKey, Candidate]],
    labels: Mapping[FaceKey, int],
    unused: Counter[str],
) -> FitData:
    moved = {name for spec in specs for limit in spec.limits if is_movable(spec, limit) for name in limit.reasons}
    values, grades, tracks, clips, barred = [], [], [], [], []
    for key, face in found:
        row = [value_of(spec, face.evidence, tuning.evaluator.calibration) for spec in specs]
        if face.spoiled or any(value is None or not np.isfinite(value) for value in row):
            unused["the picture is damaged" if face.spoiled else "a measure could not be computed"] += 1
            continue
        values.append(row)
        grades.append(labels[key])
        tracks.append(f"{key.source_id}/{key.track_id}")
        clips.append(key.source_id)
        barred.append(bool(set(face.gate.reasons) - moved))
    return FitData(
        np.array(values, float).reshape(len(values), len(specs)), np.array(grades, int), np.array(tracks),
        np.array(clips), np.array(barred, bool),
    )  # fmt: skip
