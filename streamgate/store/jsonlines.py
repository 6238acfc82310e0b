"""JSON as it stands in the files of an output folder."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamgate.errors import scrub

SCHEMA = 1
"""Version of every shape in an output folder; a reader refuses a number that it does not know."""

Record = dict[str, Any]

_SURROGATE = re.compile("[\ud800-\udfff]")


def redacted(value: Any) -> Any:
    """`value` (nested mappings, sequences, plain values) with every URL in its strings redacted."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {str(key): redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item) for item in value]
    return value


def dumps(record: Mapping[str, Any], *, pretty: bool = False) -> str:
    """One JSON text, keys in their own order, not ASCII-escaped; compact, or indented for people.

    The text always encodes to UTF-8: a byte of a file name that is not UTF-8 reads `\\xff`. Raises ValueError
    for NaN or infinity.
    """
    text = json.dumps(
        record,
        ensure_ascii=False,
        allow_nan=False,
        indent=2 if pretty else None,
        separators=None if pretty else (",", ":"),
    )
    return _SURROGATE.sub(_spelled_out, text)


def _spelled_out(match: re.Match[str]) -> str:
    byte = ord(match.group()) - 0xDC00
    return f"\\\\x{byte:02x}" if 0x80 <= byte <= 0xFF else "�"


def new_gzip(path: Path) -> gzip.GzipFile:
    """A new gzip file at `path` whose bytes depend on what is written alone: no time, no file name in its header.

    Raises OSError.
    """
    file = open(path, "xb")  # noqa: SIM115 - closed with what is returned
    zipped = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)
    zipped.myfileobj = file  # type: ignore[assignment]  # closed together
    return zipped
