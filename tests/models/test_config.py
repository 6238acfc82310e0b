"""The settings of a recipe: what is missing or wrong is named, with the file and the table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")

from models.common.images import DataError
from models.common.training import read_config


@dataclass(frozen=True)
class Settings:
    rate: float
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


def written(folder: Path, text: str) -> Path:
    (folder / "config.toml").write_text(text)
    return folder / "config.toml"


def test_settings_are_made_from_several_tables(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, "seed = 3\n[loss]\nrate = 0.5\n[eyes.training]\nsteps = 7\n"))
    assert config["seed"] == 3 and config["eyes"].make(Settings, "training", rate=1.0) == Settings(1.0, 7)
    assert config.make(Settings, "loss", steps=2) == Settings(0.5, 2)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[optimiser]\nrate = 0.1\n", r"config.toml, \[optimiser\]: not settings of this recipe .*'steps'"),
        ("[optimiser]\nrate = 0.1\nsteps = 0\n", r"config.toml, \[optimiser\]: .*steps must be at least 1"),
        ("[optimiser]\nrate = 0.1\nsteps = 1\nspeed = 2\n", r"config.toml, \[optimiser\]: .*'speed'"),
        ("[other]\nrate = 0.1\n", "config.toml: `optimiser` is missing"),
        ("[optimiser\n", "config.toml: cannot be read"),
    ],
)
def test_what_is_missing_or_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(DataError, match=named):
        read_config(written(tmp_path, text)).make(Settings, "optimiser")


def test_a_missing_key_of_an_inner_table_is_named(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, "[eyes.training]\nsteps = 7\n"))
    with pytest.raises(DataError, match=r"config.toml, \[eyes\], \[training\]: `rate` is missing"):
        config["eyes"]["training"]["rate"]
