"""streamgate: a streaming video-frame face quality gate.

Importing this package is cheap: neither torch nor a web framework is loaded, and the inference
runtime only when the first network is opened.
"""

from __future__ import annotations

__version__ = "0.2.0"

__all__ = ["BestShot", "Gate", "ScoredFace", "StreamgateError", "__version__"]

TYPE_CHECKING = False  # `typing` takes ten milliseconds, in which Ctrl-C would show a traceback
if TYPE_CHECKING:
    from typing import Any

    from streamgate.errors import StreamgateError
    from streamgate.frames import BestShot, ScoredFace
    from streamgate.gate import Gate


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that `streamgate --help` stays quick."""
    if name == "Gate":
        from streamgate.gate import Gate

        return Gate
    if name in ("BestShot", "ScoredFace"):
        from streamgate import frames

        return getattr(frames, name)
    if name == "StreamgateError":
        from streamgate.errors import StreamgateError

        return StreamgateError
    raise AttributeError(f"module 'streamgate' has no attribute {name!r}")
