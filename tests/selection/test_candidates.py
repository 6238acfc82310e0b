"""The cascade: what is scored, and what may be kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamgate.config import Config, load_config
from streamgate.faces import Face, GateResult
from streamgate.frames import Frame, Picture
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.lockstep import Floor, Steps, run_in_lockstep
from streamgate.selection.candidates import TEMPLATE_FACES, TrackSelector
from streamgate.selection.keeper import SPARE
from streamgate.tracks import Candidate
from support.known_quality import FACE, PICTURE, KnownQuality

EVERY_FRAME = ["advanced.prescore_interval_s=0", "advanced.prescore_share=0"]


def drive(
    config: Config,
    scorer: KnownQuality,
    seconds: float,
    *,
    fps: float = 25,
    stride: int = 5,
    torn: Callable[[float], bool] = lambda pts: False,
) -> TrackSelector:
    """A track of `seconds`, detected every `stride` frames; `torn` are frames that are damaged."""
    selector = TrackSelector(1, config, scorer)

    def evaluator(*, final: bool = False) -> None:
        run_in_lockstep([selector.score_window(final=final)], lambda asks: [ask.role for ask in asks])

    for index in range(round(seconds * fps)):
        frame = Frame(PICTURE, index / fps, frame_index=index, corrupt=torn(index / fps))
        if index % stride:
            selector.observed.between(frame)
            continue
        selector.detected(frame, FACE)
        if selector.ready():
            evaluator()
    evaluator(final=True)
    return selector


def best(selector: TrackSelector) -> Candidate:
    (ranked,) = selector.keeper.finish()
    return ranked.candidate


def test_what_is_kept_had_its_neighbours_scored() -> None:
    scorer = KnownQuality(lambda pts: 50 + 5 * np.sin(3 * pts))
    kept = best(drive(load_config(), scorer, 8.0))
    for beside in (-1, 1):
        assert any(abs(kept.pts_seconds + beside / 25 - pts) < 1e-6 for pts in scorer.scored)


def test_a_lucky_frame_between_bad_ones_is_not_kept() -> None:
    def quality(pts: float) -> float:
        return 99.0 if abs(pts - 2.2) < 1e-6 else 60.0 if 4 < pts < 6 else 30.0

    scorer = KnownQuality(quality, potential=lambda pts: quality(pts) + 0.5)
    kept = best(drive(load_config("studio", EVERY_FRAME), scorer, 8.0))
    assert 2.2 in [pytest.approx(pts) for pts in scorer.scored]
    assert 4 < kept.pts_seconds < 6


def test_of_a_rising_track_only_a_best_face_that_stands_has_its_neighbours_scored() -> None:
    def rising(pts: float) -> float:
        return 30 + 8 * pts

    counts = {}
    for settle_s in (0.0, 0.5):
        scorer = KnownQuality(rising, potential=lambda pts: rising(pts) + 0.1)
        settings = [*EVERY_FRAME, f"advanced.confirm_delay_s={settle_s}", "advanced.cooldown_ratio=0"]
        kept = best(drive(load_config("studio", settings), scorer, 6.0))
        assert kept.pts_seconds > 5.7
        counts[settle_s] = len(scorer.scored)
    assert counts[0.5] < 0.8 * counts[0.0]


def test_faces_skipped_for_the_sake_of_a_lucky_one_get_their_chance() -> None:
    def quality(pts: float) -> float:
        return 99.0 if abs(pts - 0.2) < 1e-6 else 60.0 if pts > 0.3 else 30.0

    # The track is over before another window could make up for it.
    scorer = KnownQuality(quality, potential=lambda pts: quality(pts) + 0.5)
    kept = best(drive(load_config("studio", EVERY_FRAME), scorer, 0.64, stride=1))
    assert kept.quality == 60.0


def test_where_something_is_kept_and_window_after_window_fails_each_gets_one_look() -> None:
    def looks(passing: Callable[[float], bool]) -> tuple[int, Candidate]:
        scorer = KnownQuality(lambda pts: 50.0 if pts < 1 else 60.0)
        scorer.failing = lambda pts: not passing(pts)
        selector = drive(load_config("studio", [*EVERY_FRAME, "advanced.cooldown_ratio=0"]), scorer, 40.0)
        return len([pts for pts in scorer.recognised if 1 <= pts < 20]), best(selector)

    # Eighty windows of a quarter second: what comes later is still found.
    few, kept = looks(lambda pts: pts < 0.5 or 30 <= pts < 30.6)
    assert few < 100 and 30 <= kept.pts_seconds < 30.6
    # While nothing is kept every window gets several.
    many, kept = looks(lambda pts: 30 <= pts < 30.1)
    assert many > 200 and 30 <= kept.pts_seconds < 30.1


def test_the_search_climbs_to_a_better_neighbour() -> None:
    # Promise is blind inside a window; quality peaks two frames after each window's first detection.
    scorer = KnownQuality(lambda pts: 80 - 200 * abs(pts - 4.08), potential=lambda pts: 100.0)
    kept = best(drive(load_config("studio", ["advanced.cooldown_ratio=0"]), scorer, 8.0))
    assert abs(kept.pts_seconds - 4.08) < 0.05


def test_cost_follows_useful_candidates_not_frames() -> None:
    steady = KnownQuality(lambda pts: 80.0, potential=lambda pts: 80.2)
    drive(load_config(), steady, 60.0)
    assert len(steady.scored) <= 5
    hopeless = KnownQuality(lambda pts: 80.0, potential=lambda pts: 0.0)
    drive(load_config(), hopeless, 60.0)
    assert hopeless.scored == []


def test_the_recognizer_sees_enough_faces_of_a_kept_track_to_tell_who_it_is() -> None:
    kept = KnownQuality(lambda pts: 80.0, potential=lambda pts: 80.2)
    selector = drive(load_config("studio", EVERY_FRAME), kept, 1.2)
    assert len(kept.scored) < TEMPLATE_FACES <= len(kept.recognised)
    assert selector.template is not None and selector.template.faces == TEMPLATE_FACES
    shy = KnownQuality(lambda pts: 80.0, potential=lambda pts: 80.2)
    drive(load_config("studio", [*EVERY_FRAME, "identity.store=none"]), shy, 1.2)
    assert len(shy.recognised) == len(shy.scored)
    nothing = KnownQuality(lambda pts: 5.0, potential=lambda pts: 80.2)
    drive(load_config("studio", EVERY_FRAME), nothing, 1.2)
    assert len(nothing.recognised) == len(nothing.scored)


def test_exhaustive_scores_every_frame_once_and_finds_the_best() -> None:
    scorer = KnownQuality(lambda pts: 40 + 10 * np.sin(pts) + (25 if abs(pts - 5.0) < 0.13 else 0))
    selector = drive(load_config("studio", ["exhaustive=true"]), scorer, 8.0, stride=1)
    assert sorted(scorer.scored) == [pytest.approx(index / 25) for index in range(200)]
    assert best(selector).pts_seconds == pytest.approx(5.0, abs=0.13)
    assert selector.frames_scored == selector.observed.frames_seen == 200


def test_every_face_is_handed_out_once_in_order_and_memory_stays_small() -> None:
    scorer = KnownQuality(lambda pts: 50.0)
    selector = drive(load_config("studio", EVERY_FRAME), scorer, 30.0)
    times = [candidate.pts_seconds for candidate in selector.drain()]
    assert sorted(times) == sorted(set(times)) and len(times) == selector.observed.frames_seen == 746
    # Those that may be kept are judged again at the end.
    late = sum(later < before for before, later in pairwise(times))
    assert late <= SPARE + 1
    assert selector.drain() == []
    assert len(selector.observed) == 0


def test_faces_between_two_detections_are_interpolated_and_a_gap_is_not() -> None:
    selector = TrackSelector(1, load_config(), KnownQuality(lambda pts: 50.0))
    selector.detected(Frame(PICTURE, 0.0), FACE)
    selector.observed.between(Frame(PICTURE, 0.1))
    moved = Face(FACE.box + 20, FACE.landmarks + 20, 0.8)
    between, here = selector.detected(Frame(PICTURE, 0.2), moved)
    assert between.interpolated and not here.interpolated
    assert between.face.box == pytest.approx(FACE.box + 10) and between.face.score == 0.8
    selector.observed.between(Frame(PICTURE, 0.3))
    selector.observed.unseen()
    selector.observed.between(Frame(PICTURE, 0.5))
    assert [one.pts_seconds for one in selector.detected(Frame(PICTURE, 0.6), FACE)] == [0.6]


def test_fallback_scores_the_most_promising_face_when_none_passes() -> None:
    config = load_config("studio", ["keep.fallback=best"])
    scorer = KnownQuality(lambda pts: 10.0, potential=lambda pts: 0.0 if pts < 3 else 0.5)
    (ranked,) = drive(config, scorer, 5.0).keeper.finish()
    assert not ranked.candidate.gate.passed and ranked.candidate.image is not None


def test_very_large_regions_are_judged_early_with_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    def most_held(limit: int) -> tuple[int, Candidate]:
        monkeypatch.setattr("streamgate.selection.candidates.REGION_BYTES", limit)
        held = 0

        class Watching(KnownQuality):
            def prescore(self, candidate: Candidate, picture: Picture) -> float:
                nonlocal held
                held = max(held, len(selectors[-1].observed))
                return super().prescore(candidate, picture)

        scorer = Watching(lambda pts: 50 + 5 * np.sin(3 * pts))
        selectors: list[TrackSelector] = []
        monkeypatch.setattr(TrackSelector, "ready", watched(TrackSelector.ready, selectors))
        kept = best(drive(load_config(), scorer, 8.0))
        for beside in (-1, 1):
            assert any(abs(kept.pts_seconds + beside / 25 - pts) < 1e-6 for pts in scorer.scored)
        monkeypatch.undo()
        return held, kept

    roomy, tight = most_held(1 << 40), most_held(1)
    assert tight[0] < roomy[0] * 0.7
    assert tight[1].quality == pytest.approx(roomy[1].quality, abs=0.5)


def watched(method: Callable[[TrackSelector], bool], seen: list[TrackSelector]) -> Callable[[TrackSelector], bool]:
    def ready(selector: TrackSelector) -> bool:
        seen.append(selector)
        return method(selector)

    return ready


def test_the_fallback_is_the_least_bad_face_and_not_the_first() -> None:
    config = load_config("studio", [*EVERY_FRAME, "keep.fallback=best"])

    class Dark(KnownQuality):
        """Every face is rejected when first looked at; the one at 3 s for the least."""

        def prescore(self, candidate: Candidate, picture: Picture) -> float:
            good = abs(candidate.pts_seconds - 3.0) < 1e-6
            candidate.gate = GateResult(False, ("dark",) if good else ("dark", "small"))
            candidate.bound = 50.0
            return 0.0

    selector = drive(config, Dark(lambda pts: 10.0), 6.0)
    (ranked,) = selector.keeper.finish()
    assert ranked.candidate.pts_seconds == pytest.approx(3.0)
    # Its line is written with what was found out in the end, and once.
    lines = [one for one in selector.drain() if abs(one.pts_seconds - 3.0) < 1e-6]
    assert len(lines) == 1 and lines[0].quality == 10.0


@pytest.mark.parametrize(("fps", "stride"), [(1.0, 1), (25.0, 50)])
def test_rare_detections_do_not_let_windows_fall_behind(fps: float, stride: int) -> None:
    scorer = KnownQuality(lambda pts: 50 + pts / 10, potential=lambda pts: 50.2 + pts / 10)
    selector = TrackSelector(1, load_config("studio", ["advanced.lookback_s=3"]), scorer)
    for index in range(round(120 * fps)):
        frame = Frame(PICTURE, index / fps)
        if index % stride:
            selector.observed.between(frame)
            continue
        selector.detected(frame, FACE)
        if selector.ready():
            run_in_lockstep([selector.score_window()], lambda asks: [ask.role for ask in asks])
        assert len(selector.observed) <= 2 + stride * 1.5


def test_patience_grows_with_the_track_and_a_record_is_scored_at_once() -> None:
    def potential(pts: float) -> float:
        return 95.0 if abs(pts - 47.6) < 1e-6 else 90.0

    patient = ["advanced.cooldown_ratio=0.2", "detection.interval_s=0.2", "advanced.prescore_interval_s=0.06"]
    scorer = KnownQuality(lambda pts: 40 + 0.5 * pts + (30 if abs(pts - 47.6) < 0.05 else 0), potential)
    kept = best(drive(load_config("studio", patient), scorer, 60.0))
    # Better by half a point every second: without patience each window of half a second has one scored.
    windows = {round(pts) for pts in scorer.scored}
    assert 12 <= len(windows) <= 30
    assert len([pts for pts in scorer.scored if pts < 10]) > len([pts for pts in scorer.scored if 30 <= pts < 40])
    assert kept.pts_seconds == pytest.approx(47.6, abs=0.05)


def test_while_all_faces_are_rejected_fewer_are_looked_at_until_one_is_not() -> None:
    looked: list[float] = []

    class Looking(KnownQuality):
        def prescore(self, candidate: Candidate, picture: Picture) -> float:
            looked.append(candidate.pts_seconds)
            return super().prescore(candidate, picture)

    kept = best(drive(load_config(), Looking(lambda pts: 50.0, lambda pts: 80.0 if 5 < pts < 5.6 else 0.0), 8.0))
    assert 5 < kept.pts_seconds < 5.6
    assert len([pts for pts in looked if 3 < pts < 5]) <= 9
    assert [pts for pts in looked if pts < 0.5] == pytest.approx([0.0, 0.12, 0.24, 0.36, 0.48])


def test_prescored_faces_can_be_spaced_and_neighbours_are_still_scored() -> None:
    scorer = KnownQuality(lambda pts: 50 + 5 * np.sin(3 * pts))
    config = load_config("studio", ["advanced.prescore_interval_s=0.08", "advanced.prescore_share=0"])
    selector = drive(config, scorer, 8.0)
    handed_out = [candidate.pts_seconds for candidate in selector.drain()]
    assert 0.5 * selector.observed.frames_seen < len(handed_out) < 0.75 * selector.observed.frames_seen
    kept = best(selector)
    for beside in (-1, 1):
        assert any(abs(kept.pts_seconds + beside / 25 - pts) < 1e-6 for pts in scorer.scored)


def test_prescored_faces_come_apart_as_a_track_grows_older() -> None:
    scorer = KnownQuality(lambda pts: 50 + 5 * np.sin(3 * pts))
    settings = ["advanced.prescore_interval_s=0.06", "advanced.prescore_share=0.01"]
    looked_at = np.array([one.pts_seconds for one in drive(load_config("studio", settings), scorer, 60.0).drain()])
    for age, apart in ((3.0, 0.08), (15.0, 0.16), (50.0, 0.28)):
        nearby = looked_at[abs(looked_at - age) < 2.0]
        # Neighbours of a face that may be kept are looked at as well.
        assert float(np.median(np.diff(nearby))) == pytest.approx(apart)


class Expressions(KnownQuality):
    """With expressions. Where landmarks are `off`, potentials are 5 points too low until the network's second run."""

    sees_expressions = True
    context = SimpleNamespace(evaluator=SimpleNamespace(follows_reference=lambda candidate: True))

    def __init__(self, quality: Callable[[float], float], off: Callable[[float], bool] = lambda pts: False) -> None:
        super().__init__(quality)
        self._off = off

    def run_expression(self, candidate: Candidate, picture: Picture, *, real: bool = True) -> Steps:
        yield [InferenceRequest("expression", np.zeros((1, 1, 3), np.uint8))]
        candidate.unsettled = float(self._off(candidate.pts_seconds) and not candidate.refined)
        candidate.refined = True

    def potential(self, candidate: Candidate, picture: Picture) -> float:
        candidate.bound = self._quality(candidate.pts_seconds) - 5 * candidate.unsettled
        return candidate.bound


def test_a_good_moment_beside_a_face_that_nearly_leads_is_found() -> None:
    levels = {0.4: 70.0, 2.0: 66.0, 2.2: 80.0}
    scorer = Expressions(lambda pts: next((q for t, q in levels.items() if abs(pts - t) < 0.09), 50.0))
    config = load_config("studio", ["advanced.prescore_interval_s=0.4", "advanced.prescore_share=0"])
    assert best(drive(config, scorer, 4.0)).pts_seconds == pytest.approx(2.2, abs=0.09)
    assert len(scorer.scored) < 20


def test_between_due_faces_the_expression_network_runs_only_on_faces_that_may_win() -> None:
    looked: list[float] = []

    class Looking(Expressions):
        def prescore(self, candidate: Candidate, picture: Picture) -> float:
            return self.potential(candidate, picture)

        def run_expression(self, candidate: Candidate, picture: Picture, *, real: bool = True) -> Steps:
            looked.append(candidate.pts_seconds)
            yield from super().run_expression(candidate, picture)
            candidate.evidence.values["real"] = 0.9

    scorer = Looking(lambda pts: 80.0 if pts < 0.5 else 90.0 if 6.05 < pts < 6.3 else 60.0)
    assert 6.05 < best(drive(load_config(), scorer, 8.0)).pts_seconds < 6.3
    later = sorted(pts for pts in looked if 2 < pts < 6)
    assert len(later) <= 16 and max(np.diff(later)) < 0.4
    assert len([pts for pts in looked if pts < 0.5]) >= 5


def test_a_short_track_has_reference_values_although_its_later_faces_cannot_win() -> None:
    class Drawn(Expressions):
        def run_expression(self, candidate: Candidate, picture: Picture, *, real: bool = True) -> Steps:
            yield from super().run_expression(candidate, picture)
            candidate.evidence.values["real"] = 0.9 if candidate.pts_seconds < 0.2 else 0.1

    selector = drive(load_config(), Drawn(lambda pts: 80.0 if pts < 0.2 else 30.0), 0.6, stride=1)
    assert selector.reference.usual["real"] == 0.1


@pytest.mark.parametrize("usual, most", [(0.9, 8), (0.3, 100)])
def test_rejected_faces_show_whether_the_face_is_drawn(usual: float, most: int) -> None:
    class Rejected(Expressions):
        """Drawn or not, most faces are rejected for other reasons."""

        def run_expression(self, candidate: Candidate, picture: Picture, *, real: bool = True) -> Steps:
            yield from super().run_expression(candidate, picture)
            if real:
                candidate.evidence.values["real"] = usual
                told.append(candidate.pts_seconds)

        def prescore(self, candidate: Candidate, picture: Picture) -> float:
            return 80.0

    told: list[float] = []
    selector = drive(load_config(), Rejected(lambda pts: 0.0 if pts < 7 else 80.0), 6.0, stride=1)
    assert selector.reference.usual == {"real": usual}
    assert 5 <= len(told) <= most and (usual >= 0.5 or len(told) > 20)


@pytest.mark.parametrize("settings", [(), ("keep.top_k=3",), ("keep.fallback=best",), ("advanced.confirm_delay_s=0",)])
def test_no_face_is_kept_with_the_value_of_real_of_another_face(settings: tuple[str, ...]) -> None:
    class Assuming(KnownQuality):
        """Faces look drawn when their own value is computed, except in the first tenth of each second."""

        def score(
            self,
            candidate: Candidate,
            picture: Picture,
            floor: Floor,
            *,
            full: bool,
            real_from: Candidate | None = None,
        ) -> Steps:
            yield from super().score(candidate, picture, floor, full=full)
            candidate.assumes_real = real_from is not None
            if candidate.assumes_real:
                assumed.append(candidate)
            else:
                self._judge(candidate)

        def replace_assumed_real(self, candidate: Candidate, picture: Picture) -> Steps:
            if candidate.assumes_real:
                candidate.assumes_real = False
                yield [InferenceRequest("expression", np.zeros((1, 1, 3), np.uint8))]
                self._judge(candidate)

        def _judge(self, candidate: Candidate) -> None:
            if candidate.pts_seconds % 1 > 0.1:
                candidate.gate = GateResult(False, ("unreal",))

    assumed: list[Candidate] = []
    # The faces beside a real one are better, but drawn.
    scorer = Assuming(lambda pts: 60 + pts + 20 * (0.1 < pts % 1 < 0.3))
    kept = [one.candidate for one in drive(load_config("studio", list(settings)), scorer, 6.0).keeper.finish()]
    assert kept and assumed
    assert all(one.gate.passed and not one.assumes_real and one.pts_seconds % 1 <= 0.1 for one in kept)


def test_where_real_is_not_in_use_it_is_never_computed() -> None:
    class Unasked(Expressions):
        sees_drawings = False

        def run_expression(self, candidate: Candidate, picture: Picture, *, real: bool = True) -> Steps:
            told.add(real)
            yield from super().run_expression(candidate, picture)

    told: set[bool] = set()
    drive(load_config(), Unasked(lambda pts: 50 + pts), 2.0)
    assert told == {False}


@pytest.mark.parametrize("usual, most", [(0.9, 14), (0.3, 100)])
def test_real_is_computed_once_a_second_unless_the_face_may_be_drawn(usual: float, most: int) -> None:
    looked: list[tuple[float, bool]] = []

    class Telling(Expressions):
        def run_expression(self, candidate: Candidate, picture: Picture, *, real: bool = True) -> Steps:
            looked.append((candidate.pts_seconds, real))
            yield from super().run_expression(candidate, picture)
            if real:
                candidate.evidence.values["real"] = usual

    drive(load_config("studio", EVERY_FRAME), Telling(lambda pts: 50 + pts), 8.0)
    told = [pts for pts, real in looked if real]
    assert 12 <= len(told) <= min(most, len(looked)) and max(np.diff(sorted(told))) < 1.3
    if usual < 0.5:
        assert len(told) > 30


def test_searches_beside_failed_faces_stop_after_they_have_found_nothing() -> None:
    looked: set[float] = set()

    class Failing(Expressions):
        def run_expression(self, candidate: Candidate, picture: Picture, *, real: bool = True) -> Steps:
            looked.add(candidate.pts_seconds)
            yield from super().run_expression(candidate, picture)

        def potential(self, candidate: Candidate, picture: Picture) -> float:
            fails = not 4 < candidate.pts_seconds < 4.5
            candidate.gate = GateResult(False, ("gaze_away",) if fails else (), 0.05)
            return 50.0 if candidate.unsettled or not fails else 0.0

    kept = best(drive(load_config(), Failing(lambda pts: 50.0, off=lambda pts: True), 8.0))
    assert 4 < kept.pts_seconds < 4.5
    assert min(np.diff(sorted(pts for pts in looked if 2 < pts < 4))) > 0.11


def test_what_leads_by_a_first_look_is_looked_at_again() -> None:
    scorer = Expressions(lambda pts: 60 + pts / 2 + 3 * (abs(pts - 1.6) < 0.09), off=lambda pts: 1.5 < pts < 1.7)
    config = load_config("studio", ["advanced.prescore_interval_s=0.4", "advanced.prescore_share=0"])
    found = best(drive(config, scorer, 2.4))
    assert found.pts_seconds == pytest.approx(1.6, abs=0.09) and not found.unsettled


@pytest.mark.parametrize("shift, runs", [(0.04, 1), (0.1, 2)])
def test_a_face_is_looked_at_again_only_if_its_eyes_moved_enough_for_what_it_lacks(shift: float, runs: int) -> None:
    seen: list[float] = []

    class Shifting(Expressions):
        def run_expression(self, candidate: Candidate, picture: Picture, *, real: bool = True) -> Steps:
            seen.append(candidate.pts_seconds)
            again = candidate.refined
            yield from super().run_expression(candidate, picture)
            candidate.unsettled = 0.0 if again else shift

    levels = {0.4: 70.0, 2.0: 67.5}
    scorer = Shifting(lambda pts: next((q for t, q in levels.items() if abs(pts - t) < 0.09), 50.0))
    drive(load_config("studio", ["advanced.prescore_share=0"]), scorer, 4.0)
    assert max(seen.count(pts) for pts in seen if 1.9 < pts < 2.1) == runs


@pytest.mark.parametrize("preset", ["studio", "live"])
def test_a_face_of_a_torn_picture_is_never_kept(preset: str) -> None:
    """Not even where any face is better than none: what is kept there is the best of the others."""

    class Torn(KnownQuality):
        def prescore(self, candidate: Candidate, picture: Picture) -> float:
            if candidate.spoiled:
                candidate.gate = GateResult(False, ("corrupt",), 1.0)
                return 0.0
            return super().prescore(candidate, picture)

        def score(self, candidate: Candidate, picture: Picture, floor: Floor, **options: Any) -> Steps:
            if not candidate.spoiled:
                yield from super().score(candidate, picture, floor, **options)

    scorer = Torn(lambda pts: 90.0 if pts > 1.0 else 10.0)
    selector = drive(load_config(preset), scorer, 4.0, torn=lambda pts: pts > 1.0)
    kept = selector.keeper.finish()
    assert all(one.candidate.pts_seconds <= 1.0 for one in kept) and len(kept) == (preset == "live")
    assert {one.gate.reasons for one in selector.drain() if one.pts_seconds > 1.0} == {("corrupt",)}
