"""Does our tracker keep faces apart as well as ByteTrack and OC-SORT do, fed the same detections?

    python benchmarks/tracking.py [VIDEOS] [--clips NAME...] [--every 0 0.1 0.2]

Detects the faces of every frame once, with an embedding each, and kept in the --work folder. Then each tracker gets
the same detections, of every frame or of one frame every so many seconds, and starts anew at each cut that ours sees.
Nobody labelled identities in these clips, so embeddings judge (see `identities.py`): those of the recognizer in the
--judge weights, by default the standard ones, which know small faces apart better than the embedded do. Writes its
section of benchmarks/RESULTS.md. The peers come from `trackers` (pip install --no-deps trackers supervision; with
dependencies it brings a second OpenCV); without it only ours is judged, and a note says so.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import identities
from common import (
    REPOSITORY,
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
from identities import Sighting, Verdict
from sightings import Seen, load_seen

from streamgate.config import Config, load_config
from streamgate.defaults import DEFAULT_MODELS
from streamgate.frames import Face
from streamgate.tracking.tracker import Tracker

WORK = REPOSITORY / "benchmarks" / "work"
CROWDED = (
    "facenetpt_video",
    "dawoon_faces1",
    "mmaction2_demo_skeleton",
    "intel_prev_face-demographics-walking-and-pause",
    "facerec_short_hamilton_clip",
)
"""The crowd, faces that hide each other, groups; others are measured when named."""

Update = Callable[[float, Sequence[Face]], list[tuple[int, int]]]
"""(pts, faces of the frame) -> (track id, index of the face) of those that were given a track."""


@dataclass(slots=True)
class Followed:
    """One tracker over one clip's detections, a shot at a time: sightings, and CPU seconds for each frame."""

    sightings: list[Sighting] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def ours(config: Config) -> Update:
    """The tracker of the pipeline; as there, a track counts once it is more than noise."""
    tracker = Tracker(config)

    def update(pts: float, faces: Sequence[Face]) -> list[tuple[int, int]]:
        found = tracker.update(pts, faces)
        position = {id(face): index for index, face in enumerate(faces)}
        return [(track.track_id, position[id(face)]) for track, face in found.seen] + [
            (track.track_id, position[id(track.face)]) for track in found.born
        ]

    return update


def bytetrack(config: Config) -> Update:
    """ByteTrack of `trackers` with its defaults, told our score limits and our longest gap."""
    from trackers import ByteTrackTracker

    limits = config.advanced
    return _peer(
        ByteTrackTracker(
            lost_track_buffer=round(30 * config.tracking.max_gap_s),
            track_activation_threshold=limits.new_score,
            high_conf_det_threshold=limits.high_score,
        )
    )


def ocsort(config: Config) -> Update:
    """OC-SORT of `trackers` with its defaults, told our score limit and our longest gap."""
    from trackers import OCSORTTracker

    return _peer(
        OCSORTTracker(
            lost_track_buffer=round(30 * config.tracking.max_gap_s),
            high_conf_det_threshold=config.advanced.high_score,
        )
    )


CONTESTANTS: dict[str, Callable[[Config], Update]] = {"ours": ours, "ByteTrack": bytetrack, "OC-SORT": ocsort}


def _peer(tracker: object) -> Update:
    import numpy as np
    import supervision

    def update(pts: float, faces: Sequence[Face]) -> list[tuple[int, int]]:
        boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
        detections = supervision.Detections(
            xyxy=boxes,
            confidence=np.array([face.score for face in faces], np.float32),
            data={"place": np.arange(len(faces))},
        )
        found = tracker.update(detections, timestamp=pts)  # type: ignore[attr-defined]
        if len(found) == 0:
            return []
        pairs = zip(found.tracker_id, found.data["place"], strict=True)
        return [(int(track_id), int(index)) for track_id, index in pairs if track_id >= 0]

    return update


def follow(make: Callable[[Config], Update], config: Config, seen: Seen, every_s: float) -> Followed:
    """Feed a tracker the detections, of one frame every `every_s` seconds (0: of all)."""
    followed = Followed()
    base = 0
    update = make(config)
    due = -1.0
    for moment in seen.moments:
        if moment.cut:
            base = 1 + max((one.track_id for one in followed.sightings), default=-1)
            update, due = make(config), -1.0
        if moment.pts < due:
            continue
        due = moment.pts + every_s - 1e-6
        faces = [one.face for one in moment.faces]
        began = time.thread_time()
        pairs = update(moment.pts, faces)
        followed.cpu.append(time.thread_time() - began)
        for track_id, index in pairs:
            one = moment.faces[index]
            followed.sightings.append(
                Sighting(base + track_id, moment.shot, moment.pts, one.face.box, one.embedding, one.sure)
            )
    return followed


def main() -> int:
    given = _arguments()
    machine = Machine.here()
    clips, notes = find_clips(given.videos, given.clips or CROWDED)
    facts, problem = child("contestants.py", "describe", "--models", given.models)
    if facts is None:
        notes.append(f"nothing was measured, the gate does not open here: {problem}")
        clips = []
    names = list(CONTESTANTS)
    try:
        import supervision  # noqa: F401
        import trackers  # noqa: F401
    except ImportError as error:
        notes.append(f"ByteTrack, OC-SORT: {error} (pip install --no-deps trackers supervision)")
        names = names[:1]
    judge = given.judge
    judged, problem = child("contestants.py", "describe", "--models", judge)
    if judged is None:
        notes.append(f"the judge {judge}: {problem}; the recognizer of {given.models} judges instead")
        judge, judged = given.models, facts
    config = load_config(given.preset)
    seen: dict[str, Seen] = {}
    for clip in clips:
        weights = [*facts["weights"], *judged["weights"]]
        found, problem = load_seen(clip, given.preset, given.models, judge, weights, given.work)
        if found is None:
            notes.append(f"{clip.stem}: {problem}")
        else:
            seen[clip.stem] = found
            say(f"{clip.stem}: {sum(len(moment.faces) for moment in found.moments)} detections")
    body = "\n".join(["## Tracking", "", *[f"- left out: {note}" for note in notes]])
    if seen:
        scale = identities.measure_scale([moment for one in seen.values() for moment in one.moments])
        rows: dict[float, dict[str, dict[str, tuple[Verdict, Followed]]]] = {}
        for every in given.every:
            for name, one in seen.items():
                for tracker in names:
                    followed = follow(CONTESTANTS[tracker], config, one, every)
                    verdict = identities.judge(followed.sightings, scale, config.advanced.min_detections)
                    rows.setdefault(every, {}).setdefault(name, {})[tracker] = (verdict, followed)
                    if given.pictures:
                        from track_pictures import write_sheet

                        path = next(clip for clip in clips if clip.stem == name)
                        write_sheet(given.pictures / f"{name}-{every:g}-{tracker}.png", path, followed, verdict)
        body = _report(machine, facts, judged, names, rows, scale, notes)
    write_section(given.results, "tracking", body)
    print(body)
    say(f"written to {given.results}")
    return 0 if seen else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("videos", type=Path, nargs="?", default=SHARED / "videos", help="folder of clips")
    parser.add_argument("--clips", nargs="+", metavar="NAME", help=f"these instead of {', '.join(CROWDED)}")
    parser.add_argument("--preset", default="studio", help="whose tracking limits and detector input are used")
    parser.add_argument("--models", default=DEFAULT_MODELS, help="as of `streamgate run`")
    parser.add_argument("--judge", default="standard", help="weights whose recognizer judges")
    parser.add_argument(
        "--every", type=float, nargs="+", default=[0.0, 0.1, 0.2], metavar="S",
        help="seconds between the frames that trackers see; 0 for all",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, default=WORK, help="folder in which detections are kept")
    parser.add_argument("--pictures", type=Path, help="write a sheet of every tracker's tracks here, to look at")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file whose section is written")
    given = parser.parse_args()
    if any(every < 0 for every in given.every):
        parser.error("--every takes seconds, 0 or more")
    return given


def _report(
    machine: Machine,
    facts: dict,
    judged: dict,
    names: Sequence[str],
    rows: dict[float, dict[str, dict[str, tuple[Verdict, Followed]]]],
    scale: identities.Scale,
    notes: Sequence[str],
) -> str:
    lines = ["## Tracking", "", f"`{command_line('tracking.py', sys.argv[1:])}`", "", *machine.lines()]
    judge = next(one for one in judged["weights"] if one["role"] == "recognizer")
    lines += [*weights_facts(facts), f"- judge: {judge['name']} {judge['sha256'][:8]}", *scale.lines()]
    lines += [f"- left out: {note}" for note in notes]
    head = [
        "clip", "frames seen", "tracker", "tracks", "sightings", "sure", "switches", "people by embedding", "fragments",
        "CPU us a frame",
    ]  # fmt: skip
    listed = []
    for every, clips in rows.items():
        for clip, found in clips.items():
            for name in names:
                verdict, followed = found[name]
                listed.append(
                    [
                        clip, "all" if every == 0 else f"every {every:g} s", name, str(verdict.tracks),
                        str(verdict.sightings), str(verdict.sure), str(len(verdict.switches)), str(verdict.people),
                        str(verdict.fragments), f"{1e6 * statistics.median(followed.cpu):.0f}",
                    ]
                )  # fmt: skip
    lines += ["", table(head, listed), ""]
    if "ByteTrack" in names:
        for every, clips in rows.items():
            worse = [
                f"{clip} ({len(found['ours'][0].switches)} against {len(found['ByteTrack'][0].switches)})"
                for clip, found in clips.items()
                if len(found["ours"][0].switches) > len(found["ByteTrack"][0].switches)
            ]
            what = "all frames" if every == 0 else f"a frame every {every:g} s"
            lines.append(
                target(
                    f"identity switches on each clip, {what}", f"more in: {', '.join(worse) or 'none'}",
                    "no more than ByteTrack's", not worse,
                )
            )  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
