"""Parameter files of NIQE and BRISQUE, which are not networks. They are pinned by hash and pulled on request."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

from streamgate.errors import WeightsError
from streamgate.weights.catalog import SourceFile
from streamgate.weights.fetch import fetch
from streamgate.weights.files import sha256_of
from streamgate.weights.store import models_folder

TIER = "measures"
"""The name of these files in `models pull`."""
_BASICSR = "https://raw.githubusercontent.com/XPixelGroup/BasicSR/8d56e3a045f9fb3e1d8872f92ee4a4f07f886b0a/basicsr/metrics"
_OPENCV = (
    "https://raw.githubusercontent.com/opencv/opencv_contrib/2a5154a4479e841aa1282ef83d139c4870d17b8f/modules/quality/"
    "samples"
)
PARAMETERS: dict[str, tuple[SourceFile, ...]] = {
    "niqe": (
        SourceFile(
            "niqe_pris_params.npz", f"{_BASICSR}/niqe_pris_params.npz",
            "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296", 11850,
        ),
    ),
    "brisque": (
        SourceFile(
            "brisque_model_live.yml", f"{_OPENCV}/brisque_model_live.yml",
            "4c44c7eec9e5139830c0bb0e4a044c9cd351ba5bbc9e3798beca3243e2782ff4", 567815,
        ),
        SourceFile(
            "brisque_range_live.yml", f"{_OPENCV}/brisque_range_live.yml",
            "a18427f4f7ad087524bd0d63389649a3899b51ca6d44a4d5f8d8171f1f914a9c", 1356,
        ),
    ),
}  # fmt: skip
"""The files of each measure. The licence of all files is Apache-2.0."""


def pull_parameters(base: str | None, progress: Callable[[str, int, int], None]) -> dict[str, str]:
    """Download missing files, from the mirror `base` if it is given. Returns "present" or "pulled" for each measure.

    Raises WeightsError.
    """
    done = {}
    for name, sources in PARAMETERS.items():
        done[name] = "present"
        for source in sources:
            target = _folder() / source.file
            try:
                if not (target.is_file() and sha256_of(target) == source.sha256):
                    url = source.url if base is None else f"{base}/{quote(source.file)}"
                    fetch(source, url, target, name, partial(_arrived, source, progress))
                    done[name] = "pulled"
            except OSError as error:
                raise WeightsError(
                    f"{name}: cannot write to {_folder()} ({error.strerror}); free space there or set STREAMGATE_MODELS"
                ) from error
    return done


def _arrived(source: SourceFile, progress: Callable[[str, int, int], None], done: int) -> None:
    progress(source.file, done, source.size)


def parameters_of(name: str) -> list[bytes]:
    """The contents of the files of a measure, after verification. Raises WeightsError if they are not installed."""
    found = []
    for source in PARAMETERS[name]:
        path = _folder() / source.file
        if not path.is_file() or sha256_of(path) != source.sha256:
            raise WeightsError(f"measure {name}: its parameters are not installed; run `streamgate models pull {TIER}`")
        found.append(path.read_bytes())
    return found


def identity_of(name: str) -> str:
    """A sha256 that identifies the parameters of a measure."""
    return PARAMETERS[name][0].sha256


def _folder() -> Path:
    return models_folder() / TIER
