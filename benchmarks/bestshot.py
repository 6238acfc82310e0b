"""Does the cascade pick what scoring every face would have picked, and what does it cost? (docs/design.md 4.5)

    python benchmarks/bestshot.py [VIDEOS] [--curve] [--clips NAME...] [--config NAME key=value...]

The yardstick, every face of every frame scored, is made once a clip and kept in the --work folder under clip, weights
and configuration; after that a further configuration costs only its own run. What runs of the same code gave is kept
as well. The preset is always tried first and marked. --curve adds the configurations of cascade.toml, --configs FILE
those of another TOML file. Writes its section of benchmarks/RESULTS.md, and a plot. What is missing (a clip, the
weights, a peer) is named, and the rest runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yardstick
from bestshot_report import report
from cascade import kept_file, read
from charts import draw_regret
from common import REPOSITORY, RESULTS, SHARED, Machine, child, command_line, find_clips, say, write_section
from regret import judge
from tried import Setup, Tried, exhaustive
from yardstick import Yardstick

from streamgate.config import load_config
from streamgate.defaults import DEFAULT_MODELS
from streamgate.errors import StreamgateError

HERE = Path(__file__).resolve().parent
WORK = REPOSITORY / "benchmarks" / "work"


def main() -> int:
    given = _arguments()
    machine = Machine.here()
    setups = [Setup("default", (), given.models), *_setups(given)]
    clips, notes = find_clips(given.videos, given.clips)
    facts, problem = child("contestants.py", "describe", "--models", given.models)
    if facts is None:
        notes.append(f"nothing was measured, the gate does not open here: {problem}")
        clips = []
    peers = given.peers if given.peers.is_dir() else None
    yardsticks, problems = _yardsticks(clips, facts, given, peers)
    notes += problems
    clips = [clip for clip in clips if clip.stem in yardsticks]
    tried = _try_all(setups, clips, facts, yardsticks, given) if clips else []
    notes += [f"{one.setup.name}: {one.problem}" for one in tried if one.problem]
    tried = [one for one in tried if not one.problem]
    if tried:
        tried.append(exhaustive(yardsticks, tried[0].results, given.models))
        plot = given.results.parent / "bestshot.png"
        notes += draw_regret([one.point() for one in tried], plot)
        command = command_line("bestshot.py", sys.argv[1:])
        tables = load_config(given.preset).measures
        weights = {name: tables[name].weight for name in tables.used}
        steadiness, problems = _steadiness(clips, facts, given, peers)
        notes += problems
        body = report(machine, facts, tried, yardsticks, notes, command, plot, weights, steadiness)
    else:
        body = "\n".join(["## Best shots", "", *[f"- left out: {note}" for note in notes]])
    write_section(given.results, "bestshot", body)
    print(body)
    say(f"written to {given.results}")
    if given.pictures and tried:
        from bestshot_pictures import write_pictures

        write_pictures(given.pictures, clips, tried[0], yardsticks)
    return 0 if tried else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", type=Path, nargs="?", default=SHARED / "videos", help="folder of clips")
    parser.add_argument("--clips", nargs="+", metavar="NAME", help="only these (file names, suffix optional)")
    parser.add_argument("--preset", default="studio", help="as of `streamgate run`")
    parser.add_argument("--models", default=DEFAULT_MODELS, help="as of `streamgate run`")
    parser.add_argument(
        "--config", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"),
        help="try this too; may be given several times",
    )  # fmt: skip
    parser.add_argument("--configs", type=Path, help="try the configurations of this TOML file too")
    parser.add_argument("--curve", action="store_true", help="... and those of cascade.toml")
    parser.add_argument("--jobs", type=int, default=1, help="children at once; CPU seconds rise a little with it")
    parser.add_argument("--work", type=Path, default=WORK, help="folder in which yardsticks are kept")
    parser.add_argument(
        "--keep-yardstick", action="store_true",
        help="use kept yardsticks even where the package's code has changed since",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="run configurations again whose figures are kept")
    parser.add_argument("--peers", type=Path, default=SHARED / "weights", help="folder with the peers' weights")
    parser.add_argument("--pictures", type=Path, help="write pick and best face of the worst tracks here, to look at")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    given = parser.parse_args()
    if given.jobs < 1:
        parser.error("--jobs must be at least 1")
    if given.curve:
        given.configs = [HERE / "cascade.toml", *([given.configs] if given.configs else [])]
    else:
        given.configs = [given.configs] if given.configs else []
    return given


def _setups(given: argparse.Namespace) -> list[Setup]:
    """What was asked for besides the preset. Exits with a line for a file or text that is none."""
    found = [Setup(name, tuple(settings), given.models) for name, *settings in given.config]
    for path in given.configs:
        try:
            listed = tomllib.loads(path.read_text(encoding="utf-8"))["config"]
            found += [Setup(one["name"], tuple(one["set"]), one.get("models", given.models)) for one in listed]
        except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
            sys.exit(f"{path}: not a list of [[config]] with name and set ({type(error).__name__}: {error})")
    return found


def _yardsticks(
    clips: Sequence[Path], facts: dict[str, Any] | None, given: argparse.Namespace, peers: Path | None
) -> tuple[dict[str, Yardstick], list[str]]:
    """A yardstick a clip by name, kept or made now, and a note for each clip that has none."""
    if facts is None or not clips:
        return {}, []
    config = load_config(given.preset).model_dump(mode="json")
    code = yardstick.code_digest()
    found: dict[str, Yardstick] = {}
    notes: list[str] = []

    def get(clip: Path) -> None:
        file = _yardstick_file(clip, config, facts, given, peers)
        kept = yardstick.load(file) if file.is_file() else None
        if kept is not None and (kept.code == code or given.keep_yardstick):
            found[clip.stem] = kept
            return
        options = ["--preset", given.preset, "--models", given.models]
        made, problem = child(
            "yardstick.py", str(clip), str(file), *options, *(["--peers", str(peers)] if peers else [])
        )
        if made is None:
            notes.append(f"{clip.stem}: {problem}")
            return
        found[clip.stem] = yardstick.load(file)
        say(f"yardstick of {clip.stem}: {made['faces']} faces in {made['tracks']} tracks, CPU {made['cpu']:.1f} s")

    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(get, clips))
    older = sorted(name for name, one in found.items() if one.code != code)
    if older:
        notes.append(f"yardsticks kept from an earlier state of the code: {', '.join(older)}")
    notes += sorted({line for one in found.values() for line in one.absent})
    return found, notes


def _yardstick_file(
    clip: Path, config: dict[str, Any], facts: dict[str, Any], given: argparse.Namespace, peers: Path | None
) -> Path:
    return given.work / f"{clip.stem}-{yardstick.cache_key(clip, config, facts['weights'], peers)}.json.gz"


def _steadiness(
    clips: Sequence[Path], facts: dict[str, Any], given: argparse.Namespace, peers: Path | None
) -> tuple[dict[str, dict[str, list[float]]], list[str]]:
    """What `steadiness.py` prints, by clip, kept beside the yardsticks; and notes on clips where it failed."""
    config = load_config(given.preset).model_dump(mode="json")

    def ask(clip: Path) -> tuple[str, dict[str, list[float]] | None, str]:
        stick = _yardstick_file(clip, config, facts, given, peers)
        file = stick.with_name(stick.name.replace(".json.gz", ".steadiness.json"))
        if file.is_file() and file.stat().st_mtime >= stick.stat().st_mtime:
            return clip.stem, json.loads(file.read_text(encoding="utf-8")), ""
        options = ["--preset", given.preset, "--models", given.models]
        found, problem = child("steadiness.py", str(stick), str(clip), *options)
        if found is not None:
            _keep(file, found)
        return clip.stem, found, problem

    with ThreadPoolExecutor(given.jobs) as pool:
        answers = list(pool.map(ask, clips))
    return {name: found for name, found, _ in answers if found}, [
        f"steadiness of {name}: {problem}" for name, found, problem in answers if found is None
    ]


def _keep(file: Path, printed: Any) -> None:
    """In one step or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{os.getpid()}.{file.name}")
    temporary.write_text(json.dumps(printed), encoding="utf-8")
    os.replace(temporary, file)


def _try_all(
    setups: Sequence[Setup],
    clips: Sequence[Path],
    facts: dict[str, Any],
    yardsticks: dict[str, Yardstick],
    given: argparse.Namespace,
) -> list[Tried]:
    smoothing = load_config(given.preset).smoothing

    def attempt(setup: Setup) -> Tried:
        printed, problem, kept = _cascade(setup, clips, facts, given)
        if printed is None:
            return Tried(setup, problem=problem)
        tried = Tried(setup, read(printed), kept=kept)
        for one in tried.passed:
            tracks = yardsticks[one.clip].tracks
            tried.results[one.clip], tried.strays[one.clip] = judge(
                tracks, one.picks, smoothing.short_s, smoothing.long_s
            )
        say(f"{setup.name}: {tried.summary()}")
        return tried

    with ThreadPoolExecutor(given.jobs) as pool:
        return list(pool.map(attempt, setups))


def _cascade(
    setup: Setup, clips: Sequence[Path], facts: dict[str, Any], given: argparse.Namespace
) -> tuple[Any, str, bool]:
    """What `cascade.py` prints for a configuration, or None and why not; and whether it was kept from before."""
    weights = facts["weights"]
    if setup.models != given.models:
        others, problem = child("contestants.py", "describe", "--models", setup.models)
        if others is None:
            return None, problem, False
        weights = others["weights"]
    try:
        file = kept_file(given.work, clips, given.preset, weights, setup.settings)
    except StreamgateError as error:
        return None, str(error), False
    if file.is_file() and not given.fresh:
        return json.loads(file.read_text(encoding="utf-8")), "", True
    settings = [part for one in setup.settings for part in ("--set", one)]
    options = ["--preset", given.preset, "--models", setup.models, *settings]
    printed, problem = child("cascade.py", *(str(clip) for clip in clips), *options)
    if printed is not None:
        _keep(file, printed)
    return printed, problem, False


if __name__ == "__main__":
    sys.exit(main())
