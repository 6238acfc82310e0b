"""Processes many sources with one set of networks and sends the results to a sink."""

from __future__ import annotations

import math
import os
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, nullcontext
from functools import partial

from streamgate.config import Config
from streamgate.errors import DeviceError, SinkError, SourceError, StreamgateError, unexpected
from streamgate.faces import Face
from streamgate.measures.size import shorter_side
from streamgate.people.reference import Reference
from streamgate.runtime.crop_finalizer import CropFinalizer, needs_finalizing
from streamgate.runtime.prefetch import prefetch
from streamgate.runtime.selection_stage import SelectionCounts, SelectionStage
from streamgate.runtime.tracking_stage import TrackingStage
from streamgate.runtime.watchdog import MARGIN_S, within
from streamgate.scoring.context import ScoringContext
from streamgate.scoring.evaluator import SMALL
from streamgate.scoring.faces import enlargement
from streamgate.sinks.base import Sink
from streamgate.sources import Source
from streamgate.sources.container import stall_seconds
from streamgate.store.run import SourceInfo, SourceResult
from streamgate.tracks import Candidate, TrackEnd

AHEAD = 12
"""Maximum number of decoded frames that wait for analysis: enough for decoding to continue while a few faces are
scored."""
AHEAD_BYTES = 48 << 20
"""Memory limit for decoded frames that wait for analysis, shared by all sources that are read at once. Each source may
always hold three frames."""
NEAR_MISSES = 3
"""Maximum number of near misses per track, for the report."""
TRACKED_AHEAD = 32
"""Maximum number of frames by which tracking is ahead of selection, so that detection does not wait while faces are
scored. Only the regions around faces are held for these frames."""
TRACKED_BYTES = 96 << 20
"""Memory limit for the frames that have been tracked and wait for selection, counted as whole frames and shared by all
sources that are read at once. Each source may always hold eight frames."""

PROGRESS_S = 0.1
"""Minimum interval between two reports of how far a source has been read."""
Advanced = Callable[[Source, int, float, int], None]
"""A function like `Progress.advanced`."""

NOT_ON_GPU = "decoded on the CPU"
"""Beginning of the note for a source that was not decoded on the GPU although this was requested."""


class Progress:
    """Receives the progress of a run; all calls about one source come from the same worker thread.

    This base class ignores all calls.
    """

    def opening(self, index: int) -> None:
        """The source with this index in the list is about to be opened; later calls from this thread are about that
        source."""

    def started(self, source: Source) -> None:
        """The source was opened."""

    def advanced(self, source: Source, frames: int, pts_seconds: float, kept: int) -> None:
        """The source has been read up to `pts_seconds`; called at most once per `PROGRESS_S`."""

    def finished(self, result: SourceResult) -> None:
        """The source is finished, successfully or not, with this result."""


class Pipeline:
    """Processes sources with one scoring context."""

    def __init__(self, context: ScoringContext, reference: Reference | None = None) -> None:
        """With a `reference`, only faces of that person are kept."""
        self._context = context
        self._reference = reference

    def tracks(
        self,
        source: Source,
        result: SourceResult,
        *,
        stop: threading.Event | None = None,
        broken: threading.Event | None = None,
        emit_candidate: Callable[[Candidate], None] = lambda candidate: None,
        advanced: Advanced = lambda source, frames, pts_seconds, kept: None,
        jobs: int = 1,
    ) -> Iterator[TrackEnd]:
        """Yield the tracks of an opened source as they end, and fill in `result` meanwhile.

        `advanced` is called at most once per `PROGRESS_S`, with how far the source has been read. `jobs` is the number
        of sources that are read at once and share the memory for waiting frames.

        A source that turns out to be sideways is rotated and read again from its beginning.
        When `stop` is set, the open tracks are ended and yielded; when `broken` is set, reading stops because the
        results are no longer needed.
        Raises SourceError when the source fails before its first frame; a later failure ends the tracks early and is
        stored in `result.error`.
        """
        config = self._context.config
        finalizer = CropFinalizer(self._context, source) if needs_finalizing(config) else None
        began = time.perf_counter()
        may_turn = config.detection.sideways and source.turned is not None
        read = partial(self._read, source, result, finalizer, stop, broken, emit_candidate, advanced, jobs)
        counts, turn = yield from read(may_turn=may_turn)
        if turn:
            source.read_as(turned=turn)
            result.turned = 90 * turn
            result.notes.append(
                "the video is sideways but has no rotation metadata; "
                f"it was rotated by {result.turned} degrees clockwise"
            )
            counts, _ = yield from read(may_turn=False)
        if finalizer is not None and finalizer.missed:
            result.notes.append(
                f"{finalizer.missed} kept face(s) have no loose or whole-frame crop, "
                "because their frames could not be read again"
            )
        if source.stats.not_on_gpu:
            result.notes.append(f"{NOT_ON_GPU}: the GPU cannot decode this {source.stats.not_on_gpu} video")
        if source.stats.combed:
            result.notes.append(
                f"{source.stats.combed} frame(s) were interlaced but not flagged as interlaced; they were deinterlaced"
            )
        result.frames = counts.frames + source.stats.left_out_at_end
        result.frames_decoded = counts.frames_decoded
        result.decode_errors = source.stats.decode_errors
        result.pts_estimated = source.stats.pts_estimated
        result.combed = source.stats.combed
        result.faces_detected = counts.faces_detected
        result.faces_scored = counts.faces_scored
        result.tracks = counts.tracks
        result.kept = counts.kept
        result.rejected = dict(sorted(counts.rejected.items()))
        result.timing["seconds"] = time.perf_counter() - began
        small = counts.largest_small
        if not counts.kept and small is not None and counts.rejected.most_common(1)[0][0] == SMALL:
            result.notes.append(_too_small(small, config, result.width or 0, result.height or 0))

    def _read(
        self,
        source: Source,
        result: SourceResult,
        finalizer: CropFinalizer | None,
        stop: threading.Event | None,
        broken: threading.Event | None,
        emit_candidate: Callable[[Candidate], None],
        advanced: Advanced,
        jobs: int,
        *,
        may_turn: bool,
    ) -> Generator[TrackEnd, None, tuple[SelectionCounts, int]]:
        """Yield the tracks of one pass over the source.

        Returns the counts of the pass, and the number of clockwise quarter turns by which the source must be rotated;
        if that number is not 0, no track was yielded.
        """
        config = self._context.config
        begin = config.decoding.start_s if source.fps else 0.0
        # Results are held back until it is decided whether the source must be rotated, which would make them invalid.
        provisional, candidates, ends = may_turn, list[Candidate](), list[TrackEnd]()

        def emit(candidate: Candidate) -> None:
            if provisional:
                candidates.append(candidate)
            else:
                emit_candidate(candidate)

        def emit_provisional() -> Iterator[TrackEnd]:
            nonlocal provisional
            provisional = False
            for candidate in candidates:
                emit_candidate(candidate)
            yield from _finalized(iter(ends), finalizer)

        selection = SelectionStage(
            self._context,
            SourceInfo(source.location, source.source_id),
            emit,
            near_misses=NEAR_MISSES,
            reference=self._reference,
        )
        tracking = TrackingStage(
            config, self._context.infer, max_track_s=config.keep.every_s or None, may_turn=may_turn
        )
        hints = tracking.hints
        # Decoding, tracking and selection run in three threads, each ahead of the next. Only tracking gives feedback to
        # the previous stage, and the feedback does not depend on how far ahead decoding is (see `decode_hints`).
        size = max(1, source.width * source.height * 3 // 2)
        waiting = int(min(AHEAD, max(3, AHEAD_BYTES // (jobs * size))))
        further = int(min(TRACKED_AHEAD, max(8, TRACKED_BYTES // (jobs * size))))
        reported = -math.inf
        timeout = stall_seconds() + MARGIN_S
        late = SourceError(f"{source.location}: no frame arrived for {timeout:g} s; the rest of the source is skipped")
        try:
            with (
                closing(prefetch(source.frames(hints), waiting, timeout_s=timeout, late=late)) as frames,
                closing(prefetch(tracking.tracked_frames(frames), further)) as tracked_frames,
                # The hints are closed first because the source may be waiting for a hint.
                nullcontext() if hints is None else closing(hints),
            ):
                for tracked in tracked_frames:
                    if tracked.turn:
                        return selection.counts, tracked.turn
                    result.width, result.height = tracked.width, tracked.height
                    if tracked.unrelated:
                        result.pictures = True
                    else:
                        result.duration_seconds = round(max(0.0, tracked.until - begin), 6)
                    if provisional and tracked.turn is not None:
                        yield from emit_provisional()
                    if provisional:
                        ends += selection.take(tracked)
                    else:
                        yield from _finalized(selection.take(tracked), finalizer)
                    if time.monotonic() - reported >= PROGRESS_S:
                        reported = time.monotonic()
                        advanced(source, selection.counts.frames, tracked.pts_seconds, selection.counts.kept)
                    if broken is not None and broken.is_set():
                        break
                    if stop is not None and stop.is_set():
                        result.status = "interrupted"
                        break
        except SourceError as error:
            if selection.counts.frames == 0:
                raise
            result.error = str(error)
        if tracking.turn:
            return selection.counts, tracking.turn
        if provisional:
            yield from emit_provisional()
        yield from _finalized(selection.finish(), finalizer)
        return selection.counts, 0

    def run(
        self,
        sources: Sequence[Callable[[], Source]],
        sink: Sink,
        *,
        jobs: int = 1,
        stop: threading.Event | None = None,
        progress: Progress | None = None,
        labels: Sequence[str] = (),
    ) -> list[SourceResult]:
        """Process every source and write the results to `sink`, which must have been entered.

        Returns the results in the order of `sources`.

        A source that cannot be read has the status "failed"; a source that was not started because of `stop` has the
        status "not_started". Raises SinkError as soon as a sink fails: further results would be lost too, so work in
        progress is abandoned.
        """
        stop = stop or threading.Event()
        progress = progress or Progress()
        jobs = max(1, min(jobs, len(sources)))

        broken = threading.Event()

        def work(index: int) -> SourceResult:
            label = labels[index] if index < len(labels) else ""
            if stop.is_set() or broken.is_set():
                return SourceResult(SourceInfo(label, ""), status="not_started")
            progress.opening(index)
            try:
                return self._run_one(sources[index], label, sink, stop, broken, progress, jobs)
            except BaseException:
                broken.set()
                raise

        pool = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="streamgate-source")
        futures: list[Future[SourceResult]] = [pool.submit(work, index) for index in range(len(sources))]
        try:
            _wait(futures)
        except BaseException:
            broken.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return [future.result() for future in futures]

    def _run_one(
        self,
        open_it: Callable[[], Source],
        label: str,
        sink: Sink,
        stop: threading.Event,
        broken: threading.Event,
        progress: Progress,
        jobs: int,
    ) -> SourceResult:
        result = SourceResult(SourceInfo(label, ""))
        try:
            with within(stall_seconds() + MARGIN_S, open_it, label) as source:
                result.source = SourceInfo(source.location, source.source_id)
                progress.started(source)
                self._into(sink, source, result, stop, broken, progress, jobs)
        except (SinkError, DeviceError):
            raise
        except StreamgateError as error:
            result.status, result.error = "failed", str(error)
        except Exception as error:
            # A bug in streamgate must not make more than one source of the batch fail.
            if os.environ.get("STREAMGATE_DEBUG"):
                traceback.print_exc()
            result.status = "failed"
            result.error = f"{result.source.location}: {unexpected(error, label)}"
        progress.finished(result)
        return result

    def _into(
        self,
        sink: Sink,
        source: Source,
        result: SourceResult,
        stop: threading.Event,
        broken: threading.Event,
        progress: Progress,
        jobs: int,
    ) -> None:
        writer = sink.open_source(result.source)
        try:
            for ended in self.tracks(
                source,
                result,
                stop=stop,
                broken=broken,
                emit_candidate=writer.evaluated,
                advanced=progress.advanced,
                jobs=jobs,
            ):
                writer.track(ended)
            if broken.is_set():
                result.status = "not_started"
                writer.discard()
            else:
                writer.commit(result)
        except BaseException:
            writer.discard()
            raise


def _too_small(face: Face, config: Config, width: int, height: int) -> str:
    """A note for a source that keeps nothing because even its largest face, `face`, is too small; it names the options
    to change."""
    side = shorter_side(face.box)
    remedies = []
    if side < config.smallest_face_px(width, height):
        remedies.append(f"--min-size {max(1, int(side))}")
    if config.output.max_upscale and enlargement(face, config.output) > config.output.max_upscale:
        remedies.append("--set output.max_upscale=0")
    return (
        f"all faces are too small: the largest is {side:.0f} px wide, with {face.inter_eye:.0f} px between the eyes; "
        f"to accept it, add {' '.join(remedies)}"
    )


def _finalized(tracks: Iterator[TrackEnd], finalizer: CropFinalizer | None) -> Iterator[TrackEnd]:
    return tracks if finalizer is None else map(finalizer.finish, tracks)


def _wait(futures: Sequence[Future[SourceResult]]) -> None:
    """Wait until all futures are done or one has raised; the waits are short so that signals are handled promptly."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
        for future in done:
            if (error := future.exception()) is not None:
                raise error
