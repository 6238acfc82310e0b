"""Settings of `serve`: streams and destinations, from flags and a TOML file.

[service]                       # each key has the meaning of the flag with that name; flags take precedence
redis = "redis://localhost:6379/0"
out = "faces"
http = "127.0.0.1:8080"
spool = "spool"                 # where events wait for Redis
spool_mb = 1024
max_days = 30
max_gb = 50
preset = "live"
device = "cuda:0"               # where the networks run
decode = "cuda"                 # where video is decoded; cuda means the GPU of `device`
set = { "measures.yaw.max" = 40 }   # for all streams

[streams.entrance]              # the name: letters, digits, '.', '_' and '-'
url = "rtsp://user:password@10.0.0.5/stream1"
preset = "live"                 # preset and set are optional and apply to this stream only
set = { "measures.size.min" = 80, "live.transport" = "udp" }

[streams.gate]                  # a camera with two streams
detect = "rtsp://user:password@10.0.0.6/sub"    # faces are detected and selected here
record = "rtsp://user:password@10.0.0.6/main"   # and cropped from here
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamgate.config import Config, leaves, load_config
from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import UsageError, one_line
from streamgate.redaction import redact_url, scrub
from streamgate.sources.live import check_address
from streamgate.sources.naming import slug
from streamgate.store.layout import STATE_DIR, not_local
from streamgate.toml_text import read_toml

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SEVERAL = re.compile(r",(?=(?:rtsps?|https?|file)://)", re.IGNORECASE)
"""Separates the addresses of `--rtsp MAIN,SUB`."""
MAX_STREAMS = 500
"""Maximum number of streams: more than a machine can decode. The number is limited because each stream needs threads
and descriptors."""
_MAX_SHOWN = 5
"""Maximum number of invalid values that one message names."""
DEFAULT_OUT = Path("streamgate-live")
DEFAULT_SPOOL = Path("streamgate-spool")


_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class ServiceTable(BaseModel):
    """The `[service]` table, or the values of the flags."""

    model_config = _STRICT

    redis: str | None = None
    out: str | None = None
    http: str | None = None
    spool: str | None = None
    spool_mb: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    max_days: Annotated[float, Field(gt=0, le=1e6)] | None = None
    max_gb: Annotated[float, Field(gt=0, le=1e9)] | None = None
    preset: str | None = None
    models: str | None = None
    device: str | None = None
    decode: Literal["auto", "cpu", "cuda"] | None = None
    set: dict[str, Any] = {}


class StreamTable(BaseModel):
    """A `[streams.NAME]` table."""

    model_config = _STRICT

    url: str | None = None
    detect: str | None = None
    record: str | None = None
    preset: str | None = None
    set: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream to watch. When the configuration is read again, streams with an unchanged spec are not restarted."""

    name: str
    url: str = field(repr=False)
    config: Config
    main_url: str | None = field(default=None, repr=False)
    """The main stream of a camera with two streams; `url` is then the substream."""

    @property
    def location(self) -> str:
        """The address, redacted."""
        return redact_url(self.url)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of `serve`; created by `read_settings`."""

    streams: tuple[StreamSpec, ...]
    config: Config
    """The configuration of streams without their own settings; its network settings apply to all streams."""
    redis: str | None
    out: Path | None
    http: str | None
    spool: Path
    spool_bytes: int
    max_days: float | None
    max_bytes: int | None
    models: str
    device: str
    decode: str
    """"cpu", or "cuda" for the GPU of `device`."""


def service_flags(given: Mapping[str, Any]) -> ServiceTable:
    """The flags of the command line as a table; None for flags that were not given. Raises UsageError for a value out
    of range."""
    present = {name: value for name, value in given.items() if value is not None}
    table: ServiceTable = _validated(ServiceTable, present, "serve")
    return table


def read_settings(
    *,
    rtsp: Sequence[str] = (),
    config_file: Path | None = None,
    table: ServiceTable | None = None,
    settings: Sequence[str] = (),
) -> Settings:
    """Combine the command line and the configuration file; `table` holds the flags that were given.

    Raises UsageError for the first problem, with a one-line message that contains no secrets.
    """
    flags = table or ServiceTable()
    own, streams = ServiceTable(), dict[str, StreamTable]()
    if config_file is not None:
        own, streams = _read_file(config_file)
    merged = {**own.model_dump(exclude_none=True), **flags.model_dump(exclude_none=True, exclude={"set"})}
    service = ServiceTable.model_validate(merged)
    where = str(config_file)
    config = _config_of(service.preset, own.set, settings, f"{where}: [service]")
    specs: dict[str, StreamSpec] = {}
    for name, stream in streams.items():
        what = f"{where}: [streams.{name}]"
        special = stream.preset is not None or bool(stream.set)
        mine = _config_of(stream.preset or service.preset, {**own.set, **stream.set}, settings, what)
        specs[name] = StreamSpec(name, *_addresses(stream, what, mine if special else config))
    for given in rtsp:
        name, url, main_url = _named(given, specs)
        specs[name] = StreamSpec(name, url, config, main_url)
    if not specs and config_file is None:
        raise UsageError("there is no stream to watch; give --rtsp URL, or --config FILE with [streams.NAME] tables")
    for key, value in (("out", service.out), ("spool", service.spool)):
        if value is not None and (problem := not_local(value)):
            raise UsageError(f"{key} = {one_line(redact_url(value), 60)!r}: {problem}")
    out = service.out
    if out is None and service.redis is None:
        out = str(DEFAULT_OUT)
    spool = Path(service.spool) if service.spool else (Path(out) / STATE_DIR / "spool" if out else DEFAULT_SPOOL)
    return Settings(
        streams=tuple(specs.values()),
        config=config,
        redis=service.redis,
        out=None if out is None else Path(out),
        http=service.http,
        spool=spool,
        spool_bytes=(service.spool_mb or 1024) << 20,
        max_days=service.max_days,
        max_bytes=None if service.max_gb is None else int(service.max_gb * 1e9),
        models=service.models or DEFAULT_MODELS,
        device=service.device or "auto",
        decode="cuda" if service.decode == "cuda" else "cpu",
    )


def _read_file(path: Path) -> tuple[ServiceTable, dict[str, StreamTable]]:
    try:
        tree = read_toml(path, f"--config {path}")
    except FileNotFoundError:
        raise UsageError(f"--config {path}: no such file; check the path") from None
    for key in tree.keys() - {"service", "streams"}:
        near = difflib.get_close_matches(key, ["service", "streams"], 1, 0.5)
        hint = f"; did you mean [{near[0]}]?" if near else ""
        raise UsageError(f"{path}: there is no table [{one_line(key, 80)}]{hint}")
    streams = tree.get("streams", {})
    if not isinstance(streams, dict) or not all(isinstance(one, dict) for one in streams.values()):
        raise UsageError(f"{path}: streams must be given as tables: [streams.NAME] with url = ...")
    if len(streams) > MAX_STREAMS:
        raise UsageError(f"{path}: {len(streams)} streams are too many for one service; the limit is {MAX_STREAMS}")
    for name in streams:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{path}: [streams.{one_line(name, 80)}]: a name has 1 to 64 characters (letters, digits, '.', '_' and "
                "'-') and starts with a letter or digit"
            )
    service = _validated(ServiceTable, tree.get("service", {}), f"{path}: [service]")
    return service, {name: _validated(StreamTable, one, f"{path}: [streams.{name}]") for name, one in streams.items()}


def _validated(table: Any, tree: Any, what: str) -> Any:
    problems = []
    try:
        return table.model_validate(tree)
    except ValidationError as error:
        for item in error.errors()[:_MAX_SHOWN]:
            key = ".".join(str(part) for part in item["loc"])
            near = difflib.get_close_matches(key, list(table.model_fields), 1, 0.5)
            unknown = item["type"] == "extra_forbidden"
            # The value is never shown, because it may be an address with a password.
            text = "there is no such key" if unknown else item["msg"]
            hint = f" (did you mean {near[0]}?)" if unknown and near else ""
            problems.append(f"{one_line(key, 80)}: {one_line(text)}{hint}")
    raise UsageError(f"{what}: {'; '.join(problems)}")


def _config_of(preset: str | None, own: Mapping[str, Any], settings: Sequence[str], what: str) -> Config:
    try:
        # In TOML, `measures.yaw.max = 20` is a nested table and `"measures.yaw.max" = 20` is a single key. Here, both
        # mean the same and are converted to the form of `--set`; settings given with `--set` come later and take
        # precedence. `serve` stores no embeddings, even if a preset for recorded footage asks for that.
        texts = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in leaves(own)]
        config = load_config(preset or "live", ["identity.store=none", *texts, *settings])
    except UsageError as error:
        raise UsageError(f"{what}: {error}" if own or preset else str(error)) from None
    if config.identity.store != "none":
        raise UsageError("`identity.store` must be `none`, because `serve` stores no embeddings")
    if config.identity.only:
        raise UsageError(
            "identity.only: `serve` cannot search for a person; use `streamgate run --only` on recorded footage"
        )
    return config


def _addresses(stream: StreamTable, what: str, config: Config) -> tuple[str, Config, str | None]:
    """The address (of the substream, if there are two streams), the configuration, and the main stream's address or
    None."""
    if stream.url is not None and stream.detect is None and stream.record is None:
        return _address(stream.url, what), config, None
    if stream.url is not None or stream.detect is None or stream.record is None:
        raise UsageError(f"{what}: give `url`, or `detect` (the substream) together with `record` (the main stream)")
    return _address(stream.detect, f"{what}: detect"), config, _main_address(stream.record, f"{what}: record")


def _named(given: str, taken: Mapping[str, StreamSpec]) -> tuple[str, str, str | None]:
    """Name, address and main stream's address of `--rtsp [NAME=]URL` or `--rtsp [NAME=]MAIN,SUB`.

    The default name is the host name, with a number appended if that name is taken.
    """
    # Only a comma that is followed by a scheme separates addresses, because an address can also contain commas.
    first, *others = _SEVERAL.split(given)
    if len(others) > 1:
        raise UsageError(f"--rtsp: give one address per camera, or two as MAIN,SUB; got {len(others) + 1} addresses")
    if others:
        name, main_url = _named_one(first, taken)
        what = f"--rtsp {name}"
        return name, _address(others[0], what), _main_address(main_url, what)
    return *_named_one(given, taken), None


def _named_one(given: str, taken: Mapping[str, StreamSpec]) -> tuple[str, str]:
    """Name and address of `--rtsp [NAME=]URL`; the default name is the host name, with a number appended if that name
    is taken."""
    head, equals, tail = given.partition("=")
    if equals and _NAME.fullmatch(head):
        if head in taken:
            raise UsageError(f"--rtsp {head}=...: there are two streams with this name; choose different names")
        return head, _address(tail, f"--rtsp {head}")
    url = _address(given, "--rtsp")
    parts = urlsplit(url)
    base = slug(Path(parts.path).stem if parts.scheme == "file" else parts.hostname or "stream")
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name, url


def _main_address(url: str, what: str) -> str:
    url = _address(url, what)
    if not url.lower().startswith(("rtsp://", "rtsps://")):
        raise UsageError(f"{what}: {redact_url(url)}: the main stream must be rtsp:// or rtsps://")
    return url


def _address(url: str, what: str) -> str:
    try:
        return check_address(url)
    except UsageError as error:
        raise UsageError(scrub(f"{what}: {error}", url)) from None
