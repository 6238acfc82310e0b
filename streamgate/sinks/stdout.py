"""`--json`: the records of kept faces as JSON lines on standard output."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import BinaryIO

from streamgate.errors import SinkError
from streamgate.store import files
from streamgate.store.layout import FACES


def print_records(out: Path, source_id: str, stream: BinaryIO | None = None) -> None:
    """Print the records of a committed source's kept faces, by (track, rank).

    The bytes of the source's faces.jsonl are written unchanged, so that a name that the terminal's encoding cannot
    represent causes no error. `stream` is standard output by default. Raises SinkError.
    """
    if stream is None:
        if sys.stdout is None:
            raise SinkError("--json prints to standard output, which is closed")
        stream = sys.stdout.buffer
    with files.sink_errors(out / source_id):
        records = files.open_below(out, f"{source_id}/{FACES}")  # closed below, where errors of `stream` are handled
    with records:
        try:
            shutil.copyfileobj(records, stream)
            stream.flush()
        except BrokenPipeError as error:
            raise SinkError("standard output was closed before all records were printed") from error
        except OSError as error:
            raise SinkError(f"cannot write to standard output: {error.strerror or error}") from error
