"""Selects, checks and writes the clips of a run folder."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from streamgate.clips.cutting import copy_window, copyable_windows, encode_window, suffix_for
from streamgate.clips.frame_scoring import ScoredFrame, merged, score_frames
from streamgate.clips.recipe import Recipe
from streamgate.clips.rendering import RenderedFrame, face_square, render, write_wav
from streamgate.clips.rules import bad_frames, clip_statistics, fault, main_reason
from streamgate.clips.table import has_pyarrow, write_table
from streamgate.clips.windows import SeenFace, Window, best_window
from streamgate.errors import SourceError
from streamgate.scoring.faces import FaceScorer
from streamgate.sources.file import VideoFile
from streamgate.sources.footage import FootageFinder
from streamgate.store.folder import RunFolder
from streamgate.store.jsonlines import SCHEMA, Record
from streamgate.store.layout import CANDIDATES
from streamgate.store.records import candidate_of

TRIES = 12
"""Number of windows of a track that are scored without success before the next track is tried."""
_GROW_S = 0.5
"""Step by which a good window is extended."""


@dataclass(slots=True)
class _Track:
    """A track with a kept face, and the run's results for this track."""

    source_id: str
    track_id: int
    person_id: str | None
    first_pts: float
    last_pts: float
    quality: float
    pictures: bool
    """Whether the source consists of pictures rather than video."""
    width: int = 0
    height: int = 0
    seen: list[SeenFace] = field(default_factory=list)
    usual: Mapping[str, float] = field(default_factory=dict)
    taken: list[Window] = field(default_factory=list)


class ClipMaker:
    """Makes clips, one group after another.

    Args:
        recipe: the requirements for a clip, and how it is written.
        top_k: maximum number of clips per group.
        per: the kind of group, "track" or "person".
        cut: "exact" or "keyframes".
        footage: folders in which to search for moved sources.
        staging: folder in which clips are written.
        problem: called with a message if a source cannot be read or a clip cannot be cut.
        report: called before each track with its index, the number of tracks, its name and the number of clips so far.

    Attributes:
        pictures: sources that consist of pictures, from which no clips can be cut.
        without: tracks or persons in whose footage no clip was found, with the most common reason, if any.
    """

    def __init__(
        self,
        folder: RunFolder,
        scorer: FaceScorer,
        recipe: Recipe,
        *,
        top_k: int,
        per: str,
        cut: str,
        footage: Sequence[Path],
        staging: Path,
        problem: Callable[[str], None],
        report: Callable[[int, int, str, int], None] = lambda index, count, name, clips: None,
    ) -> None:
        self._recipe = recipe
        self._rules = recipe.clip
        self._top_k = top_k
        self._per = per
        self._cut = cut
        self._folder = folder
        self._scorer = scorer
        self._seen = lru_cache(maxsize=1)(self._read_seen)
        self._footage = FootageFinder(folder.out, footage)
        self._records = {one["source_id"]: one for one in folder.summary["sources"]}
        self._staging = staging
        self._problem = problem
        self._report = report
        self._tables = has_pyarrow()
        self._faults: Counter[str] = Counter()
        self._lost: set[str] = set()
        self.pictures: set[str] = set()
        self.without: dict[str, str] = {}

    def clips(self) -> Iterator[Record]:
        """Write all clips to the staging folder; yields their records."""
        groups: dict[tuple[str, ...], list[_Track]] = defaultdict(list)
        for track in _tracks(self._folder):
            alone = self._per == "track" or track.person_id is None
            key: tuple[str, ...] = (str(track.person_id),)
            if alone:
                key = (track.source_id, f"track_{track.track_id:04d}")
            groups[key].append(track)
        index, count, clips = 0, sum(map(len, groups.values())), 0
        for key in sorted(groups):
            rank = 0
            self._faults.clear()
            # The track with the best kept face comes first, because it is likely to be good for longer.
            for track in sorted(groups[key], key=lambda one: (-one.quality, one.source_id, one.track_id)):
                self._report(index, count, f"{track.source_id}/{track.track_id}", clips)
                index += 1
                if rank >= self._top_k:
                    continue
                for record in self._of_track(track, key, rank):
                    rank += 1
                    clips += 1
                    yield record
            looked_at = any(one.source_id not in self._lost and not one.pictures for one in groups[key])
            if not rank and looked_at:
                self.without["/".join(key)] = next((word for word, _ in self._faults.most_common(1)), "")
        self._report(count, count, "", clips)

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
        track.width, track.height = source.width, source.height
        track.seen, track.usual = self._seen(track.source_id, source.width, source.height).get(
            track.track_id, ([], {})
        )
        try:
            with source:
                yield from self._windows(track, source, key, rank)
        except SourceError as error:
            self._problem(str(error))

    def _windows(
        self, track: _Track, source: VideoFile, key: tuple[str, ...], rank: int
    ) -> Iterator[Record]:
        rules, seconds = self._rules, self._rules.min_seconds
        windows = copyable_windows(source, seconds) if self._cut == "keyframes" else None
        tried: list[float] = []
        while rank < self._top_k and len(tried) < TRIES:
            window = best_window(
                track.seen, seconds, track.last_pts, windows, max_bad=rules.max_bad, taken=track.taken, tried=tried
            )
            if window is None:
                if not tried:
                    too_short = track.last_pts - track.first_pts < seconds
                    self._faults["it is too short" if too_short else self._known_fault(track)] += 1
                return
            tried.append(window.start)
            frames = self._checked(track, source, window)
            if frames is None:
                continue
            if windows is None:
                window, frames = self._grown(track, source, window, frames)
            record = self._written(track, source, window, frames, (*key, str(rank + 1)))
            if record is None:
                continue
            tried.pop()
            rank += 1
            track.taken.append(window)
            yield record

    def _known_fault(self, track: _Track) -> str:
        """The reason why no window is possible, judging by the faces that the run scored."""
        return "too few good frames in a row" if any(not one.failed for one in track.seen) else "all frames fail"

    def _checked(self, track: _Track, source: VideoFile, window: Window) -> list[ScoredFrame] | None:
        """All frames of the window, scored; None if the window cannot be a clip. Adds the results to `track.seen`."""
        frames: list[ScoredFrame] = []
        worst = self._rules.max_bad * (window.end - window.start) * (source.fps or 25.0) + 1
        whole = True
        for one in score_frames(self._scorer, source, track.seen, window, track.usual):
            frames.append(one)
            # Frames with closed eyes do not count yet, because they may be part of a blink, which is allowed.
            if sum(bool(set(other.reasons) - {"eyes_closed"}) for other in frames) > worst:
                whole = False
                break
        if not frames:
            return None
        bad = bad_frames(frames, self._rules)
        why = (
            fault(frames, bad, clip_statistics(frames), self._rules) if whole else main_reason(frames, bad, self._rules)
        )
        track.seen = merged(track.seen, frames, bad)
        if why is not None:
            self._faults[why] += 1
            return None
        return frames

    def _grown(
        self, track: _Track, source: VideoFile, window: Window, frames: list[ScoredFrame]
    ) -> tuple[Window, list[ScoredFrame]]:
        """Extend the window at its end and then at its beginning, as long as it can be a clip.

        Returns the window and its frames.
        """
        for forward in (True, False):
            while (longer := self._longer(track, window, forward=forward)) is not None:
                beside = Window(window.end, longer.end) if forward else Window(longer.start, window.start)
                found = list(score_frames(self._scorer, source, track.seen, beside, track.usual))
                if not found:
                    break
                more = [*frames, *found] if forward else [*found, *frames]
                bad = bad_frames(more, self._rules)
                track.seen = merged(track.seen, more, bad)
                if fault(more, bad, clip_statistics(more), self._rules) is not None:
                    break
                window, frames = longer, more
        return window, frames

    def _longer(self, track: _Track, window: Window, *, forward: bool) -> Window | None:
        """The window extended by one step; None if it has the maximum length or there is no room in that direction."""
        room = self._rules.max_seconds - (window.end - window.start)
        if room <= 1e-6:
            return None
        step = min(_GROW_S, room)
        if forward:
            end = min([track.last_pts, *(one.start for one in track.taken if one.start >= window.end - 1e-6)])
            return Window(window.start, min(window.end + step, end)) if end - window.end > 0.1 else None
        first = track.seen[0].pts_seconds
        begin = max([first, *(one.end for one in track.taken if one.end <= window.start + 1e-6)])
        return Window(max(window.start - step, begin), window.end) if window.start - begin > 0.1 else None

    def _written(
        self, track: _Track, source: VideoFile, window: Window, frames: Sequence[ScoredFrame], key: tuple[str, ...]
    ) -> Record | None:
        """Write the clip, its sound and its table; returns its record, or None if the written clip fails."""
        picture, copying = self._recipe.picture, self._cut == "keyframes"
        # If the clock of the source restarts, the sound cannot be matched with the frames.
        sound = picture.audio != "none" and not self._records[track.source_id]["pts_estimated"]
        stem = "/".join(key)
        name = stem + suffix_for(source, copy=copying, sound=sound)
        target = self._staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if picture.rendered:
            square = None
            if picture.crop == "face":
                square = face_square(frames, picture.margin, source.width, source.height)
            shown = render(source, target, window, picture, square, sound=sound)
        else:
            count = (copy_window if copying else encode_window)(source, target, window, sound=sound)
            whole = np.array([0.0, 0.0, source.width, source.height])
            shown = [RenderedFrame(one.pts_seconds - window.start, one.pts_seconds, whole) for one in frames]
            # Encoding changes pixels slightly. If the recipe allows no failing frame, the written clip is also scored.
            strict = self._rules.max_bad == 0
            if not copying and (count != len(shown) or (strict and not self._passes(target, track, window, frames))):
                target.unlink()
                return None
        audio = None
        if picture.audio == "wav16k" and sound and write_wav(source, self._staging / f"{stem}.wav", window):
            audio = f"{stem}.wav"
        record = self._record(track, source, window, frames, name, audio, shown)
        if self._tables:
            size = picture.size if picture.crop == "face" else None
            write_table(self._staging / record["table"], record, frames, bad_frames(frames, self._rules), shown, size)
        return record

    def _record(
        self,
        track: _Track,
        source: VideoFile,
        window: Window,
        frames: Sequence[ScoredFrame],
        name: str,
        audio: str | None,
        shown: Sequence[RenderedFrame],
    ) -> Record:
        qualities = [one.quality for one in frames if one.quality is not None]
        return {
            "schema": SCHEMA, "clip": name, "audio": audio,
            "table": f"{name.rpartition('.')[0]}.parquet" if self._tables else None, "source": source.location,
            "source_id": track.source_id, "track_id": track.track_id, "person_id": track.person_id,
            "start_seconds": round(window.start, 6), "end_seconds": round(window.end, 6), "frames": len(shown),
            "cut": self._cut, "crop": self._recipe.picture.crop, "fps": self._recipe.picture.fps or None,
            "quality_mean": round(float(np.mean(qualities)), 4) if qualities else None,
            "quality_min": round(float(np.min(qualities)), 4) if qualities else None,
            "bad_frames": sum(bad_frames(frames, self._rules)), **clip_statistics(frames).record(),
        }  # fmt: skip

    def _passes(self, clip: Path, track: _Track, window: Window, frames: Sequence[ScoredFrame]) -> bool:
        """Score a written clip; returns whether every frame passes. Failing frames are recorded in the track."""
        moved = [SeenFace(one.pts_seconds - window.start, one.face, one.failed, one.quality) for one in track.seen]
        with VideoFile(clip) as written:
            whole = Window(0.0, window.end - window.start)
            again = list(score_frames(self._scorer, written, moved, whole, track.usual))
        bad = bad_frames(again, self._rules)
        if not any(bad) and len(again) == len(frames):
            return True
        fails = bad if len(again) == len(frames) else [True] + [False] * (len(frames) - 1)
        track.seen = merged(track.seen, frames, fails)
        return False

    def _read_seen(
        self, source_id: str, width: int, height: int
    ) -> dict[int, tuple[list[SeenFace], dict[str, float]]]:
        """By track id, the faces of a source in candidates.jsonl.gz, evaluated with the limits of the recipe, and the
        typical values of the track's person."""
        found: dict[int, dict[float, SeenFace]] = defaultdict(dict)
        usual: dict[int, dict[str, float]] = defaultdict(dict)
        specs = self._folder.measures
        known = {spec.name for spec in specs}
        references = [(spec.name, spec.reference.evidence) for spec in specs if spec.reference is not None]
        for record in self._folder.candidates(source_id) if self._folder.has(f"{source_id}/{CANDIDATES}") else ():
            try:
                candidate = candidate_of(record, known)
            except ValueError as error:
                raise self._folder.error(f"{source_id}/{CANDIDATES}", str(error)) from None
            track = usual[candidate.track_id]
            track |= {
                name: candidate.evidence.values[evidence]
                for name, evidence in references
                if evidence in candidate.evidence.values
            }
            candidate.usual = track
            self._scorer.context.evaluator.evaluate(candidate, width, height)
            # Closed eyes in a single frame are most often a blink.
            failed = bool(set(candidate.gate.reasons) - ({"eyes_closed"} if self._rules.blink_s else set()))
            quality = None if failed else candidate.quality
            pts = candidate.pts_seconds
            found[candidate.track_id][pts] = SeenFace(pts, candidate.face, failed, quality)
        return {
            track_id: ([seen[pts] for pts in sorted(seen)], usual[track_id]) for track_id, seen in found.items()
        }


def _tracks(folder: RunFolder) -> list[_Track]:
    """The tracks with a kept face that passed, in the order of faces.jsonl."""
    found: dict[tuple[str, int], _Track] = {}
    for record in folder.faces():
        key = (record["source_id"], record["track_id"])
        if record["rank"] == 1 and record["gate"]["passed"] and key not in found:
            track = record["track"]
            found[key] = _Track(
                *key, record["person_id"], float(track["first_pts"]), float(track["last_pts"]),
                float(record["quality"] or 0.0), record["name"] is not None,
            )  # fmt: skip
    return list(found.values())
