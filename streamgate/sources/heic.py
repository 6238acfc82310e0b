"""HEIC, the photo format of phones: read with pillow-heif if it is installed."""

from __future__ import annotations

import io
import re
from importlib.util import find_spec

import numpy as np

from streamgate.frames import Array

HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
HEIC_REMEDY = "pip install 'streamgate[heic]', or convert HEIC pictures to JPEG"
_BRANDS = re.compile(rb".{4}ftyp(?:hei[cxms]|hev[cxms]|(?:mif1|msf1).{0,64}?hei[cxms])", re.DOTALL)


def is_heic(head: bytes) -> bool:
    """Whether a file that begins with `head` is HEIC, and not AVIF, which belongs to the same family of formats."""
    return _BRANDS.match(head) is not None


def reads_heic() -> bool:
    """Whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def decode_heic(data: bytes) -> Array:
    """The main picture of a file, upright, RGB uint8 (h, w, 3).

    Raises ValueError if the file is damaged, and ImportError if pillow-heif is not installed.
    """
    import pillow_heif

    try:
        picture = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        rgb = np.asarray(picture)
    except (OSError, RuntimeError, EOFError, SyntaxError, MemoryError) as error:
        raise ValueError(str(error)) from None
    # Grey samples of more than 8 bits are not converted by pillow-heif; they are in the upper bits of each uint16.
    if rgb.dtype == np.uint16:
        rgb = (rgb >> 8).astype(np.uint8)
    if rgb.dtype != np.uint8 or rgb.ndim < 2:
        raise ValueError(f"unexpected samples ({rgb.dtype}, {rgb.shape})")
    if rgb.ndim == 2 or rgb.shape[2] == 1:
        return np.repeat(rgb.reshape(*rgb.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(rgb[:, :, :3])
