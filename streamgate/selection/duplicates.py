"""Detects near-duplicates: two faces of one person that look the same, of which a dataset needs only one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgate.config_sections import KeepConfig
from streamgate.frames import Array

_SMALL = 35.0
"""Distance between the eyes, in source pixels, below which a face has less detail than the recognizer's crop can
show."""
_SURE = 0.1
_NOISE_COSINE, _NOISE_BITS = 0.1, 2
"""How much noise lowers the cosine, and how many bits of the hash it changes, for two small faces that look the same;
measured with 25 px between the eyes."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """The appearance of a face.

    `hash` is the perceptual hash of the face (`fingerprint.py`); `embedding` (D,) need not be normalised. Either is
    None if it is unknown. `inter_eye` is the distance between the eyes in source pixels.
    """

    hash: int | None
    embedding: Array | None
    inter_eye: float = 100.0


def are_duplicates(one: Appearance, other: Appearance, keep: KeepConfig) -> bool:
    """Whether two faces are near-duplicates because both their hashes and their embeddings are close.

    At most `duplicate_bits` of 63 bits may differ, and the cosine must be at least `duplicate_cosine`. If the cosine
    exceeds `duplicate_cosine` by `_SURE`, the hash is ignored, because it is too sensitive to a slight tilt of the
    head. If an embedding is unknown or no longer kept, the hash alone decides, and at most half of `duplicate_bits` may
    differ. With a `duplicate_cosine` above 1, no faces count as near-duplicates.
    """
    if one.hash is None or other.hash is None or keep.duplicate_cosine > 1.0:
        return False
    bits = (one.hash ^ other.hash).bit_count()
    if one.embedding is None or other.embedding is None:
        return bits <= keep.duplicate_bits // 2
    small = min(one.inter_eye, other.inter_eye) < _SMALL
    cosine = _cosine(one.embedding, other.embedding) + (_NOISE_COSINE if small else 0.0)
    close = bits - (_NOISE_BITS if small else 0) <= keep.duplicate_bits
    return cosine >= keep.duplicate_cosine + (0.0 if close else _SURE)


def _cosine(one: Array, other: Array) -> float:
    lengths = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / lengths if lengths > 0.0 else 0.0
