"""Writes and reads the JSON in the files of an output folder.

Files are untrusted. The objects that `parse` returns have no NaN or infinity, no integer of more than 64 bits, no lone
surrogate, and limited nesting. Files are read line by line, and the length of a line is limited.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from streamgate.errors import ResultsError, display
from streamgate.redaction import scrub
from streamgate.store import files
from streamgate.store.schemas import Schema, mismatch

SCHEMA = 1
"""Version of all record formats in an output folder; readers reject records with another version."""

Record = dict[str, Any]

MAX_LINE_BYTES = 1 << 20
"""Maximum size, in bytes, of a line that describes one face or one track."""
MAX_LIST_BYTES = 64 << 20
"""Maximum size, in bytes, of a line that contains a list, for example of all faces of a person."""
_LARGEST = 256 << 20
"""Maximum size, in bytes, of a file with a single object. The manifest for a million faces has 60 million bytes."""
_MAX_VALUES = 8_000_000
"""Maximum number of values in one object. The limit is needed because `[]`, two bytes in a file, takes 60 bytes in
memory."""
_MAX_DEPTH = 200
"""Maximum nesting depth. The limit is needed because objects are traversed recursively."""

_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_SURROGATE = re.compile("[\ud800-\udfff]")


def redacted(value: Any) -> Any:
    """A copy of `value` (nested mappings, sequences, plain values) in which all URLs are redacted."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {str(key): redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item) for item in value]
    return value


def dumps(record: Mapping[str, Any], *, pretty: bool = False) -> str:
    """The record as JSON text, with the keys in their original order and without ASCII escapes.

    The text is indented if `pretty` is true, otherwise compact.

    The text can always be encoded as UTF-8: a byte of a file name that is not valid UTF-8 is written as its hex
    escape, such as `\\xff`. Raises ValueError for NaN or infinity.
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
    """A new gzip file at `path`, whose bytes depend only on its contents: its header has no time and no file name.

    Raises OSError.
    """
    file = open(path, "xb")  # noqa: SIM115 - closed with the returned file
    zipped = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)
    zipped.myfileobj = file  # type: ignore[assignment]  # closed together
    return zipped


def parse(data: bytes) -> Record:
    """Parse `data` as one JSON object. Raises a ValueError that names the problem."""
    return _checked(_decoded(data), data)


def read_object(out: Path, name: str, shape: Schema) -> Record:
    """Read the file `name` below `out`, which must contain one object of this schema version and of the given `shape`.

    Raises OSError if the file cannot be read, ResultsError if the object has another schema version, and a ValueError
    that names any other problem.
    """
    with files.open_below(out, name) as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError("is too large")
    record = parse(data)
    if type(record.get("schema")) is not int:
        raise ValueError("has no schema version")
    if record["schema"] != SCHEMA:
        raise ResultsError(f"{display(out / name)} {other_version(record)}; use the version that wrote it")
    if found := mismatch(record, shape):
        raise ValueError(found)
    return record


def read_log(out: Path, name: str) -> list[Record]:
    """The objects in the lines of the log file `name` below `out`; empty if there is no file. Raises OSError.

    A line that is not valid JSON is skipped, because a crash must have interrupted the writing of that line.
    """
    try:
        with files.open_below(out, name) as file:
            return [record for _, record in read_lines(file, MAX_LIST_BYTES) if record is not None]
    except FileNotFoundError:
        return []


def other_version(record: Record) -> str:
    """The message about a record of another schema version."""
    return f"was written by another version (schema {record['schema']}, this version reads {SCHEMA})"


def read_lines(file: IO[bytes] | gzip.GzipFile, longest: int = MAX_LINE_BYTES) -> Iterator[tuple[int, Record | None]]:
    """The offset and the object of each line of a file. Raises OSError.

    The object is None if a line is not valid JSON or is longer than `longest` bytes. It is empty if a line is JSON but
    not a valid object. No more than `longest` + 1 bytes of a line are in memory.
    """
    offset = 0
    while line := file.readline(longest + 1):
        # Yield before reading on, so that a caller that stops at damage does not read an endless line to its end.
        yield offset, _record(line) if len(line) <= longest else None
        offset += len(line)
        while len(line) > longest and not line.endswith(b"\n"):
            line = file.readline(longest + 1)
            offset += len(line)


def _record(line: bytes) -> Record | None:
    try:
        value = _decoded(line)
    except ValueError:
        return None
    try:
        return _checked(value, line)
    except ValueError:
        return {}


def _decoded(data: bytes) -> Any:
    if data.count(b",") + data.count(b":") > _MAX_VALUES:
        raise ValueError("has too many values")
    # Numbers are checked only if one of them has 19 digits or a large exponent: this is rare, and the check takes
    # longer than the parsing.
    digits = data.translate(_DIGITS, b"+")
    unusual = b"e000" in digits or b"0" * 19 in digits
    hooks: dict[str, Any] = {"parse_float": _finite, "parse_int": _small} if unusual else {}
    try:
        return json.loads(data.decode(), parse_constant=_refuse, **hooks)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


def _checked(value: Any, data: bytes) -> Record:
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    if data.count(b"[") + data.count(b"{") > _MAX_DEPTH and _depth(value) > _MAX_DEPTH:
        raise ValueError("is nested too deeply")
    if b"\\u" in data and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("contains text that is not valid Unicode")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _small(text: str) -> int:
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError("beyond 64 bits")
    return number


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _depth(value: Any) -> int:
    """Nesting depth of lists and objects, counted up to just above the limit."""
    depth, level = 0, [value]
    while level and depth <= _MAX_DEPTH:
        depth += 1
        inner = [list(one.values()) if isinstance(one, dict) else one for one in level]
        level = [one for items in inner for one in items if isinstance(one, (dict, list))]
    return depth
