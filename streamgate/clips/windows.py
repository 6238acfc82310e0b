"""Finds windows of a track that could be a clip, from the results of individual frames, without reading the video."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from streamgate.faces import Face
from streamgate.frames import Array


@dataclass(frozen=True, slots=True)
class SeenFace:
    """The result for a track's face at one time: whether it `failed` its limits, and its `quality` (None: not scored).

    `checked`: the result comes from scoring every frame for a clip, not from the few frames that a run scores.
    """

    pts_seconds: float
    face: Face
    failed: bool
    quality: float | None = None
    checked: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """A time window [start, end) in pts seconds, and the mean quality of the scored faces in it."""

    start: float
    end: float
    quality: float = 0.0


AT_ENDS_S = 0.25
"""A face is assumed to stay in place for this long before the first and after the last face of its track that the run
evaluated. A run evaluates the faces of a track at intervals of at most this length."""
_TRIES_APART = 8
"""The start of a window differs from the starts of failed windows by at least the window's length divided by this
number."""
_HEARSAY = 0.3
"""Weight of a failing frame that only the run scored (see `SeenFace.checked`). It is below 1 because the frames next
to it may be good."""


def best_window(
    seen: Sequence[SeenFace],
    seconds: float,
    last_pts: float,
    windows: Iterable[Window] | None = None,
    *,
    max_bad: float = 0.0,
    taken: Sequence[Window] = (),
    tried: Sequence[float] = (),
) -> Window | None:
    """The window of `seconds` with the best mean quality in which at most a share of `max_bad` of the faces fails.

    `seen` is sorted by time. A window begins at the time of one of these faces or at the end of a `taken` window, or is
    one of `windows`. The window is inside the track (whose last frame is at `last_pts`), does not overlap `taken`
    windows, and does not begin near a start that was `tried`. A window needs at least one scored face; if `max_bad` is
    above 0, an unscored face is enough, but a window without scored faces ranks last. Of windows with the same quality,
    the earliest wins.
    """
    if not seen:
        return None
    times = [one.pts_seconds for one in seen]
    failures, scored, total = [0.0], [0], [0.0]
    for one in seen:
        failures.append(failures[-1] + one.failed * (1.0 if one.checked or not max_bad else _HEARSAY))
        scored.append(scored[-1] + (one.quality is not None))
        total.append(total[-1] + (one.quality or 0.0))
    best: Window | None = None
    starts = sorted({*times, *(one.end for one in taken)})
    for start, end in _bounds(starts, seconds, windows):
        if start < times[0] - 1e-6 or end > last_pts + 1e-6:
            continue
        if any(start < one.end - 1e-6 and end > one.start + 1e-6 for one in taken):
            continue
        if any(abs(start - other) < seconds / _TRIES_APART - 1e-6 for other in tried):
            continue
        first, behind = (bisect.bisect_left(times, time - 1e-6) for time in (start, end))
        if failures[behind] - failures[first] > max_bad * (behind - first) + 1e-9:
            continue
        count = scored[behind] - scored[first]
        if not count and (not max_bad or behind == first):
            continue
        quality = (total[behind] - total[first]) / count if count else 0.0
        if best is None or quality > best.quality + 1e-9:
            best = Window(start, end, quality)
    return best


def _bounds(
    times: Sequence[float], seconds: float, windows: Iterable[Window] | None
) -> Iterator[tuple[float, float]]:
    if windows is None:
        yield from ((time, time + seconds) for time in times)
    else:
        yield from ((one.start, one.end) for one in windows)


def face_at(seen: Sequence[SeenFace], pts_seconds: float) -> Face | None:
    """The track's face at a time, linearly interpolated between the nearest known faces.

    Within `AT_ENDS_S` before the first or after the last known face, that face is returned, because a track lasts a
    little longer than the time between its first and last evaluated faces. Returns None at all other times.
    """
    times = [one.pts_seconds for one in seen]
    index = bisect.bisect_left(times, pts_seconds - 1e-6)
    if index == len(times):
        return seen[-1].face if seen and pts_seconds <= times[-1] + AT_ENDS_S else None
    after = seen[index]
    if after.pts_seconds <= pts_seconds + 1e-6:
        return after.face
    if index == 0:
        return after.face if pts_seconds >= times[0] - AT_ENDS_S else None
    before = seen[index - 1]
    share = (pts_seconds - before.pts_seconds) / (after.pts_seconds - before.pts_seconds)

    def between(first: Array, second: Array) -> Array:
        return (first + (second - first) * share).astype(first.dtype)

    return Face(
        between(before.face.box, after.face.box),
        between(before.face.landmarks, after.face.landmarks),
        min(before.face.score, after.face.score),
    )
