"""The exception hierarchy. Each class has the exit code that a command returns for it.

Messages are written for users: they say what happened, to which input, and what to do. Addresses must pass through
`redact_url` before they are put into a message.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar

from streamgate.redaction import scrub


class StreamgateError(Exception):
    """Base of every error that streamgate raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(StreamgateError):
    """A wrong option, key or value (exit 2)."""

    exit_code: ClassVar[int] = 2


class SourceError(StreamgateError):
    """One input could not be read (exit 1, or 3 if no input could be read).

    `location` is the input as displayed, or None if it is unknown.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, location: str | None = None) -> None:
        super().__init__(message)
        self.location = location


class ResultsError(StreamgateError):
    """An output folder holds no results, damaged results, or results of another version (exit 3).

    The exit code is the same as for an unreadable input, because results are the input of the commands that read them.
    """

    exit_code: ClassVar[int] = 3


class WeightsError(StreamgateError):
    """Weights are missing or wrong, or do not fit their role (exit 4)."""

    exit_code: ClassVar[int] = 4


class SinkError(StreamgateError):
    """An output is not writable, full, locked or unreachable (exit 5)."""

    exit_code: ClassVar[int] = 5


class DeliveryError(SinkError):
    """A sink did not accept all events of a run that is otherwise complete (exit 5). Nothing else is lost."""


class DeviceError(StreamgateError):
    """The requested device is not available (exit 6)."""

    exit_code: ClassVar[int] = 6


def escaped(text: str) -> str:
    """`text` on one line, with unprintable characters written as `\\x1b` and bytes that are not UTF-8 as `\\xff`."""
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _escape(character: str) -> str:
    byte = ord(character) - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


def display(path: str | Path) -> str:
    """An `escaped` path or name, as it is shown to users and written to records."""
    return escaped(os.fsdecode(path))


def one_line(text: str, most: int = 300) -> str:
    """`text` prepared for a message: on one line, `escaped`, truncated to `most` characters."""
    # Truncate first, because untrusted text may be very long, but leave room for runs of spaces.
    shown = escaped(" ".join(text[: 4 * most].split()))
    return shown if len(shown) <= most and len(text) <= 4 * most else f"{shown[: most - 1]}…"


def unexpected(error: Exception, *secrets: str) -> StreamgateError:
    """Wrap an unexpected exception, caused by a package that cannot be imported or by a bug in streamgate.

    `secrets` are addresses whose passwords must not appear in the message; see `scrub`.
    """
    what = scrub(f"{type(error).__name__}: {error}", *secrets)
    requirement = _requirement_of(error) if isinstance(error, ImportError) else None
    if requirement:
        return StreamgateError(f"a package cannot be imported ({what}); reinstall it: pip install '{requirement}'")
    return StreamgateError(f"internal error ({what}); please report it. Set STREAMGATE_DEBUG=1 for details.")


def _requirement_of(error: ImportError) -> str | None:
    """The requirement in streamgate's metadata for the package that `error` is about, or None if there is none."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, requires

    module = (error.name or "").partition(".")[0]
    # Add the module's own name, because a package that has been removed is not listed.
    names = {module.lower(), *(name.lower() for name in packages_distributions().get(module, ()))}
    names |= {"opencv-python-headless"} if module == "cv2" else set()
    try:
        wanted = [line.partition(";")[0].strip() for line in requires("streamgate") or ()]
    except PackageNotFoundError:
        return None
    return next((line for line in wanted if re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() in names), None)
