"""Kept faces of fresh clips that somebody judged by eye: how many would be taken?

    python benchmarks/judged.py NAME=OUT=JUDGED.json...

OUT is a folder that `streamgate run` wrote, JUDGED.json {image: [label, why]} with the `image` of faces.jsonl, labels
g (would be taken), m (usable, one mild flaw) or b, and letters of `picks.FLAWS`. Whoever judges should not know which
version a picture comes from. Writes its section of benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from common import RESULTS, say, table, write_section
from picks import FLAWS


def main() -> int:
    given = _arguments()
    rows = []
    for text in given.judged:
        name, out, file = text.split("=")
        rows.append([name, *cells(_kept(Path(out)), json.loads(Path(file).read_text()))])
        say(" | ".join(rows[-1]))
    head = ["version", "clips", "kept", "accepted", "usable", "rejected", "flaws"]
    write_section(given.results, "judged", "\n".join([
        "## Fresh clips, judged by eye",
        "",
        "Pictures of all versions mixed, judged by somebody who knew neither version nor scores, with the question of "
        "the labels: would I take this picture as the portrait of this person?",
        "",
        table(head, rows),
    ]))  # fmt: skip
    return 0


def cells(kept: list[dict[str, Any]], judged: dict[str, list[str]]) -> list[str]:
    """A row of the table. Raises SystemExit where a kept face was not judged."""
    if missing := [face["image"] for face in kept if face["image"] not in judged]:
        raise SystemExit(f"judged.py: {missing[0]} was not judged ({len(missing)} in all)")
    labels = [judged[face["image"]] for face in kept]
    counts = Counter(label for label, _ in labels)
    flaws = Counter(letter for _, why in labels for letter in why)
    shares = [f"{counts[label]} ({100 * counts[label] / max(1, len(labels)):.0f} %)" for label in "gmb"]
    clips = len({face["source_id"] for face in kept})
    words = ", ".join(f"{FLAWS[one]} {count}" for one, count in flaws.most_common())
    return [str(clips), str(len(labels)), *shares, words]


def _kept(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "faces.jsonl").read_text().splitlines()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judged", nargs="+", metavar="NAME=OUT=JUDGED.json")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
