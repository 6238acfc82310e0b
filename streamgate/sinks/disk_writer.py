"""Writes the results of one source to a staging folder, which the disk sink then moves to its final place."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from gzip import GzipFile
from pathlib import Path
from typing import TYPE_CHECKING

from streamgate.people.faces import keep_of
from streamgate.report.notes import Point, Series, track_note
from streamgate.store import files
from streamgate.store.identity import Embeddings, Templates
from streamgate.store.images import encode
from streamgate.store.jsonlines import dumps, new_gzip
from streamgate.store.layout import CANDIDATES, FACES, NOTES, SOURCE, TRACKS
from streamgate.store.records import candidate_record, face_record, image_path, track_record
from streamgate.store.run import SourceInfo, SourceResult, source_record
from streamgate.store.sorter import KeyedSorter
from streamgate.tracks import Candidate, TrackEnd

if TYPE_CHECKING:
    from streamgate.sinks.disk import DiskSink


class DiskWriter:
    """Writes the results of one source to its staging folder. Only one thread at a time may use a writer."""

    def __init__(
        self, sink: DiskSink, source: SourceInfo, folder: Path, *, candidates: bool, report: bool
    ) -> None:
        self._sink = sink
        self._source = source
        self._folder = folder
        self._names: list[str] = []
        self._templates: Templates = {}
        self._embeddings: Embeddings = {}
        keep = keep_of(sink.run.config)
        self._compares = keep is not None and keep.per == "person"
        self._ended = False
        self._candidates: GzipFile | None = None
        self._report = report
        self._series: defaultdict[int, Series] = defaultdict(Series)
        with files.sink_errors(folder):
            folder.mkdir()
            self._faces = KeyedSorter(folder.parent)
            self._tracks = KeyedSorter(folder.parent)
            self._noted = KeyedSorter(folder.parent)
            if candidates:
                self._names.append(CANDIDATES)
                self._candidates = new_gzip(folder / CANDIDATES)

    def evaluated(self, candidate: Candidate) -> None:
        """Append the candidate to candidates.jsonl.gz; the caller must add candidates in a deterministic order."""
        if self._report:
            self._series[candidate.track_id].add(Point.of(candidate))
        if self._candidates is not None:
            line = dumps(candidate_record(candidate, self._source.source_id)).encode() + b"\n"
            with files.sink_errors(self._folder):
                self._candidates.write(line)

    def track(self, ended: TrackEnd) -> None:
        """Write the crops, and collect the records, which are sorted and written at the commit."""
        track_id = ended.track.track_id
        with files.sink_errors(self._folder):
            for shot in ended.shots:
                path = image_path(shot)
                self._write(path.partition("/")[2], encode(shot.image, shot.encoding))
                for crop, further in shot.crops.items():
                    name = image_path(shot, crop).partition("/")[2]
                    self._write(name, encode(further.image, further.encoding))
                self._faces.put((track_id, shot.rank), dumps(face_record(shot, path)).encode() + b"\n")
            self._tracks.put((track_id, 0), dumps(track_record(ended)).encode() + b"\n")
            if self._report:
                note = track_note(ended, self._series.pop(track_id, Series()))
                self._noted.put((track_id, 0), dumps(note).encode() + b"\n")
        # Tracks without a kept face belong to no person, so no biometric data is stored for them.
        if ended.shots and self._sink.run.identity.wanted:
            if ended.template is not None:
                self._templates[track_id] = ended.template
            if self._compares:
                embeddings = {(track_id, shot.rank): shot.embedding for shot in ended.shots}
                self._embeddings.update({key: one for key, one in embeddings.items() if one is not None})

    def commit(self, result: SourceResult) -> None:
        if result.status == "interrupted" and self._sink.has_more(self._source.source_id, result.frames):
            self.discard()
            return
        with files.sink_errors(self._folder):
            if self._candidates is not None:
                self._candidates.close()
            self._write(FACES, self._faces)
            self._write(TRACKS, self._tracks)
            if self._report:
                self._write_notes()
            self._write(SOURCE, (dumps(source_record(result), pretty=True) + "\n").encode())
        self._sink.publish(
            self._source.source_id, self._folder, tuple(sorted(self._names)), self._templates, self._embeddings
        )
        self._end()

    def discard(self) -> None:
        """Remove the staging folder; does nothing after a commit."""
        if not self._ended:
            self._end()
            files.remove_tree(self._folder.parent, self._folder.name)

    def _write(self, name: str, data: bytes | KeyedSorter) -> None:
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        with open(path, "xb") as file:
            for piece in [data] if isinstance(data, bytes) else data.in_order():
                file.write(piece)
        self._names.append(name)

    def _write_notes(self) -> None:
        with new_gzip(self._folder / NOTES) as target:
            for line in self._noted.in_order():
                target.write(line)
        self._names.append(NOTES)

    def _end(self) -> None:
        self._ended = True
        for part in (self._candidates, self._faces, self._tracks, self._noted):
            with suppress(OSError):  # on a full disk, closing fails too
                if part is not None:
                    part.close()
        self._sink.closed(self._source.source_id)
