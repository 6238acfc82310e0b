"""`streamgate clips`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from pydantic import ValidationError

from streamgate.clips.cutting import Span, copy_span, copyable_spans, encode_span, suffix_for
from streamgate.clips.footage import Footage, is_video, missing
from streamgate.clips.verify import FrameScorer, merged
from streamgate.clips.windows import Seen, Window, best_window
from streamgate.config import Config
from streamgate.errors import SourceError, UsageError, display
from streamgate.exports.places import RECEIPT, adopt, new_folder
from streamgate.frames import Face
from streamgate.gate import Gate
from streamgate.report.folder import RunFolder
from streamgate.sources.file import VideoFile
from streamgate.store import files
from streamgate.store.jsonlines import SCHEMA, Record, dumps

TRIES = 12
"""Windows of a track that are scored frame by frame before it is given up."""
CLIPS = "clips"


@dataclass(frozen=True, slots=True)
class ClipsRequest:
    """The options of `streamgate clips`."""

    out: Path
    seconds: float = 3.0
    top_k: int = 1
    per: str = "track"
    cut: str = "exact"
    footage: tuple[Path, ...] = ()
    overwrite: bool = False
    quiet: bool = False
    models: str = ""
    device: str = "auto"


@dataclass(slots=True)
class _Track:
    """A track that keeps a face, with what the run knows of it."""

    source_id: str
    track_id: int
    person_id: str | None
    last_pts: float
    quality: float
    seen: list[Seen] = field(default_factory=list)


@dataclass(slots=True)
class _Told:
    """What went not as wanted, a line each, told at the end and at once."""

    quiet: bool
    problems: int = 0

    def problem(self, text: str) -> None:
        self.problems += 1
        click.echo(f"streamgate: {text}", err=True)

    def note(self, text: str) -> None:
        if not self.quiet:
            click.echo(text, err=True)


def clips_command(request: ClipsRequest) -> int:
    """Write the clips; returns the exit code: 1 when a source was not to be found. Raises StreamgateError."""
    folder = RunFolder.read(request.out)
    tracks = _tracks(folder)
    locations = {str(one.get("source_id")): str(one.get("source")) for one in folder.summary["sources"]}
    told = _Told(request.quiet)
    target = request.out / CLIPS
    with (
        Gate(models=request.models, device=request.device, config=_config(folder)) as gate,
        new_folder(target, "clips", overwrite=request.overwrite) as staging,
        files.sink_errors(target),
    ):
        _refuse_other_weights(folder, gate, request)
        made = _Made(request, folder, FrameScorer(gate), Footage(request.footage), locations, staging, told)
        with open(staging / "clips.jsonl", "xb") as lines:
            count = 0
            for record in made.clips(tracks):
                lines.write(dumps(record).encode() + b"\n")
                count += 1
        if told.problems and (not count or target.exists()):
            stay = "; earlier clips stay" if target.exists() else ""
            raise SourceError(f"{display(request.out)}: not every source could be cut{stay}")
    for problem in folder.problems:
        told.problem(f"{display(request.out)}: {problem}")
    written = [path for path in target.rglob("*") if path.is_file()] + [target / RECEIPT]
    adopt(request.out, {path.relative_to(request.out).as_posix() for path in written})
    told.note(f"{count} clip{'' if count == 1 else 's'} in {display(target)}")
    if made.pictures:
        told.note(f"clips come from video files alone: {len(made.pictures)} source(s) of pictures passed over")
    if made.without:
        told.note(_without(made.without, request))
    return 1 if told.problems else 0


def _without(names: Sequence[str], request: ClipsRequest) -> str:
    start = " from a key frame on" if request.cut == "keyframes" else ""
    whose = "person" if request.per == "person" else "track"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"{len(names)} {whose}{'' if len(names) == 1 else 's'} without {request.seconds:g} s{start} in which every "
        f"frame passes the gate: {', '.join(names[:5])}{more}"
    )


class _Made:
    """Makes clips group by group."""

    def __init__(
        self, request: ClipsRequest, folder: RunFolder, scorer: FrameScorer, footage: Footage,
        locations: Mapping[str, str], staging: Path, told: _Told,
    ) -> None:  # fmt: skip
        self._request = request
        self._folder = folder
        self._scorer = scorer
        self._footage = footage
        self._locations = locations
        self._staging = staging
        self._told = told
        self._lost: set[str] = set()
        self.pictures: set[str] = set()
        """Sources that are pictures, not video: there is nothing to cut."""
        self.without: list[str] = []
        """Of whom footage was looked at and no clip came out."""

    def clips(self, tracks: Sequence[_Track]) -> Iterator[Record]:
        """Write every clip; yields their records."""
        groups: dict[tuple[str, ...], list[_Track]] = defaultdict(list)
        for track in tracks:
            alone = self._request.per == "track" or track.person_id is None
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
                if rank >= self._request.top_k:
                    break
            looked_at = any(
                one.source_id not in self._lost and is_video(self._locations.get(one.source_id, ""))
                for one in groups[key]
            )
            if not rank and looked_at:
                self.without.append("/".join(key))

    def _of_track(self, track: _Track, key: tuple[str, ...], rank: int) -> Iterator[Record]:
        location = self._locations.get(track.source_id, "")
        if not is_video(location):
            self.pictures.add(location)
        if track.source_id in self._lost or not is_video(location):
            return
        path = self._footage.find(location, track.source_id)
        if path is None:
            self._lost.add(track.source_id)
            self._told.problem(missing(location, self._request.footage))
            return
        track.seen = _seen(self._folder, track)
        try:
            with VideoFile(path, location) as source:
                yield from self._windows(track, source, path, key, rank)
        except SourceError as error:
            self._told.problem(str(error))

    def _windows(
        self, track: _Track, source: VideoFile, path: Path, key: tuple[str, ...], rank: int
    ) -> Iterator[Record]:
        copying = self._request.cut == "keyframes"
        spans = copyable_spans(path, source.location, self._request.seconds) if copying else None
        tries = 0
        while rank < self._request.top_k and tries < TRIES:
            window = best_window(track.seen, self._request.seconds, track.last_pts, spans)
            if window is None:
                return
            tries += 1
            checked = self._scorer.score(source, track.seen, window)
            track.seen = merged(track.seen, checked)
            if not checked or any(one.failed for one in checked):
                if not checked:
                    return
                continue
            name = "/".join((*key, f"{rank + 1}{suffix_for(path, source.location, copy=copying)}"))
            target = self._staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            span = Span(window.start, window.end)
            cut = copy_span(path, source.location, target, span) if copying else encode_span(source, path, target, span)
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
                "end_seconds": round(window.end, 6), "frames": cut, "cut": self._request.cut,
                "quality_mean": round(float(np.mean(qualities)), 4), "quality_min": round(float(np.min(qualities)), 4),
            }  # fmt: skip
            # The next best of this track must be another stretch.
            inside = [one for one in track.seen if window.start <= one.pts_seconds < window.end]
            track.seen = merged(track.seen, _failed(inside))

    def _check(self, clip: Path, track: _Track, window: Window) -> list[Seen]:
        """Every frame of a written clip scored, at the source's times."""
        moved = [Seen(one.pts_seconds - window.start, one.face, one.failed, one.quality) for one in track.seen]
        with VideoFile(clip) as written:
            found = self._scorer.score(written, moved, Window(0.0, window.end - window.start, 0.0))
        return [Seen(one.pts_seconds + window.start, one.face, one.failed, one.quality) for one in found]


def _failed(seen: Sequence[Seen]) -> list[Seen]:
    return [Seen(one.pts_seconds, one.face, True) for one in seen]


def _tracks(folder: RunFolder) -> list[_Track]:
    """The tracks that keep a face which passed, in the order of faces.jsonl."""
    found: dict[tuple[str, int], _Track] = {}
    for record in folder.faces():
        key = (record["source_id"], record["track_id"])
        if record["rank"] != 1 or not record["gate"].get("passed") or key in found:
            continue
        person, last, quality = record.get("person_id"), record["track"].get("last_pts"), record.get("quality")
        found[key] = _Track(*key, person if isinstance(person, str) else None, _float(last), _float(quality))
    return list(found.values())


def _seen(folder: RunFolder, track: _Track) -> list[Seen]:
    """What candidates.jsonl.gz knows of a track's face, by time."""
    by_time: dict[float, Seen] = {}
    for record in folder.candidates(track.source_id):
        if record["track_id"] != track.track_id:
            continue
        try:
            box = np.array(record["box"], np.float32).reshape(4)
            landmarks = np.array(record["landmarks"], np.float32).reshape(5, 2)
            failed = bool(record["gate"].get("reasons"))
            quality = None if failed or record["quality"] is None else float(record["quality"])
            face = Face(box, landmarks, float(record["detection_score"]))
        except (KeyError, TypeError, ValueError):
            continue
        by_time[float(record["pts_seconds"])] = Seen(float(record["pts_seconds"]), face, failed, quality)
    return [by_time[time] for time in sorted(by_time)]


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _config(folder: RunFolder) -> Config:
    try:
        return Config.model_validate(folder.summary["config"])
    except ValidationError:
        raise SourceError(
            f"{display(folder.out)}: its configuration is of another version of streamgate; use that version, "
            "or run the sources again"
        ) from None


def _refuse_other_weights(folder: RunFolder, gate: Gate, request: ClipsRequest) -> None:
    before = {one.get("role"): one.get("sha256") for one in folder.summary["weights"] if isinstance(one, dict)}
    now = {one["role"]: one["sha256"] for one in gate.run_info().weights}
    if before != now:
        roles = before.keys() | now.keys()
        differing = ", ".join(sorted(str(role) for role in roles if before.get(role) != now.get(role)))
        raise UsageError(
            f"{display(request.out)} was made with other weights ({differing}); give the --models of that run"
        )
