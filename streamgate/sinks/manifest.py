"""What a run has created in an output folder, so that `--overwrite` removes that and nothing else.

Two files in OUT/.streamgate: `manifest.json`, rewritten as a whole at the start and at the end of a run,
and `commits.jsonl`, to which each committed source adds a line: rewriting the manifest at each commit would
cost the square of the number of sources. Reading joins both.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamgate.errors import SinkError
from streamgate.records import SCHEMA, dumps, redacted
from streamgate.sinks import files
from streamgate.sinks.base import RunInfo

DERIVED = ("faces.jsonl", "persons.jsonl", "summary.json")
"""Files directly in OUT that follow from the committed sources."""

_PROGRAM = "streamgate"


@dataclass(slots=True)
class Manifest:
    """The manifest of one output folder.

    Attributes:
        house: OUT/.streamgate, where the two files lie.
        run: what decides about results, with its `digest`; a later `--resume` compares it.
        owned: files of ours that belong to no single source, relative to OUT.
        sources: source id -> its files, relative to OUT/<source id>. A source is listed just before it gets
            its final name, so after a crash one may be listed that is not there.
    """

    house: Path
    run: dict[str, Any] = field(default_factory=dict)
    owned: tuple[str, ...] = ()
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, house: Path) -> Manifest:
        """What is there; empty when there is no manifest.

        Raises SinkError for one that this version does not understand.
        """
        manifest = cls(house)
        path = house / "manifest.json"
        try:
            with files.sink_errors(path):
                stored = json.loads(path.read_bytes())
            if stored["program"] != _PROGRAM or stored["schema"] != SCHEMA:
                raise ValueError("another program or schema")
            manifest.run = dict(stored["run"])
            manifest.owned = tuple(map(str, stored["files"]))
            manifest.sources = {str(key): tuple(map(str, names)) for key, names in stored["sources"].items()}
        except SinkError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return manifest
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SinkError(
                f"{path} was not written by this version of streamgate or is damaged; "
                "choose another folder with -o"
            ) from error
        manifest.sources.update(_read_commits(house / "commits.jsonl"))
        return manifest

    def present(self) -> list[str]:
        """Ids of listed sources that did get their final name, sorted."""
        return sorted(key for key in self.sources if os.path.isfile(self.house.parent / key / "source.json"))

    def paths(self) -> list[str]:
        """Every listed file relative to OUT, with `/`, in the order in which to remove them.

        source.json comes first in its folder: a source that was removed by half no longer counts as present.
        """
        found = list(self.owned)
        for key, names in self.sources.items():
            found += [f"{key}/{name}" for name in sorted(names, key=lambda name: name != "source.json")]
        return found

    def add(self, source_id: str, names: tuple[str, ...]) -> None:
        """List a source that is about to get its final name. Raises OSError."""
        files.append_line(self.house / "commits.jsonl", dumps({"source_id": source_id, "files": list(names)}))
        self.sources[source_id] = names

    def write(self) -> None:
        """Write the whole manifest; the commits are then part of it. Raises OSError."""
        whole = {
            "program": _PROGRAM,
            "schema": SCHEMA,
            "run": self.run,
            "files": sorted(self.owned),
            "sources": {key: sorted(self.sources[key]) for key in sorted(self.sources)},
        }
        files.write_text(self.house / "manifest.json", dumps(whole, pretty=True) + "\n")
        (self.house / "commits.jsonl").unlink(missing_ok=True)


def run_record(run: RunInfo) -> dict[str, Any]:
    """What decides about results, and its sha256 as `digest` (weights by their sha256, wherever they lie)."""
    record = {
        "schema": SCHEMA,
        "calibration_id": run.calibration_id,
        "measure_set": list(run.measure_set),
        "weights": redacted([dict(weights) for weights in run.weights]),
        "config": redacted(run.config),
    }
    hashes = sorted(str(weights.get("sha256", weights)) for weights in run.weights)
    return {"digest": _digest({**record, "weights": hashes}), **record}


def _digest(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_commits(path: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    with files.sink_errors(path):
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return found
    for line in lines:
        try:
            entry = json.loads(line)
            found[str(entry["source_id"])] = tuple(map(str, entry["files"]))
        except (ValueError, KeyError, TypeError):
            continue  # torn by a crash, before its source had its final name
    return found
