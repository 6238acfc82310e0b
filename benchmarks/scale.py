"""How do cost and memory grow with video length, faces per frame, frame size, and files read at once?

    python benchmarks/scale.py [VIDEOS] [--quick] [--only length faces size files]

- length: one clip, repeated for up to 60 minutes; memory is measured over time; minute 60 is compared with minute 5.
- faces: 1 to 16 real clips as tiles of one 1080p video.
- size: one clip at 360 to 2160 lines.
- files: 1 to 8 files at once (`--jobs`).
For each value, the script reports the CPU time per second of video, the CPU time of decoding alone, and peak memory.
--quick uses seconds instead of minutes, to test the script. The script writes its section of benchmarks/RESULTS.md. If
a clip cannot be made or run, the section says so and contains the other results.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common import Machine, arguments, find_clips, heading, publish, say, table, target
from processes import child, describe, gate_options

LONG_CLIP = "fsgan_conan"
TILE_CLIPS = (
    "liveportrait_s18", "vretalk_1", "fsgan_conan", "liveportrait_d6", "liveportrait_d3", "lipnet_grid_bbaf2n",
    "liveportrait_d20", "ghost_nggyup",
)  # fmt: skip
"""Clips with one large face each. Tiles show them in turn, each time starting later, so that no two are identical."""
MEMORY_LIMIT, GROWTH_LIMIT = 700.0, 20.0
"""docs/design.md 9: upper limits of peak memory, and of its growth from minute 5 to minute 60, in MiB."""
QUESTIONS = {
    "length": ("length", "minutes"),
    "faces": ("faces per frame", "faces"),
    "size": ("frame size", "lines"),
    "files": ("files at once", "files"),
}
"""Title and unit of each question."""
SMALL_FACES = ("measures.size.min=0.025", "advanced.max_long_side=1280")
"""A quarter of the default minimum size, so that the small faces of many tiles can pass the gate."""


@dataclass(frozen=True, slots=True)
class Amount:
    """The values that are measured. `seconds` is the length of the clips for all questions except "length"."""

    values: dict[str, tuple[float, ...]]
    early_s: float
    seconds: float


FULL = Amount(
    {"length": (1, 5, 15, 30, 60), "faces": (1, 4, 9, 16), "size": (360, 720, 1080, 2160), "files": (1, 2, 4, 8)},
    300.0, 30.0,
)  # fmt: skip
QUICK = Amount({"length": (0.05, 0.1), "faces": (1, 4), "size": (180, 360), "files": (1, 2)}, 2.0, 2.0)


@dataclass(frozen=True, slots=True)
class Run:
    """One pass: CPU and wall time in seconds; `memory` has pairs of video time (s) and resident memory (MiB)."""

    seconds: float
    cpu: float
    decode_cpu: float
    wall: float
    peak_mib: float
    tracks: int
    kept: int
    memory: list[tuple[float, float]]

    def row(self, value: float) -> list[str]:
        cost, decoding = 1000 * self.cpu / self.seconds, 1000 * self.decode_cpu / self.seconds
        return [
            f"{value:g}", f"{self.seconds:.0f}", f"{cost:.1f}", f"{decoding:.1f}", f"{cost - decoding:.1f}",
            f"{self.seconds / max(self.wall, 1e-9):.1f}", f"{self.peak_mib:.0f}", str(self.tracks), str(self.kept),
        ]  # fmt: skip


Runs = list[tuple[float, Run]]
"""The varied value, and the pass with it."""


def main() -> int:
    parser = arguments(__doc__, gate=True)
    parser.add_argument("--quick", action="store_true", help="test the script with seconds instead of minutes")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), help="only these questions")
    given = parser.parse_args()
    machine = Machine.here()
    amount = QUICK if given.quick else FULL
    clips, notes = find_clips(given.videos, None)
    facts, problem = describe(given.models)
    answers: dict[str, Runs] = {}
    if facts is None:
        notes.append(problem)
    elif clips:
        by_name = {clip.stem: clip for clip in clips}
        if LONG_CLIP not in by_name:
            notes.append(f"{LONG_CLIP}: not in {given.videos.name}; {clips[0].stem} takes its place")
        one = by_name.get(LONG_CLIP, clips[0])
        tiles = [by_name[name] for name in TILE_CLIPS if name in by_name] or [one]
        for name in given.only:
            answers[name] = list(_passes(name, tiles if name == "faces" else [one], amount, given, notes))
    answers = {name: runs for name, runs in answers.items() if runs}
    lines = heading("Scale", machine, facts, notes)
    if given.quick:
        lines.insert(1, "\n**This is no measurement: --quick only tests the script, with seconds instead of minutes.**")
    if answers:
        lines.append(
            "- core-ms/s is the CPU time per second of video of all files together, without start-up; one process "
            "reads all files"
        )
    for name, runs in answers.items():
        title, unit = QUESTIONS[name]
        head = [unit, "video s", "core-ms/s", "decoding alone", "beyond decoding", "x real time", "peak MiB",
                "tracks", "kept"]  # fmt: skip
        lines += ["", f"### {title.capitalize()}", "", table(head, [run.row(value) for value, run in runs])]
    publish(given.results, "scale", [*lines, "", *_targets(answers, amount)])
    return 0 if answers else 1


def _passes(
    name: str, clips: list[Path], amount: Amount, given: argparse.Namespace, notes: list[str]
) -> Iterator[tuple[float, Run]]:
    """Make the clip for each value of a question, and run it."""
    for value in amount.values[name]:
        what = f"{value:g} {QUESTIONS[name][1]}"
        with tempfile.TemporaryDirectory(prefix="streamgate-scale-") as folder:
            path = str(Path(folder) / "tiles.mp4")
            if name in ("length", "files"):
                seconds = 60 * value if name == "length" else amount.seconds
                made, problem = child("clips.py", "loop", str(clips[0]), str(seconds), folder)
                path = made["path"] if made else ""
            else:
                count, lines = (value, 1080) if name == "faces" else (1, value)
                sizes = [str(round(one)) for one in (count, amount.seconds, 2 * round(lines * 8 / 9), lines)]
                made, problem = child("clips.py", "tile", path, *sizes, *map(str, clips))
            if made is not None:
                options = gate_options(given, *(SMALL_FACES if name == "faces" else ()))
                copies = [path] * (round(value) if name == "files" else 1)
                found, problem = child("passing.py", *copies, *options, limit_s=4 * 3600.0)
                if found is not None:
                    run = Run(**found)
                    say(f"{what}: {1000 * run.cpu / run.seconds:.0f} core-ms/s, peak {run.peak_mib:.0f} MiB")
                    yield value, run
                    continue
            notes.append(f"{what}: {problem}")


def _targets(answers: dict[str, Runs], amount: Amount) -> list[str]:
    lines = []
    for name, runs in answers.items():
        memory = runs[-1][1].memory
        early = [mib for at, mib in memory if at <= amount.early_s]
        if name == "length" and early and memory[-1][0] > amount.early_s:
            growth = memory[-1][1] - early[-1]
            minutes = f"from minute {amount.early_s / 60:.1f} to minute {memory[-1][0] / 60:.1f} of the video"
            what = f"memory growth {minutes}"
            lines.append(target(what, f"{growth:.1f} MiB", f"at most {GROWTH_LIMIT:g} MiB", growth <= GROWTH_LIMIT))
        peak = max(run.peak_mib for _, run in runs)
        what = f'peak memory in the test "{QUESTIONS[name][0]}"'
        lines.append(target(what, f"{peak:.0f} MiB", f"below {MEMORY_LIMIT:g}", peak < MEMORY_LIMIT))
    return lines


if __name__ == "__main__":
    sys.exit(main())
