"""Persons on the shared clips as one batch, against who is seen there by eye; and the threshold of a recognizer.

    python benchmarks/people.py [--sheets DIR]      runs both tiers, writes the section `people` of RESULTS.md
    python benchmarks/people.py threshold [TIER]    prints the identity threshold of a tier's recognizer on LFW

Who is seen is written in people.toml: clips that show one person, and in the others points that lie in a face at a
time. Tracks that hold no such point are not judged, and said to be so. With `--sheets` a contact sheet is written for
each tier: a row a person, its faces best first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import common
from common import REPOSITORY, RESULTS, SHARED, Machine, command_line, say, table, write_section

NEAR_S = 0.5
"""A point speaks for a face that was kept so long before or after it."""
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
"""The crowd once more through a gate that lets poor faces through: there strangers would be merged first."""
TILE = 128

Track = tuple[str, int]
"""Clip and track id."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out for one tier.

    `merged` are persons of several people by eye, `split` people by eye who came as several persons.
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
    def split(self) -> list[str]:
        of = {track: person for person, tracks in self.persons.items() for track in tracks}
        found: dict[str, set[str]] = {}
        for track, who in self.judged.items():
            found.setdefault(who, set()).add(of[track])
        return [f"{who} as {len(persons)}" for who, persons in sorted(found.items()) if len(persons) > 1]

    @property
    def pairs(self) -> tuple[int, int, int]:
        """Pairs of judged tracks of one person by eye: those found as one and all; and pairs of two people."""
        of = {track: person for person, tracks in self.persons.items() for track in tracks}
        together = same = different = 0
        for (one, who), (other, beside) in combinations(sorted(self.judged.items()), 2):
            if who == beside:
                same += 1
                together += of[one] == of[other]
            else:
                different += 1
        return together, same, different

    def joined(self, clip: str) -> str:
        """How the tracks of a clip went: `3 tracks, 1 person`."""
        tracks = [track for track in self.tracks if track[0] == clip]
        persons = {person for person, members in self.persons.items() if any(one in members for one in tracks)}
        return f"{len(tracks)} tracks, {len(persons)} person{'' if len(persons) == 1 else 's'}"


def main() -> None:
    if sys.argv[1:2] == ["threshold"]:
        print_threshold(sys.argv[2] if len(sys.argv) > 2 else "standard")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, default=SHARED / "videos")
    parser.add_argument("--tiers", nargs="*", default=list(TIERS))
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    clips, notes = common.find_clips(given.videos, None)
    if not clips:
        raise SystemExit(notes[0])
    machine = Machine.here()
    verdicts = []
    crowd = [clip for clip in clips if clip.stem == CROWD]
    for tier, (what, some, options) in product(
        given.tiers, (("all clips", clips, ()), ("the crowd, lenient gate", crowd, LENIENT))
    ):
        if not some:
            continue
        with tempfile.TemporaryDirectory() as work:
            out = Path(work) / "out"
            say(f"{tier}, {what}")
            command = [sys.executable, "-m", "streamgate", "run", *map(str, some), "-o", str(out), *OPTIONS, *options]
            subprocess.run([*command, "--models", tier, *TIERS[tier]], check=True)
            verdicts.append(judge(f"{tier}, {what}", _threshold(tier), out))
            if given.sheets is not None:
                given.sheets.mkdir(parents=True, exist_ok=True)
                write_sheet(out, given.sheets / f"people-{tier}-{len(some)}.png")
    body = section(verdicts, machine, sys.argv[1:])
    print(body)
    write_section(given.results, "people", body)


def judge(what: str, threshold: float, out: Path) -> Verdict:
    """Lay the persons of an output folder beside what is seen by eye."""
    known = tomllib.loads((REPOSITORY / "benchmarks" / "people.toml").read_text(encoding="utf-8"))
    tracks: dict[Track, str | None] = {}
    persons: dict[str, list[Track]] = {}
    faces = 0
    for record in _lines(out / "faces.jsonl"):
        faces += 1
        track = (Path(record["source"]).stem, record["track_id"])
        who = seen(record, track[0], known)
        if who is None:
            tracks.setdefault(track, None)
        elif tracks.get(track) not in (None, who):
            raise SystemExit(f"{track[0]}, track {track[1]}: {tracks[track]} and {who} by eye; the track is two people")
        else:
            tracks[track] = who
        if track not in persons.setdefault(record["person_id"], []):
            persons[record["person_id"]].append(track)
    return Verdict(what, threshold, faces, tracks, persons)


def seen(record: dict[str, Any], clip: str, known: dict[str, Any]) -> str | None:
    """Who a kept face shows by eye, None where nobody has looked."""
    if clip in known["alone"]:
        return str(known["alone"][clip])
    x1, y1, x2, y2 = record["box"]
    points = [
        (abs(pts - record["pts_seconds"]), who)
        for pts, x, y, who in known["points"].get(clip, [])
        if x1 <= x <= x2 and y1 <= y <= y2 and abs(pts - record["pts_seconds"]) <= NEAR_S
    ]
    return str(min(points)[1]) if points else None


def section(verdicts: Sequence[Verdict], machine: Machine, arguments: Sequence[str]) -> str:
    """The section of RESULTS.md."""
    rows = []
    for one in verdicts:
        together, same, different = one.pairs
        rows.append(
            [
                one.what, f"{one.threshold:.3f}", str(one.faces), f"{len(one.tracks)} ({len(one.judged)})",
                str(len(set(one.judged.values()))), str(len(one.persons)), f"{len(one.merged)} (of {different} pairs)",
                f"{together} of {same}", one.joined("ghost_nggyup"), one.joined("facenetpt_video"),
            ]
        )  # fmt: skip
    head = (
        "weights and clips", "threshold", "faces", "tracks (judged by eye)", "people by eye", "persons found",
        "persons of several people", "pairs of tracks of one person found as one", "ghost_nggyup", "facenetpt_video",
    )  # fmt: skip
    lines = [
        "## Persons",
        "",
        f"`{command_line('people.py', arguments)}`: all shared clips as one batch, `run {' '.join(OPTIONS[:4])}`; then "
        f"`{CROWD}` alone, `{' '.join(LENIENT)}`. Who is seen was looked at on contact sheets (`people.toml`).",
        "",
        *machine.lines()[1:2],
        "",
        table(head, rows),
        "",
    ]
    for one in verdicts:
        lines.append(f"- {one.what}, merged: {'; '.join(one.merged) or 'nobody'}")
        lines.append(f"- {one.what}, one by eye and several persons: {'; '.join(one.split) or 'nobody'}")
        across = sorted(
            {one.tracks[tracks[0]] or "?" for tracks in one.persons.values() if len({clip for clip, _ in tracks}) > 1}
        )
        lines.append(f"- {one.what}, one person in several clips: {', '.join(across) or 'nobody'}")
    return "\n".join(lines)


def write_sheet(out: Path, path: Path) -> None:
    """A row a person: its faces, best first, with clip, track and time."""
    import cv2
    import numpy as np

    people: dict[str, list[dict[str, Any]]] = {}
    for record in _lines(out / "faces.jsonl"):
        people.setdefault(record["person_id"], []).append(record)
    rows = []
    wide = max(len(faces) for faces in people.values())
    for _, faces in sorted(people.items()):
        tiles = []
        for record in sorted(faces, key=lambda one: one["person_rank"]):
            tile = cv2.resize(cv2.imread(str(out / record["image"])), (TILE, TILE), interpolation=cv2.INTER_AREA)
            x1, y1, x2, y2 = record["box"]
            words = f"{Path(record['source']).stem[:14]} {record['track_id']}"
            index = f"{record['person_id']} {record['pts_seconds']:.2f} {(x1 + x2) / 2:.0f},{(y1 + y2) / 2:.0f}"
            for text, y in ((words, 10), (index, TILE - 4)):
                cv2.putText(tile, text, (2, y), cv2.FONT_HERSHEY_SIMPLEX, 0.3, (0, 255, 255), 1, cv2.LINE_AA)
            tiles.append(tile)
        tiles += [np.zeros((TILE, TILE, 3), np.uint8)] * (wide - len(tiles))
        rows.append(np.hstack(tiles))
    cv2.imwrite(str(path), np.vstack(rows))


def print_threshold(tier: str) -> None:
    """The cosine for a false match rate of 1e-6, from pairs of different people in folds 1-5 of LFW View 2."""
    import cv2
    import numpy as np

    sys.path.insert(0, str(REPOSITORY))
    from models.recognizer.deploy import identity_threshold
    from streamgate.networks import Networks
    from streamgate.networks.alignment import arcface_matrix

    people: dict[str, Any] = {}
    with (
        tarfile.open(SHARED / "faces" / "lfw_folds1-5" / "images.tar") as archive,
        Networks.open(tier, device="cpu") as networks,
    ):
        for member in sorted(archive.getmembers(), key=lambda one: one.name):
            person = member.name.rpartition("_")[0]
            if not member.isfile() or person in people:
                continue
            file = archive.extractfile(member)
            assert file is not None
            coded = np.frombuffer(file.read(), np.uint8)
            picture = np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])
            faces = networks.detector.detect([picture])[0]
            if not faces:
                continue
            middle = np.array(picture.shape[1::-1]) / 2
            face = min(faces, key=lambda one: float(np.linalg.norm(one.landmarks.mean(axis=0) - middle)))
            crop = cv2.warpAffine(picture, arcface_matrix(face.landmarks), (112, 112), borderMode=cv2.BORDER_REPLICATE)
            people[person] = networks.recognizer.run(crop[None]).embedding[0]
    vectors = np.stack(list(people.values()))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    print(f"{tier}: {identity_threshold(pairs):.4f} ({len(pairs)} pairs of {len(vectors)} people)")


def _threshold(tier: str) -> float:
    from streamgate.weights import resolve

    return resolve(tier)["recognizer"].identity_threshold or 0.0


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


if __name__ == "__main__":
    main()
