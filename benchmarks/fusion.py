"""Weights and mappings of measures fitted to faces that were labelled by eye, judged on clips that a fit did not see.

    python benchmarks/fusion.py [VIDEOS] [--labels picks.json]

Every labelled face is scored with all networks; `streamgate.tuning.fitting` fits a preset to the labels. Two questions:
how good are picks among the labelled faces by the preset as it stands, and how good would a fit be on clips it has not
seen? The gate takes no part. Prints the fitted tables as TOML, to be copied by hand, and writes its section of
benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import RESULTS, SHARED, Machine, command_line, say, table, write_section
from picks import Label, Track, read_labels

from streamgate.config import load_config
from streamgate.frames import Candidate, Face
from streamgate.gate import Gate
from streamgate.measures import MeasureSpec
from streamgate.scoring.calibration import Calibration, recorded_measures
from streamgate.scoring.faces import FaceScorer
from streamgate.scoring.lockstep import no_floor, run_in_lockstep
from streamgate.selection.reference import TrackReference
from streamgate.sources import discover
from streamgate.tuning.fitting import FitData, Fusion, fit, out_of_clip, picks
from streamgate.tuning.fusion import fusion_of, of_preset, value_of

GRADES = {"g": 2, "m": 1, "b": 0}
SEEDS = 5
START_WEIGHTS = {"expression": 1.0, "pose": 1.0}
"""Weights a fit starts from and is held near, by the source of the measure; 0.5 for the others."""
FIXED = ("pixels", "recognizer", "ifqa")
"""Sources whose mappings come from elsewhere: a card, or what a figure means."""
SAME_TIME_S = 0.02


@dataclass(frozen=True)
class Scored:
    """A labelled face with the evidence of all networks."""

    track: Track
    label: Label
    candidate: Candidate


def main() -> int:
    given = _arguments()
    config = load_config("studio", ["keep.poses=all", "measures.size.min=1"])
    tracks = [track for track in read_labels(given.labels) if (given.videos / track.clip).is_file()]
    if not tracks:
        print(f"fusion.py: none of the labelled clips is in {given.videos}", file=sys.stderr)
        return 1
    with Gate(config=config, models=given.models) as gate:
        context = gate.scoring(config, "fusion")
        faces = [face for clip in dict.fromkeys(track.clip for track in tracks)
                 for face in scored(given.videos / clip, [one for one in tracks if one.clip == clip],
                                    FaceScorer(context))]  # fmt: skip
        calibration = context.evaluator.calibration
    specs = [spec for spec in recorded_measures(config) if spec.name not in calibration.absent]
    judged = judged_faces(faces, specs, calibration)
    preset = load_config("studio")
    stands = of_preset(preset, specs, calibration).log_quality(judged.values)
    rows = [["the preset as it stands", *_cells(judged, [stands])]]
    start = starting_point(specs, calibration)
    rows.append(["fits, on clips they did not see",
                 *_cells(judged, [out_of_clip(judged, start, seed=seed) for seed in range(SEEDS)])])  # fmt: skip
    fitted = fit(judged, start)
    rows.append(["a fit, on the clips it saw", *_cells(judged, [fitted.log_quality(judged.values)])])
    for row in rows:
        say(" | ".join(row))
    for line in toml_of(fitted, specs):
        print(line)
    write_section(given.results, "fusion", _body(rows, judged))
    return 0


def scored(path: Path, tracks: Sequence[Track], scorer: FaceScorer) -> Iterator[Scored]:
    """The labelled faces of a clip, each found again near its labelled box and scored with all networks."""
    wanted = sorted(((label, track) for track in tracks for label in track.faces), key=lambda pair: pair[0].pts)
    (spec,) = discover([path]).sources
    index = 0
    with spec.open() as source:
        for frame in source.frames():
            while index < len(wanted) and wanted[index][0].pts < frame.pts_seconds - SAME_TIME_S:
                index += 1
            for label, track in wanted[index:]:
                if label.pts > frame.pts_seconds + SAME_TIME_S:
                    break
                candidate = Candidate(0, frame.pts_seconds, _guessed(label.box), interpolated=True, shown=frame.shown)
                run_in_lockstep([scorer.score(candidate, frame.picture, no_floor, full=True)], scorer.context.infer)
                if candidate.quality is not None and abs(label.pts - frame.pts_seconds) <= SAME_TIME_S:
                    yield Scored(track, label, candidate)
            del frame


def _guessed(box: np.ndarray) -> Face:
    """A face of a labelled box: where its landmarks are shows when it is looked at again."""
    middle, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    indexes = np.array([[-0.2, -0.15], [0.2, -0.15], [0.0, 0.05], [-0.15, 0.22], [0.15, 0.22]])
    return Face(box.astype(np.float32), (middle + indexes * size).astype(np.float32), 0.9)


def judged_faces(faces: Sequence[Scored], specs: Sequence[MeasureSpec], calibration: Calibration) -> FitData:
    """The faces as a fit takes them, each compared with what the labelled faces of its track show to be usual."""
    references: dict[tuple[str, str], TrackReference] = {}
    for face in faces:
        references.setdefault((face.track.clip, face.track.name), TrackReference()).add(face.candidate.evidence)
    values = []
    for face in faces:
        evidence = face.candidate.evidence
        usual = references[face.track.clip, face.track.name].usual
        for spec in specs:
            if spec.reference is not None and spec.name in usual:
                evidence.values[spec.reference.evidence] = usual[spec.name]
        values.append([value_of(spec, evidence, calibration) for spec in specs])  # a face with a quality has all
    return FitData(
        np.array(values),
        np.array([GRADES[face.label.label] for face in faces]),
        np.array([f"{face.track.clip}|{face.track.name}" for face in faces]),
        np.array([face.track.clip for face in faces]),
    )


def starting_point(specs: Sequence[MeasureSpec], calibration: Calibration) -> Fusion:
    """From which a fit starts: mappings as they are, weights that prefer nothing."""
    weights = [START_WEIGHTS.get(spec.source, 0.5) for spec in specs]
    return fusion_of(weights, specs, calibration, [spec.source not in FIXED for spec in specs])


def toml_of(fusion: Fusion, specs: Sequence[MeasureSpec]) -> Iterator[str]:
    """A fit as tables of a preset."""
    for index, spec in enumerate(specs):
        yield f"[measures.{spec.name}]"
        yield f"weight = {fusion.weight[index]:.2f}"
        if fusion.movable[index]:
            x0 = fusion.x0[index] if spec.better == "higher" else -fusion.x0[index]
            yield f"x0 = {x0:.4g}"
            yield f"w = {fusion.w[index]:.3g}"


def _cells(judged: FitData, qualities: Sequence[np.ndarray]) -> list[str]:
    """Good, usable and bad picks, over tracks that have a good face and over all, the mean of some judgements."""
    has_good = {track for track, grade in zip(judged.tracks, judged.grades, strict=True) if grade == GRADES["g"]}
    there: Counter[int] = Counter()
    every: Counter[int] = Counter()
    for quality in qualities:
        for row in picks(judged, quality):
            every[int(judged.grades[row])] += 1
            there[int(judged.grades[row])] += judged.tracks[row] in has_good
    return [f"{count[grade] / len(qualities):.1f}" for count in (there, every) for grade in GRADES.values()]


def _body(rows: Sequence[Sequence[str]], judged: FitData) -> str:
    tracks = np.unique(judged.tracks)
    goods = {track for track, grade in zip(judged.tracks, judged.grades, strict=True) if grade == GRADES["g"]}
    head = ["quality", "good there", "usable there", "bad there", "good", "usable", "bad"]
    return "\n".join([
        "## Fusion",
        "",
        f"`{command_line('fusion.py', sys.argv[1:])}`",
        "",
        *Machine.here().lines(),
        f"- {len(judged.grades)} labelled faces of {len(tracks)} tracks; {len(goods)} tracks have a good one",
        f"- the best labelled face of each track, nothing rejected; fits: mean of {SEEDS} splits into folds",
        "",
        table(head, rows),
        "",
        "`there`: in tracks that have a good face.",
    ])  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="?", type=Path, default=SHARED / "videos")
    parser.add_argument("--labels", type=Path, default=SHARED / "labels" / "picks.json")
    parser.add_argument("--models", default="embedded")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
