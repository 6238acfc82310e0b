"""Does the score depend on the person? Scores by UTKFace's labels, by the measured skin tone and by glasses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from models.common.align import align_ffhq
from models.common.images import DataError, decode_rgb, list_sources
from models.common.report import Section
from models.common.stats import bootstrap, spearman
from models.ifqa.scoring import Scorers
from streamgate.networks.device import load_onnxruntime

RACES = ("White", "Black", "Asian", "Indian", "others")
AGES = ((0, 12), (13, 29), (30, 49), (50, 69), (70, 120))
NAME = re.compile(r"(?P<age>\d{1,3})_(?P<sex>[01])_(?P<race>[0-4])_")


def sharpness(face: np.ndarray) -> float:
    """Variance of the Laplacian of the face's luma, divided by the variance of the luma: how much detail there is."""
    luma = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)[75:225, 65:190]
    return float(cv2.Laplacian(luma, cv2.CV_32F).var() / max(luma.var(), 1.0))


def skin_tone(face: np.ndarray) -> float:
    """Individual typology angle of the cheeks in degrees (median): above 41 is light, below 10 is brown to dark."""
    lab = cv2.cvtColor(face.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    cheeks = np.concatenate([lab[150:180, 80:108].reshape(-1, 3), lab[150:180, 148:176].reshape(-1, 3)])
    lightness, _, yellow = np.median(cheeks, axis=0)
    return float(np.degrees(np.arctan2(lightness - 50, yellow)))


class Landmarks:
    """The five landmarks of the face with the highest score in a square picture, by YuNet."""

    def __init__(self, model: Path) -> None:
        self.session = load_onnxruntime().InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def __call__(self, picture: np.ndarray, side: int = 320) -> np.ndarray | None:
        """Landmarks [5, 2] in pixels of a picture uint8 [H, H, 3] RGB; None if no face has a score above 0.6."""
        scale = picture.shape[0] / side
        bgr = cv2.resize(picture, (side, side))[..., ::-1].astype(np.float32)
        outputs = [o.name for o in self.session.get_outputs()]
        blob = np.ascontiguousarray(bgr.transpose(2, 0, 1)[None])
        values = dict(zip(outputs, self.session.run(None, {self.session.get_inputs()[0].name: blob}), strict=True))
        best, points = 0.6, None
        for stride in (8, 16, 32):
            score = np.sqrt(values[f"cls_{stride}"].ravel().clip(0, 1) * values[f"obj_{stride}"].ravel().clip(0, 1))
            top = int(score.argmax())
            if score[top] > best:
                best = float(score[top])
                row, column = divmod(top, side // stride)
                offset = values[f"kps_{stride}"].reshape(-1, 5, 2)[top]
                points = (offset + np.array([column, row])) * stride * scale
        return points


def read_labelled(
    paths: Sequence[Path], detector: Path, per_race: int
) -> tuple[list[np.ndarray], list[tuple[int, int, int]]]:
    """Aligned faces of files that are named like UTKFace's, and their (age, sex, race); the same faces on every run.

    detector: YuNet's ONNX file; per_race: maximum number of faces of each race. Raises DataError if there are no files
    with such names.
    """
    find = Landmarks(detector)
    faces, labels, counts = [], [], [0] * len(RACES)
    sources = [s for s in list_sources(paths) if NAME.match(Path(s.name).name)]
    if not sources:
        raise DataError(f"no pictures named AGE_SEX_RACE_* in {', '.join(map(str, paths))}")
    for index in np.random.default_rng(5).permutation(len(sources)):
        match = NAME.match(Path(sources[index].name).name)
        picture = decode_rgb(sources[index].data)
        assert match is not None
        race = int(match["race"])
        if picture is None or counts[race] >= per_race or picture.shape[0] != picture.shape[1]:
            continue
        landmarks = find(picture)
        if landmarks is None:
            continue
        counts[race] += 1
        faces.append(align_ffhq(picture, landmarks))
        labels.append((int(match["age"]), int(match["sex"]), race))
        if min(counts) >= per_race:
            break
    return faces, labels


def by_label(faces: list[np.ndarray], labels: list[tuple[int, int, int]], scorers: Scorers, spread: float) -> Section:
    """Median score of each group, its difference from the median of all faces, and the sharpness of the group's files.

    labels: (age, sex, race) of each face; spread: the p10-p90 range of all scores.
    """
    section = Section(
        "Groups by UTKFace labels",
        [
            "group",
            "faces",
            "median score",
            "difference from the median of all faces, share of the p10-p90 range",
            "the same, compared with equally sharp faces",
            "median sharpness, as a percentile of all faces",
            "median NIQE, as a percentile of all faces",
        ],
        note="UTKFace's crops are web pictures of 200 px, upscaled here by about a quarter, and the groups differ in "
        "picture quality. The p10-p90 range is that of all scores. The fifth column compares each face with the faces "
        "in the same decile of sharpness.",
    )
    scored = scorers.score(faces)
    score, sharp = scored["IFQA"], np.array([sharpness(f) for f in faces])
    decile = np.searchsorted(np.quantile(sharp, np.arange(0.1, 1, 0.1)), sharp)
    expected = np.array([np.median(score[decile == d]) if (decile == d).any() else 0.0 for d in range(10)])[decile]
    ages, sexes, races = (np.array(v) for v in zip(*labels, strict=True))
    members = {f"race: {name}": races == i for i, name in enumerate(RACES)}
    members |= {"sex: male": sexes == 0, "sex: female": sexes == 1}
    members |= {f"age {a}-{b}": (ages >= a) & (ages <= b) for a, b in AGES}
    for title, member in members.items():
        if member.sum() < 20:
            continue
        own, rest = score[member], (score - expected)[member]
        raw = bootstrap(lambda i, v=own: float(np.median(v[i]) - np.median(score)) / spread, len(own))
        like = bootstrap(lambda i, v=rest: float(np.median(v[i])) / spread, len(rest))
        percentile = float((sharp < np.median(sharp[member])).mean())
        niqe = "-"
        if "NIQE" in scored:
            niqe = f"{(scored['NIQE'] < np.median(scored['NIQE'][member])).mean() * 100:.0f}"
        section.rows.append(
            [
                title,
                str(int(member.sum())),
                f"{np.median(own):.3f}",
                raw.text(1, percent=True),
                like.text(1, percent=True),
                f"{percentile * 100:.0f}",
                niqe,
            ]
        )
    return section


def by_picture(faces: Sequence[np.ndarray], scorers: Scorers, glasses: np.ndarray | None, spread: float) -> Section:
    """Correlation of the score of clean faces with skin tone, brightness and sharpness, and the effect of glasses.

    glasses: bool [N], which faces wear glasses; None if not known. spread: the p10-p90 range of all scores.
    """
    section = Section(
        "What the score of clean faces depends on",
        ["property", "Spearman with the score", "the same at equal sharpness"],
        note="Skin tone is the individual typology angle of the cheeks, which is larger for lighter skin. The last "
        "column is the partial rank correlation, with the sharpness held fixed.",
    )
    score = scorers.shipped.scores(faces)
    sharp = np.array([sharpness(f) for f in faces])
    luma = np.array([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)[75:225, 65:190].mean() for f in faces])
    tone = np.array([skin_tone(f) for f in faces])
    count = len(faces)
    for title, value in (
        ("skin tone (positive: lighter skin scores higher)", tone),
        ("brightness of the face", luma),
        ("sharpness of the file", sharp),
    ):
        plain = bootstrap(lambda i, v=value: spearman(v[i], score[i]), count)
        fixed = (
            "-" if value is sharp else bootstrap(lambda i, v=value: partial(v[i], score[i], sharp[i]), count).text(2)
        )
        section.rows.append([title, plain.text(2), fixed])
    if glasses is not None:
        with_, without = score[glasses], score[~glasses]
        rng = np.random.default_rng(0)
        draws = [
            np.median(rng.choice(with_, len(with_))) - np.median(rng.choice(without, len(without))) for _ in range(1000)
        ]
        low, high = np.quantile(draws, (0.025, 0.975)) / spread * 100
        middle = (np.median(with_) - np.median(without)) / spread * 100
        text = f"median differs by {middle:.1f} % ({low:.1f} to {high:.1f}) of the p10-p90 range of all scores"
        section.rows.append([f"glasses ({len(with_)} with, {len(without)} without)", text, "-"])
    return section


def partial(a: np.ndarray, b: np.ndarray, given: np.ndarray) -> float:
    """Partial Spearman correlation of a and b with `given` held fixed."""
    ab, ag, bg = spearman(a, b), spearman(a, given), spearman(b, given)
    return (ab - ag * bg) / max(np.sqrt((1 - ag**2) * (1 - bg**2)), 1e-9)
