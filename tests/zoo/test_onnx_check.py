"""ONNX files that reach outside themselves are refused."""

from __future__ import annotations

import numpy as np
import pytest

from streamgate.errors import WeightsError
from streamgate.zoo.onnx_check import check_self_contained

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
