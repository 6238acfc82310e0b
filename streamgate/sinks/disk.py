"""The disk sink: one folder per source, committed by one rename, and files for the whole run, derived from all folders.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from streamgate.errors import ResultsError, SinkError, SourceError, UsageError
from streamgate.people.ledger import Ledger, remove_ledger
from streamgate.sinks.delivery_log import remove_delivery_log
from streamgate.sinks.derive import derive
from streamgate.sinks.disk_writer import DiskWriter
from streamgate.store import files, staging
from streamgate.store.folder import RunFolder
from streamgate.store.identity import Embeddings, Templates, load_identity, remove_identity, save_identity
from streamgate.store.layout import DERIVED, FACES, REPORT, SOURCE, STATE_DIR, may_be_named
from streamgate.store.lock import Lock
from streamgate.store.manifest import Manifest, differences, run_record
from streamgate.store.run import RunInfo, SourceInfo, SourceResult

_STAGING = f"{STATE_DIR}/staging"
_DIFFERENCES = 5
"""Maximum number of differences between two runs that a message names."""


class DiskSink:
    """Writes a run below `out`, which is created when missing. Files that streamgate did not write are not touched.

    Entering locks the folder; it fails if the folder is in use, is not writable, or contains results of an earlier run.
    With `overwrite`, the earlier results are replaced: the files that the earlier run's manifest lists are removed when
    the first source is opened, so a run that fails before then destroys nothing. With `resume`, finished sources are
    kept and new ones are added; results with a different configuration, different weights or a different schema are
    refused. Without `candidates`, no candidates.jsonl.gz is written. With `report`, report.html is written and, with
    each source, the data that the report shows.

    Args:
        part: whether these are the results of a shard, which will be merged with those of other shards later.
        lock: the folder's lock, which may already be held.
        begun: called once, after the folder has been taken over and before anything is committed.

    Attributes:
        unfinished: ids of sources that were in progress when an earlier run died.
        unknown_persons: number of persons of an earlier run who could not be compared with new tracks, because their
            templates were removed.

    Raises SinkError, ResultsError for earlier results that cannot be read, and UsageError for earlier results without
    `overwrite` or `resume`. Thread-safe.
    """

    def __init__(
        self,
        out: Path,
        run: RunInfo,
        *,
        overwrite: bool = False,
        resume: bool = False,
        candidates: bool = True,
        report: bool = False,
        part: bool = False,
        lock: Lock | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        self.unfinished: frozenset[str] = frozenset()
        self.unknown_persons = 0
        self._out = Path(out)
        self.run = run
        self._overwrite = overwrite
        self._resume = resume
        self._candidates = candidates
        self._report = report
        self._part = part
        self._staging = self._out / _STAGING
        self._lock = lock or Lock(self._out)
        self._manifest = Manifest(self._out)
        self._mutex = threading.Lock()
        self._open: dict[str, DiskWriter] = {}
        self._written: set[str] = set()
        self._tell_begun = begun
        self._begun = False
        self._finished = False

    def __enter__(self) -> Self:
        with files.sink_errors(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
            files.make_folder(self._out, STATE_DIR)
            if not os.access(self._out, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "no permission", str(self._out))
        self._lock.acquire()
        try:
            # We hold the lock, so anything in staging belongs to a run that died.
            self.unfinished = frozenset(path.name for path in self._staging.glob("*") if path.is_dir())
            files.remove_tree(self._out, _STAGING)
            self._manifest = Manifest.read(self._out)
            self._refuse_to_lose()
            if self._resume:
                self._refuse_to_mix()
                if staging.is_pending(self._out):
                    raise UsageError(
                        f"{self._out}: `streamgate tune` was interrupted; run `streamgate report {self._out}` to "
                        "complete it"
                    )
            with files.sink_errors(self._staging):
                files.make_folder(self._out, _STAGING)
        except BaseException:
            self._lock.release()
            raise
        return self

    def _refuse_to_lose(self) -> None:
        for name in (*DERIVED, REPORT) if self._report else DERIVED:
            if name not in self._manifest.owned and os.path.lexists(self._out / name):
                raise SinkError(
                    f"{self._out / name} exists and was not written by streamgate; "
                    "move it or choose another folder with -o"
                )
        if self._has_results() and not self._overwrite and not self._resume:
            raise UsageError(
                f"{self._out} contains the results of an earlier run; use --resume to continue it, --overwrite to "
                "replace them, or choose another folder with -o"
            )

    def _refuse_to_mix(self) -> None:
        differing = differences(self._manifest.run, run_record(self.run)) if self._manifest.run else []
        if differing:
            named = "; ".join(differing[:_DIFFERENCES])
            more = f" and {len(differing) - _DIFFERENCES} more" if len(differing) > _DIFFERENCES else ""
            raise UsageError(
                f"--resume: the run in {self._out} was started with different settings: {named}{more}; use the same "
                "settings, replace its results with --overwrite, or choose another folder with -o"
            )

    def _has_results(self) -> bool:
        if self._manifest.present():
            return True
        faces = self._out / FACES
        return faces.is_file() and faces.stat().st_size > 0

    @property
    def lock(self) -> Lock:
        """The lock of the folder, held between entering and leaving."""
        return self._lock

    def known_ids(self) -> frozenset[str]:
        """Ids of the sources that the manifest lists, committed or not."""
        return frozenset(self._manifest.sources)

    def done(self, source_id: str) -> SourceResult | None:
        """Result of a source that is committed and complete, so that resuming skips it; None for any other source."""
        if not self._resume or source_id not in self._manifest.sources:
            return None
        result = RunFolder(self._out).result(source_id)
        return result if result is not None and result.status == "done" else None

    def open_source(self, source: SourceInfo) -> DiskWriter:
        """Start a source in staging. Raises SinkError, and SourceError for a source that this run already has.

        If a run is resumed, the results of an interrupted source are replaced when the source is committed again.
        """
        source_id = source.source_id
        _check_name(source_id)
        with self._mutex:
            self._begin()
            if source_id in self._open or source_id in self._written or self.done(source_id) is not None:
                raise SourceError(
                    f"{source.location}: given twice (same name and content); only the first one is used"
                )
            if os.path.lexists(self._out / source_id) and source_id not in self._manifest.sources:
                raise SinkError(
                    f"{self._out / source_id} exists and does not belong to this run; "
                    "move it or choose another folder with -o"
                )
            writer = DiskWriter(
                self, source, self._staging / source_id, candidates=self._candidates, report=self._report
            )
            self._open[source_id] = writer
            return writer

    def adopt(self, folder: Path, names: Iterable[str]) -> bool:
        """Take over a source that was committed in another folder; returns False if this run already has these results.

        `names` are the source's files, relative to `folder`. They are hard-linked if the file system supports it, and
        copied otherwise; `folder` is not changed. If this run has different results of the source, they are replaced.
        Raises SinkError, ResultsError.
        """
        source_id = folder.name
        templates, faces = load_identity(folder.parent, source_id)
        _check_name(source_id)
        with self._mutex:
            self._begin()
            final = self._out / source_id
            if os.path.lexists(final) and source_id not in self._manifest.sources:
                raise SinkError(f"{final} exists and does not belong to this run; move it")
            if _is_same(final / SOURCE, folder / SOURCE):
                return False
        staged = self._staging / source_id
        with files.sink_errors(folder):
            for name in names:
                files.link_or_copy(folder, name, staged / name)
        self.publish(source_id, staged, tuple(sorted(names)), templates, faces)
        return True

    def finish(self, results: list[SourceResult], timing: Mapping[str, float]) -> None:
        """Derive the files that cover the whole run. Raises SinkError.

        If no source could be opened, the results of an earlier run are not changed, unless that run is being resumed.
        """
        with self._mutex:
            if not self._begun and not self._resume and self._has_results():
                self._finished = True
                return
            self._begin()
            # A crashed source will be retried, so the templates that identify persons must be kept until then.
            whole = not any(result.status in ("interrupted", "not_started", "crashed") for result in results)
            self._derive(results, timing, complete=whole)
            self._finished = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for writer in list(self._open.values()):
                writer.discard()
            if self._begun and not self._finished and self._manifest.present():
                try:
                    self._derive([], {}, complete=False)
                except (ResultsError, SinkError):
                    # The original error matters more; the files can be derived again from the committed sources.
                    if kind is None:
                        raise
        finally:
            files.remove_tree(self._out, _STAGING)
            self._lock.release()

    def _begin(self) -> None:
        """Take over the folder, once; the caller holds the mutex."""
        if self._begun:
            return
        with files.sink_errors(self._out):
            kept: dict[str, tuple[str, ...]] = {}
            if self._resume:
                # A source that is listed but missing was only partly removed, or its run died before the rename. The
                # files that are left of this source are removed now.
                kept = {key: self._manifest.sources.pop(key) for key in self._manifest.present()}
                files.remove_listed(self._out, self._manifest.source_paths())
            else:
                files.remove_listed(self._out, self._manifest.paths())
                for name in ("tune", "spares"):  # left by `tune` in the results that are replaced
                    files.remove_tree(self._out, f"{STATE_DIR}/{name}")
                remove_identity(self._out)
                remove_ledger(self._out)
                remove_delivery_log(self._out)
            owned = tuple(sorted({*DERIVED, *(self._manifest.owned if self._resume else ())}))
            self._manifest = Manifest(self._out, run_record(self.run), owned, kept)
            self._manifest.write()
        self._begun = True
        self._tell_begun()

    def _derive(self, results: list[SourceResult], timing: Mapping[str, float], *, complete: bool) -> None:
        self.unknown_persons = derive(
            self._out, self._manifest.present(), self.run, results, timing,
            complete=complete, keep_templates=self._part,
        )  # fmt: skip
        if self._report:
            from streamgate.report.write import write_report

            write_report(self._out, self._manifest, Ledger.read(self._out).names)
        with files.sink_errors(self._out):
            self._manifest.write()

    def has_more(self, source_id: str, frames: int) -> bool:
        """Whether an earlier, interrupted run got at least as far in this source, so that its results must stay."""
        earlier = RunFolder(self._out).result(source_id) if source_id in self._manifest.sources else None
        return earlier is not None and earlier.frames >= frames

    def publish(
        self, source_id: str, folder: Path, names: tuple[str, ...], templates: Templates, faces: Embeddings
    ) -> None:
        """Give a complete staging folder its final name. Thread-safe."""
        final = self._out / source_id
        with files.sink_errors(folder):
            files.sync_tree(folder)
        with self._mutex, files.sink_errors(final):
            if source_id in self._manifest.sources:
                # The source was interrupted in an earlier run, whose results were kept until now.
                files.remove_listed(self._out, self._manifest.source_paths(source_id))
                remove_identity(self._out, source_id)
            save_identity(self._out, source_id, templates, faces)
            # The source is listed in the manifest first. Otherwise, a crash right after the rename would leave files
            # that `--overwrite` does not remove.
            self._manifest.add(source_id, names)
            files.rename_folder(self._out, f"{_STAGING}/{source_id}", source_id)
            self._written.add(source_id)

    def closed(self, source_id: str) -> None:
        with self._mutex:
            self._open.pop(source_id, None)


def _is_same(mine: Path, other: Path) -> bool:
    try:
        return mine.read_bytes() == other.read_bytes()
    except OSError:
        return False


def _check_name(source_id: str) -> None:
    """Refuse a source id that, as a folder name, would lead outside the output or be hidden. Raises SinkError."""
    if not may_be_named(source_id):
        raise SinkError(f"source id {source_id!r} cannot be a folder name in the output; rename the input")
