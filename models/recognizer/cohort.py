#!/usr/bin/env python3
"""Make the cohort with which similarities are normalised, and update the identity threshold, for existing weights.

    python models/recognizer/cohort.py --aged UTKFACE --named LFW --leave-out-people PAIRS.txt --work DIR

--aged: pictures whose names begin with an age (`3_0_0_...jpg`). Each picture counts as a different person. One half of
the pictures, chosen by the hashes of their names, is sorted into groups of people who look similar, separately for
children and adults. The mean of each group is a centroid. The other half is used to evaluate the cohort. --named:
pictures named First_Last_0001, on which the threshold is fitted, one picture per person. People in a list of
--leave-out-people are not used.

Writes cohort.npz, the `identity` of card.json and the section between the markers of card.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from models.common.images import DataError, decode_rgb, list_sources  # noqa: E402
from models.recognizer.deploy import CARD_NAME, TARGET_FMR, identity_threshold  # noqa: E402
from models.recognizer.faces import DETECT_SIDES, people_in, person_of, warp  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks import Networks  # noqa: E402
from streamgate.networks.alignment import arcface_matrix  # noqa: E402
from streamgate.networks.cohort import Cohort  # noqa: E402

COHORT_NAME = "cohort.npz"
BEGIN, END = "<!-- cohort: begin (written by cohort.py) -->", "<!-- cohort: end -->"
AGE = re.compile(r"(\d{1,3})_")
CHILD, ADULT = 10, 16
"""Maximum age of children and minimum age of adults, in years; the ages between them are not used."""
BANDS = ((0, 1), (2, 3), (4, 6), (7, CHILD))
GROUP = 16
"""Minimum number of people in a centroid. The collection may contain two pictures of one person."""
NEAREST = 20
ADULTS = 3500
"""Number of adults that are used, half of them for the cohort: about as many as there are children."""
ALIKE = 0.9
"""Two --aged pictures with at least this cosine count as one picture published twice; error rates ignore the pair."""


@dataclass(frozen=True)
class Faces:
    """Embeddings of aligned faces: `vectors` float32 (N, D), of unit length; `names` of the files in the same order."""

    names: list[str]
    vectors: np.ndarray

    def where(self, chosen: Sequence[bool] | np.ndarray) -> Faces:
        places = np.flatnonzero(chosen)
        return Faces([self.names[place] for place in places], self.vectors[places])

    @property
    def ages(self) -> np.ndarray:
        return np.array([age_of(name) for name in self.names])

    @property
    def measuring(self) -> np.ndarray:
        """Which faces are used for evaluation; the others make up the cohort."""
        return np.array([_hash(name) % 2 == 1 for name in self.names], bool)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 bad data or weights (one line on stderr)."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--aged", nargs="+", type=Path, required=True, metavar="PICTURES")
    p.add_argument("--named", nargs="+", type=Path, required=True, metavar="PICTURES")
    p.add_argument("--leave-out-people", nargs="*", type=Path, default=[], metavar="PAIRS")
    p.add_argument("--work", type=Path, required=True, help="folder that keeps the embeddings for another run")
    p.add_argument("--model", type=Path, default=HERE, help="folder of recognizer.onnx and its cards")
    args = p.parse_args(arguments)
    try:
        make(args)
    except (DataError, StreamgateError) as error:
        print(f"cohort.py: {error}", file=sys.stderr)
        return 2
    return 0


def make(args: argparse.Namespace) -> None:
    """Write cohort, card and page. Raises DataError, WeightsError."""
    cv2.setNumThreads(1)
    card = json.loads((args.model / CARD_NAME).read_text(encoding="utf-8"))
    unwanted = people_in(args.leave_out_people)
    args.work.mkdir(parents=True, exist_ok=True)
    with Networks.open(f"{args.model.parent},embedded", "cpu") as networks:
        key = card["sha256"][:12]
        aged = recognised(args.aged, args.work / f"aged-{key}.npz", networks, _adults_thinned)
        named = recognised(
            args.named, args.work / f"named-{key}.npz", networks, lambda names: _one_each(names, unwanted)
        )
    ages, measuring = aged.ages, aged.measuring
    children = aged.where((ages <= CHILD) & ~measuring)
    adults = aged.where((ages >= ADULT) & ~measuring)
    centroids = np.concatenate([centroids_of(one.vectors) for one in (children, adults)]).astype(np.float16)
    cohort = Cohort(centroids.astype(np.float32), NEAREST, 0.0)
    usual = float(np.median([cohort.offset(vector) for vector in aged.where((ages >= ADULT) & measuring).vectors]))
    cohort = Cohort(cohort.centroids, NEAREST, round(usual, 4))
    fitted = round(identity_threshold(similarities(named.vectors, cohort)), 4)
    # The cohort never raises a similarity. Therefore, with the threshold for cosines, no two people are merged that
    # would be separate without the cohort.
    threshold = max(fitted, (card.get("identity") or {}).get("threshold", 0.0))
    part = args.model / f"{COHORT_NAME}.part"
    with part.open("wb") as out:
        np.savez(out, centroids=centroids)
    os.replace(part, args.model / COHORT_NAME)
    card["identity"] = {
        "threshold": threshold,
        "fmr": TARGET_FMR,
        "how": "from generalised Pareto tails fitted to LFW people outside View 2, most of whom are in the training "
        f"set, without labels: {fitted} for the normalised similarities of {len(named.names)} people; the threshold "
        "for cosines is used if it is higher",
        "cohort": {
            "file": COHORT_NAME,
            "sha256": hashlib.sha256((args.model / COHORT_NAME).read_bytes()).hexdigest(),
            "nearest": NEAREST,
            "usual": cohort.usual,
            "how": f"{len(centroids)} means of {GROUP} or more people each: {len(children.names)} children of up to "
            f"{CHILD} years and {len(adults.names)} adults of UTKFace",
        },
    }
    _replace(args.model / CARD_NAME, json.dumps(card, indent=2) + "\n")
    text = section(aged.where(measuring), named, cohort, threshold, card)
    page = args.model / "card.md"
    told = page.read_text(encoding="utf-8")
    start, stop = told.index(BEGIN), told.index(END)
    _replace(page, told[:start] + BEGIN + "\n" + text + told[stop:])
    print(text)


def recognised(paths: Sequence[Path], kept: Path, networks: Networks, choose) -> Faces:  # type: ignore[no-untyped-def]
    """The faces of the pictures whose names `choose` returns, given all names; stored in a file for later runs."""
    if kept.is_file():
        with np.load(kept, allow_pickle=False) as arrays:
            return Faces([str(name) for name in arrays["names"]], arrays["vectors"])
    chosen = choose([source.name for source in list_sources(paths)])
    names: list[str] = []
    vectors: list[np.ndarray] = []
    for source in list_sources(paths):
        picture = decode_rgb(source.data) if source.name in chosen else None
        crop = None if picture is None else aligned(picture, networks)
        if crop is not None:
            vector = networks.recognizer.run(crop[None]).embedding[0]
            names.append(source.name)
            vectors.append(vector / np.linalg.norm(vector))
            if len(names) % 500 == 0:
                print(f"{kept.stem}: {len(names)} of {len(chosen)} faces", flush=True)
    if len(names) < 10 * GROUP:
        raise DataError(f"only {len(names)} usable faces in {', '.join(map(str, paths))}")
    found = Faces(names, np.stack(vectors).astype(np.float32))
    np.savez(kept, names=np.array(found.names), vectors=found.vectors)
    return found


def aligned(picture: np.ndarray, networks: Networks) -> np.ndarray | None:
    """The face nearest to the middle of RGB uint8 [H, W, 3], as the recognizer's input; None: no face was found."""
    long_side = max(picture.shape[:2])
    scale = min(max(long_side, DETECT_SIDES[0]), DETECT_SIDES[1]) / long_side
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    found = networks.detector.detect([small])[0]
    if not found:
        return None
    middle = np.array(size) / 2
    face = min(found, key=lambda one: float(np.linalg.norm(one.landmarks.mean(axis=0) - middle)))
    try:
        return warp(picture, arcface_matrix((face.landmarks.astype(np.float64) + 0.5) / scale - 0.5), 112)
    except ValueError:
        return None


def centroids_of(vectors: np.ndarray) -> np.ndarray:
    """Unit means of groups of GROUP to 2 GROUP - 1 faces that look alike.

    A set is split into two halves along its direction of largest variance until the halves would be too small.
    """
    if len(vectors) < 2 * GROUP:
        mean = vectors.mean(axis=0)
        return (mean / np.linalg.norm(mean))[None]
    _, _, directions = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    order = np.argsort(vectors @ directions[0], kind="stable")
    middle = len(order) // 2
    return np.concatenate([centroids_of(vectors[order[:middle]]), centroids_of(vectors[order[middle:]])])


def similarities(vectors: np.ndarray, cohort: Cohort | None) -> np.ndarray:
    """Similarity of every pair of faces; without a cohort, the cosine."""
    table = vectors @ vectors.T
    if cohort is not None:
        offsets = np.array([cohort.offset(vector) for vector in vectors])
        table = table - (offsets[:, None] + offsets) / 2
    return table[np.triu_indices(len(vectors), 1)]


def section(aged: Faces, named: Faces, cohort: Cohort, threshold: float, card: dict) -> str:
    """Error rates with and without the cohort."""
    lines = [
        f"The cohort has {len(cohort.centroids)} centroids; the {cohort.nearest} nearest to a face are used. The table "
        f"shows the false match rate at the threshold of {threshold:.3f} by age, over pairs of UTKFace pictures that "
        f"were not used for the centroids. Pairs with a cosine of {ALIKE} or more are assumed to be the same picture "
        "published twice, and are left out. All other pairs are counted as different people, although a few of them "
        "show the same person. Therefore, the rates are upper bounds.",
        "",
        "| age in years | pairs | cosine | normalised similarity |",
        "| --- | ---: | ---: | ---: |",
    ]
    ages = aged.ages
    for low, high in (*BANDS, (ADULT, 120)):
        vectors = aged.where((ages >= low) & (ages <= high)).vectors
        cosines = similarities(vectors, None)
        distinct = cosines < ALIKE
        rates = (
            np.mean(values[distinct] >= threshold) for values in (cosines, similarities(vectors, cohort))
        )
        name = f"{low} to {high}" if high <= CHILD else f"{low} and more"
        lines.append(f"| {name} | {distinct.sum()} | " + " | ".join(f"{rate:.1e}" for rate in rates) + " |")
    pairs = similarities(named.vectors, None), similarities(named.vectors, cohort)
    rates = (np.mean(values >= threshold) for values in pairs)
    lines.append(f"| LFW, without View 2 | {len(pairs[0])} | " + " | ".join(f"{rate:.1e}" for rate in rates) + " |")
    return "\n".join([*lines, ""])


def age_of(name: str) -> int:
    """`utk/3_0_0_20161219.jpg` -> 3; -1 for names of another form."""
    match = AGE.match(Path(name).name)
    return int(match[1]) if match else -1


def _adults_thinned(names: Sequence[str]) -> set[str]:
    children = [name for name in names if 0 <= age_of(name) <= CHILD]
    adults = sorted((name for name in names if age_of(name) >= ADULT), key=_hash)
    return {*children, *adults[:ADULTS]}


def _one_each(names: Sequence[str], unwanted: frozenset[str]) -> set[str]:
    found: dict[str, str] = {}
    for name in names:
        person = person_of(name)
        if person is not None and person not in unwanted:
            found.setdefault(person, name)
    return set(found.values())


def _hash(name: str) -> int:
    return int(hashlib.sha256(Path(name).name.encode()).hexdigest()[:12], 16)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
