"""What `bestshot.py` writes: figures of each configuration, and the default's clip by clip."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import Machine, table, target, weights_facts
from regret import SHOWN_S, Scored, percentile, shares_of_regret, value
from steadiness import DRAWS, SHIFT
from tried import Tried
from yardstick import PEERS, Yardstick

MEAN_REGRET, CLIP_REGRET = 1.0, 4.0
MEDIAN_PERCENTILE, LEAST_PERCENTILE = 95.0, 80.0
RECALL = 98.0
"""Targets: mean regret at most, of any clip at most; percentile in the median, of any track; track recall."""
WORST = 12
KINDS = ("detect", "detect_mpx", "refine", "pose", "recognizer", "ifqa")


def report(
    machine: Machine,
    facts: dict[str, Any],
    tried: Sequence[Tried],
    yardsticks: Mapping[str, Yardstick],
    notes: Sequence[str],
    command: str,
    plot: Path,
    weights: Mapping[str, float],
    steadiness: Mapping[str, Mapping[str, Sequence[float]]],
) -> str:
    """The section of RESULTS.md.

    `weights` are those of the fusion by measure, `steadiness` what `steadiness.py` prints, by clip.
    """
    default = tried[0]
    faces = sum(len(faces) for one in yardsticks.values() for faces in one.tracks.values())
    seconds = sum(one.seconds for one in yardsticks.values())
    spent = sum(one.cpu for one in yardsticks.values())
    lines = [
        "## Best shots", "", f"`{command}`", "", *machine.lines(), *weights_facts(facts),
        f"- yardstick: {faces} faces of {len(yardsticks)} clips ({seconds:.0f} s) scored in exhaustive mode, "
        f"{1000 * spent / max(seconds, 1e-9):.0f} core-ms a second of video",
        "- regret: best passing quality of the yardstick's track minus that of our pick, scored by the yardstick "
        "at the pick's time; smoothed: the same with `quality_smoothed`, which the selection ranks by; price of "
        "smoothing: the regret of exhaustive mode's own pick; percentile: share of the track's faces that are no "
        "better than the pick; means over tracks unless said otherwise",
        f"- recall: of tracks that show a passing face for {SHOWN_S:g} s or more, those with a pick",
        f"- figures of {sum(one.kept for one in tried)} of {len(tried)} configurations were kept from earlier runs",
        *[f"- left out: {note}" for note in notes],
        "", "### Targets (default)", "", *_targets(default),
        "", "### Clip by clip (default)", "", _clips(default, yardsticks),
        "", "### What the worst picks lost by (default)", "", *_worst(default, yardsticks, weights),
        "", "### How steady the yardstick is", "", *_steadiness(default, steadiness),
        "", "### Measures that the selection does not use (default)", "", *_peers(default, yardsticks),
        "", "### Configurations", "", _configurations(tried),
    ]  # fmt: skip
    if plot.is_file():
        lines += ["", f"![Regret against cost]({plot.name})"]
    return "\n".join(lines)


def _targets(one: Tried) -> list[str]:
    regrets, percentiles, recall = one.clip_regrets(), one.percentiles(), one.recall()
    if not regrets:
        return ["- nothing was picked, so there is nothing to judge"]
    over_clips = statistics.fmean(regrets.values())
    worst = max(regrets, key=lambda name: regrets[name])
    middle, least = statistics.median(percentiles), min(percentiles)
    missed = [track for track in one.tracks() if track.counts_for_recall and track.pick is None]
    counted = sum(track.counts_for_recall for track in one.tracks())
    lines = [
        target(
            "mean regret over tracks; over clips", f"{one.mean_regret():.2f}; {over_clips:.2f}",
            f"at most {MEAN_REGRET:g}", max(one.mean_regret(), over_clips) <= MEAN_REGRET,
        ),
        target(
            "regret of the worst clip", f"{regrets[worst]:.2f} ({worst})", f"at most {CLIP_REGRET:g}",
            regrets[worst] <= CLIP_REGRET,
        ),
        target(
            "percentile of the pick, median over tracks", f"{middle:.1f}", f"at least {MEDIAN_PERCENTILE:g}",
            middle >= MEDIAN_PERCENTILE,
        ),
        target(
            "lowest percentile of a pick", f"{least:.1f}", f"none under {LEAST_PERCENTILE:g}",
            least >= LEAST_PERCENTILE,
        ),
    ]  # fmt: skip
    if recall is not None:
        lines.append(
            target(
                "track recall", f"{recall:.1f} % ({counted - len(missed)} of {counted})", f"at least {RECALL:g} %",
                recall >= RECALL,
            )
        )  # fmt: skip
    return lines


def _clips(one: Tried, yardsticks: Mapping[str, Yardstick]) -> str:
    head = [
        "clip", "tracks, passing", "for recall", "with a pick", "regret", "worst", "smoothed", "price of smoothing",
        "percentile, least", "among passing, least", "picks elsewhere", "core-ms/s", "beyond decoding", "exhaustive",
    ]  # fmt: skip
    rows = []
    for passed in one.passed:
        results = one.results[passed.clip]
        picked = [track for track in results if track.regret is not None]
        counted = [track for track in results if track.counts_for_recall]
        stick = yardsticks[passed.clip]
        seconds = max(passed.seconds, 1e-9)
        rows.append(
            [
                passed.clip,
                f"{len(stick.tracks)}, {len(results)}",
                f"{sum(track.pick is not None for track in counted)} of {len(counted)}",
                str(len(picked)),
                _mean([track.regret for track in picked]),
                _figure(max((track.regret or 0.0 for track in picked), default=None)),
                _mean([track.smoothed_regret for track in picked]),
                _mean([track.own_regret for track in picked]),
                _figure(min((track.percentile or 0.0 for track in picked), default=None), 1),
                _figure(min((track.percentile_passing or 0.0 for track in picked), default=None), 1),
                str(len(one.strays[passed.clip])),
                f"{1000 * passed.cpu / seconds:.0f}",
                f"{1000 * (passed.cpu - passed.decode_cpu) / seconds:.0f}",
                f"{1000 * stick.cpu / max(stick.seconds, 1e-9):.0f}",
            ]
        )
    return table(head, rows)


def _worst(one: Tried, yardsticks: Mapping[str, Yardstick], weights: Mapping[str, float]) -> list[str]:
    """The tracks with the highest regret, and the measures in which the best face was better."""
    ranked = sorted(
        (
            (track.regret or 0.0, clip, track)
            for clip, results in one.results.items()
            for track in results
            if track.pick
        ),
        key=lambda entry: (-entry[0], entry[1]),
    )
    rows = []
    for regret, clip, track in ranked[:WORST]:
        if regret <= 0:
            break
        assert track.at is not None and track.pick is not None
        names = [name for name in yardsticks[clip].names if weights.get(name, 0.0) > 0]
        parts = shares_of_regret(track.best, track.at, weights, names)
        whole = sum(part for _, part in parts) or 1.0
        shares = ", ".join(
            f"{name} {regret * part / whole:+.1f}" for name, part in parts if abs(regret * part / whole) >= 0.3
        )
        rows.append(
            [
                f"{clip}/{track.track_id}", f"{track.at.pts:.2f} s", f"{value(track.at):.1f}",
                f"{track.best.pts:.2f} s", f"{value(track.best):.1f}", f"{regret:.2f}",
                f"{track.own_regret:.2f}", shares, _seen(one, clip, track.best),
            ]
        )  # fmt: skip
    missed = [
        f"- missed: {clip}/{track.track_id}, {track.shown_s:.2f} s of passing faces, best {value(track.best):.1f} at "
        f"{track.best.pts:.2f} s; {_seen(one, clip, track.best)}"
        for clip, results in one.results.items()
        for track in results
        if track.counts_for_recall and track.pick is None
    ]
    head = [
        "clip/track", "our pick", "quality", "best face", "quality", "regret", "price of smoothing",
        "points lost by measure", "best face was",
    ]  # fmt: skip
    return [table(head, rows), "", *missed] if rows else (missed or ["No pick lost anything."])


def _seen(one: Tried, clip: str, face: Scored) -> str:
    """Whether the run scored that very face, and what it said of it."""
    passed = next(entry for entry in one.passed if entry.clip == clip)
    near = [entry for entry in passed.scored if _overlaps(entry[1], face.box)]
    if not near:
        return "in a track of which nothing was scored"
    pts, _, quality = min(near, key=lambda entry: abs(entry[0] - face.pts))
    if abs(pts - face.pts) < 1e-6:
        return f"scored, {quality:.1f}"
    return f"not scored; nearest {1000 * abs(pts - face.pts):.0f} ms away, {quality:.1f}"


def _overlaps(first: Sequence[float], second: Sequence[float]) -> bool:
    return min(first[2], second[2]) > max(first[0], second[0]) and min(first[3], second[3]) > max(first[1], second[1])


def _steadiness(one: Tried, steadiness: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Quality of the tracks' best faces when their landmarks are moved by a hair, beside the regret."""
    rows, spreads, luck = [], [], []
    for clip, tracks in steadiness.items():
        for track_id, (stored, *tried) in tracks.items():
            result = next((track for track in one.results[clip] if track.track_id == int(track_id)), None)
            if len(tried) < 2 or result is None:
                continue
            spreads.append(statistics.stdev(tried))
            luck.append(stored - statistics.fmean(tried))
            rows.append(
                [
                    f"{clip}/{track_id}", f"{stored:.1f}", f"{statistics.fmean(tried):.1f}", f"{spreads[-1]:.2f}",
                    f"{min(tried):.1f}-{max(tried):.1f}", _figure(result.regret),
                ]
            )  # fmt: skip
    if not rows:
        return ["It was not tried."]
    explained = (
        f"The best face of each track scored {DRAWS} times more, its landmarks moved by {100 * SHIFT:g} % of the eye "
        f"distance: standard deviation {statistics.median(spreads):.2f} in the median, {max(spreads):.2f} at most; the "
        f"best faces lie {statistics.fmean(luck):.2f} above their own mean, and that part of the regret is luck."
    )
    head = ["clip/track", "quality", "mean", "standard deviation", "range", "regret of our pick"]
    return [explained, "", table(head, rows)]


def _peers(one: Tried, yardsticks: Mapping[str, Yardstick]) -> list[str]:
    """Where pick, best face, middle and an average face stand among the track's passing faces by other measures."""
    rows = []
    for name in PEERS:
        stands: dict[str, list[float]] = {"pick": [], "best": [], "middle": [], "any": []}
        losses: dict[str, list[float]] = {"pick": [], "best": [], "middle": [], "any": []}
        for clip, results in one.results.items():
            for track in results:
                faces = [face for face in yardsticks[clip].tracks[track.track_id] if name in face.peers]
                if track.at is None or name not in track.at.peers or len(faces) < 2:
                    continue
                values = [face.peers[name] for face in faces]
                top = max(values)
                middle = faces[len(faces) // 2]
                for label, face in (("pick", track.at), ("best", track.best), ("middle", middle)):
                    stands[label].append(percentile(face.peers[name], values))
                    losses[label].append(top - face.peers[name])
                stands["any"].append(statistics.fmean(percentile(each, values) for each in values))
                losses["any"].append(top - statistics.fmean(values))
        if stands["pick"]:
            row = [name, str(len(stands["pick"]))]
            row += [f"{statistics.fmean(stands[label]):.1f}" for label in stands]
            row += [f"{statistics.fmean(losses[label]):.3f}" for label in losses]
            rows.append(row)
    if not rows:
        return ["No peer could be asked."]
    head = ["measure", "tracks"]
    head += [
        f"{what}: {label}" for what in ("percentile", "regret") for label in ("pick", "best", "middle", "any face")
    ]
    explained = (
        "Among the faces of a track that pass: `pick` ours, `best` the yardstick's of highest quality, `middle` the "
        "one in the middle, `any face` the mean over all. Regret in the measure's own unit. A selection that these "
        "measures share stands above `middle` and `any face`."
    )
    return [explained, "", table(head, rows)]


def _configurations(tried: Sequence[Tried]) -> str:
    head = [
        "configuration", "core-ms/s", "beyond decoding", "detect/s", "Mpx/s", "refine/s", "pose/s", "recognizer/s",
        "ifqa/s", "regret (95 %)", "median", "over clips", "worst clip", "smoothed",
        "percentile, median", "least", "recall %", "picks",
    ]  # fmt: skip
    rows = []
    for one in tried:
        regrets, percentiles, recall = one.clip_regrets(), one.percentiles(), one.recall()
        worst = max(regrets, key=lambda name: regrets[name], default="")
        name = f"**{one.setup.name}**" if one is tried[0] else one.setup.name
        rows.append(
            [
                " ".join([name, *(f"`{setting}`" for setting in one.setup.settings)]),
                f"{one.cost():.0f}",
                f"{one.beyond():.0f}" if one.passed[0].runs else "-",
                *(f"{one.runs(kind):.2f}" if one.passed[0].runs else "-" for kind in KINDS),
                f"{one.mean_regret():.2f} ({one.interval()[0]:.2f}-{one.interval()[1]:.2f})",
                _figure(statistics.median([track.regret or 0.0 for track in one.picked()]) if one.picked() else None),
                _mean(list(regrets.values())),
                f"{regrets[worst]:.2f} {worst}" if worst else "-",
                _mean([track.smoothed_regret for track in one.picked()]),
                _figure(statistics.median(percentiles) if percentiles else None, 1),
                _figure(min(percentiles, default=None), 1),
                _figure(recall, 1),
                str(sum(len(passed.picks) for passed in one.passed)),
            ]
        )
    return table(head, rows)


def _mean(values: Sequence[float | None]) -> str:
    known = [one for one in values if one is not None]
    return f"{statistics.fmean(known):.2f}" if known else "-"


def _figure(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
