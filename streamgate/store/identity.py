"""Stores embeddings in OUT/.streamgate/identity, one file per source.

The embeddings are not in the folders of the sources, because users may share these folders, and embeddings are
biometric data.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO

import numpy as np

from streamgate.errors import ResultsError, display
from streamgate.frames import Array
from streamgate.store import files
from streamgate.store.layout import STATE_DIR
from streamgate.tracks import Template

_FOLDER = f"{STATE_DIR}/identity"

_FIGURES = ("weight", "agreement", "inter_eye", "offset")
"""The fields of a `Template` that follow its vector and its number of faces, in order."""

FaceKey = tuple[int, int]
"""Track id and rank of a kept face; rank 0 is the track as a whole."""


Templates = dict[int, Template]
"""The templates of a source's kept tracks, by track id."""
Embeddings = dict[FaceKey, Array]
"""Embeddings of a source's kept faces, float32 (D,), not normalised. They are used to detect near-duplicates among the
faces of a person; there are none if faces are kept per track."""


def save_identity(out: Path, source_id: str, templates: Templates, faces: Embeddings) -> None:
    """Write the file of a source atomically, or no file if there are no embeddings. Raises OSError.

    The bytes of the file depend only on the values.
    """
    keys = sorted([*((track_id, 0) for track_id in templates), *faces])
    if not keys:
        return
    vectors = [faces[key] if key[1] else templates[key[0]].vector for key in keys]
    rows = np.zeros(len(keys), _layout(len(vectors[0])))
    for row, (track_id, rank), vector in zip(rows, keys, vectors, strict=True):
        row["track_id"], row["rank"], row["vector"] = track_id, rank, vector
        if rank == 0:
            one = templates[track_id]
            row["faces"], row["weight"] = one.faces, one.weight
            row["agreement"], row["inter_eye"] = one.agreement, one.inter_eye
            row["offset"] = one.offset
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    files.make_folder(out, _FOLDER)
    files.write_bytes(out, f"{_FOLDER}/{source_id}.npy", buffer.getvalue())


def load_identity(out: Path, source_id: str) -> tuple[Templates, Embeddings]:
    """Read the file of a source; both results are empty if there is no file. Raises ResultsError if it is damaged."""
    name = f"{_FOLDER}/{source_id}.npy"
    path = display(out / name)
    try:
        with files.open_below(out, name) as file:
            rows = _read_rows(file)
    except FileNotFoundError:
        return {}, {}
    except OSError as error:
        raise ResultsError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ResultsError(
            f"{path} is damaged; remove it (each of its tracks then becomes a separate person), or run its source again"
        ) from error
    templates: Templates = {}
    faces: Embeddings = {}
    for row in rows:
        track_id, rank, vector = int(row["track_id"]), int(row["rank"]), np.array(row["vector"])
        if rank:
            faces[(track_id, rank)] = vector
            continue
        figures = (float(row[name]) for name in _FIGURES)
        templates[track_id] = Template(vector, int(row["faces"]), *figures)
    return templates, faces


def remove_identity(out: Path, source_id: str | None = None) -> None:
    """Remove the embeddings of this output folder, either all or those of one source. Never raises."""
    files.remove_tree(out, _FOLDER if source_id is None else f"{_FOLDER}/{source_id}.npy")


def _read_rows(file: IO[bytes]) -> Array:
    """The rows of a file. Raises ValueError if the file is not valid, for example if its header is wrong."""
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        mine = len(shape) == 1 and dtype == _layout(dtype["vector"].shape[0])
        if not mine or os.fstat(file.fileno()).st_size - file.tell() != shape[0] * dtype.itemsize:
            raise ValueError("not a valid table")
    except (KeyError, IndexError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not a valid table") from error
    rows = np.frombuffer(file.read(), dtype)
    if not all(np.isfinite(rows[name]).all() for name in (*_FIGURES, "vector")):
        raise ValueError("not finite")
    return rows


def _layout(size: int) -> np.dtype:
    return np.dtype(
        [
            ("track_id", "<i4"),
            ("rank", "<i4"),
            ("faces", "<i4"),
            ("weight", "<f4"),
            ("agreement", "<f4"),
            ("inter_eye", "<f4"),
            ("offset", "<f4"),
            ("vector", "<f4", (size,)),
        ]
    )
