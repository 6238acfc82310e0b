"""Sharpness, exposure and edge from pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamgate.faces import Evidence, Face
from streamgate.measures import FaceView
from streamgate.measures.edge import share_inside
from streamgate.measures.exposure import MEASURE as EXPOSURE
from streamgate.measures.face_view import face_core, noise_of, quantiles
from streamgate.measures.sharpness import MEASURE as SHARPNESS
from streamgate.measures.sharpness import sharpness_of
from streamgate.measures.yaw import yaw_proxy
from streamgate.sources import picture_of_rgb
from support.media import astronaut

# The astronaut's eyes, nose and mouth corners in the 512 x 512 picture, by eye.
LANDMARKS = np.array([[205, 106], [243, 106], [226, 131], [210, 145], [242, 145]], np.float32)
FACE = Face(np.array([185, 70, 265, 170], np.float32), LANDMARKS, 0.99)


def view(rgb: np.ndarray, scale: float = 1.0) -> FaceView:
    return FaceView(picture_of_rgb(rgb), Face(FACE.box * scale, FACE.landmarks * scale, 0.99))


def sharpness(rgb: np.ndarray, scale: float = 1.0) -> float:
    value = SHARPNESS.read(view(rgb, scale))
    assert isinstance(value, float)
    return value


def test_blur_lowers_sharpness_step_by_step() -> None:
    image = astronaut()
    values = [sharpness(image)] + [sharpness(cv2.GaussianBlur(image, (0, 0), sigma)) for sigma in (0.8, 1.5, 3.0)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0] / 8


def test_grain_dither_and_sharpening_do_not_make_up_for_blur() -> None:
    image = astronaut()
    noise = np.random.default_rng(3).normal(0, 1, image.shape[:2])[..., None]
    blurred = cv2.GaussianBlur(image, (0, 0), 2.5)
    dots = np.tile(np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 - 0.5, (128, 128))
    worse = {
        "grain": np.clip(blurred + 10 * noise, 0, 255),
        "dither": np.clip(np.round(blurred / 17.0 + dots[..., None]) * 17, 0, 255),
        "sharpened": cv2.addWeighted(blurred, 2.5, cv2.GaussianBlur(blurred, (0, 0), 2.0), -1.5, 0),
    }
    for name, picture in worse.items():
        assert sharpness(picture.astype(np.uint8)) < sharpness(image) / 3, name
    # A clean face does not gain by it either.
    assert sharpness(np.clip(image + 8 * noise, 0, 255).astype(np.uint8)) < 1.1 * sharpness(image)


def test_sharpness_is_taken_at_one_size() -> None:
    image = astronaut()
    large = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    larger = cv2.resize(image, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    assert sharpness(larger, 8) == pytest.approx(sharpness(large, 4), rel=0.1)


def test_contrast_does_not_count_as_sharpness() -> None:
    luma = cv2.cvtColor(astronaut(), cv2.COLOR_RGB2GRAY)[70:170, 185:265]
    flat = (luma.astype(np.float32) * 0.5 + 60).astype(np.uint8)
    assert sharpness_of(flat, noise_of(flat)) == pytest.approx(sharpness_of(luma, noise_of(luma)), rel=0.15)


def test_an_even_area_has_no_sharpness_and_a_tiny_one_no_figure() -> None:
    assert sharpness_of(np.full((64, 64), 90, np.uint8), 0.0) == 0.0
    assert SHARPNESS.read(view(np.zeros((4, 64, 3), np.uint8))) is None


def test_exposure_tells_dark_and_bright_from_good() -> None:
    image = astronaut().astype(np.float32)
    good = EXPOSURE.read(view(image.astype(np.uint8)))
    dark = EXPOSURE.read(view((image * 0.15).astype(np.uint8)))
    bright = EXPOSURE.read(view(np.clip(image * 3 + 80, 0, 255).astype(np.uint8)))
    assert good["exposure"] > 0.8 > 0.4 > max(dark["exposure"], bright["exposure"])
    (limit,) = EXPOSURE.limits
    assert [limit.choose(Evidence(dict(found))) for found in (dark, bright)] == ["dark", "bright"]


def test_exposure_does_not_follow_skin_but_noise() -> None:
    image = astronaut().astype(np.float32)
    good = EXPOSURE.read(view(image.astype(np.uint8)))["exposure"]
    # Half as much light returned, the whites of the eyes and the highlights as before: skin, not light.
    darker = np.where(image < 150, image * 0.5, image * 0.5 + (image - 150))
    assert EXPOSURE.read(view(np.clip(darker, 0, 255).astype(np.uint8)))["exposure"] == pytest.approx(good, abs=0.02)
    noise = np.random.default_rng(3).normal(0, 12, image.shape[:2])[..., None]
    noisy = EXPOSURE.read(view(np.clip(image * 0.3 + noise, 0, 255).astype(np.uint8)))["exposure"]
    assert noisy < EXPOSURE.read(view((image * 0.3).astype(np.uint8)))["exposure"] - 0.3


@pytest.mark.parametrize(
    ("box", "share"),
    [([0, 0, 10, 10], 1.0), ([-5, 0, 5, 10], 0.5), ([95, 95, 105, 105], 0.25), ([200, 0, 210, 10], 0.0)],
)
def test_edge_is_the_share_of_the_square_inside(box: list[float], share: float) -> None:
    x1, y1, x2, y2 = box
    corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)
    assert share_inside(corners, np.array([0, 0, 100, 100])) == pytest.approx(share)


def test_a_tilted_square_is_cut_by_the_frame_and_by_black_bars() -> None:
    corners = np.array([[50, 10], [90, 50], [50, 90], [10, 50]], float)
    assert share_inside(corners, np.array([0, 0, 100, 100])) == pytest.approx(1.0)
    assert share_inside(corners, np.array([0, 0, 50, 100])) == pytest.approx(0.5)
    assert share_inside(corners, np.array([0, 30, 100, 100])) == pytest.approx(1 - 400 / 3200, abs=1e-3)
    assert share_inside(corners, np.array([60, 0, 60, 100])) == 0.0


def test_face_core_follows_the_landmarks() -> None:
    core = face_core(FACE)
    assert core[0] < LANDMARKS[0, 0] and core[2] > LANDMARKS[1, 0]
    assert core[1] < LANDMARKS[0, 1] and core[3] > LANDMARKS[3, 1]


def test_yaw_proxy_has_the_sign_of_yaw_and_mirrors() -> None:
    turned = LANDMARKS + np.array([[0, 0], [0, 0], [9, 0], [0, 0], [0, 0]], np.float32)
    mirrored = (turned * [-1, 1])[[1, 0, 2, 4, 3]]
    to_right = yaw_proxy(Face(FACE.box, turned, 0.9))
    assert to_right > 10
    assert yaw_proxy(Face(FACE.box, mirrored, 0.9)) == pytest.approx(-to_right, abs=1e-4)


@pytest.mark.parametrize("count", [1, 2, 9, 1000])
def test_quantiles_match_numpy(count: int) -> None:
    levels = np.random.default_rng(count).integers(0, 256, count).astype(np.uint8)
    shares = (0.0, 0.05, 0.5, 0.95, 1.0)
    assert quantiles(levels, *shares) == pytest.approx(np.quantile(levels, shares))


def test_noise_response_above_255_is_not_clipped() -> None:
    luma = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (64, 64))
    response = np.abs(cv2.filter2D(luma, cv2.CV_16S, np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)))
    assert np.median(response) > 255
    assert noise_of(luma) == pytest.approx(np.median(response) / (6 * 0.6745))


def test_a_soft_face_in_which_ifqa_finds_nothing_clean_is_blurred() -> None:
    (limit,) = SHARPNESS.limits

    def excess(raw: float, **others: float) -> float | None:
        return limit.excess(SHARPNESS.mapping.scalar(raw), limit.at(limit.value, Evidence(values=others), 640, 480))

    assert excess(0.0055) is None
    assert excess(0.0055, ifqa=0.4) is None
    assert excess(0.0055, ifqa=0.005) > 0
    assert excess(0.02, ifqa=0.0005) is None
