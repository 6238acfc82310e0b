"""Reads an output folder of `run`, for all commands that use results.

The folder is untrusted: its contents are validated before use, and no link inside it is followed. Large files are read
line by line, so only one line is in memory at a time.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

from streamgate.errors import ResultsError, UsageError, display
from streamgate.store import files, jsonlines, schemas
from streamgate.store.jsonlines import MAX_LINE_BYTES, MAX_LIST_BYTES, SCHEMA, Record
from streamgate.store.layout import (
    CANDIDATES,
    DERIVED,
    FACES,
    NOTES,
    PERSONS,
    SOURCE,
    SUMMARY,
    TRACKS,
    has_manifest,
    is_source_id,
)
from streamgate.store.lock import Lock
from streamgate.store.manifest import Manifest
from streamgate.store.run import SourceInfo, SourceResult
from streamgate.store.schemas import Schema, mismatch

if TYPE_CHECKING:
    from streamgate.measures import MeasureSpec


class DamageLog:
    """Counts reports of damage and stores the first `most` of them. Each report is one line."""

    def __init__(self, most: int = 20) -> None:
        self.count = 0
        self.words: list[str] = []
        self._most = most

    def add(self, words: str) -> None:
        """Add a report, unless the same one was added before."""
        if words not in self.words:
            self.count += 1
            if len(self.words) < self._most:
                self.words.append(words)


class RunFolder:
    """The results of a run in the folder `out`. Records are read one at a time.

    Args:
        damaged: called once for each damaged part of a file, with a line that starts with the name of the file; the
            part is skipped. If `damaged` is None, the first damaged part raises ResultsError.
    """

    def __init__(self, out: Path, damaged: Callable[[str], None] | None = None) -> None:
        self.out = Path(out)
        self._damaged = damaged

    def check(self) -> None:
        """Raise ResultsError if `out` contains no results at all."""
        if not self._is_there():
            raise ResultsError(self._no_results())

    def lock(self) -> Lock:
        """The lock that keeps runs out of the folder; it is not acquired yet.

        Raises ResultsError if no manifest exists.
        """
        if not has_manifest(self.out):
            raise ResultsError(self._no_results())
        return Lock(self.out)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest. Raises ResultsError if it is missing or damaged, even if `damaged` was given."""
        if not has_manifest(self.out):
            raise ResultsError(self._no_results())
        return Manifest.read(self.out)

    @cached_property
    def summary(self) -> Record:
        """The record in summary.json. Raises ResultsError if it is missing or damaged, even if `damaged` was given."""
        path = display(self.out / SUMMARY)
        remedy = "repeat the `streamgate run` command that made this folder, with --resume, to write it again"
        try:
            return jsonlines.read_object(self.out, SUMMARY, schemas.SUMMARY)
        except OSError as error:
            self.check()
            missing = isinstance(error, FileNotFoundError)
            what = f"is missing; {remedy}" if missing else f"cannot be read ({error.strerror})"
            raise ResultsError(f"{path} {what}") from None
        except ValueError as error:
            raise ResultsError(f"{path} is damaged ({error}); {remedy}") from None

    @cached_property
    def measures(self) -> tuple[MeasureSpec, ...]:
        """The measures that records can contain, in order, including those that the preset defines.

        If this version cannot read the configuration, the result is all measures of this version. Raises ResultsError
        like `summary`.
        """
        # These modules are imported here, because their import is slow and most uses of a folder do not need them.
        from streamgate.config import stored_config
        from streamgate.measures import known_measures

        try:
            return stored_config(self.summary["config"]).specs
        except UsageError:
            return known_measures()

    @property
    def source_ids(self) -> list[str]:
        """Ids of the committed sources, sorted. Raises ResultsError like `manifest`."""
        return self.manifest.present()

    def faces(self, source_id: str | None = None) -> Iterator[Record]:
        """The kept faces in order, either of the whole run (with their persons) or of one source."""
        for _, record in self._records(FACES if source_id is None else f"{source_id}/{FACES}", schemas.FACE):
            yield record

    def faces_with_offsets(self) -> Iterator[tuple[int, Record]]:
        """The faces of the run, each with its offset in the file, which `face_at` takes."""
        yield from self._records(FACES, schemas.FACE)

    def face_at(self, offset: int) -> Record:
        """The face at an offset from `faces_with_offsets`, for callers that cannot hold all faces in memory."""
        try:
            with files.open_below(self.out, FACES) as file:
                file.seek(offset)
                record = jsonlines.parse(file.readline(MAX_LINE_BYTES))
        except (OSError, ValueError):
            record = {}
        if mismatch(record, schemas.FACE):
            raise ResultsError(f"{display(self.out / FACES)} changed while it was being read; try again")
        return record

    def tracks(self, source_id: str) -> Iterator[Record]:
        """The records of a source's tracks, in order of track id."""
        for _, record in self._records(f"{source_id}/{TRACKS}", schemas.TRACK):
            yield record

    def candidates(self, source_id: str) -> Iterator[Record]:
        """The records of all evaluated faces of a source, in the order of evaluation."""
        for _, record in self._records(f"{source_id}/{CANDIDATES}", schemas.CANDIDATE):
            yield record

    def notes(self, source_id: str) -> dict[int, Record]:
        """The notes of a source for the report, by track id; empty if there are none."""
        if not self.has(f"{source_id}/{NOTES}"):
            return {}
        return {
            note["track_id"]: note for _, note in self._records(f"{source_id}/{NOTES}", schemas.NOTE, MAX_LIST_BYTES)
        }

    def person_names(self) -> dict[str, str]:
        """The names that users gave to persons, by person id; empty if there are no persons."""
        if not self.has(PERSONS):
            return {}
        found = (person for _, person in self._records(PERSONS, schemas.PERSON, MAX_LIST_BYTES))
        return {person["person_id"]: person["name"] for person in found if person["name"]}

    def source(self, source_id: str) -> Record:
        """The record in source.json of a committed source.

        Raises ResultsError if the file is missing or damaged, even if `damaged` was given.
        """
        name = f"{source_id}/{SOURCE}"
        try:
            record = jsonlines.read_object(self.out, name, schemas.SOURCE)
        except FileNotFoundError:
            raise self.error(name, "is missing") from None
        except OSError as error:
            raise self.error(name, f"cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise self.error(name, f"is damaged ({error})") from None
        if record["source_id"] != source_id:
            raise self.error(name, "is damaged (it belongs to another source)")
        return record

    def result(self, source_id: str) -> SourceResult | None:
        """The result of a committed source; None if it is missing or cannot be read."""
        try:
            return result_of(self.source(source_id)) if is_source_id(source_id) else None
        except ResultsError:
            return None

    def has(self, name: str) -> bool:
        """Whether there is a regular file of this name (`/`-separated, relative to OUT)."""
        try:
            files.open_below(self.out, name).close()
        except OSError:
            return False
        return True

    def content(self, name: str, most: int = 256 << 20) -> bytes:
        """The bytes of a file, for example a crop. Raises OSError, and ValueError if the file is larger than `most`."""
        with files.open_below(self.out, name) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError("is too large")
        return data

    def _records(self, name: str, shape: Schema, longest: int = MAX_LINE_BYTES) -> Iterator[tuple[int, Record]]:
        """The records of a (gzipped) file, each with its offset. Invalid lines and a truncated end are reported."""
        first, bad = "", 0
        try:
            with ExitStack() as stack:
                file: IO[bytes] | gzip.GzipFile = stack.enter_context(files.open_below(self.out, name))
                if name.endswith(".gz"):
                    if not os.fstat(file.fileno()).st_size:
                        raise EOFError  # an empty file is not a valid gzip file, but `gzip` reads it without an error
                    file = stack.enter_context(gzip.GzipFile(fileobj=file))
                for number, (offset, record) in enumerate(jsonlines.read_lines(file, longest), 1):
                    if not record or type(record.get("schema")) is not int:
                        what = "is not a record"
                    elif record["schema"] != SCHEMA:
                        what = jsonlines.other_version(record)
                    elif "/" in name and record.get("source_id", name.partition("/")[0]) != name.partition("/")[0]:
                        what = "belongs to another source"
                    else:
                        what = mismatch(record, shape) or ""
                        if not what:
                            yield offset, record
                            continue
                    if self._damaged is None:
                        raise self.error(name, f"is damaged in line {number}: {what}")
                    first, bad = first or f"line {number}: {what}", bad + 1
        except FileNotFoundError:
            self._report(name, "is missing")
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self._report(name, "is cut off or damaged")
        except OSError as error:
            self._report(name, f"cannot be read ({error.strerror or error})")
        finally:
            if bad:
                lines = "1 line is" if bad == 1 else f"{bad} lines are"
                self._report(name, f"is damaged: {lines} skipped ({first})")

    def _report(self, name: str, what: str) -> None:
        if self._damaged is None:
            raise self.error(name, what)
        self._damaged(f"{display(name)} {what}")

    def error(self, name: str, what: str) -> ResultsError:
        """The error for a problem with a file, including the remedy."""
        source_id, _, rest = name.partition("/")
        remedy = "repeat the `streamgate run` command that made this folder, with --resume, to write it again"
        if rest:
            # The name may come from a damaged record. Therefore, suggest removing a folder only if it belongs to a
            # source.
            ours = rest == SOURCE or self.has(f"{source_id}/{SOURCE}")
            folder = f"remove the folder {display(self.out / source_id)} and " if ours else ""
            remedy = f"{folder}run its source again with --resume"
        return ResultsError(f"{display(self.out / name)} {what}; {remedy}")

    def _is_there(self) -> bool:
        return has_manifest(self.out) or any(os.path.lexists(self.out / name) for name in DERIVED)

    def _no_results(self) -> str:
        shown = display(self.out)
        if not os.path.exists(self.out):
            return f"{shown}: there is no such folder; give the folder that `streamgate run` wrote (-o)"
        if not os.path.isdir(self.out):
            return f"{shown} is a file; give the folder that `streamgate run` wrote (-o)"
        if any(self.out.glob(f"*/????-??-??/{FACES}")):
            return (
                f"{shown} contains the results of `streamgate serve`, which cannot be used here; give a folder that "
                "`streamgate run` wrote (-o)"
            )
        return f"{shown} contains no results of `streamgate run`; give the folder that it wrote (-o)"


def result_of(record: Record) -> SourceResult:
    """The result in the record of a source.json or in an entry of summary.json."""
    known = {name: record[name] for name in SourceResult.__slots__ if name in record and name != "source"}
    return SourceResult(SourceInfo(record["source"], record["source_id"]), **known)
