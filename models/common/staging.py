"""Files that belong together, such as weights and their card, are written completely or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(target: Path, *names: str) -> Iterator[Path]:
    """A folder in which the block writes the files `names`; after it, they are moved into `target`, in this order.

    A card next to weights marks them as complete, so name it last. If the block raises, `target` keeps its files.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as made:
        stage = Path(made)
        yield stage
        for name in names:
            os.replace(stage / name, target / name)
