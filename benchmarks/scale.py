"""How do cost and memory grow: with length, faces in the picture, size of the picture, files at once?

    python benchmarks/scale.py [VIDEOS] [--quick] [--only length faces size files]

- length: one clip looped to 60 minutes; memory at every minute, minute 60 against minute 5.
- faces: 1 to 16 tiles of real clips in one 1080p picture.
- size: one clip at 360 to 2160 lines.
- files: 1 to 8 files at once (`--jobs`).
CPU seconds a second of video, those of decoding alone beside them, peak memory. --quick goes through all of it with
seconds instead of minutes: a test of the script, not a measurement. Writes its section of benchmarks/RESULTS.md, and
a plot. What cannot be made or run is named, and the rest runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charts import draw_lines
from common import (
    RESULTS,
    SHARED,
    Machine,
    child,
    command_line,
    find_clips,
    say,
    table,
    target,
    weights_facts,
    write_section,
)

from streamgate.defaults import DEFAULT_MODELS

LONG_CLIP = "fsgan_conan"
TILE_CLIPS = (
    "liveportrait_s18", "vretalk_1", "fsgan_conan", "liveportrait_d6", "liveportrait_d3", "lipnet_grid_bbaf2n",
    "liveportrait_d20", "ghost_nggyup",
)  # fmt: skip
"""Clips of one large face; tiles take them in turn, each time a little later, so that no two are alike."""
MEMORY_LIMIT, GROWTH_LIMIT = 700.0, 20.0
"""docs/design.md 9: MiB at most; minute 60 minus minute 5."""
QUESTIONS = ("length", "faces", "size", "files")


@dataclass(frozen=True, slots=True)
class Amount:
    """How much of everything is tried."""

    minutes: tuple[float, ...]
    early_s: float
    tiles: tuple[int, ...]
    lines: tuple[int, ...]
    files: tuple[int, ...]
    seconds: float
    """Length of the clips for all but the first question."""


FULL = Amount((1, 5, 15, 30, 60), 300.0, (1, 4, 9, 16), (360, 720, 1080, 2160), (1, 2, 4, 8), 30.0)
QUICK = Amount((0.05, 0.1), 2.0, (1, 4), (180, 360), (1, 2), 2.0)


@dataclass(frozen=True, slots=True)
class Run:
    """One pass: per second of video, in core-ms; `memory` (video seconds, MiB) as it went on."""

    seconds: float
    frames: int
    cpu: float
    decode_cpu: float
    wall: float
    peak_mib: float
    tracks: int
    kept: int
    memory: tuple[tuple[float, float], ...] = ()

    @property
    def cost(self) -> float:
        return 1000 * self.cpu / self.seconds

    @property
    def decoding(self) -> float:
        return 1000 * self.decode_cpu / self.seconds


@dataclass(slots=True)
class Answer:
    """Rows of a question: what was varied, and the pass."""

    title: str
    unit: str
    runs: list[tuple[float, Run]] = field(default_factory=list)


def main() -> int:
    given = _arguments()
    machine = Machine.here()
    amount = QUICK if given.quick else FULL
    clips, notes = find_clips(given.videos, None)
    by_name = {clip.stem: clip for clip in clips}
    facts, problem = child("contestants.py", "describe", "--models", given.models)
    answers: dict[str, Answer] = {}
    if facts is None:
        notes.append(f"nothing was measured, the gate does not open here: {problem}")
    elif clips:
        if LONG_CLIP not in by_name:
            notes.append(f"{LONG_CLIP}: not in {given.videos.name}; {clips[0].stem} takes its place")
        main_clip = by_name.get(LONG_CLIP, clips[0])
        tiles = [by_name[name] for name in TILE_CLIPS if name in by_name] or [main_clip]
        asked: dict[str, Callable[[], Answer]] = {
            "length": lambda: _length(main_clip, amount, given, notes),
            "faces": lambda: _faces(tiles, amount, given, notes),
            "size": lambda: _size(main_clip, amount, given, notes),
            "files": lambda: _files(main_clip, amount, given, notes),
        }
        for name in given.only:
            answers[name] = asked[name]()
    answers = {name: answer for name, answer in answers.items() if answer.runs}
    plot = given.results.parent / "scale.png"
    if answers:
        notes += _draw(answers, plot)
    body = "\n".join(_report(machine, facts, answers, amount, notes, given, plot))
    write_section(given.results, "scale", body)
    print(body)
    say(f"written to {given.results}")
    return 0 if answers else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", type=Path, nargs="?", default=SHARED / "videos", help="folder of clips")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: a test of the script")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), help="only these questions")
    parser.add_argument("--preset", default="studio", help="as of `streamgate run`")
    parser.add_argument("--models", default=DEFAULT_MODELS, help="as of `streamgate run`")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    return parser.parse_args()


def _length(clip: Path, amount: Amount, given: argparse.Namespace, notes: list[str]) -> Answer:
    """One clip, longer and longer."""
    answer = Answer("length", "minutes")
    for minutes in amount.minutes:
        with tempfile.TemporaryDirectory(prefix="streamgate-scale-") as folder:
            looped, problem = child("looping.py", str(clip), str(60 * minutes), folder)
            if looped is None:
                notes.append(f"{minutes:g} minutes: {problem}")
                continue
            _add(answer, minutes, [looped["path"]], given, notes)
    return answer


def _faces(clips: Sequence[Path], amount: Amount, given: argparse.Namespace, notes: list[str]) -> Answer:
    """More and more faces in a picture of one size; a quarter of the gate's usual size lets the small ones pass."""
    answer = Answer("faces a frame", "faces")
    for count in amount.tiles:
        with tempfile.TemporaryDirectory(prefix="streamgate-scale-") as folder:
            path = str(Path(folder) / f"tiles{count}.mp4")
            made, problem = child(
                "tiling.py", path, str(count), str(amount.seconds), "1920", "1080", *(str(clip) for clip in clips)
            )
            if made is None:
                notes.append(f"{count} faces: {problem}")
                continue
            _add(answer, count, [path], given, notes, "measures.size.min=0.025", "advanced.max_long_side=1280")
    return answer


def _size(clip: Path, amount: Amount, given: argparse.Namespace, notes: list[str]) -> Answer:
    """One clip with more and more lines."""
    answer = Answer("size of the picture", "lines")
    for lines in amount.lines:
        with tempfile.TemporaryDirectory(prefix="streamgate-scale-") as folder:
            path = str(Path(folder) / f"lines{lines}.mp4")
            width = 2 * round(lines * 16 / 9 / 2)
            made, problem = child("tiling.py", path, "1", str(amount.seconds), str(width), str(lines), str(clip))
            if made is None:
                notes.append(f"{lines} lines: {problem}")
                continue
            _add(answer, lines, [path], given, notes)
    return answer


def _files(clip: Path, amount: Amount, given: argparse.Namespace, notes: list[str]) -> Answer:
    """More and more copies of one clip at once."""
    answer = Answer("files at once", "files")
    with tempfile.TemporaryDirectory(prefix="streamgate-scale-") as folder:
        looped, problem = child("looping.py", str(clip), str(amount.seconds), folder)
        if looped is None:
            notes.append(f"files at once: {problem}")
            return answer
        for count in amount.files:
            _add(answer, count, [looped["path"]] * count, given, notes)
    return answer


def _add(
    answer: Answer, value: float, paths: Sequence[str], given: argparse.Namespace, notes: list[str], *settings: str
) -> None:
    options = ["--preset", given.preset, "--models", given.models]
    options += [part for one in (*settings, *given.settings) for part in ("--set", one)]
    found, problem = child("passing.py", *paths, *options, limit_s=4 * 3600.0)
    if found is None:
        notes.append(f"{value:g} {answer.unit}: {problem}")
        return
    run = Run(**{**found, "memory": tuple(tuple(pair) for pair in found["memory"])})
    answer.runs.append((value, run))
    say(f"{value:g} {answer.unit}: {run.cost:.0f} core-ms a second of video, peak {run.peak_mib:.0f} MiB")


def _report(
    machine: Machine,
    facts: dict[str, Any] | None,
    answers: dict[str, Answer],
    amount: Amount,
    notes: Sequence[str],
    given: argparse.Namespace,
    plot: Path,
) -> list[str]:
    lines = ["## Scale", ""]
    if given.quick:
        lines += ["**A quick pass, to see that the script works: seconds instead of minutes, no measurement.**", ""]
    if answers and facts is not None:
        lines += [
            f"`{command_line('scale.py', sys.argv[1:])}`", "", *machine.lines(), *weights_facts(facts),
            "- core-ms a second of video (of all files together), start-up apart; several files share one process",
        ]  # fmt: skip
    lines += [f"- left out: {note}" for note in notes]
    for answer in answers.values():
        head = [
            answer.unit, "video s", "core-ms/s", "of that decoding", "beyond decoding", "x real time", "peak MiB",
            "tracks", "kept",
        ]  # fmt: skip
        rows = [
            [
                f"{value:g}", f"{run.seconds:.0f}", f"{run.cost:.1f}", f"{run.decoding:.1f}",
                f"{run.cost - run.decoding:.1f}", f"{run.seconds / max(run.wall, 1e-9):.1f}", f"{run.peak_mib:.0f}",
                str(run.tracks), str(run.kept),
            ]
            for value, run in answer.runs
        ]  # fmt: skip
        lines += ["", f"### {answer.title.capitalize()}", "", table(head, rows)]
    lines += ["", *_targets(answers, amount)]
    if answers and plot.is_file():
        lines += ["", f"![How cost and memory grow]({plot.name})"]
    return lines


def _targets(answers: dict[str, Answer], amount: Amount) -> list[str]:
    lines = []
    if "length" in answers:
        _, run = answers["length"].runs[-1]
        early = [mib for at, mib in run.memory if at <= amount.early_s]
        late = [mib for _, mib in run.memory][-1:]
        if early and late and run.memory[-1][0] > amount.early_s:
            growth = late[0] - early[-1]
            lines.append(
                target(
                    f"memory at {run.memory[-1][0] / 60:.1f} minutes minus that at {amount.early_s / 60:.1f}",
                    f"{growth:.1f} MiB", f"at most {GROWTH_LIMIT:g} MiB", growth <= GROWTH_LIMIT,
                )
            )  # fmt: skip
    for answer in answers.values():
        peak = max(run.peak_mib for _, run in answer.runs)
        lines.append(
            target(f"peak memory, {answer.title}", f"{peak:.0f} MiB", f"below {MEMORY_LIMIT:g}", peak < MEMORY_LIMIT)
        )
    return lines


def _draw(answers: dict[str, Answer], plot: Path) -> list[str]:
    panels = []
    for answer in answers.values():
        panels.append(
            (
                f"Cost by {answer.title}", answer.unit, "core-ms a second of video",
                {
                    "run": [(value, run.cost) for value, run in answer.runs],
                    "decoding alone": [(value, run.decoding) for value, run in answer.runs],
                },
            )
        )  # fmt: skip
    if "length" in answers:
        _, run = answers["length"].runs[-1]
        panels.append(
            ("Memory as a long file goes on", "minutes", "MiB", {"RSS": [(at / 60, mib) for at, mib in run.memory]})
        )
    panels.append(
        (
            "Peak memory", "of the largest tried", "MiB",
            {
                answer.title: [(value / answer.runs[-1][0], run.peak_mib) for value, run in answer.runs]
                for answer in answers.values()
            },
        )
    )  # fmt: skip
    return draw_lines(panels, plot)


if __name__ == "__main__":
    sys.exit(main())
