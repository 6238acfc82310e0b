"""Converts stored samples to displayed colour: matrices, ranges and the tone mapping of HDR video.

Numbers such as a matrix of 9 or a transfer of 18 are the code points of ITU-T H.273, which FFmpeg uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from streamgate.frames import Array

HD_LINES = 720
"""Video with an unknown matrix is assumed to be BT.709 if it has at least this many lines, and BT.601 otherwise."""

SDR_WHITE_NITS = 203.0
"""Reference white of HDR (ITU-R BT.2408); it is mapped to SDR white."""

PQ, HLG = 16, 18
BT2020 = 9

_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470 BG, as BT.601
    6: (0.299, 0.114),  # SMPTE 170M, as BT.601
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
    10: (0.2627, 0.0593),  # BT.2020 constant luminance, treated as BT.2020, to which it is close enough
}
_YCGCO = 8

_KNEE = 0.7  # share of SDR white below which tone mapping changes nothing; skin tones are below it
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


@dataclass(frozen=True, slots=True)
class Colour:
    """How samples encode colour: the H.273 code points `matrix`, `transfer` and `primaries`, and the range.

    `depth` is the number of significant bits per sample, `shift` the number of zero bits below them (6 for P010).
    """

    matrix: int = 6
    full_range: bool = False
    transfer: int = 2
    primaries: int = 2
    depth: int = 8
    shift: int = 0

    @property
    def hdr(self) -> bool:
        """Whether the picture needs tone mapping before an SDR viewer (or network) can use it."""
        return self.transfer in (PQ, HLG)


def resolve_matrix(matrix: int, primaries: int, transfer: int, height: int) -> int:
    """Return the matrix code to use for a stored picture of `height` lines; an unknown matrix is guessed."""
    if matrix in _WEIGHTS or matrix == _YCGCO:
        return matrix
    if primaries == BT2020 or transfer in (PQ, HLG):
        return BT2020
    return 1 if height >= HD_LINES else 6


def yuv_to_rgb(yuv: Array, colour: Colour) -> Array:
    """Convert (h, w, 3) uint8 or uint16 YCbCr samples to RGB uint8 (h, w, 3); HDR is tone-mapped to SDR."""
    matrix = _conversion(colour, yuv.dtype.itemsize)
    rgb = cv2.transform(yuv, matrix)
    if rgb.dtype == np.uint8:
        # 8-bit HDR is rare and coarse; it is widened to 16 bits so that it can be converted like deeper HDR.
        return tone_map(rgb.astype(np.uint16) * 257, colour) if colour.hdr else rgb
    return tone_map(rgb, colour) if colour.hdr else cv2.convertScaleAbs(rgb, alpha=1 / 257)


def full_range_luma(samples: Array, colour: Colour) -> Array:
    """Return luma samples (h, w) uint8 or uint16 as an owned uint8 array in 0..255 full range."""
    if samples.size == 0:
        return np.zeros(samples.shape, np.uint8)
    if samples.dtype == np.uint8:
        return samples.copy() if colour.full_range else cv2.LUT(samples, _luma_table(colour))
    return np.take(_luma_table(colour), samples >> colour.shift, mode="clip")


def tone_map(rgb: Array, colour: Colour) -> Array:
    """Turn non-linear HLG or PQ RGB, uint16 0..65535 (h, w, 3), into SDR BT.709 RGB uint8.

    Light up to 70 % of reference white (203 nits) keeps its level; brighter light rolls off towards white. Colours
    outside BT.709 are clipped. The result is meant for a BT.1886 display.
    """
    light = _linear_light(colour.transfer)[rgb]
    if colour.transfer == HLG:
        # The system gamma of a 1000 nit display turns scene light into displayed light.
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light *= np.power(np.maximum(luminance, 1e-6), 0.2)[..., None] * np.float32(1000.0 / SDR_WHITE_NITS)
    if colour.primaries != 1:
        light = cv2.transform(light, _BT2020_TO_BT709)
    peak = np.maximum(light.max(axis=2), 1e-6)
    rolled = _KNEE + (1 - _KNEE) * (1 - np.exp(-(peak - _KNEE) / (1 - _KNEE)))
    light *= np.where(peak > _KNEE, rolled / peak, 1.0).astype(np.float32)[..., None]
    signal = np.power(np.clip(light, 0.0, 1.0), 1 / 2.4)
    return np.rint(signal * 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _conversion(colour: Colour, itemsize: int) -> Array:
    """The (3, 4) matrix from stored samples to RGB over the full range of the integer type."""
    unit = 1 << (colour.depth - 8)
    low, luma_span, chroma_span, middle = 16 * unit, 219 * unit, 224 * unit, 128 * unit
    if colour.full_range:
        low, luma_span = 0, (1 << colour.depth) - 1
        chroma_span = luma_span
    if colour.matrix == _YCGCO:
        mix = np.array([[1.0, -1.0, 1.0], [1.0, 1.0, 0.0], [1.0, -1.0, -1.0]])
    else:
        kr, kb = _WEIGHTS[colour.matrix]
        kg = 1 - kr - kb
        mix = np.array(
            [
                [1.0, 0.0, 2 * (1 - kr)],
                [1.0, -2 * kb * (1 - kb) / kg, -2 * kr * (1 - kr) / kg],
                [1.0, 2 * (1 - kb), 0.0],
            ]
        )
    scale = np.array([1 / luma_span, 1 / chroma_span, 1 / chroma_span])
    offset = -np.array([low, middle, middle]) * scale
    top = 255.0 if itemsize == 1 else 65535.0
    return np.column_stack([mix * scale / (1 << colour.shift), mix @ offset]) * top


@lru_cache(maxsize=64)
def _luma_table(colour: Colour) -> Array:
    """Lookup table from sample values (shifted right by `shift`) to full-range luma, uint8."""
    values = np.arange(1 << colour.depth, dtype=np.float64)
    unit = 1 << (colour.depth - 8)
    low, span = (0, (1 << colour.depth) - 1) if colour.full_range else (16 * unit, 219 * unit)
    table = np.clip(np.rint((values - low) * (255.0 / span)), 0, 255).astype(np.uint8)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=2)
def _linear_light(transfer: int) -> Array:
    """Lookup table from 16-bit signal values to linear light, float32 (65536,).

    For PQ, light is displayed light relative to SDR white; for HLG, it is scene light in 0..1.
    """
    signal = np.arange(65536) / 65535.0
    if transfer == PQ:
        m1, m2 = 2610 / 16384, 2523 / 4096 * 128
        c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        root = signal ** (1 / m2)
        nits = 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
        return (nits / SDR_WHITE_NITS).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)
