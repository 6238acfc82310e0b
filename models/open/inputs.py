"""Pictures and files of arrays that the recipes of the set `open` read, and the arrays that they write."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np

from models.common.images import DataError, decode_rgb
from streamgate.weights.files import atomic_write

SHAPES: dict[str, tuple[int, ...]] = {
    "sha256": (), "points": (5, 2), "box": (4,), "score": (), "pose": (3,), "shapes": (52,), "mesh": (478, 2),
}  # fmt: skip
"""Shape of one row of each array (label.py, scan.py)."""
NARROWEST = 200
"""Maximum ratio of the sides of a picture; when scaled down, a narrower picture would have no pixel left."""

_KINDS = Path(__file__).with_name("kinds.txt")


def read_kinds() -> dict[str, str]:
    """The kind of each portrait that is not known to be a photograph, by the first 16 digits of its sha256."""
    lines = (line.split() for line in _KINDS.read_text().splitlines() if not line.startswith("#"))
    return dict(tuple(line[:2]) for line in lines)


def read_list(file: Path) -> frozenset[str]:
    """The hashes in a list of pictures in the format of `sha256sum` (pictures.sha256). Raises DataError."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a list of pictures ({' '.join(str(error).split())})") from error
    digests = [line.split(" ", 1)[0] for line in lines if line and not line.startswith("#")]
    if not digests or not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
        raise DataError(f"{file}: not a list of pictures; each line must be a sha256 and a name, as sha256sum writes")
    return frozenset(digests)


def usable_picture(data: bytes) -> np.ndarray | None:
    """uint8 [H, W, 3] RGB, or None if the bytes are not a readable picture or the picture is extremely narrow."""
    picture = decode_rgb(data)
    return None if picture is None or max(picture.shape[:2]) > NARROWEST * min(picture.shape[:2]) else picture


def read_arrays(file: Path, *names: str) -> dict[str, np.ndarray]:
    """`sha256` and the named arrays of a file of labels (label.py) or places (scan.py), with one row per face.

    Raises DataError if the file is not such a file, or if the arrays do not fit together.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("sha256", *names)}
    except (
        OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error
    ) as error:  # fmt: skip
        why = " ".join(str(error).split())
        raise DataError(
            f"{file}: not a file of labels ({why}); models/open/label.py writes them, and scan.py writes places"
        ) from error
    for name, array in found.items():
        wanted = (found["sha256"].size, *SHAPES[name])
        kinds = "fiu" if name != "sha256" else "U" if array.size else "Uf"
        if array.shape != wanted or array.dtype.kind not in kinds:
            raise DataError(
                f"{file}: not a file of labels (the array {name} is {array.dtype} {list(array.shape)}; it should "
                f"{'have the names of pictures' if name == 'sha256' else f'be numbers {list(wanted)}'})"
            )
    return found


def write_arrays(file: Path, **arrays: np.ndarray) -> None:
    """Write a file of arrays under exactly this name, all of it or nothing."""
    with atomic_write(file) as out:
        np.savez_compressed(out, **arrays)  # type: ignore[arg-type]


def check_target(file: Path) -> None:
    """Raises DataError if a file could not be written there, so that this is known before hours of work."""
    if not file.parent.is_dir() or file.is_dir():
        raise DataError(f"{file}: cannot be written; give a file in an existing folder")
