"""Are persons found correctly? The persons in the shared clips are compared with labels made by hand.

    python benchmarks/people.py [VIDEOS] [--clips NAME...] [--tiers embedded standard]

The script reads all clips in one run per tier of weights, and writes its section of benchmarks/RESULTS.md. The labels
are in people.toml: it lists the clips that show only one person; for the other clips, it lists points that are inside
the face of a given person at a given time. Tracks without such a point are counted, but not judged.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

from common import (
    REPOSITORY,
    Machine,
    arguments,
    command_line,
    find_clips,
    kept_faces,
    publish,
    say,
    table,
)
from processes import streamgate

NEAR_S = 0.5
"""A labelled point applies to faces that were kept at most this time before or after it."""
OPTIONS = ("--top-k", "5", "--min-size", "40", "--jobs", "2", "--quiet")
TIERS = {
    "embedded": (),
    "standard": ("--set", "measures.occlusion.use=false", "--set", "measures.eyes.use=false"),
}
CROWD = "facenetpt_video"
LENIENT = (
    "--min-size", "32", "--max-yaw", "45", "--set", "measures.pitch.max=40", "--set", "measures.ifqa.min=0",
    "--set", "measures.serfiq.min=15", "--set", "measures.eyes.min=0",
)  # fmt: skip
"""A second run of the crowded clip, in which poor faces pass the gate: different people are merged there first."""

Track = tuple[str, int]
"""Clip and track id."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one tier.

    `merged` are the persons that contain several people according to the labels; `split` are the people who were found
    as several persons.
    """

    what: str
    threshold: float
    faces: int
    tracks: dict[Track, str | None]
    persons: dict[str, list[Track]]

    @property
    def judged(self) -> dict[Track, str]:
        return {track: who for track, who in self.tracks.items() if who is not None}

    @property
    def merged(self) -> list[str]:
        found = []
        for person, tracks in sorted(self.persons.items()):
            seen = {self.tracks[track] for track in tracks} - {None}
            if len(seen) > 1:
                found.append(f"{person}: {', '.join(sorted(map(str, seen)))}")
        return found

    @property
    def person_of(self) -> dict[Track, str]:
        return {track: person for person, tracks in self.persons.items() for track in tracks}

    @property
    def split(self) -> list[str]:
        of = self.person_of
        found: dict[str, set[str]] = {}
        for track, who in self.judged.items():
            found.setdefault(who, set()).add(of[track])
        return [f"{who} as {len(persons)}" for who, persons in sorted(found.items()) if len(persons) > 1]

    @property
    def pairs(self) -> tuple[int, int, int]:
        """Numbers of pairs of labelled tracks: of one person and merged; of one person; of different people."""
        of = self.person_of
        together = same = different = 0
        for (one, who), (other, beside) in combinations(sorted(self.judged.items()), 2):
            if who == beside:
                same += 1
                together += of[one] == of[other]
            else:
                different += 1
        return together, same, different


def main() -> None:
    parser = arguments(__doc__, clips=True)
    parser.add_argument("--tiers", nargs="*", choices=TIERS, default=list(TIERS))
    given = parser.parse_args()
    clips, notes = find_clips(given.videos, given.clips)
    if not clips:
        raise SystemExit(notes[0])
    machine = Machine.here()
    verdicts = []
    crowd = [clip for clip in clips if clip.stem == CROWD]
    for tier, (what, some, options) in product(
        given.tiers, (("all clips", clips, ()), (f"{CROWD}, lenient gate", crowd, LENIENT))
    ):
        if not some:
            continue
        with tempfile.TemporaryDirectory() as work:
            out = Path(work) / "out"
            say(f"{tier}, {what}")
            streamgate("run", *some, "-o", out, *OPTIONS, *options, "--models", tier, *TIERS[tier])
            verdicts.append(judge(f"{tier}, {what}", _threshold(tier), out))
    publish(given.results, "people", section(verdicts, machine))


def judge(what: str, threshold: float, out: Path) -> Verdict:
    """Compare the persons of an output folder with the labels."""
    known = tomllib.loads((REPOSITORY / "benchmarks" / "people.toml").read_text(encoding="utf-8"))
    tracks: dict[Track, str | None] = {}
    persons: dict[str, list[Track]] = {}
    faces = 0
    for record in kept_faces(out):
        faces += 1
        track = (Path(record["source"]).stem, record["track_id"])
        who = seen(record, track[0], known)
        if who is None:
            tracks.setdefault(track, None)
        elif tracks.get(track) not in (None, who):
            raise SystemExit(f"{track[0]}, track {track[1]}: labelled {tracks[track]} and {who}: two people")
        else:
            tracks[track] = who
        if track not in persons.setdefault(record["person_id"], []):
            persons[record["person_id"]].append(track)
    return Verdict(what, threshold, faces, tracks, persons)


def seen(record: dict[str, Any], clip: str, known: dict[str, Any]) -> str | None:
    """The labelled person of a kept face, None if the face is not labelled."""
    if clip in known["alone"]:
        return str(known["alone"][clip])
    x1, y1, x2, y2 = record["box"]
    points = [
        (abs(pts - record["pts_seconds"]), who)
        for pts, x, y, who in known["points"].get(clip, [])
        if x1 <= x <= x2 and y1 <= y <= y2 and abs(pts - record["pts_seconds"]) <= NEAR_S
    ]
    return str(min(points)[1]) if points else None


def section(verdicts: Sequence[Verdict], machine: Machine) -> list[str]:
    """The section of RESULTS.md."""
    rows = []
    for one in verdicts:
        together, same, different = one.pairs
        rows.append([
            one.what, f"{one.threshold:.3f}", str(one.faces), f"{len(one.tracks)} ({len(one.judged)})",
            str(len(set(one.judged.values()))), str(len(one.persons)), f"{len(one.merged)} ({different})",
            f"{together} of {same}",
        ])  # fmt: skip
    head = (
        "weights and clips", "threshold", "faces", "tracks (labelled by hand)", "labelled people", "persons found",
        "persons that contain several people (pairs of different people)", "merged pairs of tracks of one person",
    )  # fmt: skip
    lines = [
        "## Persons",
        "",
        f"`{command_line('people.py', sys.argv[1:])}` reads all clips in one run with `{' '.join(OPTIONS[:4])}`, and "
        f"then only `{CROWD}`, with a lenient gate: `{' '.join(LENIENT)}`. The people in the clips were identified by "
        "hand on contact sheets; `people.toml` lists them.",
        "",
        *machine.lines()[1:2],
        "",
        table(head, rows),
        "",
    ]
    for one in verdicts:
        lines.append(f"- {one.what}; tracks of different people that were merged: {'; '.join(one.merged) or 'none'}")
        lines.append(f"- {one.what}; people who were split into several persons: {'; '.join(one.split) or 'none'}")
        several = [tracks for tracks in one.persons.values() if len({clip for clip, _ in tracks}) > 1]
        across = sorted({one.tracks[tracks[0]] or "unlabelled people" for tracks in several})
        lines.append(f"- {one.what}; people who were found in several clips: {', '.join(across) or 'none'}")
    return lines


def _threshold(tier: str) -> float:
    from streamgate.weights import resolve

    return resolve(tier)["recognizer"].identity_threshold or 0.0


if __name__ == "__main__":
    main()
