"""Evaluation on held-out faces for the training log: similarity to the teacher, pose and occlusion."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from models.common.stats import auc
from models.recognizer.batches import Augmentation, Batches
from models.recognizer.faces import FaceSet, centre
from models.recognizer.teacher import Teacher
from models.recognizer.trainer import Trainer

LOOKS = ("clean", "augmented")


class Monitor:
    """Held-out faces, unchanged and augmented once, with the teacher's embeddings of both."""

    def __init__(self, faces: FaceSet, indexes: np.ndarray, augmentation: Augmentation, teacher: Teacher) -> None:
        drawn = Batches(faces, indexes, len(indexes), augmentation, seed=77)[0]
        self._faces = {"clean": np.stack([centre(faces.faces[int(i)]) for i in indexes]), "augmented": drawn["face"]}
        self._pose, self._visible = faces.pose[indexes], drawn["visible"]
        self._wanted = {name: _embed(teacher, pictures) for name, pictures in self._faces.items()}

    def look(self, trainer: Trainer) -> dict[str, float]:
        """Cosine with the teacher, correlation of pairwise similarities, pose error in degrees, AUC for covers."""
        figures = {}
        found = {name: trainer.look(pictures) for name, pictures in self._faces.items()}
        for name in LOOKS:
            mine, wanted = found[name]["embedding"], self._wanted[name]
            cosine = (mine * wanted).sum(axis=1)
            pairs = np.triu_indices(len(mine), 1)
            figures[f"cosine.{name}"] = float(cosine.mean())
            figures[f"p10.{name}"] = float(np.quantile(cosine, 0.1))
            figures[f"pairs.{name}"] = float(np.corrcoef((mine @ mine.T)[pairs], (wanted @ wanted.T)[pairs])[0, 1])
        error = np.abs(found["clean"]["pose"] - self._pose).mean(axis=0)
        figures |= dict(zip(("yaw", "pitch", "roll"), map(float, error), strict=True))
        covered = self._visible < 0.85
        if covered.any() and not covered.all():
            seen = found["augmented"]["visible"]
            figures["covered"] = auc(-seen[covered], -seen[~covered])
        return figures


def table(figures: dict[str, float]) -> str:
    """One line for the log."""
    return " ".join(f"{name} {value:.3f}" for name, value in figures.items())


def _embed(teacher: Teacher, pictures: np.ndarray, chunk: int = 64) -> np.ndarray:
    device = next(teacher.network.parameters()).device
    found = []
    for start in range(0, len(pictures), chunk):
        planes = teacher.planes(torch.as_tensor(pictures[start : start + chunk]).to(device))
        found.append(F.normalize(teacher.embed(teacher.maps(planes)[-1].float())).cpu().numpy())
    return np.concatenate(found)
