"""Top K of a track."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.config import load_config
from streamgate.config_sections import KeepConfig, SmoothingConfig
from streamgate.faces import Evidence, Face, GateResult, Pose
from streamgate.frames import Picture
from streamgate.selection.keeper import Keeper
from streamgate.sources import picture_of_rgb
from streamgate.tracks import Candidate

LANDMARKS = np.array([[50, 60], [150, 60], [100, 100], [60, 150], [140, 150]], np.float32)
FACE = Face(np.array([0, 0, 200, 200], np.float32), LANDMARKS, 0.9)


def candidate(pts: float, quality: float | None, *reasons: str) -> Candidate:
    return Candidate(
        FACE,
        track_id=1,
        pts_seconds=pts,
        quality=quality,
        gate=GateResult(not reasons and quality is not None, reasons),
    )


PICTURE = picture_of_rgb(np.zeros((8, 8, 3), np.uint8))


def crop(candidate: Candidate, region: Picture) -> np.ndarray:
    assert region is PICTURE
    return np.zeros((2, 2, 3), np.uint8)


def config(top_k: int, gap: float = 1.0, fallback: str = "none", **more: object) -> KeepConfig:
    values = {"top_k": top_k, "min_gap_seconds": gap, "fallback": fallback, "min_quality": 0.0, **more}
    return load_config().keep.model_copy(update=values)


def keep(candidates: list[Candidate], top_k: int = 1, gap: float = 1.0, fallback: str = "none") -> Keeper:
    keeper = Keeper(
        config(top_k, gap, fallback), SmoothingConfig(short_s=0.2, long_s=2.0), crop
    )
    for one in candidates:
        keeper.note(one)
    for one in candidates:
        keeper.offer(one, PICTURE)
        keeper.prune(one.pts_seconds)
    return keeper


def kept(keeper: Keeper) -> list[tuple[int, float]]:
    return [(one.rank, one.candidate.pts_seconds) for one in keeper.finish()]


def test_the_best_wins_by_smoothed_then_own_quality_then_time() -> None:
    lucky = [candidate(0.0, 50), candidate(0.03, 95), candidate(0.06, 50)]
    steady = [candidate(5.0, 80), candidate(5.03, 82), candidate(5.06, 84)]
    assert kept(keep([*lucky, *steady])) == [(1, 5.06)]
    assert kept(keep([candidate(1.0, 70), candidate(3.0, 70)])) == [(1, 1.0)]


def test_a_face_whose_neighbours_take_it_below_the_least_quality_is_rejected_at_the_end() -> None:
    lucky, steady = [candidate(0.0, 43), candidate(0.03, 47), candidate(0.06, 43)], candidate(5.0, 46)
    keeper = Keeper(config(2, min_quality=45.0), SmoothingConfig(short_s=0.2, long_s=2.0), crop)
    for one in [*lucky, steady]:
        keeper.note(one)
    for one in (lucky[1], steady):
        keeper.offer(one, PICTURE)
    keeper.close()
    assert kept(keeper) == [(1, 5.0)]
    assert lucky[1].gate == GateResult(False, ("low_quality",))


def test_ranks_lie_apart_in_time() -> None:
    found = keep([candidate(0.0, 70), candidate(0.5, 90), candidate(1.2, 80), candidate(3.0, 60)], top_k=3)
    assert kept(found) == [(1, 0.5), (2, 3.0)]
    assert kept(keep([candidate(0.0, 70), candidate(1.0, 90)], top_k=3)) == [(1, 1.0), (2, 0.0)]


def test_only_what_passes_is_kept() -> None:
    found = keep([candidate(0.0, 99, "yaw"), candidate(3.0, 40)])
    assert kept(found) == [(1, 3.0)]
    assert kept(keep([candidate(0.0, 99, "yaw")])) == []


def test_fallback_gives_the_least_bad_face_marked_as_not_passed() -> None:
    bad = [candidate(0.0, 90, "yaw", "small"), candidate(2.0, 50, "yaw"), candidate(4.0, 60, "blurred")]
    (best,) = keep(bad, fallback="best").finish()
    assert best.candidate.pts_seconds == 4.0 and not best.candidate.gate.passed
    assert kept(keep([*bad, candidate(6.0, 30)], fallback="best")) == [(1, 6.0)]


def test_the_bar_is_what_the_next_has_to_beat() -> None:
    assert keep([candidate(0.0, 70)], top_k=2).threshold() == 0.0
    assert keep([candidate(0.0, 70), candidate(3.0, 60)], top_k=2).threshold() == 60.0


@pytest.mark.parametrize("top_k", [1, 3])
def test_pruning_changes_no_result_and_bounds_memory(top_k: int) -> None:
    random = np.random.default_rng(top_k)
    candidates = [candidate(index * 0.1, float(random.uniform(10, 95))) for index in range(3000)]
    pruned = keep(candidates, top_k=top_k)
    whole = Keeper(
        config(top_k), SmoothingConfig(short_s=0.2, long_s=2.0), crop
    )
    fresh = [candidate(one.pts_seconds, one.quality) for one in candidates]
    for one in fresh:
        whole.note(one)
        whole.offer(one, PICTURE)
    assert kept(pruned) == kept(whole)
    assert sum(len(pool) for pool in pruned._pools.values()) < 40
    assert sum(one.image is not None for one in candidates) <= 40
    assert all(one.candidate.image is not None for one in pruned.finish())


def filled(candidates: list[Candidate], keep: KeepConfig) -> Keeper:
    keeper = Keeper(keep, SmoothingConfig(short_s=0.2, long_s=2.0), crop)
    for one in candidates:
        keeper.note(one)
        keeper.offer(one, PICTURE)
        keeper.prune(one.pts_seconds)
    return keeper


def looking(pts: float, quality: float, phash: int, *embedding: float) -> Candidate:
    one = candidate(pts, quality)
    one.phash, one.evidence = phash, Evidence(embedding=np.array(embedding, np.float32))
    return one


def test_of_faces_that_look_the_same_one_is_kept_and_the_next_look_takes_the_place() -> None:
    faces = [
        looking(0.0, 90, 0b0000, 1.0, 0.0),
        looking(2.0, 80, 0b0011, 0.98, 0.2),
        looking(4.0, 70, 0b0011, 0.5, 0.9),  # the hash is near, the face is another
        looking(6.0, 60, (1 << 60) - 1, 0.88, -0.47),  # and the other way round
    ]
    assert kept(filled(faces, config(3))) == [(1, 0.0), (2, 4.0), (3, 6.0)]
    assert kept(filled(faces, config(3, duplicate_cosine=2.0))) == [(1, 0.0), (2, 2.0), (3, 4.0)]


def test_a_face_that_hardly_changes_fills_no_memory_and_hides_no_rare_look() -> None:
    random = np.random.default_rng(3)
    faces = [
        looking(index * 0.5, float(random.uniform(60, 90)), 0, 1.0, 0.0)
        if index % 500
        else looking(index * 0.5, 40.0, (1 << 60) - 1 - index, 0.0, 1.0 + index)
        for index in range(1, 4000)
    ]
    keeper = filled(faces, config(3))
    assert sum(len(pool) for pool in keeper._pools.values()) < 60
    best, rare, *_ = keeper.finish()
    assert best.candidate.quality == max(face.quality for face in faces)
    assert rare.candidate.quality == 40.0


def turned(pts: float, quality: float, yaw: float, pitch: float = 0.0) -> Candidate:
    one = candidate(pts, quality)
    one.evidence = Evidence(pose=Pose(yaw, pitch, 0.0))
    return one


def test_each_pose_has_its_own_best_shots() -> None:
    faces = [turned(0, 90, 0), turned(2, 80, 3), turned(4, 50, -30), turned(6, 60, -20), turned(8, 40, 0, 30)]
    keeper = filled(faces, config(1, poses="all"))
    found = [(one.rank, one.candidate.pts_seconds, one.pose_bin) for one in keeper.finish()]
    assert found == [
        (1, 0, "yaw -15..15 pitch -12..12"),
        (2, 6, "yaw -45..-15 pitch -12..12"),
        (3, 8, "yaw -15..15 pitch 12.."),
    ]
    # What is known of a candidate says what it has to beat.
    assert (
        keeper.threshold(turned(9, 0, 5)) == 90
        and keeper.threshold(turned(9, 0, 70)) == 0
        and keeper.threshold(candidate(9, 0)) == 0
    )
