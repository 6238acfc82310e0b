"""The recipes are plain scripts beside the package: tests find them from the repository's root."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))


@pytest.fixture(scope="session")
def face() -> np.ndarray:
    """uint8 [256, 256, 3] RGB, FFHQ-aligned: the portrait that scikit-image ships."""
    pytest.importorskip("skimage")
    from models.common.smoke import astronaut_face

    return astronaut_face()
