"""Where does the time of a run go? CPU time by stage, a few clips looped.

    python benchmarks/profile.py [VIDEOS] [--clips NAME...] [--seconds 30] [--set key=value]

Core-ms a second of video for decoding, each step of following and choosing, each network, writing (see `stages.py`).
CPU time bears a busy machine better than wall time does. Writes its section of benchmarks/RESULTS.md, and a plot.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from charts import draw_stages
from common import (
    RESULTS,
    SHARED,
    Machine,
    child,
    command_line,
    find_clips,
    say,
    table,
    weights_facts,
    write_section,
)
from stages import ORDER, Profile

from streamgate.defaults import DEFAULT_MODELS

CLIPS = (
    "fsgan_conan", "liveportrait_s18", "ghost_nggyup", "facenetpt_video", "dawoon_faces1", "vretalk_1",
    "lipnet_grid_bbaf2n", "intel_bottle",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Profiled:
    """A clip's profile, and the CPU seconds of the same run without hooks."""

    clip: str
    profile: Profile
    plain_cpu: float

    def shares(self) -> dict[str, float]:
        """Core-ms a second of video by stage."""
        return {stage: 1000 * spent / self.profile.seconds for stage, spent in self.profile.stages.items()}

    @property
    def overhead(self) -> float:
        """What the hooks added, per cent."""
        return 100 * (self.profile.cpu / self.plain_cpu - 1)


def main() -> int:
    given = _arguments()
    machine = Machine.here()
    clips, notes = find_clips(given.videos, given.clips or CLIPS)
    facts, problem = child("contestants.py", "describe", "--models", given.models)
    found: list[Profiled] = []
    if facts is None:
        notes.append(f"nothing was measured, the gate does not open here: {problem}")
    else:
        with tempfile.TemporaryDirectory(prefix="streamgate-profile-") as folder:
            for clip in clips:
                one, problem = _profile(clip, given, folder)
                if one is None:
                    notes.append(f"{clip.stem}: {problem}")
                else:
                    found.append(one)
                    say(f"{clip.stem}: {sum(one.shares().values()):.0f} core-ms a second of video")
    plot = given.results.parent / "profile.png"
    if found:
        notes += draw_stages({one.clip: one.shares() for one in found}, ORDER, plot)
    lines = ["## Profile", ""]
    if found and facts is not None:
        lines += [
            f"`{command_line('profile.py', sys.argv[1:])}`", "", *machine.lines(), *weights_facts(facts),
            f"- clips looped to at least {given.seconds:g} s; core-ms a second of video, start-up apart; the hooks "
            f"added {min(one.overhead for one in found):.0f} to {max(one.overhead for one in found):.0f} % CPU",
        ]  # fmt: skip
    lines += [f"- left out: {note}" for note in notes]
    if found:
        lines += ["", _stages_table(found), "", "Calls a second of video:", "", _calls_table(found)]
        if plot.is_file():
            lines += ["", f"![Core-ms a second of video by stage]({plot.name})"]
    body = "\n".join(lines)
    write_section(given.results, "profile", body)
    print(body)
    say(f"written to {given.results}")
    return 0 if found else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", type=Path, nargs="?", default=SHARED / "videos", help="folder of clips")
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="these instead of a few of every kind")
    parser.add_argument("--seconds", type=float, default=30.0, help="clips are looped to at least this long")
    parser.add_argument("--preset", default="studio", help="as of `streamgate run`")
    parser.add_argument("--models", default=DEFAULT_MODELS, help="as of `streamgate run`")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    given = parser.parse_args()
    if given.seconds <= 0:
        parser.error("--seconds must be above 0")
    return given


def _profile(clip: Path, given: argparse.Namespace, folder: str) -> tuple[Profiled | None, str]:
    looped, problem = child("looping.py", str(clip), str(given.seconds), folder)
    if looped is None:
        return None, problem
    path = looped["path"]
    options = ["--preset", given.preset, "--models", given.models]
    options += [part for one in given.settings for part in ("--set", one)]
    try:
        plain, problem = child("stages.py", path, *options, "--plain")
        if plain is None:
            return None, problem
        printed, problem = child("stages.py", path, *options)
        if printed is None:
            return None, problem
    finally:
        Path(path).unlink(missing_ok=True)
    return Profiled(clip.stem, Profile(**printed), plain["cpu"]), ""


def _stages_table(found: Sequence[Profiled]) -> str:
    rows = []
    for stage in ORDER:
        shares = [one.shares().get(stage, 0.0) for one in found]
        rows.append([stage, *(f"{share:.1f}" for share in shares)])
    rows.append(["**together**", *(f"**{sum(one.shares().values()):.1f}**" for one in found)])
    return table(["stage", *(one.clip for one in found)], rows)


def _calls_table(found: Sequence[Profiled]) -> str:
    stages = [stage for stage in ORDER if any(stage in one.profile.calls for one in found)]
    rows = [
        [stage, *(f"{one.profile.calls.get(stage, 0) / one.profile.seconds:.1f}" for one in found)] for stage in stages
    ]
    return table(["stage", *(one.clip for one in found)], rows)


if __name__ == "__main__":
    sys.exit(main())
