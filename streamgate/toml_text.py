"""Reads TOML with limits, for all configuration: presets, `--set`, and `serve --config` including its reloads.

A service reloads its file while it runs, so bad input must quickly lead to an error message and must never end or block
the process. Bad input includes a pipe without a writer, an endless device, nesting that is too deep for the parser, and
numbers that are too large for any type.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from streamgate.errors import UsageError, one_line

MAX_BYTES = 256 << 10
"""Maximum size, enough for 500 streams with 500 characters each; the longest preset has 8 kB. The limit is low because
the parser may take seconds for a megabyte, during which a service does not react to signals."""
MAX_DEPTH = 16
"""Maximum number of levels of nested tables and arrays; a preset has three."""
_MAX_INTEGER = 1 << 63

_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![\\A-Za-z0-9_-]){_PART}(?:\.[ \t]*+{_PART}){{{MAX_DEPTH},}}+")
"""A dotted key with more than `MAX_DEPTH` parts, for which the parser needs quadratic time and memory."""


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content of a TOML file. `what` names the file in messages.

    Raises:
        FileNotFoundError: the file does not exist; the caller knows what the user should do.
        UsageError: the file cannot be read, is not a regular file, is too large, is not UTF-8 text or TOML, or is
            refused by `parse_toml`.
    """
    try:
        # O_NONBLOCK: opening a pipe does not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = _read(descriptor) if regular else b""
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not regular:
        raise UsageError(f"{what} is not a regular file; write the text to a file and give its path")
    if len(data) > MAX_BYTES:
        raise UsageError(f"{what} is larger than {MAX_BYTES >> 10} KiB; check that it is the right file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{what} is not UTF-8 text; check the file") from None
    try:
        return parse_toml(text, what)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{what}: not valid TOML: {one_line(str(error))}") from None


def _read(descriptor: int) -> bytes:
    """Read at most `MAX_BYTES` + 1 bytes. The size of a file is not reliable: it may grow, and is 0 in /proc."""
    parts: list[bytes] = []
    left = MAX_BYTES + 1
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def parse_toml(text: str, what: str) -> dict[str, Any]:
    """Parse TOML text into dicts and lists of str, bool, int below 2**63 and float, at most `MAX_DEPTH` levels deep.

    Raises:
        tomllib.TOMLDecodeError: the text is not valid TOML.
        UsageError: the text is too large or nested too deeply, or has a number or a type of value that no key accepts.
    """
    if len(text) > MAX_BYTES:
        raise UsageError(f"{what}: the text is larger than {MAX_BYTES >> 10} KiB")
    too_deep = UsageError(f"{what}: tables or arrays are nested more than {MAX_DEPTH} levels deep, which no key needs")
    if _LONG_KEY.search(text):
        raise too_deep
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise too_deep from None
    except (ValueError, OverflowError):
        # Raised by Python if a number has too many digits to convert, or if a date does not exist.
        raise UsageError(f"{what}: a number or a date is not valid; check its digits") from None
    waiting: list[tuple[Any, int, str]] = [(tree, 0, "")]
    while waiting:
        value, depth, key = waiting.pop()
        if isinstance(value, (dict, list)):
            if depth > MAX_DEPTH:
                raise too_deep
            inside = value.items() if isinstance(value, dict) else ((key, one) for one in value)
            waiting.extend((one, depth + 1, str(name)) for name, one in inside)
        elif isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
            raise UsageError(f"{what}: {one_line(key, 60)}: the number does not fit into 64 bits")
        elif not isinstance(value, (str, int, float)):
            raise UsageError(f"{what}: {one_line(key, 60)}: the value is a date or a time, which no key accepts")
    return tree
