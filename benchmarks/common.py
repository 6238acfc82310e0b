"""What the benchmarks share: facts about the machine, and sections of RESULTS.md."""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "RESULTS.md"
SHARED = Path(os.environ.get("STREAMGATE_SHARED") or REPOSITORY.parent / "shared")

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
