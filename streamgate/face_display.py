"""How faces show themselves in Python: in a line, in a notebook, as plain values, as a file.

What `BestShot` and `ScoredFace` have in common. Their pixels and measures are theirs; nothing is kept here.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamgate.errors import SinkError, UsageError, display

if TYPE_CHECKING:
    from streamgate.frames import Array, Face, GateResult, Measure, Pose

_SIDE = 192
"""Longer side of a picture in a notebook."""
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class FaceDisplay:
    """Mixin of values with `face`, `pose`, `measures`, `quality`, `gate` and a picture."""

    __slots__ = ()

    if TYPE_CHECKING:
        face: Face
        pose: Pose | None
        measures: Mapping[str, Measure]
        quality: float | None
        gate: GateResult

    @property
    def _pixels(self) -> Array | None:
        raise NotImplementedError

    def _told(self) -> dict[str, Any]:
        """What stands first in `to_dict`."""
        return {}

    def _line(self) -> str:
        """What the value is, where quality and gate are said besides."""
        raise NotImplementedError

    def __repr__(self) -> str:
        quality = "no quality" if self.quality is None else f"quality {self.quality:.1f}"
        gate = "passed" if self.gate.passed else f"rejected: {', '.join(self.gate.reasons) or 'not complete'}"
        return f"<{type(self).__name__} {self._line()}, {quality}, {gate}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `json.dumps` or a row of a table: no pixels, no embedding."""
        return {
            **self._told(),
            "box": [round(float(value), 2) for value in self.face.box],
            "landmarks": [[round(float(value), 2) for value in point] for point in self.face.landmarks],
            "detection_score": round(float(self.face.score), 4),
            "pose": None
            if self.pose is None
            else {angle: round(getattr(self.pose, angle), 2) for angle in ("yaw", "pitch", "roll")},
            "measures": {
                name: {"raw": one.raw, "scalar": one.scalar, "status": str(one.status)}
                for name, one in self.measures.items()
            },
            "quality": self.quality,
            "gate": {"passed": self.gate.passed, "reasons": list(self.gate.reasons)},
        }

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the picture as PNG, JPEG or WebP, by the suffix of `path`; returns the path.

        Raises UsageError for another suffix or where there is no picture, SinkError where it cannot be written.
        """
        # Not above: what only reads records needs no OpenCV.
        import cv2

        target = Path(path)
        pixels = self._pixels
        if pixels is None:
            raise UsageError("this face has no picture: it was scored as a ready crop; save that")
        if target.suffix.lower() not in _SUFFIXES:
            raise UsageError(f"{display(target)}: give a name that ends in {', '.join(_SUFFIXES)}")
        done, data = cv2.imencode(target.suffix.lower(), np.ascontiguousarray(pixels[..., ::-1]))
        try:
            target.write_bytes(data.tobytes() if done else b"")
        except OSError as error:
            raise SinkError(f"{display(target)}: cannot be written ({error.strerror}); check the folder") from None
        return target

    def _repr_png_(self) -> bytes | None:
        import cv2

        pixels = self._pixels
        if pixels is None:
            return None
        scale = min(1.0, _SIDE / max(pixels.shape[:2]))
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
        done, data = cv2.imencode(".png", np.ascontiguousarray(small[..., ::-1]))
        return data.tobytes() if done else None

    def _repr_html_(self) -> str:
        picture = self._repr_png_()
        image = f'<img src="data:image/png;base64,{base64.b64encode(picture).decode()}">' if picture else ""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{one.raw:.4g}</td><td>{one.scalar:.0f}</td></tr>"
            for name, one in self.measures.items()
            if one.raw is not None and one.scalar is not None
        )
        table = f"<table><tr><th>measure</th><th>raw</th><th>0..100</th></tr>{rows}</table>"
        layout = "display:flex;gap:1em;align-items:flex-start"
        return f'<div>{html.escape(repr(self).strip("<>"))}<div style="{layout}">{image}{table}</div></div>'
