"""The sections of the evaluation on identity and quality, computed from aligned pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.common.degrade import draw_mixture
from models.common.images import DataError, decode_rgb, list_sources
from models.common.report import Section
from models.common.stats import auc, bootstrap, mean_estimate
from models.recognizer.covers import draw_cover
from models.recognizer.network import Face, OwnNetwork, find_face, sharpness
from streamgate.networks import Networks
from streamgate.networks.cohort import Cohort
from streamgate.networks.device import load_onnxruntime

FMR = 1e-3
DISCARDED = 0.2


@dataclass(frozen=True)
class Pairs:
    """LFW pairs: indexes [P, 2] into the names of the pictures, same [P] bool, fold [P] from 1."""

    index: np.ndarray
    same: np.ndarray
    fold: np.ndarray


def read_lfw(pictures: Path, pairs: Path, networks: Networks) -> tuple[list[str], list[Face], Pairs]:
    """Names and faces of the pictures, and the pairs (one line `a b same fold` per pair)."""
    names, faces = [], []
    for source in list_sources([pictures]):
        picture = decode_rgb(source.data)
        face = None if picture is None else find_face(picture, networks)
        if face is None:
            raise DataError(f"{source.name}: no face found")
        names.append(Path(source.name).name)
        faces.append(face)
    rows = [line.split() for line in pairs.read_text().splitlines() if line.strip()]
    place = {name: i for i, name in enumerate(names)}
    index = np.array([[place[row[0]], place[row[1]]] for row in rows])
    return names, faces, Pairs(index, np.array([row[2] == "1" for row in rows]), np.array([int(r[3]) for r in rows]))


def verification(embeddings: Mapping[str, np.ndarray], pairs: Pairs) -> Section:
    """Accuracy of each network (normalised embeddings [n, D]); the threshold for a fold comes from the other folds."""
    section = Section("LFW View 2, folds 1-5", ["network", "accuracy", "worst fold"])
    for name, vectors in embeddings.items():
        cosine = (vectors[pairs.index[:, 0]] * vectors[pairs.index[:, 1]]).sum(axis=1)
        right = np.zeros(len(cosine), bool)
        for fold in np.unique(pairs.fold):
            inside = pairs.fold == fold
            threshold = best_threshold(cosine[~inside], pairs.same[~inside])
            right[inside] = (cosine[inside] >= threshold) == pairs.same[inside]
        worst = min(right[pairs.fold == fold].mean() for fold in np.unique(pairs.fold))
        estimate = mean_estimate(right.astype(float))
        section.rows.append([name, estimate.text(2, percent=True), f"{100 * worst:.2f} %"])
        if name == "this":
            section.goal("LFW accuracy", estimate.value, 0.97, unit=" %")
    return section


def best_threshold(cosine: np.ndarray, same: np.ndarray) -> float:
    """The threshold on the cosine that gives the fewest errors."""
    order = np.argsort(cosine)
    # Errors if all pairs from position k on are classified as the same person.
    errors = np.concatenate([[0], np.cumsum(same[order])]) + np.concatenate([np.cumsum(~same[order][::-1])[::-1], [0]])
    k = int(errors.argmin())
    edges = np.concatenate([[-1.0], cosine[order], [1.0]])
    return float((edges[k] + edges[k + 1]) / 2)


def discard(names: list[str], faces: list[Face], pairs: Pairs, own: OwnNetwork, networks: Networks,
            lightqnet: Path | None) -> Section:  # fmt: skip
    """Error versus discard: does discarding the worst faces remove false non-matches?"""
    people = people_of(names)
    vectors = own.run(np.stack([face.crop for face in faces])).normalised()
    similar = vectors @ vectors.T
    threshold = float(np.quantile(similar[np.triu(people[:, None] != people[None, :], 1)], 1 - FMR))
    genuine = pairs.index[pairs.same]
    degraded = [_degraded(faces[int(b)], seed) for seed, (_, b) in enumerate(genuine)]
    output = own.run(np.stack([face.crop for face in degraded]))
    cosine = (vectors[genuine[:, 0]] * output.normalised()).sum(axis=1)
    missed = cosine < threshold
    qualities = {
        "SER-FIQ": output.serfiq(),
        "sharpness": np.array([sharpness(face.crop) for face in degraded]),
        "detection score": np.array([_detection(face, networks) for face in degraded]),
    }
    if lightqnet is not None:
        qualities["LightQNet"] = light_qualities(lightqnet, degraded)
    section = Section(
        "Error versus discard",
        ["quality", f"FNMR at FMR {FMR:g}, all", f"without the worst {100 * DISCARDED:.0f} %", "reduction"],
        note=f"{len(genuine)} pairs. The two pictures of a pair show the same person; one of them is degraded or "
        f"covered. Impostors are all pairs of different people among {len(names)} pictures; the FMR of 0.001 gives a "
        f"threshold of {threshold:.3f}. The last column is the relative reduction of the FNMR.",
    )
    cuts = {}
    for name, quality in qualities.items():
        kept = quality > np.quantile(quality, DISCARDED)
        cuts[name] = bootstrap(lambda i, q=quality: _cut(missed[i], q[i]), len(missed), draws=500)
        after = mean_estimate(missed[kept].astype(float)).text(1, percent=True)
        before = mean_estimate(missed.astype(float)).text(1, percent=True)
        section.rows.append([name, before, after, cuts[name].text(1, percent=True)])
    section.goal("reduction of the FNMR by SER-FIQ", cuts["SER-FIQ"].value, 0.4, unit=" %")
    for name in [name for name in cuts if name != "SER-FIQ"]:
        more = 100 * (cuts["SER-FIQ"].value - cuts[name].value)
        section.goal(f"reduction of the FNMR by SER-FIQ minus that by {name}", more, 0, unit=" percentage points")
    return section


def people_of(names: Sequence[str]) -> np.ndarray:
    """`Ann_Lee_0002.jpg` -> `Ann_Lee`."""
    return np.array([re.sub(r"_\d+\.\w+$", "", name) for name in names])


def beyond(
    threshold: float, cohort: Cohort | None, names: list[str], vectors: np.ndarray, pairs: Pairs
) -> list[list[str]]:
    """Table rows: pairs of different people, and pairs of the same person, that reach the threshold."""
    people = people_of(names)
    offsets = np.array([0.0 if cohort is None else cohort.offset(vector) for vector in vectors])
    similarities = vectors @ vectors.T - (offsets[:, None] + offsets) / 2
    impostors = similarities[np.triu(people[:, None] != people[None, :], 1)]
    genuine = pairs.index[pairs.same]
    accepted = similarities[genuine[:, 0], genuine[:, 1]] >= threshold
    false = int((impostors >= threshold).sum())
    return [
        [
            "pairs of different people above the threshold",
            f"{false} of {len(impostors)} pairs (FMR {false / len(impostors):.1e})",
        ],
        [
            "pairs of LFW pictures of the same person above the threshold",
            mean_estimate(accepted.astype(float)).text(1, percent=True),
        ],
    ]


def _cut(missed: np.ndarray, quality: np.ndarray) -> float:
    kept = quality > np.quantile(quality, DISCARDED)
    return 1 - float(missed[kept].mean()) / max(float(missed.mean()), 1e-9)


def _degraded(face: Face, seed: int) -> Face:
    """The face after a seeded chain of degradations and, in a third of the cases, under a drawn cover."""
    rng = np.random.default_rng((20, seed))
    picture = draw_mixture(rng).apply(face.picture, float(rng.uniform(0.2, 1.0)))
    if rng.random() < 1 / 3:
        covered, _ = draw_cover(face.align(picture), rng, np.full((112, 112, 3), 90, np.uint8))
        picture = face.paste(picture, covered)
    return face.on(picture)


def _detection(face: Face, networks: Networks) -> float:
    """Score of the detection nearest to the face; 0 if there is none within an eye distance."""
    found = networks.detector.detect([face.picture], 0.02)[0]
    if not found:
        return 0.0
    middle = face.landmarks.mean(axis=0)
    near = min(found, key=lambda other: float(np.linalg.norm(other.landmarks.mean(axis=0) - middle)))
    return near.score if np.linalg.norm(near.landmarks.mean(axis=0) - middle) < face.eye_distance() else 0.0


def light_qualities(model: Path, faces: list[Face]) -> np.ndarray:
    """LightQNet's score of each face. Its input is 96 x 96, (x - 128) / 128, aligned by eyes and mouth centre."""
    onnxruntime = load_onnxruntime()

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    target = np.array([[0.3419, 0.4616], [0.6565, 0.4598], [0.5012, 0.8240]]) * 96
    scores = []
    for face in faces:
        points = np.array([face.landmarks[0], face.landmarks[1], face.landmarks[3:].mean(axis=0)])
        matrix, _ = cv2.estimateAffinePartial2D(points, target)
        crop = cv2.warpAffine(face.picture, matrix, (96, 96), flags=cv2.INTER_AREA)
        blob = ((crop.astype(np.float32) - 128) / 128).transpose(2, 0, 1)[None]
        scores.append(float(session.run(None, {session.get_inputs()[0].name: blob})[0].ravel()[0]))
    return np.array(scores)


def masks(folder: Path, profiles: Sequence[Face], own: OwnNetwork, networks: Networks) -> Section:
    """Faces with and without real masks: visible share, SER-FIQ, verdicts of the gate; `profiles`: profile faces."""
    groups = {}
    for kind in ("with_mask", "without_mask"):
        pictures = [decode_rgb(source.data) for source in list_sources([folder / kind])]
        found = [face for p in pictures if p is not None and (face := find_face(p, networks)) is not None]
        groups[kind] = (len(pictures), found, own.run(np.stack([face.crop for face in found])))
    (all_masked, _, masked), (all_bare, _, bare) = groups.values()
    section = Section(
        "Masks",
        ["figure", "value"],
        note=f"In {all_masked} pictures of people with masks, {len(masked.spread)} faces were found; in {all_bare} "
        f"pictures of people without masks, {len(bare.spread)} faces. The gate has the limits of the preset `studio` "
        f"for {', '.join(own.measures)}.",
    )
    for name, goal, wearing, not_wearing in (
        ("occlusion AUC", 0.97, -masked.visible, -bare.visible),
        ("SER-FIQ AUC", 0.8, -masked.serfiq(), -bare.serfiq()),
    ):
        values, n = np.concatenate([wearing, not_wearing]), len(wearing)
        estimate = bootstrap(lambda i, v=values, n=n: _split_auc(v, i, n), len(values), draws=500)
        section.rows.append([name, estimate.text(3)])
        section.goal(name, estimate.value, goal)
    judged = {"masked faces": groups["with_mask"][1:], "faces without masks": groups["without_mask"][1:]}
    if profiles:
        judged["profile faces (AFW, yaw of at least 60 degrees)"] = (
            list(profiles),
            own.run(np.stack([face.crop for face in profiles])),
        )
    for name, (faces, output) in judged.items():
        verdicts = own.judge(faces, output)
        passed = mean_estimate(np.array([not reasons for reasons in verdicts], float))
        counts = Counter(reason for reasons in verdicts for reason in reasons)
        why = ", ".join(f"{reason} {100 * count / len(faces):.0f} %" for reason, count in counts.most_common())
        section.rows.append([f"{name} ({len(faces)}) that pass", passed.text(0, percent=True)])
        section.rows.append([f"{name} rejected, by reason", why or "none"])
    return section


def _split_auc(values: np.ndarray, index: np.ndarray, count: int) -> float:
    first = index < count
    if first.all() or not first.any():
        return 0.5
    return auc(values[index[first]], values[index[~first]])
