"""How often does the measure `live` reject people who were before the camera?

    python benchmarks/liveness.py [VIDEOS] [--labels picks.json] [--weights DIR] [--every 2]

Rates the labelled faces of real clips, none of which shows a screen or a print, and writes its section of
benchmarks/RESULTS.md. The clips of generated faces are listed apart.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from common import RESULTS, SHARED, command_line, find_clips, say, table, write_section
from picks import Track, read_labels

from streamgate.convert import pull
from streamgate.frames import Face
from streamgate.measures import CropCard, known_measures
from streamgate.networks.cropmeasures import CropMeasure, open_measure
from streamgate.networks.device import choose_device
from streamgate.scoring.full_scorer import crop_matrix
from streamgate.sources import discover

SAME_TIME_S = 0.02
BORDERS = (0.5, 0.3, 0.1, 0.01)


def main() -> int:
    given = _arguments()
    pull("liveness", mirror=str(given.weights))
    (spec,) = [spec for spec in known_measures() if spec.name == "live"]
    assert spec.card is not None
    measure = open_measure(spec, choose_device("cpu"), 1)
    clips, _ = find_clips(given.videos, None)
    found: dict[str, list[tuple[float, str]]] = {}
    for track in read_labels(given.labels):
        for path in clips:
            if path.name == track.clip:
                values = rated(path, track, given.every, spec.card, measure)
                found.setdefault(track.clip, []).extend(values)
                say(f"{track.clip} {track.name}: {len(values)} faces")
    real = [pair for clip, pairs in found.items() if "generated" not in clip for pair in pairs]
    good = [pair for pair in real if pair[1] == "g"]
    body = [
        "## Liveness on faces that are live", "", f"`{command_line('liveness.py', sys.argv[1:])}`", "",
        f"Share of faces that `live` would reject, by its border ({len(real)} faces, {len(good)} of them good "
        "portraits; 0.5 is the default):", "",
        table(["border", "all", "good portraits", "clips with more than a tenth"], [
            [f"{border:g}", *(f"{100 * share(pairs, border):.1f} %" for pairs in (real, good)),
             f"{sum(share(pairs, border) > 0.1 for clip, pairs in found.items() if 'generated' not in clip)}"]
            for border in BORDERS
        ]), "",
        table(["clip", "faces", "rejected at 0.5", "median"], [
            [clip, f"{len(pairs)}", f"{100 * share(pairs, 0.5):.0f} %", f"{np.median([one for one, _ in pairs]):.3f}"]
            for clip, pairs in found.items() if share(pairs, 0.5) > 0 or "generated" in clip
        ]), "",
        "Clips that are not listed have none. Faces of `generated_*` are made by networks: the measure was not trained "
        "on such.", "",
    ]  # fmt: skip
    write_section(given.results, "liveness", "\n".join(body))
    return 0


def rated(clip: Path, track: Track, every: int, card: CropCard, measure: CropMeasure) -> list[tuple[float, str]]:
    """Probability and label of every so many labelled faces of a track."""
    wanted = list(track.faces[::every])
    found = []
    with discover([clip]).sources[0].open() as source:
        for frame in source.frames():
            for face in [one for one in wanted if abs(one.pts - frame.pts_seconds) <= SAME_TIME_S]:
                matrix = crop_matrix(card, Face(face.box, np.zeros((5, 2)), 1.0), frame.picture)
                (output,) = measure.run([frame.picture.warp(matrix, card.size)])
                found.append((output.value, face.label))
                wanted.remove(face)
            del frame
    return found


def share(pairs: list[tuple[float, str]], border: float) -> float:
    return sum(value < border for value, _ in pairs) / max(1, len(pairs))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="?", default=SHARED / "videos")
    parser.add_argument("--labels", type=Path, default=SHARED / "labels" / "picks.json")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights", help="mirror of the pulled weights")
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
