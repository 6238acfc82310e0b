"""Top K of a track."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.config import KeepConfig, SmoothingConfig
from streamgate.frames import Candidate, Face, GateResult, Picture
from streamgate.selection.keeper import Keeper
from streamgate.sources import picture_of_rgb

FACE = Face(np.array([0, 0, 10, 10], np.float32), np.zeros((5, 2), np.float32), 0.9)


def candidate(pts: float, quality: float | None, *reasons: str) -> Candidate:
    return Candidate(
        1, pts, FACE, quality=quality, gate=GateResult(not reasons and quality is not None, reasons)
    )  # fmt: skip


PICTURE = picture_of_rgb(np.zeros((8, 8, 3), np.uint8))


def crop(candidate: Candidate, region: Picture) -> np.ndarray:
    assert region is PICTURE
    return np.zeros((2, 2, 3), np.uint8)


def keep(candidates: list[Candidate], top_k: int = 1, gap: float = 1.0, fallback: str = "none") -> Keeper:
    keeper = Keeper(
        KeepConfig(top_k=top_k, min_gap_seconds=gap, fallback=fallback), SmoothingConfig(short_s=0.2, long_s=2.0), crop
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
    assert keep([candidate(0.0, 70)], top_k=2).bar() == 0.0
    assert keep([candidate(0.0, 70), candidate(3.0, 60)], top_k=2).bar() == 60.0


@pytest.mark.parametrize("top_k", [1, 3])
def test_pruning_changes_no_result_and_bounds_memory(top_k: int) -> None:
    random = np.random.default_rng(top_k)
    candidates = [candidate(place * 0.1, float(random.uniform(10, 95))) for place in range(3000)]
    pruned = keep(candidates, top_k=top_k)
    whole = Keeper(
        KeepConfig(top_k=top_k, min_gap_seconds=1.0, fallback="none"), SmoothingConfig(short_s=0.2, long_s=2.0), crop
    )
    fresh = [candidate(one.pts_seconds, one.quality) for one in candidates]
    for one in fresh:
        whole.note(one)
        whole.offer(one, PICTURE)
    assert kept(pruned) == kept(whole)
    assert len(pruned._pool) < 40
    assert sum(one.crop is not None for one in candidates) <= 40
    assert all(one.candidate.crop is not None for one in pruned.finish())
