"""Scores individual pictures, for `Gate.score` and `streamgate score`."""

from __future__ import annotations

import numpy as np

from streamgate.faces import Face, ScoredFace
from streamgate.frames import Array
from streamgate.networks.alignment import ARCFACE_TEMPLATE, ffhq_matrix
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.faces import FaceScorer, enlarged
from streamgate.scoring.lockstep import no_floor, run_in_lockstep
from streamgate.sources.picture import picture_of_rgb
from streamgate.tracks import Candidate


def score_picture(image: Array, scorer: FaceScorer, *, full: bool) -> list[ScoredFace]:
    """Detect and score every face of an RGB uint8 (H, W, 3) picture, largest first."""
    picture = picture_of_rgb(image)
    config, infer = scorer.context.config.advanced, scorer.context.infer
    thumbnail = picture.thumbnail(min(max(image.shape[:2]), config.max_long_side))
    (found,) = infer([InferenceRequest("detector", thumbnail)])
    strong = [face for face in found if face.score >= config.high_score]
    faces = enlarged(strong, thumbnail, picture)
    faces.sort(key=lambda face: -float((face.box[2] - face.box[0]) * (face.box[3] - face.box[1])))
    candidates = [Candidate(face, track_id=0, pts_seconds=0.0) for face in faces]
    run_in_lockstep([scorer.score(one, picture, no_floor, full=full) for one in candidates], infer)
    return [_scored(one, scorer.crop(one, picture)) for one in candidates]


def score_aligned(image: Array, aligned: str, scorer: FaceScorer) -> ScoredFace:
    """Score an aligned crop ("arcface" or "ffhq") as one face, without detection.

    The landmarks are those of the alignment's template. An ArcFace crop lacks the pixels that IFQA, the expression
    network and some pose networks need, whereas an ArcFace crop can be cut from an FFHQ crop. `size` and other measures
    of the source's picture are not computed, because the source's picture is not known.
    """
    side = float(max(image.shape[:2]))
    picture = picture_of_rgb(image)
    if aligned == "arcface":
        landmarks = ARCFACE_TEMPLATE * (side / 112.0)
    else:
        # FFHQ alignment of the template's own points gives their positions in a crop of this side.
        matrix = ffhq_matrix(ARCFACE_TEMPLATE, int(side))
        landmarks = ARCFACE_TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
    face = Face(_box_around(landmarks), landmarks.astype(np.float32), 1.0)
    candidate = Candidate(face, track_id=0, pts_seconds=0.0)
    run_in_lockstep([scorer.score_ready(candidate, picture, ffhq=aligned == "ffhq")], scorer.context.infer)
    return _scored(candidate, None)


def _box_around(landmarks: Array) -> Array:
    """Approximately the box that a detector would return: 2.2 by 2.9 eye distances around the landmarks."""
    eye = float(np.hypot(*(landmarks[1] - landmarks[0])))
    centre = landmarks.mean(axis=0)
    half = np.array([1.1 * eye, 1.45 * eye])
    return np.concatenate([centre - half, centre + half]).astype(np.float32)


def _scored(candidate: Candidate, image: Array | None) -> ScoredFace:
    return ScoredFace(
        candidate.face, candidate.evidence, candidate.measures, candidate.quality, candidate.gate, image
    )
