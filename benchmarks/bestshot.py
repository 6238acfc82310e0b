"""Does the cascade pick the faces that exhaustive mode would pick, and what does it cost? (docs/design.md 4.5)

    python benchmarks/bestshot.py [VIDEOS] [--clips NAME...] [--config NAME key=value...] [--work DIR]

The reference is exhaustive mode, which scores every face of every frame. It is compared with the unchanged preset,
with the configurations of --config, and with the picks of exhaustive mode itself. Results per clip are stored in the
--work folder by clip, weights and configuration; they are reused while the code of the package is unchanged (with
--keep, even if it has changed). The script writes its section of benchmarks/RESULTS.md. If a clip or the weights are
missing, the section says so and contains the other results.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from collecting import Collected, digest, kept_file, load
from common import REPOSITORY, Machine, arguments, find_clips, heading, publish, say, table, target
from processes import child, describe, gate_options
from regret import SHOWN_S, Pick, TrackResult, evaluate, value

from streamgate.config import load_config
from streamgate.errors import StreamgateError

MEAN_REGRET, CLIP_REGRET = 1.0, 4.0
MEDIAN_PERCENTILE, LEAST_PERCENTILE = 95.0, 80.0
RECALL = 98.0
"""Targets: upper limits of the mean regret and of the regret of each clip; lower limits of the others."""
WORST = 12
KINDS = ("detector", "detector_mpx", "refine", "pose", "recognizer", "expression", "ifqa")
EXHAUSTIVE = ("exhaustive", ("exhaustive=true",))


@dataclass(frozen=True, slots=True)
class Judged:
    """The results of one configuration on one clip; `strays` are picks that belong to no track of the reference."""

    found: Collected
    results: list[TrackResult]
    strays: list[Pick]


@dataclass(frozen=True, slots=True)
class Tried:
    """A configuration and its results for each clip."""

    name: str
    settings: tuple[str, ...]
    clips: list[Judged]

    @property
    def tracks(self) -> list[TrackResult]:
        return [one for clip in self.clips for one in clip.results]

    def of_picked(self, what: Callable[[TrackResult], float | None]) -> list[float]:
        """A value of each track that has a pick."""
        return [found for one in self.tracks if one.pick is not None and (found := what(one)) is not None]

    @property
    def clip_regrets(self) -> dict[str, float]:
        """Mean regret of each clip that has a pick."""
        found = {one.found.clip: [r.regret for r in one.results if r.regret is not None] for one in self.clips}
        return {name: statistics.fmean(values) for name, values in found.items() if values}

    @property
    def recall(self) -> tuple[int, int]:
        """Of the tracks that count for recall: the number of those with a pick, and the number of all."""
        counted = [one for one in self.tracks if one.counts_for_recall]
        return sum(one.pick is not None for one in counted), len(counted)

    def per_second(self, what: Callable[[Collected], float]) -> float:
        """A value summed over the clips, per second of video."""
        return sum(what(one.found) for one in self.clips) / max(sum(one.found.seconds for one in self.clips), 1e-9)


def main() -> int:
    parser = arguments(__doc__, clips=True, gate=True)
    parser.add_argument(
        "--config", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"),
        help="also measure this configuration; repeatable",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, choices=range(1, 65), default=1, metavar="N", help="clips run at once")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "benchmarks" / "work", help="folder for the results")
    parser.add_argument("--keep", action="store_true", help="reuse results even if the package's code has changed")
    given = parser.parse_args()
    machine = Machine.here()
    clips, notes = find_clips(given.videos, given.clips)
    facts, problem = describe(given.models)
    tried: list[Tried] = []
    if facts is None:
        notes.append(problem)
    elif clips:
        reference, kept = _collect(EXHAUSTIVE, clips, facts, given, notes)
        clips = [clip for clip in clips if clip.stem in reference]
        smoothing = load_config(given.preset).smoothing
        more = [(name, tuple(settings)) for name, *settings in given.config]
        for setup in (("default", ()), *more, EXHAUSTIVE):
            found, again = (reference, 0) if setup is EXHAUSTIVE else _collect(setup, clips, facts, given, notes)
            kept += again
            judged = [
                Judged(one, *evaluate(reference[name].tracks, one.picks, smoothing.short_s, smoothing.long_s))
                for name, one in found.items()
            ]
            if judged:
                tried.append(Tried(*setup, judged))
        notes += [f"{kept} results were reused from earlier runs"] if kept else []
    lines = heading("Best shots", machine, facts, notes)
    if tried:
        lines += _report(tried, reference)
    publish(given.results, "bestshot", lines)
    return 0 if tried else 1


def _collect(
    setup: tuple[str, tuple[str, ...]],
    clips: Sequence[Path],
    facts: dict[str, Any],
    given: argparse.Namespace,
    notes: list[str],
) -> tuple[dict[str, Collected], int]:
    """The results of a configuration by clip name, in the order of the clips, and how many of them were reused."""
    name, settings = setup
    try:
        config = load_config(given.preset, [*settings, *given.settings]).model_dump(mode="json")
    except StreamgateError as error:
        notes.append(f"{name}: {error}")
        return {}, 0
    code = digest()

    def one(clip: Path) -> tuple[str, Collected | None, bool]:
        file = kept_file(given.work, clip, config, facts["weights"])
        before = load(file) if file.is_file() else None
        if before is not None and (given.keep or before.code == code):
            return clip.stem, before, True
        made, problem = child("collecting.py", str(clip), str(file), *gate_options(given, *settings))
        if made is None:
            notes.append(f"{clip.stem}, {name}: {problem}")
            return clip.stem, None, False
        say(f"{clip.stem}, {name}: {made['faces']} faces in {made['tracks']} tracks, CPU {made['cpu']:.1f} s")
        return clip.stem, load(file), False

    with ThreadPoolExecutor(given.jobs) as pool:
        found = list(pool.map(one, clips))
    return {stem: got for stem, got, _ in found if got is not None}, sum(kept for *_, kept in found)


def _report(tried: Sequence[Tried], reference: dict[str, Collected]) -> list[str]:
    faces = sum(len(faces) for one in reference.values() for faces in one.tracks.values())
    seconds = sum(one.seconds for one in reference.values())
    return [
        f"- reference: {faces} faces of {len(reference)} clips ({seconds:.0f} s) scored in exhaustive mode",
        "- values are means over tracks, unless stated otherwise",
        "- regret: the highest quality of the passing faces in the reference track, minus the quality of our pick; "
        "both qualities are those of exhaustive mode",
        "- smoothed: the regret in `quality_smoothed`, by which the selection ranks faces",
        "- price of smoothing: the regret of the face with the highest smoothed quality",
        "- percentile: share of the faces of the track that are no better than the pick, in per cent",
        f"- recall: of the tracks that show a passing face for at least {SHOWN_S:g} s, the share that has a pick",
        "- stray picks: picks that belong to no reference track with a passing face",
        "", "### Targets (default)", "", *_targets(tried[0]),
        "", "### Clip by clip (default)", "", _clips(tried[0], reference),
        "", "### Worst picks (default)", "", *_worst(tried[0]),
        "", "### Configurations", "",
        "The columns with the names of networks contain the number of their runs per second of video.", "",
        _configurations(tried),
    ]  # fmt: skip


def _targets(one: Tried) -> list[str]:
    regrets, percentiles = one.clip_regrets, one.of_picked(lambda track: track.percentile)
    if not regrets:
        return ["- no face was picked, so no target can be checked"]
    over_tracks = statistics.fmean(one.of_picked(lambda track: track.regret))
    over_clips = statistics.fmean(regrets.values())
    worst = max(regrets, key=lambda name: regrets[name])
    middle, least = statistics.median(percentiles), min(percentiles)
    found, counted = one.recall
    share = 100 * found / max(1, counted)
    return [
        target("mean regret", f"{over_tracks:.2f} over tracks, {over_clips:.2f} over clips",
               f"at most {MEAN_REGRET:g}", max(over_tracks, over_clips) <= MEAN_REGRET),
        target("regret of the worst clip", f"{regrets[worst]:.2f} ({worst})", f"at most {CLIP_REGRET:g}",
               regrets[worst] <= CLIP_REGRET),
        target("percentile of the pick, median over tracks", f"{middle:.1f}", f"at least {MEDIAN_PERCENTILE:g}",
               middle >= MEDIAN_PERCENTILE),
        target("lowest percentile of a pick", f"{least:.1f}", f"at least {LEAST_PERCENTILE:g}",
               least >= LEAST_PERCENTILE),
        target("track recall", f"{share:.1f} % ({found} of {counted})", f"at least {RECALL:g} %", share >= RECALL),
    ][: 5 if counted else 4]  # fmt: skip


def _clips(one: Tried, reference: dict[str, Collected]) -> str:
    head = [
        "clip", "tracks, with a passing face", "recall", "tracks with a pick", "mean regret", "worst regret",
        "smoothed", "price of smoothing", "lowest percentile", "lowest percentile among passing faces", "stray picks",
        "core-ms/s", "core-ms/s beyond decoding", "core-ms/s of exhaustive mode",
    ]  # fmt: skip
    rows = []
    for clip in one.clips:
        picked = [track for track in clip.results if track.pick is not None]
        counted = [track for track in clip.results if track.counts_for_recall]
        stick, scale = reference[clip.found.clip], 1000 / max(clip.found.seconds, 1e-9)
        rows.append([
            clip.found.clip, f"{len(stick.tracks)}, {len(clip.results)}",
            f"{sum(track.pick is not None for track in counted)} of {len(counted)}", str(len(picked)),
            _of(statistics.fmean, [track.regret for track in picked]),
            _of(max, [track.regret for track in picked]),
            _of(statistics.fmean, [track.smoothed_regret for track in picked]),
            _of(statistics.fmean, [track.own_regret for track in picked]),
            _of(min, [track.percentile for track in picked], 1),
            _of(min, [track.percentile_passing for track in picked], 1),
            str(len(clip.strays)), f"{scale * clip.found.cpu:.0f}",
            f"{scale * (clip.found.cpu - clip.found.decode_cpu):.0f}", f"{scale * stick.cpu:.0f}",
        ])  # fmt: skip
    return table(head, rows)


def _worst(one: Tried) -> list[str]:
    """The tracks with the highest regret, and the tracks that were missed."""
    pairs = [(clip.found.clip, track) for clip in one.clips for track in clip.results]
    lost = sorted((pair for pair in pairs if pair[1].regret), key=lambda pair: -(pair[1].regret or 0.0))
    rows = [
        [f"{clip}/{track.track_id}", f"{track.at.pts:.2f} s", f"{value(track.at):.1f}", f"{track.best.pts:.2f} s",
         f"{value(track.best):.1f}", f"{track.regret:.2f}", f"{track.own_regret:.2f}"]
        for clip, track in lost[:WORST] if track.at is not None
    ]  # fmt: skip
    missed = [
        f"- missed: {clip}/{track.track_id}, {track.shown_s:.2f} s of passing faces, best quality "
        f"{value(track.best):.1f} at {track.best.pts:.2f} s"
        for clip, track in pairs
        if track.counts_for_recall and track.pick is None
    ]
    head = [
        "clip/track", "time of our pick", "quality", "time of the best face", "quality", "regret", "price of smoothing",
    ]  # fmt: skip
    return [table(head, rows), "", *missed] if rows else (missed or ["Every pick is the best face of its track."])


def _configurations(tried: Sequence[Tried]) -> str:
    head = [
        "configuration", "core-ms/s", "core-ms/s beyond decoding", *(kind.replace("_mpx", ", Mpx") for kind in KINDS),
        "mean regret (95 % interval)", "median regret", "mean regret over clips", "worst clip", "smoothed",
        "median percentile", "lowest percentile", "recall", "picks",
    ]  # fmt: skip
    rows = []
    for one in tried:
        regrets, all_regrets = one.clip_regrets, one.of_picked(lambda track: track.regret)
        percentiles = one.of_picked(lambda track: track.percentile)
        worst = max(regrets, key=lambda name: regrets[name], default="")
        name = f"**{one.name}**" if one is tried[0] else one.name
        rows.append([
            " ".join([name, *(f"`{setting}`" for setting in one.settings)]),
            f"{one.per_second(lambda found: 1000 * found.cpu):.0f}",
            f"{one.per_second(lambda found: 1000 * (found.cpu - found.decode_cpu)):.0f}",
            *(f"{one.per_second(lambda found, kind=kind: found.runs.get(kind, 0.0)):.2f}" for kind in KINDS),
            _with_interval(all_regrets), _of(statistics.median, all_regrets), _of(statistics.fmean, regrets.values()),
            f"{regrets[worst]:.2f} {worst}" if worst else "-",
            _of(statistics.fmean, one.of_picked(lambda track: track.smoothed_regret)),
            _of(statistics.median, percentiles, 1), _of(min, percentiles, 1),
            " of ".join(map(str, one.recall)), str(sum(len(clip.found.picks) for clip in one.clips)),
        ])  # fmt: skip
    return table(head, rows)


def _with_interval(values: Sequence[float]) -> str:
    """The mean and its 95 % interval, by bootstrap over tracks, because there are only a few tracks."""
    if not values:
        return "-"
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{statistics.fmean(values):.2f} ({low:.2f} to {high:.2f})"


def _of(what: Callable[[list[float]], float], values: Any, digits: int = 2) -> str:
    known = [one for one in values if one is not None]
    return f"{what(known):.{digits}f}" if known else "-"


if __name__ == "__main__":
    sys.exit(main())
