"""The list of files that a run has created in an output folder, so that `--overwrite` removes only these.

The list is stored in two files in OUT/.streamgate. `manifest.json` is rewritten at the start and at the end of a run.
Each committed source appends a line to `commits.jsonl`, since rewriting the manifest at each commit would take
quadratic time. `Manifest.read` combines both files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamgate.errors import ResultsError, display
from streamgate.store import files, jsonlines
from streamgate.store.jsonlines import SCHEMA, dumps, redacted
from streamgate.store.layout import SOURCE, STATE_DIR, is_source_id
from streamgate.store.run import RunInfo
from streamgate.store.schemas import COMMIT, MANIFEST, mismatch

_PROGRAM = "streamgate"
_NAME, _COMMITS = f"{STATE_DIR}/manifest.json", f"{STATE_DIR}/commits.jsonl"


@dataclass(slots=True)
class Manifest:
    """The manifest of one output folder.

    Attributes:
        out: the folder.
        run: the `run_record` of the run; `--resume` compares it with the record of the new run.
        owned: files created by runs that do not belong to a single source, relative to OUT.
        sources: the files of each source, by source id, relative to OUT/<source id>. A source is listed just before its
            folder gets its final name, so a listed source may be missing after a crash.
    """

    out: Path
    run: dict[str, Any] = field(default_factory=dict)
    owned: tuple[str, ...] = ()
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, out: Path) -> Manifest:
        """Read the manifest; an empty one if the file does not exist. Raises ResultsError if it cannot be read."""
        manifest = cls(out)
        path = display(out / _NAME)
        try:
            stored = jsonlines.read_object(out, _NAME, MANIFEST)
            if stored["program"] != _PROGRAM:
                raise ValueError("belongs to another program")
            commits = jsonlines.read_log(out, _COMMITS)
        except FileNotFoundError:
            return manifest
        except OSError as error:
            reason = f"{path} cannot be read ({error.strerror})"
            raise ResultsError(f"{reason}; remove it or choose another folder") from error
        except ValueError as error:
            raise ResultsError(
                f"{path} is damaged ({error}); restore a copy of it, or run the sources again into another folder"
            ) from error
        manifest.run = stored["run"]
        manifest.owned = tuple(stored["files"])
        manifest.sources = {key: tuple(names) for key, names in stored["sources"].items()}
        manifest.sources |= {one["source_id"]: tuple(one["files"]) for one in commits if not mismatch(one, COMMIT)}
        return manifest

    def present(self) -> list[str]:
        """Ids of the listed sources whose folder has its final name, sorted."""
        # Skip names that lead out of the folder: the list may have been edited.
        return sorted(key for key in self.sources if is_source_id(key) and (self.out / key / SOURCE).is_file())

    def paths(self) -> list[str]:
        """All listed files, `/`-separated and relative to OUT, in the order of removal.

        The source.json of a folder is removed first, so that a partly removed source does not count as present.
        """
        return [*self.owned, *self.source_paths()]

    def source_paths(self, *source_ids: str) -> list[str]:
        """The listed files of the given sources (by default, of all sources), in the form and order of `paths`."""
        found = []
        for key in source_ids or self.sources:
            names = self.sources[key]
            found += [f"{key}/{name}" for name in sorted(names, key=lambda name: name != SOURCE)]
        return found

    def add(self, source_id: str, names: tuple[str, ...]) -> None:
        """Add a source to the list, just before its folder gets its final name. Raises OSError."""
        files.append_line(self.out, _COMMITS, dumps({"source_id": source_id, "files": list(names)}))
        self.sources[source_id] = names

    def write(self) -> None:
        """Write the whole manifest, including the commits, and then remove `commits.jsonl`. Raises OSError."""
        whole = {
            "program": _PROGRAM,
            "schema": SCHEMA,
            "run": self.run,
            "files": sorted(self.owned),
            "sources": {key: sorted(self.sources[key]) for key in sorted(self.sources)},
        }
        files.write_text(self.out, _NAME, dumps(whole, pretty=True) + "\n")
        files.remove_listed(self.out, [_COMMITS])


def run_record(run: RunInfo) -> dict[str, Any]:
    """Everything that determines the results of a run, and the sha256 of all these values as `digest`.

    The digest depends on the hashes of the weights, not on their paths.
    """
    record = {
        "schema": SCHEMA,
        "calibration_id": run.calibration_id,
        "measure_set": list(run.measure_set),
        "weights": redacted([dict(weights) for weights in run.weights]),
        "config": redacted(run.config),
    }
    hashes = sorted(f"{weights.get('sha256', weights)}{weights.get('cohort', '')}" for weights in run.weights)
    return {"digest": _digest({**record, "weights": hashes}), **record}


def differences(earlier: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """The differences between two `run_record`s, each as a short text; empty if their results can be combined.

    `earlier` may come from a file that others have edited.
    """
    if earlier.get("digest") == run["digest"]:
        return []
    found = []
    for role, (before, now) in sorted(_changed(_hashes(earlier), _hashes(run)).items()):
        found.append(f"{role} (sha256 {before}, now {now})")
    with suppress(RecursionError):  # raised if someone has edited the configuration and nested it too deeply
        before, now = _leaves(earlier.get("config")), _leaves(json.loads(json.dumps(run["config"])))
        found += [f"{key} ({_short(was)}, now {_short(is_)})" for key, (was, is_) in _changed(before, now).items()]
    for key in ("schema", "calibration_id", "measure_set"):
        if not found and earlier.get(key) != run[key]:
            found.append(f"{key} ({_short(earlier.get(key))}, now {_short(run[key])})")
    return found or ["its settings"]


def _hashes(run: Mapping[str, Any]) -> dict[str, str]:
    weights = run.get("weights")
    entries = [one for one in weights if isinstance(one, Mapping)] if isinstance(weights, list) else []
    found = {f"the weights of the {one.get('role')}": str(one.get("sha256"))[:12] for one in entries}
    for cohort in (one["cohort"] for one in entries if "cohort" in one):
        found["the cohort of the recognizer"] = str(cohort)[:12]
    return found


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """All values in nested tables, by dotted key."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = [*now, *(key for key in before if key not in now)]
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def _short(value: Any) -> str:
    text = "unset" if value is None else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _digest(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
