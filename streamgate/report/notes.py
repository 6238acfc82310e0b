"""Creates the data that a source stores with its records for the report: thumbnails, heatmaps, quality over time.

One line per track in OUT/<source_id>/report.jsonl.gz:

    schema, track_id, series [[pts_seconds, quality | null, passed | null], ...],
    shots [{rank, thumbnail, heat}], misses [{pts_seconds, frame_index, name, box, pose, measures, quality, gate,
    thumbnail, heat}]

A thumbnail is a JPEG of 128 x 128 px in base64. `heat` is IFQA's map, 32 x 32 cells row by row, one character per
cell: its index in `HEAT_SIGNS` is the cell's level, 0 (unlike a clean photograph) to 63; null if IFQA was not run.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from streamgate.frames import Array
from streamgate.store.images import encode_jpeg
from streamgate.store.jsonlines import SCHEMA, Record
from streamgate.store.records import candidate_record
from streamgate.tracks import BestShot, Candidate, NearMiss, TrackEnd

THUMBNAIL_SIDE = 128
THUMBNAIL_QUALITY = 82
HEAT_SIDE = 32
HEAT_SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SERIES_POINTS = 160
"""Maximum number of points in a track's series: slightly more than a chart on a wide screen can resolve."""

_FINEST_S = 0.02
_MISS_KEYS = ("pts_seconds", "frame_index", "name", "box", "pose", "measures", "quality", "gate")


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluated face: its time, its quality 0..100 (None: not fully scored), and the gate's verdict.

    The verdict is None if the gate did not decide.
    """

    pts_seconds: float
    quality: float | None
    passed: bool | None

    @classmethod
    def of(cls, candidate: Candidate) -> Point:
        """The point of an evaluated candidate."""
        return cls(candidate.pts_seconds, candidate.quality, candidate.gate.verdict)


class Series:
    """Quality over time with a bounded number of points, however long the track is.

    Time is divided into equal intervals, whose length doubles when there are too many intervals. An interval has the
    quality of its best face. It counts as passed if any face in it passed, otherwise as rejected if any face in it was
    rejected.
    """

    def __init__(self, limit: int = SERIES_POINTS) -> None:
        self._limit = limit
        self._width = _FINEST_S
        self._origin: float | None = None
        self._stretches: dict[int, Point] = {}

    def add(self, point: Point) -> None:
        if self._origin is None:
            self._origin = point.pts_seconds
        index = int((point.pts_seconds - self._origin) // self._width)
        self._put(index, point)
        while len(self._stretches) > self._limit:
            before, self._stretches = self._stretches, {}
            self._width *= 2
            for old, held in sorted(before.items()):
                self._put(old // 2, held)

    def points(self) -> list[Point]:
        """The points in order of time."""
        return sorted(self._stretches.values(), key=lambda point: point.pts_seconds)

    def _put(self, index: int, point: Point) -> None:
        held = self._stretches.get(index)
        self._stretches[index] = point if held is None else _joined(held, point)


def _joined(first: Point, second: Point) -> Point:
    best = max(first, second, key=lambda one: (-1.0 if one.quality is None else one.quality, one is first))
    verdicts = {first.passed, second.passed}
    passed = True if True in verdicts else False if False in verdicts else None
    return Point(best.pts_seconds, best.quality, passed)


def track_note(ended: TrackEnd, series: Series) -> Record:
    """The line for a track that has ended; `series` covers all its evaluated faces."""
    return note_record(ended.track.track_id, series, [_shot(shot) for shot in ended.shots], [
        _miss(miss, ended.source_id) for miss in ended.near_misses
    ])


def note_record(track_id: int, series: Series, shots: list[Record], misses: list[Record]) -> Record:
    """A line of the notes from its parts."""
    points = [
        [round(point.pts_seconds, 3), None if point.quality is None else round(point.quality, 1), point.passed]
        for point in series.points()
    ]
    return {"schema": SCHEMA, "track_id": track_id, "series": points, "shots": shots, "misses": misses}


def shot_note(rank: int, image: Array, ifqa_map: Array | None) -> Record:
    """The note of the kept face with this rank; `image` is RGB uint8 (H, W, 3), `ifqa_map` is (h, w), 0..1."""
    return {"rank": rank, "thumbnail": thumbnail(image), "heat": heat(ifqa_map)}


def miss_note(candidate: Candidate, source_id: str, seen: Mapping[str, str | None]) -> Record:
    """The note of a near miss; `seen` has its thumbnail and its heat map as text, or None if they are not available."""
    record = candidate_record(candidate, source_id)
    pictures = {"thumbnail": seen["thumbnail"], "heat": seen["heat"]}
    return {**{key: record[key] for key in _MISS_KEYS}, **pictures}


def thumbnail(image: Array) -> str:
    """A square picture RGB uint8 (H, W, 3) as a small JPEG in base64."""
    if image.shape[:2] != (THUMBNAIL_SIDE, THUMBNAIL_SIDE):
        image = cv2.resize(image, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    return base64.b64encode(encode_jpeg(image, THUMBNAIL_QUALITY)).decode("ascii")


def heat(ifqa_map: Array | None) -> str | None:
    """A map (h, w) of 0..1 as text, one character per cell."""
    if ifqa_map is None:
        return None
    cells = cv2.resize(np.asarray(ifqa_map, np.float32), (HEAT_SIDE, HEAT_SIDE), interpolation=cv2.INTER_AREA)
    levels = np.round(np.clip(np.nan_to_num(cells), 0.0, 1.0) * (len(HEAT_SIGNS) - 1)).astype(int)
    return "".join(HEAT_SIGNS[level] for level in levels.ravel().tolist())


def _shot(shot: BestShot) -> Record:
    return shot_note(shot.rank, shot.image, shot.ifqa_map)


def _miss(miss: NearMiss, source_id: str) -> Record:
    seen = {"thumbnail": thumbnail(miss.image), "heat": heat(miss.candidate.evidence.ifqa_map)}
    return miss_note(miss.candidate, source_id, seen)
