"""Heads drawn from a mesh: labels that the detector's recipe reads, in every pose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.common.images import read_rgb
from models.detector.labels import read_labels
from models.open import heads


def sphere(centre: tuple[float, float, float], radius: tuple[float, float, float], steps: int) -> tuple[list, list]:
    """Points and quads of an ellipsoid, seen from outside counter-clockwise."""
    points, quads = [], []
    for row in range(steps + 1):
        for column in range(2 * steps):
            up, around = np.pi * row / steps, np.pi * column / steps
            unit = (np.sin(up) * np.sin(around), np.cos(up), np.sin(up) * np.cos(around))
            points.append([c + r * u for c, r, u in zip(centre, radius, unit, strict=True)])
    for row in range(steps):
        for column in range(2 * steps):
            right = (column + 1) % (2 * steps)
            a, b = row * 2 * steps, (row + 1) * 2 * steps
            quads.append([a + column, b + column, b + right, a + right])
    return points, quads


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like MakeHuman's `makehuman/data`: an egg with two eyes, and targets that move one point each."""
    folder = tmp_path_factory.mktemp("data")
    parts = {
        "body": sphere((0, 7.2, 0.3), (0.8, 1.25, 1.05), 24), "helper-hair": sphere((0, 7.6, 0), (1, 1, 1), 6),
        "helper-l-eye": sphere((0.31, 7.28, 1.1), (0.13, 0.13, 0.13), 8),
        "helper-r-eye": sphere((-0.31, 7.28, 1.1), (0.13, 0.13, 0.13), 8),
    }  # fmt: skip
    lines, start = [], 1
    for name, (points, quads) in parts.items():
        lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in points]
        lines += [f"g {name}", *("f " + " ".join(f"{start + i}/1" for i in quad) for quad in quads)]
        start += len(points)
    (folder / "3dobjs").mkdir()
    (folder / "3dobjs/base.obj").write_text("\n".join(lines))
    body = np.array(parts["body"][0])
    mouth = np.flatnonzero((np.abs(body[:, 1] - 6.85) < 0.12) & (np.abs(body[:, 0]) < 0.3) & (body[:, 2] > 0.8))
    names = [f"macrodetails/{o}-{s}-{a}.target" for o in heads.ORIGINS for s in heads.SEXES for a in heads.AGES]
    names += [
        f"macrodetails/universal-{s}-{a}-averagemuscle-averageweight.target" for s in heads.SEXES for a in heads.AGES
    ]
    for name in [*names, "head/head-round.target", *heads.LIPS]:
        file = folder / "targets" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        moved = mouth if name in heads.LIPS else [3]
        file.write_text("# a target\n" + "".join(f"{index} 0 .01 0\n" for index in moved))
    return folder


def test_drawn_heads_are_what_the_recipe_reads(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    assert heads.main([str(data), "--count", "6", "--out", str(tmp_path)]) == 0
    assert "6 heads" in capsys.readouterr().out
    found = read_labels(tmp_path / "label.txt")
    assert [len(one.faces) for one in found] == [1] * 6
    for one in found:
        assert read_rgb(one.path).shape == (*heads.SIZE, 3)
        width, height = one.faces[0, 2:4] - one.faces[0, :2]
        assert 40 < height < heads.SIZE[0] and 20 < width < heads.SIZE[1]


def test_a_head_depends_on_its_number_alone(data: Path) -> None:
    mesh = heads.read_mesh(data)
    first, second = (heads.draw(np.random.default_rng(5), mesh) for _ in range(2))
    assert np.array_equal(first[0], second[0]) and first[1] == second[1]
    other = heads.draw(np.random.default_rng(6), mesh)
    assert other[1] != first[1]


@pytest.mark.parametrize("broken", ["absent", "empty", "half"])
def test_a_folder_that_is_not_makehumans_is_named(
    tmp_path: Path, data: Path, broken: str, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / broken
    if broken != "absent":
        (folder / "3dobjs").mkdir(parents=True)
        text = (data / "3dobjs/base.obj").read_text()
        (folder / "3dobjs/base.obj").write_text("" if broken == "empty" else text)
    assert heads.main([str(folder), "--out", str(tmp_path / "made")]) == 2
    said = capsys.readouterr().err
    assert "not MakeHuman's `makehuman/data`" in said and len(said.strip().splitlines()) == 1
