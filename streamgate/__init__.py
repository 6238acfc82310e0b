"""streamgate: a streaming video-frame face quality gate.

Importing this package is cheap: it loads neither torch nor a web framework, and the inference runtime is loaded only
when the first network is opened.
"""

from __future__ import annotations

__version__ = "0.2.0"

TYPE_CHECKING = False  # importing `typing` takes 10 ms, during which Ctrl-C would show a traceback
if TYPE_CHECKING:
    from typing import Any

    from streamgate.errors import DeviceError as DeviceError
    from streamgate.errors import SinkError as SinkError
    from streamgate.errors import SourceError as SourceError
    from streamgate.errors import StreamgateError as StreamgateError
    from streamgate.errors import UsageError as UsageError
    from streamgate.errors import WeightsError as WeightsError
    from streamgate.faces import Face as Face
    from streamgate.faces import GateResult as GateResult
    from streamgate.faces import Measure as Measure
    from streamgate.faces import Pose as Pose
    from streamgate.faces import ScoredFace as ScoredFace
    from streamgate.faces import Status as Status
    from streamgate.gate import Gate as Gate
    from streamgate.gate import ProgressUpdate as ProgressUpdate
    from streamgate.tracks import BestShot as BestShot
    from streamgate.tracks import Crop as Crop
    from streamgate.tracks import Encoding as Encoding
    from streamgate.tracks import TrackEnd as TrackEnd
    from streamgate.tracks import TrackInfo as TrackInfo

__all__ = [
    "BestShot", "Crop", "DeviceError", "Encoding", "Face", "Gate", "GateResult", "Measure", "Pose", "ProgressUpdate",
    "ScoredFace", "SinkError", "SourceError", "Status", "StreamgateError", "TrackEnd", "TrackInfo", "UsageError",
    "WeightsError", "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that `streamgate --help` stays fast."""
    if name in __all__:
        import importlib

        for home in ("errors", "faces", "tracks", "gate"):
            module = importlib.import_module(f"streamgate.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'streamgate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
