"""The table next to each clip, with the scores of each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamgate.clips.frame_scoring import ScoredFrame
from streamgate.clips.rendering import RenderedFrame
from streamgate.frames import Array
from streamgate.store.jsonlines import SCHEMA, Record, dumps

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


def has_pyarrow() -> bool:
    """Whether tables can be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


def write_table(
    target: Path, record: Record, frames: Sequence[ScoredFrame], bad: Sequence[bool], shown: Sequence[RenderedFrame],
    size: int | None,
) -> None:  # fmt: skip
    """Write `target` (Parquet) with one row per written frame. The columns are described in docs/clips.md.

    Box and landmarks are in pixels of the clip. `size` is the side of the clip's square picture; None if the clip has
    the same pixels as the source. Values are null if the face was not found. The file's metadata contains the clip's
    record.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    by_time = {round(one.pts_seconds, 6): (one, fails) for one, fails in zip(frames, bad, strict=True)}
    names = list(next((one.measures for one in frames if one.measures), {}))
    fields = [
        ("frame", pa.int32()), ("pts_seconds", pa.float64()), ("source_pts_seconds", pa.float64()),
        ("bad", pa.bool_()), ("reasons", pa.list_(pa.string())), ("faces", pa.int32()), ("quality", pa.float32()),
        *((f"box_{side}", pa.float32()) for side in ("x1", "y1", "x2", "y2")),
        *((f"{point}_{axis}", pa.float32()) for point in POINTS for axis in "xy"),
        *((f"pose_{angle}", pa.float32()) for angle in ("yaw", "pitch", "roll")),
        *((f"{name}_{part}", pa.float32()) for name in names for part in ("raw", "scalar")),
        *((f"shown_{side}", pa.float32()) for side in ("x1", "y1", "x2", "y2")),
    ]  # fmt: skip
    rows = []
    for index, one in enumerate(shown):
        scored, fails = by_time[round(one.source_pts, 6)]
        rows.append(_row(index, one, scored, fails, names, size))
    schema = pa.schema(fields, metadata={"streamgate.schema": str(SCHEMA), "streamgate.clip": dumps(record)})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), target, compression="zstd")


def _row(
    index: int, shown: RenderedFrame, scored: ScoredFrame, bad: bool, names: Sequence[str], size: int | None
) -> Mapping[str, Any]:
    row: dict[str, Any] = {
        "frame": index, "pts_seconds": shown.pts_seconds, "source_pts_seconds": shown.source_pts, "bad": bad,
        "reasons": list(scored.reasons), "faces": scored.faces, "quality": scored.quality,
    }  # fmt: skip
    row |= dict(zip((f"shown_{side}" for side in ("x1", "y1", "x2", "y2")), shown.box.tolist(), strict=True))
    if scored.face is not None:
        points = _in_clip(np.vstack([scored.face.box.reshape(2, 2), scored.face.landmarks]), shown.box, size)
        row |= dict(zip(("box_x1", "box_y1", "box_x2", "box_y2"), points[:2].ravel().tolist(), strict=True))
        indexes = [f"{point}_{axis}" for point in POINTS for axis in "xy"]
        row |= dict(zip(indexes, points[2:].ravel().tolist(), strict=True))
    if scored.pose is not None:
        row |= {f"pose_{angle}": getattr(scored.pose, angle) for angle in ("yaw", "pitch", "roll")}
    for name in names:
        measure = scored.measures.get(name)
        if measure is not None:
            row |= {f"{name}_raw": measure.raw, f"{name}_scalar": measure.scalar}
    return row


def _in_clip(points: Array, box: Array, size: int | None) -> Array:
    """Convert source pixels (N, 2) to pixels of the clip."""
    if size is None:
        return points
    return np.asarray((points + 0.5 - box[:2]) * (size / max(1.0, float(box[2] - box[0]))) - 0.5)
