"""Faces in a Ray Data pipeline: a class for `map_batches`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from typing import Any

from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import SourceError, UsageError
from streamgate.exports.formats import parquet_schema
from streamgate.exports.table import columns_of, row_of
from streamgate.gate import Gate, configured
from streamgate.store.images import encode
from streamgate.store.records import face_record, image_path


class KeptFaces:
    """Maps paths or addresses of videos to one row per kept face; use it as `dataset.map_batches(KeptFaces, ...)`.

    Each actor opens the networks once and reads the sources of its batches one after another. The rows are the same as
    those of `streamgate export --to parquet --images`: the columns of the table, with `image` as {bytes, path}, where
    bytes is the content of the file. `person_id` is null, because persons are found only at the end of a run, when all
    sources have been read.

    Args:
        column: the column of the batch with the path or address (s3://...) of one source per row.
        preset, models, device, settings: see `streamgate.Gate`.
        skip_errors: skip sources that cannot be read, with a warning, instead of raising an error.

    Raises:
        UsageError: a setting is wrong, the column does not exist, or pyarrow is not installed.
        SourceError: a source cannot be read.
    """

    def __init__(
        self,
        column: str = "path",
        *,
        preset: str | PathLike[str] = "studio",
        models: str = DEFAULT_MODELS,
        device: str = "auto",
        settings: Mapping[str, Any] | Iterable[str] = (),
        skip_errors: bool = False,
    ) -> None:
        self._column = column
        self._skip_errors = skip_errors
        self._gate = Gate(preset, models=models, device=device, settings=settings)
        self._columns = columns_of({"measures": dict.fromkeys(configured(preset, settings).measures.recorded)})
        self._schema = parquet_schema(self._columns, images=True)

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """A `pyarrow.Table` of the kept faces of the sources in the batch."""
        import pyarrow as pa

        if self._column not in batch:
            raise UsageError(f"the batch has no column {self._column!r}; its columns are {', '.join(map(repr, batch))}")
        rows: list[dict[str, Any]] = []
        for source in batch[self._column]:
            location = fspath(source) if isinstance(source, PathLike) else str(source)
            found: list[dict[str, Any]] = []
            try:
                found.extend(self._faces(location))
            except SourceError as error:
                if not self._skip_errors:
                    raise
                warnings.warn(str(error), stacklevel=2)
            rows += found
        return pa.Table.from_pylist(rows, schema=self._schema)

    def _faces(self, location: str) -> Iterable[dict[str, Any]]:
        for shot in self._gate.run(location):
            path = image_path(shot)
            row = row_of(face_record(shot, path), self._columns)
            row["image"] = {"bytes": encode(shot.image, shot.encoding), "path": path}
            for name, crop in shot.crops.items():
                further = {"bytes": encode(crop.image, crop.encoding), "path": image_path(shot, name)}
                row[f"image_{name}"] = further
            yield row
