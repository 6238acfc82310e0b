"""Configuration text in TOML, read within bounds: presets, `--set`, `serve --config` and its reload use nothing else.

A service reads its file again while it runs, so whatever stands there costs a moment and a message, never the process:
a pipe that nobody writes, a device without end, nesting that outgrows the parser, numbers that nothing can hold.
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
"""500 streams with 500 letters each; the longest preset has 8 kB. The parser may need seconds for a megabyte, in which
a service answers no signal."""
MAX_DEPTH = 16
"""Tables and arrays inside each other; a preset has three."""
_MAX_INTEGER = 1 << 63

_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![\\A-Za-z0-9_-]){_PART}(?:\.[ \t]*+{_PART}){{{MAX_DEPTH},}}+")
"""A dotted key of more parts than there may be levels: the parser takes time and memory by the square of their
number."""


class NotToml(UsageError):
    """The text breaks the rules of TOML."""


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """What a TOML file holds. `what` names it in messages.

    Raises:
        FileNotFoundError: there is no such file; who asks knows what to advise.
        UsageError: it is no regular file, too large, not UTF-8 text, or as for `parse_toml`.
    """
    try:
        # Without waiting for somebody to open the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = _read(descriptor) if regular else b""
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UsageError(f"{what}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not regular:
        raise UsageError(f"{what}: is not a regular file; write the text to a file and give its path")
    if len(data) > MAX_BYTES:
        raise UsageError(f"{what}: is larger than {MAX_BYTES >> 10} KiB; check that it is the right file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{what}: is not UTF-8 text; check the file") from None
    return parse_toml(text, what)


def _read(descriptor: int) -> bytes:
    """All of a file, or a byte more than `MAX_BYTES`: it may grow meanwhile, and /proc tells no sizes."""
    parts: list[bytes] = []
    left = MAX_BYTES + 1
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def parse_toml(text: str, what: str) -> dict[str, Any]:
    """The tables of a TOML text: dicts and lists of str, bool, int below 2**63 and float, few levels deep.

    Raises:
        NotToml: the text breaks the rules of TOML.
        UsageError: it is too large or nested too deeply, or holds a number or a kind of value that no key takes.
    """
    if len(text) > MAX_BYTES:
        raise UsageError(f"{what}: is larger than {MAX_BYTES >> 10} KiB")
    too_deep = UsageError(f"{what}: tables or arrays are nested more than {MAX_DEPTH} deep; no key needs that")
    if _LONG_KEY.search(text):
        raise too_deep
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotToml(f"{what}: not valid TOML: {one_line(str(error))}") from None
    except RecursionError:
        raise too_deep from None
    except (ValueError, OverflowError):
        # From Python's own conversions, with its own words: digits beyond its limit, a day that there is not.
        raise UsageError(f"{what}: holds a number or a date that cannot be read; check its digits") from None
    waiting: list[tuple[Any, int, str]] = [(tree, 0, "")]
    while waiting:
        value, depth, key = waiting.pop()
        if isinstance(value, (dict, list)):
            if depth > MAX_DEPTH:
                raise too_deep
            inside = value.items() if isinstance(value, dict) else ((key, one) for one in value)
            waiting.extend((one, depth + 1, str(name)) for name, one in inside)
        elif isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
            raise UsageError(f"{what}: {one_line(key, 60)}: the number has more than 64 bits")
        elif not isinstance(value, (str, int, float)):
            raise UsageError(f"{what}: {one_line(key, 60)}: is a date or a time, and no key takes one")
    return tree
