"""Are the kept faces those that a person would choose? They are compared with faces that were labelled by hand.

    python benchmarks/picks.py [VIDEOS] [--labels picks.json] [--config NAME key=value...] [--sheets DIR]
    python benchmarks/picks.py --judged NAME=OUT=JUDGED.json...

The labels are {clip: {track: [{pts, box, label, why}]}}; a label is g (good), m (usable, with one flaw) or b (bad). A
kept face is matched with the labelled faces of its clip by time and box. A kept face without a match counts as bad, and
so does a second kept face of a labelled track. The script compares the default with exhaustive mode and with runs that
leave out one measure each. `--sheets` writes a contact sheet of the picks of each configuration. The script writes its
section of benchmarks/RESULTS.md.

`--judged` is for clips without labels: a person has judged each kept face without knowing which version kept it. Then
the script writes the section "judged". OUT is a folder that `streamgate run` wrote; JUDGED.json is
{image: [label, why]}, with `image` as in faces.jsonl.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import SHARED, Machine, arguments, heading, kept_faces, publish, say, table, target
from processes import streamgate

from streamgate.config import load_config
from streamgate.tracking.overlap import iou

SAME_FACE = 0.3
"""Minimum overlap (IoU) of a kept face with a labelled face that it matches."""
CLOSEST_S = 0.12
"""A label applies to kept faces within this time, or within 3/4 of the median time between labels if that is longer."""
FLAWS = {
    "e": "eyes", "z": "gaze", "m": "mouth", "t": "turned", "q": "quality", "o": "covered", "c": "cut off",
    "u": "no label", "d": "second pick",
}  # fmt: skip
GOALS = {"good": 15, "bad": 1, "picks": 19}
"""Targets for tracks with a good face: good picks (at least), bad picks (at most), tracks with a pick (at least)."""
SHEET_SIDE = 160


@dataclass(frozen=True, slots=True)
class Label:
    """A face that a person labelled; `why` contains letters of FLAWS."""

    pts: float
    box: np.ndarray
    label: str
    why: str


@dataclass(frozen=True, slots=True)
class Track:
    """A track with its labels in order of time. A label applies for `gap` seconds before and after its face."""

    clip: str
    name: str
    faces: tuple[Label, ...]
    gap: float

    @property
    def has_good(self) -> bool:
        return any(face.label == "g" for face in self.faces)


@dataclass(frozen=True, slots=True)
class Pick:
    """A kept face: its labelled track (None: no match), its label g, m or b, and its flaws."""

    record: Mapping[str, Any]
    track: Track | None
    label: str
    why: str


@dataclass(slots=True)
class Score:
    """Counts of picks by label: of all picks, and of those of tracks that have a good face."""

    every: Counter[str] = field(default_factory=Counter)
    with_good: Counter[str] = field(default_factory=Counter)
    flaws: Counter[str] = field(default_factory=Counter)

    def row(self, tracks: int) -> list[str]:
        """The cells of a row in the table."""
        picks, found = sum(self.every.values()), sum(self.with_good.values())
        shares = [f"{self.every[key]} ({100 * self.every[key] / max(picks, 1):.0f} %)" for key in "gmb"]
        flaws = ", ".join(f"{FLAWS[key]} {count}" for key, count in self.flaws.most_common())
        there = [str(self.with_good[key]) for key in "gmb"]
        return [str(picks), *shares, f"{found} of {tracks}", *there, flaws or "none"]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--labels", type=Path, default=SHARED / "labels" / "picks.json")
    parser.add_argument("--config", action="append", nargs="+", default=[], metavar=("NAME", "KEY=VALUE"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these configurations")
    parser.add_argument("--models", default="embedded", help="as for `streamgate run`")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    parser.add_argument("--judged", nargs="+", metavar="NAME=OUT=JUDGED.json", help="only evaluate judged faces")
    given = parser.parse_args()
    if given.judged:
        publish(given.results, "judged", _judged_one_by_one(given.judged))
        return 0
    tracks = read_labels(given.labels)
    found = sorted(given.videos.iterdir()) if given.videos.is_dir() else []
    clips = [path for path in found if path.name in {track.clip for track in tracks}]
    if not clips:
        print(f"picks.py: none of the labelled clips is in {given.videos}", file=sys.stderr)
        return 1
    tracks = [track for track in tracks if track.clip in {path.name for path in clips}]
    goods = sum(track.has_good for track in tracks)
    machine, facts, scores, notes = Machine.here(), None, {}, []
    without = [[f"without {name}", f"measures.{name}.use=false"] for name in load_config("studio").measures.used]
    with tempfile.TemporaryDirectory() as work:
        for name, *settings in [["default"], ["exhaustive", "exhaustive=true"], *without, *given.config]:
            if given.only and name not in given.only:
                continue
            out = Path(work) / name.replace(" ", "-")
            words = [word for one in ("output.report=false", *settings) for word in ("--set", one)]
            ran = streamgate("run", *clips, "-o", out, "--models", given.models, *words, "--quiet", check=False)
            if ran.returncode:
                notes.append(f"{name}: streamgate run ended with {ran.returncode}: {ran.stderr.strip()[-300:]}")
                continue
            facts = facts or json.loads((out / "summary.json").read_text())
            picks = judged(tracks, kept_faces(out))
            scores[name] = score_of(picks)
            say(" | ".join([name, *scores[name].row(goods)]))
            if given.sheets is not None:
                write_sheet(given.sheets / f"{out.name}.png", out, picks)
    rows = [[name, *score.row(goods)] for name, score in scores.items()]
    head = ["configuration", "picks", "good", "usable", "bad", "picks of tracks with a good face",
            "of these good", "of these usable", "of these bad", "flaws of all picks"]  # fmt: skip
    publish(given.results, "picks", [
        *heading("Picks", machine, facts, notes),
        f"- {sum(len(track.faces) for track in tracks)} faces of {len(tracks)} tracks are labelled by hand; {goods} of "
        "these tracks have a good face",
        '- two kinds of picks count as bad: "no label" (the pick matches no labelled face) and "second pick" (a better '
        "face of its track was also kept)",
        "", table(head, rows), "",
        *(_targets(scores["default"], goods) if "default" in scores else []),
    ])  # fmt: skip
    return 0 if scores else 1


def read_labels(path: Path) -> list[Track]:
    """The labelled tracks in the order of the file."""
    found = []
    for clip, tracks in json.loads(path.read_text()).items():
        for name, faces in tracks.items():
            labels = tuple(
                Label(face["pts"], np.array(face["box"], float), face["label"], "".join(face["why"]))
                for face in sorted(faces, key=lambda face: face["pts"])
            )
            gaps = sorted(after.pts - before.pts for before, after in pairwise(labels)) or [0.1]
            found.append(Track(clip, name, labels, max(CLOSEST_S, 0.75 * gaps[len(gaps) // 2])))
    return found


def judged(tracks: Sequence[Track], records: Iterable[Mapping[str, Any]]) -> list[Pick]:
    """Every kept face of the labelled clips, in order of falling quality."""
    picks, seen = [], set()
    clips = {track.clip for track in tracks}
    for record in sorted(records, key=lambda one: -(one["quality_smoothed"] or 0.0)):
        if Path(record["source"]).name not in clips:
            continue
        found = _nearest(tracks, record)
        if found is None:
            picks.append(Pick(record, None, "b", "u"))
        elif (key := (found[0].clip, found[0].name)) in seen:
            picks.append(Pick(record, found[0], "b", "d"))
        else:
            seen.add(key)
            picks.append(Pick(record, found[0], found[1].label, found[1].why))
    return picks


def _nearest(tracks: Sequence[Track], record: Mapping[str, Any]) -> tuple[Track, Label] | None:
    best: tuple[float, Track, Label] | None = None
    box = np.array(record["box"], float)
    for track in tracks:
        if track.clip != Path(record["source"]).name:
            continue
        for face in track.faces:
            away = abs(face.pts - record["pts_seconds"])
            near = away <= track.gap and (best is None or away < best[0])
            if near and iou(face.box[None], box[None])[0, 0] >= SAME_FACE:
                best = (away, track, face)
    return None if best is None else best[1:]


def score_of(picks: Iterable[Pick]) -> Score:
    """The counts of picks by label."""
    score = Score()
    for pick in picks:
        score.every[pick.label] += 1
        score.flaws.update(pick.why)
        if pick.track is not None and pick.track.has_good and pick.why != "d":
            score.with_good[pick.label] += 1
    return score


def write_sheet(path: Path, out: Path, picks: Sequence[Pick]) -> None:
    """Write a contact sheet: bad picks first, each with its clip, label and flaws."""
    tiles = []
    for pick in sorted(picks, key=lambda one: ("bmg".index(one.label), one.record["source"])):
        tile = np.full((SHEET_SIDE + 32, SHEET_SIDE, 3), 255, np.uint8)
        tile[:SHEET_SIDE] = cv2.resize(cv2.imread(str(out / pick.record["image"])), (SHEET_SIDE, SHEET_SIDE))
        words = (f"{pick.label} {pick.why} {pick.record['quality']:.0f}", Path(pick.record["source"]).stem[:22])
        for line, text in enumerate(words):
            at = (2, SHEET_SIDE + 13 + 14 * line)
            cv2.putText(tile, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.full((SHEET_SIDE + 32, SHEET_SIDE, 3), 255, np.uint8)] * (-len(tiles) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if tiles:
        cv2.imwrite(str(path), np.vstack([np.hstack(tiles[start : start + 8]) for start in range(0, len(tiles), 8)]))


def _targets(score: Score, goods: int) -> list[str]:
    there, every = score.with_good, score.every
    share = 100 * every["b"] / max(1, sum(every.values()))
    picks = sum(there.values())
    return [
        target("good picks in tracks that have a good face", f"{there['g']} of {goods}", f"at least {GOALS['good']}",
               there["g"] >= GOALS["good"]),
        target("bad picks in tracks that have a good face", str(there["b"]), f"at most {GOALS['bad']}",
               there["b"] <= GOALS["bad"]),
        target("tracks with a good face that have a pick", str(picks), f"at least {GOALS['picks']}",
               picks >= GOALS["picks"]),
        target("share of bad picks among all picks", f"{share:.0f} %", "at most 10 %", share <= 10),
    ]  # fmt: skip


def _judged_one_by_one(given: Sequence[str]) -> list[str]:
    """The section "judged". Raises SystemExit if a kept face was not judged."""
    rows = []
    for text in given:
        name, out, file = text.split("=")
        kept, known = kept_faces(Path(out)), json.loads(Path(file).read_text())
        if missing := [face["image"] for face in kept if face["image"] not in known]:
            raise SystemExit(f"picks.py: {missing[0]} was not judged ({len(missing)} in all)")
        score = Score()
        for face in kept:
            label, why = known[face["image"]]
            score.every[label] += 1
            score.flaws.update(why)
        picks, *shares = score.row(0)[:4]
        rows.append([name, str(len({face["source_id"] for face in kept})), picks, *shares, score.row(0)[-1]])
    head = ["version", "clips with kept faces", "kept faces", "accepted", "usable", "rejected", "flaws"]
    return [
        "## New clips, judged by a person", "",
        "The kept faces of all versions were mixed and judged by a person who knew neither the version nor the scores. "
        'The question was the same as for the labels: "Would I accept this picture as a portrait of this person?"', "",
        table(head, rows),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
