#!/usr/bin/env python3
"""Replace the shipped weights by the mean of the final weights of two runs, to combine what both have learned.

    python models/detector/average.py EARLIER LATER [--share 0.5] [--target DIR]

EARLIER and LATER are folders that train.py wrote (detector_warm.pth, card.json); `--share` is the weight of LATER.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import torch  # noqa: E402

from models.common.images import DataError  # noqa: E402
from models.common.training import halved  # noqa: E402
from models.detector.deploy import CARD_NAME, ONNX_NAME, WARM_NAME, export_onnx, replace  # noqa: E402
from models.detector.units import new_network  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 bad input (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("earlier", type=Path)
    p.add_argument("later", type=Path)
    p.add_argument("--share", type=float, default=0.5)
    p.add_argument("--target", type=Path, default=HERE)
    args = p.parse_args(arguments)
    try:
        print(average(args.earlier, args.later, args.share, args.target))
    except (DataError, OSError) as error:
        print(f"average.py: {error}", file=sys.stderr)
        return 2
    return 0


def average(earlier: Path, later: Path, share: float, target: Path) -> str:
    """Write the deliverables of the mean; returns their sha256. Raises DataError, OSError."""
    if not 0 <= share <= 1:
        raise DataError(f"--share {share}: must be between 0 and 1")
    warm = [torch.load(path / WARM_NAME, map_location="cpu", weights_only=True) for path in (earlier, later)]
    states = [one["network"] for one in warm]
    if {k: v.shape for k, v in states[0].items()} != {k: v.shape for k, v in states[1].items()}:
        raise DataError(f"{earlier} and {later} contain networks of different shapes")
    mean = {name: _mixed(value, states[1][name], share) for name, value in states[0].items()}
    network = new_network()
    network.load_state_dict(mean)
    target.mkdir(parents=True, exist_ok=True)
    export_onnx(network.eval(), target / ONNX_NAME)
    sha256 = hashlib.sha256((target / ONNX_NAME).read_bytes()).hexdigest()
    half = {**warm[1], "network": halved(mean)}
    replace(target / WARM_NAME, lambda part: torch.save(half, part))
    cards: list[dict[str, Any]] = [json.loads((path / CARD_NAME).read_text()) for path in (earlier, later)]
    mixed = {"steps": [card["training_steps"] for card in cards], "share_of_later": share}
    card = {**cards[1], "sha256": sha256, "mean_of": mixed}
    replace(target / CARD_NAME, lambda part: part.write_text(json.dumps(card, indent=2) + "\n"))
    return sha256


def _mixed(earlier: torch.Tensor, later: torch.Tensor, share: float) -> torch.Tensor:
    if not earlier.is_floating_point():
        return later
    return earlier.float() * (1 - share) + later.float() * share


if __name__ == "__main__":
    sys.exit(main())
