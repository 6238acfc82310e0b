"""From a face in a picture to evidence, measures, gate and quality, by way of the networks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from streamgate.config import Config
from streamgate.frames import Array, Candidate, Evidence, Face, Measure, Picture, Pose
from streamgate.networks.alignment import arcface_matrix, box_matrix, ffhq_matrix, ffhq_side
from streamgate.networks.pose import CROP_SIDE as POSE_SIDE
from streamgate.networks.pose import crop_box, upright
from streamgate.networks.recognizer import CROP_SIDE as ALIGNED_SIDE
from streamgate.quality.calibration import Calibration, measure_set
from streamgate.quality.gate import GateRules
from streamgate.quality.measures import Fusion, measure_all
from streamgate.quality.pixels import look_at
from streamgate.quality.pose import angle_scalar
from streamgate.quality.proxy import yaw_proxy
from streamgate.selection.fingerprint import HASH_SIDE, hash_matrix, perceptual_hash
from streamgate.selection.spill import PictureStore
from streamgate.selection.steps import Ask, Floor, Steps
from streamgate.tracking.overlap import iou

THUMBNAIL_SIDE = 128
"""Side of the small pictures of near misses."""
REFINE_SIDE = 160
"""Side of the region on which landmarks are refined, pixels; a face fills a little over half of it."""
REFINE_GROWTH = 0.4
REFINE_SCORE = 0.5
REFINE_IOU = 0.3


class FaceScorer:
    """Scores faces; one serves all tracks and threads of a run, since it holds nothing but settings and the store
    that the kept pictures of all of them share."""

    def __init__(
        self,
        config: Config,
        calibration: Calibration,
        sampled_head: Callable[[Array], float] | None = None,
        *,
        aligned_pose: bool = False,
        shared_pose: bool = False,
    ) -> None:
        """aligned_pose: the pose role takes the recognizer's crop; shared_pose: the recognizer's run gives the pose."""
        self.names = measure_set(config, calibration)
        self.pictures = PictureStore()
        self._config = config
        self._calibration = calibration
        self._rules = GateRules(config.gate, self.names, config.keep.poses == "all")
        self._fusion = Fusion.of(config.fusion, self.names)
        self._wants_ifqa = "ifqa" in self.names
        self._sampled_head = sampled_head
        self._aligned_pose, self._shared_pose = aligned_pose, shared_pose

    def glance(self, candidate: Candidate, picture: Picture) -> float:
        """Cheap evidence; returns the quality at best with the head's turn guessed, 0 where the gate is shut."""
        look_at(picture, candidate.face, candidate.evidence)
        self._conclude(candidate, picture)
        guessed = dict(candidate.measures)
        if "yaw" in self.names:
            turn = yaw_proxy(candidate.face)
            guessed["yaw"] = Measure.ok(turn, angle_scalar(turn))
        candidate.bound = self._fusion.bound(guessed)
        return 0.0 if candidate.gate.reasons else self._fusion.bound(guessed, candidate.ceilings)

    def score(self, candidate: Candidate, picture: Picture, floor: Floor, *, full: bool) -> Steps:
        """Refine, look, turn, recognise, rank: dear steps come last and only when the cheap ones let through.

        Without `full` it stops when the gate fails or when quality cannot exceed `floor` of it any more.
        """
        if self._config.candidates.refine and not candidate.refined:
            found = yield from self.refine(picture, candidate.face)
            if found is None and candidate.interpolated:
                # Landmarks guessed between two detections, and no face to see there: nothing to score.
                return
            if found is not None:
                candidate.face = found
                candidate.refined = True
                candidate.evidence = Evidence()
        look_at(picture, candidate.face, candidate.evidence)
        if self._hopeless(candidate, picture, floor, full):
            return
        if candidate.evidence.pose is None and not self._shared_pose:
            yield from self._run_pose(candidate, picture)
            if self._hopeless(candidate, picture, floor, full):
                return
        if candidate.evidence.embedding is None:
            yield from self._run_recognizer(candidate, picture)
        if self._hopeless(candidate, picture, floor, full):
            return
        if self._wants_ifqa:
            yield from self._run_ifqa(candidate, picture)
            self._conclude(candidate, picture)

    def refine(self, picture: Picture, face: Face) -> Generator[list[Ask], list[Any], Face | None]:
        """Find the face again on its enlarged (or reduced) region; returns it, or None when it is not there."""
        centre = (face.box[:2] + face.box[2:]) / 2
        side = (1 + REFINE_GROWTH) * float(max(face.box[2] - face.box[0], face.box[3] - face.box[1], 1.0))
        scale = REFINE_SIDE / side
        corner = centre - side / 2
        matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
        (faces,) = yield [Ask("detector", picture.warp(matrix, REFINE_SIDE))]
        faces = [one for one in faces if one.score >= REFINE_SCORE]
        if not faces:
            return None
        back = [
            Face(
                (one.box / scale + np.tile(corner, 2)).astype(np.float32),
                (one.landmarks / scale + corner).astype(np.float32),
                one.score,
            )
            for one in faces
        ]
        overlaps = iou(face.box[None], np.stack([one.box for one in back]))[0]
        best = int(np.argmax(overlaps))
        return back[best] if overlaps[best] >= REFINE_IOU else None

    def crop(self, candidate: Candidate, picture: Picture) -> Array:
        """The FFHQ-aligned picture to be kept, RGB uint8; its side is `output.size`, less for a small face
        when `output.upscale` is off.

        Notes the ArcFace crop with the candidate where that is to be kept too.
        """
        landmarks, side = candidate.face.landmarks, self.crop_side(candidate.face)
        if "arcface" in self._config.output.crops:
            candidate.arcface = picture.warp(arcface_matrix(landmarks, ALIGNED_SIDE), ALIGNED_SIDE, fine=True)
        return self.pictures.keep(picture.warp(ffhq_matrix(landmarks, side), side, fine=True))

    def thumbnail(self, candidate: Candidate, picture: Picture) -> Array | None:
        """The square of `crop`, RGB uint8 (128, 128, 3); None where the landmarks coincide."""
        try:
            matrix = ffhq_matrix(candidate.face.landmarks, THUMBNAIL_SIDE)
        except ValueError:
            return None
        return picture.warp(matrix, THUMBNAIL_SIDE)

    def fingerprint(self, candidate: Candidate, picture: Picture) -> int | None:
        """The perceptual hash of the face; None where its landmarks define no square."""
        try:
            matrix = hash_matrix(candidate.face.landmarks)
        except ValueError:
            return None
        return perceptual_hash(picture.warp(matrix, HASH_SIDE))

    def crop_side(self, face: Face) -> int:
        """Side of the kept picture in pixels."""
        size = self._config.output.size
        return size if self._config.output.upscale else max(64, min(size, round(ffhq_side(face.landmarks))))

    def upscaled(self, candidate: Candidate) -> float:
        """How many times larger the kept picture is than the face's square in the source, at least 1.0."""
        return max(1.0, self.crop_side(candidate.face) / max(ffhq_side(candidate.face.landmarks), 1.0))

    def _hopeless(self, candidate: Candidate, picture: Picture, floor: Floor, full: bool) -> bool:
        self._conclude(candidate, picture)
        if full:
            return False
        bound = self._fusion.bound(candidate.measures, candidate.ceilings)
        return bool(candidate.gate.reasons) or bound <= floor(candidate)

    def _conclude(self, candidate: Candidate, picture: Picture) -> None:
        candidate.measures = measure_all(candidate.evidence, self._calibration)
        candidate.quality = self._fusion.quality(candidate.measures)
        candidate.gate = self._rules.judge(
            candidate.face, candidate.evidence, candidate.measures, picture.width, picture.height
        )

    def _run_pose(self, candidate: Candidate, picture: Picture) -> Steps:
        if self._aligned_pose:
            matrix = arcface_matrix(candidate.face.landmarks, ALIGNED_SIDE)
            (angles,) = yield [Ask("pose", picture.warp(matrix, ALIGNED_SIDE))]
            angles = upright(angles, matrix)
        else:
            matrix = box_matrix(crop_box(candidate.face.box), POSE_SIDE)
            (angles,) = yield [Ask("pose", picture.warp(matrix, POSE_SIDE))]
        self._note_pose(candidate, angles)

    def _note_pose(self, candidate: Candidate, angles: Array) -> None:
        if np.isfinite(angles).all():
            candidate.evidence.pose = Pose(*(float(angle) for angle in angles))
        else:
            candidate.evidence.failed.update(("yaw", "pitch", "roll"))

    def score_ready(self, candidate: Candidate, picture: Picture, *, ffhq: bool) -> Steps:
        """Score a ready crop by what its pixels hold: the recognizer always, IFQA on an FFHQ crop, pose where the
        crop shows what its network looks at.

        Size and edge speak of the source, which is not at hand: they stay `not_scored`, as does the quality.
        """
        look_at(picture, candidate.face, candidate.evidence)
        candidate.evidence.inter_eye = candidate.evidence.inside = None
        if not self._shared_pose and (ffhq or self._aligned_pose):
            yield from self._run_pose(candidate, picture)
        yield from self._run_recognizer(candidate, picture)
        if ffhq and self._wants_ifqa:
            yield from self._run_ifqa(candidate, picture)
        self._conclude(candidate, picture)

    def _run_recognizer(self, candidate: Candidate, picture: Picture) -> Steps:
        matrix = arcface_matrix(candidate.face.landmarks, ALIGNED_SIDE)
        (output,) = yield [Ask("recognizer", picture.warp(matrix, ALIGNED_SIDE))]
        candidate.evidence.embedding = output.embedding
        if self._shared_pose:
            self._note_pose(candidate, upright(output.pose, matrix))
        candidate.evidence.visible = None if output.visible is None else float(output.visible)
        candidate.evidence.eyes_open = None if output.eyes is None else float(output.eyes)
        spread = float(output.spread)
        if self._sampled_head is not None:
            spread = self._sampled_head(output.features)
        if np.isfinite(spread):
            candidate.evidence.spread = spread
        else:
            candidate.evidence.failed.add("serfiq")

    def _run_ifqa(self, candidate: Candidate, picture: Picture) -> Steps:
        crop = picture.warp(ffhq_matrix(candidate.face.landmarks, 256), 256)
        (output,) = yield [Ask("ifqa", crop)]
        candidate.evidence.ifqa = float(output.score)
        candidate.evidence.ifqa_map = output.map


def enlarged(faces: Sequence[Face], thumbnail: Array, picture: Picture) -> list[Face]:
    """Faces found on a picture's thumbnail, in the picture's own pixels; pixel centres are whole numbers."""
    ratio = np.array([picture.width / thumbnail.shape[1], picture.height / thumbnail.shape[0]])
    return [
        Face(
            ((face.box + 0.5) * np.tile(ratio, 2) - 0.5).astype(np.float32),
            ((face.landmarks + 0.5) * ratio - 0.5).astype(np.float32),
            face.score,
        )
        for face in faces
    ]
