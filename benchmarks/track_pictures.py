"""Sheets of what a tracker followed, a row a track, to look at. Footage: never to be published with the results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from common import say
from identities import Sighting, Verdict

from streamgate.networks.alignment import box_matrix
from streamgate.sources import open_source

if TYPE_CHECKING:
    from tracking import Followed

SIDE = 72
ACROSS = 18
"""Pictures of a track at most, spread over its time."""


def write_sheet(path: Path, clip: Path, followed: Followed, verdict: Verdict) -> None:
    """A row a track, its faces over time; a frame in red where the rule sees a switch."""
    by_track: dict[int, list[Sighting]] = {}
    for one in followed.sightings:
        by_track.setdefault(one.track_id, []).append(one)
    rows = {track_id: _spread(found) for track_id, found in sorted(by_track.items()) if len(found) > 1}
    wanted: dict[float, list[tuple[int, int]]] = {}
    for track_id, found in rows.items():
        for index, one in enumerate(found):
            wanted.setdefault(one.pts, []).append((track_id, index))
    sheet = np.full(((SIDE + 16) * max(1, len(rows)), SIDE * ACROSS, 3), 255, np.uint8)
    tops = {track_id: (SIDE + 16) * row for row, track_id in enumerate(rows)}
    switched = dict(verdict.switches)
    with open_source(clip) as source:
        for frame in source.frames():
            for track_id, index in wanted.pop(frame.pts_seconds, []):
                one = rows[track_id][index]
                tile = frame.warp(box_matrix(one.box, SIDE), SIDE)
                if track_id in switched and one.pts >= switched[track_id]:
                    cv2.rectangle(tile, (0, 0), (SIDE - 1, SIDE - 1), (220, 0, 0), 2)
                if not one.sure:
                    cv2.line(tile, (0, 0), (12, 12), (0, 0, 220), 2)
                top, left = tops[track_id] + 16, SIDE * index
                sheet[top : top + SIDE, left : left + SIDE] = tile
    for track_id, top in tops.items():
        found = by_track[track_id]
        text = f"{track_id}: {found[0].pts:.2f}-{found[-1].pts:.2f} s, {len(found)} faces"
        cv2.putText(sheet, text, (4, top + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet[:, :, ::-1])
    say(f"picture {path.name}")


def _spread(found: list[Sighting]) -> list[Sighting]:
    indexes = np.unique(np.linspace(0, len(found) - 1, ACROSS).round().astype(int))
    return [found[index] for index in indexes]
