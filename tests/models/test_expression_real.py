"""The recipe of the head `real`: it runs, and everything else of the network's file stays bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from models.common.images import DataError, write_rgb  # noqa: E402
from models.expression.network import OwnNetwork  # noqa: E402
from models.expression.realfaces import CANVAS, cut_source, read_sources  # noqa: E402
from streamgate.networks import Networks  # noqa: E402
from streamgate.networks.ifqa import ifqa_scores  # noqa: E402
from support.media import astronaut  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def real(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "STREAMGATE_WORK"}
    command = [sys.executable, "-W", "ignore", str(ROOT / "models/expression/real.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_smoke_run_changes_the_head_alone(tmp_path: Path) -> None:
    done = real("--smoke", "--work", tmp_path, "--threads", "1")
    assert done.returncode == 0, done.stderr
    made = tmp_path / "smoke"
    assert json.loads((made / "card.json").read_text())["real"]["drawings"] == 24
    assert "| all photographs | 12 |" in (made / "card.md").read_text()
    before = torch.load(ROOT / "models/expression/expression_warm.pth", weights_only=True)["network"]
    after = torch.load(made / "expression_warm.pth", weights_only=True)["network"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("real.") for name in changed)
    crops = np.random.default_rng(0).integers(0, 256, (2, 144, 128, 3), np.uint8)
    committed, new = OwnNetwork(ROOT / "models/expression").run(crops), OwnNetwork(made).run(crops)
    for name in ("pose", "signals", "points", "visible"):
        assert np.array_equal(getattr(committed, name), getattr(new, name)), name
    assert not np.array_equal(committed.real, new.real)


def test_the_table_is_measured_without_training(tmp_path: Path) -> None:
    done = real("--smoke", "--table", "--work", tmp_path, "--threads", "1")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "smoke/card.md").read_text()
    assert "| all drawings | 12 |" in page and "| all drawings, eyes at least 36 px apart | 12 |" in page
    assert not (tmp_path / "smoke/expression.onnx").exists()
    recorded = json.loads((tmp_path / "smoke/card.json").read_text())["real"]
    assert recorded["rejected_by_real_or_ifqa"].keys() == recorded["rejected_of_held_out"].keys()


def test_faces_are_cut_once_and_both_kinds_are_needed(tmp_path: Path) -> None:
    source = tmp_path / "portraits"
    source.mkdir()
    write_rgb(source / "a.png", astronaut())
    with Networks.open("embedded", "cpu") as networks:
        cut_source(source, "portrait", True, tmp_path / "real", networks)
    with pytest.raises(DataError, match="both kinds"):
        read_sources(tmp_path / "real")
    with np.load(tmp_path / "real/portraits.npz") as kept:
        assert kept["crops"].shape == (1, *CANVAS, 3) and bool(kept["real"]) and str(kept["kind"]) == "portrait"
        assert "squares" not in kept.files


def test_held_out_faces_are_cut_as_ifqa_sees_them_in_a_run(tmp_path: Path) -> None:
    source = tmp_path / "portraits"
    source.mkdir()
    write_rgb(source / "a.png", astronaut())
    with Networks.open("embedded", "cpu") as networks:
        cut_source(source, "portrait", True, tmp_path / "real", networks, squares=True)
        with np.load(tmp_path / "real/portraits.npz") as kept:
            (square,), (eyes,) = kept["squares"], kept["eyes"]
        assert networks.ifqa is not None
        assert ifqa_scores(networks.ifqa, [square])[0].value > 0.3
    assert square.shape == (256, 256, 3) and 30 < eyes < 80


def test_the_table_needs_ffhq_aligned_faces(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    for name in ("resources", "hq_val", "u_other", "r_other"):
        real_faces = name in ("hq_val", "r_other")
        np.savez(tmp_path / f"real/{name}.npz", crops=np.zeros((1, *CANVAS, 3), np.uint8), kind="x", real=real_faces)
    done = real("--table", "--work", tmp_path, "--target", tmp_path, "--threads", "1")
    assert done.returncode == 2 and "resources.npz has no FFHQ" in done.stderr and "Traceback" not in done.stderr


def test_a_picture_can_be_left_out_by_its_hash(tmp_path: Path) -> None:
    source = tmp_path / "drawings"
    source.mkdir()
    write_rgb(source / "a.png", astronaut())
    digest = hashlib.sha256((source / "a.png").read_bytes()).hexdigest()[:16]
    with Networks.open("embedded", "cpu") as networks:
        cut_source(source, "drawing", False, tmp_path / "real", networks, [digest])
    with np.load(tmp_path / "real/drawings.npz") as kept:
        assert len(kept["crops"]) == 0


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    done = real("--work", tmp_path, "--drawings", "drawing=/nowhere")
    assert done.returncode == 2 and "KIND=FOLDER" in done.stderr and "Traceback" not in done.stderr
