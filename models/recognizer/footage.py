"""The sections of the evaluation that apply the gate to footage: blinks, and one face in four views."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from models.common.images import DataError
from models.common.report import Section
from models.common.stats import bootstrap
from models.recognizer.covers import mask, texture
from models.recognizer.network import Face, OwnNetwork
from streamgate import Gate
from streamgate.faces import ScoredFace, Status
from streamgate.frames import Frame
from streamgate.sources import open_source

HERE = Path(__file__).resolve().parent
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".gif")
TURNING = "intel_prev_head-pose-face-detection-female"
_SLACK = 0.002
"""Tolerance, in seconds, when a frame's time is compared with the rounded times in blinks.toml."""


def blinks(folder: Path, own: OwnNetwork) -> Section:
    """Frames with closed and with open eyes on the clips of blinks.toml: how many does `eyes_closed` reject?"""
    section = Section(
        "Blinks",
        ["clip", "closed, rejected as eyes_closed", "open, rejected as eyes_closed", "between, rejected"],
        note="Every frame of the clips in `blinks.toml` was labelled by hand and judged by the gate of the preset "
        "`studio`. Frames in which the lids are moving (*between*) count neither as open nor as closed. The "
        "bootstrap intervals are computed by resampling all frames.",
    )
    hits: dict[str, list[bool]] = {"closed": [], "open": [], "between": []}
    if "eyes" not in own.measures:
        raise DataError(f"{own.path}: has no calibrated `eyes`; train it with train.py --eyes")
    with Gate(models=own.models, device="cpu", settings=own.alone) as gate:
        for clip, marks in tomllib.loads((HERE / "blinks.toml").read_text()).items():
            found: dict[str, list[bool]] = {name: [] for name in hits}
            for frame in frames(clip_in(folder, clip)):
                scored = largest(gate, picture_of(frame, 640))
                if scored is not None:
                    found[kind_of(frame.pts_seconds, marks)].append("eyes_closed" in scored.gate.reasons)
            section.rows.append([clip, *(f"{sum(found[k])} of {len(found[k])}" for k in ("closed", "open", "between"))])
            for name in hits:
                hits[name] += found[name]
    shares = {name: np.array(values, float) for name, values in hits.items()}
    estimates = {
        name: bootstrap(lambda i, v=values: float(v[i].mean()), len(values)) for name, values in shares.items()
    }
    section.rows.append(["all", *(estimates[k].text(1, percent=True) for k in ("closed", "open", "between"))])
    section.goal("closed eyes rejected", estimates["closed"].value, 0.9, unit=" %")
    section.goal("open eyes rejected", estimates["open"].value, 0.1, at_most=True, unit=" %")
    return section


def kind_of(pts: float, marks: dict[str, list[list[float]]]) -> str:
    """The label in the clip's table in blinks.toml: closed, between or open."""
    for name in ("closed", "between"):
        if any(first - _SLACK <= pts <= last + _SLACK for first, last in marks[name]):
            return name
    return "open"


def same_face(folder: Path, own: OwnNetwork, frontal: str = "fsgan_conan", turning: str = TURNING) -> Section:
    """Scores and verdicts of one face at 1080p, at 360p and with a mask, and of a face from the side."""
    section = Section(
        "One face, four views",
        ["view", "SER-FIQ", "IFQA", "occlusion", "eyes", "yaw, pitch, roll", "quality", "gate"],
        note="Scalars (0..100) and the verdict of the preset `studio` on individual frames: the most frontal frame of "
        f"`{frontal}`, the same frame at a third of its size, the same frame with a drawn mask, and the frame of "
        f"`{turning}` in which the head is turned most.",
    )
    with Gate(models=own.models, device="cpu") as gate:
        front = _extreme(gate, clip_in(folder, frontal), turned=False, every=6)
        small = cv2.resize(front, None, fx=1 / 3, fy=1 / 3, interpolation=cv2.INTER_AREA)
        bare = largest(gate, front)
        assert bare is not None
        pictures = {
            f"{front.shape[0]}p": front,
            f"the same at {small.shape[0]}p": small,
            "the same with a mask": _masked(front, bare),
            "from the side": _extreme(gate, clip_in(folder, turning), turned=True, every=1),
        }
        found = {name: largest(gate, picture) for name, picture in pictures.items()}
    for name, scored in found.items():
        if scored is None:
            section.rows.append([name, *["no face found"] * 7])
            section.missed.append(f"view `{name}`: no face found")
            continue
        pose = "-" if scored.pose is None else f"{scored.pose.yaw:.0f}, {scored.pose.pitch:.0f}, {scored.pose.roll:.0f}"
        figures = [_scalar(scored, measure) for measure in ("serfiq", "ifqa", "occlusion", "eyes")]
        quality = "-" if scored.quality is None else f"{scored.quality:.1f}"
        verdict = "passes" if scored.gate.passed else ", ".join(scored.gate.reasons)
        section.rows.append([name, *figures, pose, quality, verdict])
    for name, wanted in zip(found, (True, True, False, False), strict=True):
        scored = found[name]
        passed = scored is not None and scored.gate.passed
        (section.met if passed == wanted else section.missed).append(
            f"view `{name}` {'passes' if wanted else 'is rejected'}"
        )
    first, second = list(found.values())[:2]
    higher = first is not None and second is not None and _raw(first, "ifqa") > _raw(second, "ifqa")
    (section.met if higher else section.missed).append("IFQA ranks 1080p above 360p")
    return section


def clip_in(folder: Path, stem: str) -> Path:
    """The video of that name in a folder."""
    for suffix in SUFFIXES:
        if (path := folder / f"{stem}{suffix}").is_file():
            return path
    raise DataError(f"{folder}: has no video {stem} ({', '.join(SUFFIXES)})")


def frames(video: Path) -> Iterator[Frame]:
    """The frames of a video, decoded by streamgate; each frame is valid until the next one."""
    with open_source(video, threads=1) as source:
        yield from source.frames()


def picture_of(frame: Frame, long_side: int) -> np.ndarray:
    """uint8 [H, W, 3] RGB, its long side at most `long_side`."""
    return frame.thumbnail(min(long_side, max(frame.width, frame.height)))


def largest(gate: Gate, picture: np.ndarray) -> ScoredFace | None:
    """The largest face of a picture, with all measures; None if there is no face."""
    return next(iter(gate.score(picture)), None)


def _extreme(gate: Gate, video: Path, turned: bool, every: int) -> np.ndarray:
    """Among every `every`-th frame: the one whose largest face is most turned, or least turned and with open eyes."""
    best: tuple[float, np.ndarray] | None = None
    for index, frame in enumerate(frames(video)):
        if index % every:
            continue
        picture = picture_of(frame, 10_000)
        scored = largest(gate, picture)
        if scored is None or scored.pose is None or (not turned and "eyes_closed" in scored.gate.reasons):
            continue
        yaw = abs(scored.pose.yaw) * (-1 if turned else 1)
        if best is None or yaw < best[0]:
            best = (yaw, picture)
    if best is None:
        raise DataError(f"{video}: no face found")
    return best[1]


def _masked(picture: np.ndarray, scored: ScoredFace) -> np.ndarray:
    """The picture with a drawn cloth mask over the face, soft at its edge."""
    rng = np.random.default_rng(5)
    face = Face(picture, scored.face.landmarks, scored.face.box)
    cloth = cv2.GaussianBlur(mask(rng), (0, 0), 0.8)[..., None]
    crop = face.crop
    covered = np.clip(crop + cloth * (texture(rng, "mask", crop) - crop), 0, 255).astype(np.uint8)
    return face.paste(picture, covered, cloth[..., 0] > 0.5)


def _scalar(scored: ScoredFace, measure: str) -> str:
    found = scored.measures[measure]
    return f"{found.scalar:.0f}" if found.scalar is not None else str(found.status)


def _raw(scored: ScoredFace, measure: str) -> float:
    found = scored.measures[measure]
    return found.raw if found.status is Status.OK and found.raw is not None else -1.0
