"""Training pictures with their faces, packed once into one file on disk.

In unlabelled pictures, the faces are those that the standard detector finds at several scales of the whole, undegraded
picture. These labels are better than the detections in the degraded scenes that are made from the pictures.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from models.common.images import DataError, Source, decode_rgb, encode_jpeg, list_sources
from models.common.overlap import EvaluationSet
from models.detector import faces as rows_of
from models.detector.faces import SCORE, SURE
from models.detector.labels import Labelled
from models.recognizer.faces import person_of
from streamgate.networks.detector import Detector
from streamgate.networks.priors import suppress

LONGEST = 800
"""Larger pictures are scaled down to this long side, in pixels, before they are packed."""
LABEL_SIDES = (160, 320, 640)
"""Long sides at which faces are detected; sides of more than twice the picture's own long side are left out."""
CANDIDATE = 0.15
"""Minimum score at which a detection is not background."""
SAME_FACE = 0.4
ECHO_SHARE = 0.6

Look = Callable[[Source], tuple[Source, str, np.ndarray | None, np.ndarray, str]]
"""Maps a source to the source itself, its sha256, the picture to pack, the picture's faces, and what becomes of it."""
USED, UNREADABLE, FACELESS, LEFT_OUT = "used", "unreadable", "without a sure face", "left out"


@dataclass(frozen=True)
class LeaveOut:
    """Exclusions from training: LFW people, files by the first digits of their sha256, and pictures that look like
    evaluation pictures."""

    people: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()
    evaluation: EvaluationSet | None = None

    def key(self) -> bytes:
        """A value that changes when anything here changes."""
        seen = self.evaluation.sha256 if self.evaluation else []
        return hashlib.sha256(repr((sorted(self.people), sorted(self.digests), sorted(seen))).encode()).digest()

    def names(self, source: Source, digest: str) -> bool:
        """Whether a source is left out by its name or its digest."""
        return person_of(source.name) in self.people or any(digest.startswith(start) for start in self.digests)


class PictureSet:
    """Pictures of several packs in one order; `picture(i)` decodes picture i.

    faces: list of float32 [n, 16]; backgrounds: bool [count], whether a picture has no detection, not even an uncertain
    one; widths: of the pictures, in the pixels in which the labels are given; names, sha256: of the files; counts:
    number of pictures by what became of them. Pickles contain the paths and labels, but not the pictures.
    """

    def __init__(self, bases: Sequence[Path]) -> None:
        self.faces: list[np.ndarray] = []
        self.names: list[str] = []
        self.sha256: list[str] = []
        self.counts: dict[str, int] = {}
        self.widths: list[int] = []
        self._places: list[tuple[int, int, int]] = []
        self._packs = [base.with_suffix(".pack") for base in bases]
        self._open: dict[int, np.ndarray] = {}
        for number, base in enumerate(bases):
            index = json.loads(base.with_suffix(".json").read_text())
            rows = np.load(base.with_suffix(".npy"), allow_pickle=False)
            ends = np.cumsum(index["faces"])
            self.faces += [
                without_echoes(rows[end - count : end]) for end, count in zip(ends, index["faces"], strict=True)
            ]
            self.names += index["names"]
            self.sha256 += index["sha256"]
            self.widths += index["widths"]
            self._places += [(number, start, size) for start, size in index["places"]]
            for reason, count in index["counts"].items():
                self.counts[reason] = self.counts.get(reason, 0) + count
        self.backgrounds = np.array([len(faces) == 0 for faces in self.faces], bool)

    def __len__(self) -> int:
        return len(self.names)

    def picture(self, index: int, reduce: int = 1) -> np.ndarray:
        """uint8 [H, W, 3] RGB; reduce 2, 4 or 8 decodes a JPEG at that fraction of its size, which is faster."""
        pack, start, size = self._places[index]
        if pack not in self._open:
            self._open[pack] = np.memmap(self._packs[pack], np.uint8, "r")
        flag = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}[reduce]
        picture = cv2.imdecode(self._open[pack][start : start + size], flag)
        assert picture is not None
        return picture[..., ::-1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}


def prepare(
    paths: Sequence[Path],
    backgrounds: Sequence[Path],
    labelled: Sequence[tuple[Path, list[Labelled]]],
    leave_out: LeaveOut,
    folder: Path,
    detector: Detector | None,
    at_most: int,
    minimum: int,
) -> PictureSet:
    """Pack and label every picture, or reuse the packs in `folder` if nothing has changed.

    paths: folders and tar files of pictures with faces; backgrounds: folders and tar files of everyday pictures, which
    are also kept if they show no face; labelled: label files and their contents; at_most: maximum number of pictures
    from each path, evenly spaced; minimum: required number of pictures with a sure face; detector: None if `paths` and
    `backgrounds` are empty. Raises DataError with one line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bases = []
    if detector is not None:
        bases += [_pack_found(path, False, leave_out, folder, detector, at_most) for path in paths]
        bases += [_pack_found(path, True, leave_out, folder, detector, at_most) for path in backgrounds]
    bases += [_pack_labelled(file, found, leave_out, folder) for file, found in labelled]
    pictures = PictureSet(bases)
    useful = sum(1 for faces in pictures.faces if len(faces) and faces[:, SCORE].max() >= SURE)
    if useful < max(minimum, 1):
        told = ", ".join(f"{count} {reason}" for reason, count in pictures.counts.items() if count) or "no pictures"
        raise DataError(f"only {useful} pictures with a face ({told}): at least {max(minimum, 1)} are needed")
    return pictures


def find_faces(picture: np.ndarray, detector: Detector) -> np.ndarray:
    """The faces that the detector finds in RGB uint8 [H, W, 3] at several scales: float32 [n, 16], one row per face."""
    height, width = picture.shape[:2]
    views = [side for side in LABEL_SIDES if side <= 2 * max(height, width)] or [LABEL_SIDES[0]]
    found = []
    for side in views:
        scale = side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        for face in detector.detect([small], CANDIDATE)[0]:
            row = rows_of.rows(1)[0]
            row[rows_of.BOX] = face.box / scale
            row[rows_of.POINTS] = ((face.landmarks + 0.5) / scale - 0.5).reshape(-1)
            row[rows_of.HAS_POINTS], row[SCORE] = 1.0, face.score
            found.append(row)
    if not found:
        return rows_of.rows()
    rows = np.stack(found)
    return rows[suppress(rows[:, rows_of.BOX], rows[:, SCORE], SAME_FACE)]


def without_echoes(rows: np.ndarray) -> np.ndarray:
    """Leave out uncertain detections that are mostly inside a sure detection: they are parts of the same face."""
    sure = rows[:, SCORE] >= SURE
    inside = rows_of.share_inside(rows[~sure], rows[sure]).max(axis=1, initial=0.0) >= ECHO_SHARE
    keep = sure.copy()
    keep[~sure] = ~inside
    return rows[keep]


def _pack_found(
    path: Path, background: bool, leave_out: LeaveOut, folder: Path, detector: Detector, at_most: int
) -> Path:
    key = hashlib.sha256(leave_out.key() + repr((background, at_most)).encode())
    total, usable = 0, []
    for source in list_sources([path]):
        digest = hashlib.sha256(source.data).hexdigest()
        key.update(source.name.encode() + digest.encode())
        if not leave_out.names(source, digest):
            usable.append(total)
        total += 1
    if total == 0:
        raise DataError(f"no pictures in {path}: give folders or tar files of pictures")
    base = folder / f"pictures-{key.hexdigest()[:12]}"
    if not base.with_suffix(".json").is_file():
        step = max(1.0, len(usable) / at_most)
        chosen = {usable[int(i * step)] for i in range(min(len(usable), at_most))}
        sources = (source for i, source in enumerate(list_sources([path])) if i in chosen)

        def look(source: Source) -> tuple[Source, str, np.ndarray | None, np.ndarray, str]:
            digest = hashlib.sha256(source.data).hexdigest()
            picture = _bounded(decode_rgb(source.data))
            if picture is None:
                return source, digest, None, rows_of.rows(), UNREADABLE
            if leave_out.evaluation and leave_out.evaluation.match(digest, picture):
                return source, digest, None, rows_of.rows(), LEFT_OUT
            faces = find_faces(picture, detector)
            sure = len(faces) > 0 and faces[:, SCORE].max() >= SURE
            return source, digest, picture, faces, USED if sure or (background and not len(faces)) else FACELESS

        _write(base, path.name, sources, look, len(chosen), total - len(usable))
    return base


def _pack_labelled(file: Path, labelled: list[Labelled], leave_out: LeaveOut, folder: Path) -> Path:
    key = hashlib.sha256(leave_out.key() + file.read_bytes())
    base = folder / f"labelled-{key.hexdigest()[:12]}"
    if not base.with_suffix(".json").is_file():
        rows = {item.name: item.faces for item in labelled}
        sources = (Source(item.name, item.path.read_bytes()) for item in labelled)

        def look(source: Source) -> tuple[Source, str, np.ndarray | None, np.ndarray, str]:
            digest = hashlib.sha256(source.data).hexdigest()
            whole = decode_rgb(source.data)
            assert whole is not None  # read_labels has decoded it
            picture = _bounded(whole)
            if leave_out.names(source, digest) or (leave_out.evaluation and leave_out.evaluation.match(digest, whole)):
                return source, digest, None, rows_of.rows(), LEFT_OUT
            faces = rows[source.name].copy()
            faces[:, :14] *= picture.shape[1] / whole.shape[1]
            return source, digest, picture, faces, USED

        _write(base, file.name, sources, look, len(labelled))
    return base


def _write(base: Path, name: str, sources: Iterator[Source], look: Look, total: int, left_out: int = 0) -> None:
    counts = {USED: 0, UNREADABLE: 0, FACELESS: 0, LEFT_OUT: left_out}
    names, digests, places, widths, sizes, rows = [], [], [], [], [], []
    started, seen, offset = time.monotonic(), 0, 0
    part = base.with_suffix(".part")
    with part.open("wb") as out, ThreadPoolExecutor(2) as pool:
        while chunk := list(islice(sources, 128)):
            for source, digest, picture, faces, reason in pool.map(look, chunk):
                counts[reason] += 1
                if reason != USED:
                    continue
                whole = decode_rgb(source.data)
                same = whole is not None and whole.shape == picture.shape
                data = source.data if same and source.data[:2] == b"\xff\xd8" else encode_jpeg(picture, 95)
                if shutil.disk_usage(base.parent).free < len(data) + 256 * 2**20:
                    raise DataError(f"{base.parent}: the disk is full")
                out.write(data)
                names.append(source.name)
                digests.append(digest)
                places.append((offset, len(data)))
                widths.append(picture.shape[1])
                sizes.append(len(faces))
                rows.append(faces)
                offset += len(data)
            seen += len(chunk)
            left = (time.monotonic() - started) / seen * (total - seen)
            print(f"{name}: {seen} of {total} pictures, {len(names)} kept, {left:.0f} s left", flush=True)
    part.replace(base.with_suffix(".pack"))
    np.save(base.with_suffix(".npy"), np.concatenate(rows) if rows else rows_of.rows())
    draft = base.with_suffix(".json.part")
    index = {"names": names, "sha256": digests, "places": places, "widths": widths, "faces": sizes, "counts": counts}
    draft.write_text(json.dumps(index))
    draft.replace(base.with_suffix(".json"))


def _bounded(picture: np.ndarray | None) -> np.ndarray | None:
    """The picture, scaled down to a long side of LONGEST if it is larger."""
    if picture is None or max(picture.shape[:2]) <= LONGEST:
        return picture
    scale = LONGEST / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
