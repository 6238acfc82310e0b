"""Selects the best shots of a track among stored faces, and finds those that must be scored in the footage first."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from streamgate.config import Config
from streamgate.frames import Array
from streamgate.selection.keeper import Keeper, Ranked
from streamgate.sources.picture import picture_of_rgb
from streamgate.tracks import Candidate

LOOKS = 12
"""Maximum number of faces per track to score in the footage, in addition to the neighbours of picks. A run scores one
face per `advanced.window_s`; a tuning scores only the most promising faces."""

_NO_PICTURE = picture_of_rgb(np.zeros((8, 8, 3), np.uint8))


class TrackFaces:
    """The evaluated faces of one track, ordered by time.

    Args:
        potential: returns an upper bound of the quality of a face that was not fully scored.
        settle: evaluates a face that may be kept, using the reference values of its whole track.
        trusted: times of the earlier picks, whose neighbours were scored by the run.
        open_to: faces that were never fully scored but might be picked now. Other unscored faces are not scored.
    """

    def __init__(
        self,
        faces: Sequence[Candidate],
        config: Config,
        potential: Callable[[Candidate], float],
        settle: Callable[[Candidate], None],
        *,
        trusted: frozenset[float] = frozenset(),
        open_to: Sequence[Candidate] = (),
    ) -> None:
        self.faces = sorted(faces, key=lambda face: face.pts_seconds)
        self._times = [face.pts_seconds for face in self.faces]
        self._trusted = trusted
        self._open_to = sorted(open_to, key=lambda face: face.pts_seconds)
        self._config = config
        self._potential = potential
        self._settle = settle
        self._looked: set[int] = set()
        self._looks = 0

    def ranked(self, *, only: frozenset[float] | None = None) -> list[Ranked]:
        """The picks. If `only` is given, they are chosen only among the faces at these times."""
        return self._picked([face for face in self.faces if self._confirmed(face)], only)

    def wanted(self) -> list[Candidate]:
        """Faces that must be fully scored before `ranked` is correct. Each face is returned only once.

        The neighbours of the likely picks are returned first, then the most promising faces that were never scored
        because of an earlier pick or limit.
        """
        beside: list[Candidate] = []
        for pick in self._picked(self.faces, None):
            if pick.candidate.pts_seconds not in self._trusted:
                beside += [face for face in self._neighbours(pick.candidate) if face.quality is None]
        asked = self._new(beside)
        if asked:
            return asked
        room = LOOKS - self._looks
        asked = self._new(self._promising()[:room]) if room > 0 else []
        self._looks += len(asked)
        return asked

    def _promising(self) -> list[Candidate]:
        keeper = self._keeper(self.faces, None)
        stretch = self._config.advanced.window_s
        scored = [face.pts_seconds for face in self.faces if face.gate.passed]
        best: dict[int, tuple[float, Candidate]] = {}
        for face in self._open_to:
            if face.quality is not None or face.gate.reasons or id(face) in self._looked:
                continue
            if _nearest(scored, face.pts_seconds) <= stretch:
                continue  # its quality can be inferred from a scored face nearby
            potential = self._potential(face)
            index = int(face.pts_seconds // stretch)
            if potential > best.get(index, (0.0, face))[0]:
                best[index] = (potential, face)
        ordered = sorted(best.values(), key=lambda item: (-item[0], item[1].pts_seconds))
        return [face for potential, face in ordered if potential > self._floor(keeper.threshold(face))]

    def _floor(self, threshold: float) -> float:
        return threshold + self._config.advanced.min_gain if threshold else 0.0

    def _picked(self, faces: Sequence[Candidate], only: frozenset[float] | None) -> list[Ranked]:
        keeper = self._keeper(faces, only)
        keeper.settle(self._settle)
        keeper.close()
        return keeper.finish()

    def _keeper(self, faces: Sequence[Candidate], only: frozenset[float] | None) -> Keeper:
        # The keeper needs no pictures here: each face already has its own, or gets one later.
        keeper = Keeper(self._config.keep, self._config.smoothing, lambda face, picture: cast(Array, face.image))
        for face in self.faces:
            keeper.note(face)
        for face in faces:
            if face.quality is not None and (only is None or face.pts_seconds in only):
                keeper.offer(face, _NO_PICTURE)
        return keeper

    def _confirmed(self, face: Candidate) -> bool:
        """Whether the faces just before and after a face were scored: a face must not be picked for a score that it
        owes to chance."""
        if face.pts_seconds in self._trusted:
            return True
        return all(one.quality is not None or id(one) in self._looked for one in self._neighbours(face))

    def _neighbours(self, face: Candidate) -> list[Candidate]:
        index = bisect_left(self._times, face.pts_seconds)
        beside = [self.faces[one] for one in (index - 1, index + 1) if 0 <= one < len(self.faces)]
        reach = self._config.smoothing.short_s / 2 + 1e-6
        return [one for one in beside if abs(one.pts_seconds - face.pts_seconds) <= reach]

    def _new(self, faces: Sequence[Candidate]) -> list[Candidate]:
        found = [face for face in dict.fromkeys(faces) if id(face) not in self._looked]
        self._looked.update(id(face) for face in found)
        return found


def _nearest(times: Sequence[float], moment: float) -> float:
    index = bisect_left(times, moment)
    return min((abs(times[one] - moment) for one in (index - 1, index) if 0 <= one < len(times)), default=np.inf)
