"""How fast is a run, against decoding alone? Clips looped to a minute, contestants paired and alternated.

    python benchmarks/throughput.py [VIDEOS] [--seconds 60] [--rounds 3] [--clips NAME...] [--exhaustive]

Writes its section of benchmarks/RESULTS.md. Every pass is a fresh process; start-up is measured apart. What is
missing (a clip, the weights) is named, and the rest runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import (
    RESULTS,
    SHARED,
    Machine,
    child,
    command_line,
    find_clips,
    say,
    spread,
    table,
    weights_facts,
    write_section,
)
from contestants import Measured, Outcome

from streamgate.defaults import DEFAULT_MODELS

FACELESS = frozenset({"intel_bottle", "moviepy_bbb"})
"""Clips without a human face, by eye (the footage's index)."""
HD_LINES = 720
RATIO_LIMIT, RATIO_GOAL = 2.5, 1.5
"""DESIGN 9: wall over decoding alone, median of the 720p/1080p clips with faces."""
BEYOND_LIMIT = 40.0
"""DESIGN 9: core-ms a second of video beyond decoding, smaller and faceless clips."""
STARTUP_LIMIT = 1.0
MEMORY_LIMIT = 700.0


@dataclass(slots=True)
class Clip:
    """One clip with what came of it, a list entry a round under each contestant's name."""

    name: str
    path: Path
    how: str = ""
    problem: str = ""
    passes: dict[str, list[Measured]] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """What decoding told about the clip."""
        return self.passes["decode"][0].outcome

    @property
    def seconds(self) -> float:
        return max(self.outcome.video_seconds, 1e-9)

    @property
    def large_with_faces(self) -> bool:
        lines = min(self.outcome.width, self.outcome.height)
        return lines >= HD_LINES and self.name not in FACELESS

    def ratios(self, name: str) -> list[float]:
        """Wall over that of decoding alone, round by round."""
        return [a.wall / b.wall for a, b in self._paired(name)]

    def beyond(self, name: str) -> list[float]:
        """Core-ms a second of video beyond decoding alone, round by round."""
        return [1000 * (a.cpu - b.cpu) / self.seconds for a, b in self._paired(name)]

    def _paired(self, name: str) -> list[tuple[Measured, Measured]]:
        return list(zip(self.passes[name], self.passes["decode"], strict=True))


def main() -> int:
    given = _arguments()
    machine = Machine.here()
    if machine.busy:
        say(f"warning: load average {machine.load:.2f}; these figures will be noisy")
    paths, notes = find_clips(given.videos, given.clips)
    clips = [Clip(path.stem, path) for path in paths]
    facts, problem = child("contestants.py", "describe", "--models", given.models)
    names = ["decode", "streamgate", *(["exhaustive"] if given.exhaustive else [])]
    if facts is None:
        notes.append(f"only decoding was measured, the gate does not open here: {problem}")
        names = ["decode"]
    with tempfile.TemporaryDirectory(prefix="streamgate-throughput-") as folder:
        for clip in clips:
            _measure_clip(clip, names, given, Path(folder))
    notes += [f"{clip.name}: {clip.problem}" for clip in clips if clip.problem]
    measured = [clip for clip in clips if clip.passes]
    body = _report(machine, facts, names, measured, notes, given)
    write_section(given.results, "throughput", body)
    print(body)
    say(f"written to {given.results}")
    return 0 if measured else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", type=Path, nargs="?", default=SHARED / "videos", help="folder of clips")
    parser.add_argument("--seconds", type=float, default=60.0, help="clips are looped to at least this long")
    parser.add_argument("--rounds", type=int, default=3, help="passes of every contestant over every clip")
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="only these (file names, suffix optional)")
    parser.add_argument("--models", default=DEFAULT_MODELS, help="as of `streamgate run`")
    parser.add_argument("--exhaustive", action="store_true", help="also with every face of every frame scored")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    given = parser.parse_args()
    if given.seconds <= 0 or given.rounds < 1:
        parser.error("--seconds must be above 0 and --rounds at least 1")
    return given


def _measure_clip(clip: Clip, names: Sequence[str], given: argparse.Namespace, folder: Path) -> None:
    """Loop the clip, then give each contestant its passes, in an order that alternates from round to round."""
    looped, problem = child("looping.py", str(clip.path), str(given.seconds), str(folder))
    if looped is None:
        clip.problem = problem
        return
    path, clip.how = Path(looped["path"]), looped["how"]
    passes: dict[str, list[Measured]] = {name: [] for name in names}
    try:
        path.read_bytes()  # into the page cache: the first pass must not pay for the disk
        for turn in range(given.rounds):
            for name in names if turn % 2 == 0 else reversed(names):
                found, problem = child("contestants.py", name, str(path), "--models", given.models)
                if found is None:
                    clip.problem = f"{name}: {problem}"
                    return
                one = Measured(**{**found, "outcome": Outcome(**found["outcome"])})
                passes[name].append(one)
                say(f"{clip.name} round {turn + 1} {name}: {one.wall:.2f} s, CPU {one.cpu:.2f} s")
    finally:
        path.unlink(missing_ok=True)
    clip.passes = passes


def _report(
    machine: Machine,
    facts: dict[str, Any] | None,
    names: Sequence[str],
    clips: Sequence[Clip],
    notes: Sequence[str],
    given: argparse.Namespace,
) -> str:
    lines = ["## Throughput", "", f"`{command_line('throughput.py', sys.argv[1:])}`", "", *machine.lines()]
    if facts is not None:
        lines += weights_facts(facts)
    lines.append(
        f"- clips looped to at least {given.seconds:g} s, rounds: {given.rounds}; median (range); "
        'start-up is not in the walls; "beyond" is CPU time above decoding alone, in core-ms a second of video'
    )
    lines += [f"- left out: {note}" for note in notes]
    if clips:
        lines += ["", _clip_table(clips, names)]
    for name in names[1:]:
        if clips:
            lines += ["", f"### {name}", "", *_summary(clips, name)]
    return "\n".join(lines)


def _clip_table(clips: Sequence[Clip], names: Sequence[str]) -> str:
    head = ["clip", "size", "video s", "looped by", "decode s", "decode CPU s"]
    for name in names[1:]:
        label = "" if name == "streamgate" else f"{name} "
        head += [f"{label}{column}" for column in ("s", "x real time", "x decode", "CPU s", "beyond", "peak MiB")]
    head += ["tracks", "kept"] if len(names) > 1 else []
    return table(head, [_row(clip, names) for clip in clips])


def _row(clip: Clip, names: Sequence[str]) -> list[str]:
    alone = clip.passes["decode"]
    row = [clip.name, f"{clip.outcome.width}x{clip.outcome.height}", f"{clip.seconds:.1f}", clip.how]
    row += [spread([one.wall for one in alone]), spread([one.cpu for one in alone])]
    for name in names[1:]:
        passes = clip.passes[name]
        row += [
            spread([one.wall for one in passes]),
            f"{clip.seconds / statistics.median(one.wall for one in passes):.0f}",
            spread(clip.ratios(name)),
            spread([one.cpu for one in passes]),
            spread(clip.beyond(name), 1),
            f"{max(one.peak_mib for one in passes):.0f}",
        ]
    if len(names) > 1:
        outcome = clip.passes["streamgate"][0].outcome
        row += [str(outcome.tracks), str(outcome.kept)]
    return row


def _summary(clips: Sequence[Clip], name: str) -> list[str]:
    """The figures that DESIGN 9 sets budgets for, and plainly whether they are kept."""
    large = [clip for clip in clips if clip.large_with_faces]
    others = [clip for clip in clips if not clip.large_with_faces]
    passes = [one for clip in clips for one in clip.passes[name]]
    lines = [
        _verdict(
            "720p/1080p clips with faces, wall over decoding alone, median",
            [statistics.median(clip.ratios(name)) for clip in large],
            f"at most {RATIO_LIMIT}, goal {RATIO_GOAL}",
            lambda values: statistics.median(values) <= RATIO_LIMIT,
        ),
        _verdict(
            "smaller and faceless clips, core-ms a second of video beyond decoding, each",
            [statistics.median(clip.beyond(name)) for clip in others],
            f"at most {BEYOND_LIMIT:g}",
            lambda values: max(values) <= BEYOND_LIMIT,
        ),
    ]
    over = [clip.name for clip in others if statistics.median(clip.beyond(name)) > BEYOND_LIMIT]
    if over:
        lines.append(f"  - above {BEYOND_LIMIT:g} ({len(over)} of {len(others)}): {', '.join(over)}")
    lines += [
        _verdict(
            "start-up of the process until the gate is open, s, median",
            [one.startup_wall for one in passes],
            f"at most {STARTUP_LIMIT:g}",
            lambda values: statistics.median(values) <= STARTUP_LIMIT,
        ),
        _verdict(
            "peak memory, MiB, each",
            [one.peak_mib for one in passes],
            f"below {MEMORY_LIMIT:g}",
            lambda values: max(values) < MEMORY_LIMIT,
        ),
    ]
    return lines


def _verdict(what: str, values: Sequence[float], budget: str, met: Callable[[Sequence[float]], bool]) -> str:
    if not values:
        return f"- {what}: no such clip here"
    return f"- {what}: {spread(values)}; budget {budget}: **{'met' if met(values) else 'not met'}**"


if __name__ == "__main__":
    sys.exit(main())
