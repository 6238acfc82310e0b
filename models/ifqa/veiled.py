"""Evaluation in points: does a bad face score higher under a veil, is bad light detected, do small faces pass?

Points are the scalar, 0..100, as users see it. Each table has columns for every given network: first for the network
that is evaluated, then for the others, for example an earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from models.common.report import Section
from models.common.stats import mean_estimate, spearman_rows
from models.ifqa import mixtures, protocol
from models.ifqa.scoring import Shipped

Faces = Sequence[np.ndarray]
SLACK = 2.0
"""Number of points by which a veil may raise the score."""
Networks = Mapping[str, Shipped]


def points(network: Shipped, pictures: Faces) -> np.ndarray:
    """Scalars of the pictures, [N] in 0..100, by the calibration on the network's card."""
    figures = network.card["calibration"]
    scores = network.scores(pictures).astype(np.float64)
    return np.array([100 / (1 + math.exp(-(s - figures["x0"]) / figures["w"])) for s in scores])


def veils(faces: Faces, networks: Networks) -> list[Section]:
    """Every degradation A under every veil B. The veil should raise the score by at most 2 points, and the order of A's
    severities should stay the same.

    Returns two tables of the same scores, by veil and by degradation.
    """
    levels = np.arange(mixtures.LEVELS)
    risen: dict[tuple[str, str, str], np.ndarray] = {}
    order: dict[tuple[str, str, str], np.ndarray] = {}
    for change, apply in mixtures.CHANGES.items():
        flat = [apply(face, level, i) for i, face in enumerate(faces) for level in levels]
        bare = {name: points(network, flat).reshape(len(faces), -1) for name, network in networks.items()}
        for veil, lay in mixtures.VEILS.items():
            under = [lay(picture, i // mixtures.LEVELS) for i, picture in enumerate(flat)]
            for name, network in networks.items():
                scores = points(network, under).reshape(len(faces), -1)
                risen[name, change, veil] = (scores <= bare[name] + SLACK).mean(axis=1)
                order[name, change, veil] = spearman_rows(scores, levels)
    sections = []
    for title, rows, place in (
        ("Bad faces under a veil, by veil", mixtures.VEILS, 2),
        ("Bad faces under a veil, by degradation", mixtures.CHANGES, 1),
    ):
        section = Section(
            title,
            ["veil B" if place == 2 else "degradation A"]
            + [f"{n}: {what}" for n in networks for what in (f"A + B <= A + {SLACK:g} points", "order of A under B")],
            note=f"{len(faces)} faces with {mixtures.LEVELS} severities of each degradation A, under each veil B. *A "
            f"+ B <= A + {SLACK:g} points* is the share of pictures that score at most {SLACK:g} points higher with "
            "the veil than without it. *Order of A under B* is the mean Spearman correlation of the severity with "
            "the decrease of the score within a face.",
        )
        for row in (*rows, "all"):
            cells = []
            for name in networks:
                keys = [k for k in risen if k[0] == name and row in ("all", k[place])]
                cells.append(mean_estimate(np.mean([risen[k] for k in keys], axis=0)).text(1, percent=True))
                cells.append(mean_estimate(np.mean([order[k] for k in keys], axis=0)).text())
            section.rows.append([row, *cells])
        sections.append(section)
    first = next(iter(networks))
    of_first = [k for k in risen if k[0] == first]
    tolerated = f"degraded faces whose score a veil raises by at most {SLACK:g} points"
    sections[0].goal(tolerated, float(np.mean([risen[k] for k in of_first])), 0.98, unit=" %")
    for veil in mixtures.VEILS:
        value = float(np.mean([order[k] for k in of_first if k[2] == veil]))
        sections[0].goal(f"rank correlation of score and severity under the veil '{veil}'", value, 0.9)
    return sections


def light(faces: Faces, networks: Networks) -> Section:
    """Dark, bright, low-contrast, hazy and backlit faces: order of six severities, and share of the faces whose mildest
    version scores lower than the original.
    """
    section = Section(
        "Unfavourable light",
        ["light"] + [f"{n}: {what}" for n in networks for what in ("within a face", "mildest below the original")],
        note="*Within a face* is the Spearman correlation of six severities with the decrease of the score. *Mildest "
        "below the original* is the share of the faces whose mildest version scores lower than the original.",
    )
    levels = np.arange(mixtures.LEVELS)
    clean = {name: points(network, faces) for name, network in networks.items()}
    for title, change in mixtures.LIGHTS.items():
        pictures = [change(face, level) for face in faces for level in levels]
        row = [title]
        for name, network in networks.items():
            scores = points(network, pictures).reshape(len(faces), -1)
            within = mean_estimate(spearman_rows(scores, levels))
            below = mean_estimate((scores[:, 0] < clean[name]).astype(float))
            row += [within.text(), below.text(1, percent=True)]
            if name == next(iter(networks)):
                section.goal(f"rank correlation of score and severity within a face, {title}", within.value, 0.9)
                goal = f"{title}: faces whose mildest version scores below the original"
                section.goal(goal, below.value, 0.9, unit=" %")
        section.rows.append(row)
    return section


def forgiven(faces: Faces, networks: Networks) -> Section:
    """Scores of pictures that must not score low: clean faces, and clean faces with mild grain."""
    section = Section(
        "Clean faces keep a high score",
        ["points", *networks],
        note=f"Mild grain is noise with a standard deviation of {mixtures.MILD_GRAIN:g} grey levels, in luma only.",
    )
    grainy = [mixtures.grained(face, mixtures.MILD_GRAIN, i) for i, face in enumerate(faces)]
    clean = {name: points(network, faces) for name, network in networks.items()}
    lost = {name: clean[name] - points(network, grainy) for name, network in networks.items()}
    rows = {
        "clean, median": [f"{np.median(c):.1f}" for c in clean.values()],
        "clean, 10th percentile": [f"{np.quantile(c, 0.1):.1f}" for c in clean.values()],
        "lost by mild grain, median": [f"{np.median(d):.1f}" for d in lost.values()],
        "lost by mild grain, 90th percentile": [f"{np.quantile(d, 0.9):.1f}" for d in lost.values()],
    }
    section.rows += [[title, *cells] for title, cells in rows.items()]
    first = next(iter(networks))
    section.goal("clean faces, median points", float(np.median(clean[first])), 85)
    section.goal("points lost by mild grain, median", float(np.median(lost[first])), 15, at_most=True)
    return section


def footage(faces: Faces, networks: Networks, bound: float) -> Section:
    """The same face as 1080p and as 360p footage: both should pass, and 1080p should score higher.

    bound: minimum number of points with which a face passes.
    """
    section = Section(
        "Low-resolution footage passes, but scores lower than high-resolution footage",
        ["share of faces", *networks],
        note=f"A face passes if it scores at least {bound:g} points; otherwise it is rejected as `ifqa_low`.",
    )
    films = protocol.footage(faces)
    large, small = ({n: points(network, films[h]) for n, network in networks.items()} for h in (1080, 360))
    cases = {
        "pass both as 1080p and as 360p footage": {n: np.minimum(large[n], small[n]) >= bound for n in networks},
        "score higher as 1080p than as 360p footage": {n: large[n] > small[n] for n in networks},
    }
    for title, right in cases.items():
        shares = {n: mean_estimate(hits.astype(float)) for n, hits in right.items()}
        section.rows.append([title, *(s.text(1, percent=True) for s in shares.values())])
        section.goal(f"faces that {title}", next(iter(shares.values())).value, 0.98, unit=" %")
    return section


def unreal(drawings: Faces, faces: Faces, networks: Networks, bound: float) -> Section:
    """Shares of drawings, renders, puppets and statues, and of photographed faces, that score below `bound` points."""
    section = Section(
        "Drawings, renders, puppets and statues",
        ["share below the limit", *networks],
        note=f"There are {len(drawings)} drawings, renders, puppets and statues. Faces below the limit of {bound:g} "
        "points are rejected as `ifqa_low`.",
    )
    for title, pictures in (("drawings, renders, puppets and statues", drawings), ("clean photographs", faces)):
        below = {n: mean_estimate((points(network, pictures) < bound).astype(float)) for n, network in networks.items()}
        section.rows.append([title, *(b.text(1, percent=True) for b in below.values())])
        share = next(iter(below.values())).value
        wanted = (0.95, False) if pictures is drawings else (0.01, True)
        section.goal(f"{title} below the limit", share, *wanted, unit=" %")
    return section
