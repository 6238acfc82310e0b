"""What `serve` was asked for: streams and destinations, from flags and a TOML file.

[service]                       # each key as the flag of its name; flags win
redis = "redis://localhost:6379/0"
out = "faces"
http = "127.0.0.1:8080"
spool = "spool"                 # where events wait for Redis
spool_mb = 1024
max_days = 30
max_gb = 50
preset = "live"
device = "cuda:0"               # where the networks run
decode = "cuda"                 # where video is decoded: cuda is the same GPU
set = { "measures.yaw.max" = 40 }   # for all streams

[streams.entrance]              # the name: letters, digits, . _ -
url = "rtsp://user:password@10.0.0.5/stream1"
preset = "live"                 # both optional, for this stream alone
set = { "measures.size.min" = 80, "live.transport" = "udp" }
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

from streamgate.config import Config, load_config
from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import UsageError, one_line, redact_url, scrub
from streamgate.sources.live import check_address
from streamgate.sources.naming import slug
from streamgate.store.layout import STATE_DIR, not_local
from streamgate.tomltext import read_toml

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_STREAMS = 500
"""More than one machine can decode; each takes threads and descriptors."""
_MAX_SHOWN = 5
"""Wrong values that one message names."""
DEFAULT_OUT = Path("streamgate-live")
DEFAULT_SPOOL = Path("streamgate-spool")


_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class ServiceTable(BaseModel):
    """The `[service]` table, and what flags give."""

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

    url: str
    preset: str | None = None
    set: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream to watch. Two that compare equal need no restart."""

    name: str
    url: str = field(repr=False)
    config: Config

    @property
    def location(self) -> str:
        """The address without secrets."""
        return redact_url(self.url)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `serve` needs; made by `read_settings`."""

    streams: tuple[StreamSpec, ...]
    config: Config
    """Of streams that say nothing of their own; its network settings hold for all."""
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
    """The flags of the command line, None where not given. Raises UsageError for a value out of range."""
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
    """Put what the command line gave and the file together; `table` holds the flags that were given.

    Raises UsageError: the first thing wrong, in one line without secrets.
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
        specs[name] = StreamSpec(name, _address(stream.url, what), mine if special else config)
    for given in rtsp:
        name, url = _named(given, specs)
        specs[name] = StreamSpec(name, url, config)
    if not specs and config_file is None:
        raise UsageError("no stream to watch: give --rtsp URL, or --config FILE with [streams.NAME] tables")
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
        raise UsageError(f"{path}: streams are tables: [streams.NAME] with url = ...")
    if len(streams) > MAX_STREAMS:
        raise UsageError(f"{path}: has {len(streams)} streams; one service takes {MAX_STREAMS}, start another")
    for name in streams:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{path}: [streams.{one_line(name, 80)}]: a name has 1 to 64 letters, digits, or . _ - and begins with "
                "one of the former"
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
            # Never with the value: it may be an address.
            text = "there is no such key" if unknown else item["msg"]
            hint = f" (did you mean {near[0]}?)" if unknown and near else ""
            problems.append(f"{one_line(key, 80)}: {one_line(text)}{hint}")
    raise UsageError(f"{what}: {'; '.join(problems)}")


def _config_of(preset: str | None, own: Mapping[str, Any], settings: Sequence[str], what: str) -> Config:
    try:
        # As texts of the same form, so that `--set` comes after them and wins.
        # `serve` keeps no embeddings, whatever a preset made for recorded footage says.
        texts = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in _flat(own).items()]
        config = load_config(preset or "live", ["identity.store=none", *texts, *settings])
    except UsageError as error:
        raise UsageError(f"{what}: {error}" if own or preset else str(error)) from None
    if config.identity.store != "none":
        raise UsageError("identity.store: serve keeps no embeddings; it must be none")
    if config.identity.only:
        raise UsageError("identity.only: serve looks for nobody; `streamgate run --only` does in recorded footage")
    return config


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`measures.yaw.max = 20` is a nested table in TOML, `"measures.yaw.max" = 20` one key; both mean the same."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        # A table comes out as its leaves, as `--set` names them.
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _named(given: str, taken: Mapping[str, StreamSpec]) -> tuple[str, str]:
    """The name and address of `--rtsp [NAME=]URL`; without a name the host's, numbered where it is taken."""
    head, equals, tail = given.partition("=")
    if equals and _NAME.fullmatch(head):
        if head in taken:
            raise UsageError(f"--rtsp {head}=...: there are two streams of this name")
        return head, _address(tail, f"--rtsp {head}")
    url = _address(given, "--rtsp")
    parts = urlsplit(url)
    base = slug(Path(parts.path).stem if parts.scheme == "file" else parts.hostname or "stream")
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name, url


def _address(url: str, what: str) -> str:
    try:
        return check_address(url)
    except UsageError as error:
        raise UsageError(scrub(f"{what}: {error}", url)) from None
