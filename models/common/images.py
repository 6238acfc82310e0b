"""Pictures from folders and tar files, and a cache of the decoded pictures on disk.

Pictures are uint8 [H, W, 3] RGB everywhere in the recipes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


class DataError(Exception):
    """The given training data cannot be used; the message has one line and says what to do."""


@dataclass(frozen=True)
class Source:
    """One undecoded picture: `name` is unique within its data set."""

    name: str
    data: bytes


def decode_rgb(data: bytes) -> np.ndarray | None:
    """uint8 [H, W, 3] RGB, or None if the bytes are not a readable picture."""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # more pixels than OpenCV decodes
        return None
    return None if picture is None else np.ascontiguousarray(picture[..., ::-1])


def read_rgb(path: Path | str) -> np.ndarray:
    """uint8 [H, W, 3] RGB of one file; DataError if it cannot be read."""
    try:
        picture = decode_rgb(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if picture is None:
        raise DataError(f"{path}: not a readable picture")
    return picture


def write_rgb(path: Path | str, picture: np.ndarray) -> None:
    """Write uint8 [H, W, 3] RGB in the format of the file's suffix."""
    if not cv2.imwrite(str(path), picture[..., ::-1]):
        raise DataError(f"{path}: could not be written")


def list_sources(paths: Sequence[Path | str]) -> Iterator[Source]:
    """Every picture below the given folders and inside the given tar files, in sorted order of path.

    Raises DataError if a path is neither, or cannot be read.
    """
    for path in map(Path, paths):
        try:
            if path.is_dir():
                for file in sorted(path.rglob("*")):
                    if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file():
                        yield Source(f"{path.name}/{file.relative_to(path).as_posix()}", file.read_bytes())
            elif path.is_file() and tarfile.is_tarfile(path):
                with tarfile.open(path) as archive:
                    members = [m for m in archive if m.isfile() and Path(m.name).suffix.lower() in PICTURE_SUFFIXES]
                    for member in sorted(members, key=lambda m: m.name):
                        stream = archive.extractfile(member)
                        yield Source(f"{path.name}/{member.name}", stream.read() if stream else b"")
            elif path.exists():
                raise DataError(f"{path}: neither a folder nor a tar file")
            else:
                raise DataError(f"{path}: no such folder or tar file")
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error


def shrink_square(picture: np.ndarray, side: int) -> np.ndarray:
    """The centre square of a picture, scaled down to `side` by area averaging; never enlarged."""
    height, width = picture.shape[:2]
    short = min(height, width)
    if short < side:
        raise ValueError(f"a {width}x{height} picture would have to be enlarged to {side}")
    top, left = (height - short) // 2, (width - short) // 2
    square = picture[top : top + short, left : left + short]
    return square if short == side else cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)


def average_hash(picture: np.ndarray) -> int:
    """64-bit perceptual hash of RGB uint8: signs of horizontal luma differences on a 9x8 grid."""
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    grid = cv2.resize(luma, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int.from_bytes(np.packbits(grid[:, 1:] > grid[:, :-1]).tobytes(), "big")


@dataclass(frozen=True)
class FaceCache:
    """Decoded square faces: `faces` is uint8 [n, side, side, 3] RGB on disk; the lists have the same order."""

    faces: np.ndarray
    names: list[str]
    sha256: list[str]
    dhash: list[int]
    skipped_unreadable: int
    skipped_small: int


def build_cache(
    paths: Sequence[Path | str],
    folder: Path,
    side: int,
    minimum: int = 1,
    leave_out: frozenset[str] = frozenset(),
) -> FaceCache:
    """Decode every picture once into a memory map below `folder`, which is reused if the sources are unchanged.

    paths: folders and tar files; side: side of the cached squares (smaller pictures are skipped, never enlarged);
    minimum: required number of usable faces; leave_out: sha256 digests of files that must not be used (evaluation
    sets). Raises DataError with one line: no pictures, too few usable pictures, or not enough disk space.
    """
    key = hashlib.sha256(repr((sorted(leave_out), side)).encode())
    total = 0
    for source in list_sources(paths):
        key.update(source.name.encode() + hashlib.sha256(source.data).digest())
        total += 1
    if total == 0:
        raise DataError(f"no pictures in {', '.join(map(str, paths))}: give folders or tar files of aligned faces")
    if total < minimum:
        raise DataError(f"only {total} pictures in {', '.join(map(str, paths))}: at least {minimum} are needed")
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / f"faces-{side}-{key.hexdigest()[:12]}"
    index_path, data_path = base.with_suffix(".json"), base.with_suffix(".u8")
    if not (index_path.is_file() and data_path.is_file()):
        needed = total * side * side * 3
        free = shutil.disk_usage(folder).free
        if free < needed + 512 * 2**20:
            raise DataError(f"{folder}: {free / 2**30:.1f} GiB free, the decoded cache needs {needed / 2**30:.1f} GiB")
        _fill_cache(paths, side, leave_out, data_path, index_path)
    index = json.loads(index_path.read_text())
    count = len(index["names"])
    if count < minimum:
        raise DataError(
            f"only {count} usable faces ({index['unreadable']} unreadable, "
            f"{index['small']} smaller than {side} px): at least {minimum} are needed"
        )
    faces = np.memmap(data_path, np.uint8, "r", shape=(count, side, side, 3))
    return FaceCache(
        faces,
        index["names"],
        index["sha256"],
        [int(h, 16) for h in index["dhash"]],
        index["unreadable"],
        index["small"],
    )


def _fill_cache(
    paths: Sequence[Path | str], side: int, leave_out: frozenset[str], data_path: Path, index_path: Path
) -> None:
    index: dict = {"names": [], "sha256": [], "dhash": [], "unreadable": 0, "small": 0}
    part = data_path.with_suffix(".part")
    with part.open("wb") as out:
        for source in list_sources(paths):
            digest = hashlib.sha256(source.data).hexdigest()
            picture = decode_rgb(source.data)
            if picture is None:
                index["unreadable"] += 1
            elif min(picture.shape[:2]) < side:
                index["small"] += 1
            elif digest not in leave_out:
                face = shrink_square(picture, side)
                out.write(np.ascontiguousarray(face).tobytes())
                index["names"].append(source.name)
                index["sha256"].append(digest)
                index["dhash"].append(f"{average_hash(face):016x}")
    part.replace(data_path)
    draft = index_path.with_suffix(".json.part")
    draft.write_text(json.dumps(index))
    draft.replace(index_path)


def encode_jpeg(picture: np.ndarray, quality: int, chroma_444: bool = False) -> bytes:
    """RGB uint8 -> JPEG bytes (4:2:0 unless chroma_444)."""
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if chroma_444 else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    flags = [cv2.IMWRITE_JPEG_QUALITY, int(quality), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    ok, data = cv2.imencode(".jpg", picture[..., ::-1], flags)
    if not ok:
        raise ValueError("JPEG encoding failed")
    return data.tobytes()
