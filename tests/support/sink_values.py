"""Values to put into sinks."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.frames import (
    BestShot,
    Candidate,
    Evidence,
    Face,
    GateResult,
    Measure,
    Pose,
    TrackEnd,
    TrackInfo,
)
from streamgate.sinks import Sink, SourceWriter
from streamgate.store.run import RunInfo, SourceInfo, SourceResult


class Make:
    """Builds the values that sinks take; everything follows from the arguments."""

    def run(self, **changes: object) -> RunInfo:
        values: dict = {
            "config": {"keep": {"top_k": 1}, "note": "rtsp://ann:pw12345@cam/1"},
            "measure_set": ("serfiq", "yaw"),
            "absent_measures": {"ifqa": "no_weights"},
            "calibration_id": "cal-1",
            "weights": ({"role": "detector", "sha256": "ab" * 32},),
            "versions": {"streamgate": "0.1.0"},
        }
        return RunInfo(**{**values, **changes})

    def source(self, name: str) -> SourceInfo:
        return SourceInfo(f"in/{name}.mp4", f"{name}-0a1b2c3d")

    def face(self, seed: int) -> Face:
        landmarks = np.arange(10, dtype=np.float32).reshape(5, 2) + seed
        return Face(np.array([10.123, 20, 110, 140], np.float32), landmarks, 0.9)

    def shot(self, name: str, track_id: int, rank: int = 1, size: int = 64) -> BestShot:
        rng = np.random.default_rng([track_id, rank])
        return BestShot(
            image=rng.integers(0, 255, (size, size, 3), np.uint8),
            source=self.source(name).location,
            source_id=self.source(name).source_id,
            track=TrackInfo(track_id, 0.0, 2.0, 50, 9),
            rank=rank,
            pts_seconds=1.0 / 3.0,
            face=self.face(track_id),
            pose=Pose(1.5, -2.0, 0.25),
            measures={"serfiq": Measure.ok(0.89, 91.0), "yaw": Measure.ok(1.5, 99.9)},
            quality=93.0,
            quality_smoothed=92.0,
            quality_context=90.0,
            calibration_id="cal-1",
            gate=GateResult(True),
            frame_index=10,
        )

    def ended(self, name: str, track_id: int, kept: int = 1, size: int = 64) -> TrackEnd:
        shots = tuple(self.shot(name, track_id, rank, size) for rank in range(1, kept + 1))
        return TrackEnd(
            TrackInfo(track_id, 0.0, 2.0, 50, 9),
            shots,
            {} if kept else {"yaw": 4, "blurred": 2},
            () if kept else ("yaw",),
            self.source(name).source_id,
        )

    def candidate(self, track_id: int, pts: float) -> Candidate:
        return Candidate(
            track_id=track_id,
            pts_seconds=pts,
            face=self.face(track_id),
            evidence=Evidence({"mean_luma": 120.0, "spread": 0.2}),
            measures={"yaw": Measure.ok(1.5, 99.9)},
        )

    def result(self, name: str, **changes: object) -> SourceResult:
        values: dict = {"frames": 50, "tracks": 3, "kept": 3, "rejected": {"yaw": 4}}
        return SourceResult(self.source(name), **{**values, **changes})

    def fill(self, writer: SourceWriter, name: str) -> None:
        """Three tracks, ending out of order: 2 keeps two shots, 3 nothing, 1 one shot."""
        for step in range(5):
            writer.evaluated(self.candidate(1 + step % 3, step / 10))
        writer.track(self.ended(name, 2, kept=2))
        writer.track(self.ended(name, 3, kept=0))
        writer.track(self.ended(name, 1))

    def send(self, sink: Sink, name: str) -> None:
        """A whole source into `sink`: four events."""
        writer = sink.open_source(self.source(name))
        self.fill(writer, name)
        writer.commit(self.result(name))


@pytest.fixture
def make() -> Make:
    return Make()
