"""Stable, safe names for sources."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from streamgate.sources.remote import AnyPath

_MIB = 1 << 20
_SLUG_LIMIT = 64


def slug(text: str) -> str:
    """Return a path component made from `text`: 1 to 64 ASCII letters, digits, `.`, `_`, `-`; no leading dot."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_text)
    safe = re.sub(r"\.{2,}", ".", safe)[:_SLUG_LIMIT].strip("-._")
    return safe or "source"


def file_source_id(path: AnyPath) -> str:
    """Return slug(stem)-HASH; HASH is 8 hex digits, computed from the file's size and its first and last MiB.

    Raises OSError.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}:".encode())
    with path.open("rb") as file:
        digest.update(file.read(_MIB))
        file.seek(max(0, size - _MIB))
        digest.update(file.read(_MIB))
    return f"{slug(path.stem)}-{digest.hexdigest()[:8]}"


def folder_source_id(name: str, pictures: Iterable[tuple[str, AnyPath]]) -> str:
    """Return slug(name)-HASH; HASH is 8 hex digits, computed from the names and sizes of `pictures`.

    `pictures` are pairs of relative name and path. Raises OSError.
    """
    digest = hashlib.sha256()
    for relative, path in pictures:
        digest.update(f"{relative}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
    return f"{slug(name)}-{digest.hexdigest()[:8]}"
