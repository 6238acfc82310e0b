"""One face from the main stream: find the instant, decode up to it from the key frame before, score the face again."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import av
import cv2
import numpy as np
from av import VideoFrame
from av.video.codeccontext import VideoCodecContext

from streamgate.config_sections import LiveConfig
from streamgate.faces import Face
from streamgate.frames import Array, Picture
from streamgate.networks.batcher import InferenceRequest
from streamgate.scoring.faces import enlargement
from streamgate.scoring.full_scorer import FullScorer
from streamgate.scoring.lockstep import no_floor, run_in_lockstep
from streamgate.service.alignment import FURTHEST_S, Look, Match, match, nearest, small_picture
from streamgate.service.mainstream import MainStream, Playing
from streamgate.service.pins import Pinned
from streamgate.sources.container import pixel_limit
from streamgate.sources.picture import PictureMaker
from streamgate.sources.rtp import Unit, access_unit
from streamgate.tracks import BestShot, Candidate

_REACH_S = 0.3
"""Around the expected instant, at most, where it is looked for."""
_COMPARED_S = 0.4
"""Of what is decoded up to the instant, so much is compared with the substream."""
_LEAST_COMPARED = 6
_ALIGN_PICTURES = 40
ANSWERED_S = 0.4
"""So long after its time is up a face has been answered, whatever was under way."""
_ALIKE = 0.6
"""Correlation of the two faces' small pictures below which they do not show the same."""
_ALIKE_UNSURE = 0.85
"""The same where no motion has told the offset yet."""
_ALIKE_SIDE = 32
_MAIN_SAMPLES = 4


class Fallback(Exception):
    """The face is the substream's, for a reason of `mainstream.FALLBACKS`."""


@dataclass(slots=True, eq=False)
class Lookup:
    """A face that is wanted from the main stream.

    Attributes:
        shot: of the substream.
        usual: what is usual for its person, by measure.
        until: `time.monotonic()` from which its picture is waited for no more.
        done: told the main stream's shot, or None where it is to be the substream's; once, from another thread.
    """

    main: MainStream
    scorer: FullScorer
    shot: BestShot
    usual: Mapping[str, float]
    pinned: Pinned | None
    final: bool
    until: float
    done: Callable[[BestShot | None], None]
    answered: bool = False

    @property
    def of(self) -> tuple[int, str, int, int]:
        """What it is about: camera, connection, track and rank."""
        return id(self.main), self.shot.epoch, self.shot.track.track_id, self.shot.rank

    def overdue(self, seconds: float) -> bool:
        """Whether its time has been up for so long."""
        return time.monotonic() > self.until + seconds


def look_up(lookup: Lookup) -> BestShot:
    """The main stream's shot of a face. Raises Fallback."""
    main, pts = lookup.main, lookup.shot.pts_seconds
    playing, alignment = main.playing, main.alignment
    if playing is None or (lookup.pinned is not None and lookup.pinned.playing is not playing):
        raise Fallback("away")
    offset = alignment.offset
    if offset is None:
        raise Fallback("unsure")
    if not alignment.found:
        align(main, lambda: lookup.overdue(ANSWERED_S))
        offset = alignment.offset or offset
    spacing, newest = playing.spacing, playing.ring.newest or 0.0
    wanted = pts + offset
    if newest < wanted - spacing / 2:
        raise Fallback("late")
    reach = min(max(alignment.doubt, 1.5 * spacing), _REACH_S)
    start = wanted - 0.5 * spacing
    units = playing.ring.units(start, wanted + reach)
    if units:
        # Close to a key frame there would be too little to compare.
        least = units[0].time / playing.media.clock_rate + (_LEAST_COMPARED + 0.5) * spacing
        if least > wanted + reach:
            units = playing.ring.units(start, least) or units
    if not units:
        raise Fallback("dropped")
    frames, looks, maker = _decoded(
        playing, units, wanted - _COMPARED_S, main.live, lambda: lookup.overdue(ANSWERED_S)
    )
    if not frames:
        raise Fallback("damaged")
    offset = _refined(lookup, looks, reach, spacing, offset)
    seconds = [one for one, _ in frames]
    index = nearest(seconds, pts + offset)
    if abs(seconds[index] - pts - offset) > spacing:
        raise Fallback("unsure")
    return _scored(lookup, maker, frames[index][1])


def _refined(lookup: Lookup, looks: list[Look], reach: float, spacing: float, offset: float) -> float:
    """The offset after a comparison of what was decoded with the substream around the face."""
    main, pts = lookup.main, lookup.shot.pts_seconds
    theirs = {look.seconds: look for look in (lookup.pinned.looks if lookup.pinned else ())}
    theirs |= {look.seconds: look for look in main.looks.between(pts - 1.0, pts + 1.0)}
    ours = [Look(look.seconds - offset, look.luma) for look in looks]
    known = [theirs[key] for key in sorted(theirs)]
    found = match(ours, known, max(reach, 2.5 * spacing) + spacing, spacing)
    if found is not None and found.sure:
        main.alignment.learn(found, spacing)
        return main.alignment.offset or offset
    if found is not None and found.off_limits:
        # Something moves, and not as was believed.
        main.alignment.doubted()
        raise Fallback("unsure")
    return offset


def align(main: MainStream, give_up: Callable[[], bool]) -> Match | None:
    """Look everywhere for the offset of a main stream; None where there is nothing to compare yet. Raises Fallback."""
    playing, offset = main.playing, main.alignment.offset
    if playing is None or offset is None:
        return None
    newest, spacing = playing.ring.newest or 0.0, playing.spacing
    units = playing.ring.units(newest - _ALIGN_PICTURES * spacing, newest)[:_ALIGN_PICTURES]
    if len(units) < _ALIGN_PICTURES // 2:
        return None
    theirs = main.looks.between(-1e9, 1e9)
    _, looks, _ = _decoded(playing, units, -1e9, main.live, give_up, keep=0, coarse=True)
    ours = [Look(look.seconds - offset, look.luma) for look in looks]
    found = match(ours, theirs, FURTHEST_S, spacing)
    if found is not None:
        main.alignment.learn(found, spacing)
    return found


def is_there(lookup: Lookup) -> bool:
    """Whether what is to be decoded has come, or will not."""
    playing, offset = lookup.main.playing, lookup.main.alignment.offset
    if playing is None or offset is None:
        return playing is None
    newest = playing.ring.newest
    return newest is not None and newest >= lookup.shot.pts_seconds + offset + 2 * playing.spacing


def _decoded(
    playing: Playing, units: list[Unit], compared_from: float, live: LiveConfig, give_up: Callable[[], bool],
    keep: int = 12, *, coarse: bool = False,
) -> tuple[list[tuple[float, VideoFrame]], list[Look], PictureMaker]:
    """Decode pictures from a key frame on: the last `keep` with their times, small pictures from a time on, and what
    makes pictures of the former. `coarse` decodes for small pictures only."""
    media = playing.media
    codec = av.CodecContext.create(media.codec, "r")
    assert isinstance(codec, VideoCodecContext)
    codec.thread_count = 1
    codec.options = pixel_limit(live.max_pixels) | ({"skip_loop_filter": "all"} if coarse else {})
    codec.extradata = media.parameter_sets or None
    maker = PictureMaker(media.codec, None)
    frames: list[tuple[float, VideoFrame]] = []
    looks: list[Look] = []

    def take(found: list[VideoFrame]) -> None:
        for frame in found:
            if frame.pts is None:
                continue
            seconds = frame.pts / media.clock_rate
            if seconds >= compared_from:
                looks.append(Look(seconds, small_picture(maker.picture(frame), _MAIN_SAMPLES)))
            frames.append((seconds, frame))
            del frames[: max(0, len(frames) - keep)]

    try:
        for unit in units:
            if give_up():
                raise Fallback("busy")
            # What nothing builds on is decoded only where it is looked at.
            codec.skip_frame = "NONREF" if unit.time / media.clock_rate < compared_from else "DEFAULT"
            packet = av.Packet(access_unit(unit, media.codec, playing.channel))
            packet.pts = unit.time
            take(codec.decode(packet))
        take(codec.decode(None))
    except (av.error.FFmpegError, OSError, ValueError):
        raise Fallback("damaged") from None
    maker.aspect = codec.sample_aspect_ratio
    return sorted(frames, key=lambda one: one[0]), sorted(looks, key=lambda one: one.seconds), maker


def _scored(lookup: Lookup, maker: PictureMaker, frame: VideoFrame) -> BestShot:
    """The shot of the same face in the main stream's picture."""
    shot, scorer = lookup.shot, lookup.scorer
    if frame.is_corrupt:
        raise Fallback("damaged")
    picture = maker.picture(frame)
    width, height = lookup.main.size
    ratio = np.array([picture.width / max(width, 1), picture.height / max(height, 1)])
    expected = Face(
        ((shot.face.box + 0.5) * np.tile(ratio, 2) - 0.5).astype(np.float32),
        ((shot.face.landmarks + 0.5) * ratio - 0.5).astype(np.float32),
        shot.face.score,
    )
    candidate = Candidate(
        face=expected, track_id=shot.track.track_id, pts_seconds=shot.pts_seconds, pts_estimated=shot.pts_estimated,
        captured_at=shot.captured_at, usual=lookup.usual,
    )  # fmt: skip
    run_in_lockstep([_again(scorer, candidate, picture)], scorer.context.infer)
    if not candidate.refined:
        raise Fallback("no_face")
    if shot.gate.passed and not candidate.gate.passed:
        raise Fallback("rejected")
    try:
        image = scorer.crop(candidate, picture)
        phash = scorer.fingerprint(candidate, picture)
    except ValueError:  # its landmarks coincide
        raise Fallback("no_face") from None
    if _likeness(shot.image, image) < (_ALIKE if lookup.main.alignment.found else _ALIKE_UNSURE):
        raise Fallback("unsure")
    config = scorer.context.config
    return replace(
        shot,
        image=image,
        face=candidate.face,
        evidence=replace(candidate.evidence, embedding=shot.embedding),
        measures=candidate.measures,
        quality=candidate.quality,
        # Of the main stream no other face near it is scored: its own quality is all that there is.
        quality_smoothed=candidate.quality,
        quality_context=candidate.quality,
        gate=candidate.gate,
        frame_index=None,
        upscaled=enlargement(candidate.face, config.output),
        phash=phash,
        stream="main",
    )


def _again(
    scorer: FullScorer, candidate: Candidate, picture: Picture
) -> Generator[list[InferenceRequest], list[Any], None]:
    """Detect where the face is expected, and score it fully."""
    found = yield from scorer.refine(picture, candidate.face)
    if found is not None:
        candidate.face, candidate.refined = found, True
        yield from scorer.score(candidate, picture, no_floor, full=True)


def _likeness(one: Array, other: Array) -> float:
    """Correlation of two aligned pictures of a face, RGB uint8, when both are small."""
    small = []
    for image in (one, other):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small.append(cv2.resize(grey, (_ALIKE_SIDE, _ALIKE_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32))
    a, b = (image - image.mean() for image in small)
    return float((a * b).sum() / max(float(np.sqrt((a**2).sum() * (b**2).sum())), 1e-6))
