"""Opening sessions: devices, hashes, missing weights, what gets imported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamgate.errors import DeviceError, UsageError, WeightsError
from streamgate.networks import Networks, Recognizer
from streamgate.networks.device import Device
from streamgate.networks.ifqa import ifqa_scores
from streamgate.networks.sessions import RowSession, Session, as_input
from streamgate.weights.catalog import InputSpec
from streamgate.weights.store import Weights, resolve
from support.real_weights import standard_models


def tiny(tmp_path: Path, nodes, inputs, outputs, **changes) -> Weights:
    """Weights around a graph of a few nodes."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    graph = helper.make_graph(nodes, "tiny", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    weights = Weights(
        name="tiny", roles=("recognizer",), tier="embedded", path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(), licence="", training_data="", input=InputSpec(),
        output={}, calibration=None,
    )  # fmt: skip
    return dataclasses.replace(weights, **changes)


def ifqa_weights(tmp_path: Path) -> Weights:
    """score = mean and map = first channel of the normalised picture."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    return tiny(
        tmp_path,
        [
            helper.make_node("ReduceMean", ["face"], ["score"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["face"], ["map"], axes=[1], keepdims=0),
        ],
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["N", 3, 256, 256])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", 256, 256]),
        ],
        input=InputSpec("float32", "RGB", (127.5,) * 3, (1 / 127.5,) * 3),
    )


def test_ifqa_pictures_are_normalised_to_plus_minus_one(tmp_path):
    session = Session(ifqa_weights(tmp_path), "cpu")
    black, white = ifqa_scores(session, [np.full((256, 256, 3), value, np.uint8) for value in (0, 255)])
    assert (black.value, white.value) == (pytest.approx(-1, abs=1e-5), pytest.approx(1, abs=1e-5))
    assert black.map.shape == white.map.shape == (256, 256)
    assert np.allclose(white.map, 1, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 16, 21])
def test_padded_batches_give_one_row_a_face(tmp_path, monkeypatch, count):
    """The way ready-made rows go on CUDA, here on the CPU: few batch sizes, no row of the padding comes back."""
    weights = ifqa_weights(tmp_path)
    session = RowSession(weights, Device("cpu", "as requested"))
    monkeypatch.setattr(session, "_device", Device("cuda:0", "played by the CPU"))
    sizes, run = [], session.run
    monkeypatch.setattr(session, "run", lambda batch: sizes.append(len(batch)) or run(batch))
    crops = np.stack([np.full((256, 256, 3), 10 * index, np.uint8) for index in range(count)])
    score = session.run_rows(as_input(crops, weights.input))["score"]
    # The mean of 196,608 figures in float32 is off by up to 2e-4.
    assert np.allclose(score, 10 * np.arange(count) / 127.5 - 1, atol=1e-3)
    assert set(sizes) <= {1, 2, 4, 8, 16}


def test_float_inputs_follow_the_described_channel_order():
    picture = np.array([[[[10, 20, 30]]]], np.uint8)
    planes = as_input(picture, InputSpec("float32", "BGR", (30.0, 20.0, 10.0), (2.0, 1.0, 1.0)))
    assert planes.shape == (1, 3, 1, 1) and planes.ravel().tolist() == [0, 0, 0]


def test_cuda_that_is_not_there_fails_loudly(tmp_path):
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    for device in ("cuda", "cuda:1"):
        with pytest.raises(DeviceError, match="not available") as caught:
            Session(ifqa_weights(tmp_path), device)
        assert caught.value.exit_code == 6
    assert Session(ifqa_weights(tmp_path), "auto").batch == 1


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "auto:1", ""])
def test_an_unknown_device_is_a_usage_error(tmp_path, device):
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        Session(ifqa_weights(tmp_path), device)


def test_a_changed_file_is_not_run(tmp_path):
    weights = ifqa_weights(tmp_path)
    with weights.path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(WeightsError, match="receipt"):
        Session(weights, "cpu")
    weights.path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        Session(weights, "cpu")


def test_a_graph_without_the_roles_outputs_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="embedding, spread, features"):
        Recognizer(Session(ifqa_weights(tmp_path), "cpu"))


def test_a_zero_embedding_has_no_spread(tmp_path):
    """||mu|| = 0 divides by zero in the graph; the adapter answers NaN, never a figure."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    weights = tiny(
        tmp_path,
        [
            helper.make_node("Cast", ["face"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["float"], ["spread"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMax", ["float"], ["embedding"], axes=[2, 3], keepdims=0),
            helper.make_node("Identity", ["embedding"], ["features"]),
        ],
        [helper.make_tensor_value_info("face", TensorProto.UINT8, ["N", 112, 112, 3])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 112]),
            helper.make_tensor_value_info("spread", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 112]),
        ],
    )
    crops = np.zeros((2, 112, 112, 3), np.uint8)
    crops[1] = 7
    output = Recognizer(Session(weights, "cpu")).run(crops)
    assert np.isnan(output.spread[0]) and output.spread[1] == 7


def test_networks_say_what_they_run(networks):
    records = {record["role"]: record for record in networks.weights}
    assert {"detector", "recognizer", "pose"} <= set(records)
    assert len(records["detector"]["sha256"]) == 64
    assert records["pose"]["licence"] == "MIT"
    assert networks.calibration("recognizer").alpha > 0
    assert networks.calibration("detector") is None


def test_a_session_that_serves_two_roles_is_opened_once(tmp_path):
    found = resolve(str(standard_models()))
    both = {**found, "pose": dataclasses.replace(found["pose"])}
    opened = Networks(both, "cpu", 1)
    assert opened.detector is not None and opened.pose is not None


def test_neither_torch_nor_onnx_is_imported():
    code = (
        "import sys, json, streamgate, streamgate.networks, streamgate.convert;"
        "print(json.dumps([name for name in ('torch', 'onnx', 'onnxruntime') if name in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == []
