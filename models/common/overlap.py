"""Finds training pictures that are also evaluation pictures: the same bytes, or the same picture re-encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from models.common.images import DataError, FaceCache, average_hash, decode_rgb, list_sources

# Maximum number of differing hash bits between two encodings of one picture; candidates are compared as thumbnails.
NEAR_BITS = 10
SAME_CORRELATION = 0.985


@dataclass(frozen=True)
class Overlap:
    """One training picture (`index` into the cache) that matches an evaluation picture."""

    index: int
    training: str
    evaluation: str
    exact: bool
    correlation: float


@dataclass(frozen=True)
class EvaluationSet:
    """Names, file digests, perceptual hashes and [n, 32, 32] luma thumbnails of evaluation pictures."""

    names: list[str]
    sha256: list[str]
    hashes: list[int]
    thumbnails: np.ndarray

    @classmethod
    def read(cls, paths: Sequence[Path | str]) -> EvaluationSet:
        """Read the pictures of folders and tar files."""
        names, digests, hashes, thumbnails = [], [], [], []
        for source in list_sources(paths):
            picture = decode_rgb(source.data)
            if picture is None:
                continue
            names.append(source.name)
            digests.append(hashlib.sha256(source.data).hexdigest())
            hashes.append(average_hash(picture))
            thumbnails.append(thumbnail(picture))
        if not names:
            raise DataError(f"no evaluation pictures in {', '.join(map(str, paths))}")
        return cls(names, digests, hashes, np.stack(thumbnails))

    def match(self, digest: str, picture: np.ndarray) -> bool:
        """Whether a picture (RGB uint8; digest: sha256 of its file) is one of these, byte for byte or by appearance."""
        return self.find(digest, average_hash(picture), lambda: picture) is not None

    def find(self, digest: str, code: int, picture: Callable[[], np.ndarray]) -> tuple[str, bool, float] | None:
        """The matching picture's name, whether its bytes are the same, and the correlation.

        `picture` is called only if needed.
        """
        if digest in self.sha256:
            return self.names[self.sha256.index(digest)], True, 1.0
        bits = np.array(self.hashes, np.uint64)
        near = np.nonzero(np.bitwise_count(bits ^ np.uint64(code)) <= NEAR_BITS)[0]
        if not len(near):
            return None
        face = thumbnail(picture())
        correlation = np.array([float((face * self.thumbnails[i]).sum()) for i in near])
        best = int(correlation.argmax())
        if correlation[best] < SAME_CORRELATION:
            return None
        return self.names[int(near[best])], False, float(correlation[best])


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """float32 [32, 32], luma with zero mean and unit norm, so that a dot product gives the correlation."""
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def find_overlaps(cache: FaceCache, evaluation: EvaluationSet) -> list[Overlap]:
    """Training pictures that are identical to an evaluation picture or look the same."""
    found = []
    for index, (digest, code) in enumerate(zip(cache.sha256, cache.dhash, strict=True)):
        match = evaluation.find(digest, code, lambda index=index: np.asarray(cache.faces[index]))
        if match is not None:
            name, exact, correlation = match
            found.append(Overlap(index, cache.names[index], name, exact, correlation))
    return found
