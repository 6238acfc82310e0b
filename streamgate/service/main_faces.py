"""Takes the faces of two-stream cameras from the main stream; lookups for a `final` precede those for an `improved`.

Main streams are decoded only near the times of faces that are sent in events, and to align the streams. One thread
decodes for all cameras. A second thread falls back to the substream's face when a lookup takes too long, which limits
the delay of a `final`.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from streamgate.service.main_lookup import ANSWERED_S, Fallback, Lookup, align, is_there, look_up
from streamgate.service.main_stream import MainStream, metrics_of
from streamgate.tracks import BestShot

_MOST = 64
"""Maximum number of waiting lookups. When it is exceeded, the oldest lookup for an `improved` is dropped; if there is
none, the new `final` uses the substream's face."""
_OVERDUE_S = 0.1
"""A lookup whose deadline passed longer ago than this is not started, because other lookups are waiting."""
_CLOCK_S = 0.2
"""Maximum pause between two searches for overdue lookups; it is shorter than the time limit of any lookup."""
_ALIGN_PAUSES = (2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Pauses before attempts to find an offset; the last pause is repeated."""


class MainFaces(Collector):
    """Looks up faces in main streams. A context manager; its threads end when it is left.

    Args:
        log: called with one line when a main stream has been aligned, and for internal errors.
        observe: called with the duration of each lookup in seconds.
    """

    def __init__(self, log: Callable[[str], None], observe: Callable[[float], None]) -> None:
        self._log = log
        self._observe = observe
        self._waiting: list[Lookup] = []
        self._current: Lookup | None = None
        self._mains: list[MainStream] = []
        self._align_at: dict[int, tuple[float, int]] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"streamgate-main-{name}", daemon=True)
            for name, work in (("faces", self._work), ("clock", self._watch_time))
        ]

    def __enter__(self) -> MainFaces:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(2.0)

    def watch(self, main: MainStream) -> None:
        """Add a main stream, which is kept aligned from now on."""
        main.wake = lambda: self._wake(main)
        with self._changed:
            self._mains.append(main)

    def forget(self, main: MainStream) -> None:
        with self._changed:
            self._mains = [one for one in self._mains if one is not main]

    def collect(self) -> Iterator[Metric]:
        """Yield metrics for the registry, with the values of all main streams."""
        with self._changed:
            mains = list(self._mains)
        yield from metrics_of(mains)

    def put(self, lookup: Lookup) -> None:
        """Queue a lookup; its `done` is called before the time `until` or shortly afterwards."""
        gone: list[tuple[Lookup, str | None]] = []
        with self._changed:
            if not lookup.final:
                # Only the latest lookup of a face is useful, so earlier lookups of the same face are dropped.
                gone = [(one, None) for one in self._waiting if not one.final and one.of == lookup.of]
            self._waiting.append(lookup)
            if len(self._waiting) - len(gone) > _MOST:
                gone.append((next((one for one in self._waiting if not one.final), lookup), "busy"))
            for one, _ in gone:
                if one in self._waiting:
                    self._waiting.remove(one)
            self._changed.notify_all()
        for one, reason in gone:
            self._finish(one, None, reason)

    def _wake(self, main: MainStream) -> None:
        if any(lookup.main is main for lookup in tuple(self._waiting)):
            with self._changed:
                self._changed.notify_all()

    def _guarded(self, work: Callable[[], None]) -> None:
        while not self._stopping:
            try:
                work()
            except Exception as error:
                # A service runs for months, so a bug in this code must not stop lookups until the service is restarted.
                if os.environ.get("STREAMGATE_DEBUG"):
                    traceback.print_exc()
                self._log(f"main streams: internal error ({type(error).__name__}: {error}); please report it")

    def _work(self) -> None:
        while True:
            with self._changed:
                lookup = self._next()
                if lookup is None and not self._stopping:
                    self._changed.wait(0.5)
                    lookup = self._next()
                if lookup is None and self._stopping:
                    return
                self._current, mains = lookup, list(self._mains)
            if lookup is None:
                with suppress(Fallback):
                    self._align_one(mains)
            else:
                self._answer(lookup)

    def _watch_time(self) -> None:
        """Answer overdue lookups, even while the other thread is busy."""
        while True:
            with self._changed:
                if not self._waiting and self._current is None:
                    if self._stopping:
                        return
                    self._changed.wait(0.5)
                dues = [one.until + _OVERDUE_S for one in self._waiting]
                if self._current is not None and not self._current.answered:
                    dues.append(self._current.until + ANSWERED_S)
            time.sleep(min(max(min(dues, default=1e9) - time.monotonic() + 0.005, 0.02), _CLOCK_S))
            with self._changed:
                overdue = [one for one in self._waiting if one.overdue(_OVERDUE_S)]
                self._waiting = [one for one in self._waiting if one not in overdue]
                current = self._current
                if current is not None and not current.answered and current.overdue(ANSWERED_S):
                    overdue.append(current)
            for one in overdue:
                self._finish(one, None, "busy" if is_there(one) else "late")

    def _next(self) -> Lookup | None:
        """The next lookup whose picture has arrived or whose deadline has passed; None if there is none."""
        now = time.monotonic()
        for lookup in sorted(self._waiting, key=lambda one: (not one.final, one.until)):
            if self._stopping or now >= lookup.until or is_there(lookup):
                self._waiting.remove(lookup)
                return lookup
        return None

    def _answer(self, lookup: Lookup) -> None:
        began = time.perf_counter()
        shot, reason = None, "damaged"
        try:
            shot = look_up(lookup)
        except Fallback as found:
            reason = str(found)
        finally:
            self._current = None
            self._finish(lookup, shot, reason)
            self._observe(time.perf_counter() - began)

    def _finish(self, lookup: Lookup, shot: BestShot | None, reason: str | None) -> None:
        """Answer a lookup, unless it has already been answered."""
        with self._changed:
            if lookup.answered:
                return
            lookup.answered = True
        if shot is not None:
            lookup.main.looked_up()
        elif reason is not None:
            lookup.main.fell_back(reason)
        lookup.done(shot)

    def _align_one(self, mains: list[MainStream]) -> None:
        """Try all possible offsets of one main stream that is not aligned yet."""
        now = time.monotonic()
        known = {id(main) for main in mains}
        self._align_at = {key: due for key, due in self._align_at.items() if key in known}
        for main in mains:
            if main.ring is None or main.alignment.found or main.alignment.offset is None:
                self._align_at.pop(id(main), None)
                continue
            due, failures = self._align_at.setdefault(id(main), (now + _ALIGN_PAUSES[0], 0))
            if now >= due:
                found = align(main, lambda: bool(self._waiting) or self._stopping)
                if found is not None and found.sure:
                    delay = main.alignment.delay
                    self._log(f"{main.name}: main stream: aligned; delay relative to the substream: {delay:+.2f} s")
                pause = _ALIGN_PAUSES[min(failures, len(_ALIGN_PAUSES) - 1)]
                self._align_at[id(main)] = (time.monotonic() + pause, failures + 1)
                return
