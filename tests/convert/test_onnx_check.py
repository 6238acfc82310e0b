"""ONNX files that reach outside themselves are refused, when converted and when run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from streamgate.convert.onnx_check import check_self_contained
from streamgate.errors import WeightsError
from support.hostile import run_limited
from support.hostile_archive import WatchedFolder
from support.hostile_videos import clip_bytes
from support.real_weights import standard_models

onnx = pytest.importorskip("onnx")


def model(*nodes, initializers=(), domains=("",)):
    graph = onnx.helper.make_graph(
        list(nodes),
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
        list(initializers),
    )
    opsets = [onnx.helper.make_opsetid(domain, 17) for domain in domains]
    return onnx.helper.make_model(graph, opset_imports=opsets)


def outside_tensor(name="w"):
    tensor = onnx.numpy_helper.from_array(np.zeros(1, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def test_a_plain_model_passes():
    weight = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "w")
    check_self_contained(model(onnx.helper.make_node("Add", ["x", "w"], ["y"]), initializers=[weight]), "m")


def test_external_data_is_refused_wherever_it_hides():
    identity = onnx.helper.make_node("Identity", ["x"], ["y"])
    constant = onnx.helper.make_node("Constant", [], ["c"], value=outside_tensor())
    branch = onnx.helper.make_graph([constant], "b", [], [])
    nested = onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    for bad in (model(identity, initializers=[outside_tensor()]), model(identity, constant), model(nested)):
        with pytest.raises(WeightsError, match="outside the file"):
            check_self_contained(bad, "m")


def test_custom_operators_are_refused():
    custom = onnx.helper.make_node("Evil", ["x"], ["y"], domain="evil")
    with pytest.raises(WeightsError, match="operator domain 'evil'"):
        check_self_contained(model(custom, domains=("", "evil")), "m")
    with pytest.raises(WeightsError, match=r"evil\.Evil"):
        check_self_contained(model(custom), "m")


def lying_tensor(name="w"):
    """A tensor of 10 GB by its dimensions, with four bytes of data."""
    tensor = onnx.numpy_helper.from_array(np.zeros(1, np.float32), name)
    tensor.dims[0] = 2_500_000_000
    return tensor


@pytest.mark.parametrize("kind", ["external", "custom", "lie", "text", "empty"])
def test_a_hostile_file_in_a_folder_of_ones_own_is_refused_when_run(tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret.bin").write_bytes(bytes(4))
    outside = outside_tensor()
    outside.external_data[0].value = "elsewhere/secret.bin"
    add = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    content = {
        "external": lambda: model(add, initializers=[outside]).SerializeToString(),
        "custom": lambda: model(
            onnx.helper.make_node("Evil", ["x"], ["y"], domain="evil"), domains=("", "evil")
        ).SerializeToString(),
        "lie": lambda: model(add, initializers=[lying_tensor()]).SerializeToString(),
        "text": lambda: b"no model",
        "empty": lambda: b"",
    }[kind]()
    folder = tmp_path / "own" / "detector"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    card = {"sha256": hashlib.sha256(content).hexdigest(), "roles": ["detector"], "licence": "x"}
    (folder / "card.json").write_text(json.dumps(card))
    (tmp_path / "clip.mp4").write_bytes(clip_bytes())
    with WatchedFolder(elsewhere) as watched:
        ran = run_limited(
            ["run", tmp_path / "clip.mp4", "-o", tmp_path / "out", "--models", f"{tmp_path / 'own'},standard"],
            {"STREAMGATE_MODELS": str(standard_models())},
        )
        touched = watched.touched()
    assert ran.code == 4, ran.err
    assert len(ran.err.splitlines()) == 1 and ran.err.startswith("streamgate: detector"), ran.err
    assert touched == set() and ran.peak_mib < 700
