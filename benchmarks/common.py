"""What the benchmarks share: clips, children, facts about the machine, sections of RESULTS.md."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# `profile.py` of this folder must not hide the standard library's module, which cProfile imports.
_HERE = str(Path(__file__).resolve().parent)
if sys.path and sys.path[0] == _HERE:
    sys.path.append(sys.path.pop(0))

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "RESULTS.md"
SHARED = Path(os.environ.get("STREAMGATE_SHARED") or REPOSITORY.parent / "shared")

SUFFIXES = frozenset({".mp4", ".gif", ".mpg", ".avi", ".webm", ".mkv", ".mov"})
STARTED = "STREAMGATE_BENCHMARK_STARTED"
"""Environment variable with the monotonic time at which the parent started a child."""
CHILD_LIMIT_S = 3600.0

BUSY = 0.5
"""Load average a core from which figures are called noisy."""

_HEADING = "# Results\n\nWritten by the scripts of this folder, a section each; do not edit by hand.\n"


@dataclass(frozen=True, slots=True)
class Machine:
    """What figures depend on besides the code. `load` is the 1-minute load average when it was asked."""

    cpu: str
    cores: int
    ram_gib: float
    system: str
    load: float

    @classmethod
    def here(cls) -> Machine:
        return cls(_cpu_model(), usable_cores(), _ram_gib(), _system(), os.getloadavg()[0])

    @property
    def busy(self) -> bool:
        """Other programs were running, so that wall times say little."""
        return self.load > BUSY * self.cores

    def lines(self) -> list[str]:
        """The facts as items of a Markdown list."""
        found = [
            f"- machine: {self.cpu}, {self.cores} cores, {self.ram_gib:.1f} GiB; {self.system}",
            f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; load average before the start: {self.load:.2f}",
        ]
        if self.busy:
            found.append(
                f"- **noisy: the load was above {BUSY} a core before the start; run it again when it is quiet**"
            )
        return found


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_clips(videos: Path, wanted: Sequence[str] | None) -> tuple[list[Path], list[str]]:
    """The clips of a folder, or those of them that are wanted by name (the suffix is optional), sorted.

    With them a note for each that is missing.
    """
    files = sorted(videos.iterdir()) if videos.is_dir() else []
    clips = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not clips:
        return [], [f"no clips: {videos.name} is missing or holds no video"]
    if not wanted:
        return clips, []
    known = {name for path in clips for name in (path.stem, path.name)}
    missing = [f"{name}: not in {videos.name}" for name in wanted if name not in known]
    return [path for path in clips if path.stem in wanted or path.name in wanted], missing


def child(script: str, *arguments: str, limit_s: float = CHILD_LIMIT_S) -> tuple[Any, str]:
    """What a script of this folder prints as JSON on its last line, or None and why there is nothing."""
    environment = {**os.environ, STARTED: repr(time.monotonic())}
    command = [sys.executable, str(Path(_HERE) / script), *arguments]
    try:
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None, f"no result within {limit_s:.0f} s"
    if ran.returncode != 0:
        reason = ran.stderr.strip().splitlines()[-1:] or [f"ended with {ran.returncode}"]
        return None, reason[0]
    return json.loads(ran.stdout.splitlines()[-1]), ""


def weights_facts(facts: dict[str, Any]) -> list[str]:
    """Versions and weights, as `contestants.py describe` prints them, as items of a Markdown list."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    weights = ", ".join(f"{one['role']} {one['name']} {one['sha256'][:8]}" for one in facts["weights"])
    return [f"- versions: {versions}", f"- weights: {weights}"]


def target(what: str, figure: str, limit: str, met: bool) -> str:
    """One target as an item of a Markdown list, and plainly whether it is met."""
    return f"- {what}: {figure}; target {limit}: **{'met' if met else 'not met'}**"


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def write_section(path: Path, name: str, body: str) -> None:
    """Replace the section `name` of a results file, or append it; in one step or not at all."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    section = f"{begin}\n{body.strip()}\n{end}\n"
    text = path.read_text(encoding="utf-8") if path.exists() else _HEADING
    before, found, rest = text.partition(begin)
    if found:
        _, closed, after = rest.partition(end)
        if not closed:
            raise SystemExit(f"{path}: has {begin} without {end}; repair it first")
        text = before + section + after.removeprefix("\n")
    else:
        text = f"{text.rstrip()}\n\n{section}"
    _replace(path, text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are set right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, with the range when there are several: `1.52 (1.49-1.60)`."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def command_line(script: str, arguments: Sequence[str]) -> str:
    """The command as it may be published: absolute paths are reduced to their last part."""
    shown = [Path(one).name if Path(one).is_absolute() else one for one in arguments]
    return shlex.join(["python", f"benchmarks/{script}", *shown])


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _ram_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, kernel {platform.release()}, Python {platform.python_version()}"
