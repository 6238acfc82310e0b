"""Where templates lie while a run goes: OUT/.streamgate/identity, a file a source, never in a source's own folder.

Whoever passes results on passes on the folders of the sources; embeddings are biometric and stay behind.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamgate.errors import SinkError
from streamgate.frames import Array, Template
from streamgate.store import files

FOLDER = "identity"


FaceKey = tuple[int, int]
"""Track id and rank of a kept face; rank 0 is the track as a whole."""


@dataclass(slots=True)
class SourceIdentity:
    """What is known of who the kept tracks of one source show.

    Attributes:
        templates: by track id.
        faces: embeddings of kept faces, float32 (D,) of any length, by (track id, rank); for telling near-duplicates
            of a person from each other, empty where faces are kept per track.
    """

    templates: dict[int, Template] = field(default_factory=dict)
    faces: dict[FaceKey, Array] = field(default_factory=dict)


def save_identity(house: Path, source_id: str, found: SourceIdentity) -> None:
    """Write a source's file, atomically; nothing when there is nothing to say. Raises OSError.

    `house` is OUT/.streamgate. The bytes depend on the values alone.
    """
    keys = sorted([*((track_id, 0) for track_id in found.templates), *found.faces])
    if not keys:
        return
    vectors = [found.faces[key] if key[1] else found.templates[key[0]].vector for key in keys]
    rows = np.zeros(len(keys), _layout(len(vectors[0])))
    for row, (track_id, rank), vector in zip(rows, keys, vectors, strict=True):
        row["track_id"], row["rank"], row["vector"] = track_id, rank, vector
        if rank == 0:
            one = found.templates[track_id]
            row["faces"], row["weight"] = one.faces, one.weight
            row["agreement"], row["inter_eye"] = one.agreement, one.inter_eye
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    folder = house / FOLDER
    folder.mkdir(exist_ok=True)
    files.write_bytes(folder / f"{source_id}.npy", buffer.getvalue())


def load_identity(house: Path, source_id: str) -> SourceIdentity:
    """A source's file; empty when there is none (any more). Raises SinkError for a damaged one."""
    path = house / FOLDER / f"{source_id}.npy"
    try:
        with files.sink_errors(path), open(path, "rb") as file:
            rows = np.load(file, allow_pickle=False)
        if rows.ndim != 1 or rows.dtype != _layout(rows.dtype["vector"].shape[0]):
            raise ValueError("not a table of templates")
    except SinkError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return SourceIdentity()
        raise
    except (ValueError, KeyError, IndexError, TypeError, EOFError) as error:
        raise SinkError(
            f"{path} is damaged; remove it (its tracks then join no other person) or run its source again"
        ) from error
    found = SourceIdentity()
    for row in rows:
        track_id, rank, vector = int(row["track_id"]), int(row["rank"]), np.array(row["vector"])
        if rank:
            found.faces[(track_id, rank)] = vector
            continue
        figures = (float(row[name]) for name in ("weight", "agreement", "inter_eye"))
        found.templates[track_id] = Template(vector, int(row["faces"]), *figures)
    return found


def remove_templates(house: Path, source_id: str | None = None) -> None:
    """Remove every template of this output folder, or those of one source. Never raises."""
    if source_id is None:
        files.remove_tree(house / FOLDER)
    else:
        with suppress(OSError):
            (house / FOLDER / f"{source_id}.npy").unlink(missing_ok=True)


def _layout(size: int) -> np.dtype:
    return np.dtype(
        [
            ("track_id", "<i4"),
            ("rank", "<i4"),
            ("faces", "<i4"),
            ("weight", "<f4"),
            ("agreement", "<f4"),
            ("inter_eye", "<f4"),
            ("vector", "<f4", (size,)),
        ]
    )
