"""Groups tracks in memory into persons, for the Python API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from streamgate.people.linkage import link
from streamgate.selection.template import is_sure
from streamgate.tracks import BestShot, TrackEnd


def group_tracks(ended: Iterable[TrackEnd], threshold: float) -> dict[str, list[BestShot]]:
    """The kept faces of each person, best first, with `person_id` set; tracks that keep no face belong to no person.

    `threshold` is the minimum similarity of two tracks of one person.
    """
    tracks = sorted((one for one in ended if one.shots), key=lambda one: (one.source_id, one.track.track_id))
    size = next((len(one.template.vector) for one in tracks if one.template is not None), 1)
    vectors, offsets = np.zeros((len(tracks), size), np.float32), np.zeros(len(tracks), np.float32)
    for index, one in enumerate(tracks):
        if one.template is not None and is_sure(one.template):
            vectors[index], offsets[index] = one.template.vector, one.template.offset
    sources = {name: index for index, name in enumerate(dict.fromkeys(one.source_id for one in tracks))}
    spans = np.array(
        [[sources[one.source_id], one.track.first_pts, one.track.last_pts] for one in tracks], np.float64
    ).reshape(-1, 3)
    people: dict[str, list[BestShot]] = {}
    for one, number in zip(tracks, link(vectors, offsets, spans, [None] * len(tracks), threshold), strict=True):
        person = f"p{number + 1:04d}"
        people.setdefault(person, []).extend(replace(shot, person_id=person) for shot in one.shots)
    return {
        person: sorted(shots, key=lambda shot: -(shot.quality_smoothed or 0.0)) for person, shots in people.items()
    }
