"""Chooses which faces of a track are scored: the cascade (docs/design.md 3).

The cost depends on the number of useful candidates, not on the number of frames. The frames of a track are collected as
small copied regions. Once a stretch of time (a window) is full, its faces are ordered by cheap evidence, and only the
most promising face that could still beat the kept faces is scored by the networks. When a face has been the best for a
while, its neighbours in time are scored too, because a face whose neighbours are worse may owe its quality to chance
(docs/design.md 4.5). If a neighbour is better, the search continues from that neighbour.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from streamgate.config import Config
from streamgate.faces import Face
from streamgate.frames import Frame
from streamgate.measures.yaw import yaw_proxy
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.faces import MOVED, NARROWLY, FaceScorer
from streamgate.scoring.lockstep import Floor, Steps, no_floor
from streamgate.selection.continuity import Continuity
from streamgate.selection.observations import Observation
from streamgate.selection.poses import yaw_bin
from streamgate.selection.prescoring import MAX_SHIFT_GAIN, Prescorer
from streamgate.selection.scored_track import ScoredTrack
from streamgate.tracks import Candidate

RETRIES = 3
"""Number of further faces of a window that are tried if a face fails before all networks have run (because of its pose,
for example). No further faces are tried if several windows in a row have failed and a face is already kept."""
MAX_FRUITLESS = 2
"""After this many searches in a row beside narrowly failed faces, no more are made until a face may pass again."""
MAX_NEIGHBOUR_STEPS = 3
"""Maximum number of times that the search for the best face moves on to a better neighbour."""
TEMPLATE_FACES = 8
"""Minimum number of faces in a kept track's template, if enough faces are held at the end of the track."""
LUCKY_MARGIN = 5.0
"""If neighbours reduce the best face's quality by more than this number of points, that face owed its quality to
chance, and faces that were skipped because of it are reconsidered."""
SHIFT_GAIN = 40.0
"""A second run of the expression network may raise the potential by `SHIFT_GAIN` points per eye distance by which the
first run moved the eyes, but by at most `MAX_SHIFT_GAIN` points. (On 29 clips, 1 of 10 potentials rose by more.)"""
NEIGHBOUR_GAIN = 25.0
"""A face adjacent to a scored face may be better than the scored face by this many points per second between the two.
(On 29 clips, 1 of 20 adjacent faces was better by more.)"""
REGION_BYTES = 48 << 20
"""Memory limit for the regions of one track that are held until their window is full; when it is exceeded, the window
is scored early. Only a face that fills much of a 2160p picture reaches this limit."""


class TrackSelector(ScoredTrack):
    """Chooses which faces of one track are scored."""

    def __init__(self, track_id: int, config: Config, scorer: FaceScorer, *, near_misses: int = 0) -> None:
        """`near_misses` is the maximum number of near misses that are remembered, each with a small picture."""
        super().__init__(track_id, config, scorer, near_misses=near_misses)
        self.strangers: list[Observation] = []
        """Faces that turned out to show another person: they belong to a new track, and this track has ended."""
        # If the least bad face may be kept, rejected faces are prescored as often as others.
        self._prescorer = Prescorer(
            self.observed, self.reference, scorer, config.advanced, thins=config.keep.fallback != "best"
        )
        # A second look at neighbouring frames is worthwhile only if a neutral expression is wanted.
        self._scores_twice = scorer.sees_expressions and config.keep.expression == "neutral"
        threshold = scorer.identity_threshold
        self._continuity = Continuity(scorer, threshold) if threshold is not None else None
        self._window_start: float | None = None
        self._scored_pts = -np.inf
        self._failures = self._fruitless = 0
        self._leader: Observation | None = None
        self._frame_size = (0, 0)
        self._confirms_late = not self._binned and config.keep.top_k == 1

    def detected(self, frame: Frame, face: Face) -> list[Candidate]:
        """Add a detection of this track and return the new candidates; see `ObservationBuffer.detected`."""
        made = self.observed.detected(frame, face)
        self._frame_size = frame.width, frame.height
        if self._window_start is None:
            self._window_start = made[0].pts_seconds
        return made

    def adopt(self, strangers: Sequence[Observation]) -> None:
        """Start with faces that were removed from another track, as if they had just been detected."""
        for observation in strangers:
            observation.potential = 0.0
            observation.prescored = observation.scored = observation.offered = observation.recognised = False
            if observation.candidate is not None:
                observation.candidate = self._candidate(
                    observation.frame, observation.candidate.face, like=observation.candidate
                )
        self.observed.adopt(strangers)
        self._window_start = strangers[0].pts_seconds

    def ready(self) -> bool:
        """Whether a window is full."""
        if self._window_start is None or not self.observed:
            return False
        if self._config.exhaustive:
            return len(self.observed) > 1
        # A face after the window's end must be known, so that the window's last face has a neighbour.
        full = self.observed.newest.pts_seconds - self._window_start > self._config.advanced.window_s
        return full or self._too_large()

    def _too_large(self) -> bool:
        seen = self.observed
        return seen.nbytes > REGION_BYTES and seen.oldest.pts_seconds < seen.newest.pts_seconds

    def score_window(self, *, final: bool = False) -> Steps:
        """Score the best faces of the full window; with `final`, score the best of all remaining faces."""
        if self._window_start is None or not self.observed:
            return
        newest = self.observed.newest.pts_seconds
        if self._config.exhaustive:
            yield from self._score_all(final)
            judged = newest - self._config.smoothing.short_s
        else:
            if self._too_large():
                # Regions that are held only for the best face are released first.
                yield from self._confirm_leader(newest, final)
                self._let_go(self._settled_until() - self._config.smoothing.short_s)
            yield from self._score_windows(newest, final)
            yield from self._confirm_leader(newest, final)
            judged = self._settled_until()
        self.keeper.prune(judged)
        if final:
            self._ended = True
            self.settle()
            self.keeper.close()
        if final and self._fallback is not None and not self.keeper.finish():
            yield from self._score(self._fallback, no_floor, full=True)
            self._offer(self._fallback)
        if final:
            yield from self._complete_template()
        self._let_go(np.inf if final else judged - self._config.smoothing.short_s)

    def settle(self) -> None:
        """Evaluate the finalists again with the current reference values of the person, and rank them again."""
        if not self._scorer.sees_expressions:
            return
        self.keeper.settle(self._reevaluate)
        leader = self._leader
        if leader is not None and leader.candidate is not None:
            self._reevaluate(leader.candidate)
            self.keeper.note(leader.candidate)
            if not leader.passed:
                self._leader = None

    def _reevaluate(self, candidate: Candidate) -> None:
        evaluator = self._scorer.context.evaluator
        if not evaluator.follows_reference(candidate):
            evaluator.evaluate(candidate, *self._frame_size)

    def _settled_until(self) -> float:
        """The time before which faces are settled: no later step needs them."""
        assert self._window_start is not None
        leader = np.inf if self._leader is None else self._leader.pts_seconds
        return min(self._window_start, leader)

    def _score_windows(self, newest: float, final: bool) -> Steps:
        """Score every full window in turn; with a low frame rate, one frame may fill several windows."""
        assert self._window_start is not None
        while True:
            start, end = self._window_start, self._window_start + self._config.advanced.window_s
            if final:
                end = min(end, newest)
            elif newest <= end:
                if not self._too_large():
                    return
                end = float(np.nextafter(newest, -np.inf))
            window = [one for one in self.observed if start <= one.pts_seconds <= end]
            if window and not (yield from self._prescore_window(window, final)):
                return
            if self.strangers:
                if not final:
                    return
                newest = self.observed.newest.pts_seconds
                end = min(end, newest)
                window = [one for one in window if one.pts_seconds <= end]
            if window:
                yield from self._score_best(window, final and end == newest)
            later = [one.pts_seconds for one in self.observed if one.pts_seconds > end]
            # The next window starts with the next face; the last few faces of this window stay as neighbours.
            self._window_start = later[0] if later else float(np.nextafter(end, np.inf))
            if not later or not window:
                return

    def _score_all(self, final: bool) -> Steps:
        """Score every face fully (exhaustive mode); a face is offered to the keeper once the faces that
        follow it closely have been scored."""
        if not (yield from self._prescore_window(list(self.observed), final)) or (self.strangers and not final):
            return
        observations = list(self.observed)
        yield from self._score_fully(observations)
        half = self._config.smoothing.short_s / 2
        newest = observations[-1].pts_seconds
        for observation in observations:
            if final or newest - observation.pts_seconds > half:
                self._offer(observation)

    def _prescore_window(
        self, window: list[Observation], final: bool
    ) -> Generator[list[InferenceRequest], list[Any], bool]:
        """Prescore some of the window's faces; returns False if only later faces can reveal whether all of them belong
        to the same person."""
        chosen = yield from self._prescorer.spread(window, self._floor())
        self.settle()
        if self._continuity is None or self.strangers:
            return True
        last = yield from self._continuity.follow(chosen, self.observed)
        while last is None and self._continuity.in_doubt:
            chosen = yield from self._prescorer.spread(list(self.observed), self._floor())
            self.settle()
            if not chosen:
                return final
            last = yield from self._continuity.follow(chosen, self.observed)
        if last is not None:
            self._split_track(last)
        return True

    def _split_track(self, last: float) -> None:
        """Remove faces later than `last` from this track, because they show another person."""
        self.strangers = self.observed.split(last)
        self.keeper.drop_after(last)
        if self._leader is not None and self._leader.pts_seconds > last:
            self._leader = None
        if self._fallback is not None and self._fallback.pts_seconds > last:
            self._fallback = None

    def _score_best(self, window: list[Observation], final: bool) -> Steps:
        finished = 0
        for alike in self._by_guessed_pose(window):
            finished += yield from self._score_group(alike, final)
        whole = [one for one in window if one.prescored and one.candidate is not None and not one.candidate.spoiled]
        if self._config.keep.fallback == "best" and finished == 0 and whole:
            self._remember_fallback(whole)

    def _by_guessed_pose(self, window: list[Observation]) -> list[list[Observation]]:
        """The window's faces grouped by their estimated yaw bin; a single group if poses are not binned."""
        if not self._binned:
            return [window]
        groups: dict[int, list[Observation]] = {}
        for observation in window:
            if observation.candidate is not None:
                index = yaw_bin(yaw_proxy(observation.candidate.face), self._config.keep)
                groups.setdefault(index, []).append(observation)
        return [groups[index] for index in sorted(groups)]

    def _score_group(self, window: list[Observation], final: bool) -> Generator[list[InferenceRequest], list[Any], int]:
        """Score the most promising of several faces that compete with each other; returns how many were scored."""
        finished = tries = 0
        wanted = self._config.advanced.per_window
        # Faces next to a failed face usually fail too, and after several failures the faces of the next window usually
        # fail as well. But as long as nothing is kept, it is worth searching for a single face that passes.
        retries = RETRIES if self._failures <= RETRIES or not self.keeper.threshold() else 0
        # There is no cooldown while a rank is free. With pose bins there is none either, because the next face may be
        # the first of its bin.
        settled = not self._binned and (self._config.keep.top_k == 1 or self.keeper.threshold() > 0.0)
        cooling = settled and window[-1].pts_seconds < self._scored_pts + self._cooldown_s()
        left, closer, beside, lead = list(window), list[Observation](), list[Observation](), 0.0

        def expected(one: Observation) -> float:
            if not one.potential or one.candidate is None or not may_score_twice(one):
                return one.potential
            gain = min(MAX_SHIFT_GAIN, SHIFT_GAIN * one.candidate.unsettled)
            return one.potential + max(gain, NEIGHBOUR_GAIN * self._prescorer.reach(one))

        def may_score_twice(one: Observation) -> bool:
            return self._scores_twice and not one.scored and one not in closer

        while left:
            observation = min(left, key=lambda one: (-expected(one), one.pts_seconds))
            left.remove(observation)
            assert observation.candidate is not None
            floor = self._floor()
            if finished == wanted or tries >= wanted + retries or expected(observation) <= floor(observation.candidate):
                break
            if observation.offered:
                continue
            if cooling and not self._is_record(observation):
                continue
            if may_score_twice(observation):
                closer.append(observation)
                if observation.candidate.unsettled > MOVED:
                    yield from self._prescorer.run_expression([observation])
                # Neighbours of failed neighbours are not searched: if a face stays near a limit, the search would reach
                # all faces.
                fails = observation.candidate.gate.failed_within(NARROWLY) and observation not in beside
                fails = fails and self._fruitless < MAX_FRUITLESS
                gain = NEIGHBOUR_GAIN * self._prescorer.reach(observation)
                promising = observation.potential + gain > floor(observation.candidate)
                if promising and (observation.potential > lead or fails):
                    lead = max(lead, observation.potential)
                    self._fruitless += fails
                    near = yield from self._prescorer.beside(observation)
                    left += [one for one in near if one not in left]
                    beside += near
                left.append(observation)
                continue
            if observation.potential > 0:
                self._fruitless = 0
            if not observation.scored:
                tries += 1
                self._scored_pts = observation.pts_seconds
                yield from self._score(observation, floor, full=False)
            if observation.quality < 0:
                self._failures += 1
                continue
            self._failures = 0
            finished += 1
            if not observation.passed:
                self._offer(observation)
            elif observation.quality > floor(observation.candidate):
                if self._confirms_late:
                    self._leader = observation
                else:
                    yield from self._confirm(observation, final)
        return finished

    def _confirm_leader(self, newest: float, final: bool) -> Steps:
        """Confirm the best face once it has been the best for a while; until then, a better face often follows soon."""
        tried: list[Observation] = []
        while self._leader is not None:
            leader = self._leader
            stood = newest - leader.pts_seconds > self._config.advanced.confirm_delay_s
            if not (final or stood or self._too_large()) or (leader is self.observed.newest and not final):
                return
            self._leader = None
            yield from self._confirm(leader, final)
            tried.append(leader)
            if leader.quality - self.keeper.threshold() > LUCKY_MARGIN:
                new = (one for one in self.observed if one.prescored and not one.scored)
                since = [one for one in new if one.pts_seconds > leader.pts_seconds]
                if since:
                    yield from self._score_group(since, final)
            floor = self._floor()
            better = [
                one
                for one in self.observed
                if one.candidate is not None
                and one.passed
                and not one.offered
                and one not in tried
                and one.quality > floor(one.candidate)
            ]
            self._leader = max(better, key=_by_quality, default=self._leader)

    def _floor(self) -> Floor:
        """The potential that makes a face worth scoring: somewhat more than the quality that it has to beat."""

        def raised(threshold: float) -> float:
            return threshold + self._config.advanced.min_gain if threshold else 0.0

        if self._binned:
            # The candidate's bin becomes known only while the candidate is scored.
            return lambda candidate: raised(self.keeper.threshold(candidate))
        leader = 0.0 if self._leader is None else self._leader.quality
        value = raised(max(self.keeper.threshold(), leader))
        return lambda candidate: value

    def _complete_template(self) -> Steps:
        """Run the recognizer on more faces of a kept track that has few embeddings, because one or two
        embeddings are not reliable."""
        if self.template is None or self.template.faces >= TEMPLATE_FACES or not self.keeper.finish():
            return
        new = (one for one in self.observed if one.prescored and not one.scored and not one.recognised)
        fit = [one for one in new if one.candidate is not None and not one.candidate.gate.reasons]
        for observation in _spread(fit, TEMPLATE_FACES - self.template.faces):
            yield from self._score(observation, _until_recognised, full=False)

    def _confirm(self, observation: Observation, final: bool) -> Steps:
        """Score the neighbours of a face that would be kept; if a neighbour is better, continue with that neighbour."""
        for _ in range(1 + MAX_NEIGHBOUR_STEPS):
            if observation is self.observed.newest and not final:
                # The next frame has not arrived yet; this face is considered again with the next window.
                return
            if self.observed.has_lost_neighbour(observation, self._reach()):
                # The previous frame has been dropped, so this face cannot be confirmed.
                return
            if self.observed.is_isolated(observation, self._reach()):
                # The neighbouring frames were not decoded, so this face cannot be confirmed.
                return
            assert observation.candidate is not None
            yield from self._scorer.replace_assumed_real(observation.candidate, observation.frame.picture)
            if not observation.passed:
                return
            near = self.observed.neighbours(observation, self._reach())
            for neighbour in near:
                self._prescorer.prescore(neighbour)
            yield from self._score_fully(near, observation.candidate)
            self._offer(observation)
            better = [one for one in near if one.quality > observation.quality and one.passed and not one.offered]
            if not better:
                return
            observation = max(better, key=_by_quality)

    def _reach(self) -> float:
        """Maximum time between a face and its neighbours, in seconds."""
        return self._config.smoothing.short_s / 2 + 1e-9

    def _cooldown_s(self) -> float:
        """Seconds after a scored face during which other faces are only prescored; grows with the track."""
        return self._config.advanced.cooldown_ratio * (self.observed.last_pts - self.observed.first_pts)


def _until_recognised(candidate: Candidate) -> float:
    """A floor that ends the scoring of a candidate after the recognizer."""
    return 0.0 if candidate.evidence.embedding is None else np.inf


def _spread(observations: Sequence[Observation], count: int) -> Sequence[Observation]:
    """At most `count` of the observations, evenly spaced."""
    if len(observations) <= count:
        return observations
    return [observations[int((index + 0.5) * len(observations) / count)] for index in range(count)]


def _by_quality(observation: Observation) -> float:
    return observation.quality
