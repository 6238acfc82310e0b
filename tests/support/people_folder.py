"""Output folders with persons in them, made of templates that are chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.frames import BestShot, Face, GateResult, Measure, Template, TrackEnd, TrackInfo
from streamgate.sinks.disk import DiskSink
from streamgate.store.run import IdentityInfo, RunInfo, SourceInfo, SourceResult

THRESHOLD = 0.5
LANDMARKS = np.array([[50, 60], [150, 60], [100, 100], [60, 150], [140, 150]], np.float32)
RUN = RunInfo({}, ("serfiq",), {}, "cal-1", (), {}, IdentityInfo("disk", THRESHOLD))


def template(vector: np.ndarray | list[float], weight: float = 0.8, agreement: float = 0.95) -> Template:
    unit = np.asarray(vector, np.float32)
    return Template(unit / np.linalg.norm(unit), 5, weight, agreement, 60.0)


def person(number: int, turned: float = 0.0, size: int = 8) -> Template:
    """A template of person `number`, turned away from the plain one by so many degrees; others are at right angles."""
    vector = np.zeros(size)
    vector[number], vector[-1] = np.cos(np.radians(turned)), np.sin(np.radians(turned))
    return template(vector)


Tracks = Mapping[int, tuple]
"""Track id -> first pts, last pts, template, and perhaps what it keeps: (quality, hash, perhaps embedding) each."""


def ended(name: str, track_id: int, first: float, last: float, found: Template | None, kept: list = ()) -> TrackEnd:
    track = TrackInfo(track_id, first, last, 20, 5)
    looks = kept or [(90.0 - track_id, None)]
    shots = tuple(
        BestShot(
            image=np.full((8, 8, 3), 40 * track_id % 255, np.uint8),
            source=f"in/{name}.mp4",
            source_id=f"{name}-0a1b2c3d",
            track=track,
            rank=rank,
            pts_seconds=first + rank / 10,
            face=Face(np.array([0, 0, 200, 200], np.float32), LANDMARKS, 0.9),
            pose=None,
            measures={"serfiq": Measure.ok(0.89, 91.0)},
            quality=look[0],
            quality_smoothed=look[0],
            quality_context=80.0,
            calibration_id="cal-1",
            gate=GateResult(True),
            phash=look[1],
            embedding=look[2] if len(look) > 2 else None if found is None else found.vector,
        )
        for rank, look in enumerate(looks, 1)
    )
    return TrackEnd(track, shots, {}, (), f"{name}-0a1b2c3d", template=found)


class Out:
    """An output folder, filled run by run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_info = RUN

    def keep(self, **values: object) -> Out:
        """What later runs keep."""
        keep = load_config().keep.model_copy(update=values)
        self.run_info = replace(RUN, config={"keep": keep.model_dump(mode="json")})
        return self

    def run(self, sources: Mapping[str, Tracks], **identity: object) -> Out:
        """A run over sources by name."""
        run = replace(self.run_info, identity=replace(self.run_info.identity, **identity))  # type: ignore[arg-type]
        with DiskSink(self.path, run, overwrite=True) as sink:
            results = []
            for name, tracks in sources.items():
                info = SourceInfo(f"in/{name}.mp4", f"{name}-0a1b2c3d")
                writer = sink.open_source(info)
                for track_id, track in tracks.items():
                    writer.track(ended(name, track_id, *track))
                results.append(SourceResult(info, kept=len(tracks), tracks=len(tracks)))
                writer.commit(results[-1])
            sink.finish(results, {})
        return self


@pytest.fixture
def out(tmp_path: Path) -> Out:
    return Out(tmp_path / "out")
