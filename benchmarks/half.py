"""How much do the outputs differ in half precision? Compares fp16 with fp32 for each embedded network.

    python benchmarks/half.py FOLDER... [--count 500] [--role ifqa]

The result is written to the card of the network. The CPU provider runs the same graph as a GPU would: it rounds every
tensor between two operators to fp16, like a GPU, and accumulates in fp32, like tensor cores. `benchmarks/gpu.py` makes
the comparison on a GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from common import REPOSITORY, say, table, write_section
from gpu_networks import crops_of

from streamgate.errors import StreamgateError
from streamgate.frames import Array
from streamgate.networks.device import Device
from streamgate.networks.sessions import Session
from streamgate.weights.store import Weights, resolve

LIKE_A_GPU = Device("cpu", "used like a GPU", bound=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="folders of pictures, one face each")
    parser.add_argument("--count", type=int, default=500, help="number of faces")
    parser.add_argument("--pages", type=Path, default=REPOSITORY / "models", help="folder of the cards")
    parser.add_argument("--role", action="append", help="only the network of this role; repeatable")
    given = parser.parse_args()
    try:
        found = resolve("embedded")
        crops = crops_of(given.folders, found, given.count)
    except StreamgateError as error:
        print(f"half.py: {error}", file=sys.stderr)
        return error.exit_code
    chosen = {weights.path: (weights, role) for role, weights in reversed(found.items())}
    for weights, role in chosen.values():
        if given.role and role not in given.role:
            continue
        rows = _rows(weights, crops[role])
        for row in rows:
            say(f"{weights.name}: {', '.join(row)}")
        page = given.pages / weights.path.parent.name / "card.md"
        roles = [one for one, other in found.items() if other.path == weights.path]
        write_section(page, "precision", _body(roles, len(crops[role]), rows))
    return 0


def _rows(weights: Weights, pictures: Array) -> list[list[str]]:
    """For each output: name, largest absolute value in fp32; median, 99th percentile, maximum of fp16's deviation."""
    half, full = (Session(weights, LIKE_A_GPU, 2, which, 4).run_pictures(pictures) for which in ("fp16", "fp32"))
    rows = []
    for name, values in full.items():
        off = np.abs(half[name] - values).reshape(len(values), -1).max(axis=1)
        size = np.abs(values).max()
        rows.append([f"`{name}`", f"{size:.3g}", *(f"{np.percentile(off, share):.1e}" for share in (50, 99, 100))])
        if name == "embedding":
            lengths = [np.linalg.norm(one, axis=1) for one in (values, half[name])]
            apart = 1 - (values * half[name]).sum(axis=1) / np.maximum(lengths[0] * lengths[1], 1e-12)
            rows.append(["its cosine", "1", *(f"{np.percentile(apart, share):.1e}" for share in (50, 99, 100))])
    return rows


def _body(roles: list[str], count: int, rows: list[list[str]]) -> str:
    settings = " and ".join(f"`precision.{role}`" for role in roles)
    return "\n".join(
        [
            "## Half precision",
            "",
            f"On a GPU, this network runs in fp16 if {settings} {'is' if len(roles) == 1 else 'are'} `fp16`. The fp16 "
            f"graph has **not yet been run on a GPU**; `benchmarks/half.py` ran it on the CPU, with {count} faces. For "
            "each output, the table shows the largest absolute value in fp32. For each face, the largest absolute "
            "difference between its fp16 and fp32 values was taken; the other columns show the median, the 99th "
            "percentile and the maximum of these differences over all faces.",
            "",
            table(["output", "largest value", "median", "99th percentile", "maximum"], rows),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
