"""Do two faces of one person look the same? Then a dataset wants one of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamgate.config_sections import KeepConfig
from streamgate.frames import Array

_SMALL = 35.0
"""Source pixels between the eyes below which a face has less detail than the recognizer's picture takes."""
_SURE = 0.1
_NOISE_COSINE, _NOISE_BITS = 0.1, 2
"""What noise alone takes from small faces that look the same, as seen on footage with 25 px between the eyes."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """What a face looks like: `hash` is its perceptual hash (`fingerprint.py`), `embedding` (D,) of any length.

    None where it is not known. `inter_eye` is the distance between the eyes in source pixels.
    """

    hash: int | None
    embedding: Array | None
    inter_eye: float = 100.0


def are_duplicates(one: Appearance, other: Appearance, keep: KeepConfig) -> bool:
    """Whether one of the two is enough: both their hashes and their embeddings are close.

    `duplicate_bits` of 63 may differ at most, and the cosine is at least `duplicate_cosine`; where that is higher by
    `_SURE`, the hash does not matter: it changes more than the look when a head leans. Where an embedding is not known
    (any more), half the bits alone decide. With a cosine above 1 nothing is a near-duplicate.
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
