"""Reads the contents of the page from the records: groups of faces with their tracks, histograms, settings."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from streamgate import __version__
from streamgate.config import leaves, load_config
from streamgate.frames import Array
from streamgate.report.heatmap import colours, weight
from streamgate.report.notes import HEAT_SIDE, HEAT_SIGNS, Point, Series, note_record, thumbnail
from streamgate.store.folder import DamageLog, RunFolder
from streamgate.store.images import decode_crop
from streamgate.store.jsonlines import Record
from streamgate.store.layout import CANDIDATES, NOTES

QUALITY_STEP = 5
YAW_STEP = 5


@dataclass(slots=True)
class FaceEntry:
    """A kept face with the values by which the page is sorted; `offset` is the position of its line in faces.jsonl."""

    offset: int
    track: tuple[str, int]
    rank: int
    pts_seconds: float
    quality: float | None
    person: str | None
    yaw: float | None

    @classmethod
    def of(cls, offset: int, record: Record) -> FaceEntry:
        quality, person = record["quality"], record["person_id"]
        yaw = None if record["pose"] is None else record["pose"]["yaw"]
        return cls(
            offset,
            (sys.intern(record["source_id"]), record["track_id"]),
            record["rank"],
            float(record["pts_seconds"]),
            None if quality is None else float(quality),
            None if person is None else sys.intern(person),
            None if yaw is None else float(yaw),
        )


@dataclass(slots=True)
class Group:
    """One section of the page: a person, or a source if persons are unknown.

    `faces` are sorted best first, `tracks` by source and id. If the group is a source, its tracks include those that
    keep no face.
    """

    key: str
    kind: str
    name: str
    faces: list[FaceEntry] = field(default_factory=list)
    tracks: list[tuple[str, int]] = field(default_factory=list)


class Content:
    """The contents of a report, read from `out`; pictures are read from the notes on demand."""

    def __init__(
        self,
        out: Path,
        names: Mapping[str, str] | None = None,
        spaced: Mapping[tuple[str, int], Sequence[Record]] | None = None,
    ) -> None:
        """Raises ResultsError for a folder without results.

        names: names that users gave to persons, by person_id.
        spaced: additional faces of each track, which `streamgate label` shows like near misses; None for a report.
        """
        self.spaced = spaced
        self.damages = DamageLog()
        self.folder = folder = RunFolder(out, self.damages.add)
        # A small cache is enough, because the faces of a person are shown source by source.
        self._notes = lru_cache(maxsize=4)(folder.notes)
        self._tracks = lru_cache(maxsize=4)(lambda one: {track["track_id"]: track for track in folder.tracks(one)})
        self._titles = _titles(folder.summary["sources"])
        self.picture_sources = frozenset(
            source["source_id"] for source in folder.summary["sources"] if source.get("pictures")
        )
        self._made: dict[str, dict[int, Series]] = {}
        faces: list[FaceEntry] = []
        missing: list[str] = []
        for offset, record in folder.faces_with_offsets():
            faces.append(FaceEntry.of(offset, record))
            if not folder.has(record["image"]):
                missing.append(record["image"])
        self._report_missing(missing)
        self.face_count = len(faces)
        self.by_person = any(face.person is not None for face in faces)
        self._track_ids = {
            source_id: [(one["track_id"], one["kept"]) for one in folder.tracks(source_id)]
            for source_id in folder.source_ids
        }
        self.groups = self._persons(faces, names or {}) if self.by_person else self._sources(faces)
        self.persons = sum(group.kind == "person" for group in self.groups) if self.by_person else None
        self.histograms = _histograms(faces)

    def summary(self) -> Record:
        """The data for the top of the page, and the settings, weights and sources at its end."""
        stored = self.folder.summary
        sources = stored["sources"]
        seen: dict[bool, list[int]] = {True: [], False: []}
        for source_id, found in self._track_ids.items():
            seen[source_id in self.picture_sources].extend(kept for _, kept in found)
        videos = [source for source in sources if not source.get("pictures")]
        return {
            "complete": stored["complete"],
            "persons": self.persons,
            "faces": self.face_count,
            "tracks": len(seen[False]),
            "tracks_without": sum(not kept for kept in seen[False]),
            "seconds": sum(source["duration_seconds"] or 0.0 for source in videos),
            "pictures": sum(source["frames"] for source in sources if source.get("pictures")),
            "picture_faces_without": sum(not kept for kept in seen[True]),
            "evaluated": sum(source["faces_scored"] for source in sources),
            "rejected": stored["totals"]["rejected"],
            "sources": [
                {
                    "name": self.title(source["source_id"], source["source"]),
                    "pictures": bool(source.get("pictures")),
                    "frames_decoded": source.get("frames_decoded"),
                    **{
                        key: source[key]
                        for key in ("source", "status", "error", "frames", "duration_seconds", "width", "height",
                                    "tracks", "kept", "decode_errors", "rejected")
                    },
                }
                for source in sources
            ],
            "histograms": self.histograms,
            "limits": _limits(stored["config"]),
            "absent": stored["absent_measures"],
            "calibration": stored["calibration_id"],
            "settings": _settings(stored["config"]),
            "weights": stored["weights"],
            "versions": stored["versions"],
            "problems": list(self.damages.words),
        }  # fmt: skip

    def title(self, source_id: str, location: str | None = None) -> str:
        """Name of a source on the page: its path without the folders that all sources share."""
        return self._titles.get(source_id) or PurePath(location or source_id).name or source_id

    def tracks(
        self, keys: Iterable[tuple[str, int]], picks: Mapping[tuple[str, int], Sequence[FaceEntry]]
    ) -> list[Record]:
        """Records of tracks for the page; `picks` are their kept faces."""
        return [track for key in keys if (track := self._track(key, picks.get(key, ()))) is not None]

    def _persons(self, faces: list[FaceEntry], names: Mapping[str, str]) -> list[Group]:
        found: dict[str, Group] = {}
        for face in faces:
            key = face.person or ""
            group = found.setdefault(key, Group(key, "person" if key else "nobody", names.get(key) or key))
            group.faces.append(face)
        for group in found.values():
            _sort(group)
            group.tracks = sorted({face.track for face in group.faces})
        # Persons with the most faces come first; faces without a person come last.
        ordered = sorted(found.values(), key=lambda group: (not group.key, -len(group.faces), group.key))
        seen = {key for group in ordered for key in group.tracks}
        left = [key for key in self._all_tracks() if key not in seen]
        return [*ordered, Group("nothing", "nothing", "", [], left)] if left else ordered

    def _sources(self, faces: list[FaceEntry]) -> list[Group]:
        found = {
            source_id: Group(source_id, "source", self.title(source_id), [], [(source_id, one) for one, _ in tracks])
            for source_id, tracks in self._track_ids.items()
        }
        for face in faces:
            if (group := found.get(face.track[0])) is not None:
                group.faces.append(face)
        for group in found.values():
            _sort(group)
        return [group for group in found.values() if group.tracks or group.faces]

    def _all_tracks(self) -> list[tuple[str, int]]:
        return [(source_id, track) for source_id, tracks in self._track_ids.items() for track, _ in tracks]

    def face(self, entry: FaceEntry) -> Record:
        """Record of a kept face for the page."""
        record = self.folder.face_at(entry.offset)
        source_id, track_id = entry.track
        shots = self._note(source_id, track_id).get("shots", ())
        note: Record = next((one for one in shots if one.get("rank") == record["rank"]), {})
        shown = {
            key: record.get(key)
            for key in ("rank", "pts_seconds", "frame_index", "name", "box", "measures", "gate", "quality",
                        "quality_smoothed", "quality_context", "image", "upscaled", "outside", "track", "person_id")
        }  # fmt: skip
        return {
            "key": f"{source_id}/{track_id}/{record['rank']}",
            "source": self.title(source_id, record.get("source")),
            "track_key": f"{source_id}/{track_id}",
            "track_id": track_id,
            "picture": source_id in self.picture_sources,
            **shown,
            "thumbnail": note.get("thumbnail") or self._thumbnail_of(record["image"]),
            "heat": note.get("heat"),
        }

    def _track(self, key: tuple[str, int], picks: Sequence[FaceEntry]) -> Record | None:
        source_id, track_id = key
        record = self._tracks(source_id).get(track_id)
        if record is None:
            return None
        note = self._note(source_id, track_id)
        return {
            "key": f"{source_id}/{track_id}",
            "source": self.title(source_id),
            "track_id": track_id,
            "picture": source_id in self.picture_sources,
            **{
                name: record.get(name)
                for name in ("first_pts", "last_pts", "frames_seen", "frames_scored", "kept", "rejected", "reasons")
            },
            "series": note.get("series", []),
            "picks": [[one.pts_seconds, one.quality, one.rank] for one in picks],
            "misses": note.get("misses", []),
            **({} if self.spaced is None else {"spaced": list(self.spaced.get(key, ()))}),
        }

    def _note(self, source_id: str, track_id: int) -> Record:
        if self.folder.has(f"{source_id}/{NOTES}"):
            return self._notes(source_id).get(track_id, {})
        # The run wrote no data for a report, so use the candidates for the series and the kept pictures for thumbnails.
        if source_id not in self._made:
            self._made = {source_id: _series_of(self.folder, source_id)}
        series = self._made[source_id].get(track_id)
        return {} if series is None else note_record(track_id, series, [], [])

    def _thumbnail_of(self, image: str) -> str | None:
        """A thumbnail of a kept picture; None if the picture cannot be read."""
        try:
            return thumbnail(decode_crop(self.folder.content(image)))
        except (OSError, ValueError):
            return None

    def _report_missing(self, missing: Sequence[str]) -> None:
        if missing:
            named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            count = "1 picture is" if len(missing) == 1 else f"{len(missing)} pictures are"
            self.damages.add(f"{count} missing from the output folder ({named}); small copies are shown instead")


def heat_table() -> Record:
    """The data that the page needs to draw heatmaps: the character and the RGBA colour of each level, and the opacity
    of each cell (0..255).
    """
    palette: Array = np.round(colours(np.arange(len(HEAT_SIGNS)) / (len(HEAT_SIGNS) - 1))).astype(int)
    mask = np.round(weight(HEAT_SIDE) * 255).astype(np.uint8)
    return {
        "side": HEAT_SIDE,
        "signs": HEAT_SIGNS,
        "colours": palette.tolist(),
        "weight": base64.b64encode(mask.tobytes()).decode("ascii"),
    }


def generator() -> str:
    """The program and version that wrote the page."""
    return f"streamgate {__version__}"


def _sort(group: Group) -> None:
    group.faces.sort(key=lambda face: (face.quality is None, -(face.quality or 0.0), face.track, face.rank))


def _titles(sources: Iterable[Record]) -> dict[str, str]:
    located = {source["source_id"]: source["source"] for source in sources if source["source_id"]}
    parents = {str(PurePath(location).parent) for location in located.values() if location}
    try:
        shared = os.path.commonpath(parents) if parents else ""
    except ValueError:  # a mix of relative and absolute paths
        shared = ""
    return {
        source_id: (os.path.relpath(location, shared) if shared and shared != "." else location) or source_id
        for source_id, location in located.items()
    }


def _histograms(faces: Sequence[FaceEntry]) -> Record:
    qualities = [face.quality for face in faces if face.quality is not None]
    yaws = [face.yaw for face in faces if face.yaw is not None]
    reach = max([45.0, *(abs(yaw) for yaw in yaws)])
    edge = YAW_STEP * -(-int(reach + YAW_STEP - 1e-9) // YAW_STEP)
    return {
        "quality": _bins(qualities, 0, 100, QUALITY_STEP),
        "yaw": _bins(yaws, -min(edge, 90), min(edge, 90), YAW_STEP),
    }


def _bins(values: Sequence[float], first: int, last: int, step: int) -> Record:
    counts = [0] * ((last - first) // step)
    for value in values:
        counts[min(len(counts) - 1, max(0, int((value - first) // step)))] += 1
    return {"first": first, "step": step, "counts": counts, "median": float(np.median(values)) if values else None}


def _limits(config: Mapping[str, Any]) -> Record:
    """The limits of the gate by measure: {NAME: {min | max: value}}."""
    tables = config.get("measures")
    return {
        name: {key: value for key, value in table.items() if key in ("min", "max")}
        for name, table in (tables.items() if isinstance(tables, Mapping) else ())
        if isinstance(table, Mapping)
    }


def _settings(config: Mapping[str, Any]) -> list[list[Any]]:
    """Lists [key, value as text, whether it differs from the studio preset] in the order of the configuration."""
    usual = dict(leaves(load_config().model_dump(mode="json")))
    return [[key, _text(value), key in usual and usual[key] != value] for key, value in leaves(config)]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _series_of(folder: RunFolder, source_id: str) -> dict[int, Series]:
    found: dict[int, Series] = {}
    for record in folder.candidates(source_id) if folder.has(f"{source_id}/{CANDIDATES}") else ():
        gate = record["gate"]
        verdict = True if gate["passed"] else False if gate["reasons"] else None
        point = Point(float(record["pts_seconds"]), record["quality"], verdict)
        found.setdefault(record["track_id"], Series()).add(point)
    return found
