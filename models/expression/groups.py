#!/usr/bin/env python3
"""Which groups does the gate reject more often? Writes rejection rates by skin tone, age, sex and origin into card.md.

    python models/expression/groups.py UTKFACE --work DIR [--per-age 1700]

UTKFACE: folders or tar files with pictures named AGE_SEX_RACE_*. DIR: the folder of train.py, whose crops show which
pictures were used for training. These pictures are left out, and so are pictures of similar people (above the
recognizer's identity threshold). Ages are sampled evenly as far as there are enough pictures, and so are the origins
within each age. Results are stored in DIR/groups, so that a stopped run can continue. Reasons that depend on how the
picture was cropped (edge, small) are not counted, because UTKFace is cropped tightly. IFQA's results by group are on
its own card, and glasses.py writes the rates with and without glasses.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from models.common.align import align_ffhq  # noqa: E402
from models.common.images import DataError, decode_rgb, list_sources  # noqa: E402
from models.common.report import Section, put_between  # noqa: E402
from models.common.stats import Estimate, mean_estimate  # noqa: E402
from models.expression.dataset import align  # noqa: E402
from models.expression.faces import read_crops  # noqa: E402
from models.ifqa.groups import AGES, NAME, RACES, sharpness, skin_tone  # noqa: E402
from streamgate import Gate  # noqa: E402
from streamgate.errors import StreamgateError  # noqa: E402
from streamgate.networks import Networks  # noqa: E402
from streamgate.networks.alignment import ARCFACE_SIDE, arcface_matrix  # noqa: E402
from streamgate.networks.cohort import Cohort  # noqa: E402

BEGIN, END = "<!-- groups: begin (written by groups.py) -->", "<!-- groups: end -->"
_OF_THE_CUT = frozenset({"edge", "small"})
_TONES = (("light", 41.0, 90.1), ("medium", 28.0, 41.0), ("tan", 10.0, 28.0), ("brown", -30.0, 10.0),
          ("dark", -90.1, -30.0))  # fmt: skip
"""Classes of the individual typology angle of the cheeks: name, lower and upper limit in degrees."""
_FEWEST = 100
_MUCH = 0.02
"""Minimum number of faces of a group in the tables, and minimum difference of rates for which a reason is listed."""


@dataclass(frozen=True)
class Judged:
    """One face: name of the file (AGE_SEX_RACE_*), sharpness, skin tone in degrees, the gate's reasons, embedding."""

    name: str
    sharpness: float
    tone: float
    reasons: frozenset[str]
    embedding: np.ndarray

    def line(self) -> str:
        """The face as a line of JSON, with the embedding in half precision."""
        vector = base64.b64encode(self.embedding.astype(np.float16).tobytes()).decode()
        return json.dumps([self.name, self.sharpness, self.tone, sorted(self.reasons), vector])

    @classmethod
    def of_line(cls, line: str) -> Judged:
        """The face in a line that `line` returned."""
        name, sharp, tone, reasons, vector = json.loads(line)
        embedding = np.frombuffer(base64.b64decode(vector), np.float16).astype(np.float32)
        return cls(name, sharp, tone, frozenset(reasons), embedding)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 bad data or weights (one line on stderr)."""
    args = parse(arguments)
    cv2.setNumThreads(1)
    try:
        judged = judge(args)
        sections = tables(
            judged,
            groups(judged),
            f"Rejections with the preset `studio` on {len(judged)} UTKFace pictures of people that this network was "
            "not trained on",
        )
        put_between(HERE / "card.md", BEGIN, END, "\n".join(section.markdown() for section in sections))
    except (DataError, StreamgateError, OSError) as error:
        print(f"groups.py: {error}", file=sys.stderr)
        return 2
    for section in sections:
        print(section.markdown())
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pictures", nargs="+", type=Path)
    p.add_argument("--work", type=Path, required=True)
    p.add_argument("--per-age", type=int, default=1700, help="maximum number of pictures of each age group")
    return p.parse_args(arguments)


def judge(args: argparse.Namespace) -> list[Judged]:
    """The faces as judged with the preset `studio`, of people that the network was not trained on.

    Raises DataError if there are no such pictures or the recognizer's card has no identity threshold.
    """
    store = args.work / "groups"
    store.mkdir(parents=True, exist_ok=True)
    lines = store / "judged.jsonl"
    index, jpegs = read_crops(args.work / "crops/stills-utk")
    trained = {name.split("unlabeled_")[-1] for name in index["names"]}
    pictures = {Path(source.name).name: source.data for source in list_sources(args.pictures)}
    wanted = draw([name for name in pictures if NAME.match(name) and name not in trained], args.per_age)
    if not wanted:
        raise DataError(f"{args.pictures[0]}: no pictures named AGE_SEX_RACE_* that were not used for training")
    done = [Judged.of_line(line) for line in lines.read_text().splitlines()] if lines.is_file() else []
    seen = {one.name for one in done}
    todo = ((name, pictures[name]) for name in wanted if name not in seen)
    with Gate("studio", device="cpu", settings=["measures.ifqa.use=false"]) as gate, lines.open("a") as out:
        for one in look(todo, gate):
            print(one.line(), file=out, flush=True)
            done.append(one)
    with Networks.open("embedded", "cpu") as networks:
        known, threshold, cohort = trained_people(index, jpegs, networks), networks.identity_threshold, networks.cohort
    if threshold is None or cohort is None:
        raise DataError(
            "the recognizer has no identity threshold or no cohort, so people in the training faces cannot be left out"
        )
    # As in the package: the cosine minus the similarity of both faces to a cohort, which is highest for children.
    usual = np.array([cohort.offset(vector) for vector in known])
    return [one for one in done if alike(one.embedding, known, usual, cohort) < threshold]


def alike(embedding: np.ndarray, known: np.ndarray, offsets: np.ndarray, cohort: Cohort) -> float:
    """Similarity of a face to the most similar known face.

    known: [n, D], embeddings of the known faces; offsets: [n], their similarities to the cohort.
    """
    vector = embedding / np.linalg.norm(embedding)
    return float((known @ vector - offsets / 2).max() - cohort.offset(vector) / 2)


def draw(names: Sequence[str], per_age: int) -> list[str]:
    """Names of pictures, sampled evenly over age groups, and within these over origins, as far as there are enough; the
    same names on every run.

    The first n names are sampled evenly, too, for every n.
    """
    ranks: Counter[tuple[int, str]] = Counter()
    queues: list[list[tuple[int, int, str]]] = [[] for _ in AGES]
    for place, name in enumerate(np.random.default_rng(5).permutation(np.array(sorted(names), object))):
        age, race = int(name.split("_")[0]), name.split("_")[2]
        group = next((i for i, (low, high) in enumerate(AGES) if low <= age <= high), None)
        if group is not None:
            queues[group].append((ranks[group, race], place, name))
            ranks[group, race] += 1
    chosen = [(place, name) for queue in queues for place, (_, _, name) in enumerate(sorted(queue)[:per_age])]
    return [name for _, name in sorted(chosen)]


def look(pictures: Iterable[tuple[str, bytes]], gate: Gate) -> Iterator[Judged]:
    """The gate's result for the face nearest to the middle of each picture; pictures without a face are skipped."""
    for name, data in pictures:
        picture = decode_rgb(data)
        scored = gate.score(picture) if picture is not None else []
        if picture is None or not scored:
            continue
        middle = np.array([picture.shape[1], picture.shape[0]]) / 2
        face = min(scored, key=lambda one: float(np.hypot(*(one.face.box.reshape(2, 2).mean(axis=0) - middle))))
        if face.embedding is None:
            continue
        crop = align_ffhq(picture, face.face.landmarks)
        reasons = frozenset(face.gate.reasons) - _OF_THE_CUT
        yield Judged(name, sharpness(crop), skin_tone(crop), reasons, np.asarray(face.embedding))


def trained_people(index: dict, jpegs: Sequence[bytes], networks: Networks) -> np.ndarray:
    """Embeddings [n, D], L2-normalised, of the faces that the network was trained on."""
    found = []
    for data, landmarks in zip(jpegs, index["landmarks"], strict=True):
        picture = decode_rgb(data)
        assert picture is not None
        crop = align(picture, arcface_matrix(np.array(landmarks)), (ARCFACE_SIDE, ARCFACE_SIDE))
        found.append(networks.recognizer.run(crop[None]).embedding[0])
    vectors = np.stack(found)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def tables(judged: Sequence[Judged], members: Mapping[str, np.ndarray], what: str) -> list[Section]:
    """How often each group is rejected, and for which reasons more or less often than equally sharp faces.

    members: bool [n] by the group's title; what: a description of the pictures, with which the caption begins.
    """
    sharp = np.array([one.sharpness for one in judged])
    decile = np.searchsorted(np.quantile(sharp, np.arange(0.1, 1, 0.1)), sharp)
    counts = Counter(reason for one in judged for reason in one.reasons)
    reasons = [reason for reason, count in counts.most_common() if count >= 0.002 * len(judged)]
    whole = Section(
        "Rejected by group",
        [
            "group",
            "faces",
            "rejected",
            "compared with equally sharp faces, points",
            "reasons that differ by more than 2 points",
        ],
        note=f"{what}. The reasons `edge` and `small` are left out because the pictures are tightly cropped; IFQA is "
        "left out because its results by group are on its own card. *Compared with equally sharp faces* is the "
        "group's rejection rate minus the rate of all faces in the same deciles of sharpness, in percentage points, "
        "with a 95 % bootstrap interval. A reason is listed if the whole interval is above +2 or below -2 points.",
    )
    each = Section(
        "Rejection rate by reason, compared with equally sharp faces, in points",
        ["group", *reasons],
        note="The row *all* shows the rejection rate by reason. Intervals are not shown; for a group of 400 faces, "
        "most of them are from ±1 to ±4 points.",
    )
    any_one = np.array([bool(one.reasons) for one in judged], float)
    whole.rows.append(["all", str(len(judged)), _percent(float(any_one.mean())), "", ""])
    by_reason = {reason: np.array([reason in one.reasons for one in judged], float) for reason in reasons}
    each.rows.append(["all", *(_percent(float(flags.mean())) for flags in by_reason.values())])
    for title, member in members.items():
        apart = {reason: mean_estimate(beyond(flags, decile)[member]) for reason, flags in by_reason.items()}
        much = [f"{reason} {_points(one)}" for reason, one in apart.items() if one.low > _MUCH or one.high < -_MUCH]
        difference = mean_estimate(beyond(any_one, decile)[member])
        rate = mean_estimate(any_one[member]).text(1, percent=True)
        whole.rows.append([title, str(int(member.sum())), rate, _points(difference), ", ".join(much) or "-"])
        each.rows.append([title, *(f"{100 * one.value:+.1f}" for one in apart.values())])
    return [whole, each]


def groups(judged: Sequence[Judged]) -> dict[str, np.ndarray]:
    """Members of each group, bool [n], by the group's title; groups with too few faces are left out."""
    ages, sexes, races = (np.array([int(one.name.split("_")[i]) for one in judged]) for i in range(3))
    tone = np.array([one.tone for one in judged])
    found = {f"skin: {title}": (tone > low) & (tone <= high) for title, low, high in _TONES}
    found |= {f"origin: {name}": races == i for i, name in enumerate(RACES)}
    found |= {"sex: male": sexes == 0, "sex: female": sexes == 1}
    found |= {f"age {a}-{b}": (ages >= a) & (ages <= b) for a, b in AGES}
    return {title: member for title, member in found.items() if member.sum() >= _FEWEST}


def beyond(flags: np.ndarray, decile: np.ndarray) -> np.ndarray:
    """[n]: flags (0 or 1) minus the mean of the flags in the same decile."""
    expected = np.array([flags[decile == d].mean() if (decile == d).any() else 0.0 for d in range(10)])
    return flags - expected[decile]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(one: Estimate) -> str:
    return f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


if __name__ == "__main__":
    sys.exit(main())
