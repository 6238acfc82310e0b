"""The sections of the evaluation: each function scores pictures and returns the rows of a Markdown table.

`faces` are clean faces, uint8 [256, 256, 3] RGB. The intervals are 95 % bootstrap intervals over faces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import numpy as np

from models.common.regions import region_mask
from models.common.report import Section
from models.common.stats import (
    auc,
    bootstrap,
    in_order,
    mean_estimate,
    spearman_across,
    spearman_rows,
)
from models.ifqa import protocol
from models.ifqa.scoring import Scorers
from streamgate.convert.ifqa import face_ellipse

Faces = Sequence[np.ndarray]
GOALS_WITHIN = {"blur": 0.98, "noise": 0.98, "low resolution": 0.98, "JPEG": 0.95, "mixture": 0.95}
GOAL_ACROSS = 0.90


def severities(faces: Faces, scorers: Scorers) -> tuple[Section, np.ndarray]:
    """Spearman correlations for six severities of each kind, within and across faces.

    Returns the section and IFQA's scores [faces, 5, 6].
    """
    section = Section(
        "Order of six severities",
        ["degradation", *(f"{n} within / across" for n in scorers.names)],
        note="Spearman correlation of the severity with the decrease of the score: mean of the correlations within "
        "each face, and across all faces and levels.",
    )
    levels = np.arange(protocol.LEVELS)
    kept = []
    for kind in protocol.KINDS:
        pictures = [protocol.grade(kind, f, level, i) for i, f in enumerate(faces) for level in levels]
        row = [kind]
        for name, flat in scorers.score(pictures).items():
            scores = flat.reshape(len(faces), -1)
            within = mean_estimate(spearman_rows(scores, levels))
            across = bootstrap(lambda i, s=scores: spearman_across(s[i], levels), len(faces), draws=300)
            row.append(f"{within.text()} / {across.text()}")
            if name == "IFQA":
                kept.append(scores)
                of = "rank correlation of score and severity"
                section.goal(f"{of} within a face, {kind}", within.value, GOALS_WITHIN[kind])
                section.goal(f"{of} across faces, {kind}", across.value, GOAL_ACROSS)
        section.rows.append(row)
    return section, np.stack(kept, 1)


def _order_rows(
    section: Section,
    faces: Faces,
    scorers: Scorers,
    cases: dict[str, Callable[[np.ndarray, int], np.ndarray]],
    wanted: float,
) -> None:
    clean = scorers.score(faces)
    for title, change in cases.items():
        changed = scorers.score([change(f, i) for i, f in enumerate(faces)])
        shares = {n: mean_estimate(in_order(clean[n], changed[n]).astype(float)) for n in scorers.names}
        section.rows.append([title, *(shares[n].text(1, percent=True) for n in scorers.names)])
        section.goal(title, shares["IFQA"].value, wanted, unit=" %")


def local_order(faces: Faces, scorers: Scorers) -> Section:
    """Does a clean face score higher than its copy in which only the eyes, the nose or the mouth are degraded?"""
    section = Section(
        "Only the eyes, nose or mouth degraded: pairs in the right order",
        ["degraded part", *scorers.names],
        note="Share of the faces that score higher than their copy in which one part is degraded (at the fourth of "
        "six levels).",
    )
    cases = {
        f"{region}, {kind}": (lambda f, i, r=region, k=kind: protocol.local(k, r, f, i))
        for region in protocol.LOCAL_REGIONS
        for kind in protocol.LOCAL_KINDS
    }
    _order_rows(section, faces, scorers, cases, 0.95)
    return section


def local_maps(faces: Faces, scorers: Scorers) -> Section:
    """Does the map find the degraded part? AUC over the pixels inside the face ellipse, mean over faces."""
    section = Section(
        "Does the map find the degraded part?",
        ["degraded part", "pixel AUC of 1 - map", "AUC of the clean face's map minus the map"],
        note="The AUC is the probability that the value in the header is higher at a pixel of the degraded part than "
        "at a pixel of the rest of the face ellipse. The last column can only be computed with the clean original.",
    )
    side = faces[0].shape[0]
    inside = face_ellipse(side) > 0.5
    clean = scorers.shipped.maps(faces)
    for region in protocol.LOCAL_REGIONS:
        hit = (region_mask(region, side) > 0.5) & inside
        rest = inside & (region_mask(region, side, feather=2.0) < 0.02)
        for kind in protocol.LOCAL_KINDS:
            maps = scorers.shipped.maps([protocol.local(kind, region, f, i) for i, f in enumerate(faces)])
            alone = mean_estimate(np.array([auc(1 - m[hit], 1 - m[rest]) for m in maps]))
            fall = mean_estimate(np.array([auc((c - m)[hit], (c - m)[rest]) for c, m in zip(clean, maps, strict=True)]))
            section.rows.append([f"{region}, {kind}", alone.text(), fall.text()])
            section.goal(f"map, {region}, {kind}", alone.value, 0.9)
    return section


def retouched(faces: Faces, scorers: Scorers, restore: Callable[[list[np.ndarray]], list[np.ndarray]]) -> Section:
    """Do faces score lower after an unseen generator restored them, and after they were denoised or over-sharpened?"""
    section = Section(
        "Restored, denoised and over-sharpened faces that score lower than their originals",
        ["what was done", *scorers.names],
        note="Share of the faces that score lower than the original. *Restored* faces were degraded by a mixture of "
        "the given level and then restored by a network that was trained with another seed and loss.",
    )
    restored = {
        f"restored from mixture level {level + 1}": restore(
            [protocol.mixture(f, level, i * protocol.LEVELS + level) for i, f in enumerate(faces)]
        )
        for level in (0, 2, 4)
    }
    cases: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
        title: (lambda f, i, r=pictures: r[i]) for title, pictures in restored.items()
    }
    cases |= {title: (lambda f, i, c=change: c(f)) for title, change in protocol.RETOUCHES.items()}
    _order_rows(section, faces, scorers, cases, 0.9)
    return section


def footage(faces: Faces, scorers: Scorers) -> Section:
    """Order of the scores of the same face in H.264 footage with 1080, 720, 480 and 360 lines."""
    section = Section(
        "The same face as 1080p, 720p, 480p and 360p footage",
        ["pairs of heights", *scorers.names],
        note="Share of the faces that score higher at the higher of two resolutions. The last row is the share of the "
        "faces for which all four heights are in the right order.",
    )
    films = protocol.footage(faces)
    scores = {h: scorers.score(pictures) for h, pictures in films.items()}
    heights = list(films)
    pairs = list(combinations(heights, 2))
    for name_pairs, title in (*(([p], f"{p[0]}p > {p[1]}p") for p in pairs), (pairs, "all six pairs")):
        shares = []
        for name in scorers.names:
            right = np.mean([in_order(scores[a][name], scores[b][name]) for a, b in name_pairs], axis=0)
            shares.append(mean_estimate(right))
        section.rows.append([title, *(s.text(1, percent=True) for s in shares)])
    section.goal("footage, all pairs", shares[0].value, 0.95, unit=" %")
    chain = []
    for name in scorers.names:
        steps = [scores[a][name] > scores[b][name] for a, b in pairwise(heights)]
        chain.append(mean_estimate(np.all(steps, axis=0).astype(float)))
    section.rows.append(["1080p > 720p > 480p > 360p", *(c.text(1, percent=True) for c in chain)])
    return section


def mirror(faces: Faces, scorers: Scorers, graded: np.ndarray) -> Section:
    """Difference between the scores of a face and its mirror image, as a share of the p10-p90 range of scores.

    graded: IFQA's scores of degraded pictures, which together with the clean faces give the range of all scores.
    """
    clean = scorers.shipped.scores(faces)
    mirrored = scorers.shipped.scores([np.ascontiguousarray(f[:, ::-1]) for f in faces])
    low, high = np.quantile(np.concatenate([clean, graded.ravel()]), (0.1, 0.9))
    low_clean, high_clean = np.quantile(clean, (0.1, 0.9))
    difference = np.abs(clean - mirrored)
    section = Section(
        "Mirror images",
        [
            "difference of the two scores",
            "share of the p10-p90 range of all scores",
            "share of the p10-p90 range of the clean faces",
        ],
    )
    for title, value in (
        ("median", np.median(difference)),
        ("95th percentile", np.quantile(difference, 0.95)),
        ("largest", difference.max()),
    ):
        parts = (value / (high - low), value / max(high_clean - low_clean, 1e-9))
        section.rows.append([title, *(f"{p * 100:.1f} %" for p in parts)])
    share = mean_estimate((difference <= 0.05 * (high - low)).astype(float))
    section.rows.append(["faces with at most 5 %", share.text(1, percent=True), "-"])
    section.goal("faces whose mirror image scores within 5 % of the range of all scores", share.value, 0.95, unit=" %")
    return section
