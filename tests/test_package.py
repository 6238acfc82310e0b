"""The package is light to import and complete to install."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from streamgate.config import presets_folder


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_loads_neither_torch_nor_a_web_framework() -> None:
    heavy = {"torch", "fastapi", "starlette", "uvicorn", "onnx", "onnxruntime", "skimage"}
    assert not heavy & modules_after("import streamgate")
    assert not heavy & modules_after("from streamgate import Gate, BestShot, ScoredFace")
    assert not heavy & modules_after("import streamgate.cli")


def test_the_command_line_starts_without_decoder_and_networks() -> None:
    assert not {"av", "cv2", "redis", "numpy"} & modules_after("import streamgate.cli")


def test_presets_are_found() -> None:
    assert (presets_folder() / "studio.toml").is_file()


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streamgate", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout.startswith("streamgate, version ")


def test_the_wheel_contains_every_network_with_its_card() -> None:
    root = Path(__file__).resolve().parents[1]
    build = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    cards = sorted((root / "models").rglob("card.json"))
    assert cards
    for card in cards:
        for file in (card, card.with_name(json.loads(card.read_text())["file"])):
            name = file.relative_to(root).as_posix()
            assert build["force-include"].get(name) == f"streamgate/{name}"
