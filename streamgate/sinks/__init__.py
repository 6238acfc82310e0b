"""Destinations for best shots: disk, Redis, standard output, and groups of destinations."""

from __future__ import annotations

from typing import Any

from streamgate.errors import UsageError
from streamgate.redaction import redact_url
from streamgate.sinks.base import Sink, SourceWriter
from streamgate.sinks.group import SinkGroup
from streamgate.store.run import RunInfo, SourceInfo, SourceResult

__all__ = ["RunInfo", "Sink", "SinkGroup", "SourceInfo", "SourceResult", "SourceWriter", "open_sink"]


def open_sink(url: str, run: RunInfo, **options: Any) -> Sink:
    """The sink for `--sink URL`: redis://, rediss:// (TLS) or unix:// (a socket).

    `options` are those of `RedisSink`. The connection is made when the sink is entered. Raises UsageError for another
    scheme or a malformed URL.
    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("redis", "rediss", "unix"):
        from streamgate.sinks.redis import RedisSink

        return RedisSink(url, run, **options)
    raise UsageError(
        f"--sink {redact_url(url)}: unknown kind of destination; use redis://HOST:PORT/DB, rediss://... or "
        "unix://PATH (use -o for a folder)"
    )
