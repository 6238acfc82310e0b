"""Scores a face in a picture with the networks."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from streamgate.config_sections import OutputConfig
from streamgate.faces import Evidence, Face, Measure, Pose
from streamgate.frames import Array, Picture
from streamgate.measures import FaceView, MeasureSpec
from streamgate.networks.alignment import (
    EXPRESSION_SIZE,
    arcface_matrix,
    box_matrix,
    expression_matrix,
    ffhq_corners,
    ffhq_matrix,
    ffhq_side,
)
from streamgate.networks.batcher import WITHOUT_REAL, InferenceRequest
from streamgate.networks.expression import ExpressionOutput
from streamgate.networks.ifqa import CROP_SIDE as IFQA_SIDE
from streamgate.networks.pose import CROP_SIDE as POSE_SIDE
from streamgate.networks.pose import crop_box, upright
from streamgate.networks.recognizer import CROP_SIDE as ALIGNED_SIDE
from streamgate.scoring.calibration import recorded_measures
from streamgate.scoring.context import ScoringContext
from streamgate.scoring.evaluator import SMALL, is_turned
from streamgate.scoring.fingerprint import HASH_SIDE, hash_matrix, perceptual_hash
from streamgate.scoring.lockstep import Floor, Steps
from streamgate.scoring.padding import warp_padded
from streamgate.tracking.overlap import iou
from streamgate.tracks import Candidate

THUMBNAIL_SIDE = 128
"""Side, in pixels, of the small pictures of near misses."""
REFINE_SIDE = 160
"""Side, in pixels, of the region in which landmarks are refined. The face takes up a little over half of it."""
REFINE_GROWTH = 0.4
REFINE_SCORE = 0.5
REFINE_IOU = 0.3
UNREFINED, STEADY, NARROWLY = 0.5, 0.1, 0.04
"""Maximum distances from a limit, as shares of the possible range, at which a failed face may still pass. `UNREFINED`
and `STEADY` apply while the face's landmarks come from the detector: `STEADY` if the face failed for one of
`STEADY_REASONS`, `UNREFINED` otherwise. `NARROWLY` applies after the first run of the expression network. (On 32 clips,
90 faces failed by at most 0.1 after the first run. Seven of them passed after the second run; all seven had failed by
less than 0.03.)"""
STEADY_REASONS = frozenset({SMALL, "dark", "bright", "blurred"})
"""Reasons that hardly depend on the exact landmarks, because the face's box, light and detail stay the same. The
same is true of `edge` once the landmarks have been corrected (`Candidate.corrected`). (Of 215 corrected faces that
failed for `edge` by more than 0.1, two passed with refined landmarks.)"""
MOVED, FURTHEST = 0.03, 0.25
"""Two shares of the distance between the eyes. If the expression network moves an eye of a prescored face by more than
the first share, a second run is worthwhile. If it moves any landmark by more than the second share, the old landmarks
are kept."""


class FaceScorer:
    """Scores faces. One instance serves all tracks and threads of a run, because its only state is the shared
    context."""

    def __init__(self, context: ScoringContext) -> None:
        self.context = context
        self._evaluator = context.evaluator
        self._by_source: dict[str, list[MeasureSpec]] = {}
        for spec in recorded_measures(context.config):
            self._by_source.setdefault(spec.source, []).append(spec)
        self.sees_expressions = any(
            spec.name in self._evaluator.names for spec in self._by_source.get("expression", ())
        )
        """Whether the run's set has measures of the expression network."""
        self._real = [
            spec
            for spec in self._by_source.get("expression", ())
            if spec.output == "real" and spec.name in self._evaluator.names
        ]
        # A value taken from another face must not affect the quality, so values are taken only if `real` has no weight.
        self._assumes_real = not any(context.config.measures[spec.name].weight for spec in self._real)
        self.sees_drawings = bool(self._real)
        """Whether the run's set has a measure that tells whether a face is drawn."""
        self.identity_threshold = context.identity_threshold
        self._refines = context.config.advanced.refine

    def prescore(self, candidate: Candidate, picture: Picture) -> float:
        """Collect cheap evidence; returns the same upper bound of quality as `potential`."""
        if self._is_spoiled(candidate, picture):
            self._evaluate(candidate, picture)
            return 0.0
        self._read_pixels(candidate, picture)
        return self.potential(candidate, picture)

    def potential(self, candidate: Candidate, picture: Picture) -> float:
        """Upper bound of quality from the evidence so far, with the head pose estimated; 0 if the gate rejects the
        face.

        A face that narrowly fails for one reason is not rejected yet: it may pass with refined landmarks.
        """
        self._evaluate(candidate, picture)
        guessed = self._guess(candidate)
        gate = candidate.gate
        room = NARROWLY if candidate.unsettled > MOVED else 0.0 if candidate.refined else UNREFINED
        if not STEADY_REASONS.isdisjoint(gate.reasons) or (candidate.corrected and "edge" in gate.reasons):
            room = min(room, STEADY)
        if gate.reasons and not (self._refines and gate.failed_within(room)):
            return 0.0
        return self._evaluator.bound(guessed, candidate.ceilings)

    def _guess(self, candidate: Candidate) -> dict[str, Measure]:
        """The measures so far, with the head pose estimated; stores the upper bound of quality that they give."""
        guessed = self._evaluator.guessed(candidate.face, candidate.evidence, candidate.measures)
        candidate.bound = self._evaluator.bound(guessed)
        return guessed

    def run_expression(
        self, candidate: Candidate, picture: Picture, *, ready: bool = False, real: bool = True
    ) -> Steps:
        """Run the expression network once on a face; collects evidence without evaluating it.

        If `real` is false, the run takes less than half the time, but does not show whether the face is a drawing.

        The network also finds the landmarks, except in a `ready` crop, whose landmarks are fixed. The network's
        landmarks are more stable than the detector's: when the crop is shifted, they vary by 0.4 % of the distance
        between the eyes, while the detector's vary by 1.2 %. After the first run, `unsettled` tells how far the eyes
        moved from the positions for which the crop was made. A second run is more accurate, and its result is final.
        """
        again, candidate.unsettled = candidate.unsettled > 0.0, 0.0
        try:
            matrix = expression_matrix(candidate.face.landmarks)
        except ValueError:
            candidate.evidence.failed.update(spec.name for spec in self._by_source["expression"])
            return
        (output,) = yield [_expression_request(picture, matrix, real=real)]
        moved = self._take_landmarks(candidate, output, matrix) if self._refines and not ready else 0.0
        candidate.unsettled = 0.0 if again else moved
        if again or moved:
            # The first run noticeably changes only the measures of the face's position, not those of its pixels.
            self._read_pixels(candidate, picture, of_source=None if again else True)
        self._read("expression", output, candidate.evidence)

    def _take_landmarks(self, candidate: Candidate, output: ExpressionOutput, matrix: Array) -> float:
        """Replace a face's landmarks with the network's, unless the face is turned or the new landmarks are too far
        from the old ones.

        Returns how far the eyes moved, as a share of the distance between them; 0 if the landmarks were not replaced.
        """
        face = candidate.face
        found = (output.landmarks - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        moved = np.hypot(*(found - face.landmarks).T) / max(face.inter_eye, 1.0)
        if not moved.max() <= FURTHEST or is_turned(output.yaw, output.pitch):
            return 0.0
        candidate.face = replace(face, landmarks=found.astype(np.float32))
        candidate.refined = True
        return float(moved[:2].max())

    def score(
        self, candidate: Candidate, picture: Picture, floor: Floor, *, full: bool, real_from: Candidate | None = None
    ) -> Steps:
        """Refine the landmarks, then measure pixels, expression, pose, recognisability and IFQA; expensive steps run
        last.

        Without `full`, scoring stops when the gate rejects the face or when the quality can no longer exceed the
        candidate's `floor`.

        real_from: a scored face of the same track, a moment earlier or later. Its value of `real` is also used for
            this face, unless `real` has a weight in the quality. `replace_assumed_real` computes the face's own value.
        """
        if self._is_spoiled(candidate, picture):
            self._evaluate(candidate, picture)
            return
        if self._refines and not candidate.refined:
            found = yield from self.refine(picture, candidate.face)
            if found is None and candidate.interpolated:
                # The landmarks were interpolated between two detections, and no face was found there, so there is
                # nothing to score.
                return
            if found is not None:
                candidate.face = found
                candidate.refined = True
                candidate.evidence = Evidence()
        if not candidate.evidence.values:
            self._read_pixels(candidate, picture)
        if self._cannot_win(candidate, picture, floor, full):
            return
        if self.sees_expressions and (candidate.unsettled or not self._is_seen(candidate)):
            yield from self.run_expression(candidate, picture, real=False)
            if candidate.unsettled:
                yield from self.run_expression(candidate, picture, real=False)
            hopeless = self._cannot_win(candidate, picture, floor, full)
            # The bound is stored before the remaining networks run, because other faces are compared with it.
            self._guess(candidate)
            if hopeless:
                return
        if candidate.evidence.pose is None and not self.context.shared_pose:
            yield from self._run_pose(candidate, picture)
            if self._cannot_win(candidate, picture, floor, full):
                return
        if candidate.evidence.embedding is None:
            yield from self._run_recognizer(candidate, picture)
        if self._cannot_win(candidate, picture, floor, full):
            return
        if any(spec.raw_of(candidate.evidence) is None for spec in self._real):
            if real_from is None or not self._assumes_real or not self._assume_real(candidate, real_from):
                yield from self._run_real(candidate, picture)
            if self._cannot_win(candidate, picture, floor, full):
                return
        if "ifqa" in self._evaluator.names:
            yield from self._run_ifqa(candidate, picture)
            self._evaluate(candidate, picture)

    def replace_assumed_real(self, candidate: Candidate, picture: Picture) -> Steps:
        """If the value of `real` was taken from another face, compute the face's own value and evaluate the face
        again."""
        if candidate.assumes_real:
            candidate.assumes_real = False
            yield from self._run_real(candidate, picture)
            self._evaluate(candidate, picture)

    def refine(self, picture: Picture, face: Face) -> Generator[list[InferenceRequest], list[Any], Face | None]:
        """Detect the face again in its region, scaled to a fixed size; returns the new face, or None if it is not
        found."""
        centre = (face.box[:2] + face.box[2:]) / 2
        side = (1 + REFINE_GROWTH) * float(max(face.box[2] - face.box[0], face.box[3] - face.box[1], 1.0))
        scale = REFINE_SIDE / side
        corner = centre - side / 2
        matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
        (faces,) = yield [InferenceRequest("detector", picture.warp(matrix, REFINE_SIDE))]
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

    def embedding(self, face: Face, picture: Picture) -> Generator[list[InferenceRequest], list[Any], Array | None]:
        """The embedding of a face, float32 (D,); None if its landmarks coincide. Nothing is stored."""
        try:
            matrix = arcface_matrix(face.landmarks, ALIGNED_SIDE)
        except ValueError:
            return None
        (output,) = yield [InferenceRequest("recognizer", picture.warp(matrix, ALIGNED_SIDE))]
        embedding: Array = output.embedding
        return embedding

    def crop(self, candidate: Candidate, picture: Picture) -> Array:
        """The FFHQ-aligned picture to keep, RGB uint8; its side is `output.size`, or less for a small face when
        `output.upscale` is off.

        Also stores the ArcFace crop in the candidate if that crop is to be kept.
        """
        output = self.context.config.output
        landmarks, side = candidate.face.landmarks, crop_side(candidate.face, output)
        if "arcface" in output.crops:
            matrix = arcface_matrix(landmarks, ALIGNED_SIDE)
            candidate.arcface = warp_padded(picture, matrix, ALIGNED_SIDE, output.pad)
        return self.context.pictures.keep(warp_padded(picture, ffhq_matrix(landmarks, side), side, output.pad))

    def thumbnail(self, candidate: Candidate, picture: Picture) -> Array | None:
        """The face's FFHQ square, RGB uint8 (128, 128, 3); None if the landmarks coincide."""
        try:
            matrix = ffhq_matrix(candidate.face.landmarks, THUMBNAIL_SIDE)
        except ValueError:
            return None
        return picture.warp(matrix, THUMBNAIL_SIDE)

    def fingerprint(self, candidate: Candidate, picture: Picture) -> int | None:
        """The perceptual hash of the face; None if its landmarks define no square."""
        try:
            matrix = hash_matrix(candidate.face.landmarks)
        except ValueError:
            return None
        return perceptual_hash(picture.warp(matrix, HASH_SIDE))

    def score_ready(self, candidate: Candidate, picture: Picture, *, ffhq: bool) -> Steps:
        """Score an aligned crop. The recognizer always runs. IFQA and the expression network run only on an FFHQ crop
        (an ArcFace crop has no chin), the pose network only if the crop contains its input.

        Measures that need the source's picture stay `not_scored`, so there is no quality.
        """
        self._read_pixels(candidate, picture, of_source=False)
        if ffhq and self.sees_expressions:
            yield from self.run_expression(candidate, picture, ready=True)
        if not self.context.shared_pose and (ffhq or self.context.aligned_pose):
            yield from self._run_pose(candidate, picture)
        yield from self._run_recognizer(candidate, picture)
        if ffhq and "ifqa" in self._evaluator.names:
            yield from self._run_ifqa(candidate, picture)
        self._evaluate(candidate, picture)

    def _is_spoiled(self, candidate: Candidate, picture: Picture) -> bool:
        if not candidate.spoiled and not candidate.evidence.values:  # not examined yet
            candidate.spoiled = "corrupt" if picture.combed(candidate.face.box) else None
        return candidate.spoiled is not None

    def _is_seen(self, candidate: Candidate) -> bool:
        """Whether the expression network has run on the candidate, or cannot run on it."""
        evidence, specs = candidate.evidence, self._by_source["expression"]
        return any(spec.name in evidence.failed or spec.evidence[0] in evidence.values for spec in specs)

    def _cannot_win(self, candidate: Candidate, picture: Picture, floor: Floor, full: bool) -> bool:
        self._evaluate(candidate, picture)
        if full:
            return False
        bound = self._evaluator.bound(candidate.measures, candidate.ceilings)
        return bool(candidate.gate.reasons) or bound <= floor(candidate)

    def _evaluate(self, candidate: Candidate, picture: Picture) -> None:
        self._evaluator.evaluate(candidate, picture.width, picture.height)

    def _read_pixels(self, candidate: Candidate, picture: Picture, *, of_source: bool | None = None) -> None:
        """Collect the evidence that needs no network; `of_source` restricts it to measures with this value of
        `of_source`."""
        view = FaceView(picture, candidate.face, candidate.shown, _kept_square(candidate.face))
        for spec in self._by_source.get("pixels", ()):
            if spec.read is not None and of_source in (None, spec.of_source):
                note(spec, spec.read(view), candidate.evidence, needed=True)

    def _read(self, role: str, output: Any, evidence: Evidence) -> None:
        """Collect the evidence from a network's output for one face."""
        for spec in self._by_source.get(role, ()):
            if spec.read is not None:
                note(spec, spec.read(output), evidence)

    def _assume_real(self, candidate: Candidate, real_from: Candidate) -> bool:
        """Copy the value of `real` from another face; returns whether that face has one."""
        candidate.assumes_real = all(spec.raw_of(real_from.evidence) is not None for spec in self._real)
        if candidate.assumes_real:
            known = real_from.evidence.values
            names = [name for spec in self._real for name in spec.evidence if name in known]
            candidate.evidence.values.update((name, known[name]) for name in names)
        return candidate.assumes_real

    def _run_real(self, candidate: Candidate, picture: Picture) -> Steps:
        """Run the expression network for its output `real`, which earlier runs for this face left out."""
        try:
            matrix = expression_matrix(candidate.face.landmarks)
        except ValueError:
            return  # `run_expression` has noted the failure
        (output,) = yield [_expression_request(picture, matrix, real=True)]
        for spec in self._real:
            if spec.read is not None:
                note(spec, spec.read(output), candidate.evidence)

    def _run_pose(self, candidate: Candidate, picture: Picture) -> Steps:
        if self.context.aligned_pose:
            matrix = arcface_matrix(candidate.face.landmarks, ALIGNED_SIDE)
            (angles,) = yield [InferenceRequest("pose", picture.warp(matrix, ALIGNED_SIDE))]
            angles = upright(angles, matrix)
        else:
            matrix = box_matrix(crop_box(candidate.face.box), POSE_SIDE)
            (angles,) = yield [InferenceRequest("pose", picture.warp(matrix, POSE_SIDE))]
        self._note_pose(candidate, angles)

    def _note_pose(self, candidate: Candidate, angles: Array) -> None:
        if np.isfinite(angles).all():
            candidate.evidence.pose = Pose(*(float(angle) for angle in angles))
        else:
            candidate.evidence.failed.update(spec.name for spec in self._by_source.get("pose", ()))

    def _run_recognizer(self, candidate: Candidate, picture: Picture) -> Steps:
        matrix = arcface_matrix(candidate.face.landmarks, ALIGNED_SIDE)
        (output,) = yield [InferenceRequest("recognizer", picture.warp(matrix, ALIGNED_SIDE))]
        candidate.evidence.embedding = output.embedding
        if self.context.shared_pose:
            self._note_pose(candidate, upright(output.pose, matrix))
        if self.context.sampled_head is not None:
            output = replace(output, spread=self.context.sampled_head(output.features))
        self._read("recognizer", output, candidate.evidence)

    def _run_ifqa(self, candidate: Candidate, picture: Picture) -> Steps:
        crop = picture.warp(ffhq_matrix(candidate.face.landmarks, IFQA_SIDE), IFQA_SIDE)
        (output,) = yield [InferenceRequest("ifqa", crop)]
        self._read("ifqa", output, candidate.evidence)
        candidate.evidence.ifqa_map = output.map


def note(
    spec: MeasureSpec, read: float | Mapping[str, float] | None, evidence: Evidence, *, needed: bool = False
) -> None:
    """Put the result of a measure's `read` into the evidence; with `needed`, a result of None counts as a failure."""
    if read is None:
        if needed:
            evidence.failed.add(spec.name)
        return
    values = read if isinstance(read, Mapping) else {spec.evidence[0]: float(read)}
    if all(map(math.isfinite, values.values())):
        evidence.values.update(values)
    else:
        evidence.failed.add(spec.name)


def _expression_request(picture: Picture, matrix: Array, *, real: bool) -> InferenceRequest:
    """A run of the expression network on the crop that `matrix` cuts out; without `real`, that output is not needed."""
    height, width = EXPRESSION_SIZE
    return InferenceRequest("expression" if real else WITHOUT_REAL, picture.warp(matrix, (width, height)))


def _kept_square(face: Face) -> Array | None:
    try:
        return ffhq_corners(face.landmarks)
    except ValueError:
        return None


def crop_side(face: Face, output: OutputConfig) -> int:
    """Side of the kept picture in pixels."""
    return output.size if output.upscale else max(64, min(output.size, round(ffhq_side(face.landmarks))))


def enlargement(face: Face, output: OutputConfig) -> float:
    """How many times larger the kept picture is than the face's square in the source, at least 1.0."""
    return max(1.0, crop_side(face, output) / max(ffhq_side(face.landmarks), 1.0))


def enlarged(faces: Sequence[Face], thumbnail: Array, picture: Picture) -> list[Face]:
    """Convert faces found on a thumbnail to pixels of the full picture; pixel centres have integer coordinates."""
    ratio = np.array([picture.width / thumbnail.shape[1], picture.height / thumbnail.shape[0]])
    return [
        Face(
            ((face.box + 0.5) * np.tile(ratio, 2) - 0.5).astype(np.float32),
            ((face.landmarks + 0.5) * ratio - 0.5).astype(np.float32),
            face.score,
        )
        for face in faces
    ]
