"""What a person sees of a run or a replay: a bar on a terminal, else a line per source; then a table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""So often the bar is drawn."""
_MOST_TOLD = 5
"""Sources that keep nothing of which the closing lines say why."""


class Display:
    """Notes, warnings and errors on stderr, so that stdout stays free for records. For one thread, and starts none.

    Use it as a context manager.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            # A log file has no width to fit into.
            self._console = Console(stderr=True, highlight=False, soft_wrap=True, width=160)
        self._quiet = quiet
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

    def line(self, text: str) -> None:
        """Print a result."""
        if not self._quiet:
            self._console.print(escape(escaped(text)))

    def note(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"[dim]{escape(escaped(text))}[/dim]")

    def warn(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"[yellow]streamgate: warning:[/yellow] {escape(escaped(text))}")

    def error(self, text: str) -> None:
        self._console.print(f"[red]streamgate:[/red] {escape(escaped(text))}")

    def _start_bar(self, *columns: ProgressColumn, auto_refresh: bool) -> Progress | None:
        """A bar on a terminal, None elsewhere."""
        if self._bar is None and not self._quiet and self._console.is_terminal:
            self._bar = Progress(*columns, console=self._console, transient=True, auto_refresh=auto_refresh)
            self._bar.start()
        return self._bar


class RunDisplay(Display):
    """How a run goes; the bar appears with the first source, and moves when `refresh` is called."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.total = 0
        """Number of sources."""
        self._drawn = 0.0
        self._done = 0
        self._tasks: dict[int, TaskID] = {}

    @property
    def wait_s(self) -> float | None:
        """How long the bar may be left alone; None when there is none."""
        return None if self._bar is None else REFRESH_S

    def refresh(self) -> None:
        """Draw the bar again, if it is time."""
        now = time.monotonic()
        if self._bar is not None and now - self._drawn >= REFRESH_S:
            self._drawn = now
            self._bar.refresh()

    def stop(self) -> None:
        """Remove the bar."""
        self._tasks.clear()
        super().stop()

    def started(self, index: int, location: str, estimated_frames: int | None) -> None:
        """A source is being read; `index` stands for it from now on."""
        bar = self._start_bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[faces]}"),
            auto_refresh=False,
        )
        if bar is None:
            return
        name = Path(location).name
        self._tasks[index] = bar.add_task(
            escape(name if len(name) <= 40 else name[:37] + "..."), total=estimated_frames, rate="", faces=""
        )

    def advanced(self, index: int, frames: int, kept: int) -> None:
        """So many frames of a source were read."""
        task = self._tasks.get(index)
        if self._bar is not None and task is not None:
            speed = next((one.speed for one in self._bar.tasks if one.id == task), None)
            self._bar.update(
                task,
                completed=frames,
                rate=f"{speed:.0f} fps" if speed else "",
                faces=f"{kept} face{'' if kept == 1 else 's'}",
            )

    def closed(self, index: int) -> None:
        """A source is no longer read."""
        task = self._tasks.pop(index, None)
        if self._bar is not None and task is not None:
            self._bar.remove_task(task)

    def skipped(self, count: int) -> None:
        """So many sources were done before."""
        self._done += count

    def finished(self, result: SourceResult) -> None:
        """Say how a source went."""
        self._done += 1
        if result.status in ("failed", "crashed"):
            self.error(result.error or f"{result.source.location}: failed")
            return
        if result.error:
            self.warn(result.error)
        if not self._quiet:
            speed = result.duration_seconds / result.timing["seconds"] if result.timing.get("seconds") else 0.0
            self._console.print(
                f"[{self._done}/{self.total}] {escape(result.source.location)}: {result.frames} frames, "
                f"{result.tracks} track{'' if result.tracks == 1 else 's'}, {result.kept} kept, "
                f"{result.timing.get('seconds', 0.0):.1f} s ({speed:.1f}x real time)"
            )
            for note in result.notes:
                self._console.print(f"  {escape(note)}")

    def table(
        self, results: Sequence[SourceResult], out: Path, seconds: float, words: Mapping[str, str]
    ) -> None:
        """The closing table: one row per source, why faces were rejected (by `words`), where the results are."""
        if self._quiet:
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
        told = [(result, note) for result in results if not result.kept for note in result.notes]
        for result, note in told[:_MOST_TOLD]:
            self._console.print(f"{escape(Path(result.source.location).name)}: {escape(note)}")
        if len(told) > _MOST_TOLD:
            self._console.print(f"... and {len(told) - _MOST_TOLD} more, see `notes` in summary.json")
        listed = _lines(out / "faces.jsonl")
        fewer = f", the best {listed} listed in faces.jsonl" if listed is not None and listed < kept else ""
        self._console.print(
            f"{kept} face{'' if kept == 1 else 's'} kept in {escape(display(out))}{fewer} ({seconds:.1f} s)"
        )
        if (out / "report.html").is_file():
            self._console.print(f"report: {escape(display(out / 'report.html'))}")


def _lines(path: Path) -> int | None:
    """How many lines a file has; None when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None


class ReplayDisplay(Display):
    """How a replay goes."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.taken = 0
        """Events handed over for sending."""

    def start(self, total: int) -> None:
        """So many events are going to be sent."""
        bar = self._start_bar(
            TextColumn("sending"),
            BarColumn(),
            TextColumn("{task.completed:.0f} of {task.total:.0f} finals"),
            TimeRemainingColumn(),
            auto_refresh=True,
        )
        if bar is not None:
            bar.add_task("", total=total)

    def counted(self, events: Iterable[bytes]) -> Iterator[bytes]:
        """The events, each counted once it was taken."""
        for item in events:
            yield item
            self.taken += 1
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self.taken)
