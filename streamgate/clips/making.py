"""Choosing, checking and writing the clips of a run folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from streamgate.clips.cutting import copy_window, copyable_windows, encode_window, suffix_for
from streamgate.clips.verify import merged, score_window
from streamgate.clips.windows import Seen, Window, best_window
from streamgate.errors import SourceError
from streamgate.frames import Face
from streamgate.measures import known_measures
from streamgate.scoring.faces import FaceScorer
from streamgate.sources.file import VideoFile
from streamgate.sources.footage import FootageFinder
from streamgate.store.folder import RunFolder
from streamgate.store.jsonlines import SCHEMA, Record
from streamgate.store.layout import CANDIDATES

TRIES = 12
"""Windows of a track that are scored frame by frame before it is given up."""


@dataclass(slots=True)
class _Track:
    """A track that keeps a face, with what the run knows of it."""

    source_id: str
    track_id: int
    person_id: str | None
    last_pts: float
    quality: float
    pictures: bool
    """Its source are pictures, not video."""
    seen: list[Seen] = field(default_factory=list)


class ClipMaker:
    """Makes clips group by group, one after another.

    Args:
        seconds: length of a clip.
        top_k: how many clips of each group at most.
        per: what a group is, "track" or "person".
        cut: "exact" or "keyframes".
        footage: folders to look for moved sources in.
        staging: where clips are written.
        problem: called with a line on what could not be cut.

    Attributes:
        pictures: sources that are pictures, not video: there is nothing to cut.
        without: tracks or persons whose footage was searched and gave no clip.
    """

    def __init__(
        self,
        folder: RunFolder,
        scorer: FaceScorer,
        *,
        seconds: float,
        top_k: int,
        per: str,
        cut: str,
        footage: Sequence[Path],
        staging: Path,
        problem: Callable[[str], None],
    ) -> None:
        self._seconds = seconds
        self._top_k = top_k
        self._per = per
        self._cut = cut
        self._folder = folder
        self._seen = lru_cache(maxsize=1)(partial(_seen, folder))
        self._scorer = scorer
        self._footage = FootageFinder(folder.out, footage)
        self._records = {one["source_id"]: one for one in folder.summary["sources"]}
        self._staging = staging
        self._problem = problem
        self._lost: set[str] = set()
        self.pictures: set[str] = set()
        self.without: list[str] = []

    def clips(self) -> Iterator[Record]:
        """Write every clip into the staging folder; yields their records."""
        groups: dict[tuple[str, ...], list[_Track]] = defaultdict(list)
        for track in _tracks(self._folder):
            alone = self._per == "track" or track.person_id is None
            key: tuple[str, ...] = (str(track.person_id),)
            if alone:
                key = (track.source_id, f"track_{track.track_id:04d}")
            groups[key].append(track)
        for key in sorted(groups):
            rank = 0
            # The track with the best kept face first: what is good there is likely good for longer.
            for track in sorted(groups[key], key=lambda one: (-one.quality, one.source_id, one.track_id)):
                for record in self._of_track(track, key, rank):
                    rank += 1
                    yield record
                if rank >= self._top_k:
                    break
            looked_at = any(one.source_id not in self._lost and not one.pictures for one in groups[key])
            if not rank and looked_at:
                self.without.append("/".join(key))

    def _of_track(self, track: _Track, key: tuple[str, ...], rank: int) -> Iterator[Record]:
        record = self._records[track.source_id]
        if track.pictures:
            self.pictures.add(record["source"])
            return
        if track.source_id in self._lost:
            return
        try:
            source = self._footage.open(record)
        except SourceError as error:
            self._lost.add(track.source_id)
            self._problem(str(error))
            return
        assert isinstance(source, VideoFile)
        track.seen = self._seen(track.source_id).get(track.track_id, [])
        try:
            with source:
                yield from self._windows(track, source, key, rank)
        except SourceError as error:
            self._problem(str(error))

    def _windows(
        self, track: _Track, source: VideoFile, key: tuple[str, ...], rank: int
    ) -> Iterator[Record]:
        copying = self._cut == "keyframes"
        windows = copyable_windows(source, self._seconds) if copying else None
        tries = 0
        while rank < self._top_k and tries < TRIES:
            window = best_window(track.seen, self._seconds, track.last_pts, windows)
            if window is None:
                return
            tries += 1
            checked = score_window(self._scorer, source, track.seen, window)
            track.seen = merged(track.seen, checked)
            if not checked or any(one.failed for one in checked):
                if not checked:
                    return
                continue
            name = "/".join((*key, f"{rank + 1}{suffix_for(source, copy=copying)}"))
            target = self._staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            cut = (copy_window if copying else encode_window)(source, target, window)
            if not copying:
                # Encoding changes pixels a little: what is written must pass, too.
                again = self._check(target, track, window)
                if any(one.failed for one in again) or len(again) != len(checked):
                    target.unlink()
                    track.seen = merged(track.seen, [one for one in again if one.failed] or _failed(checked[:1]))
                    continue
            rank += 1
            qualities = [one.quality for one in checked if one.quality is not None]
            yield {
                "schema": SCHEMA, "clip": name, "source": source.location, "source_id": track.source_id,
                "track_id": track.track_id, "person_id": track.person_id, "start_seconds": round(window.start, 6),
                "end_seconds": round(window.end, 6), "frames": cut, "cut": self._cut,
                "quality_mean": round(float(np.mean(qualities)), 4), "quality_min": round(float(np.min(qualities)), 4),
            }  # fmt: skip
            # The next best of this track must be another stretch.
            inside = [one for one in track.seen if window.start <= one.pts_seconds < window.end]
            track.seen = merged(track.seen, _failed(inside))

    def _check(self, clip: Path, track: _Track, window: Window) -> list[Seen]:
        """Every frame of a written clip scored, at the source's times."""
        moved = [Seen(one.pts_seconds - window.start, one.face, one.failed, one.quality) for one in track.seen]
        with VideoFile(clip) as written:
            found = score_window(self._scorer, written, moved, Window(0.0, window.end - window.start, 0.0))
        return [Seen(one.pts_seconds + window.start, one.face, one.failed, one.quality) for one in found]


def _failed(seen: Sequence[Seen]) -> list[Seen]:
    return [Seen(one.pts_seconds, one.face, True) for one in seen]


def _tracks(folder: RunFolder) -> list[_Track]:
    """The tracks that keep a face which passed, in the order of faces.jsonl."""
    found: dict[tuple[str, int], _Track] = {}
    for record in folder.faces():
        key = (record["source_id"], record["track_id"])
        if record["rank"] == 1 and record["gate"]["passed"] and key not in found:
            found[key] = _Track(
                *key, record["person_id"], float(record["track"]["last_pts"]), float(record["quality"] or 0.0),
                record["name"] is not None,
            )
    return list(found.values())


def _seen(folder: RunFolder, source_id: str) -> dict[int, list[Seen]]:
    """What candidates.jsonl.gz knows of the faces of a source, by track and time."""
    found: dict[int, dict[float, Seen]] = defaultdict(dict)
    # Who talks opens the mouth: a clip asks for no face at rest.
    passable = {reason for spec in known_measures() if spec.at_rest for reason in spec.reasons}
    for record in folder.candidates(source_id) if folder.has(f"{source_id}/{CANDIDATES}") else ():
        pts, failed = float(record["pts_seconds"]), bool(set(record["gate"]["reasons"]) - passable)
        face = Face(
            np.array(record["box"], np.float32),
            np.array(record["landmarks"], np.float32),
            float(record["detection_score"]),
        )
        quality = None if failed else record["quality"]
        found[record["track_id"]][pts] = Seen(pts, face, failed, quality)
    return {track_id: [seen[pts] for pts in sorted(seen)] for track_id, seen in found.items()}
