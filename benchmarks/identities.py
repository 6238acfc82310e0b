"""Judges tracks by embeddings: where a track changes its person, and which tracks show one person again.

The rule. A sighting is *sure* when its face is large, frontal and recognisable enough (see `sightings.py`). The
sure sightings of a track are averaged over windows of `WINDOW_S`; one of fewer than `LEAST` says nothing.
- Switch: a window whose cosine to the mean of the windows since the last switch is below `differs`, and so is that of
  the next window: it takes two to be no accident, so a change in a track's last moments goes unnoticed.
- People: the stretches between switches are merged while two of one shot that do not overlap in time have a cosine
  above `same`, most alike first. Fragments are the stretches that are too many for the people found.
Both limits come from the detections themselves and from no tracker: faces seen in one frame are different people;
a detection that lies where one lay a frame before, with no other near, is the same person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from sightings import Moment

from streamgate.frames import Array
from streamgate.tracking.overlap import grown, iou

WINDOW_S = 0.3
LEAST = 2
ALONE_IOU, SAME_IOU = 0.05, 0.6
TOUCH_S = 0.1
"""Two tracks may both show a person for so long when one takes over from the other."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One face that a tracker gave to a track; `embedding` is unit length, `sure` says that it may judge."""

    track_id: int
    shot: int
    pts: float
    box: Array
    embedding: Array
    sure: bool


@dataclass(frozen=True, slots=True)
class Scale:
    """What cosines of window means are worth on this footage."""

    same: float
    differs: float
    pairs_same: int
    pairs_different: int
    same_quantiles: tuple[float, float, float]
    different_quantiles: tuple[float, float, float]

    def lines(self) -> list[str]:
        """The rule's limits and where they come from, as items of a Markdown list."""

        def three(values: tuple[float, float, float]) -> str:
            return " / ".join(f"{value:.2f}" for value in values)

        return [
            f"- judged by embeddings, averaged over {WINDOW_S:g} s of a track: a switch where the cosine falls below "
            f"{self.differs:.2f} twice running, one person in two tracks from {self.same:.2f}",
            f"- these limits by the footage: cosine of one unmistakable face to itself {WINDOW_S:g} s later, "
            f"1st/5th/50th percentile {three(self.same_quantiles)} ({self.pairs_same} pairs); of faces seen at once, "
            f"50th/95th/99th {three(self.different_quantiles)} ({self.pairs_different} pairs)",
        ]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rule finds in a tracker's tracks (those that are more than noise).

    `switches` are (track id, pts); `stretches` counts what can be judged, `fragments` = stretches - people.
    """

    tracks: int
    sightings: int
    sure: int
    switches: tuple[tuple[int, float], ...]
    stretches: int
    people: int

    @property
    def fragments(self) -> int:
        return self.stretches - self.people


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Part of a track that shows one person: its time, its mean embedding, its shot."""

    shot: int
    first: float
    last: float
    mean: Array


def measure_scale(moments: Sequence[Moment]) -> Scale:
    """Limits from the detections: see the rule. Falls back to usual values where pairs are few."""
    different, same = [], []
    for chain in _chains(moments):
        for before, after in pairwise(chain):
            same.append(float(before @ after))
    for moment in moments:
        sure = [one.embedding for one in moment.faces if one.sure]
        different += [float(first @ second) for first, second in combinations(sure, 2)]
    same_at = tuple(float(one) for one in np.quantile(same, (0.01, 0.05, 0.5))) if same else (0.3, 0.4, 0.8)
    different_at = (
        tuple(float(one) for one in np.quantile(different, (0.5, 0.95, 0.99))) if different else (0.0, 0.2, 0.3)
    )
    # Below what one face hardly ever falls to, and never above what two faces usually have.
    differs = min(same_at[0], max(different_at[1], 0.15))
    return Scale(max(different_at[2], differs), differs, len(same), len(different), same_at, different_at)  # type: ignore[arg-type]


def evaluator(sightings: Sequence[Sighting], scale: Scale, min_detections: int) -> Verdict:
    """Judge a tracker's sightings of one clip."""
    by_track: dict[int, list[Sighting]] = {}
    for one in sightings:
        by_track.setdefault(one.track_id, []).append(one)
    by_track = {track_id: found for track_id, found in by_track.items() if len(found) >= min_detections}
    switches: list[tuple[int, float]] = []
    stretches: list[_Stretch] = []
    for track_id, found in sorted(by_track.items()):
        parts, at = _split(sorted(found, key=lambda one: one.pts), scale.differs)
        stretches += parts
        switches += [(track_id, pts) for pts in at]
    kept = [one for found in by_track.values() for one in found]
    return Verdict(
        len(by_track), len(kept), sum(one.sure for one in kept), tuple(switches), len(stretches),
        len(_people(stretches, scale.same)),
    )  # fmt: skip


def _windows(found: Sequence[Sighting]) -> list[tuple[float, float, Array]]:
    """(first pts, last pts, mean embedding) of a track's windows that say something."""
    windows: list[list[Sighting]] = []
    for one in found:
        if one.sure:
            if windows and one.pts - windows[-1][0].pts < WINDOW_S:
                windows[-1].append(one)
            else:
                windows.append([one])
    return [
        (window[0].pts, window[-1].pts, _unit(np.mean([one.embedding for one in window], axis=0)))
        for window in windows
        if len(window) >= LEAST
    ]


def _split(found: Sequence[Sighting], differs: float) -> tuple[list[_Stretch], list[float]]:
    """A track's stretches, and the times at which its person changes."""
    windows = _windows(found)
    parts: list[list[tuple[float, float, Array]]] = []
    switches = []
    for index, window in enumerate(windows):
        if not parts:
            parts.append([window])
            continue
        known = _unit(np.mean([mean for _, _, mean in parts[-1]], axis=0))
        changed = all(float(known @ mean) < differs for _, _, mean in windows[index : index + 2])
        changed = changed and index + 1 < len(windows)
        if changed:
            switches.append(window[0])
            parts.append([window])
        else:
            parts[-1].append(window)
    shot = found[0].shot
    return [
        _Stretch(shot, part[0][0], part[-1][1], _unit(np.mean([mean for _, _, mean in part], axis=0))) for part in parts
    ], switches


def _people(stretches: Sequence[_Stretch], same: float) -> list[list[_Stretch]]:
    """Groups of stretches that show one person, most alike pairs first."""
    groups = [[one] for one in stretches]
    pairs = sorted(
        (
            (-float(first.mean @ second.mean), i, j)
            for (i, first), (j, second) in combinations(enumerate(stretches), 2)
            if first.shot == second.shot
        )
    )
    where = list(range(len(stretches)))
    for cosine, i, j in pairs:
        a, b = where[i], where[j]
        if -cosine < same or a == b:
            continue
        if any(_overlap(one, other) for one in groups[a] for other in groups[b]):
            continue
        groups[a] += groups[b]
        groups[b] = []
        where = [a if index == b else index for index in where]
    return [group for group in groups if group]


def _overlap(first: _Stretch, second: _Stretch) -> bool:
    return min(first.last, second.last) - max(first.first, second.first) > TOUCH_S


def _chains(moments: Sequence[Moment]) -> list[list[Array]]:
    """Window means along faces that no tracker could mistake: alone, and where they were a frame before."""
    chains: list[list[Array]] = []
    open_chains: list[tuple[Array, float, list[Array], list[Array]]] = []  # box, window start, window, means
    for moment in moments:
        boxes = np.array([one.face.box for one in moment.faces]).reshape(-1, 4)
        near = iou(grown(boxes, 0.3), grown(boxes, 0.3)) if len(boxes) else np.zeros((0, 0))
        following = []
        for index, one in enumerate(moment.faces):
            alone = np.sum(near[index] > ALONE_IOU) <= 1
            if not (one.sure and alone):
                continue
            kept = None
            if not moment.cut:
                kept = next(
                    (chain for chain in open_chains if iou(chain[0][None], one.face.box[None])[0, 0] >= SAME_IOU), None
                )
            if kept is None:
                means: list[Array] = []
                chains.append(means)
                following.append((one.face.box, moment.pts, [one.embedding], means))
            elif moment.pts - kept[1] >= WINDOW_S:
                if len(kept[2]) >= LEAST:
                    kept[3].append(_unit(np.mean(kept[2], axis=0)))
                following.append((one.face.box, moment.pts, [one.embedding], kept[3]))
            else:
                following.append((one.face.box, kept[1], [*kept[2], one.embedding], kept[3]))
        open_chains = following
    return chains


def _unit(vector: Array) -> Array:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
