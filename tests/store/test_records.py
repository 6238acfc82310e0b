"""The JSON shapes: keys and their order, no NaN, stable bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from streamgate.faces import Evidence, Face, GateResult, Measure, Pose, ScoredFace, Status
from streamgate.measures import built_in_measures
from streamgate.store.jsonlines import dumps
from streamgate.store.records import (
    candidate_of,
    candidate_record,
    event,
    face_record,
    image_path,
    missed_record,
    score_record,
    track_record,
)
from streamgate.store.run import RunInfo, SourceInfo, SourceResult, source_record, summary_record
from streamgate.tracks import BestShot, Candidate, TrackEnd, TrackInfo

FACE_KEYS = [
    "schema", "id", "source", "source_id", "track_id", "person_id", "rank", "frame_index", "pts_seconds",
    "pts_estimated", "captured_at", "box", "landmarks", "detection_score", "pose", "measures", "quality",
    "quality_smoothed", "quality_context", "calibration_id", "gate", "image", "track",
]  # fmt: skip
NAN = float("nan")


def face(**changes: object) -> Face:
    values: dict = {
        "box": np.array([1.005, -0.001, 30.5, 40], np.float32),
        "landmarks": np.ones((5, 2), np.float32),
        "score": 0.98766,
    }
    return Face(**{**values, **changes})


def shot(**changes: object) -> BestShot:
    values: dict = {
        "image": np.zeros((8, 8, 3), np.uint8),
        "source": "clips/straße ✨.mp4",
        "source_id": "clip-01234567",
        "track": TrackInfo(7, 0.0, 1.0, 30, 5),
        "rank": 2,
        "pts_seconds": 1 / 3,
        "face": face(),
        "evidence": Evidence(pose=Pose(1.234, -5.678, -0.001)),
        "measures": {"serfiq": Measure.ok(0.8874806521, 87.123456)},
        "quality": 81.23456,
        "quality_smoothed": 80.0,
        "quality_context": None,
        "calibration_id": "cal",
        "gate": GateResult(True),
    }
    return BestShot(**{**values, **changes})


def test_face_record_has_the_public_keys_in_their_order() -> None:
    record = face_record(shot(), "clip-01234567/track_0007/2.png")
    added = ["upscaled", "outside", "name", "person_rank", "crops", "pose_bin", "phash", "still"]
    assert list(record) == [*FACE_KEYS, *added]
    assert list(record["track"]) == ["first_pts", "last_pts", "frames_seen", "frames_scored"]
    assert (record["schema"], record["id"]) == (1, "clip-01234567/0/7/final/2/0")
    assert record["person_id"] is None and record["captured_at"] is None
    assert image_path(shot()) == "clip-01234567/track_0007/2.png"


def test_figures_are_rounded_and_never_minus_zero() -> None:
    record = face_record(shot(), None)
    assert record["pts_seconds"] == 0.333333
    assert record["box"] == [1.0, 0.0, 30.5, 40.0] and "-0.0" not in dumps(record)
    assert record["detection_score"] == 0.9877
    assert record["pose"] == {"yaw": 1.23, "pitch": -5.68, "roll": 0.0}
    assert record["measures"]["serfiq"] == {"raw": 0.88748065, "scalar": 87.1235, "status": "ok"}


def test_every_measure_is_listed_and_those_not_given_are_not_scored() -> None:
    measures = face_record(shot(), None)["measures"]
    assert list(measures) == [spec.name for spec in built_in_measures()]
    assert measures["ifqa"] == {"raw": None, "scalar": None, "status": "not_scored"}


def test_a_measure_that_is_not_ok_or_not_finite_has_no_figures() -> None:
    measures = {"ifqa": Measure(0.5, 50.0, Status.NO_WEIGHTS), "eyes": Measure(NAN, 3.0, Status.OK)}
    record = face_record(shot(measures=measures), None)["measures"]
    assert record["ifqa"] == {"raw": None, "scalar": None, "status": "no_weights"}
    assert record["eyes"] == {"raw": None, "scalar": None, "status": "error"}


def test_a_measure_that_only_lacks_its_calibration_shows_its_raw_value() -> None:
    record = face_record(shot(measures={"ifqa": Measure(0.5, 50.0, Status.UNCALIBRATED)}), None)["measures"]
    assert record["ifqa"] == {"raw": 0.5, "scalar": None, "status": "uncalibrated"}


def test_measures_of_a_preset_come_after_ours() -> None:
    measures = {"beauty": Measure.ok(1, 1), "age": Measure.ok(2, 2), "ifqa": Measure.ok(0.5, 50)}
    record = face_record(shot(measures=measures), None)["measures"]
    assert list(record) == [*(spec.name for spec in built_in_measures()), "age", "beauty"]


def test_a_stored_face_with_a_measure_that_its_run_cannot_have_is_refused() -> None:
    candidate = Candidate(face(), track_id=1, pts_seconds=0.5, measures={"beauty": Measure.ok(1, 1)})
    record = candidate_record(candidate, "a-12345678")
    assert candidate_of(record, list(record["measures"])).measures["beauty"] == Measure.ok(1, 1)
    with pytest.raises(ValueError, match="unknown measures: beauty"):
        candidate_of(record, [spec.name for spec in built_in_measures()])


@pytest.mark.parametrize("key", ["quality", "quality_smoothed", "quality_context"])
def test_an_optional_figure_that_is_not_finite_is_null(key: str) -> None:
    assert face_record(shot(**{key: float("inf")}), None)[key] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"pts_seconds": NAN},
        {"face": face(box=np.array([NAN, 0, 1, 1]))},
        {"face": face(landmarks=np.full((5, 2), np.inf))},
        {"face": face(score=NAN)},
    ],
)
def test_a_required_figure_that_is_not_finite_raises(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not finite"):
        face_record(shot(**changes), None)


def test_captured_at_is_utc_with_z() -> None:
    moment = datetime(2026, 3, 1, 1, 30, 0, 120_000, timezone(timedelta(hours=2)))
    assert face_record(shot(captured_at=moment), None)["captured_at"] == "2026-02-28T23:30:00.120Z"
    with pytest.raises(ValueError, match="time zone"):
        face_record(shot(captured_at=moment.replace(tzinfo=None)), None)
    assert face_record(shot(captured_at=moment.astimezone(UTC)), None)["captured_at"].endswith("Z")


def test_source_is_redacted() -> None:
    record = face_record(shot(source="rtsp://ann:pw12345@cam/1?token=abcdef"), None)
    assert not any(secret in record["source"] for secret in ("ann", "pw12345", "abcdef"))


def test_candidate_record_carries_what_judging_anew_takes() -> None:
    evidence = Evidence({"mean_luma": 33.0, "spread": 0.25}, failed={"eyes", "edge"})
    candidate = Candidate(face(), track_id=3, pts_seconds=0.5, interpolated=True, evidence=evidence)
    record = candidate_record(candidate, "clip-01234567")
    assert record["evidence"]["mean_luma"] == 33.0 and record["evidence"]["spread"] == 0.25
    assert record["evidence"]["failed"] == ["edge", "eyes"] and record["evidence"]["ifqa"] is None
    assert record["interpolated"] is True and record["refined"] is False and record["pose"] is None
    assert "embedding" not in dumps(record)


def test_missed_record_has_the_keys_of_a_face_and_the_reasons() -> None:
    ended = TrackEnd(TrackInfo(4, 0.0, 1.0, 25, 3), (), {"yaw": 2, "edge": 1}, ("yaw",), "clip-01234567")
    record = missed_record(track_record(ended), "clip.mp4", "cal")
    assert list(record) == [*list(face_record(shot(), None)), "rejected"]
    assert (record["id"], record["rank"]) == ("clip-01234567/0/4/final/0/0", 0)
    assert record["gate"] == {"passed": False, "reasons": ["yaw"]}
    assert record["rejected"] == {"edge": 1, "yaw": 2}
    assert "jpeg" not in event(record, "final", None)


def test_score_record_shape() -> None:
    scored = ScoredFace(
        face(), Evidence(embedding=np.array([0.5, 1.0])), gate=GateResult(False, ("yaw",))
    )
    record = score_record("a.jpg", [scored])
    assert list(record) == ["image", "faces"]
    assert list(record["faces"][0]) == [
        "box", "landmarks", "detection_score", "pose", "measures", "quality", "gate",
    ]  # fmt: skip
    assert score_record("a.jpg", [scored], embedding=True)["faces"][0]["embedding"] == [0.5, 1.0]


def test_summary_adds_up_and_keeps_what_varies_under_timing() -> None:
    run = RunInfo({"url": "redis://u:hunter22@h/0"}, ("yaw",), {"ifqa": "no_weights"}, "cal", (), {})
    done = SourceResult(SourceInfo("a", "a-1"), frames=3, tracks=1, kept=1, rejected={"yaw": 2})
    done.timing = {"wall": 1.5, "bad": NAN}
    failed = SourceResult(SourceInfo("b", "b-1"), "failed", error="cannot open rtsp://u:hunter22@h/1")
    record = summary_record(run, [source_record(done), source_record(failed)], {"wall": 2.0})
    assert record["totals"]["sources"] == {"done": 1, "failed": 1} and record["totals"]["frames"] == 3
    assert record["totals"]["rejected"] == {"yaw": 2}
    assert record["timing"] == {"run": {"wall": 2.0}, "sources": {"a-1": {"wall": 1.5, "bad": None}}}
    assert "timing" not in record["sources"][0] and record["sources"][1]["status"] == "failed"
    assert "hunter22" not in dumps(record)


def test_dumps_is_compact_unicode_without_nan() -> None:
    assert dumps({"b": "straße ✨", "a": [1.5, None]}) == '{"b":"straße ✨","a":[1.5,null]}'
    with pytest.raises(ValueError):
        dumps({"x": NAN})


def test_a_name_that_is_not_utf8_still_gives_valid_json() -> None:
    name = b"caf\xe9 \\ \xff.mp4".decode("utf-8", "surrogateescape")
    assert json.loads(dumps({"source": name}).encode())["source"] == r"caf\xe9 \ \xff.mp4"
