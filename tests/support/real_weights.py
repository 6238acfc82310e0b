"""Fixtures for the standard weights and the real faces in ../shared; tests skip and say why if these are missing."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

from streamgate.convert import pull
from streamgate.errors import WeightsError
from streamgate.networks import Networks
from streamgate.networks.alignment import arcface_matrix
from streamgate.weights import resolve

Picture = np.ndarray


def shared_folder() -> Path:
    return Path(os.environ.get("STREAMGATE_SHARED") or Path(__file__).resolve().parents[3] / "shared")


def shared_part(name: str) -> Path:
    """A path below the shared folder; skips the test if it does not exist."""
    path = shared_folder() / name
    if not path.exists():
        pytest.skip(f"{path} does not exist; set STREAMGATE_SHARED to the folder that contains it")
    return path


@functools.cache
def _converted() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="streamgate-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with mock.patch.dict(os.environ, STREAMGATE_MODELS=str(folder)):
        pull(mirror=str(shared_folder() / "weights"))
    return folder


def standard_models() -> Path:
    """A models folder with the standard weights: $STREAMGATE_MODELS, else converted once from ../shared."""
    given = os.environ.get("STREAMGATE_MODELS")
    if given and Path(given).is_dir() and _resolves(given):
        return Path(given)
    shared_part("weights")
    pytest.importorskip("torch", reason="converting the standard weights needs torch")
    pytest.importorskip("onnx", reason="converting the standard weights needs onnx")
    return _converted()


def _resolves(folder: str) -> bool:
    try:
        resolve(folder)
    except WeightsError:
        return False
    return True


@pytest.fixture(scope="session")
def networks() -> Iterator[Networks]:
    with Networks.open(str(standard_models()), device="cpu") as opened:
        yield opened


def read_rgb(path: Path) -> Picture:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert picture is not None, path
    return np.ascontiguousarray(picture[..., ::-1])


@pytest.fixture(scope="session")
def hq_faces() -> list[Picture]:
    """The first 60 clean FFHQ-aligned faces, RGB 256 x 256."""
    return [read_rgb(path) for path in sorted(shared_part("faces/hq_val").iterdir())[:60]]


@pytest.fixture(scope="session")
def lfw() -> Iterator[Callable[[str], Picture]]:
    """An LFW picture by its file name, RGB 250 x 250."""
    archive = tarfile.open(shared_part("faces/lfw_folds1-5/images.tar"))  # noqa: SIM115 (closed below)

    def read(name: str) -> Picture:
        member = archive.extractfile(name)
        assert member is not None, name
        coded = np.frombuffer(member.read(), np.uint8)
        return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])

    yield read
    archive.close()


def lfw_pairs(fold: int, each: int) -> list[tuple[str, str, bool]]:
    """The first `each` same and the first `each` different pairs of a fold."""
    rows = [line.split() for line in shared_part("faces/lfw_folds1-5/pairs.txt").read_text().splitlines()]
    chosen = []
    for same in ("1", "0"):
        pairs = [row for row in rows if row[2:] == [same, str(fold)]]
        chosen += [(row[0], row[1], same == "1") for row in pairs[:each]]
    return chosen


def aligned(networks: Networks, picture: Picture) -> Picture:
    """The ArcFace crop of the face nearest to the picture's middle."""
    faces = networks.detector.detect([picture])[0]
    assert faces, "no face found"
    middle = np.array(picture.shape[1::-1]) / 2
    face = min(faces, key=lambda face: np.linalg.norm(face.landmarks.mean(axis=0) - middle))
    return cv2.warpAffine(picture, arcface_matrix(face.landmarks), (112, 112), borderMode=cv2.BORDER_REPLICATE)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = wide * high
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
