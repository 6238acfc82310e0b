"""Labels from files instead of the standard networks: landmarks and pose, by the sha256 of the picture's file.

`models/open/label.py` writes such files with MediaPipe's Face Landmarker. The embedding is the teacher's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.common.images import DataError
from models.recognizer.faces import CANVAS, MARGIN, Aligned, centre, warp
from models.recognizer.teacher import Teacher
from streamgate.networks.alignment import arcface_matrix


class FileLabels:
    """Implements `faces.Labels`; if a picture has several faces, the first one in the file is used."""

    def __init__(self, files: Sequence[Path], teacher: Teacher) -> None:
        """Raises DataError if a file is missing or does not have the expected arrays."""
        self._teacher = teacher
        self._rows: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._key = hashlib.sha256()
        for file in files:
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    digests, points, poses = (arrays[name] for name in ("sha256", "points", "pose"))
                if points.shape != (len(digests), 5, 2) or poses.shape != (len(digests), 3):
                    raise ValueError("shapes of `points` and `pose`")
                self._key.update(file.read_bytes())
            except (OSError, ValueError, KeyError) as error:
                raise DataError(f"{file}: not a file of labels ({error}); models/open/label.py writes them") from error
            for digest, where, pose in zip(digests.tolist(), points, poses, strict=True):
                self._rows.setdefault(digest, (where, pose))

    def key(self) -> bytes:
        """A value that changes when a label changes."""
        return self._key.digest()

    def align(self, picture: np.ndarray, sha256: str) -> Aligned | None:
        """See `faces.Labels`."""
        points, pose = self._rows.get(sha256, (np.full((5, 2), np.nan), np.zeros(3)))
        if not np.isfinite(points).all():
            return None
        try:
            matrix = arcface_matrix(points.astype(np.float64))
        except ValueError:
            return None
        canvas = warp(picture, matrix + np.array([[0, 0, MARGIN], [0, 0, MARGIN]]), CANVAS)
        turned = pose.astype(np.float32)
        # The roll in the aligned picture: alignment rotated the picture by this angle.
        turned[2] += np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
        faces = torch.from_numpy(centre(canvas)[None])
        embedding = self._teacher.embed(self._teacher.maps(self._teacher.planes(faces))[-1])[0].numpy()
        length = float(np.linalg.norm(embedding))
        return Aligned(canvas, turned, (embedding / length).astype(np.float32)) if length > 0 else None
