"""What a person sees of a run: a bar on a terminal, a line a source otherwise, and a closing table."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from streamgate.sinks.base import SourceResult
from streamgate.sources import Source


class RunDisplay:
    """Everything goes to stderr, so that stdout stays free for records. Thread-safe."""

    def __init__(self, *, quiet: bool, total: int) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            # A log file has no width to fit into.
            self._console = Console(stderr=True, highlight=False, soft_wrap=True, width=160)
        self._quiet = quiet
        self._total = total
        self._done = 0
        self._mutex = threading.Lock()
        self._bar: Progress | None = None
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[faces]}"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def note(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"[dim]{escape(text)}[/dim]")

    def warn(self, text: str) -> None:
        if not self._quiet:
            self._console.print(f"[yellow]streamgate: warning:[/yellow] {escape(text)}")

    def error(self, text: str) -> None:
        self._console.print(f"[red]streamgate:[/red] {escape(text)}")

    def started(self, source: Source) -> None:
        if self._bar is not None:
            name = Path(source.location).name
            with self._mutex:
                self._tasks[id(source)] = self._bar.add_task(
                    escape(name if len(name) <= 40 else name[:37] + "..."),
                    total=source.estimated_frames,
                    rate="",
                    faces="",
                )

    def advanced(self, source: Source, frames: int, pts_seconds: float, kept: int) -> None:
        if self._bar is None or frames % 8:
            return
        task = self._tasks.get(id(source))
        if task is not None:
            speed = next((one.speed for one in self._bar.tasks if one.id == task), None)
            self._bar.update(
                task,
                completed=frames,
                rate=f"{speed:.0f} fps" if speed else "",
                faces=f"{kept} face{'' if kept == 1 else 's'}",
            )

    def closed(self, source: Source) -> None:
        with self._mutex:
            task = self._tasks.pop(id(source), None)
            if self._bar is not None and task is not None:
                self._bar.remove_task(task)

    def finished(self, result: SourceResult) -> None:
        if result.status == "not_started":
            return
        with self._mutex:
            self._done += 1
        if result.status == "failed":
            self.error(result.error or f"{result.source.location}: failed")
            return
        if result.error:
            self.warn(result.error)
        if not self._quiet:
            speed = result.duration_seconds / result.timing["seconds"] if result.timing.get("seconds") else 0.0
            self._console.print(
                f"[{self._done}/{self._total}] {escape(result.source.location)}: {result.frames} frames, "
                f"{result.tracks} track{'' if result.tracks == 1 else 's'}, {result.kept} kept, "
                f"{result.timing.get('seconds', 0.0):.1f} s ({speed:.1f}x real time)"
            )

    def table(self, results: Sequence[SourceResult], out: Path, seconds: float) -> None:
        """The closing table: a row a source, why faces were turned away, where the results are."""
        if self._quiet:
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("source", "frames", "tracks", "kept", "errors"):
            table.add_column(name, justify="left" if name == "source" else "right", overflow="fold")
        table.add_column("rejected faces by reason", overflow="fold")
        for result in results:
            reasons = ", ".join(
                f"{reason} {count}"
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
        small = [result for result in results if not result.kept and _mostly_small(result)]
        if small:
            self._console.print(
                f"{len(small)} source(s) keep nothing because faces are small: --min-size PX takes smaller ones",
            )
        self._console.print(
            f"{kept} face{'' if kept == 1 else 's'} kept in {escape(str(out))} ({seconds:.1f} s)"
        )
        if (out / "report.html").is_file():
            self._console.print(f"report: {escape(str(out / 'report.html'))}")


def _mostly_small(result: SourceResult) -> bool:
    return bool(result.rejected) and max(result.rejected, key=lambda reason: result.rejected[reason]) == "small"
