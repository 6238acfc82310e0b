"""What a source stores for the report."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from streamgate.report.notes import HEAT_SIGNS, Point, Series, heat, thumbnail


def series(points: list[Point], limit: int = 8) -> list[Point]:
    made = Series(limit)
    for point in points:
        made.add(point)
    return made.points()


def test_a_short_track_is_stored_as_it_is() -> None:
    points = [Point(index / 25, 50.0 + index, True) for index in range(8)]
    assert series(points) == points


def test_a_long_track_is_bounded_and_keeps_its_peak_and_its_span() -> None:
    points = [Point(index / 25, 90.0 if index == 612 else 40.0, True) for index in range(2000)]
    found = series(points)
    assert 4 <= len(found) <= 8
    assert Point(612 / 25, 90.0, True) in found
    assert found[0].pts_seconds < 10 and found[-1].pts_seconds > 70


def test_a_stretch_passed_when_one_of_its_faces_did() -> None:
    found = series([Point(index / 25, None, None if index % 2 else False) for index in range(400)])
    assert {point.passed for point in found} == {False}
    found = series([Point(0.0, None, None), *(Point(index / 25, None, index == 300) for index in range(1, 400))])
    assert [point.passed for point in found].count(True) == 1


def test_the_order_of_the_faces_does_not_matter_much() -> None:
    """With a fallback single faces come late."""
    points = [Point(index / 25, float(index % 7), True) for index in range(60)]
    late = [*points[1:], points[0]]
    assert {point.quality for point in series(late, 100)} == {point.quality for point in series(points, 100)}


def test_a_heatmap_is_a_sign_a_cell_from_bad_to_good() -> None:
    ramp = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (256, 1))
    text = heat(ramp)
    assert text is not None and len(text) == 32 * 32
    first = [HEAT_SIGNS.index(sign) for sign in text[:32]]
    assert first == sorted(first) and first[0] <= 1 and first[-1] >= 62
    assert heat(None) is None
    assert heat(np.full((8, 8), np.nan, np.float32)) == "A" * 1024


@pytest.mark.parametrize("side", [64, 128, 512])
def test_a_thumbnail_is_a_small_jpeg(side: int) -> None:
    picture = np.zeros((side, side, 3), np.uint8)
    picture[: side // 2] = (250, 20, 20)
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(thumbnail(picture)), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (128, 128, 3)
    assert decoded[30, 64, 2] > 220 and decoded[30, 64, 0] < 60 and decoded[100, 64].max() < 40
