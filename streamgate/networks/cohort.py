"""Score normalisation by a cohort: corrects similarities of faces that resemble many other people.

If a network was trained on few toddlers, its embeddings of different toddlers are close together. Pairs of different
toddlers often have a cosine that fewer than one in a million pairs of different adults reach. Therefore, each face is
first compared with a cohort: a set of mean embeddings of small groups of people, which comes with the recognizer. If a
face is closer to the cohort than a typical adult is, it must also be closer to another face before the two count as one
person.

This is adaptive symmetric score normalisation (Matejka et al., Interspeech 2017) in one direction only: it never raises
a similarity. It uses the mean of the cohort's cosines, but not their spread: the spread is small for adults, and
dividing by it raised the similarity of the most similar pairs of different adults.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from streamgate.errors import WeightsError
from streamgate.frames import Array
from streamgate.tracks import Template
from streamgate.weights.files import sha256_of
from streamgate.weights.store import CohortFile


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Mean embeddings of groups of people, for one recognizer.

    Attributes:
        centroids: float32 (C, D), unit length.
        nearest: a face is compared with this many centroids, the closest ones.
        usual: mean cosine between the embedding of a typical adult and its `nearest` closest centroids.
    """

    centroids: Array
    nearest: int
    usual: float

    @classmethod
    def read(cls, file: CohortFile) -> Cohort:
        """Read the cohort from a file next to a recognizer's weights.

        Raises:
            WeightsError: the file is missing, was changed, or does not match its card.
        """
        if not file.path.is_file() or sha256_of(file.path) != file.sha256:
            raise WeightsError(f"{file.path} is missing or changed; reinstall streamgate")
        with np.load(file.path, allow_pickle=False) as arrays:
            centroids = np.asarray(arrays["centroids"], np.float32)
        if centroids.ndim != 2 or len(centroids) < file.nearest:
            raise WeightsError(
                f"{file.path} has centroids of shape {centroids.shape}, but its card requires at least {file.nearest} "
                "centroids; reinstall streamgate"
            )
        return cls(centroids, file.nearest, file.usual)

    def add_offset(self, template: Template) -> Template:
        """Return `template` with the offset that normalises its similarities."""
        return replace(template, offset=self.offset(template.vector))

    def offset(self, vector: Array) -> float:
        """By how much the mean cosine between a face and its nearest centroids exceeds `usual`, at least 0.

        `vector` is the face's embedding, float32 (D,), unit length.
        """
        cosines = np.sort(self.centroids.astype(np.float64) @ vector.astype(np.float64))
        return max(0.0, float(cosines[-self.nearest :].mean()) - self.usual)
