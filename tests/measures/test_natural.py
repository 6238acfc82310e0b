"""NIQE and BRISQUE: parameters pulled by hash, values of the recipes, a place among the measures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.command import inside, streamgate
from support.media import astronaut
from support.real_weights import shared_part

USE = ("--set", "measures.niqe.use=true", "--set", "measures.brisque.use=true")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the parameters alone."""
    folder = tmp_path_factory.mktemp("models")
    mirror = shared_part("weights")
    done = streamgate("models", "pull", "measures", "--mirror", mirror, models=folder)
    assert done.code == 0 and "niqe: pulled" in done.err and "brisque: pulled" in done.err, done.err
    again = streamgate("models", "pull", "measures", "--mirror", mirror, models=folder)
    assert again.code == 0 and "niqe: present" in again.err
    return folder


def face(path: Path, sigma: float = 0.0) -> Path:
    picture = cv2.cvtColor(astronaut(), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture)
    return path


def test_blur_raises_both_and_lowers_their_scalars(models: Path, tmp_path: Path) -> None:
    done = streamgate("score", face(tmp_path / "a.png"), face(tmp_path / "b.png", 3.0), *USE, models=models)
    assert done.code == 0, done.err
    sharp, blurred = (json.loads(line)["faces"][0]["measures"] for line in done.out.splitlines())
    for name in ("niqe", "brisque"):
        assert sharp[name]["status"] == "ok"
        assert blurred[name]["raw"] > sharp[name]["raw"] and blurred[name]["scalar"] < sharp[name]["scalar"] - 20


def test_values_are_those_of_the_recipes(models: Path) -> None:
    pytest.importorskip("scipy")
    from models.ifqa.peers import Brisque as TheirBrisque
    from models.ifqa.peers import Niqe as TheirNiqe
    from streamgate.networks.natural_statistics import brisque as our_brisque
    from streamgate.networks.natural_statistics import niqe as our_niqe

    niqe, model, ranges = (
        shared_part(f"weights/{name}")
        for name in ("niqe_pris_params.npz", "brisque_model_live.yml", "brisque_range_live.yml")
    )
    ours = our_niqe(niqe.read_bytes()), our_brisque(model.read_bytes(), ranges.read_bytes())
    theirs = TheirNiqe(niqe), TheirBrisque(model, ranges)
    for path in sorted(shared_part("faces/hq_val").iterdir())[:3]:
        picture = np.ascontiguousarray(cv2.resize(cv2.imread(str(path)), (256, 256), interpolation=cv2.INTER_AREA))
        for one, other in zip(ours, theirs, strict=True):
            assert one(picture) == pytest.approx(-other(picture), abs=1e-6)


def test_nothing_is_recorded_of_them_until_they_are_used(tmp_path: Path) -> None:
    done = streamgate("score", face(tmp_path / "a.png"))
    assert "niqe" not in json.loads(done.out)["faces"][0]["measures"]
    assert "not used" in next(line for line in inside("measures").out.splitlines() if line.startswith("niqe"))


def test_without_parameters_the_command_says_how_to_get_them(tmp_path: Path) -> None:
    done = streamgate("score", face(tmp_path / "a.png"), *USE[:2], models=tmp_path)
    assert done.code == 4 and "streamgate models pull measures" in done.err


def test_parameters_that_are_not_the_pinned_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "niqe_pris_params.npz").write_bytes(b"x" * 11850)
    done = streamgate("models", "pull", "measures", "--mirror", tmp_path / "mirror", models=tmp_path / "m")
    assert done.code == 4 and "not the pinned niqe_pris_params.npz" in done.err
