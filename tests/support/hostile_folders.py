"""Output folders that somebody has spoiled, each with the command that meets it and what has to become of that.

Shared by tests and `benchmarks/reliability.py`. What is spoiled is a copy of real results: two sources, embeddings kept
(`identity.store=disk`), one tuning behind it. Beside the copy is `elsewhere`, which nobody may touch.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATE = ".streamgate"


@dataclass(frozen=True)
class Spoiled:
    """One spoiled folder.

    Attributes:
        what: for people.
        spoil: given the folder and `elsewhere`.
        command: with OUT for the folder; further words as they are.
        code: the exit code.
        words: what the message must say.
    """

    what: str
    spoil: Callable[[Path, Path], object]
    command: str
    code: int
    words: str


def first(out: Path) -> Path:
    """The folder of a source."""
    return min(path.parent for path in out.glob("*/source.json"))


def linked(name: str) -> Callable[[Path, Path], object]:
    """What is called so (SOURCE: a source's folder) moves elsewhere, or is made there, and a link takes its place."""

    def spoil(out: Path, elsewhere: Path) -> None:
        path = out / name.replace("SOURCE", first(out).name)
        target = elsewhere / path.name.lstrip(".")
        if path.exists():
            shutil.move(path, target)
        elif path.suffix:
            target.write_text("mine\n")
        else:
            (target / "deep").mkdir(parents=True)
            (target / "deep" / "mine.txt").write_text("mine")
        path.symlink_to(target)

    return spoil


def edited(name: str, change: Callable[[Any], object]) -> Callable[[Path, Path], object]:
    """An object of a file is changed: the whole file's, or the first line's."""

    def spoil(out: Path, elsewhere: Path) -> None:
        path = out / name.replace("SOURCE", first(out).name)
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        head, rest = (data, b"") if path.suffix == ".json" else data.split(b"\n", 1)
        record = json.loads(head)
        change(record)
        text = json.dumps(record).replace('"RAW-', "").replace('-RAW"', "").encode() + b"\n" + rest
        path.write_bytes(gzip.compress(text, 1) if path.suffix == ".gz" else text)

    return spoil


def replaced(name: str, content: Callable[[], bytes]) -> Callable[[Path, Path], object]:
    """A file has other bytes."""

    def spoil(out: Path, elsewhere: Path) -> None:
        (out / name.replace("SOURCE", first(out).name)).write_bytes(content())

    return spoil


def _set(*keys: str | int, to: object) -> Callable[[Any], object]:
    def change(record: Any) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = to

    return change


def _spaces() -> bytes:
    """Gigabytes of spaces as one line."""
    packed = gzip.compress(b" " * (64 << 20), 9)
    return packed * 32


def _lists() -> bytes:
    """A line that fits, of values that do not."""
    return b'{"schema":1,"source_id":"x","track_id":1,"members":[' + b"[]," * 20_000_000 + b"[]]}\n"


def _claims() -> bytes:
    """A table of embeddings that claims 18 TiB."""
    header = (
        "{'descr': [('track_id', '<i4'), ('rank', '<i4'), ('faces', '<i4'), ('weight', '<f4'), ('agreement', '<f4'), "
        "('inter_eye', '<f4'), ('vector', '<f4', (512,))], 'fortran_order': False, 'shape': (9663676416,), }"
    )
    padded = header + " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode()


DEEP = "RAW-" + "[" * 5000 + "]" * 5000 + "-RAW"

LINKS = [
    Spoiled("the state folder is a link", linked(STATE), "report OUT", 5, "symbolic link"),
    Spoiled("the state folder is a link", linked(STATE), "tune OUT --max-yaw 5 --pictured", 5, "symbolic link"),
    Spoiled("the state folder is a link", linked(STATE), "run CLIP -o OUT --overwrite", 5, "symbolic link"),
    Spoiled("the lock is a link", linked(f"{STATE}/lock"), "report OUT", 5, "symbolic link"),
    Spoiled("decisions.jsonl is a link", linked(f"{STATE}/decisions.jsonl"), "people OUT name p0001 Bob", 3,
            "symbolic link"),
    Spoiled("manifest.json is a link", linked(f"{STATE}/manifest.json"), "report OUT", 3, "symbolic link"),
    Spoiled("the staging folder is a link", linked(f"{STATE}/staging"), "run CLIP -o OUT --overwrite", 0, ""),
    Spoiled("the folder of an unfinished tuning is a link",
            linked(f"{STATE}/tune"), "tune OUT --max-yaw 5 --pictured", 0, ""),
    Spoiled("the folder of spare faces is a link", linked(f"{STATE}/spares"), "run CLIP -o OUT --overwrite", 0, ""),
    Spoiled("a source's folder is a link", linked("SOURCE"), "run CLIP -o OUT --overwrite", 5,
            "does not belong to this run"),
    Spoiled("a source's folder is a link", linked("SOURCE"), "export OUT --to imagefolder", 3, "symbolic link"),
    Spoiled("a crop is a link", linked("SOURCE/track_0001/1.png"), "export OUT --to webdataset", 3, "symbolic link"),
    Spoiled("the folder of the report's pages is a link", linked("report"), "report OUT", 0, ""),
]
"""Nothing elsewhere is read, written or removed."""

STORED = [
    Spoiled("candidates.jsonl.gz: one line of 2 GiB of spaces, compressed to 2 MB",
            replaced("SOURCE/candidates.jsonl.gz", _spaces),
            "tune OUT --max-yaw 5 --pictured", 1, "is damaged in line 1"),
    Spoiled("candidates.jsonl.gz: cut off", replaced("SOURCE/candidates.jsonl.gz", lambda: gzip.compress(b"{}")[:-4]),
            "tune OUT --max-yaw 5 --pictured", 1, "damaged"),
    Spoiled("candidates.jsonl.gz: every face ten times",
            lambda out, elsewhere: (first(out) / "candidates.jsonl.gz").write_bytes(
            (first(out) / "candidates.jsonl.gz").read_bytes() * 10),
            "tune OUT --max-yaw 5 --pictured", 1, "two faces at the same time"),
    Spoiled("candidates.jsonl.gz: text instead of a measure",
            edited("SOURCE/candidates.jsonl.gz", _set("measures", "yaw", to="x")),
            "tune OUT --max-yaw 5 --dry-run --pictured", 1, "measures.yaw is not an object"),
    Spoiled("persons.jsonl: 60 MB of empty lists", replaced("persons.jsonl", _lists), "export OUT --to csv", 3,
            "not a record"),
    Spoiled("faces.jsonl: text instead of a quality",
            edited("faces.jsonl", _set("quality", to="good")), "export OUT --to csv", 3,
            "quality is not a number or null"),
    Spoiled("faces.jsonl: the number NaN",
            edited("faces.jsonl", _set("quality", to=float("nan"))), "export OUT --to csv", 3, "line 1"),
    Spoiled("faces.jsonl: the number 1e999",
            edited("faces.jsonl", _set("upscaled", to="RAW-1e999-RAW")), "export OUT --to csv", 3,
            "line 1"),
    Spoiled("faces.jsonl: a number of 5,000 digits", edited("faces.jsonl", _set("rank", to=f"RAW-{'9' * 5000}-RAW")),
            "export OUT --to csv", 3, "line 1"),
    Spoiled("faces.jsonl: 5,000 nested brackets",
            edited("faces.jsonl", _set("name", to=DEEP)), "export OUT --to csv", 3, "line 1"),
    Spoiled("faces.jsonl: a picture outside the folder", edited("faces.jsonl", _set("image", to="../elsewhere/x.png")),
            "export OUT --to imagefolder", 3, "image does not have the right form"),
    Spoiled("tracks.jsonl: null instead of a time",
            edited("SOURCE/tracks.jsonl", _set("first_pts", to=None)), "people OUT list", 3,
            "first_pts is not a number"),
    Spoiled("tracks.jsonl: a negative track_id",
            edited("SOURCE/tracks.jsonl", _set("track_id", to=-1)), "people OUT list", 3,
            "track_id is not a count"),
    Spoiled("source.json: a list instead of an object",
            replaced("SOURCE/source.json", lambda: b"[]"), "tune OUT --max-yaw 5 --pictured", 3,
            "not a JSON object"),
    Spoiled("summary.json: a list instead of an object", edited("summary.json", _set("config", to=[])), "report OUT", 3,
            "config is not an object"),
    Spoiled("summary.json: 5,000 nested brackets",
            edited("summary.json", _set("config", "deep", to=DEEP)), "report OUT", 3, "damaged"),
    Spoiled("summary.json: a mapping of width 0",
            edited("summary.json", _set("calibration", "mappings", "serfiq", to=[0, 0])),
            "tune OUT --max-yaw 5 --pictured", 3, "a width of 0"),
    Spoiled("manifest.json: half a surrogate pair", edited(f"{STATE}/manifest.json", _set("files", to=["\ud800"])),
            "report OUT", 3, "not valid Unicode"),
    Spoiled("manifest.json: names with NUL, with .. or with an absolute path",
            edited(f"{STATE}/manifest.json", lambda record: record["files"].extend(["a\0b", "../x", "/etc/x"])),
            "run CLIP -o OUT --overwrite", 0, ""),
    Spoiled("manifest.json: numbers instead of names", edited(f"{STATE}/manifest.json", _set("files", to=[1, None])),
            "people OUT name p0001 Bob", 3, "files.0 is not text"),
    Spoiled("manifest.json: a later schema version",
            edited(f"{STATE}/manifest.json", _set("schema", to=99)), "report OUT", 3,
            "schema 99"),
    Spoiled("persons.json: a path instead of an id",
            edited(f"{STATE}/persons.json", _set("tracks", to={"a": {"1": "../x"}})),
            "people OUT list", 3, "persons.json is damaged"),
    Spoiled("decisions.jsonl: an unknown decision",
            replaced(f"{STATE}/decisions.jsonl", lambda: b'{"schema":1,"op":"marry"}\n'),
            "people OUT list", 3, "decisions.jsonl is damaged"),
    Spoiled("embeddings: a header that claims 18 TiB", lambda out, elsewhere: (
                out / STATE / "identity" / f"{first(out).name}.npy").write_bytes(_claims()),
            "tune OUT --max-yaw 5 --pictured", 3, "is damaged"),
    Spoiled("report.jsonl.gz: cut off", replaced("SOURCE/report.jsonl.gz", lambda: b"\x1f\x8b"), "report OUT", 0,
            "cut off or damaged"),
    Spoiled("faces.jsonl: a folder instead of a file", lambda out, elsewhere: ((out / "faces.jsonl").unlink(),
            (out / "faces.jsonl").mkdir()), "export OUT --to csv", 3, "cannot be read"),
]  # fmt: skip
"""What is damaged is named, with one exit code whatever command meets it."""


def put(spoiled: Spoiled, results: Path, folder: Path, clip: Path) -> tuple[list[str], Path]:
    """Spoil a copy of `results` in `folder`; the command, and `elsewhere`."""
    out, elsewhere = folder / "out", folder / "elsewhere"
    shutil.copytree(results, out)
    elsewhere.mkdir()
    spoiled.spoil(out, elsewhere)
    words = {"OUT": str(out), "CLIP": str(clip)}
    return [words.get(word, word) for word in spoiled.command.split(" ")], elsewhere


def contents(folder: Path) -> dict[str, object]:
    """Every file below a folder with its bytes, every folder and link."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.is_dir()
        for path in sorted(folder.rglob("*"))
    }


def live_folder(out: Path, elsewhere: Path, linked: str) -> Path:
    """What `serve --out` left years ago: a day of its own, and one of which a part is a link; the own day's crop."""
    for day in ("2020-01-01", "2020-01-02"):
        crop = out / "door" / day / "e1" / "track_0001" / "1.png"
        crop.parent.mkdir(parents=True)
        crop.write_bytes(b"x" * 1000)
        (out / "door" / day / "faces.jsonl").write_text("{}\n")
        os.utime(crop, (1_577_836_800, 1_577_836_800))
    elsewhere.mkdir(parents=True)
    linked_part = out / "door" / "2020-01-02" / linked
    shutil.move(linked_part, elsewhere / "moved")
    linked_part.symlink_to(elsewhere / "moved")
    return out / "door" / "2020-01-01" / "e1" / "track_0001" / "1.png"


LINKED_DAYS = {"the day": "", "the connection": "e1", "the track": "e1/track_0001", "a crop": "e1/track_0001/1.png"}
"""Parts of a live folder that are links."""
