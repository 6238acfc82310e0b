"""The example of docs/measures.md works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from streamgate.faces import Face
from streamgate.measures import FaceView, MeasureSpec
from streamgate.sources import picture_of_rgb
from support.media import astronaut

PAGE = Path(__file__).parents[2] / "docs" / "measures.md"
FACE = Face(
    np.array([185, 70, 265, 170], np.float32),
    np.array([[205, 106], [243, 106], [226, 131], [210, 145], [242, 145]], np.float32),
    0.99,
)


def test_what_the_examples_import_is_there() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    found = [line for block in blocks for line in re.findall(r"^(?:from|import) .*", block, re.M)]
    assert len(found) >= 5
    for line in found:
        if "left_eye" not in line:  # the module that a reader adds
            exec(line, {})


def test_the_example_measures_the_light_on_an_eye() -> None:
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert example is not None
    names: dict[str, object] = {}
    exec(example[1], names)
    measure = names["MEASURE"]
    assert isinstance(measure, MeasureSpec) and list(measure.reasons) == ["eye_dark"]
    image = astronaut()
    lit = measure.read(FaceView(picture_of_rgb(image), FACE))
    assert measure.read(FaceView(picture_of_rgb(image // 4), FACE)) == pytest.approx(lit / 4, abs=2)
    assert measure.read(FaceView(picture_of_rgb(image), Face(FACE.box + 900, FACE.landmarks + 900, 0.9))) is None
