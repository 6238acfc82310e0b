"""Takes a face from the main stream: finds the face's time in that stream, decodes from the key frame before that time,
and scores the face again."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
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
from streamgate.service.main_stream import MainStream
from streamgate.service.pins import Pinned
from streamgate.service.stream_alignment import FURTHEST_S, Look, Match, around, match, small_picture
from streamgate.sources.container import pixel_limit
from streamgate.sources.packet_ring import PacketRing
from streamgate.sources.picture import PictureMaker
from streamgate.sources.rtp import Unit, access_unit
from streamgate.tracks import BestShot, Candidate

_REACH_S = 0.3
"""The frame is searched for within this many seconds of its expected time."""
_COMPARED_S = 0.4
"""Pictures that are at most this many seconds earlier than the expected time are compared with the substream."""
_LEAST_COMPARED = 6
_KEPT = 12
"""Number of decoded frames that are kept while the offset is being checked; the frame to be found is among them."""
_ALIGN_PICTURES = 40
ANSWERED_S = 0.4
"""If a lookup is still in progress this many seconds after its deadline, the substream's face is used."""
_ALIKE = 0.6
"""Minimum correlation between the downscaled crops from the two streams for them to count as the same face."""
_ALIKE_UNSURE = 0.85
"""The minimum correlation as long as the offset has not been found by comparing pictures."""
_ALIKE_SIDE = 32
_MAIN_SAMPLES = 4


class Fallback(Exception):
    """Raised when the substream's face is to be used instead; the exception's text is a reason in
    `main_stream.FALLBACKS`."""


@dataclass(slots=True, eq=False)
class Lookup:
    """A request for a face from the main stream.

    Attributes:
        shot: the face in the substream.
        usual: reference values of the face's person, by measure.
        until: deadline for the arrival of the main stream's picture (`time.monotonic()`).
        done: called once, from another thread, with the main stream's shot, or with None if the substream's shot is to
            be used.
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
        """The face that is looked up: camera, connection, track and rank."""
        return id(self.main), self.shot.epoch, self.shot.track.track_id, self.shot.rank

    def overdue(self, seconds: float) -> bool:
        """Whether the deadline passed more than `seconds` ago."""
        return time.monotonic() > self.until + seconds


def look_up(lookup: Lookup) -> BestShot:
    """Find the face of a lookup in the main stream; returns its shot. Raises Fallback."""
    main, pts = lookup.main, lookup.shot.pts_seconds
    ring, alignment = main.ring, main.alignment
    if ring is None or (lookup.pinned is not None and lookup.pinned.ring is not ring):
        raise Fallback("away")
    offset = alignment.offset
    if offset is None:
        raise Fallback("unsure")

    def give_up() -> bool:
        return lookup.overdue(ANSWERED_S)

    if not alignment.found:
        align(main, give_up)
        offset = alignment.offset or offset
    spacing, newest = ring.spacing, ring.newest or 0.0
    wanted = pts + offset
    if newest < wanted - spacing / 2:
        raise Fallback("late")
    reach = min(max(alignment.doubt, 1.5 * spacing), _REACH_S)
    theirs = _looks_around(lookup) if alignment.due else []
    # If the frame nearest to the expected time is a key frame, earlier frames are needed only for a comparison, which
    # may change that time.
    start = wanted + (-1.5 if theirs else 0.49) * spacing
    units = ring.units(start, wanted + reach)
    if theirs and units:
        # Shortly after a key frame, too few pictures precede the face for a comparison, so decode later ones as well.
        least = units[0].time / ring.media.clock_rate + (_LEAST_COMPARED + 0.5) * spacing
        if least > wanted + reach:
            units = ring.units(start, least) or units
    if not units:
        raise Fallback("dropped")
    maker = PictureMaker(ring.media.codec, None)
    since = wanted - (_COMPARED_S if theirs else spacing)
    frames: list[tuple[float, VideoFrame]] = []
    looks: list[Look] = []
    for seconds, frame in _decoded(ring, units, since, maker, main.live, give_up):
        frames.append((seconds, frame))
        # Every kept frame needs its own memory, while the decoder reuses the memory of dropped frames.
        del frames[: -_KEPT if theirs else -2]
        if theirs and seconds >= since:
            looks.append(Look(seconds - offset, small_picture(maker.picture(frame), _MAIN_SAMPLES)))
        if seconds < pts + offset - spacing / 2:
            continue
        if theirs and len(looks) >= _LEAST_COMPARED:
            offset, theirs = _refined(main, looks, theirs, reach, offset), []
        if not theirs and seconds >= pts + offset - spacing / 2:
            break
    if theirs:
        offset = _refined(main, looks, theirs, reach, offset)
    if not frames:
        raise Fallback("damaged")
    seconds, frame = min(frames, key=lambda one: abs(one[0] - pts - offset))
    if abs(seconds - pts - offset) > spacing:
        raise Fallback("unsure")
    return _scored(lookup, maker, frame)


def _looks_around(lookup: Lookup) -> list[Look]:
    """Small pictures of the substream from around the time of the face, in order of time."""
    pts = lookup.shot.pts_seconds
    found = {look.seconds: look for look in (lookup.pinned.looks if lookup.pinned else ())}
    found |= {look.seconds: look for look in around(lookup.main.looks, pts - 1.0, pts + 1.0)}
    return [found[key] for key in sorted(found)]


def _refined(main: MainStream, ours: list[Look], theirs: list[Look], reach: float, offset: float) -> float:
    """The offset, refined by comparing decoded pictures with pictures of the substream. Raises Fallback."""
    assert main.ring is not None
    spacing = main.ring.spacing
    found = match(ours, theirs, max(reach, 2.5 * spacing) + spacing, spacing)
    if found is not None and found.sure:
        main.alignment.learn(found, spacing)
        return main.alignment.offset or offset
    if found is not None and found.off_limits:
        # The pictures show motion, but match best at the end of the tried lags, so the offset is probably wrong.
        main.alignment.doubted()
        raise Fallback("unsure")
    return offset


def align(main: MainStream, give_up: Callable[[], bool]) -> Match | None:
    """Try all possible offsets of a main stream; returns None if there are too few pictures to compare. Raises
    Fallback."""
    ring, offset = main.ring, main.alignment.offset
    if ring is None or offset is None:
        return None
    newest, spacing = ring.newest or 0.0, ring.spacing
    units = ring.units(newest - _ALIGN_PICTURES * spacing, newest)[:_ALIGN_PICTURES]
    if len(units) < _ALIGN_PICTURES // 2:
        return None
    theirs = list(main.looks)
    maker = PictureMaker(ring.media.codec, None)
    ours = [
        Look(seconds - offset, small_picture(maker.picture(frame), _MAIN_SAMPLES))
        for seconds, frame in _decoded(ring, units, -1e9, maker, main.live, give_up, coarse=True)
    ]
    found = match(ours, theirs, FURTHEST_S, spacing)
    if found is not None:
        main.alignment.learn(found, spacing)
    return found


def is_there(lookup: Lookup) -> bool:
    """Whether the packets to decode have arrived, or cannot arrive because the main stream is not connected."""
    ring, offset = lookup.main.ring, lookup.main.alignment.offset
    if ring is None or offset is None:
        return ring is None
    newest = ring.newest
    return newest is not None and newest >= lookup.shot.pts_seconds + offset + 2 * ring.spacing


def _decoded(
    ring: PacketRing, units: list[Unit], since: float, maker: PictureMaker, live: LiveConfig,
    give_up: Callable[[], bool], *, coarse: bool = False,
) -> Iterator[tuple[float, VideoFrame]]:
    """Decode `units`, which start with a key frame; yields pairs (seconds, frame), and sets `aspect` of `maker`.

    Frames before `since` that no other frame depends on are left out. `coarse` decoding is good enough for small
    pictures only. Raises Fallback.
    """
    media = ring.media
    codec = av.CodecContext.create(media.codec, "r")
    assert isinstance(codec, VideoCodecContext)
    codec.thread_count = 1
    codec.options = pixel_limit(live.max_pixels) | ({"skip_loop_filter": "all"} if coarse else {})
    codec.extradata = media.parameter_sets or None
    for unit in (*units, None):
        if give_up():
            raise Fallback("busy")
        try:
            if unit is None:
                frames = codec.decode(None)
            else:
                codec.skip_frame = "NONREF" if unit.time / media.clock_rate < since else "DEFAULT"
                packet = av.Packet(access_unit(unit, media.codec, ring.channel))
                packet.pts = unit.time
                frames = codec.decode(packet)
        except (av.error.FFmpegError, OSError, ValueError):
            raise Fallback("damaged") from None
        maker.aspect = codec.sample_aspect_ratio
        while frames:
            frame = frames.pop(0)
            if frame.pts is not None:
                yield frame.pts / media.clock_rate, frame
            del frame


def _scored(lookup: Lookup, maker: PictureMaker, frame: VideoFrame) -> BestShot:
    """Find the face in the main stream's picture and score it; returns its shot. Raises Fallback."""
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
    except ValueError:  # the face's landmarks coincide
        raise Fallback("no_face") from None
    if _likeness(shot.image, image) < (_ALIKE if lookup.main.alignment.found else _ALIKE_UNSURE):
        lookup.main.alignment.suspect()
        raise Fallback("unsure")
    config = scorer.context.config
    return replace(
        shot,
        image=image,
        face=candidate.face,
        evidence=replace(candidate.evidence, embedding=shot.embedding),
        measures=candidate.measures,
        quality=candidate.quality,
        # Faces before and after this one are not scored in the main stream, so only the face's own quality is known.
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
    """Detect the face at its expected position, and score it fully."""
    found = yield from scorer.refine(picture, candidate.face)
    if found is not None:
        candidate.face, candidate.refined = found, True
        yield from scorer.score(candidate, picture, no_floor, full=True)


def _likeness(one: Array, other: Array) -> float:
    """Correlation of two aligned pictures of a face, RGB uint8, after downscaling both."""
    small = []
    for image in (one, other):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        small.append(cv2.resize(grey, (_ALIKE_SIDE, _ALIKE_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32))
    a, b = (image - image.mean() for image in small)
    return float((a * b).sum() / max(float(np.sqrt((a**2).sum() * (b**2).sum())), 1e-6))
