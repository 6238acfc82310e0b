"""The head for open and closed eyes: its faces, its training, and the file that stores it.

The input of the head is pixels, not maps. Therefore, it can be trained without the backbone, before or after it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from models.common.stats import auc
from models.common.training import floats, say
from models.recognizer.architecture import EyesHead
from models.recognizer.batches import Augmentation, Batches
from models.recognizer.faces import FaceSet, LeaveOut, centre, prepare
from streamgate.networks import Networks

BORDER = 0.3
"""Border for `faces.prepare`, because pictures of closed eyes are often cropped close to the face."""


@dataclass(frozen=True)
class Settings:
    """config.toml, [eyes.training].

    Each step uses `batch` faces with open eyes and as many with closed eyes. `assumed_open` unlabelled training faces,
    except for the share `doubtful`, count as open. The share `held_out` of the labelled faces is not used for training.
    """

    steps: int
    batch: int
    rate: float
    assumed_open: int
    held_out: float
    doubtful: float


@dataclass(frozen=True)
class Eyes:
    """A trained head (eval mode), its figures for the card, and held-out faces with closed eyes for calibration.

    `closed` is uint8 [n, 112, 112, 3], or None if the head was loaded and no labelled faces were given.
    """

    head: EyesHead
    figures: dict[str, Any]
    closed: np.ndarray | None = None

    def state(self) -> dict[str, Any]:
        """The content of `work/eyes-*.pth`, which is also stored with the committed weights."""
        return {"head": self.head.state_dict(), "figures": self.figures}

    @classmethod
    def of(cls, state: dict[str, Any], closed: np.ndarray | None = None) -> Eyes:
        """The head from `state()`, whose tensors may be in half precision."""
        head = EyesHead()
        head.load_state_dict(floats(state["head"]))
        return cls(head.eval(), dict(state["figures"]), closed)


@dataclass(frozen=True)
class EyeFaces:
    """The labelled faces, and their split into training and held-out faces."""

    open: FaceSet
    closed: FaceSet

    def split(self, faces: FaceSet, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Indices of training and held-out faces, chosen by content, so that added faces change nothing."""
        first = np.array([int(digest[:8], 16) / 2**32 for digest in faces.sha256])
        return np.nonzero(first >= share)[0], np.nonzero(first < share)[0]


def read(open_: Path, closed: Path, leave_out: LeaveOut, folder: Path, networks: Networks) -> EyeFaces:
    """Align the faces of both folders; people in `leave_out` are excluded."""
    return EyeFaces(*(prepare([path], [], leave_out, folder, networks, 8, BORDER) for path in (open_, closed)))


def trained(
    labelled: EyeFaces,
    others: FaceSet,
    indexes: np.ndarray,
    settings: Settings,
    how: Augmentation,
    seed: int,
    folder: Path,
) -> Eyes:
    """The head for these faces and settings: loaded from `folder`, or trained now and stored there."""
    held = labelled.split(labelled.closed, settings.held_out)[1]
    closed = crops_of(labelled.closed, held)
    digests = [*labelled.open.sha256, *labelled.closed.sha256, *(others.sha256[int(i)] for i in indexes)]
    key = hashlib.sha256(repr((settings, how, seed, digests, str(EyesHead()))).encode()).hexdigest()[:12]
    kept = folder / f"eyes-{key}.pth"
    if kept.is_file():
        return Eyes.of(torch.load(kept, map_location="cpu", weights_only=True), closed)
    head, figures = train_head(labelled, others, indexes, settings, how, seed)
    eyes = Eyes(head, figures, closed)
    part = kept.with_suffix(".part")
    torch.save(eyes.state(), part)
    part.replace(kept)
    return eyes


def crops_of(faces: FaceSet, indexes: np.ndarray) -> np.ndarray:
    """The unchanged crops, uint8 [n, 112, 112, 3]."""
    return np.stack([centre(faces.faces[int(index)]) for index in indexes])


def train_head(
    labelled: EyeFaces, others: FaceSet, indexes: np.ndarray, settings: Settings, how: Augmentation, seed: int
) -> tuple[EyesHead, dict[str, Any]]:
    """The trained head (eval mode) and its figures on held-out faces.

    others[indexes]: unlabelled training faces, nearly all with open eyes. A first head rates them. The share `doubtful`
    with the least open eyes is left out when the second head is trained, which is returned.
    """
    pool = np.asarray(indexes)[: settings.assumed_open]
    head = _train(labelled, others, pool, settings, how, seed)
    if len(pool) and settings.doubtful:
        seen = probabilities(head, crops_of(others, pool))
        pool = pool[seen > np.quantile(seen, settings.doubtful)]
        head = _train(labelled, others, pool, settings, how, seed + 1)
    held = [labelled.split(faces, settings.held_out)[1] for faces in (labelled.open, labelled.closed)]
    found = [
        probabilities(head, crops_of(faces, rows))
        for faces, rows in zip((labelled.open, labelled.closed), held, strict=True)
    ]
    figures = {
        "open": len(labelled.open.names) - len(held[0]),
        "closed": len(labelled.closed.names) - len(held[1]),
        "assumed_open": len(pool),
        "held_out": [len(rows) for rows in held],
        "auc": round(auc(found[0], found[1]), 4),
    }
    say(f"eyes: {figures}")
    return head, figures


def _train(
    labelled: EyeFaces, others: FaceSet, pool: np.ndarray, settings: Settings, how: Augmentation, seed: int
) -> EyesHead:
    torch.manual_seed(seed)
    head = EyesHead().train()
    optimiser = torch.optim.AdamW(head.parameters(), settings.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=settings.steps)
    kinds = [(labelled.closed, labelled.split(labelled.closed, settings.held_out)[0], settings.batch, 0.0)]
    rest = settings.batch // 2 if len(pool) else 0
    opened = labelled.split(labelled.open, settings.held_out)[0]
    kinds.append((labelled.open, opened, settings.batch - rest, 1.0))
    if rest:
        kinds.append((others, pool, rest, 1.0))
    batches = [Batches(faces, rows, size, how, seed + i) for i, (faces, rows, size, _) in enumerate(kinds)]
    wanted = torch.cat([torch.full((size,), label) for _, _, size, label in kinds])
    # A face has one label for both eyes. Labels are smoothed, so that the head does not memorise winks as closed eyes.
    wanted = (0.98 * wanted + 0.01).expand(2, -1)
    for step in range(settings.steps):
        faces = np.concatenate([drawn[step]["face"] for drawn in batches])
        loss = F.binary_cross_entropy_with_logits(head.each(torch.as_tensor(faces)), wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            say(f"eyes {step + 1}/{settings.steps}: {float(loss.detach()):.4f}")
    return head.eval()


@torch.no_grad()
def probabilities(head: EyesHead, crops: np.ndarray) -> np.ndarray:
    """Probabilities float32 [n] that both eyes are open, for crops uint8 [n, 112, 112, 3]."""
    return np.concatenate([head(torch.as_tensor(crops[i : i + 128])).numpy() for i in range(0, len(crops), 128)])
