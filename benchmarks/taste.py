"""Does a preset fitted to labels choose better on clips that it did not see? `streamgate fit`, both halves by turns.

    python benchmarks/taste.py WORK [VIDEOS] [--labels picks.json] [--every 1] [--longest SECONDS]

The labelled clips are parted in two halves. Each is run so that every followed face is a candidate, labels are found
among these, and `streamgate fit` writes a preset, by which `streamgate tune` chooses the other half's faces again;
these picks are judged. Writes its section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import av
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
EVERY = (
    "--set", "advanced.prescore_interval_s=0", "--set", "advanced.prescore_share=0", "--set", "output.report=false",
)  # fmt: skip
"""Every followed face is looked at; `fit` scores the labelled ones in full."""
STARTS = {
    "studio": (),
    "equal weights": tuple(f"[measures.{name}]\nweight = 1.0" for name in load_config("studio").measures.used),
}
"""From what a fit starts: tables of a preset, by its name."""


def main() -> int:
    given = _arguments()
    tracks = read_labels(given.labels)
    clips = sorted(name for name in {track.clip for track in tracks} if _is_taken(given.videos / name, given.longest))
    tracks = [track for track in tracks if track.clip in clips]
    halves = clips[::2], clips[1::2]
    given.work.mkdir(parents=True, exist_ok=True)
    runs = []
    for number, half in enumerate(halves, 1):
        out = given.work / f"half{number}"
        _call("run", *(given.videos / clip for clip in half), "-o", out, "--resume", "--quiet", *EVERY)
        labels = labels_of(out, [track for track in tracks if track.clip in half], given.every)
        out.with_suffix(".csv").write_text(labels_text(labels.items()))
        runs.append(out)
    rows, notes = [], []
    for name, settings in STARTS.items():
        start = given.work / f"{name.replace(' ', '-')}.toml"
        start.write_text("\n".join(['extends = "studio"', *settings, ""]))
        outs = [_tuned(out, start, given.videos) if settings else out for out in runs]
        fitted = []
        for number, (run, out) in enumerate(zip(runs, outs, strict=True), 1):
            fitted.append(out.with_name(f"fitted-to-{out.name}.toml"))
            report = _call("fit", out, "--labels", run.with_suffix(".csv"), "-o", fitted[-1], "--overwrite",
                         "--footage", given.videos)  # fmt: skip
            say(report)
            notes += [f"From {name}, fitted to half {number}:", "", "```", report.partition("\n\nwrote")[0], "```", ""]
        again = [_tuned(out, preset, given.videos) for out, preset in zip(outs, fitted[::-1], strict=True)]
        for what, folders in ((name, outs), (f"{name}, fitted to the other half", again)):
            picks = []
            for half, folder in zip(halves, folders, strict=True):
                here = [track for track in tracks if track.clip in half]
                picks += judged(here, list(RunFolder(folder).faces()))
            rows.append([what, *score_of(picks).row(sum(track.has_good for track in tracks))])
            say(" | ".join(rows[-1]))
    head = ["preset", "picks", "good", "usable", "bad", "tracks with a good face that have a pick", "good there",
            "usable there", "bad there", "flaws of the picks"]  # fmt: skip
    write_section(given.results, "taste", "\n".join([
        "## A preset fitted to labels", "", f"`{command_line('taste.py', sys.argv[1:])}`", "", *Machine.here().lines(),
        "", f"{len(tracks)} tracks of {len(clips)} clips in two halves, every followed face a candidate; each half is "
        "chosen again (`tune`) by the preset that was fitted to the other one. `studio` itself was fitted to all of "
        "these labels; with equal weights only its mappings and limits are left of that.", "", table(head, rows), "",
        *notes,
    ]))  # fmt: skip
    return 0


def labels_of(out: Path, tracks: Sequence[Track], every: int) -> dict[FaceKey, int]:
    """Grades of the candidates that show a labelled face at its time, of each track every so many."""
    found: dict[FaceKey, int] = {}
    folder = RunFolder(out)
    for source_id in folder.source_ids:
        clip = Path(folder.source(source_id)["source"]).name
        labels = [label for track in tracks if track.clip == clip for label in track.faces[::every]]
        for face in folder.candidates(source_id):
            near = [label for label in labels if abs(label.pts - face["pts_seconds"]) <= SAME_TIME_S]
            best = max(near, key=lambda label: _overlap(label, face["box"]), default=None)
            grade = None if best is None or _overlap(best, face["box"]) < SAME_FACE else grade_of(WORDS[best.label])
            if grade is not None:
                found[FaceKey(source_id, face["track_id"], round(face["pts_seconds"], 6))] = grade
    return found


def _overlap(label: Label, box: Sequence[float]) -> float:
    return float(iou(label.box[None], np.array(box, float)[None])[0, 0])


def _is_taken(clip: Path, longest: float) -> bool:
    if not clip.is_file():
        return False
    with av.open(str(clip)) as container:
        return container.duration is None or container.duration / av.time_base <= longest


def _tuned(out: Path, preset: Path, videos: Path) -> Path:
    """A copy of results, chosen again by a preset."""
    copy = out.with_name(f"{out.name}-by-{preset.stem}")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(out, copy)
    _call("tune", copy, "--preset", preset, "--footage", videos)
    return copy


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
    parser.add_argument("--longest", type=float, default=3600.0, metavar="SECONDS", help="leave longer clips out")
    parser.add_argument("--every", type=int, default=1, help="fit to every so many labels of a track")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
