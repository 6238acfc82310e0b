"""Aligned training faces, made once from pictures and stored on disk as a memory map.

Each face is uint8 [144, 144, 3] RGB: the ArcFace crop of 112 px with 16 px more on every side, so that augmentation can
shift and rotate the face without an artificial border. The labels are stored with it: the head pose and the identity
embedding of the unaugmented picture, from the standard networks or from `Labels`.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from models.common.images import DataError, Source, decode_rgb, list_sources
from streamgate.networks import Networks
from streamgate.networks.alignment import arcface_matrix, box_matrix
from streamgate.networks.pose import CROP_SIDE as POSE_SIDE
from streamgate.networks.pose import crop_box, head_poses

SIDE = 112
MARGIN = 16
CANVAS = SIDE + 2 * MARGIN

DETECT_SIDES = (160, 320)
"""Minimum and maximum long side of the detector's input; small, because training pictures show one large face."""

PERSON = re.compile(r"(?P<person>.+)_\d{4}$")
"""LFW's file names: First_Last_0001."""

UNREADABLE, FACELESS = "unreadable", "without a face"
BY_NAME, BY_DIGEST, BY_LIKENESS = "left out by name", "left out by digest", "left out by likeness"


@dataclass(frozen=True)
class LeaveOut:
    """Exclusions from training.

    people: LFW names; digests: first digits of the sha256 of files; embeddings: float32 [m, D], L2-normalised, of
    evaluation faces; similarity: minimum cosine at which a face counts as a person of the evaluation faces.
    """

    people: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()
    embeddings: np.ndarray | None = None
    similarity: float = 0.6

    def key(self) -> bytes:
        """A value that changes when anything here changes."""
        faces = b"" if self.embeddings is None else self.embeddings.tobytes()
        words = repr((sorted(self.people), sorted(self.digests), self.similarity)).encode()
        return hashlib.sha256(words + faces).digest()


@dataclass(frozen=True)
class FaceSet:
    """Aligned faces with their labels.

    faces: n of uint8 [144, 144, 3]; pose: float32 [n, 3] degrees (yaw, pitch, roll in the signs of design.md 5, roll
    measured in the aligned picture); embedding: float32 [n, D] of the teacher, L2-normalised; masked: bool [n], the
    picture came from a folder of real masks; names, sha256: of the files; counts: pictures left out, by reason.
    """

    faces: Canvases
    pose: np.ndarray
    embedding: np.ndarray
    masked: np.ndarray
    names: list[str]
    sha256: list[str]
    counts: dict[str, int]

    def people(self) -> list[str | None]:
        """LFW name of each face; None if the file's name has another form."""
        return [person_of(name) for name in self.names]


@dataclass(frozen=True)
class Aligned:
    """One aligned face with its labels; `face` is uint8 [144, 144, 3]."""

    face: np.ndarray
    pose: np.ndarray
    embedding: np.ndarray


class Labels(Protocol):
    """Labels of pictures that do not come from the standard networks (labels.py)."""

    def key(self) -> bytes:
        """A value that changes when a label changes."""

    def align(self, picture: np.ndarray, sha256: str) -> Aligned | None:
        """The labelled face of RGB uint8 [H, W, 3], aligned; None if there is none. sha256: of the picture's file."""


def person_of(name: str) -> str | None:
    """`lfw/Ann_Lee/Ann_Lee_0002.jpg` -> `Ann_Lee`; None for names of another form."""
    match = PERSON.fullmatch(Path(name).stem)
    return match["person"] if match else None


def people_in(paths: Iterable[Path]) -> frozenset[str]:
    """Names in LFW pair lists, in the official format (name, number, ...) or as lines `A_0001.jpg B_0002.jpg`."""
    found = set()
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error
        for line in lines:
            for word in line.split():
                name = person_of(word) or word
                if not name.isdigit():
                    found.add(name)
    return frozenset(found)


def prepare(
    paths: Sequence[Path], masked: Sequence[Path], leave_out: LeaveOut, folder: Path, networks: Networks | Labels,
    minimum: int, border: float = 0.0,
) -> FaceSet:  # fmt: skip
    """Align every face of the given folders and tar files, or reuse the faces in `folder` if nothing has changed.

    Each path is stored separately, so adding a path later aligns only its faces. masked: the paths, also in `paths`, in
    which people wear real masks. border: width of a grey border around each picture, as a share of its long side;
    without a border, a face that fills its picture is not found. Raises DataError with one line: no pictures, too few
    faces, or not enough disk space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bases = [_prepare_one(path, leave_out, folder, networks, border) for path in paths]
    found = _open(bases, [path in masked for path in paths])
    if len(found.names) < max(minimum, 1):
        told = ", ".join(f"{count} {reason}" for reason, count in found.counts.items() if count) or "no pictures"
        raise DataError(f"only {len(found.names)} usable faces ({told}): at least {max(minimum, 1)} are needed")
    return found


def _prepare_one(path: Path, leave_out: LeaveOut, folder: Path, networks: Networks | Labels, border: float) -> Path:
    key = hashlib.sha256(leave_out.key())
    if not isinstance(networks, Networks):
        key.update(networks.key())
    if border:
        key.update(str(border).encode())
    total = 0
    for source in list_sources([path]):
        key.update(source.name.encode() + hashlib.sha256(source.data).digest())
        total += 1
    if total == 0:
        raise DataError(f"no pictures in {path}: give folders or tar files of pictures with one face each")
    base = folder / f"aligned-{CANVAS}-{key.hexdigest()[:12]}"
    if not base.with_suffix(".json").is_file():
        free, needed = shutil.disk_usage(folder).free, total * CANVAS * CANVAS * 3
        if free < needed + 512 * 2**20:
            raise DataError(f"{folder}: {free / 2**30:.1f} GiB free, the aligned faces need {needed / 2**30:.1f} GiB")
        _fill(path, leave_out, base, networks, total, border)
    return base


def _fill(
    path: Path, leave_out: LeaveOut, base: Path, networks: Networks | Labels, total: int, border: float
) -> None:
    counts = dict.fromkeys((UNREADABLE, FACELESS, BY_NAME, BY_DIGEST, BY_LIKENESS), 0)
    names, digests, poses, embeddings = [], [], [], []
    started, seen = time.monotonic(), 0

    def look(source: Source) -> tuple[Source, str, Aligned | str]:
        digest = hashlib.sha256(source.data).hexdigest()
        if person_of(source.name) in leave_out.people:
            return source, digest, BY_NAME
        if any(digest.startswith(start) for start in leave_out.digests):
            return source, digest, BY_DIGEST
        picture = decode_rgb(source.data)
        if picture is None:
            return source, digest, UNREADABLE
        if isinstance(networks, Networks):
            return source, digest, align(_bordered(picture, border), networks) or FACELESS
        return source, digest, networks.align(picture, digest) or FACELESS

    part = base.with_suffix(".part")
    with part.open("wb") as out, ThreadPoolExecutor(2) as pool:
        for batch in _chunks(list_sources([path]), 256):
            for source, digest, aligned in pool.map(look, batch):
                if isinstance(aligned, str):
                    counts[aligned] += 1
                elif _known(aligned.embedding, leave_out):
                    counts[BY_LIKENESS] += 1
                else:
                    out.write(aligned.face.tobytes())
                    names.append(source.name)
                    digests.append(digest)
                    poses.append(aligned.pose)
                    embeddings.append(aligned.embedding)
            seen += len(batch)
            left = (time.monotonic() - started) / seen * (total - seen)
            print(f"{path.name}: {seen} of {total} pictures, {len(names)} faces, {left:.0f} s left", flush=True)
    part.replace(base.with_suffix(".u8"))
    np.savez(
        base.with_suffix(".npz"),
        pose=np.array(poses, np.float32).reshape(-1, 3),
        embedding=np.stack(embeddings) if embeddings else np.empty((0, 128), np.float32),
    )
    draft = base.with_suffix(".json.part")
    draft.write_text(json.dumps({"names": names, "sha256": digests, "counts": counts}))
    draft.replace(base.with_suffix(".json"))


def _open(bases: Sequence[Path], masked: Sequence[bool]) -> FaceSet:
    indexes = [json.loads(base.with_suffix(".json").read_text()) for base in bases]
    counts: dict[str, int] = {}
    poses, embeddings = [], []
    for base, index in zip(bases, indexes, strict=True):
        for reason, count in index["counts"].items():
            counts[reason] = counts.get(reason, 0) + count
        with np.load(base.with_suffix(".npz"), allow_pickle=False) as arrays:
            if index["names"]:
                poses.append(arrays["pose"])
                embeddings.append(arrays["embedding"])
    sizes = [len(index["names"]) for index in indexes]
    return FaceSet(
        Canvases([base.with_suffix(".u8") for base in bases], sizes),
        np.concatenate(poses) if poses else np.empty((0, 3), np.float32),
        np.concatenate(embeddings) if embeddings else np.empty((0, 128), np.float32),
        np.repeat(masked, sizes),
        [name for index in indexes for name in index["names"]],
        [digest for index in indexes for digest in index["sha256"]],
        counts,
    )


class Canvases:
    """The aligned faces in several files on disk, as one sequence of uint8 [144, 144, 3].

    Pickles contain only the paths: a loader process opens the files itself, so that gigabytes need not be sent to it.
    """

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int]) -> None:
        self._paths, self._sizes = list(paths), list(sizes)
        self._starts = np.cumsum([0, *sizes])
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> np.ndarray:
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        if file not in self._maps:
            shape = (self._sizes[file], CANVAS, CANVAS, 3)
            self._maps[file] = np.memmap(self._paths[file], np.uint8, "r", shape=shape)
        return np.asarray(self._maps[file][index - self._starts[file]])

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_maps": {}}


def align(picture: np.ndarray, networks: Networks) -> Aligned | None:
    """The face nearest to the middle of RGB uint8 [H, W, 3], aligned and labelled; None if there is none."""
    long_side = max(picture.shape[:2])
    scale = min(max(long_side, DETECT_SIDES[0]), DETECT_SIDES[1]) / long_side
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    filter_ = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = picture if scale == 1 else cv2.resize(picture, size, interpolation=filter_)
    found = networks.detector.detect([small])[0]
    if not found:
        return None
    middle = np.array(size) / 2
    face = min(found, key=lambda face: float(np.linalg.norm(face.landmarks.mean(axis=0) - middle)))
    landmarks = (face.landmarks.astype(np.float64) + 0.5) / scale - 0.5
    box = face.box.astype(np.float64) / scale
    try:
        matrix = arcface_matrix(landmarks)
        region = warp(picture, box_matrix(crop_box(box), POSE_SIDE), POSE_SIDE)
    except ValueError:
        return None
    canvas = warp(picture, matrix + np.array([[0, 0, MARGIN], [0, 0, MARGIN]]), CANVAS)
    pose = head_poses(networks.pose, region[None])[0].astype(np.float32)
    # The roll in the aligned picture: alignment rotated the picture by this angle.
    pose[2] += np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    embedding = networks.recognizer.run(centre(canvas)[None]).embedding[0]
    length = float(np.linalg.norm(embedding))
    return Aligned(canvas, pose, (embedding / length).astype(np.float32)) if length > 0 else None


def _bordered(picture: np.ndarray, share: float) -> np.ndarray:
    width = round(share * max(picture.shape[:2]))
    return cv2.copyMakeBorder(picture, *([width] * 4), cv2.BORDER_CONSTANT, value=(120, 120, 120)) if width else picture


def warp(picture: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """The warped picture, uint8 [side, side, 3]; a larger source is first scaled down by area, to avoid aliasing."""
    gain = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if gain < 0.6:
        height, width = picture.shape[:2]
        size = (max(1, round(width * gain * 1.3)), max(1, round(height * gain * 1.3)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        x, y = size[0] / width, size[1] / height
        matrix = matrix @ np.array([[1 / x, 0, 0.5 / x - 0.5], [0, 1 / y, 0.5 / y - 0.5], [0, 0, 1]])
    return cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def centre(canvas: np.ndarray) -> np.ndarray:
    """The crop of 112 px in the middle of [..., 144, 144, 3]."""
    return np.ascontiguousarray(canvas[..., MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE, :])


def evaluation_embeddings(paths: Sequence[Path], networks: Networks | Labels, folder: Path) -> np.ndarray:
    """Teacher embeddings float32 [m, D], L2-normalised, of the faces of evaluation pictures; cached in `folder`."""
    key, sources = hashlib.sha256(), list(list_sources(paths))
    if not isinstance(networks, Networks):
        key.update(networks.key())
    for source in sources:
        key.update(source.name.encode() + hashlib.sha256(source.data).digest())
    kept = folder / f"evaluation-{key.hexdigest()[:12]}.npy"
    if not kept.is_file():
        found = [a.embedding for a in (_aligned_source(s, networks) for s in sources) if a is not None]
        if not found:
            raise DataError(f"no face found in {', '.join(map(str, paths))}, so no one would be left out")
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "evaluation.part.npy"
        np.save(part, np.stack(found))
        part.replace(kept)
    return np.load(kept)


def _aligned_source(source: Source, networks: Networks | Labels) -> Aligned | None:
    picture = decode_rgb(source.data)
    if picture is None:
        return None
    if isinstance(networks, Networks):
        return align(picture, networks)
    return networks.align(picture, hashlib.sha256(source.data).hexdigest())


def _known(embedding: np.ndarray, leave_out: LeaveOut) -> bool:
    if leave_out.embeddings is None:
        return False
    return bool((leave_out.embeddings @ embedding).max() >= leave_out.similarity)


def _chunks(sources: Iterator[Source], size: int) -> Iterator[list[Source]]:
    while chunk := list(islice(sources, size)):
        yield chunk
