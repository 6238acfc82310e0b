"""Removes credentials from addresses, and from texts that may quote them."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit

SECRET_PARAMETERS = frozenset(
    {"password", "passwd", "pwd", "pass", "passphrase", "ssl_password", "token", "access_token", "auth", "key",
     "api_key", "apikey", "secret", "sig", "signature", "user", "username", "usr", "login", "policy", "key-pair-id",
     "awsaccesskeyid", "googleaccessid", "x-amz-signature", "x-amz-credential", "x-amz-security-token",
     "x-goog-signature", "x-goog-credential", "x-oss-signature", "x-oss-credential", "x-oss-security-token"}
)  # fmt: skip
_PAIR = re.compile(r"(?<![A-Za-z_])([A-Za-z_]++)=([^&;/]*)")
_SHORT = 6
"""A secret with fewer characters than this may be part of another word."""
_LONG = 8192
"""An address with more characters than this is not shown at all."""
_URL = re.compile(r"://[^\s'\"<>]+")
"""The pattern omits the scheme, because searching for a scheme at every character takes quadratic time."""


def redact_url(url: str) -> str:
    """Return `url` without user name, password or secret query values. Text that is not a URL is returned unchanged.

    The user name is removed too, because camera addresses often have a token in its place.
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
    # Some cameras accept the user name and the password as `name=value` pairs in the path.
    path = _PAIR.sub(_redacted_pair, parts.path)
    if path == parts.path and not parts.query and not parts.fragment:
        return text
    return urlunsplit(parts._replace(path=path, query=_redact_pairs(parts.query), fragment=""))


def _redacted_pair(match: re.Match[str]) -> str:
    return f"{match[1]}=***" if match[1].lower() in SECRET_PARAMETERS else match[0]


def _without_user(rest: str) -> tuple[str | None, str]:
    """Split the part of a URL after `://` into user information (None if there is none) and the rest.

    People paste passwords without escaping them. Therefore, an `@` after a `/`, `?` or `#` also ends the user
    information if the text before the `/`, `?` or `#` cannot be a host and port. In doubt, more than necessary is
    treated as secret.
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

    Libraries may repeat an address in a different form, so the secret parts are also removed one by one.
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
    """Every part of `url` that is a secret, both as written and decoded, longest first."""
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
    # Replacing very short secrets would damage other words; the replacement of whole URLs covers such secrets.
    return sorted({secret for secret in found if len(secret) >= 3}, key=len, reverse=True)
