"""What does leaving frames undecoded save, and whom does it miss?

    python benchmarks/decoding.py [VIDEOS] [--clips NAME...] [--preset archive] [--visits 8]

Runs the preset with each way of decoding over the clips and compares cost and picks; then over a long shot of real
footage without faces into which a person's face comes for a few seconds at a time, counting who is found. Writes its
section of benchmarks/RESULTS.md. What is missing is named, and the rest runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cascade import Passed, read
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

WAYS = {
    "all frames": ("decoding.discard=none", "decoding.max_skip_s=0"),
    "discard empty": ("decoding.discard=empty", "decoding.max_skip_s=0"),
    "discard steady": ("decoding.discard=steady", "decoding.max_skip_s=0"),
    "leaps of 2.5 s": ("decoding.discard=steady", "decoding.max_skip_s=2.5"),
    "leaps of 5 s": ("decoding.discard=steady", "decoding.max_skip_s=5"),
    "leaps of 10 s": ("decoding.discard=steady", "decoding.max_skip_s=10"),
}
FACELESS = frozenset({"intel_bottle", "moviepy_bbb"})
GOAL = 0.7
STAGE, VISITOR = "intel_bottle.mp4", "liveportrait_d6.mp4"
STAYS = (1.0, 2.0, 4.0, 8.0)
"""Seconds that a visitor is to be seen."""


def main() -> int:
    given = _arguments()
    machine = Machine.here()
    clips, notes = find_clips(given.videos, given.clips)
    facts, problem = child("contestants.py", "describe", "--models", given.models)
    if facts is None:
        notes.append(f"nothing was measured, the gate does not open here: {problem}")
    lines = ["## Decoding", "", f"`{command_line('decoding.py', sys.argv[1:])}`", "", *machine.lines()]
    lines += weights_facts(facts) if facts else []
    parts: list[str] = []
    if facts is not None:
        ran = _run(clips, given, notes)
        parts += _costs(ran) if ran else []
        with tempfile.TemporaryDirectory(prefix="streamgate-decoding-") as folder:
            parts += _visits(Path(folder), given, notes)
    lines += [f"- left out: {note}" for note in notes]
    body = "\n".join([*lines, *parts])
    write_section(given.results, "decoding", body)
    print(body)
    say(f"written to {given.results}")
    return 0 if parts else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", type=Path, nargs="?", default=SHARED / "videos", help="folder of clips")
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="only these (file names, suffix optional)")
    parser.add_argument("--preset", default="archive", help="as of `streamgate run`")
    parser.add_argument("--models", default=DEFAULT_MODELS, help="as of `streamgate run`")
    parser.add_argument("--visits", type=int, default=8, help="visits of each length, 0: leave that part out")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    return parser.parse_args()


def _run(clips: Sequence[Path], given: argparse.Namespace, notes: list[str]) -> dict[str, list[Passed]]:
    """What each way gave, clip by clip."""
    found: dict[str, list[Passed]] = {}
    for way, settings in WAYS.items() if clips else ():
        options = [part for one in settings for part in ("--set", one)]
        printed, problem = child(
            "cascade.py", *map(str, clips), "--preset", given.preset, "--models", given.models, *options
        )
        if printed is None:
            notes.append(f"{way}: {problem}")
            continue
        found[way] = read(printed)
        say(f"{way}: CPU {sum(one.cpu for one in found[way]):.1f} s")
    return found


def _costs(ran: dict[str, list[Passed]]) -> list[str]:
    ways = list(ran)
    first = ran[ways[0]]
    # Decoding alone was timed once beside each way.
    alone = {
        one.clip: statistics.median(passed.decode_cpu for way in ways for passed in ran[way] if passed.clip == one.clip)
        for one in first
    }
    rows = []
    for index, one in enumerate(first):
        row = [one.clip, f"{1000 * alone[one.clip] / one.seconds:.1f}"]
        for way in ways:
            passed = ran[way][index]
            kept = len(passed.picks)
            row.append(f"{passed.frames}: {passed.cpu / alone[one.clip]:.2f} ({len(passed.ended)}, {kept})")
        rows.append(row)
    lines = [
        "",
        "### Cost",
        "",
        "Frames decoded: CPU time of the run over that of decoding every frame (tracks, of which so many keep a face). "
        "Regret and recall of these settings: the section on best shots.",
        "",
        table(["clip", "decoding, core-ms a second", *ways], rows),
        "",
    ]
    last = ran[ways[-1]]
    ratios = [one.cpu / alone[one.clip] for one in last if one.clip in FACELESS]
    if ratios:
        figure = ", ".join(f"{one:.2f}" for one in ratios)
        met = max(ratios) < GOAL
        lines.append(target(f"faceless clips, {ways[-1]}, CPU over full decoding", figure, f"below {GOAL}", met))
    return lines


def _visits(folder: Path, given: argparse.Namespace, notes: list[str]) -> list[str]:
    """Who is found that comes into a shot without faces for a while."""
    if given.visits <= 0:
        return []
    sources = [given.videos / name for name in (STAGE, VISITOR)]
    missing = [path.name for path in sources if not path.is_file()]
    if missing:
        notes.append(f"visits: {', '.join(missing)}: not in {given.videos.name}")
        return []
    clip = folder / "visits.mp4"
    made, problem = child("visits.py", *map(str, sources), str(clip), str(given.visits), *map(str, STAYS))
    if made is None:
        notes.append(f"visits: {problem}")
        return []
    say(f"visits: {made['seconds']:.0f} s of video, key frames every {made['key_s']:.1f} s")
    ran = _run([clip], given, notes)
    rows = [_visits_row(way, passed, made["visits"]) for way, (passed,) in ran.items()]
    head = ["decoding", "frames", "CPU s", "x full decoding", *(f"{stay:g} s" for stay in STAYS)]
    return [
        "",
        "### Short visits",
        "",
        f"A face of {made['face_px']} pixels comes into {Path(STAGE).stem}, in one continuous shot of "
        f"{made['seconds']:.0f} s with a key frame every {made['key_s']:.1f} s (x264's defaults), {given.visits} times "
        "for each of some stays. Share of the visits during which a face was kept, by the length of the stay:",
        "",
        table(head, rows),
    ]


def _visits_row(way: str, passed: Passed, visits: Sequence[Sequence[float]]) -> list[str]:
    row = [way, str(passed.frames), f"{passed.cpu:.1f}", f"{passed.cpu / passed.decode_cpu:.2f}"]
    for stay in STAYS:
        spans = [(start, until) for start, until, length in visits if length == stay]
        found = sum(any(start <= pick.pts <= until for pick in passed.picks) for start, until in spans)
        row.append(f"{100 * found / len(spans):.0f} %")
    return row


if __name__ == "__main__":
    sys.exit(main())
