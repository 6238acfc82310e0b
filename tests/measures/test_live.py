"""The measure `live`: pulled on request, off until asked for, rejects with the reason `spoof`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from support.command import inside
from support.media import astronaut
from support.real_weights import shared_part

USE = ("--set", "measures.live.use=true")


def test_live_is_pulled_used_and_rejects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = shared_part("weights")
    monkeypatch.setenv("STREAMGATE_MODELS", str(tmp_path / "models"))
    picture = tmp_path / "a.png"
    # Room for 2.7 times the box.
    padded = np.pad(astronaut(), ((100, 0), (100, 100), (0, 0)), mode="edge")
    cv2.imwrite(str(picture), cv2.cvtColor(padded, cv2.COLOR_RGB2BGR))

    missing = inside("score", picture, *USE)
    assert missing.code == 4 and "models pull liveness" in missing.err, missing.err
    assert inside("models", "pull", "liveness", "--mirror", mirror).code == 0
    states = {one["name"]: one for one in json.loads(inside("models", "list", "--json").out)}
    assert states["minifasnet-v2"]["state"] == "ready" and states["minifasnet-v2"]["licence"] == "Apache-2.0"
    assert inside("models", "verify").code == 0

    def scored(*settings: str) -> dict:
        done = inside("score", picture, *settings)
        assert done.code == 0, done.err
        return json.loads(done.out.splitlines()[0])["faces"][0]

    plain, mild, strict = scored(), *(scored(*USE, "--set", f"measures.live.min={least}") for least in (0, 100))
    assert "live" not in plain["measures"]
    live = mild["measures"]["live"]
    assert live["status"] == "ok" and 0 <= live["raw"] <= 1
    # It filters and does not rank.
    assert mild["quality"] == plain["quality"]
    assert "spoof" in strict["gate"]["reasons"] and "spoof" not in mild["gate"]["reasons"]

    onnx = tmp_path / "models" / "minifasnet-v2" / "model.onnx"
    onnx.write_bytes(onnx.read_bytes()[:-1])
    verified = inside("models", "verify")
    assert verified.code == 4 and "models pull liveness" in verified.out
