#!/usr/bin/env python3
"""Does the gate reject people with glasses more often? Writes rejection rates with and without glasses into card.md.

    python models/expression/glasses.py PICTURES...

PICTURES: folders or tar files of pictures of people that the network was not trained on: LFW's View 2, hq_val. Who
wears glasses was determined by eye, and is listed in glasses.txt: each line has the first 12 digits of the sha256 of
the file's name, and `glasses`, `tinted` (the eyes can hardly be seen, or not at all) or `unsure` (left out). As in
groups.py, reasons that depend on how the picture was cropped are not counted, and groups are compared within deciles of
sharpness.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from models.common.images import DataError, list_sources  # noqa: E402
from models.common.report import put_between  # noqa: E402
from models.expression.groups import look, tables  # noqa: E402
from streamgate import Gate  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402

BEGIN, END = "<!-- glasses: begin (written by glasses.py) -->", "<!-- glasses: end -->"
GROUPS = {"none": "without glasses", "glasses": "glasses", "tinted": "sunglasses, dark lenses"}


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 bad data or weights (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pictures", nargs="+", type=Path)
    args = p.parse_args(arguments)
    cv2.setNumThreads(1)
    try:
        worn = read_list(HERE / "glasses.txt")
        pictures = [(Path(source.name).name, source.data) for source in list_sources(args.pictures)]
        known = [(name, data) for name, data in pictures if kind(name, worn) != "unsure"]
        if not any(kind(name, worn) == "glasses" for name, _ in known):
            raise DataError(f"{args.pictures[0]}: none of the pictures is in glasses.txt")
        with Gate("studio", device="cpu", settings=["measures.ifqa.use=false"]) as gate:
            judged = list(look(known, gate))
        kinds = np.array([kind(one.name, worn) for one in judged])
        members = {title: kinds == name for name, title in GROUPS.items()}
        pictures = "LFW's View 2 and of hq_val (held-out FFHQ-like faces)"
        what = f"Rejections with the preset `studio` on {len(judged)} pictures of {pictures}"
        sections = tables(judged, members, what)
        put_between(HERE / "card.md", BEGIN, END, "\n".join(section.markdown() for section in sections))
    except (DataError, StreamgateError, OSError) as error:
        print(f"glasses.py: {error}", file=sys.stderr)
        return 2
    for section in sections:
        print(section.markdown())
    return 0


def read_list(path: Path) -> dict[str, str]:
    """The list of glasses: what is worn, by the first 12 digits of the sha256 of a file's name."""
    return dict(line.split() for line in path.read_text().splitlines())


def kind(name: str, worn: dict[str, str]) -> str:
    """What the person in a file wears, according to the list: glasses, tinted, unsure or none."""
    return worn.get(hashlib.sha256(name.encode()).hexdigest()[:12], "none")


if __name__ == "__main__":
    sys.exit(main())
