"""How fast is a run, against decoding alone? Clips looped to a minute, contestants paired and alternated.

    python benchmarks/throughput.py [VIDEOS] [--seconds 60] [--rounds 3] [--clips NAME...] [--all]

Writes its section of benchmarks/RESULTS.md. Every pass is a fresh process; start-up is measured apart. --archive,
--exhaustive and --plain add contestants, --all adds them all. The slow ones have one pass: the exhaustive mode over the
clip as it is, the plain loops over its first seconds.
What is missing (a clip, the weights, torch) is named, and the rest runs.
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
"""docs/design.md 9: wall over decoding alone, median of the 720p/1080p clips with faces."""
BEYOND_LIMIT = 40.0
"""docs/design.md 9: core-ms a second of video beyond decoding, smaller and faceless clips."""
STARTUP_LIMIT = 1.0
MEMORY_LIMIT = 700.0
ARCHIVE_GOAL = 0.7
"""Wall of the preset `archive` over decoding all, on clips with long stretches without faces."""
PLAIN_LIMIT = 20.0
"""Times faster than the plain loop with our own networks."""
_PLAIN_COLUMNS = ("video s", "faces a frame", "wall s", "CPU s", "x real time", "times faster")
PLAIN = {"plain": "own networks", "plain_official": "official IFQA"}


@dataclass(slots=True)
class Clip:
    """One clip with what came of it, a list entry a round under each contestant's name."""

    name: str
    path: Path
    how: str = ""
    problem: str = ""
    passes: dict[str, list[Measured]] = field(default_factory=dict)
    plain: dict[str, Measured] = field(default_factory=dict)
    """The plain loops, over the clip's first seconds."""
    once: dict[str, Measured] = field(default_factory=dict)
    """Decoding and the exhaustive mode, over the clip as it is."""

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

    def times_faster(self, name: str) -> float:
        """How many times as long a plain loop takes for a second of video as we do."""
        one = self.plain[name]
        ours = statistics.median(passed.wall for passed in self.passes["streamgate"]) / self.seconds
        return one.wall / max(one.outcome.video_seconds, 1e-9) / ours

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
    names = ["decode", "streamgate", *(["archive"] if given.archive else [])]
    if facts is None:
        notes.append(f"only decoding was measured, the gate does not open here: {problem}")
        names, given.plain, given.exhaustive = ["decode"], False, False
    with tempfile.TemporaryDirectory(prefix="streamgate-throughput-") as folder:
        for clip in clips:
            _measure_clip(clip, names, given, Path(folder), notes)
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
    parser.add_argument("--archive", action="store_true", help="also the preset that leaves frames undecoded")
    parser.add_argument("--exhaustive", action="store_true", help="also with every face of every frame scored")
    parser.add_argument("--plain", action="store_true", help="also the loop a user would write, in two forms")
    parser.add_argument("--all", action="store_true", help="all of these")
    parser.add_argument(
        "--plain-seconds", type=float, nargs=2, default=(10.0, 2.0), metavar=("OWN", "OFFICIAL"),
        help="seconds of video that the plain loops see, with our own networks and with IFQA's official architecture",
    )  # fmt: skip
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    given = parser.parse_args()
    if given.seconds <= 0 or given.rounds < 1:
        parser.error("--seconds must be above 0 and --rounds at least 1")
    if min(given.plain_seconds) <= 0:
        parser.error("--plain-seconds must be above 0")
    if given.all:
        given.archive = given.exhaustive = given.plain = True
    return given


def _measure_clip(
    clip: Clip, names: Sequence[str], given: argparse.Namespace, folder: Path, notes: list[str]
) -> None:
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
                one = _read(found)
                passes[name].append(one)
                say(f"{clip.name} round {turn + 1} {name}: {one.wall:.2f} s, CPU {one.cpu:.2f} s")
            if turn == 0 and given.plain:
                _measure_plain(clip, path, given, notes)
        if given.exhaustive:
            _measure_exhaustive(clip, given, folder, notes)
    finally:
        path.unlink(missing_ok=True)
    clip.passes = passes


def _measure_plain(clip: Clip, path: Path, given: argparse.Namespace, notes: list[str]) -> None:
    for name, seconds in zip(PLAIN, given.plain_seconds, strict=True):
        found, problem = child("contestants.py", name, str(path), "--models", given.models, "--limit", str(seconds))
        if found is None:
            note = f"plain loop, {PLAIN[name]}: {problem}"
            notes += [note] if note not in notes else []
            continue
        clip.plain[name] = one = _read(found)
        say(f"{clip.name} plain loop, {PLAIN[name]}: {one.wall:.2f} s for {one.outcome.video_seconds:.1f} s")


def _measure_exhaustive(clip: Clip, given: argparse.Namespace, folder: Path, notes: list[str]) -> None:
    """One pass over the clip as it is; made anew by stream copy as the looped one is, so that times count alike."""
    once, problem = child("looping.py", str(clip.path), "0.1", str(folder))
    for name in ("decode", "exhaustive"):
        found = None
        if once is not None:
            found, problem = child("contestants.py", name, once["path"], "--models", given.models)
        if found is None:
            notes.append(f"{clip.name}, exhaustive: {problem}")
            break
        clip.once[name] = one = _read(found)
        say(f"{clip.name} as it is, {name}: {one.wall:.2f} s, CPU {one.cpu:.2f} s")
    if once is not None:
        Path(once["path"]).unlink(missing_ok=True)


def _read(found: dict[str, Any]) -> Measured:
    return Measured(**{**found, "outcome": Outcome(**found["outcome"])})


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
    if any("exhaustive" in clip.once for clip in clips):
        lines += ["", "### exhaustive", "", *_exhaustive(clips)]
    if any(clip.plain for clip in clips):
        lines += ["", "### The plain loop", "", *_plain(clips, given)]
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
    """The figures that docs/design.md 9 sets budgets for, and plainly whether they are kept."""
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
    if name == "archive":
        values = {clip.name: statistics.median(clip.ratios(name)) for clip in clips}
        faceless = [value for clip, value in values.items() if clip in FACELESS]
        lines.append(
            _verdict(
                "faceless clips, wall over decoding alone, each",
                faceless,
                f"below {ARCHIVE_GOAL}",
                lambda values: max(values) < ARCHIVE_GOAL,
            )
        )
        if others_too := [value for clip, value in values.items() if clip not in FACELESS]:
            lines.append(f"- the other clips, wall over decoding alone, reported: {spread(others_too)}")
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


def _exhaustive(clips: Sequence[Clip]) -> list[str]:
    """What scoring every face of every frame takes for a second of video, beside a run."""
    head = ["clip", "video s", "a run: wall s", "CPU s", "exhaustive: wall s", "CPU s", "x decode", "times a run"]
    rows, times = [], []
    for clip in clips:
        if "exhaustive" not in clip.once:
            continue
        one, alone = clip.once["exhaustive"], clip.once["decode"]
        seen = max(alone.outcome.video_seconds, 1e-9)
        wall, cpu = (
            statistics.median(getattr(passed, what) for passed in clip.passes["streamgate"]) / clip.seconds
            for what in ("wall", "cpu")
        )
        times.append(one.wall / seen / wall)
        rows.append([
            clip.name, f"{seen:.1f}", f"{wall:.3f}", f"{cpu:.3f}", f"{one.wall / seen:.3f}", f"{one.cpu / seen:.3f}",
            f"{one.wall / alone.wall:.1f}", f"{times[-1]:.1f}",
        ])  # fmt: skip
    return [
        "Every face of every frame scored: one pass over the clip as it is; wall and CPU are seconds for a second of "
        "video, start-up apart.",
        "", table(head, rows), "", f"- wall over that of a run: {spread(times, 1)}",
    ]  # fmt: skip


def _plain(clips: Sequence[Clip], given: argparse.Namespace) -> list[str]:
    """What a loop without this project takes for a second of video, and how many times faster a run is."""
    own, official = given.plain_seconds
    head = ["clip", "a run: wall s", *(f"{what}: {column}" for what in PLAIN.values() for column in _PLAIN_COLUMNS)]
    rows = []
    for clip in clips:
        ours = statistics.median(one.wall for one in clip.passes["streamgate"]) / clip.seconds
        row = [clip.name, f"{ours:.3f}"]
        for name in PLAIN:
            one = clip.plain.get(name)
            if one is None:
                row += ["-"] * len(_PLAIN_COLUMNS)
                continue
            seen = max(one.outcome.video_seconds, 1e-9)
            faces = one.outcome.faces / max(one.outcome.frames, 1)
            row += [f"{seen:.1f}", f"{faces:.1f}", f"{one.wall / seen:.2f}", f"{one.cpu / seen:.2f}"]
            row += [f"{seen / one.wall:.2f}", f"{clip.times_faster(name):.1f}"]
        rows.append(row)
    with_faces = [clip for clip in clips if clip.name not in FACELESS]
    return [
        "Every frame made RGB, its faces detected (640 pixels on the longer side), each aligned, embedded, its SER-FIQ "
        "sampled with T = 100, and judged by IFQA; networks on all cores. One pass over the first "
        f"{own:g} s with our own networks and {official:g} s with IFQA's official architecture (random weights, which "
        "take as long). Wall and CPU are seconds for a second of video, start-up apart.",
        "",
        table(head, rows),
        "",
        _verdict(
            "clips with faces, times faster than the plain loop with our own networks, median",
            [clip.times_faster("plain") for clip in with_faces if "plain" in clip.plain],
            f"at least {PLAIN_LIMIT:g}",
            lambda values: statistics.median(values) >= PLAIN_LIMIT,
        ),
        *[
            f"- the same with official IFQA, reported: {spread(values, 1)}"
            for values in [[c.times_faster("plain_official") for c in with_faces if "plain_official" in c.plain]]
            if values
        ],
    ]


def _verdict(what: str, values: Sequence[float], budget: str, met: Callable[[Sequence[float]], bool]) -> str:
    if not values:
        return f"- {what}: no such clip here"
    return f"- {what}: {spread(values)}; budget {budget}: **{'met' if met(values) else 'not met'}**"


if __name__ == "__main__":
    sys.exit(main())
