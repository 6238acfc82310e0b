"""The exception hierarchy. Each class has the exit code that a command returns for it.

Messages are written for users: they say what happened, to which input, and what to do. Addresses must pass through
`redact_url` before they are put into a message.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit, urlunsplit


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

    The exit code is that of an unreadable input, because results are the input of the commands that read them.
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
    """Wrap an unexpected exception: either a package that cannot be imported, or a bug in streamgate.

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


SECRET_PARAMETERS = frozenset(
    {"password", "passwd", "pwd", "pass", "passphrase", "ssl_password", "token", "access_token", "auth", "key",
     "api_key", "apikey", "secret", "sig", "signature", "user", "username", "usr", "login", "policy", "key-pair-id",
     "awsaccesskeyid", "googleaccessid", "x-amz-signature", "x-amz-credential", "x-amz-security-token",
     "x-goog-signature", "x-goog-credential", "x-oss-signature", "x-oss-credential", "x-oss-security-token"}
)  # fmt: skip

_PAIR = re.compile(r"(?<![A-Za-z_])([A-Za-z_]++)=([^&;/]*)")
_SHORT = 6
"""A secret with fewer letters than this may be part of an ordinary word."""
_LONG = 8192
"""An address with more letters than this is not shown at all."""
_URL = re.compile(r"://[^\s'\"<>]+")
"""The pattern omits the scheme, because searching for one at every letter takes quadratic time."""


def redact_url(url: str) -> str:
    """Return `url` without user name, password or secret query values. Text that is not a URL is returned unchanged.

    The user part is removed too: camera addresses often have a token in its place.
    """
    if "://" not in url:
        return url
    scheme, _, rest = url.partition("://")
    if len(rest) > _LONG:
        return f"{scheme}://***"
    user, rest = _without_user(rest)
    text = f"{scheme}://{'' if user is None else '***@'}{rest}"
    try:
        parts = urlsplit(text)
    except ValueError:
        return f"{scheme}://***"
    # Some cameras accept user name and password as pairs in the path.
    path = _PAIR.sub(_redacted_pair, parts.path)
    if path == parts.path and not parts.query and not parts.fragment:
        return text
    return urlunsplit(parts._replace(path=path, query=_redact_pairs(parts.query), fragment=""))


def _redacted_pair(match: re.Match[str]) -> str:
    return f"{match[1]}=***" if match[1].lower() in SECRET_PARAMETERS else match[0]


def _without_user(rest: str) -> tuple[str | None, str]:
    """Split the part of a URL after `://` into user information (None if there is none) and the rest.

    People paste passwords unescaped, so an `@` after a `/`, `?` or `#` also counts if what precedes that character
    cannot be a host and port. If in doubt, more than necessary is treated as secret.
    """
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        user, _, host = authority.rpartition("@")
        return user, host + slash + path
    host = re.split(r"[?#]", authority)[0]
    if "@" in path and ":" in host and not _is_port(host.rpartition(":")[2]):
        user, _, rest = rest.rpartition("@")
        return user, rest
    return None, rest


def _is_port(text: str) -> bool:
    return text.isdigit() or text.endswith("]")


def _redact_pairs(query: str) -> str:
    pairs = []
    for pair in re.split(r"[&;]", query):
        name, equals, _ = pair.partition("=")
        pairs.append(f"{name}=***" if equals and name.lower() in SECRET_PARAMETERS else pair)
    return "&".join(pairs)


def scrub(text: str, *urls: str) -> str:
    """Redact every URL inside `text`, and every literal occurrence of the secrets in `urls`.

    Libraries may repeat an address in a different form, so its parts are also removed one by one.
    """
    for url in urls:
        text = text.replace(url, redact_url(url))
        for secret in _secrets_of(url):
            text = _without(secret, text)
    return _URL.sub(lambda match: redact_url(f"x{match.group()}")[1:], text)


def _without(secret: str, text: str) -> str:
    if len(secret) < _SHORT and secret.isascii() and secret.isalpha():
        # The user "ann" must not match inside "cannot".
        return re.sub(rf"(?<![A-Za-z]){secret}(?![A-Za-z])", "***", text)
    return text.replace(secret, "***")


def _secrets_of(url: str) -> list[str]:
    """Every part of `url` that is a secret, as written and decoded, longest first."""
    if "://" not in url:
        return []
    user, rest = _without_user(url.partition("://")[2])
    found = [] if user is None else [user, *user.partition(":")[::2]]
    for pair in re.split(r"[&;?#]", rest):
        name, _, value = pair.partition("=")
        if name.lower() in SECRET_PARAMETERS:
            found.append(value)
    path = re.split(r"[?#]", rest)[0]
    for words in (path, path.replace("_", "&")):
        found += [match[2] for match in _PAIR.finditer(words) if match[1].lower() in SECRET_PARAMETERS]
    found += [unquote(secret) for secret in found]
    # Replacing very short secrets would damage ordinary words; the replacement of whole URLs covers them.
    return sorted({secret for secret in found if len(secret) >= 3}, key=len, reverse=True)
