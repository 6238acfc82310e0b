"""Progress output of a run or a replay: a bar on a terminal, otherwise one line per source, followed by a table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from streamgate.errors import display, escaped
from streamgate.store.run import SourceResult

REFRESH_S = 0.1
"""Interval at which the bar is redrawn."""
LEVELS = ("error", "warning", "info", "debug")
_SURE_S, _SURE_SHARE = 5.0, 0.02
"""Minimum elapsed time and minimum share done before the remaining time is shown."""
_MAX_LISTED = 5
"""Maximum number of sources without kept faces for which the reason is printed at the end."""


def short_names(labels: Sequence[str]) -> list[str]:
    """For each path, the shortest ending that distinguishes it from the other paths."""
    parts = [Path(label).parts or (label,) for label in labels]
    lengths = [1] * len(parts)
    while True:
        names = ["/".join(one[-length:]) for one, length in zip(parts, lengths, strict=True)]
        counts = Counter(names)
        longer = [index for index, name in enumerate(names) if counts[name] > 1 and lengths[index] < len(parts[index])]
        if not longer:
            return names
        for index in longer:
            lengths[index] += 1


def _faces(count: int) -> str:
    return f"{count} face{'' if count == 1 else 's'}"


class Display:
    """Notes, warnings and errors on stderr, so that stdout stays free for records.

    Use it as a context manager, from one thread. It starts no threads.
    """

    def __init__(self, level: str = "info") -> None:
        """level: the verbosity, one of "error", "warning", "info" and "debug"; each includes the levels before it."""
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            # Lines in a log file need not fit the width of a terminal.
            self._console = Console(stderr=True, highlight=False, soft_wrap=True, width=160)
        self._level = LEVELS.index(level)
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _shows(self, level: str) -> bool:
        return LEVELS.index(level) <= self._level

    def line(self, text: str) -> None:
        """Print a result."""
        if self._shows("info"):
            self._console.print(escape(escaped(text)))

    def note(self, text: str) -> None:
        if self._shows("info"):
            self._console.print(f"[dim]{escape(escaped(text))}[/dim]")

    def debug(self, text: str) -> None:
        if self._shows("debug"):
            self._console.print(f"[dim]debug: {escape(escaped(text))}[/dim]")

    def warn(self, text: str) -> None:
        if self._shows("warning"):
            self._console.print(f"[yellow]streamgate: warning:[/yellow] {escape(escaped(text))}")

    def error(self, text: str) -> None:
        self._console.print(f"[red]streamgate:[/red] {escape(escaped(text))}")

    def bar(self, *columns: ProgressColumn, auto_refresh: bool = True) -> Progress | None:
        """The bar, started by the first call; None unless stderr is a terminal and the log level allows it."""
        if self._bar is None and self._shows("info") and self._console.is_terminal:
            self._bar = Progress(*columns, console=self._console, transient=True, auto_refresh=auto_refresh)
            self._bar.start()
        return self._bar


class RunDisplay(Display):
    """Progress of a run. The bars appear with the first source and move when `refresh` is called.

    With several sources, one more bar shows the whole run. It weights sources by their size in bytes, because their
    durations are unknown until they are opened.
    """

    def __init__(self, level: str = "info") -> None:
        super().__init__(level)
        self._drawn = 0.0
        self._done = 0
        self._tasks: dict[int, TaskID] = {}
        self._whole: TaskID | None = None
        self._names: Sequence[str] = ()
        self._sizes: Sequence[int] = ()
        self._shares: dict[int, float] = {}
        self._earlier: set[int] = set()
        self._kept: dict[int, int] = {}
        self._began = time.monotonic()

    def found(self, labels: Sequence[str], sizes: Sequence[int]) -> None:
        """Set the names of all sources and their sizes in bytes."""
        self._names, self._sizes = short_names(labels), sizes
        self._began = time.monotonic()

    @property
    def wait_s(self) -> float | None:
        """Maximum time until the next `refresh`, in seconds; None without a bar."""
        return None if self._bar is None else REFRESH_S

    def refresh(self) -> None:
        """Redraw the bar unless it was redrawn less than `REFRESH_S` ago."""
        now = time.monotonic()
        if self._bar is not None and now - self._drawn >= REFRESH_S:
            self._drawn = now
            self._bar.refresh()

    def stop(self) -> None:
        """Remove the bars."""
        self._tasks.clear()
        self._whole = None
        super().stop()

    def started(self, index: int, estimated_frames: int | None) -> None:
        """Reading of a source has started; `index` identifies it in later calls."""
        bar = self._bars()
        if bar is None:
            return
        name = self._names[index]
        self._tasks[index] = bar.add_task(
            escape(name if len(name) <= 40 else name[:37] + "..."), total=estimated_frames, rate="", faces=""
        )
        if len(self._names) > 1 and self._whole is None:
            self._whole = bar.add_task("", total=1.0, rate="", faces="")
        self._show_whole()

    def advanced(self, index: int, frames: int, kept: int) -> None:
        """Update the number of frames read and of faces kept in a source."""
        task = self._tasks.get(index)
        if self._bar is None or task is None:
            return
        shown = next((one for one in self._bar.tasks if one.id == task), None)
        speed = shown.speed if shown is not None else None
        self._bar.update(
            task, completed=frames, rate=f"{speed:.0f} fps" if speed else "", faces=_faces(kept),
        )  # fmt: skip
        if shown is not None and shown.total:
            self._shares[index] = min(1.0, frames / shown.total)
        self._kept[index] = kept
        self._show_whole()

    def closed(self, index: int) -> None:
        """Reading of a source has ended."""
        task = self._tasks.pop(index, None)
        if self._bar is not None and task is not None:
            self._bar.remove_task(task)

    def skipped(self, indexes: Iterable[int]) -> None:
        """These sources were completed by an earlier run."""
        self._earlier.update(indexes)
        self._done = len(self._earlier)

    def writing(self) -> None:
        """All sources are read; records, persons and the report are being written."""
        if self._bar is not None:
            self._show_whole()
            self._bar.add_task("writing records, persons and the report", total=None, rate="", faces="")
            self._bar.refresh()
        self.debug("writing records, persons and the report")

    def finished(self, index: int, result: SourceResult) -> None:
        """Report the result of a source."""
        self._done += 1
        self._shares[index], self._kept[index] = 1.0, result.kept
        if result.status in ("failed", "crashed"):
            self.error(result.error or f"{result.source.location}: failed")
            return
        if result.error:
            self.warn(result.error)
        if not self._shows("info"):
            return
        seconds = result.timing.get("seconds", 0.0)
        if result.pictures:
            read = f"{_count(result.frames, 'picture')}, {_count(result.tracks, 'face')}, {result.kept} kept"
            speed = f"{result.frames / seconds if seconds else 0.0:.1f} per second"
        else:
            read = f"{_count(result.frames, 'frame')}, {_count(result.tracks, 'track')}, {result.kept} kept"
            speed = f"{result.duration_seconds / seconds if seconds else 0.0:.1f}x real time"
        self._console.print(
            f"[{self._done}/{len(self._names)}] {escape(escaped(self._names[index]))}: {read}, "
            f"{seconds:.1f} s ({speed}){self._left()}"
        )
        for note in result.notes:
            self._console.print(f"  {escape(note)}")
        self.debug(
            f"{result.source.location}: {result.source.source_id}, {result.width} x {result.height}, "
            f"{result.duration_seconds:.2f} s, {result.faces_detected} faces detected, {result.faces_scored} scored"
        )

    def _bars(self) -> Progress | None:
        return self.bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[faces]}"),
            auto_refresh=False,
        )

    def _share(self) -> float:
        """The share of this run that is done, 0..1; sources completed earlier do not count."""
        mine = [index for index in range(len(self._sizes)) if index not in self._earlier]
        total = sum(self._sizes[index] for index in mine)
        return sum(self._sizes[index] * self._shares.get(index, 0.0) for index in mine) / total if total else 1.0

    def _show_whole(self) -> None:
        if self._bar is not None and self._whole is not None:
            done = f"{self._done} of {len(self._names)} sources"
            kept = _faces(sum(self._kept.values()))
            self._bar.update(self._whole, description=done, completed=self._share(), faces=kept)

    def _left(self) -> str:
        """The estimated remaining time as text; empty while it cannot be estimated, and at the end."""
        share, seconds = self._share(), time.monotonic() - self._began
        if self._done >= len(self._names) or seconds < _SURE_S or share < _SURE_SHARE:
            return ""
        left = seconds * (1 - share) / share
        return f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"

    def table(
        self, results: Sequence[SourceResult], out: Path, seconds: float, words: Mapping[str, str]
    ) -> None:
        """Print the closing table (one row per source; `words` has the wording of reasons), then the paths."""
        if not self._shows("info"):
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("source", "frames", "tracks", "kept", "errors"):
            table.add_column(name, justify="left" if name == "source" else "right", overflow="fold")
        table.add_column("rejected faces", overflow="fold")
        for result in results:
            reasons = ", ".join(
                f"{words.get(reason, reason)} {count}"
                for reason, count in sorted(result.rejected.items(), key=lambda item: -item[1])
            )
            table.add_row(
                escape(Path(result.source.location).name or result.source.location),
                str(result.frames),
                str(result.tracks),
                str(result.kept),
                result.status.replace("_", " ") if result.status != "done" else str(result.decode_errors or ""),
                reasons,
            )
        self._console.print(table, soft_wrap=False)
        kept = sum(result.kept for result in results)
        unkept = [(result, note) for result in results if not result.kept for note in result.notes]
        for result, note in unkept[:_MAX_LISTED]:
            self._console.print(f"{escape(Path(result.source.location).name)}: {escape(note)}")
        if len(unkept) > _MAX_LISTED:
            self._console.print(f"... and {len(unkept) - _MAX_LISTED} more: see `notes` in summary.json")
        listed = _lines(out / "faces.jsonl")
        fewer = f"; faces.jsonl lists the best {listed}" if listed is not None and listed < kept else ""
        self._console.print(
            f"{kept} face{'' if kept == 1 else 's'} kept in {escape(display(out))}{fewer} ({seconds:.1f} s)"
        )
        if (out / "report.html").is_file():
            self._console.print(f"report: {escape(display(out / 'report.html'))}")


def _lines(path: Path) -> int | None:
    """The number of lines in a file; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None


def replay_bar(display: Display, total: int) -> Callable[[int], None]:
    """Start the bar of a replay of `total` events; the returned function takes the number of events read."""
    bar = display.bar(
        TextColumn("sending"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} finals"),
        TimeRemainingColumn(),
    )
    if bar is None:
        return lambda taken: None
    task = bar.add_task("", total=total)
    return lambda taken: bar.update(task, completed=taken)


def show_track(display: Display, index: int, count: int, name: str, clips: int) -> None:
    """Track `index` of `count` is about to be searched for clips; `clips` is the number of clips so far."""
    bar = display.bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} tracks"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[clips]}"),
    )
    text = _count(clips, "clip")
    if bar is not None:
        if not bar.tasks:
            bar.add_task("", total=count, clips="")
        shown = escape(name if len(name) <= 40 else name[:37] + "...")
        bar.update(bar.task_ids[0], description=shown, completed=index, clips=text)
    elif index < count:
        display.note(f"[{index + 1}/{count}] {name}, {text} so far")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
