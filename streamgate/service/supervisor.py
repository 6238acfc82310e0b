"""The service: runs the configured streams, which share one set of networks and one `Delivery`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from streamgate.config import Config
from streamgate.engine import Engine
from streamgate.errors import DeviceError, StreamgateError
from streamgate.faces import ScoredFace
from streamgate.scoring.context import ScoringContext
from streamgate.service.delivery import Delivery
from streamgate.service.live_folder import LiveFolder
from streamgate.service.main_faces import MainFaces
from streamgate.service.memory import trim_memory
from streamgate.service.settings import Settings, StreamSpec
from streamgate.service.spool import Spool
from streamgate.service.state import ServiceState
from streamgate.service.streams import Stream
from streamgate.sinks.redis_stream import RedisStream
from streamgate.sources.hardware import CPU, check_decoder, decoder_name
from streamgate.sources.images import rgb_of

TICK_S = 0.5
TRIM_S = 30.0
"""Interval at which free memory is returned to the system."""
STOP_S = 4.0
"""Maximum time for streams and destinations to stop; stopping the HTTP server takes up to another second."""


class Service:
    """Runs the streams until it is asked to stop.

    A context manager: entering loads the networks and opens the destinations. Entering raises SinkError, WeightsError,
    DeviceError or UsageError; the service recovers from all later errors except the failure of a device.
    """

    def __init__(self, settings: Settings, state: ServiceState, log: Callable[[str], None]) -> None:
        self._settings = settings
        self._state = state
        self._log = log
        self._streams: dict[str, Stream] = {}
        self._contexts: dict[str, ScoringContext] = {}
        self._leaving: list[Stream] = []
        self._stack = ExitStack()
        self._notes: tuple[str, ...] = ()
        self._device_error: DeviceError | None = None

    def __enter__(self) -> Self:
        settings, state = self._settings, self._state
        # The destinations come first, so that an invalid destination is reported before the networks are loaded.
        redis = None if settings.redis is None else RedisStream(settings.redis, option="--redis")
        root = settings.out if settings.out and settings.spool.is_relative_to(settings.out) else None
        spool = None if redis is None else Spool(settings.spool, settings.spool_bytes, root=root, log=self._log)
        folder = None
        if settings.out is not None:
            folder = LiveFolder(settings.out, max_days=settings.max_days, max_bytes=settings.max_bytes)
        with ExitStack() as stack:
            self._delivery = stack.enter_context(
                Delivery(state, redis=redis, spool=spool, folder=folder, log=self._log)
            )

            def observe(role: str, items: int, seconds: float) -> None:
                state.batches.labels(role).observe(items)
                state.stages.labels(role).observe(seconds)

            self._engine = stack.enter_context(
                Engine(settings.config, models=settings.models, device=settings.device, observe=observe)
            )
            self._decode = decoder_name(self._engine.device.index) if settings.decode == "cuda" else CPU
            check_decoder(self._decode)
            self._main_faces = stack.enter_context(
                MainFaces(self._log, lambda seconds: state.stages.labels("main").observe(seconds))
            )
            state.registry.register(self._main_faces)
            self._tell_notes()
            state.scorer = partial(self._score, settings.config.decoding.max_pixels)
            state.note(models_loaded=True)
            self._check(settings)
            for spec in settings.streams:
                self._add(spec)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state.scorer = None
        late = self._stop_all()
        self._delivery.__exit__(None, None, None)
        if not late:
            # A late stream still uses the networks, and closing the networks would wait for that stream; the process
            # ends anyway.
            self._stack.close()

    def run(self, stop: threading.Event, reload: threading.Event, read: Callable[[], Settings]) -> None:
        """Supervise the streams until `stop` is set; whenever `reload` is set, apply the settings that `read` returns.

        Raises DeviceError when the GPU fails, because this process cannot use the GPU any more.
        """
        trim_at = time.monotonic() + TRIM_S
        while not stop.wait(TICK_S):
            self._state.beat()
            if time.monotonic() >= trim_at:
                trim_at = time.monotonic() + TRIM_S
                trim_memory()
            if reload.is_set():
                reload.clear()
                self.reload(read)
            if self._device_error is not None:
                raise self._device_error
            for stream in [*self._streams.values(), *self._leaving]:
                stream.tick()
                if stream.device_error is not None:
                    raise stream.device_error
            self._tell_notes()
            self._leaving = [stream for stream in self._leaving if not stream.join(0.0)]
            self._delivery.figures()

    def reload(self, read: Callable[[], Settings]) -> None:
        """Add, remove and change streams without touching the others. An invalid configuration changes nothing."""
        try:
            settings = read()
            self._check(settings)
        except Exception as error:
            # Every exception is caught: an invalid file must not end the service and with it all streams. The message
            # of an unexpected error is not shown, since it may quote the file.
            known = isinstance(error, StreamgateError)
            reason = str(error) if known else f"internal error ({type(error).__name__}); please report it"
            self._state.note(config_error=reason)
            self._log(f"the new configuration is invalid; the previous one stays active: {reason}")
            return
        wanted = {spec.name: spec for spec in settings.streams}
        gone = [name for name in self._streams if name not in wanted]
        changed = [name for name, spec in wanted.items() if name in self._streams and self._streams[name].spec != spec]
        added = [name for name in wanted if name not in self._streams]
        for name in (*gone, *changed):
            stream = self._streams.pop(name)
            stream.stop()
            self._leaving.append(stream)
        for name in gone:
            self._state.remove_stream(name)
        for name in (*changed, *added):
            self._add(wanted[name])
        if _fixed(settings) != _fixed(self._settings):
            self._log("changes to destinations, networks and addresses of the service take effect only after a restart")
        self._settings = settings
        self._state.note(config_error=None, config_read_at=datetime.now(UTC))
        counts = [f"{len(names)} {what}" for names, what in ((added, "added"), (changed, "changed"), (gone, "removed"))]
        self._log(f"configuration read: streams: {', '.join(counts)}")

    def _score(self, max_pixels: int, data: bytes, aligned: str | None) -> list[ScoredFace]:
        image = rgb_of(np.frombuffer(data, np.uint8), max_pixels)
        try:
            return self._engine.score(image, aligned=aligned)
        except DeviceError as error:
            self._device_error = error
            raise

    def _tell_notes(self) -> None:
        """Log new notes about the networks."""
        notes = tuple(self._engine.notes)
        if notes != self._notes:
            for note in notes:
                if note not in self._notes:
                    self._log(note)
            self._notes = notes
            self._state.note(notes=notes)

    def _check(self, settings: Settings) -> None:
        """Check that every stream's settings work with the loaded networks; changes no stream. Raises UsageError."""
        found = {}
        for spec in settings.streams:
            found[spec.name] = self._engine.stream_context(spec.config, spec.name)
        self._contexts = found

    def _add(self, spec: StreamSpec) -> None:
        stream = Stream(
            spec,
            self._contexts[spec.name],
            self._state,
            self._delivery.put,
            self._log,
            written=self._settings.out is not None,
            decode=self._decode,
            main_faces=self._main_faces,
        )
        self._streams[spec.name] = stream
        stream.start()

    def _stop_all(self) -> bool:
        """Stop the streams, then the destinations; returns whether a stream did not stop in time."""
        until = time.monotonic() + STOP_S
        self._state.note(stopping=True)
        streams = [*self._streams.values(), *self._leaving]
        for stream in streams:
            stream.stop()
        # Half a second is reserved for the destinations.
        late = [stream for stream in streams if not stream.join(until - 0.5 - time.monotonic())]
        for stream in late:
            self._log(f"{stream.spec.name}: did not stop in time; its last faces may be missing")
        self._delivery.stop(max(0.5, until - time.monotonic()))
        return bool(late)


def _fixed(settings: Settings) -> tuple[object, ...]:
    config: Config = settings.config
    return (
        settings.redis, settings.out, settings.http, settings.spool, settings.spool_bytes, settings.max_days,
        settings.max_bytes, settings.models, settings.device, settings.decode, config.advanced.nms_iou,
        config.advanced.low_score, config.precision,
    )  # fmt: skip
