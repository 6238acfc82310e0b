"""Code that the benchmarks share: arguments, clips, facts about the machine, sections of RESULTS.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamgate.parallel import usable_cores

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "RESULTS.md"
SHARED = Path(os.environ.get("STREAMGATE_SHARED") or REPOSITORY.parent / "shared")

SUFFIXES = frozenset({".mp4", ".gif", ".mpg", ".avi", ".webm", ".mkv", ".mov"})
BUSY = 0.5
"""Load average per core above which a section is marked as noisy."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The conditions, besides the code, on which results depend. `load` is the 1-minute load average."""

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
        """Whether other programs were running, which makes wall times unreliable."""
        return self.load > BUSY * self.cores

    def lines(self) -> list[str]:
        """The facts as items of a Markdown list."""
        noisy = f"- **noisy: the load was above {BUSY} per core before the start; repeat on an idle machine**"
        return [
            f"- machine: {self.cpu}, {self.cores} cores, {self.ram_gib:.1f} GiB; {self.system}",
            f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; load average before the start: {self.load:.2f}",
            *([noisy] if self.busy else []),
        ]


def arguments(
    doc: str, *, videos: bool = True, clips: bool = False, gate: bool = False, results: Path | None = RESULTS
) -> argparse.ArgumentParser:
    """A parser with the arguments that several scripts have.

    Args:
        doc: the script's docstring, which becomes its help.
        videos: add the argument for the folder of footage.
        clips: add `--clips`, the names of clips in that folder.
        gate: add `--preset`, `--models` and `--set`, with the same values as for `streamgate run`.
        results: the default of `--results`, the file to which the section is written; None: no such option.
    """
    from streamgate.defaults import DEFAULT_MODELS

    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if videos:
        parser.add_argument("videos", type=Path, nargs="?", default=SHARED / "videos", help="folder of clips")
    if clips:
        parser.add_argument("--clips", nargs="+", metavar="NAME", help="only these clips, with or without suffix")
    if gate:
        parser.add_argument("--preset", default="studio", help="as for `streamgate run`")
        parser.add_argument("--models", default=DEFAULT_MODELS, help="as for `streamgate run`")
        parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    if results is not None:
        parser.add_argument("--results", type=Path, default=results, help="file to which the section is written")
    return parser


def find_clips(videos: Path, wanted: Sequence[str] | None) -> tuple[list[Path], list[str]]:
    """The clips in a folder, sorted, and a note for each missing clip.

    With `wanted`, only the clips with these names (the suffix is optional).
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


def kept_faces(out: Path) -> list[dict[str, Any]]:
    """The records of a folder that `streamgate run` wrote."""
    return [json.loads(line) for line in (out / "faces.jsonl").read_text(encoding="utf-8").splitlines()]


def heading(title: str, machine: Machine, facts: dict[str, Any] | None = None, notes: Sequence[str] = ()) -> list[str]:
    """The first lines of a section: title, command, machine, versions and weights, and what was left out."""
    return [
        f"## {title}", "", f"`{command_line(Path(sys.argv[0]).name, sys.argv[1:])}`", "", *machine.lines(),
        *(weights_facts(facts) if facts else []), *[f"- left out: {note}" for note in notes],
    ]  # fmt: skip


def publish(path: Path, name: str, lines: Sequence[str]) -> None:
    """Print a section and write it into a results file."""
    body = "\n".join(lines)
    write_section(path, name, body)
    print(body)
    say(f"written to {path}")


def weights_facts(facts: dict[str, Any]) -> list[str]:
    """Versions and weights, as returned by `describe`, as items of a Markdown list."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    weights = ", ".join(f"{one['role']} {one['name']} {one['sha256'][:8]}" for one in facts["weights"])
    return [f"- versions: {versions}", f"- weights: {weights}"]


def target(what: str, figure: str, limit: str, met: bool) -> str:
    """A value, its target and whether the target is met, as an item of a Markdown list."""
    return f"- {what}: {figure}; target {limit}: **{'met' if met else 'not met'}**"


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


def write_section(path: Path, name: str, body: str) -> None:
    """Replace the section `name` of a results file, or append it. The file is written atomically."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    section = f"{begin}\n{body.strip()}\n{end}\n"
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    before, found, rest = text.partition(begin)
    if found:
        _, closed, after = rest.partition(end)
        if not closed:
            raise SystemExit(f"{path}: has {begin} without {end}; repair it first")
        text = before + section + after.removeprefix("\n")
    else:
        text = f"{text.rstrip()}\n\n{section}"
    _replace(path, text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table. The first `left` columns are aligned to the left, the others to the right."""
    lines = [head, [*["---"] * left, *["---:"] * (len(head) - left)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median and, for several values, their range: `1.52 (1.49 to 1.60)`."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def command_line(script: str, arguments: Sequence[str]) -> str:
    """The command in a form that can be published: absolute paths are reduced to their last part."""
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
