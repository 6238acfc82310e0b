"""Scores a face with all measures: first the measures of networks with a role, then the measures with their own crop.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from streamgate.config import Config
from streamgate.faces import Face, Status
from streamgate.frames import Array, Picture
from streamgate.measures import CropCard, MeasureSpec
from streamgate.measures.crop_card import CHEAP
from streamgate.networks.alignment import arcface_matrix, box_matrix, ffhq_matrix, umeyama
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.calibration import recorded_measures
from streamgate.scoring.context import ScoringContext
from streamgate.scoring.faces import FaceScorer, note
from streamgate.scoring.lockstep import Floor, Steps
from streamgate.tracking.overlap import square
from streamgate.tracks import Candidate

_SLACK = 0.15
"""Extra margin around a card's crop, as a share of the box."""


class FullScorer(FaceScorer):
    """A `FaceScorer` that also computes the measures with a `CropCard`, cheap measures first, for faces that have
    passed so far.

    Measures without a calibration are computed too, because their raw values are shown.
    """

    def __init__(self, context: ScoringContext) -> None:
        super().__init__(context)
        absent = context.evaluator.calibration.absent
        specs = recorded_measures(context.config)
        here = [spec for spec in specs if spec.card is not None and absent.get(spec.name) is not Status.NO_WEIGHTS]
        self._rated = [(spec, spec.card) for spec in here if spec.card and context.config.measures[spec.name].use]
        self._rated.sort(key=lambda pair: pair[1].engine not in CHEAP)
        self._unscaled_ifqa = (
            absent.get("ifqa") is Status.UNCALIBRATED and context.config.measures["ifqa"].use
        )

    def score(
        self, candidate: Candidate, picture: Picture, floor: Floor, *, full: bool, real_from: Candidate | None = None
    ) -> Steps:
        """Run `FaceScorer.score`, then compute the other measures for as long as the quality can still exceed the
        floor."""
        yield from super().score(candidate, picture, floor, full=full, real_from=real_from)
        if candidate.evidence.embedding is None or not (self._rated or self._unscaled_ifqa):
            return
        if self._cannot_win(candidate, picture, floor, full):
            return
        if self._unscaled_ifqa and candidate.evidence.ifqa_map is None:
            yield from self._run_ifqa(candidate, picture)
        for spec, card in self._rated:
            yield from self._rate(spec, card, candidate, picture)
            if self._cannot_win(candidate, picture, floor, full):
                return

    def score_ready(self, candidate: Candidate, picture: Picture, *, ffhq: bool) -> Steps:
        """Run `FaceScorer.score_ready`, then compute the other measures; on an ArcFace crop, only the measures that
        take an ArcFace crop."""
        yield from super().score_ready(candidate, picture, ffhq=ffhq)
        if ffhq and self._unscaled_ifqa:
            yield from self._run_ifqa(candidate, picture)
        for spec, card in self._rated:
            if not spec.of_source and (ffhq or card.crop == "arcface"):
                yield from self._rate(spec, card, candidate, picture)
        self._evaluate(candidate, picture)

    def _rate(self, spec: MeasureSpec, card: CropCard, candidate: Candidate, picture: Picture) -> Steps:
        evidence = candidate.evidence
        if spec.evidence[0] in evidence.values or spec.name in evidence.failed:
            return
        try:
            crop = picture.warp(crop_matrix(card, candidate.face, picture), card.size)
        except ValueError:  # the landmarks coincide
            evidence.failed.add(spec.name)
            return
        (output,) = yield [InferenceRequest(spec.source, crop)]
        assert spec.read is not None
        note(spec, spec.read(output), evidence)
        if output.map is not None:
            evidence.maps[spec.name] = output.map


def cards_in_use(config: Config) -> tuple[CropCard, ...]:
    """The `CropCard`s of the measures in use."""
    specs = recorded_measures(config)
    return tuple(spec.card for spec in specs if spec.card is not None and config.measures[spec.name].use)


def face_region(box: Array, margin: float, cards: Iterable[CropCard], picture: Picture) -> Array:
    """The region [x1, y1, x2, y2] around a face that has to be held so that all crops can be cut from it later.

    It is a square with a margin of `margin` times the box's longer side on each side, or more if a card needs more.
    """
    found = square(box, margin)
    for card in cards:
        if card.crop not in ("loose", "box"):
            continue
        # The face is detected again in the kept region, and its new box may differ a little from the expected one.
        around = card.margin + _SLACK
        if card.crop == "loose":
            wanted = square(box, around)
        else:
            wanted = _inside(box, 1 + 2 * around, picture.width, picture.height)
        found = np.concatenate([np.minimum(found[:2], wanted[:2]), np.maximum(found[2:], wanted[2:])])
    return found


def crop_matrix(card: CropCard, face: Face, picture: Picture) -> Array:
    """Matrix (2, 3) from a picture's pixels to a card's crop. Raises ValueError if the landmarks coincide."""
    if card.crop == "ffhq":
        return ffhq_matrix(face.landmarks, card.size)
    if card.crop == "arcface":
        return arcface_matrix(face.landmarks, card.size)
    if card.crop == "loose":
        middle, side = (face.box[:2] + face.box[2:]) / 2, float((face.box[2:] - face.box[:2]).max())
        half = (0.5 + card.margin) * side
        return box_matrix(np.concatenate([middle - half, middle + half]), card.size)
    if card.crop == "box":
        return box_matrix(_inside(face.box, 1 + 2 * card.margin, picture.width, picture.height), card.size)
    points = np.array([face.landmarks[0], face.landmarks[1], face.landmarks[3:].mean(axis=0)])
    return umeyama(points, np.array(card.points) * card.size - 0.5)


def _inside(box: Array, times: float, width: int, height: int) -> Array:
    """A box enlarged about its centre by the factor `times`, or by less if it would not fit into the picture, and then
    moved into the picture."""
    sides = np.maximum(box[2:] - box[:2], 1.0)
    frame = np.array([width, height], float)
    half = sides * min(times, float((frame / sides).min())) / 2
    middle = np.clip((box[:2] + box[2:]) / 2, half, frame - half)
    return np.concatenate([middle - half, middle + half])
