"""The golden test of docs/design.md 3: planes answer as a full-frame RGB conversion would."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av import VideoFrame
from av.filter import Graph

from streamgate.sources import open_source
from streamgate.sources.picture import PictureMaker, PlanePicture, picture_of_rgb
from support.media import MATRIX_CODES, astronaut, make_frame, write_clip

LEFT, CENTRE = "h264", "mjpeg"
LIMIT = 2.0  # mean levels

FORMATS = [
    "yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuvj420p", "yuv420p10le", "yuv422p10le",
    "yuv444p12le", "nv12", "nv21", "nv16", "p010le", "p210le", "gray", "gray10le", "rgb24", "bgr24", "rgba",
    "bgra", "bgr0",
    # converted first
    "gbrp", "pal8", "yuyv422", "uyvy422", "gbrp10le", "yuv420p10be", "ya8",
]  # fmt: skip
SIZES = [(320, 240), (321, 241), (187, 333)]


def swscale_rgb(frame: VideoFrame, *, siting: str = "left", matrix: str = "bt601") -> np.ndarray:
    """Full-frame conversion by FFmpeg with all the exactness it offers."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)
    )
    flags = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
    where = f":in_chroma_loc={siting}:in_color_matrix={matrix}" if not frame.format.is_rgb else ""
    scale = graph.add("scale", flags + where)
    form = graph.add("format", "pix_fmts=rgb24")
    sink = graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(form)
    form.link_to(sink)
    graph.configure()
    graph.vpush(frame)
    return graph.vpull().to_ndarray(format="rgb24")


def face_matrix(size: tuple[int, int], scale: float, angle: float = 17.0) -> np.ndarray:
    """A similarity that puts the picture's middle in the middle of a 112 crop."""
    matrix = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), angle, scale)
    matrix[:, 2] += 56 - np.array(size) / 2
    return matrix


def difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_warp_equals_full_conversion_then_warp(pix_fmt: str, size: tuple[int, int]) -> None:
    full_range = pix_fmt in ("gray", "gray10le", "ya8", "yuvj420p")
    frame = make_frame(astronaut(*size), pix_fmt, full_range=full_range)
    picture = PictureMaker(LEFT).picture(frame)
    golden = swscale_rgb(frame)
    for scale in (0.37, 0.9, 1.7):
        matrix = face_matrix(size, scale)
        assert difference(picture.warp(matrix, 112), picture_of_rgb(golden).warp(matrix, 112)) <= LIMIT


@pytest.mark.parametrize("scale", [1.0, 1.7, 3.0])
def test_enlarging_warp_equals_plain_opencv(scale: float) -> None:
    frame = make_frame(astronaut(320, 240))
    matrix = face_matrix((320, 240), scale)
    plain = cv2.warpAffine(
        swscale_rgb(frame), matrix, (112, 112), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    assert difference(PictureMaker(LEFT).picture(frame).warp(matrix, 112), plain) <= LIMIT


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "nv12", "p010le"])
@pytest.mark.parametrize("codec, siting", [(LEFT, "left"), (CENTRE, "center")])
def test_chroma_siting_is_honoured(pix_fmt: str, codec: str, siting: str) -> None:
    # Coloured stripes: half a pixel of chroma shift shows.
    rgb = np.zeros((120, 160, 3), np.uint8)
    rgb[..., 0] = (np.sin(np.arange(160) / 6.0) * 100 + 128).astype(np.uint8)
    rgb[..., 2] = 255 - rgb[..., 0]
    frame = make_frame(rgb, pix_fmt)
    size = (160, 120)
    ours = PictureMaker(codec).picture(frame).warp(np.eye(2, 3), size)
    other = "center" if siting == "left" else "left"
    right = difference(ours, swscale_rgb(frame, siting=siting))
    wrong = difference(ours, swscale_rgb(frame, siting=other))
    assert right <= LIMIT
    assert wrong > 2 * right


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("full_range", [False, True])
def test_matrix_and_range_are_honoured(matrix: str, full_range: bool) -> None:
    rgb = astronaut(320, 240)
    frame = make_frame(rgb, "yuv444p", matrix=matrix, full_range=full_range)
    picture = PictureMaker(LEFT).picture(frame)
    assert difference(picture.warp(np.eye(2, 3), (320, 240)), rgb) <= 1.0
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    assert difference(picture.luma(), luma) <= (1.0 if matrix == "bt601" else 8.0)


@pytest.mark.parametrize("height, matrix", [(576, "bt601"), (719, "bt601"), (720, "bt709"), (1080, "bt709")])
def test_unknown_matrix_goes_by_height(height: int, matrix: str) -> None:
    rgb = astronaut(160, height)
    frame = make_frame(rgb, "yuv444p", matrix=matrix)
    frame.colorspace = 2
    ours = PictureMaker(LEFT).picture(frame).warp(np.eye(2, 3), (160, height))
    assert difference(ours, rgb) <= 1.0
    assert MATRIX_CODES[matrix] in (1, 6)


@pytest.mark.parametrize("tag", [0, 1, 2])
def test_gray_is_full_range_whatever_its_tag(tag: int) -> None:
    frame = make_frame(astronaut(64, 48), "gray", full_range=True)
    frame.color_range = tag
    picture = PictureMaker(LEFT).picture(frame)
    np.testing.assert_array_equal(picture.warp(np.eye(2, 3), (64, 48)), swscale_rgb(frame))
    np.testing.assert_array_equal(picture.luma(), swscale_rgb(frame)[..., 0])


@pytest.mark.parametrize("aspect", [Fraction(128, 117), Fraction(4, 3), Fraction(3, 4)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12", "bgra"])
def test_pixels_become_square_by_stretching(aspect: Fraction, pix_fmt: str) -> None:
    frame = make_frame(astronaut(176, 144), pix_fmt)
    picture = PictureMaker(LEFT, aspect).picture(frame)
    size = (round(176 * aspect), 144) if aspect > 1 else (176, round(144 / aspect))
    assert (picture.width, picture.height) == size
    golden = cv2.resize(swscale_rgb(frame), size, interpolation=cv2.INTER_CUBIC)
    matrix = face_matrix(size, 0.9)
    assert difference(picture.warp(matrix, 112), picture_of_rgb(golden).warp(matrix, 112)) <= LIMIT
    assert picture.thumbnail(100).shape[:2] == tuple(round(side * 100 / max(size)) for side in size[::-1])
    luma = cv2.cvtColor(golden, cv2.COLOR_RGB2GRAY)
    assert difference(picture.luma(), luma) <= LIMIT


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "nv12", "yuv420p10le", "rgb24", "gray"])
def test_region_answers_as_the_whole(pix_fmt: str) -> None:
    frame = make_frame(astronaut(321, 241), pix_fmt)
    whole = PictureMaker(LEFT).picture(frame)
    box = np.array([101.3, 57.9, 220.2, 180.0])
    region = whole.region(box)
    assert (region.width, region.height) == (321, 241)
    np.testing.assert_array_equal(region.luma(box), whole.luma(box))
    matrix = cv2.getRotationMatrix2D((160, 119), 20, 0.7)
    matrix[:, 2] += 24 - np.array([160, 119])
    np.testing.assert_array_equal(region.warp(matrix, 48), whole.warp(matrix, 48))
    inner = np.array([120, 80, 200, 150])
    np.testing.assert_array_equal(region.region(inner).luma(inner), whole.luma(inner))


@pytest.mark.parametrize("aspect", [None, Fraction(4, 3)])
@pytest.mark.parametrize("turn", [(0, -1, 1, 0), (0, 1, -1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1), (1, 0, 0, 1)])
def test_region_of_a_turned_picture(turn: tuple[int, int, int, int], aspect: Fraction | None) -> None:
    whole = turned_picture(make_frame(astronaut(200, 140)), turn, aspect)
    box = np.array([40, 50, 90, 110])
    region = whole.region(box)
    matrix = cv2.getRotationMatrix2D((65, 80), 10, 0.8)
    matrix[:, 2] += 16 - np.array([65, 80])
    np.testing.assert_array_equal(region.warp(matrix, 32), whole.warp(matrix, 32))
    assert difference(region.luma(box), whole.luma(box)) < 0.01


def turned_picture(
    frame: VideoFrame, turn: tuple[int, int, int, int], aspect: Fraction | None = None
) -> PlanePicture:
    from dataclasses import replace

    from streamgate.sources.orientation import upright

    stored = PictureMaker(LEFT).picture(frame)._stored
    turned = replace(stored, upright=upright(frame.width, frame.height, turn, aspect))
    return PlanePicture(lambda: turned)


def test_region_owns_its_pixels() -> None:
    rgb = astronaut(160, 120)
    box = np.array([20, 20, 80, 80])
    region = picture_of_rgb(rgb).region(box)
    before = region.luma(box)
    rgb[:] = 0
    np.testing.assert_array_equal(region.luma(box), before)


def test_luma_is_full_range_and_owned() -> None:
    rgb = np.zeros((40, 60, 3), np.uint8)
    rgb[:, 30:] = 255
    picture = PictureMaker(LEFT).picture(make_frame(rgb, "yuv420p"))
    luma = picture.luma()
    assert luma.shape == (40, 60) and luma[:, :25].max() == 0 and luma[:, 35:].min() == 255
    luma[:] = 7
    assert picture.luma()[0, 0] == 0


def test_luma_box_is_rounded_outward_and_clipped() -> None:
    picture = PictureMaker(LEFT).picture(make_frame(astronaut(64, 48)))
    assert picture.luma(np.array([10.4, 5.5, 20.1, 9.0])).shape == (4, 11)
    assert picture.luma(np.array([-50.0, -50.0, 8.0, 8.0])).shape == (8, 8)
    assert picture.luma(np.array([100.0, 0.0, 120.0, 8.0])).shape == (8, 0)


def test_outside_the_picture_the_edge_is_repeated() -> None:
    rgb = np.full((48, 64, 3), 90, np.uint8)
    rgb[:, 60:] = (200, 40, 40)
    picture = PictureMaker(LEFT).picture(make_frame(rgb, "yuv444p"))
    far = picture.warp(np.array([[1.0, 0, -500], [0, 1, 0]]), (32, 32))
    assert np.abs(far.astype(int) - [200, 40, 40]).max() <= 3
    far = picture.warp(np.array([[1.0, 0, 500], [0, 1, 900]]), (32, 32))
    assert np.abs(far.astype(int) - 90).max() <= 3


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "rgb24", "p010le"])
def test_shrinking_does_not_alias(pix_fmt: str) -> None:
    rgb = np.zeros((240, 320, 3), np.uint8)
    rgb[:, ::2] = 255  # single-pixel stripes average to grey
    picture = PictureMaker(LEFT).picture(make_frame(rgb, pix_fmt))
    for small in (picture.warp(face_matrix((320, 240), 0.3), 60), picture.thumbnail(100)):
        middle = small[10:-10, 10:-10]
        assert middle.std() < 6 and abs(middle.mean() - 127) < 4


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "nv12", "p010le", "yuv444p", "bgra", "gray"])
@pytest.mark.parametrize("size, long_side", [((640, 360), 320), ((641, 361), 200), ((360, 640), 170)])
def test_thumbnail_equals_area_average_of_the_whole(
    pix_fmt: str, size: tuple[int, int], long_side: int
) -> None:
    frame = make_frame(astronaut(*size), pix_fmt, full_range=pix_fmt == "gray")
    thumbnail = PictureMaker(LEFT).picture(frame).thumbnail(long_side)
    scale = long_side / max(size)
    shape = (round(size[0] * scale), round(size[1] * scale))
    golden = cv2.resize(swscale_rgb(frame), shape, interpolation=cv2.INTER_AREA)
    assert difference(thumbnail, golden) <= LIMIT


def test_thumbnail_never_enlarges() -> None:
    picture = PictureMaker(LEFT).picture(make_frame(astronaut(64, 48)))
    assert picture.thumbnail(640).shape == (48, 64, 3)


def test_picture_of_rgb_takes_rgb_only() -> None:
    with pytest.raises(ValueError, match="RGB uint8"):
        picture_of_rgb(np.zeros((4, 4), np.uint8))


def test_hdr_skin_keeps_its_level_and_highlights_roll_off() -> None:
    if not hasattr(VideoFrame, "color_primaries"):
        pytest.skip("this version of PyAV does not report the transfer function of frames (17 and newer do)")
    # A grey ramp in PQ: reference white is 203 nits at signal 0.58, and 58 nits (skin) lies at about 0.45.
    ramp = np.linspace(0, 1, 256)
    codes = np.rint(64 + ramp * 876).astype(np.uint16)
    frame = VideoFrame(256, 64, "yuv420p10le")
    for plane, values in zip(frame.planes, (np.tile(codes, (64, 1)), None, None), strict=True):
        rows = np.frombuffer(plane, "<u2").reshape(plane.height, -1)
        rows = np.array(rows)
        rows[:] = 512
        if values is not None:
            rows[:, :256] = values
        plane.update(rows.tobytes())
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = 16, 9, 9, 1
    picture = PictureMaker("hevc").picture(frame)
    grey = picture.warp(np.eye(2, 3), (256, 64))[32]
    assert np.abs(np.ptp(grey.astype(int), axis=1)).max() <= 2  # no tint
    level = grey[:, 1].astype(int)
    assert (np.diff(level) >= 0).all() and level[0] == 0 and level[-1] >= 254
    skin = level[round(0.4494 * 255)]  # 58 nits of 203: (58/203)**(1/2.4) * 255 = 151
    assert abs(skin - 151) <= 4
    assert 225 <= level[round(0.5807 * 255)] <= 245  # reference white, just above the knee
    assert difference(picture.luma()[32][None], level[None].astype(np.uint8)) <= 1.5


def test_looks_into_the_decoder_without_copying() -> None:
    frame = make_frame(astronaut(64, 48))
    plane = PictureMaker(LEFT).picture(frame)._stored.planes[0]
    assert plane.base is not None and plane.ctypes.data == frame.planes[0].buffer_ptr
    assert isinstance(frame, av.VideoFrame)


@pytest.mark.parametrize("turn", [(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0), (-1, 0, 0, 1)])
def test_luma_samples_are_single_pixels_of_the_upright_luma(turn: tuple[int, int, int, int]) -> None:
    picture = picture_of_rgb(astronaut(120, 90), turn)
    luma = picture.luma()
    samples = picture.luma_samples(luma.shape[1] // 3, luma.shape[0] // 3)
    assert np.array_equal(samples, luma[1::3, 1::3])


def test_luma_samples_of_planar_video_match_its_luma() -> None:
    picture = PictureMaker().picture(make_frame(astronaut(120, 90)))
    assert np.array_equal(picture.luma_samples(40, 30), picture.luma()[1::3, 1::3])


def test_luma_samples_of_turned_planar_video_are_upright(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "turned.mp4", [astronaut(120, 90)] * 3, rotation=90)
    with open_source(clip) as source:
        picture = next(source.frames()).picture
        luma = picture.luma()
        assert luma.shape == (120, 90)
        assert np.array_equal(picture.luma_samples(30, 40), luma[1::3, 1::3])


def zone_plate(side: int) -> np.ndarray:
    """Rings whose frequency grows evenly from 0 in the middle to half a cycle a pixel at the edge's middle."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float64) - side / 2
    rings = 127.5 + 127.5 * np.cos(np.pi * 0.5 * (x * x + y * y) / (side / 2))
    return np.dstack([np.clip(rings, 0, 255).astype(np.uint8)] * 3)


@pytest.mark.parametrize("size", [256, 512])
def test_a_kept_picture_keeps_fine_detail_and_does_not_alias(size: int) -> None:
    """A turned square of a 4K close-up: what is finer than the result can show is grey, what is coarser stays."""
    side, covered = 2000, 1900
    matrix = cv2.getRotationMatrix2D((side / 2 - 0.5, side / 2 - 0.5), 11, size / covered)
    matrix[:, 2] += (size - side) / 2
    seen = picture_of_rgb(zone_plate(side)).warp(matrix, size, fine=True)[..., 0] - 127.5
    shrink = covered / size
    y, x = np.mgrid[0:size, 0:size] - (size / 2 - 0.5)
    radius = np.hypot(x, y)
    frequency = 0.5 * radius * shrink / (side / 2) * shrink  # cycles a pixel of the result
    contrast = 127.5 / np.sqrt(2)
    too_fine = (frequency > 0.75) & (frequency < 0.49 * shrink) & (radius < size / 2 - 4)
    assert seen[too_fine].std() < 0.015 * contrast
    visible = np.abs(frequency - 0.35) < 0.02
    assert seen[visible].std() > 0.85 * contrast  # averaging by area leaves 0.65


def test_fine_and_plain_agree_where_nothing_shrinks() -> None:
    picture = picture_of_rgb(astronaut(320, 240))
    matrix = face_matrix((320, 240), 1.3)
    assert np.array_equal(picture.warp(matrix, 112, fine=True), picture.warp(matrix, 112))
