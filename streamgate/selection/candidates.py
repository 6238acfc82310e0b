"""Which faces of a track are scored: the cascade (DESIGN 3).

Cost follows useful candidates, not frames. A track's frames are collected as small copied regions; once a
stretch of time (a bucket) is full, cheap evidence orders its faces, and only the most promising one that could
still beat what is kept goes to the networks. A face that would be kept has its neighbours in time scored too, once
it has stood for a while, since a lucky frame must survive its neighbours (DESIGN 4.5), and when a neighbour is better
the search moves there.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from streamgate.config import Config
from streamgate.frames import Candidate, Face, Frame, Picture
from streamgate.quality.proxy import yaw_proxy
from streamgate.selection.glimpses import Glimpse, Held
from streamgate.selection.keeper import Keeper
from streamgate.selection.nearmisses import NearMisses
from streamgate.selection.poses import PoseBins
from streamgate.selection.steps import Ask, CandidateScorer, Floor, Steps, no_floor, together
from streamgate.selection.template import TemplateSum

RETRIES = 3
"""Further faces of a bucket that are tried where one fails early (a bad pose, say); none while bucket after bucket
fails and something is kept already."""
CLIMB = 3
"""Neighbours the search moves on to at most."""
ENOUGH_FACES = 8
"""Faces that a kept track's template is made of at least, as far as its end shows so many."""
GLANCE_MOST_S = 0.25
"""Time between two glances at a long track: so often that a smile or a turn of the head is still seen."""
LUCK = 5.0
"""A best face whose neighbours take more points from it was luck: those passed over for its sake get their chance."""
REGION_BYTES = 48 << 20
"""Regions of one track that may wait for their bucket to fill; beyond it the bucket is judged early. Only a
face that fills much of a 2160p picture gets there."""


class TrackSelector:
    """Chooses and scores the faces of one track, and keeps its best."""

    def __init__(self, track_id: int, config: Config, scorer: CandidateScorer, *, near_misses: int = 0) -> None:
        """near_misses: how many faces that nearly passed are remembered with a small picture."""
        self.track_id = track_id
        self.keeper = Keeper(config.keep, config.smoothing, scorer.crop)
        self.near_misses = NearMisses(near_misses, lambda candidate, picture: scorer.thumbnail(candidate, picture))
        self.template = TemplateSum() if config.identity.store != "none" or config.identity.only else None
        self.frames_scored = 0
        self.held = Held(config.candidates.lookback_s, self._candidate)
        self._bins = PoseBins.of(config.keep)
        self._config = config
        self._scorer = scorer
        self._bucket_start: float | None = None
        self._fallback: Glimpse | None = None
        self._done: list[Candidate] = []
        self._ceilings: dict[str, float] = {}
        self._scored_pts = -np.inf
        self._glanced_pts = -np.inf
        self._record = 0.0
        self._failures = 0
        self._standing: Glimpse | None = None
        self._settles = self._bins is None and config.keep.top_k == 1

    def detected(self, frame: Frame, face: Face) -> list[Candidate]:
        """A detection of this track, see `Held.detected`; returns the candidates that came into being."""
        made = self.held.detected(frame, face)
        if self._bucket_start is None:
            self._bucket_start = made[0].pts_seconds
        return made

    def ready(self) -> bool:
        """Whether a bucket is full."""
        if self._bucket_start is None or not self.held:
            return False
        if self._config.exhaustive:
            return len(self.held) > 1
        # One face beyond the bucket's end must be known, so that its last face has a neighbour.
        full = self.held.newest.pts_seconds - self._bucket_start > self._config.candidates.bucket_s
        return full or self._too_large()

    def _too_large(self) -> bool:
        return self.held.nbytes > REGION_BYTES and self.held.oldest.pts_seconds < self.held.newest.pts_seconds

    def judge(self, *, final: bool = False) -> Steps:
        """Score what the filled bucket (with `final`: all that is left) has to offer."""
        if self._bucket_start is None or not self.held:
            return
        newest = self.held.newest.pts_seconds
        if self._config.exhaustive:
            yield from self._judge_all(final)
            judged = newest - self._config.smoothing.short_s
        else:
            if self._too_large():
                # What is held for the sake of the best face goes first.
                yield from self._settle(newest, final)
                self._let_go(self._judged() - self._config.smoothing.short_s)
            yield from self._judge_buckets(newest, final)
            yield from self._settle(newest, final)
            judged = self._judged()
        self.keeper.prune(judged)
        if final and self._fallback is not None and not self.keeper.finish():
            yield from self._score(self._fallback, no_floor, full=True)
            self._offer(self._fallback)
        if final:
            yield from self._introduce()
        self._let_go(np.inf if final else judged - self._config.smoothing.short_s)

    def _judged(self) -> float:
        """Faces before this time are settled: nothing that is still to come asks for them."""
        assert self._bucket_start is not None
        standing = np.inf if self._standing is None else self._standing.pts_seconds
        return min(self._bucket_start, standing)

    def _judge_buckets(self, newest: float, final: bool) -> Steps:
        """Every bucket that is full, one after the other: rare frames may have filled several at once."""
        assert self._bucket_start is not None
        while True:
            start, end = self._bucket_start, self._bucket_start + self._config.candidates.bucket_s
            if final:
                end = min(end, newest)
            elif newest <= end:
                if not self._too_large():
                    return
                end = float(np.nextafter(newest, -np.inf))
            bucket = [one for one in self.held if start <= one.pts_seconds <= end]
            if bucket:
                yield from self._judge_best(bucket, final and end == newest)
            later = [one.pts_seconds for one in self.held if one.pts_seconds > end]
            # The next bucket starts with the next face; a few of this one's last stay as neighbours.
            self._bucket_start = later[0] if later else float(np.nextafter(end, np.inf))
            if not later or not bucket:
                return

    def drain(self) -> list[Candidate]:
        """Evaluated faces that will not change any more, each handed out once.

        They come in order of time; only with a fallback may single ones come late.
        """
        done, self._done = self._done, []
        return done

    def _judge_all(self, final: bool) -> Steps:
        """Exhaustive: every face, fully; one is offered when its following neighbour has been scored."""
        glimpses = list(self.held)
        yield from self._score_fully(glimpses)
        half = self._config.smoothing.short_s / 2
        newest = glimpses[-1].pts_seconds
        for glimpse in glimpses:
            if final or newest - glimpse.pts_seconds > half:
                self._offer(glimpse)

    def _judge_best(self, bucket: list[Glimpse], final: bool) -> Steps:
        self._glance_through(bucket)
        finished = 0
        for alike in self._by_guessed_pose(bucket):
            finished += yield from self._judge_alike(alike, final)
        glanced = [one for one in bucket if one.glanced]
        if self._config.keep.fallback == "best" and finished == 0 and glanced:
            self._remember_fallback(glanced)

    def _by_guessed_pose(self, bucket: list[Glimpse]) -> list[list[Glimpse]]:
        """The bucket's faces by the bin of yaw that they seem to belong to; together where poses are not binned."""
        if self._bins is None:
            return [bucket]
        groups: dict[int, list[Glimpse]] = {}
        for glimpse in bucket:
            if glimpse.candidate is not None:
                groups.setdefault(self._bins.yaw_bin(yaw_proxy(glimpse.candidate.face)), []).append(glimpse)
        return [groups[place] for place in sorted(groups)]

    def _judge_alike(self, bucket: list[Glimpse], final: bool) -> Generator[list[Ask], list[Any], int]:
        """Score the most promising of a bucket's faces that compete with each other; returns how many were scored."""
        finished = tries = 0
        wanted = self._config.candidates.per_bucket
        # A face that failed is like those beside it, and after a whole bucket of them like those of the next; but while
        # nothing is kept, a single one that passes is worth the search.
        retries = RETRIES if self._failures <= RETRIES or not self.keeper.bar() else 0
        # Where a rank is free another look is wanted, and of a pose bin the next face may be the first.
        settled = self._bins is None and (self._config.keep.top_k == 1 or self.keeper.bar() > 0.0)
        patient = settled and bucket[-1].pts_seconds < self._scored_pts + self._patience_s()
        for glimpse in sorted(bucket, key=lambda one: (-one.promise, one.pts_seconds)):
            assert glimpse.candidate is not None
            floor = self._floor()
            if finished == wanted or tries >= wanted + retries or glimpse.promise <= floor(glimpse.candidate):
                break
            if glimpse.offered:
                continue
            if patient and not self._is_record(glimpse):
                continue
            if not glimpse.scored:
                tries += 1
                self._scored_pts = glimpse.pts_seconds
                yield from self._score(glimpse, floor, full=False)
            if glimpse.quality < 0:
                self._failures += 1
                continue
            self._failures = 0
            finished += 1
            if not glimpse.passed:
                self._offer(glimpse)
            elif glimpse.quality > floor(glimpse.candidate):
                if self._settles:
                    self._standing = glimpse
                else:
                    yield from self._confirm(glimpse, final)
        return finished

    def _settle(self, newest: float, final: bool) -> Steps:
        """Have the best face so far confirmed once it has stood for a while: a rising track beats most of them soon."""
        tried: list[Glimpse] = []
        while self._standing is not None:
            standing = self._standing
            stood = newest - standing.pts_seconds > self._config.candidates.settle_s
            if not (final or stood or self._too_large()) or (standing is self.held.newest and not final):
                return
            self._standing = None
            yield from self._confirm(standing, final)
            tried.append(standing)
            if standing.quality - self.keeper.bar() > LUCK:
                new = (one for one in self.held if one.glanced and not one.scored)
                since = [one for one in new if one.pts_seconds > standing.pts_seconds]
                if since:
                    yield from self._judge_alike(since, final)
            floor = self._floor()
            better = [
                one
                for one in self.held
                if one.candidate is not None
                and one.passed
                and not one.offered
                and one not in tried
                and one.quality > floor(one.candidate)
            ]
            self._standing = max(better, key=_by_quality, default=self._standing)

    def _floor(self) -> Floor:
        """What a face has to promise to be worth scoring now: somewhat more than what is kept where it would go."""

        def raised(bar: float) -> float:
            return bar + self._config.candidates.min_gain if bar else 0.0

        if self._bins is not None:
            # Which bin that is shows only while it is scored.
            return lambda candidate: raised(self.keeper.bar(candidate))
        standing = 0.0 if self._standing is None else self._standing.quality
        value = raised(max(self.keeper.bar(), standing))
        return lambda candidate: value

    def _introduce(self) -> Steps:
        """Have the recognizer see more faces of a kept track that showed it few: one or two do not tell who it is."""
        if self.template is None or self.template.faces >= ENOUGH_FACES or not self.keeper.finish():
            return
        new = (one for one in self.held if one.glanced and not one.scored and not one.recognised)
        fit = [one for one in new if one.candidate is not None and not one.candidate.gate.reasons]
        for glimpse in _spread(fit, ENOUGH_FACES - self.template.faces):
            yield from self._score(glimpse, _until_recognised, full=False)

    def _confirm(self, glimpse: Glimpse, final: bool) -> Steps:
        """Score the neighbours of a face that would be kept; where one is better, go on there."""
        for _ in range(1 + CLIMB):
            if glimpse is self.held.newest and not final:
                # The frame after it is still to come: the next bucket takes it up again.
                return
            if self.held.has_lost_neighbour(glimpse, self._reach()):
                # The frame before it has been let go, so nobody can vouch for this one.
                return
            near = self.held.neighbours(glimpse, self._reach())
            for neighbour in near:
                self._glance(neighbour)
            yield from self._score_fully(near)
            self._offer(glimpse)
            better = [one for one in near if one.quality > glimpse.quality and one.passed and not one.offered]
            if not better:
                return
            glimpse = max(better, key=_by_quality)

    def _reach(self) -> float:
        """Seconds on each side within which a neighbour counts."""
        return self._config.smoothing.short_s / 2 + 1e-9

    def _glance_through(self, bucket: list[Glimpse]) -> None:
        """Look at some of the bucket's faces without networks; the others promise nothing."""
        for glimpse in bucket:
            if glimpse.pts_seconds - self._glanced_pts >= self._glance_interval(glimpse) - 1e-6:
                self._glanced_pts = glimpse.pts_seconds
                self._glance(glimpse)

    def _glance_interval(self, glimpse: Glimpse) -> float:
        """Seconds between two glances: the longer a track, the less a single moment of it can add."""
        config = self._config.candidates
        age = glimpse.pts_seconds - self.held.first_pts
        return max(config.glance_s, min(GLANCE_MOST_S, config.glance_share * age))

    def _glance(self, glimpse: Glimpse) -> None:
        if not glimpse.glanced and glimpse.candidate is not None:
            glimpse.promise = self._scorer.glance(glimpse.candidate, glimpse.frame.picture)
            glimpse.glanced = True

    def _score(self, glimpse: Glimpse, floor: Floor, *, full: bool) -> Steps:
        assert glimpse.candidate is not None
        yield from self._scorer.score(glimpse.candidate, glimpse.frame.picture, floor, full=full)
        self._scored(glimpse, full=full)

    def _score_fully(self, glimpses: Sequence[Glimpse]) -> Steps:
        """Score those that are not yet, whatever comes out; the networks see them side by side."""
        left = [glimpse for glimpse in glimpses if not glimpse.scored and glimpse.candidate is not None]
        yield from together(
            self._scorer.score(glimpse.candidate, glimpse.frame.picture, no_floor, full=True)
            for glimpse in left
            if glimpse.candidate is not None
        )
        for glimpse in left:
            self._scored(glimpse, full=True)

    def _scored(self, glimpse: Glimpse, *, full: bool) -> None:
        """Draw the conclusions from a face that went through the networks, as far as it went."""
        assert glimpse.candidate is not None
        glimpse.glanced = True
        if self.template is not None and not glimpse.recognised and glimpse.candidate.evidence.embedding is not None:
            self.template.add(glimpse.candidate)
            glimpse.recognised = True
        if glimpse.candidate.quality is not None or full:
            glimpse.scored = True
            # From here on its own figure orders it.
            glimpse.promise = glimpse.quality
        if glimpse.candidate.quality is not None:
            self.frames_scored += 1
            self._learn(glimpse.candidate)
            self.keeper.note(glimpse.candidate)

    def _patience_s(self) -> float:
        """How long after a scored face others are only glanced at: the longer a track, the less a second can add."""
        return self._config.candidates.patience * (self.held.last_pts - self.held.first_pts)

    def _is_record(self, glimpse: Glimpse) -> bool:
        """Whether it looks better than every face that was scored, as far as that shows without networks."""
        return glimpse.candidate is not None and glimpse.candidate.bound > self._record

    def _learn(self, candidate: Candidate) -> None:
        """A face was scored: what networks can be expected to say of this track, and how good it looked before.

        Of one pose that tells nothing about another, so with pose bins nothing is learned.
        """
        if self._bins is not None:
            return
        headroom = self._config.candidates.headroom
        for name, measure in candidate.measures.items():
            if measure.scalar is not None:
                self._ceilings[name] = max(self._ceilings.get(name, 0.0), min(100.0, measure.scalar + headroom))
        self._record = max(self._record, candidate.bound)

    def _offer(self, glimpse: Glimpse) -> None:
        glimpse.offered = True
        if glimpse.candidate is not None and glimpse.candidate.quality is not None:
            if glimpse.candidate.gate.passed and glimpse.candidate.phash is None:
                glimpse.candidate.phash = self._scorer.fingerprint(glimpse.candidate, glimpse.frame.picture)
            self.keeper.offer(glimpse.candidate, glimpse.frame.picture)

    def _remember_fallback(self, bucket: list[Glimpse]) -> None:
        """Of faces that the cheap gate turned away keep the least bad one, should none do better."""

        def badness(glimpse: Glimpse) -> tuple[int, float, float]:
            assert glimpse.candidate is not None
            return (len(glimpse.candidate.gate.reasons), -glimpse.candidate.bound, glimpse.pts_seconds)

        best = min(bucket, key=badness)
        if self._fallback is None or badness(best) < badness(self._fallback):
            before, self._fallback = self._fallback, best
            if before is not None and before not in self.held and before.candidate is not None:
                self._done.append(before.candidate)

    def _let_go(self, before: float) -> None:
        """Drop judged faces earlier than `before`; the later ones may be neighbours of the next bucket's."""
        settled: list[tuple[Candidate, Picture]] = []
        for glimpse in self.held.let_go(before):
            # The fallback's figures are not final before the track is.
            if glimpse.candidate is not None and glimpse.glanced and glimpse is not self._fallback:
                self._done.append(glimpse.candidate)
                settled.append((glimpse.candidate, glimpse.frame.picture))
        self.near_misses.offer(settled)
        if before == np.inf and self._fallback is not None and self._fallback.candidate is not None:
            self._done.append(self._fallback.candidate)
            self._fallback = None

    def _candidate(self, frame: Frame, face: Face) -> Candidate:
        return Candidate(
            self.track_id,
            frame.pts_seconds,
            face,
            frame_index=frame.frame_index,
            pts_estimated=frame.pts_estimated,
            captured_at=frame.captured_at,
            name=frame.name,
            ceilings=self._ceilings,
        )


def _until_recognised(candidate: Candidate) -> float:
    """A floor that lets nothing pass that comes after the recognizer."""
    return 0.0 if candidate.evidence.embedding is None else np.inf


def _spread(glimpses: Sequence[Glimpse], count: int) -> Sequence[Glimpse]:
    """At most `count` of them, evenly."""
    if len(glimpses) <= count:
        return glimpses
    return [glimpses[int((place + 0.5) * len(glimpses) / count)] for place in range(count)]


def _by_quality(glimpse: Glimpse) -> float:
    return glimpse.quality
