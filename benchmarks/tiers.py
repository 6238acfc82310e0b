#!/usr/bin/env python3
"""The gate with embedded weights beside the gate with standard ones: are the same people found, which faces are kept?

    python benchmarks/tiers.py VIDEOS [--clips NAME...] [--work DIR] [--picture FILE] [--results FILE]

Runs `streamgate run` on every clip with both tiers and compares tracks by where their faces were looked at. --picture
puts the faces that both keep side by side (footage: not for publication). --work keeps the runs' folders.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import RESULTS, Machine, command_line, find_clips, say, table, write_section

TIERS = ("standard", "embedded")
NEAR_S, SAME_IOU, SAME_SHARE = 0.35, 0.3, 0.5
"""Faces looked at within so many seconds are compared; tracks are of one person when this share of them overlap."""
SIDE = 192


@dataclass
class Track:
    """One track of a run: looks are (pts_seconds, box); kept is the aligned picture's path."""

    looks: list[tuple[float, np.ndarray]] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    def words(self) -> str:
        """When, how large, and why nothing was kept."""
        times = [pts for pts, _ in self.looks]
        side = np.median([np.sqrt(np.prod(box[2:] - box[:2])) for _, box in self.looks])
        fate = (
            "kept" if self.kept else ", ".join(sorted(self.reasons, key=lambda r: -self.reasons[r])[:2]) or "not kept"
        )
        return f"{min(times):.1f}-{max(times):.1f} s, {side:.0f} px, {fate}"


def main() -> int:
    """Exit status: 0 written, 1 nothing to compare."""
    args = parse()
    clips, notes = find_clips(args.videos, args.clips)
    for note in notes:
        say(note)
    if not clips:
        return 1
    machine = Machine.here()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        runs = {tier: run(tier, clips, work / tier) for tier in TIERS}
        rows, differences, pictures = compare(clips, runs)
        weights = {tier: summary(work / tier)["weights"] for tier in TIERS}
        if args.picture and pictures:
            cv2.imwrite(str(args.picture), np.concatenate(pictures))
    lines = [
        "## Embedded beside standard weights",
        "",
        f"`{command_line('tiers.py', sys.argv[1:])}`",
        "",
        *machine.lines()[:1],
        *(f"- {tier}: {', '.join(words(one) for one in weights[tier])}" for tier in TIERS),
        f"- tracks are one person when, of the faces that both looked at within {NEAR_S} s of one another, "
        f"{100 * SAME_SHARE:.0f} % overlap by {SAME_IOU} or more",
        "",
        table(
            ["clip", "standard: tracks", "kept", "embedded: tracks", "kept", "both", "only standard", "only embedded"],
            rows,
        ),
        "",
        "Differences:",
        "",
        *(differences or ["- none"]),
    ]
    write_section(args.results, "tiers", "\n".join(lines))
    return 0


def parse() -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("videos", type=Path)
    p.add_argument("--clips", nargs="*", help="only these, by name")
    p.add_argument("--work", type=Path, help="keep the runs here; a run that is there is not repeated")
    p.add_argument("--picture", type=Path, help="faces that both keep, standard above embedded")
    p.add_argument("--results", type=Path, default=RESULTS)
    return p.parse_args()


def run(tier: str, clips: Sequence[Path], out: Path) -> dict[str, dict[int, Track]]:
    """Tracks by clip name and number."""
    if not (out / "summary.json").is_file():
        command = [sys.executable, "-m", "streamgate", "run", *map(str, clips), "-o", str(out), "--models", tier]
        say(f"{tier}: {len(clips)} clips")
        ran = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True)
        if ran.returncode != 0:
            raise SystemExit(f"{tier}: {(ran.stderr.strip().splitlines() or ['failed'])[-1]}")
    return {source["location_name"]: tracks(out / source["source_id"]) for source in sources(out)}


def summary(out: Path) -> dict[str, Any]:
    """The run's summary.json."""
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def sources(out: Path) -> list[dict[str, Any]]:
    """Source ids with the file name of each."""
    return [{**one, "location_name": Path(one["source"]).name} for one in summary(out)["sources"]]


def tracks(folder: Path) -> dict[int, Track]:
    """The tracks of one source by number."""
    found: dict[int, Track] = {}
    with gzip.open(folder / "candidates.jsonl.gz", "rt") as lines:
        for line in lines:
            record = json.loads(line)
            track = found.setdefault(record["track_id"], Track())
            track.looks.append((record["pts_seconds"], np.array(record["box"], float)))
            for reason in (record.get("gate") or {}).get("reasons", []):
                track.reasons[reason] = track.reasons.get(reason, 0) + 1
    for number, track in found.items():
        track.kept = sorted((folder / f"track_{number:04d}").glob("*.png"))
    return found


def same(a: Track, b: Track) -> bool:
    """Whether two tracks show one person."""
    overlaps = []
    for pts, box in a.looks:
        near = min(b.looks, key=lambda look: abs(look[0] - pts))
        if abs(near[0] - pts) <= NEAR_S:
            overlaps.append(iou(box, near[1]) >= SAME_IOU)
    return bool(overlaps) and float(np.mean(overlaps)) >= SAME_SHARE


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    shared = float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)))
    return shared / max(float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - shared, 1e-9)


def compare(
    clips: Sequence[Path], runs: dict[str, dict[str, dict[int, Track]]]
) -> tuple[list[list[str]], list[str], list[np.ndarray]]:
    """Rows of the table, differences in words, and strips of faces that both keep."""
    rows, words_, strips = [], [], []
    for clip in clips:
        mine, theirs = (runs[tier].get(clip.name, {}) for tier in TIERS)
        pairs = [(a, b) for a in mine.values() for b in theirs.values() if same(a, b) or same(b, a)]
        only = [
            [t for t in tracks_.values() if not any(t is pair[side] for pair in pairs)]
            for side, tracks_ in enumerate((mine, theirs))
        ]
        counts = [[str(len(t)), str(sum(bool(x.kept) for x in t.values()))] for t in (mine, theirs)]
        both = len({id(a) for a, _ in pairs})
        rows.append([clip.stem, *counts[0], *counts[1], str(both), str(len(only[0])), str(len(only[1]))])
        for tier, alone in zip(TIERS, only, strict=True):
            words_ += [f"- {clip.stem}, only {tier}: {track.words()}" for track in alone]
        for a, b in pairs:
            if bool(a.kept) != bool(b.kept):
                tier, other = (TIERS[0], b) if a.kept else (TIERS[1], a)
                words_.append(f"- {clip.stem}: only {tier} keeps a face of a person both find ({other.words()})")
        shown = [(a.kept[0], b.kept[0]) for a, b in pairs if a.kept and b.kept][:8]
        if shown:
            strips.append(strip(shown))
    return rows, words_, strips


def strip(shown: Sequence[tuple[Path, Path]]) -> np.ndarray:
    """Faces of one clip, BGR: those of the first tier above those of the second; eight columns."""
    columns = []
    for pair in shown:
        faces = [cv2.imread(str(path)) for path in pair]
        columns.append(np.concatenate([cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for face in faces]))
    blank = np.zeros((2 * SIDE, SIDE, 3), np.uint8)
    return np.concatenate([*columns, *[blank] * (8 - len(columns))], axis=1)


def words(weights: dict[str, Any]) -> str:
    """Role, name, digest."""
    return f"{weights['role']} {weights['name']} {weights['sha256'][:8]}"


if __name__ == "__main__":
    raise SystemExit(main())
