"""How fast is a run compared with decoding alone? Clips are repeated up to a minute, and the contestants alternate.

    python benchmarks/throughput.py [VIDEOS] [--seconds 60] [--rounds 3] [--clips NAME...] [--all]

Every pass runs in a new process, and start-up is measured separately. --archive and --plain add contestants (see
`contestants.py`); --all adds both. The plain loops make one pass over the first seconds of a clip. `bestshot.py`
measures the cost of exhaustive mode. The script writes its section of benchmarks/RESULTS.md and, with --page, the table
of docs/performance.md. If a clip, the weights or torch are missing, the section says so and contains the other results.

Clips whose names begin with "joined" (made by `clips.py join`) consist of different clips instead of one repeated clip.
They have their own row in the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import Machine, arguments, find_clips, heading, publish, say, spread, table, target, write_section
from contestants import Measured, Outcome
from processes import child, describe

FACELESS = frozenset({"intel_bottle", "moviepy_bbb"})
"""Clips without a human face, according to the index of the footage."""
HD_LINES = 720
RATIO_GOAL, RATIO_LIMIT = 1.0, 2.5
"""docs/design.md 9: limits of a run's wall time divided by that of decoding alone, for 720p and 1080p clips with faces:
the first for the median, the second for each clip."""
BEYOND_GOAL, BEYOND_LIMIT = 40.0, 90.0
"""docs/design.md 9: limits of the CPU time beyond decoding, in core-ms per second of video, for all other clips: the
first for the median, the second for each clip."""
ARCHIVE_LIMIT = 0.5
"""docs/design.md 9: limit of the wall time with the preset `archive` divided by that of decoding alone: for each clip
without faces, and for the median of the 720p and 1080p clips with faces."""
STARTUP_LIMIT, MEMORY_LIMIT = 1.0, 700.0
PLAIN_LIMIT = 20.0
"""How many times faster a run should be than the plain loop with our own networks."""
PLAIN = {"plain": "own networks", "plain_official": "official IFQA"}


@dataclass(slots=True)
class Clip:
    """One clip with its results.

    `passes` contains one entry per round for each contestant, `plain` the single pass of each plain loop.
    """

    name: str
    path: Path
    how: str = ""
    problem: str = ""
    passes: dict[str, list[Measured]] = field(default_factory=dict)
    plain: dict[str, Measured] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """Properties of the clip, as determined by decoding it."""
        return self.passes["decode"][0].outcome

    @property
    def seconds(self) -> float:
        return max(self.outcome.video_seconds, 1e-9)

    @property
    def joined(self) -> bool:
        return self.name.startswith("joined")

    @property
    def large_with_faces(self) -> bool:
        return min(self.outcome.width, self.outcome.height) >= HD_LINES and self.name not in FACELESS

    def ratios(self, name: str) -> list[float]:
        """Wall time divided by that of decoding alone, for each round."""
        return [a.wall / b.wall for a, b in zip(self.passes[name], self.passes["decode"], strict=True)]

    def beyond(self, name: str) -> list[float]:
        """CPU time beyond decoding alone, in core-ms per second of video, for each round."""
        pairs = zip(self.passes[name], self.passes["decode"], strict=True)
        return [1000 * (a.cpu - b.cpu) / self.seconds for a, b in pairs]

    def run_wall(self) -> float:
        """Median wall time of a run, in seconds per second of video."""
        return statistics.median(one.wall for one in self.passes["streamgate"]) / self.seconds

    def times_faster(self, loop: str) -> float:
        """Wall time of a plain loop divided by that of a run, both per second of video."""
        one = self.plain[loop]
        return one.wall / max(one.outcome.video_seconds, 1e-9) / self.run_wall()


def main() -> int:
    given = _arguments()
    machine = Machine.here()
    if machine.busy:
        say(f"warning: load average {machine.load:.2f}; the results will be noisy")
    paths, notes = find_clips(given.videos, given.clips)
    clips = [Clip(path.stem, path) for path in paths]
    facts, problem = describe(given.models)
    names = ["decode", "streamgate", *(["archive"] if given.archive else [])]
    if facts is None:
        notes.append(f"only decoding was measured: {problem}")
        names, given.plain = ["decode"], False
    with tempfile.TemporaryDirectory(prefix="streamgate-throughput-") as folder:
        for clip in clips:
            _measure_clip(clip, names, given, Path(folder), notes)
    notes += [f"{clip.name}: {clip.problem}" for clip in clips if clip.problem]
    measured = [clip for clip in clips if clip.passes]
    publish(given.results, re.sub(r"\W+", "-", given.title.lower()), [
        *heading(given.title, machine, facts, notes),
        f"- clips were repeated until they lasted at least {given.seconds:g} s; values are the median of "
        f"{given.rounds} rounds, with the range in parentheses; times exclude start-up",
        '- "x real time" is the duration of the video divided by the wall time, "x decode" is the wall time divided by '
        'that of decoding alone, and "beyond" is the CPU time beyond decoding alone, in core-ms per second of video',
        *(_report(measured, names, given) if measured else []),
    ])  # fmt: skip
    if given.page and measured and facts is not None:
        write_section(given.page, "throughput", _page(measured, names[1:]))
    return 0 if measured else 1


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__, clips=True, gate=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="minimum duration to which clips are repeated")
    parser.add_argument("--rounds", type=int, default=3, help="number of passes of each contestant over each clip")
    parser.add_argument("--archive", action="store_true", help="also measure the preset `archive`, which skips frames")
    parser.add_argument("--plain", action="store_true", help="also measure the loop that a user would write")
    parser.add_argument("--all", action="store_true", help="--archive and --plain")
    parser.add_argument("--page", type=Path, help="also write the table of this page (docs/performance.md)")
    parser.add_argument("--title", default="Throughput", help="title of the section that is written")
    parser.add_argument(
        "--plain-seconds", type=float, nargs=2, default=(10.0, 2.0), metavar=("OWN", "OFFICIAL"),
        help="seconds of video that the plain loops read, with our own networks and with IFQA's official architecture",
    )  # fmt: skip
    given = parser.parse_args()
    if given.seconds <= 0 or given.rounds < 1 or min(given.plain_seconds) <= 0:
        parser.error("--seconds and --plain-seconds must be above 0 and --rounds at least 1")
    if given.page and not (given.page.is_file() and "<!-- throughput:begin -->" in given.page.read_text("utf-8")):
        parser.error(f"--page: {given.page} has no table to replace, marked with <!-- throughput:begin -->")
    if given.all:
        given.archive = given.plain = True
    return given


def _measure_clip(clip: Clip, names: Sequence[str], given: argparse.Namespace, folder: Path, notes: list[str]) -> None:
    """Repeat the clip up to the minimum duration; run the contestants on it, in an order that alternates by round."""
    looped, clip.problem = child("clips.py", "loop", str(clip.path), str(given.seconds), str(folder))
    if looped is None:
        return
    path, clip.how = Path(looped["path"]), looped["how"]
    passes: dict[str, list[Measured]] = {name: [] for name in names}
    try:
        path.read_bytes()  # fill the page cache, so that the first pass does not wait for the disk
        for turn in range(given.rounds):
            for name in names if turn % 2 == 0 else reversed(names):
                one, problem = _pass(clip, name, path, given)
                if one is None:
                    clip.problem = f"{name}: {problem}"
                    return
                passes[name].append(one)
        for name, seconds in zip(PLAIN, given.plain_seconds, strict=True):
            if given.plain:
                one, problem = _pass(clip, name, path, given, seconds)
                if one is not None:
                    clip.plain[name] = one
                elif (note := f"plain loop, {PLAIN[name]}: {problem}") not in notes:
                    notes.append(note)
    finally:
        path.unlink(missing_ok=True)
    clip.passes = passes


def _pass(
    clip: Clip, name: str, path: Path, given: argparse.Namespace, limit: float = 0.0
) -> tuple[Measured | None, str]:
    found, problem = child("contestants.py", name, str(path), "--models", given.models, "--limit", str(limit))
    if found is None:
        return None, problem
    one = Measured(**{**found, "outcome": Outcome(**found["outcome"])})
    say(f"{clip.name} {name}: {one.wall:.2f} s, CPU {one.cpu:.2f} s")
    return one, ""


def _report(clips: Sequence[Clip], names: Sequence[str], given: argparse.Namespace) -> list[str]:
    head = ["clip", "size", "video s", "looped by", "decode s", "decode CPU s"]
    for name in names[1:]:
        label = "" if name == "streamgate" else f"{name} "
        head += [f"{label}{column}" for column in ("s", "x real time", "x decode", "CPU s", "beyond", "peak MiB")]
    head += ["tracks", "kept"] if len(names) > 1 else []
    lines = ["", table(head, [_row(clip, names) for clip in clips])]
    for name in names[1:]:
        lines += ["", f"### {name}", "", *_budgets(clips, name)]
    if len(names) > 1:
        lines += ["", "### Where the time of a run goes", "", *_stages(clips)]
    if any(clip.plain for clip in clips):
        lines += ["", "### The plain loop", "", *_plain(clips, given)]
    return lines


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


def _budgets(clips: Sequence[Clip], name: str) -> list[str]:
    """The values that have budgets in docs/design.md 9, and whether they are within these budgets."""
    others = [clip for clip in clips if not clip.large_with_faces]
    large = [statistics.median(clip.ratios(name)) for clip in clips if clip.large_with_faces]
    beyond = {clip.name: statistics.median(clip.beyond(name)) for clip in others}
    passes = _passes(clips, name)
    what = "720p and 1080p clips with faces, wall time divided by that of decoding alone"
    more = "clips below 720p or without faces, CPU time beyond decoding, core-ms per second of video"
    lines = [
        _verdict(what, large, statistics.median, ARCHIVE_LIMIT if name == "archive" else RATIO_GOAL),
        _verdict(what, large, max, RATIO_LIMIT),
        _verdict(more, list(beyond.values()), statistics.median, BEYOND_GOAL),
        _verdict(more, list(beyond.values()), max, BEYOND_LIMIT),
    ]
    if over := [clip for clip, value in beyond.items() if value > BEYOND_LIMIT]:
        lines.append(f"  - {len(over)} of {len(others)} clips are above {BEYOND_LIMIT:g}: {', '.join(over)}")
    if name == "archive":
        faceless = [statistics.median(clip.ratios(name)) for clip in clips if clip.name in FACELESS]
        what = "clips without faces, wall time divided by that of decoding alone"
        lines.append(_verdict(what, faceless, max, ARCHIVE_LIMIT))
    startup = [one.startup_wall for one in passes]
    start = "start-up, from the start of the process until the networks are loaded, s"
    return [
        *lines,
        _verdict(start, startup, statistics.median, STARTUP_LIMIT),
        _verdict("peak memory, MiB", [one.peak_mib for one in passes], max, MEMORY_LIMIT),
    ]


def _page(clips: Sequence[Clip], names: Sequence[str]) -> str:
    """The table of docs/performance.md: one row per value, one column per contestant, median and range over the
    clips."""

    def row(what: str, values: Callable[[str], Sequence[float]], digits: int) -> list[str]:
        return [what, *(spread(found, digits) if (found := values(name)) else "-" for name in names)]

    def ratios(name: str, joined: bool) -> list[float]:
        chosen = [clip for clip in clips if clip.large_with_faces and clip.joined == joined]
        return [statistics.median(clip.ratios(name)) for clip in chosen]

    compared = [clip for clip in clips if "plain" in clip.plain and clip.name not in FACELESS]
    faster = {"streamgate": [clip.times_faster("plain") for clip in compared]}
    small = [clip for clip in clips if not clip.large_with_faces]
    wall = "wall time of a run divided by that of decoding alone"
    rows = [
        row(f"720p and 1080p clips with faces: {wall}", lambda name: ratios(name, joined=False), 2),
        row(f"different 720p clips joined into one video: {wall}", lambda name: ratios(name, joined=True), 2),
        row(
            "clips below 720p or without faces: CPU time beyond decoding, core-ms per second of video",
            lambda name: [statistics.median(clip.beyond(name)) for clip in small], 0,
        ),
        row(
            "clips with faces: how many times faster a run is than a simple loop with the same networks, which detects "
            "faces in every frame and computes SER-FIQ and IFQA for each face",
            lambda name: faster.get(name, []), 0,
        ),
        row("start-up time of the process, s", lambda name: [one.startup_wall for one in _passes(clips, name)], 2),
        row("peak memory, MiB", lambda name: [one.peak_mib for one in _passes(clips, name)], 0),
    ]  # fmt: skip
    return table(["value", *(f"`{'studio' if name == 'streamgate' else name}`" for name in names)], rows)


def _passes(clips: Sequence[Clip], name: str) -> list[Measured]:
    return [one for clip in clips for one in clip.passes[name]]


def _stages(clips: Sequence[Clip]) -> list[str]:
    """Time in the first pass for decoding, for each network and for everything else."""
    first = [(clip, clip.passes["decode"][0].cpu, clip.passes["streamgate"][0]) for clip in clips]
    roles = sorted({role for _, _, one in first for role in one.outcome.networks})
    rows = []
    for clip, alone, one in first:
        parts = [alone, *(one.outcome.networks.get(role, 0.0) for role in roles)]
        values = [*parts, one.cpu - sum(parts), one.cpu]
        rows.append([clip.name, *(f"{1000 * value / clip.seconds:.1f}" for value in values)])
    return [
        "Core-ms per second of video, for decoding alone, for the runs of each network and for everything else "
        "(tracking, cropping, measures, writing). For networks, wall time is measured. On a busy machine, the wall "
        'time is longer than the CPU time, and "everything else" is too low by the difference.',
        "", table(["clip", "decoding", *roles, "everything else", "total"], rows),
    ]  # fmt: skip


def _plain(clips: Sequence[Clip], given: argparse.Namespace) -> list[str]:
    """The time that the plain loops take per second of video, and how many times faster a run is."""
    columns = ("video s", "faces per frame", "wall s", "CPU s", "x real time", "times faster")
    head = ["clip", "streamgate: wall s", *(f"{what}: {column}" for what in PLAIN.values() for column in columns)]
    rows: list[list[str]] = []
    times: dict[str, list[float]] = {name: [] for name in PLAIN}
    for clip in clips:
        row = [clip.name, f"{clip.run_wall():.3f}"]
        for name in PLAIN:
            one: Any = clip.plain.get(name)
            if one is None:
                row += ["-"] * len(columns)
                continue
            seen = max(one.outcome.video_seconds, 1e-9)
            faster = clip.times_faster(name)
            times[name] += [faster] if clip.name not in FACELESS else []
            row += [f"{seen:.1f}", f"{one.outcome.faces / max(one.outcome.frames, 1):.1f}", f"{one.wall / seen:.2f}"]
            row += [f"{one.cpu / seen:.2f}", f"{seen / one.wall:.2f}", f"{faster:.1f}"]
        rows.append(row)
    own, official = given.plain_seconds
    lines = [
        "The plain loop is a simple program without tracking. It converts every frame to RGB, scales it down to 640 "
        "pixels on the longer side and detects the faces. It aligns and embeds each face, samples its SER-FIQ with "
        "T = 100, and scores it with IFQA. The networks use all cores. The loop read the first "
        f"{own:g} s of each clip with our own networks, and the first {official:g} s with IFQA's official architecture "
        "(with random weights, which do not change the speed). Wall and CPU times are in seconds per second of video, "
        'without start-up. "Times faster" is the wall time of the loop divided by that of a run.',
        "", table(head, rows), "",
    ]  # fmt: skip
    if values := times["plain"]:
        middle = statistics.median(values)
        what = "clips with faces, wall time of the plain loop with our own networks divided by that of a run"
        limit = f"at least {PLAIN_LIMIT:g} for the median"
        lines.append(target(what, f"median {spread(values)}", limit, middle >= PLAIN_LIMIT))
    if times["plain_official"]:
        faster_text = spread(times["plain_official"], 1)
        what = "wall time of the plain loop with official IFQA divided by that of a run"
        lines.append(f"- {what}: median {faster_text}; no target")
    return lines


def _verdict(what: str, values: Sequence[float], of: Callable[[Sequence[float]], float], limit: float) -> str:
    if not values:
        return f"- {what}: no such clip was measured"
    scope = "each" if of is max else "the median"
    return target(what, f"median {spread(values)}", f"at most {limit:g} for {scope}", of(values) <= limit)


if __name__ == "__main__":
    sys.exit(main())
