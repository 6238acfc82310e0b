"""Fuzzing targets: functions that take bytes and may raise only documented errors.

`TARGETS` maps names to targets. Nothing here needs atheris, so the tests can run the targets on the corpus.
"""

from __future__ import annotations

import atexit
import gzip
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from streamgate import config
from streamgate.errors import ResultsError, UsageError, WeightsError, display
from streamgate.image_size import image_size
from streamgate.measures import known_measures
from streamgate.redaction import redact_url, scrub
from streamgate.service.settings import read_settings
from streamgate.sinks.derive import derive
from streamgate.sources.listing import natural_key
from streamgate.sources.naming import slug
from streamgate.store.folder import RunFolder
from streamgate.store.jsonlines import dumps
from streamgate.store.manifest import Manifest, differences, run_record
from streamgate.store.records import candidate_of
from streamgate.weights import store
from streamgate.weights.catalog import parse_catalog


@lru_cache(maxsize=1)
def _folder() -> Path:
    """A folder in memory if available, because every input is written to a file."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="streamgate-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def _file(name: str, data: bytes) -> Iterator[Path]:
    path = _folder() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    yield path


def image_header(data: bytes) -> None:
    """The size in the header of a picture file. Any bytes must give a pair of integers or None."""
    size = image_size(data)
    assert size is None or all(isinstance(one, int) for one in size)


def preset(data: bytes) -> None:
    """A preset in TOML, as read by `--preset FILE`."""
    with _file("preset.toml", data) as path, suppress(UsageError):
        config.load_config(str(path))


def setting(data: bytes) -> None:
    """The argument of `--set`."""
    text = data.decode("utf-8", "surrogateescape")
    with suppress(UsageError):
        key, _ = config.parse_setting(text)
        # The full path is slow, so it is taken only for keys that exist.
        if key.partition(".")[0] in config.Config.model_fields:
            config.load_config("studio", [text])


def streams(data: bytes) -> None:
    """streams.toml, as read by `serve --config FILE`."""
    with _file("streams.toml", data) as path, suppress(UsageError):
        read_settings(config_file=path)


def catalog(data: bytes) -> None:
    """The catalog of weights, in TOML."""
    with suppress(WeightsError):
        parse_catalog(data.decode("utf-8", "replace"))


def card(data: bytes) -> None:
    """A card.json of weights, in a folder that `--models DIR` names."""
    with _file("card/card.json", data) as path, suppress(WeightsError):
        (path.parent / "model.onnx").touch()
        store.from_card(path.parent, "folder")


def receipt(data: bytes) -> None:
    """A receipt.json of weights."""
    with _file("receipt/receipt.json", data) as path, suppress(WeightsError):
        (path.parent / "model.onnx").touch()
        store.from_receipt(path.parent, "folder")


def manifest(data: bytes) -> None:
    """manifest.json and commits.jsonl of an output folder of unknown origin."""
    from streamgate.store.run import RunInfo

    first, _, second = data.partition(b"\n--\n")
    house = _folder() / "out" / ".streamgate"
    house.mkdir(parents=True, exist_ok=True)
    (house / "manifest.json").write_bytes(first)
    (house / "commits.jsonl").write_bytes(second)
    with suppress(ResultsError):
        read = Manifest.read(house.parent)
        read.present()
        for name in read.paths():
            assert isinstance(name, str)
        now = run_record(RunInfo({}, (), {}, "", (), {}))
        assert all(isinstance(words, str) for words in differences(read.run, now))


def source_json(data: bytes) -> None:
    """source.json of a committed source, from which summary.json is derived."""
    from streamgate.store.run import RunInfo

    folder = _folder() / "derived" / "clip-00000000"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source.json").write_bytes(data)
    (folder / "faces.jsonl").touch()
    run = RunInfo({}, (), {}, "", (), {})
    with suppress(ResultsError):
        derive(folder.parent, [folder.name], run, [], {}, complete=True)
    RunFolder(folder.parent).result(folder.name)


def finished(data: bytes) -> None:
    """What `replay` reads from an output folder: summary.json, source.json, tracks.jsonl, faces.jsonl, a crop."""
    from streamgate.sinks.replay_source import finished_sources

    parts = [*data.split(b"\n--\n"), b"", b"", b"", b"", b""]
    folder = _folder() / "finished"
    source = folder / "clip-00000000"
    (source / "track_0001").mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_bytes(parts[0])
    names = ("source.json", "tracks.jsonl", "faces.jsonl", "track_0001/1.png")
    for name, content in zip(names, parts[1:], strict=False):
        (source / name).write_bytes(content)
    with suppress(ResultsError):
        for one in finished_sources(folder, lambda words: None):
            words: list[str] = []
            sent = sum(1 for _ in one.events(words.append))
            assert sent >= one.finals or words, "a final is missing and nothing was reported"


def records(data: bytes) -> None:
    """The line-based files in an output folder, read in both ways: raising or collecting errors."""
    folder = _folder() / "records"
    source = folder / "clip-00000000"
    source.mkdir(parents=True, exist_ok=True)
    for name in ("faces.jsonl", "tracks.jsonl"):
        (source / name).write_bytes(data)
    for name in ("candidates.jsonl.gz", "report.jsonl.gz"):
        (source / name).write_bytes(gzip.compress(data, 1))
    (folder / "persons.jsonl").write_bytes(data)
    words: list[str] = []
    known = [spec.name for spec in known_measures()]
    for reader in (RunFolder(folder, words.append), RunFolder(folder)):
        for read in (reader.faces, reader.tracks, reader.candidates, reader.notes):
            with suppress(ResultsError):
                for record in read(source.name):
                    assert dumps(record) if isinstance(record, dict) else isinstance(record, int)
        with suppress(ResultsError):
            assert all(isinstance(name, str) for name in reader.person_names().values())
        with suppress(ResultsError, ValueError):
            for record in reader.candidates(source.name):
                candidate_of(record, known)


def address(data: bytes) -> None:
    """Redaction of addresses. A password must never appear in the result, and no exception may be raised."""
    text = data.decode("utf-8", "replace")
    redact_url(text)
    scrub(text, text)
    user, _, host = text.partition("\0")
    # A password chosen by the fuzzer, marked so that it can be distinguished from the text around it.
    secret = (
        "S3" + "".join(sign for sign in user if sign not in "/?#\\ \t\n\r\"'<>\0" and sign.isprintable())[:40] + "S3"
    )
    for url in (f"rtsp://user:{secret}@{host or 'camera'}", f"http://camera/x?token={secret}"):
        shown = [redact_url(url), scrub(f"cannot open {url}: refused", url)]
        assert all(secret not in one for one in shown), (url, shown)


def name(data: bytes) -> None:
    """File names, as displayed and as used for the names of folders."""
    text = data.decode("utf-8", "surrogateescape").replace("\0", "")
    assert display(text).isprintable()
    safe = slug(text)
    assert safe and not safe.startswith(".") and "/" not in safe and safe.isascii()
    natural_key(text)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "image_header": image_header,
    "preset": preset,
    "setting": setting,
    "streams": streams,
    "catalog": catalog,
    "card": card,
    "receipt": receipt,
    "manifest": manifest,
    "source_json": source_json,
    "finished": finished,
    "records": records,
    "address": address,
    "name": name,
}
