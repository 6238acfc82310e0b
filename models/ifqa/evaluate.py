#!/usr/bin/env python3
"""Evaluate the shipped IFQA on faces it was not trained on and write the tables into card.md.

    python models/ifqa/evaluate.py FACES... --work DIR --train-faces FACES... [--peers DIR]
        [--labelled UTKFACE --detector YUNET.onnx] [--glasses NAMES.txt] [--before FOLDER] [--unreal DRAWINGS...]

FACES: clean FFHQ-aligned faces of at least 256 px that were not used for training. --train-faces: training faces, on
which a restorer is trained that IFQA was not trained against. Peers (other quality measures) whose weights are missing
are reported and skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import numpy as np  # noqa: E402

from models.common.images import DataError, build_cache, decode_rgb, list_sources, shrink_square  # noqa: E402
from models.common.report import Section, write_card  # noqa: E402
from models.ifqa import groups, sections, veiled  # noqa: E402
from models.ifqa.peers import load_peers  # noqa: E402
from models.ifqa.scoring import Scorers, Shipped, one_thread_milliseconds  # noqa: E402
from models.ifqa.unseen import restore, train_unseen  # noqa: E402
from streamgate.measures.ifqa import MEASURE  # noqa: E402

SIDE = 256
EMBEDDED = "the embedded network"
"""Name of the network of the default set. If --model gives another network, the tables compare the two."""
LOW = MEASURE.limits[0].value
"""Limit of the gate, in points: faces with fewer points are rejected (`ifqa_low`)."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 bad data (one line on stderr)."""
    args = parse(arguments)
    try:
        evaluate(args)
    except DataError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("faces", nargs="+", type=Path)
    p.add_argument("--work", type=Path, required=True, help="folder for the peers' scores and the unseen restorer")
    p.add_argument("--train-faces", type=Path, nargs="+", required=True)
    p.add_argument("--peers", type=Path, help="folder with the peers' weights")
    p.add_argument("--labelled", type=Path, nargs="*", default=[], help="faces named AGE_SEX_RACE_* (UTKFace)")
    p.add_argument("--detector", type=Path, help="YuNet ONNX, for the landmarks of --labelled")
    p.add_argument("--glasses", type=Path, help="text file with the names of the FACES with glasses, one per line")
    p.add_argument("--before", type=Path, help="folder of an earlier ifqa.onnx and card.json, for comparison")
    p.add_argument("--unreal", type=Path, nargs="*", default=[], help="aligned drawings, renders, puppets, statues")
    p.add_argument("--mixed-faces", type=int, default=40, help="number of faces for the slow tables (light, veils)")
    p.add_argument("--only-mixtures", action="store_true", help="only the tables that use --before; writes no file")
    p.add_argument("--without-mixtures", action="store_true", help="leave out the slow tables of --only-mixtures")
    p.add_argument("--limit", type=int, metavar="N", help="use only the first N faces, and write no file")
    p.add_argument("--unseen-steps", type=int, default=900)
    p.add_argument("--model", type=Path, default=HERE, help="folder of ifqa.onnx, card.json and card.md")
    return p.parse_args(arguments)


def evaluate(args: argparse.Namespace) -> None:
    """Compute every section, and write card.md and evaluation.json."""
    names, faces = read_faces(args.faces, args.limit)
    shipped = Shipped(args.model)
    networks = {"IFQA": shipped} | ({"before": Shipped(args.before)} if args.before else {})
    if args.model.resolve() != HERE:
        networks[EMBEDDED] = Shipped(HERE)
    mixed = [
        lambda: veiled.forgiven(faces, networks),
        lambda: veiled.footage(faces, networks, LOW),
        lambda: veiled.light(faces[: args.mixed_faces], networks),
        *([lambda: veiled.unreal(read_faces(args.unreal, None)[1], faces, networks, LOW)] if args.unreal else []),
        lambda: veiled.veils(faces[: args.mixed_faces], networks),
    ]
    if args.only_mixtures:
        for section in mixed:
            collect(section())
        return
    peers, absent = load_peers(args.peers)
    for line in absent:
        say(f"skipped {line}")
    if args.without_mixtures:
        absent.append("degraded footage, light, drawings, veils: left out (--without-mixtures)")
    if EMBEDDED in networks:
        embedded = networks[EMBEDDED]
        peers = {EMBEDDED: lambda picture: float(embedded.scores([picture])[0]), **peers}
    scorers = Scorers(shipped, peers, args.work / "peer-scores")
    cache = build_cache(args.train_faces, args.work / "cache", 512)
    say("training the unseen restorer, or loading that of an earlier run")
    unseen = train_unseen(cache.faces, args.work / "unseen.pth", args.unseen_steps)

    order, graded = sections.severities(faces, scorers)
    done = collect(order)
    clean = shipped.scores(faces)
    low, high = np.quantile(np.concatenate([clean, graded.ravel()]), (0.1, 0.9))
    for section in (
        lambda: sections.local_order(faces, scorers),
        lambda: sections.local_maps(faces, scorers),
        lambda: sections.retouched(faces, scorers, lambda pictures: restore(unseen, pictures)),
        lambda: sections.footage(faces, scorers),
        lambda: sections.mirror(faces, scorers, graded),
        lambda: groups.by_picture(faces, scorers, read_glasses(args.glasses, names), high - low),
        *([lambda: labelled(args, scorers, high - low)] if args.labelled and args.detector else []),
        *([] if args.without_mixtures else mixed),
    ):
        done += collect(section())
    if not args.limit:
        tell(args.model, done, absent, names, clean, one_thread_milliseconds(args.model / shipped.card["file"]))


def labelled(args: argparse.Namespace, scorers: Scorers, spread: float) -> Section:
    """The section with the scores by UTKFace label."""
    faces, labels = groups.read_labelled(args.labelled, args.detector, per_race=250)
    return groups.by_label(faces, labels, scorers, spread)


def read_faces(paths: list[Path], limit: int | None) -> tuple[list[str], list[np.ndarray]]:
    """Names and pictures, uint8 [256, 256, 3] RGB; larger pictures are scaled down.

    limit: maximum number of pictures. Raises DataError if a picture is unreadable or too small, or if there are fewer
    than 8 pictures.
    """
    names, faces = [], []
    for source in list_sources(paths):
        picture = decode_rgb(source.data)
        if picture is None or min(picture.shape[:2]) < SIDE:
            raise DataError(f"{source.name}: unreadable or smaller than {SIDE} px")
        names.append(Path(source.name).name)
        faces.append(shrink_square(picture, SIDE))
        if limit and len(faces) == limit:
            break
    if len(faces) < 8:
        raise DataError(f"{len(faces)} faces in {', '.join(map(str, paths))}: at least 8 are needed")
    return names, faces


def read_glasses(path: Path | None, names: list[str]) -> np.ndarray | None:
    """Boolean per face, from a list of names."""
    if path is None:
        return None
    wearing = set(path.read_text().split())
    return np.array([n in wearing for n in names])


def collect(measured: Section | list[Section]) -> list[Section]:
    """Print one section or several as soon as they have been computed; returns them as a list."""
    found = measured if isinstance(measured, list) else [measured]
    for section in found:
        say(section.title)
        print(section.markdown(), flush=True)
        for line in section.missed:
            print(f"  misses {line}", flush=True)
    return found


def tell(
    model: Path, done: list[Section], absent: list[str], names: list[str], clean: np.ndarray, milliseconds: float
) -> None:
    """Write the tables into card.md and the goals into evaluation.json.

    clean: scores of the clean faces; milliseconds: time that the network takes per face.
    """
    card = json.loads((model / "card.json").read_text())
    intro = (
        f"Weights sha256 `{card['sha256'][:16]}`, {card['training_steps']} training steps, {len(names)} "
        f"evaluation faces, 95 % bootstrap intervals. One face takes {milliseconds:.1f} ms on one CPU thread "
        f"({card['gmac']} GMAC, {card['parameters'] / 1e6:.2f} M parameters). The median score "
        f"of clean faces is {np.median(clean):.3f} (p10 {np.quantile(clean, 0.1):.3f})."
    )
    page = model / "card.md"
    met, missed = write_card(page, model / "evaluation.json", intro, done, absent, card["sha256"])
    say(f"wrote {page}: {met} goals met, {missed} missed")


def say(line: str) -> None:
    """A timestamped line on stdout, at once."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
