"""What a face has in common with a crowd of other people, which says nothing about who it is.

Toddlers, to take the group that shows it most, resemble each other more than adults do in a network that saw few of
them: a cosine that no two adults in a million reach is common among them. So each face is compared with a cohort first,
the mean faces of small groups of people that come with the recognizer. A face that is closer to those than an ordinary
adult has to be closer to another face, too, before both count as one person. (This is adaptive symmetric normalisation
of scores, Matejka et al., Interspeech 2017, for one side: nothing becomes more alike by it, and of the cohort's cosines
the mean counts and not their spread, which is small for adults and made the rarest impostors of them look alike.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from streamgate.errors import WeightsError
from streamgate.frames import Array, Template
from streamgate.weights.files import sha256_of
from streamgate.weights.store import CohortFile


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Mean faces of groups of people, as one recognizer sees them.

    Attributes:
        centroids: float32 (C, D), unit length.
        nearest: how many of them count for a face: those that it is closest to.
        usual: the mean cosine of an ordinary adult to its nearest.
    """

    centroids: Array
    nearest: int
    usual: float

    @classmethod
    def read(cls, file: CohortFile) -> Cohort:
        """The cohort in a file beside a recognizer's weights.

        Raises:
            WeightsError: the file is missing, changed or not as its card says.
        """
        if not file.path.is_file() or sha256_of(file.path) != file.sha256:
            raise WeightsError(f"{file.path} is missing or changed; reinstall streamgate")
        with np.load(file.path, allow_pickle=False) as arrays:
            centroids = np.asarray(arrays["centroids"], np.float32)
        if centroids.ndim != 2 or len(centroids) < file.nearest:
            raise WeightsError(f"{file.path}: has {centroids.shape} centroids, its card asks for {file.nearest}")
        return cls(centroids, file.nearest, file.usual)

    def add_offset(self, template: Template) -> Template:
        """`template` with what its similarities are normalised by."""
        return replace(template, offset=self.offset(template.vector))

    def offset(self, vector: Array) -> float:
        """How much closer than usual a face is to its nearest, at least 0; `vector` float32 (D,), unit length."""
        cosines = np.sort(self.centroids.astype(np.float64) @ vector.astype(np.float64))
        return max(0.0, float(cosines[-self.nearest :].mean()) - self.usual)
