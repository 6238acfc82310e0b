"""Hostile and odd inputs by name, each with what has to become of it; shared by tests and `benchmarks/reliability.py`.

They are made when asked for: videos here and in `hostile_videos`, pictures in `hostile_pictures`, files that point at
other files or addresses in `hostile_references`.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Make = Callable[[Path], None]
"""Writes the input at the path it is given, whose folder exists."""


@dataclass(frozen=True)
class Hostile:
    """One input.

    Attributes:
        name: file name, which need not be a nice one.
        what: for people.
        make: writes it.
        words: what the one line about a failed input must say (a regular expression); "" when it must be read.
        damaged: decode errors are counted (True), none are (False), or either may be (None).
    """

    name: str
    what: str
    make: Make
    words: str = ""
    damaged: bool | None = False

    def put(self, folder: Path) -> Path:
        """Make it in `folder`, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.name
        self.make(path)
        return path


@dataclass(frozen=True)
class Ran:
    """One run of the command: exit code, both outputs, seconds, the largest memory of its processes in MiB."""

    code: int
    out: str
    err: str
    seconds: float
    peak_mib: float


def run_limited(
    arguments: Sequence[object], environment: Mapping[str, str], *, limit_s: float = 300.0, limit_mib: int | None = None
) -> Ran:
    """`streamgate ARGUMENTS`, killed after `limit_s` (a TimeoutExpired then); `limit_mib` limits its address space.

    Raises AssertionError when a traceback got out.
    """

    def limit() -> None:
        if limit_mib is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit_mib << 20, limit_mib << 20))

    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamgate", *map(os.fspath, map(_text, arguments))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment}, preexec_fn=limit,
    )  # fmt: skip
    watch = _Peak(process.pid)
    try:
        out, err = watch.communicate(process, limit_s)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    seconds = time.monotonic() - began
    texts = [part.decode("utf-8", "surrogateescape") for part in (out, err)]
    assert "Traceback" not in texts[1], texts[1]
    return Ran(process.returncode, *texts, seconds, watch.mib)


def _text(value: object) -> str:
    return value if isinstance(value, str) else os.fspath(value) if isinstance(value, os.PathLike) else str(value)


class _Peak:
    """The high-water mark of the resident memory of a process and its children together, read while they live."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.mib = 0.0

    def communicate(self, process: subprocess.Popen[bytes], limit_s: float) -> tuple[bytes, bytes]:
        deadline = time.monotonic() + limit_s
        while True:
            self.mib = max(self.mib, sum(map(high_water, (self._pid, *children(self._pid)))))
            try:
                return process.communicate(timeout=0.05)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise


def high_water(pid: int) -> float:
    """MiB; 0 for a process that is gone."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found.group(1)) / 1024 if found else 0.0


def children(pid: int) -> list[int]:
    """The processes that a process has started; a run has one, its worker."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def told(err: str, name: str) -> list[str]:
    """The lines of an error output about the input of that name (as displayed)."""
    return [line for line in err.splitlines() if name in line and line.startswith("streamgate:")]


def leftovers(folder: Path) -> list[str]:
    """Temporary files and staging folders below an output folder; there must be none after a run."""
    found = [str(path) for path in folder.rglob("*") if path.name.endswith((".tmp", ".part"))]
    return found + [str(path) for path in folder.glob(".streamgate/staging*")]


def by_name(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sources of a summary.json by the last part of their location."""
    return {Path(source["source"]).name: source for source in summary["sources"]}
