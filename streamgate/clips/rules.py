"""Decides whether a window of scored frames is a clip, and computes its statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from streamgate.clips.frame_scoring import ScoredFrame
from streamgate.clips.recipe import ClipRules
from streamgate.frames import Array
from streamgate.measures.size import shorter_side

_EYES = "eyes_closed"
_STEP_S = 0.2
"""Time over which movement and rotation are measured, because changes between adjacent frames are too small."""
_TURN = 45.0
"""Rotation within `_STEP_S`, in degrees, for which `ClipStatistics.rotation` is 0."""


@dataclass(frozen=True, slots=True)
class ClipStatistics:
    """Measures of a clip as a whole.

    Attributes:
        one_face: share of frames with exactly one face.
        face_px: the shorter side of the face's box in the frame in which it is smallest, in source pixels.
        head_jitter: root mean square deviation of the face's position from the midpoint of its neighbours in time, in
            percent of the distance between the eyes.
        camera_jitter: the same for the background, in percent of the picture size.
        movement: 100 minus the mean distance that the face moves in 0.2 s, in percent of the shorter side of its box.
        rotation: 100 minus the mean rotation of the head in 0.2 s, in percent of 45 degrees.
        yaw_range, pitch_range, roll_range: degrees between the 2nd and the 98th percentile.
        mouth_range: difference between the same percentiles of the raw value of `mouth`.
    """

    one_face: float
    face_px: float
    head_jitter: float
    camera_jitter: float
    movement: float
    rotation: float
    yaw_range: float
    pitch_range: float
    roll_range: float
    mouth_range: float

    def record(self) -> dict[str, float]:
        """The rounded values for clips.jsonl."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def bad_frames(frames: Sequence[ScoredFrame], rules: ClipRules) -> list[bool]:
    """Whether each frame fails; short blinks are tolerated."""
    reasons = [set(one.reasons) for one in frames]
    for first, behind in _runs([_EYES in one for one in reasons]):
        if _seconds(frames, first, behind) <= rules.blink_s + 1e-6:
            for index in range(first, behind):
                reasons[index].discard(_EYES)
    return [bool(why) or _is_small(one, rules) for why, one in zip(reasons, frames, strict=True)]


def fault(frames: Sequence[ScoredFrame], bad: Sequence[bool], steady: ClipStatistics, rules: ClipRules) -> str | None:
    """The reason why these frames are not a clip, as a short text for counting; None if they are a clip."""
    if sum(bad) > rules.max_bad * len(frames) + 1e-9 or _longest(frames, bad) > rules.bad_run_s + 1e-6:
        return main_reason(frames, bad, rules)
    limits = (
        ("other faces in the picture", steady.one_face < rules.one_face - 1e-9),
        ("head_jitter", 0 < rules.max_head_jitter < steady.head_jitter),
        ("camera_jitter", 0 < rules.max_camera_jitter < steady.camera_jitter),
        ("movement", steady.movement < rules.min_movement),
        ("rotation", steady.rotation < rules.min_rotation),
        ("too little rotation", max(steady.yaw_range, steady.pitch_range) < rules.min_rotation_range),
        (
            "too much rotation",
            0 < rules.max_rotation_range < max(steady.yaw_range, steady.pitch_range),
        ),
    )
    return next((word for word, fails in limits if fails), None)


def main_reason(frames: Sequence[ScoredFrame], bad: Sequence[bool], rules: ClipRules) -> str:
    """The most common reason among the bad frames."""
    found = Counter(reason for one, fails in zip(frames, bad, strict=True) if fails for reason in one.reasons)
    found["small"] += sum(_is_small(one, rules) for one in frames)
    return found.most_common(1)[0][0]


def _is_small(one: ScoredFrame, rules: ClipRules) -> bool:
    return one.face is not None and shorter_side(one.face.box) < rules.min_face_px


def clip_statistics(frames: Sequence[ScoredFrame]) -> ClipStatistics:
    """Statistics of consecutive frames, at least one."""
    there = [one for one in frames if one.face is not None]
    times = np.array([one.pts_seconds for one in there])
    centres = np.array([one.face.landmarks.mean(axis=0) for one in there if one.face]).reshape(-1, 2)
    eyes = float(np.median([one.face.inter_eye for one in there if one.face] or [1.0])) or 1.0
    sides = [shorter_side(one.face.box) for one in there if one.face]
    poses = np.array(
        [(one.pose.yaw, one.pose.pitch, one.pose.roll) for one in there if one.pose is not None]
    ).reshape(-1, 3)
    posed = np.array([one.pts_seconds for one in there if one.pose is not None])
    mouths = [one.measures["mouth"].raw for one in there if "mouth" in one.measures]
    camera = np.cumsum([one.shift for one in frames], axis=0)
    yaw, pitch, roll = (_range(poses[:, axis]) for axis in range(3))
    way = _changes(times, centres) / max(1.0, float(np.median(sides or [1.0])))
    turn = _changes(posed, poses) / _TURN
    return ClipStatistics(
        float(np.mean([one.faces == 1 for one in frames])),
        float(min(sides, default=0.0)),
        100 * _jitter(centres) / eyes,
        100 * _jitter(camera),
        100 * float(np.clip(1 - way.mean(), 0, 1)) if len(way) else 100.0,
        100 * float(np.clip(1 - turn.mean(), 0, 1)) if len(turn) else 100.0,
        yaw,
        pitch,
        roll,
        _range(np.array([one for one in mouths if one is not None])),
    )


def _changes(times: Array, values: Array) -> Array:
    """Distance that values (N, D) move within `_STEP_S` from each time; times within `_STEP_S` of the last frame are
    left out."""
    if not len(times):
        return np.zeros(0)
    later = np.searchsorted(times, times + _STEP_S - 1e-6)
    here = np.nonzero(later < len(times))[0]
    return np.asarray(np.linalg.norm(values[later[here]] - values[here], axis=1))


def _jitter(way: Array) -> float:
    """Root mean square distance of points (N, 2) from the midpoint of their two neighbours."""
    if len(way) < 3:
        return 0.0
    off = way[1:-1] - (way[:-2] + way[2:]) / 2
    return float(np.sqrt((off**2).sum(axis=1).mean()))


def _range(values: Array) -> float:
    return float(np.subtract(*np.percentile(values, [98, 2]))) if len(values) else 0.0


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """The index ranges [first, behind) of consecutive true flags."""
    found = []
    first: int | None = None
    for index, flag in enumerate([*flags, False]):
        if flag and first is None:
            first = index
        elif not flag and first is not None:
            found.append((first, index))
            first = None
    return found


def _seconds(frames: Sequence[ScoredFrame], first: int, behind: int) -> float:
    """How long the frames [first, behind) are shown, in seconds."""
    if behind < len(frames):
        return frames[behind].pts_seconds - frames[first].pts_seconds
    step = (frames[-1].pts_seconds - frames[0].pts_seconds) / max(1, len(frames) - 1)
    return frames[-1].pts_seconds + step - frames[first].pts_seconds


def _longest(frames: Sequence[ScoredFrame], bad: Sequence[bool]) -> float:
    return max((_seconds(frames, *run) for run in _runs(bad)), default=0.0)
