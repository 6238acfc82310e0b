"""Samples faces of each track, evenly spaced in time, with pictures from the footage.

The labels of these faces show which ones the run should have kept.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from streamgate.errors import SourceError
from streamgate.networks.alignment import ffhq_matrix
from streamgate.report.notes import miss_note
from streamgate.sources.footage import FootageFinder
from streamgate.store.folder import RunFolder
from streamgate.store.images import encode_jpeg
from streamgate.store.jsonlines import Record
from streamgate.store.records import candidate_of
from streamgate.tracks import Candidate
from streamgate.tuning.footage import at_their_times

SIDE = 256
QUALITY = 85
MOST = 4000
"""Maximum number of sampled faces on all pages together; the picture of each face uses about 15 kB of memory."""
Spaced = dict[tuple[str, int], list[Record]]


def sampled_faces(
    folder: RunFolder, each: int, folders: Sequence[Path], report: Callable[[str], None]
) -> tuple[Spaced, list[str]]:
    """Up to `each` faces per track, with small pictures, and messages about the sources that could not be sampled.

    `folders` are searched for footage that was moved. `report` is called with the id of each source before the source
    is read. Raises ResultsError.
    """
    found: Spaced = {}
    problems: list[str] = []
    finder = FootageFinder(folder.out, folders)
    count = 0
    for source_id in folder.source_ids if each else ():
        report(source_id)
        chosen = _chosen(folder, source_id, each)
        if count >= MOST:
            problems.append(
                f"no evenly spaced faces are shown for {source_id} and all later sources, because the limit of {MOST} "
                "faces has been reached; use a smaller --each"
            )
            break
        try:
            seen = _pictured(finder, folder, source_id, chosen)
        except SourceError as error:
            problems.append(f"{error}; only kept faces and near misses of this source can be labelled")
            continue
        for track_id, faces in seen.items():
            found[source_id, track_id] = faces
            count += len(faces)
    return found, problems


def _chosen(folder: RunFolder, source_id: str, each: int) -> list[Candidate]:
    kept = {(face["track_id"], float(face["pts_seconds"])) for face in folder.faces(source_id)}
    tracks: dict[int, list[Candidate]] = defaultdict(list)
    known = [spec.name for spec in folder.measures]
    for record in folder.candidates(source_id):
        try:
            candidate = candidate_of(record, known)
        except ValueError as error:
            raise folder.error(f"{source_id}/candidates.jsonl.gz", f"is damaged ({error})") from None
        if candidate.spoiled is None:
            tracks[candidate.track_id].append(candidate)
    chosen = []
    for faces in tracks.values():
        faces.sort(key=lambda face: face.pts_seconds)
        times = np.array([face.pts_seconds for face in faces])
        wanted = np.linspace(times[0], times[-1], each + 2)[1:-1]
        indexes = sorted({int(np.abs(times - at).argmin()) for at in wanted})
        # Kept faces are already on the page.
        chosen += [faces[index] for index in indexes if (faces[index].track_id, faces[index].pts_seconds) not in kept]
    return chosen


def _pictured(
    finder: FootageFinder, folder: RunFolder, source_id: str, chosen: Sequence[Candidate]
) -> Mapping[int, list[Record]]:
    """Records of the faces for the page, by track, in order of time."""
    found: dict[int, list[Record]] = defaultdict(list)
    if not chosen:
        return found
    with finder.open(folder.source(source_id)) as source:
        for frame, faces in at_their_times(source, chosen):
            for face in faces:
                try:
                    picture = frame.picture.warp(ffhq_matrix(face.face.landmarks, SIDE), SIDE)
                except ValueError:  # the landmarks coincide
                    continue
                text = base64.b64encode(encode_jpeg(picture, QUALITY)).decode("ascii")
                found[face.track_id].append(miss_note(face, source_id, {"thumbnail": text, "heat": None}))
    return found
