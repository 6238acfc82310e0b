"""The large networks at full size with random weights, imported like real ones: suitable only for measuring speed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamgate.convert import import_weights

IMPORTED = "imported"
_CALIBRATIONS = {
    "iresnet": {"id": "random", "drop_rate": 0.5, "alpha": 130.0, "r": 0.88},
    "ifqa": {"id": "random", "x0": 0.5, "w": 0.1},
}
"""Any will do: what has none is left out of a run."""


def put_large(models: Path, say: Callable[[str], None]) -> None:
    """Put official IFQA and ArcFace R100 into the models folder (which $STREAMGATE_MODELS must name)."""
    import torch

    from streamgate.convert.ifqa import OFFICIAL, Ifqa
    from streamgate.convert.iresnet import DEPTHS, iresnet

    torch.manual_seed(0)
    blocks = next(blocks for blocks, depth in DEPTHS.items() if depth == 100)
    checkpoints: dict[str, Any] = {
        "iresnet": iresnet(blocks).state_dict(),
        "ifqa": {"D": Ifqa(OFFICIAL).state_dict()},
    }
    for name, state in checkpoints.items():
        say(f"{name} at full size with random weights")
        file = models / f"{name}.pth"
        torch.save(state, file)
        made = import_weights(file, name=name)
        file.unlink()
        receipt = made.path.parent / "receipt.json"
        receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"calibration": _CALIBRATIONS[name]}))
