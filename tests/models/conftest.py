"""Fixtures of the tests of recipes."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def face() -> np.ndarray:
    """uint8 [256, 256, 3] RGB, FFHQ-aligned: the portrait that scikit-image ships."""
    pytest.importorskip("skimage")
    from models.common.smoke import astronaut_face

    return astronaut_face()
