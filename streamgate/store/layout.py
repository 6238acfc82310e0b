"""Layout of the output folder OUT of a run, and functions that recognise such a folder.

OUT/.streamgate/lock, manifest.json, commits.jsonl      id of the running process; list of the files that runs created
OUT/.streamgate/staging/<source_id>/                    results of a source that is not committed yet
OUT/<source_id>/track_0001/1.png                        crops, FFHQ-aligned; the name is the rank
OUT/<source_id>/faces.jsonl, tracks.jsonl               kept faces by (track, rank); results of all tracks
OUT/<source_id>/candidates.jsonl.gz                     every evaluated face, in the order of evaluation
OUT/<source_id>/report.jsonl.gz                         small pictures and quality over time, for the report
OUT/<source_id>/source.json                             the result of the source
OUT/.streamgate/identity/<source_id>.npy                embeddings; removed when the run ends, unless stored
OUT/.streamgate/persons.json, decisions.jsonl           the tracks of each person; decisions of users
OUT/.streamgate/delivered.jsonl                         sources that were delivered completely to a sink
OUT/.streamgate/ray-<random>/<reader>/                  output folders of the readers during a `run --ray`
OUT/.streamgate/tune/, spares/                          a tuning in progress; faces saved by earlier tunings
OUT/faces.jsonl, persons.jsonl, summary.json            derived from the committed sources
OUT/report.html, report/                                derived from the committed sources
OUT/exports/, clips/                                    created by `export` and `clips`
OUT/shards/<number>/                                    output folders of shards, to be merged
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from streamgate.errors import display

STATE_DIR = ".streamgate"
"""The folder in OUT for internal files."""

SOURCE, FACES, TRACKS = "source.json", "faces.jsonl", "tracks.jsonl"
CANDIDATES, NOTES = "candidates.jsonl.gz", "report.jsonl.gz"
PERSONS, SUMMARY = "persons.jsonl", "summary.json"
REPORT, PAGES = "report.html", "report"
EXPORTS, CLIPS, SHARDS = "exports", "clips", "shards"

DERIVED = (FACES, PERSONS, SUMMARY)
"""Files directly in OUT that are derived from the committed sources."""

RECEIPT = ".streamgate-export.json"
"""A file in each folder created by `export` or `clips`. It contains the format and the names of the written files."""

_RESERVED = frozenset({*DERIVED, REPORT, PAGES, EXPORTS, CLIPS, SHARDS})
_NAME = re.compile(r"[^./\\\0][^/\\\0]{0,254}")


def not_local(text: str) -> str | None:
    """The reason why a text cannot be a path on this machine; None if it can be one."""
    if not text:
        return "it is empty; give a file or folder"
    # A URL may have a single slash (file:/path, RFC 8089). A single letter before the colon is a drive, not a scheme.
    if scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,2}", text):
        return (
            f"{scheme[0]} is not supported here; give a path on this machine: copy input files here before the run, "
            "or copy the results afterwards"
        )
    return None


def has_manifest(out: Path) -> bool:
    """Whether `run` has started to write into a folder."""
    # `Path.is_file` is not used, because it raises an error if a name is too long.
    return os.path.isfile(out / STATE_DIR / "manifest.json")


def is_ours(folder: Path) -> bool:
    """Whether a folder contains results or exports of streamgate, not footage."""
    return has_manifest(folder) or (folder / RECEIPT).is_file()


def is_source_id(name: object) -> bool:
    """Whether a name from a file can be the name of a source's folder: a single path part that is not hidden."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def may_be_named(source_id: str) -> bool:
    """Whether a new source may have this id: a single path part that is not hidden and not reserved."""
    return (
        is_source_id(source_id)
        and source_id not in _RESERVED
        and source_id.isprintable()
        and len(source_id.encode("utf-8", "surrogatepass")) <= 200
    )


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a `/`-separated name relative to a folder. Raises ValueError if it leads out of the folder."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0].startswith("/") or "\0" in name:
        raise ValueError(f"{display(name)} is not the name of a file in this folder")
    return parts


def picture_name(track_id: int, rank: int, suffix: str, crop: str = "ffhq") -> str:
    """File name of a crop in its source's folder, for example `track_0001/1.png` or `track_0001/1.arcface.png`."""
    return f"track_{track_id:04d}/{rank}{'' if crop == 'ffhq' else f'.{crop}'}.{suffix}"
