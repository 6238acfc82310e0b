"""The peers order obvious cases, and absent ones are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import shared_folder

pytest.importorskip("scipy")

from models.ifqa import protocol
from models.ifqa.peers import fit_asymmetric, halve, load_peers


def test_absent_peers_are_named(tmp_path: Path) -> None:
    found, absent = load_peers(tmp_path)
    assert not found
    assert [line.split(":")[0] for line in absent] == ["NIQE", "BRISQUE", "LightQNet"]


def test_a_gaussian_has_the_shape_two() -> None:
    values = np.random.default_rng(0).normal(0, 3, (1, 200_000))
    shape, left, right = fit_asymmetric(values)
    assert shape[0] == pytest.approx(2, abs=0.05)
    assert (left[0], right[0]) == pytest.approx((3, 3), rel=0.02)


def test_halving_keeps_flat_and_smooth_pictures() -> None:
    ramp = np.tile(np.arange(64.0), (64, 1))
    assert halve(ramp)[10, 4:-4] == pytest.approx(np.arange(32)[4:-4] * 2 + 0.5)


@pytest.mark.parametrize("name", ["NIQE", "BRISQUE"])
def test_peers_prefer_the_clean_face(name: str, face: np.ndarray) -> None:
    found, _ = load_peers(shared_folder() / "weights")
    if name not in found:
        pytest.skip(f"the weights of {name} are missing ({shared_folder() / 'weights'})")
    clean = found[name](face)
    assert clean > found[name](protocol.blur(face, 3.2)) > found[name](protocol.blur(face, 6.5))
    assert clean > found[name](protocol.noise(face, 22, 0))


def test_footage_gives_each_face_back_in_place(face: np.ndarray) -> None:
    pytest.importorskip("av")
    films = protocol.footage([face, face[:, ::-1].copy()])
    assert list(films) == list(protocol.FOOTAGE_HEIGHTS)
    errors = [np.abs(films[h][0].astype(int) - face).mean() for h in films]
    assert errors == sorted(errors) and errors[0] < 6
    assert np.abs(films[1080][1].astype(int) - face[:, ::-1]).mean() < 6
