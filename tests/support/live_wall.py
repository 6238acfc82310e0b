"""Real faces on a service's wall without cameras: the gate runs over clips, a sink shows what it keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from streamgate.engine import Engine
from streamgate.report.heatmap import heatmap_png
from streamgate.report.notes import Point
from streamgate.service.state import LatestFace, ServiceState, StreamState
from streamgate.sources import discover
from streamgate.store.images import encode_jpeg
from streamgate.store.records import face_record, utc_text
from streamgate.store.run import SourceInfo, SourceResult
from streamgate.tracks import BestShot, Candidate, TrackEnd


def show_clips(state: ServiceState, clips: Iterable[Path], engine: Engine) -> None:
    """Show the kept faces of `clips`, each as if it were a camera of its stem's name."""
    state.note(models_loaded=True)
    for clip in clips:
        state.add_stream(clip.stem, f"file://{clip.name}", state=StreamState.CONNECTING)
        sink = _WallSink(state, clip.stem)
        engine.run([spec.open for spec in discover([str(clip)]).sources], sink)
        state.update_stream(clip.stem, state=StreamState.RUNNING, fps=25.0, connects=1)


class _WallSink:
    def __init__(self, state: ServiceState, name: str) -> None:
        self._state = state
        self._name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""

    def open_source(self, source: SourceInfo) -> _WallWriter:
        return _WallWriter(self._state, self._name)

    def finish(self, results: list[SourceResult], timing: Mapping[str, float]) -> None:
        """Nothing covers the whole run here."""


class _WallWriter:
    def __init__(self, state: ServiceState, name: str) -> None:
        self._state = state
        self._name = name
        self._candidates: dict[int, list[Candidate]] = {}
        self._maps: dict[tuple[int, float], Any] = {}
        self._start = datetime.now(UTC) - timedelta(minutes=1)

    def evaluated(self, candidate: Candidate) -> None:
        self._candidates.setdefault(candidate.track_id, []).append(candidate)
        self._maps[candidate.track_id, candidate.pts_seconds] = candidate.evidence.ifqa_map

    def track(self, ended: TrackEnd) -> None:
        points = sorted(self._candidates.get(ended.track.track_id, []), key=lambda one: one.pts_seconds)
        series = tuple(Point.of(one) for one in points)
        self._state.count(self._name, tracks=1)
        for shot in ended.shots:
            self._state.show(self._face(shot, series))
            self._state.count(self._name, faces=1)

    def _face(self, shot: BestShot, series: tuple[Point, ...]) -> LatestFace:
        track_key = f"{self._name}/0/{shot.track.track_id}"
        record = face_record(shot, None)
        record["captured_at"] = utc_text(self._start + timedelta(seconds=shot.pts_seconds))
        record["ended_at"] = record["captured_at"]
        ifqa_map = self._maps.get((shot.track.track_id, shot.pts_seconds))
        return LatestFace(
            key=f"{track_key}/{shot.rank}",
            id=f"{track_key}/final/{shot.rank}/0",
            kind="final",
            track_key=track_key,
            stream=self._name,
            record=record,
            jpeg=encode_jpeg(shot.image, 92),
            heatmap=None if ifqa_map is None else heatmap_png(ifqa_map),
            series=series,
        )

    def commit(self, result: SourceResult) -> None:
        self._state.update_stream(
            self._name,
            frames_in=result.frames, width=result.width, height=result.height,
            last_frame_at=datetime.now(UTC),
        )  # fmt: skip

    def discard(self) -> None:
        """Shown is shown."""
