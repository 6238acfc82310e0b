"""Does a preset fitted to labels choose better on clips that it did not see? `streamgate fit`, both halves by turns.

    python benchmarks/taste.py WORK [VIDEOS] [--labels picks.json]

The labelled clips are parted in two halves. Each is run so that every followed face is a candidate, labels are found
among these, and `streamgate fit` writes a preset, with which the other half is run and its picks are judged. Writes its
section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from agreement import WORDS
from common import RESULTS, SHARED, Machine, command_line, say, table, write_section
from picks import Label, Track, judged, read_labels, score_of

from streamgate.config import load_config
from streamgate.labels import FaceKey, grade_of, labels_text
from streamgate.store.folder import RunFolder
from streamgate.tracking.overlap import iou

SAME_TIME_S = 0.02
SAME_FACE = 0.3
EVERY = ("advanced.prescore_interval_s=0", "advanced.prescore_share=0", "output.report=false")
"""Every followed face is looked at; `fit` scores the labelled ones in full."""
STARTS = {
    "studio": (),
    "equal weights": tuple(f"[measures.{name}]\nweight = 1.0" for name in load_config("studio").measures.used),
}
"""From what a fit starts: tables of a preset, by its name."""


def main() -> int:
    given = _arguments()
    tracks = [track for track in read_labels(given.labels) if (given.videos / track.clip).is_file()]
    clips = sorted({track.clip for track in tracks})
    halves = [[given.videos / clip for clip in part] for part in (clips[::2], clips[1::2])]
    given.work.mkdir(parents=True, exist_ok=True)
    rows, notes = [], []
    for name, settings in STARTS.items():
        start = given.work / f"{name.replace(' ', '-')}.toml"
        start.write_text("\n".join(['extends = "studio"', *settings, ""]))
        fitted = []
        for number, half in enumerate(halves):
            preset, told = _fitted(given, start, number, half, tracks)
            fitted.append(preset)
            notes += [f"From {name}, fitted to half {number + 1}:", "", "```", told, "```", ""]
        for what, presets in ((name, [start, start]), (f"{name}, fitted to the other half", fitted[::-1])):
            picks = []
            for preset, half in zip(presets, halves, strict=True):
                out = given.work / f"picks-{preset.stem}-{half[0].stem}"
                _run(half, out, preset, ("output.report=false",))
                here = [track for track in tracks if given.videos / track.clip in half]
                picks += judged(here, list(RunFolder(out).faces()))
            rows.append([what, *score_of(picks).row(sum(track.has_good for track in tracks))])
            say(" | ".join(rows[-1]))
    head = ["preset", "picks", "good", "usable", "bad", "tracks with a good face that have a pick", "good there",
            "usable there", "bad there", "flaws of the picks"]  # fmt: skip
    write_section(given.results, "taste", "\n".join([
        "## A preset fitted to labels", "", f"`{command_line('taste.py', sys.argv[1:])}`", "", *Machine.here().lines(),
        "", f"{len(tracks)} tracks of {len(clips)} clips in two halves; every clip is judged with the preset that was "
        "fitted to the other half. `studio` itself was fitted to all of these labels; with equal weights only its "
        "mappings and limits are left of that.", "", table(head, rows), "", *notes,
    ]))  # fmt: skip
    return 0


def _fitted(
    given: argparse.Namespace, start: Path, number: int, half: Sequence[Path], tracks: Sequence[Track]
) -> tuple[Path, str]:
    """The preset that `streamgate fit` makes of a half of the labels, and what it prints."""
    out = given.work / f"{start.stem}-half{number + 1}"
    _run(half, out, start, EVERY)
    found = labels_of(out, [track for track in tracks if given.videos / track.clip in half])
    labels = given.work / f"{out.name}.csv"
    labels.write_text(labels_text(found.items()))
    preset = given.work / f"fitted-{out.name}.toml"
    told = _call("fit", out, "--labels", labels, "-o", preset, "--overwrite", "--footage", given.videos)
    say(told)
    return preset, told.partition("\n\nwrote")[0]


def labels_of(out: Path, tracks: Sequence[Track]) -> dict[FaceKey, int]:
    """Grades of the candidates that show a labelled face at its time."""
    found: dict[FaceKey, int] = {}
    folder = RunFolder(out)
    for source_id in folder.source_ids:
        clip = Path(folder.source(source_id)["source"]).name
        labels = [label for track in tracks if track.clip == clip for label in track.faces]
        for face in folder.candidates(source_id):
            near = [label for label in labels if abs(label.pts - face["pts_seconds"]) <= SAME_TIME_S]
            best = max(near, key=lambda label: _overlap(label, face["box"]), default=None)
            grade = None if best is None or _overlap(best, face["box"]) < SAME_FACE else grade_of(WORDS[best.label])
            if grade is not None:
                found[FaceKey(source_id, face["track_id"], round(face["pts_seconds"], 6))] = grade
    return found


def _overlap(label: Label, box: Sequence[float]) -> float:
    return float(iou(label.box[None], np.array(box, float)[None])[0, 0])


def _run(clips: Sequence[Path], out: Path, preset: Path, settings: Sequence[str]) -> None:
    """A run; one that is there already, whole, is left as it is."""
    given = [word for one in settings for word in ("--set", one)]
    _call("run", *clips, "-o", out, "--preset", preset, "--quiet", "--resume", *given)


def _call(*words: object) -> str:
    ran = subprocess.run([sys.executable, "-m", "streamgate", *map(str, words)], capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(f"taste.py: streamgate {words[0]} ended with {ran.returncode}: {ran.stderr.strip()[-600:]}")
    return ran.stdout + ran.stderr


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("videos", nargs="?", type=Path, default=SHARED / "videos")
    parser.add_argument("--labels", type=Path, default=SHARED / "labels" / "picks.json")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
