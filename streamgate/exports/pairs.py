"""Pairs for each person: a reference picture with a neutral face, and a driving video with the most movement."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamgate.errors import SourceError, UsageError
from streamgate.exports.formats import picture_of
from streamgate.exports.targets import new_folder
from streamgate.store import files
from streamgate.store.folder import RunFolder
from streamgate.store.jsonlines import SCHEMA, Record, dumps
from streamgate.store.layout import CANDIDATES

Cut = Callable[[Record, float, float, Path], None]
"""Writes the part of a source (a record in the summary) between two times as a video; raises SourceError."""

_FULL = {"mouth": 0.25, "yaw": 30.0, "pitch": 20.0}
"""For each value, the range (maximum minus minimum) that counts as full movement, 1 after normalisation: mouth in units
of its raw value, yaw and pitch in degrees."""
_REST = ("mouth", "expression", "gaze")
_AT_REST = 50.0
"""Minimum scalar of the measures in `_REST` for a neutral expression."""
_LEAST = 4
"""Minimum number of evaluated faces in a window."""


@dataclass(frozen=True, slots=True)
class Driving:
    """A window of a track in pts seconds, and how much the face moves in it."""

    source_id: str
    track_id: int
    start: float
    end: float
    ranges: Mapping[str, float]

    @property
    def movement(self) -> float:
        """The sum of the normalised ranges."""
        return sum(min(1.0, self.ranges[name] / full) for name, full in _FULL.items())


def write_pairs(
    folder: RunFolder,
    target: Path,
    *,
    overwrite: bool = False,
    seconds: float = 5.0,
    cut: Cut | None = None,
    warn: Callable[[str], None] = lambda words: None,
) -> int:
    """Write `target` with `pairs.jsonl` (one line per person), reference pictures and, with `cut`, driving videos.

    The reference is the person's best face with a neutral expression or, if there is none, the best of the faces for
    which the fewest measures in `_REST` indicate an expression. The driving video is the window of the person's tracks
    in which the mouth, yaw and pitch of the evaluated faces vary most; it may include the reference. Persons who are
    never in view for `seconds` without a break have no driving video. `warn` is called if driving videos are missing.
    Returns the number of pairs. Raises UsageError if the run found no persons, and ResultsError and SinkError.
    """
    faces: dict[str, list[Record]] = {}
    for record in folder.faces():
        if record["person_id"] is not None:
            faces.setdefault(record["person_id"], []).append(record)
    if not faces:
        raise UsageError("pairs need persons, but this run has none: run with --set identity.store=session or disk")
    names, sources = folder.person_names(), {one["source_id"]: one for one in folder.summary["sources"]}
    best = _driving(folder, faces, seconds)
    count = 0
    with (
        new_folder(target, "pairs", overwrite=overwrite) as staging,
        files.sink_errors(target),
        open(staging / "pairs.jsonl", "xb") as lines,
    ):
        for person in sorted(faces):
            reference = min(faces[person], key=_from_rest)
            suffix = reference["image"].rpartition(".")[2]
            image = f"{person}/reference.{suffix}"
            (staging / person).mkdir()
            (staging / image).write_bytes(picture_of(folder, reference["image"]))
            driving = best.get(person)
            video = None
            if driving is not None and cut is not None:
                video = f"{person}/driving.mp4"
                try:
                    cut(sources[driving.source_id], driving.start, driving.end, staging / video)
                except SourceError as error:
                    warn(str(error))
                    (staging / video).unlink(missing_ok=True)
                    video = None
            lines.write(dumps(_pair(person, names.get(person), reference, image, driving, video)).encode() + b"\n")
            count += driving is not None
    if brief := len(faces) - count:
        who, have = ("1 person was", "has") if brief == 1 else (f"{brief} persons were", "have")
        warn(
            f"{who} never in view for {seconds:g} s without a break and {have} no driving video; "
            "try a smaller --seconds"
        )
    return count


def _pair(
    person: str, name: str | None, reference: Record, image: str, driving: Driving | None, video: str | None
) -> Record:
    window: Any = None
    if driving is not None:
        window = {
            "video": video, "source_id": driving.source_id, "track_id": driving.track_id,
            "start_seconds": round(driving.start, 6), "end_seconds": round(driving.end, 6),
            **{f"{name}_range": round(value, 4) for name, value in driving.ranges.items()},
        }  # fmt: skip
    return {
        "schema": SCHEMA, "person_id": person, "name": name,
        "reference": {"image": image, "id": reference["id"], "quality": reference["quality"]}, "driving": window,
    }  # fmt: skip


def _from_rest(record: Record) -> tuple[int, float]:
    """Sort key for the reference: first the number of measures that are not neutral, then descending quality."""
    scalars = [record["measures"].get(name, {}).get("scalar") for name in _REST]
    return sum(one is not None and one < _AT_REST for one in scalars), -(record["quality"] or 0.0)


def _driving(folder: RunFolder, faces: Mapping[str, Sequence[Record]], seconds: float) -> dict[str, Driving]:
    """The best window of each person that has one."""
    persons = {(one["source_id"], one["track_id"]): person for person, known in faces.items() for one in known}
    best: dict[str, Driving] = {}
    for source_id in sorted({source_id for source_id, _ in persons}):
        for track_id, seen in _seen(folder, source_id).items():
            person = persons.get((source_id, track_id))
            for stretch in _stretches(source_id, track_id, seen, seconds) if person else ():
                if person and (person not in best or stretch.movement > best[person].movement + 1e-9):
                    best[person] = stretch
    return best


def _seen(folder: RunFolder, source_id: str) -> dict[int, list[tuple[float, dict[str, float]]]]:
    """For each track, the times at which mouth, yaw or pitch is known, with these values."""
    found: dict[int, list[tuple[float, dict[str, float]]]] = {}
    for record in folder.candidates(source_id) if folder.has(f"{source_id}/{CANDIDATES}") else ():
        values = {name: record["measures"].get(name, {}).get("raw") for name in _FULL}
        known = {name: float(value) for name, value in values.items() if value is not None}
        if known:
            found.setdefault(record["track_id"], []).append((float(record["pts_seconds"]), known))
    return {track_id: sorted(seen, key=lambda one: one[0]) for track_id, seen in found.items()}


def _stretches(
    source_id: str, track_id: int, seen: Sequence[tuple[float, dict[str, float]]], seconds: float
) -> Iterator[Driving]:
    """Every window of `seconds` that begins at an evaluated face."""
    times = [pts for pts, _ in seen]
    for first, start in enumerate(times):
        if start + seconds > times[-1] + 1e-6:
            return
        inside = [values for _, values in seen[first : bisect.bisect_right(times, start + seconds)]]
        if len(inside) >= _LEAST:
            yield Driving(source_id, track_id, start, start + seconds, {name: _range(inside, name) for name in _FULL})


def _range(inside: Sequence[Mapping[str, float]], name: str) -> float:
    values = [one[name] for one in inside if name in one]
    return max(values) - min(values) if values else 0.0
