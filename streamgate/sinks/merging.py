"""Merges the shards of a run (OUT/shards/1, OUT/shards/2, ...) into OUT; the result is that of a run without shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from streamgate.errors import ResultsError, UsageError, display
from streamgate.people.ledger import has_people
from streamgate.sharding import MOST, Shard
from streamgate.sinks.disk import DiskSink
from streamgate.store import files, jsonlines, schemas
from streamgate.store.folder import RunFolder, result_of
from streamgate.store.identity import load_identity, remove_identity
from streamgate.store.jsonlines import SCHEMA, dumps, redacted
from streamgate.store.layout import SHARDS, STATE_DIR, has_manifest
from streamgate.store.lock import Lock
from streamgate.store.manifest import differences, run_record
from streamgate.store.run import IdentityInfo, RunInfo, SourceInfo, SourceResult

_PART = "shard.json"
_UNCOMMITTED = ("failed", "crashed", "duplicate", "not_started")


@dataclass(frozen=True, slots=True)
class _Part:
    """A shard and its results."""

    folder: RunFolder
    shard: Shard
    run: RunInfo
    summary: Mapping[str, Any] | None
    """None if the run of this shard has not finished."""

    @property
    def out(self) -> Path:
        return self.folder.out

    def results(self) -> Iterator[SourceResult]:
        """The results of the shard's sources, the committed sources first. Raises ResultsError."""
        for source_id in self.folder.source_ids:
            yield result_of(self.folder.source(source_id))
        for entry in self.summary["sources"] if self.summary is not None else ():
            if entry["status"] in _UNCOMMITTED:
                yield result_of(entry)


def write_part(folder: Path, shard: Shard, run: RunInfo) -> None:
    """Write a shard's number and the settings of its run to the shard's folder, because merging needs them. Raises
    SinkError."""
    record = {
        "program": "streamgate", "schema": SCHEMA, "shard": shard.index, "of": shard.count,
        "run": redacted(asdict(run)),
    }  # fmt: skip
    with files.sink_errors(folder):
        files.write_text(folder, f"{STATE_DIR}/{_PART}", dumps(record, pretty=True) + "\n")


def merge(out: Path, *, overwrite: bool = False) -> tuple[str, list[str]]:
    """Add the results of the shards in `out` to `out` itself, and derive the files that cover the whole run.

    Returns what was merged, as one line, and one line for each reason why the result is not complete.

    Sources that `out` already contains unchanged are not touched, so merging can be repeated as shards finish. The
    shards' folders are kept, except for the templates stored for merging, which are removed when the merge is complete.

    Raises ResultsError when there are no shards or a shard is damaged, UsageError when the shards do not belong
    together, and SinkError when a shard is still running or `out` is not writable.
    """
    folders = _folders(out)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(Lock(folder))
        parts = [_read(folder) for folder in folders]
        _refuse_strangers(parts)
        run = parts[0].run
        if overwrite:
            _refuse_to_forget(out, parts)
        unfinished = _unfinished(parts)
        results = _distinct([result for part in parts for result in part.results()])
        results += [SourceResult(SourceInfo(line, ""), status="not_started", error=line) for line in unfinished]
        new = 0
        report = bool(run.config.get("output", {}).get("report"))
        with DiskSink(out, run, overwrite=overwrite, resume=not overwrite, report=report) as disk:
            for part in parts:
                for source_id in part.folder.source_ids:
                    new += disk.adopt(part.out / source_id, part.folder.manifest.sources[source_id])
            disk.finish(results, {"seconds": sum(_seconds(part) for part in parts)})
        if not unfinished and run.identity.store == "session":
            for part in parts:
                remove_identity(part.out)
    committed = [result for result in results if result.status in ("done", "interrupted")]
    kept = sum(one.kept for one in committed)
    done = (
        f"{kept} face{'' if kept == 1 else 's'} of {len(committed)} source(s) ({new} new) from {len(parts)} shard(s) "
        f"in {display(out)}"
    )
    return done, unfinished


def _folders(out: Path) -> list[Path]:
    """The shards' folders sorted by number. Raises ResultsError when there are none."""
    try:
        names = [path.name for path in (out / SHARDS).iterdir() if has_manifest(path) and not path.is_symlink()]
    except OSError:
        names = []
    numbers = sorted(int(name) for name in names if name.isascii() and name.isdigit() and 1 <= int(name) <= MOST)
    if not numbers:
        raise ResultsError(
            f"{display(out)}: contains no shards; create them with `streamgate run ... -o {display(out)} --shard I/N` "
            "and merge the same folder"
        )
    return [out / SHARDS / str(number) for number in numbers]


def _read(folder: Path) -> _Part:
    try:
        stored = jsonlines.read_object(folder, f"{STATE_DIR}/{_PART}", schemas.PART)
        if stored["program"] != "streamgate":
            raise ValueError("another program")
        shard = Shard.parse(f"{stored['shard']}/{stored['of']}")
        values = dict(stored["run"])
        values |= {key: tuple(values[key]) for key in ("measure_set", "weights")}
        run = RunInfo(**{**values, "identity": IdentityInfo(**values["identity"])})
    except (OSError, ValueError, TypeError, UsageError) as error:
        raise ResultsError(
            f"{display(folder)}: was not written by --shard with this version of streamgate, or is damaged; "
            "run the shard again with --overwrite"
        ) from error
    if shard.index != int(folder.name):
        raise UsageError(f"{display(folder)}: contains shard {shard.index}; rename the folder to {shard.index}")
    read = RunFolder(folder)
    try:
        return _Part(read, shard, run, read.summary)
    except ResultsError:
        return _Part(read, shard, run, None)


def _refuse_strangers(parts: Sequence[_Part]) -> None:
    """Refuse shards that differ in settings, weights or the total number of shards. Raises UsageError."""
    first = parts[0]
    for part in parts[1:]:
        if part.shard.count != first.shard.count:
            raise UsageError(
                f"{display(part.out)} is one of {part.shard.count} shards, but {display(first.out)} is one of "
                f"{first.shard.count}: they are not from the same run; remove the wrong shards or run them again"
            )
    for part in parts:
        mine = run_record(part.run)
        # The manifest in the shard's folder is compared too: it may be older than the shard's record.
        for folder, other in ((first.out, run_record(first.run)), (part.out, part.folder.manifest.run)):
            if found := differences(other, mine):
                raise UsageError(
                    f"{display(part.out)} was made with settings or weights that differ from those of "
                    f"{display(folder)}: {'; '.join(found[:5])}; run this shard again with --overwrite"
                )


def _refuse_to_forget(out: Path, parts: Sequence[_Part]) -> None:
    """Refuse to start over when an earlier merge removed the templates: each track would become a separate person."""
    wanted = parts[0].run.identity.wanted and has_people(out)
    known = (load_identity(part.out, one)[0] for part in parts for one in part.folder.source_ids)
    if wanted and not any(known):
        raise UsageError(
            f"--overwrite: the persons of {display(out)} cannot be found again, because the first complete merge "
            "removed their templates (identity.store=session); merge without --overwrite, or run the shards again"
        )


def _unfinished(parts: Sequence[_Part]) -> list[str]:
    """Why the merge is not complete, one line for each reason."""
    count = parts[0].shard.count
    there = {part.shard.index for part in parts}
    missing = [number for number in range(1, count + 1) if number not in there]
    lines = []
    if missing:
        named = ", ".join(map(str, missing[:10])) + (" ..." if len(missing) > 10 else "")
        lines.append(f"{len(missing)} of {count} shards have not been run: {named}")
    for part in parts:
        if part.summary is None or not part.summary["complete"]:
            lines.append(f"shard {part.shard.index}/{count} was interrupted: run it again with --resume")
    return lines


def _distinct(results: Sequence[SourceResult]) -> list[SourceResult]:
    """The results without duplicates: several shards may report the same unreadable input."""
    seen = set()
    found = []
    for result in results:
        key = (result.source.location, result.source.source_id, result.status, result.error)
        if key not in seen:
            seen.add(key)
            found.append(result)
    return found


def _seconds(part: _Part) -> float:
    return 0.0 if part.summary is None else part.summary["timing"]["run"].get("seconds") or 0.0
