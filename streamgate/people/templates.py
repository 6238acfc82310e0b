"""Where templates lie while a run goes: OUT/.streamgate/identity, a file a source, never in a source's own folder.

Whoever passes results on passes on the folders of the sources; embeddings are biometric and stay behind.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from streamgate.errors import SinkError
from streamgate.frames import Template
from streamgate.sinks import files

FOLDER = "identity"


def save_templates(house: Path, source_id: str, templates: Mapping[int, Template]) -> None:
    """Write a source's templates by track id, atomically; nothing when there are none. Raises OSError.

    `house` is OUT/.streamgate. The bytes depend on the templates alone.
    """
    if not templates:
        return
    size = len(next(iter(templates.values())).vector)
    rows = np.zeros(len(templates), _layout(size))
    for row, (track_id, one) in zip(rows, sorted(templates.items()), strict=True):
        row["track_id"], row["faces"] = track_id, one.faces
        row["weight"], row["agreement"], row["inter_eye"] = one.weight, one.agreement, one.inter_eye
        row["vector"] = one.vector
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    folder = house / FOLDER
    folder.mkdir(exist_ok=True)
    files.write_bytes(folder / f"{source_id}.npy", buffer.getvalue())


def load_templates(house: Path, source_id: str) -> dict[int, Template]:
    """A source's templates by track id; empty when there are none (any more). Raises SinkError for a damaged file."""
    path = house / FOLDER / f"{source_id}.npy"
    try:
        with files.sink_errors(path), open(path, "rb") as file:
            rows = np.load(file, allow_pickle=False)
        if rows.ndim != 1 or rows.dtype != _layout(rows.dtype["vector"].shape[0]):
            raise ValueError("not a table of templates")
    except SinkError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return {}
        raise
    except (ValueError, KeyError, IndexError, TypeError, EOFError) as error:
        raise SinkError(
            f"{path} is damaged; remove it (its tracks then join no other person) or run its source again"
        ) from error
    return {
        int(row["track_id"]): Template(
            np.array(row["vector"]),
            int(row["faces"]),
            float(row["weight"]),
            float(row["agreement"]),
            float(row["inter_eye"]),
        )
        for row in rows
    }


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
            ("faces", "<i4"),
            ("weight", "<f4"),
            ("agreement", "<f4"),
            ("inter_eye", "<f4"),
            ("vector", "<f4", (size,)),
        ]
    )
