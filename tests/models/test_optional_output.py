"""An output of an ONNX graph that is computed only on request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

import onnxruntime  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from models.common.optional_output import make_optional  # noqa: E402
from streamgate.networks.graphs import always_compute, switch_of  # noqa: E402


def graph() -> onnx.ModelProto:
    """`cheap` = 2 x; `dear` = sum(exp(3 * 2 x))."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Identity", ["doubled"], ["cheap"]),
        helper.make_node("Mul", ["doubled", "three"], ["tripled"]),
        helper.make_node("Exp", ["tripled"], ["raised"]),
        helper.make_node("ReduceSum", ["raised", "axis"], ["dear"], keepdims=0),
    ]
    weights = [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in (("two", 2.0), ("three", 3.0))]
    made = helper.make_graph(
        nodes,
        "both",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [
            helper.make_tensor_value_info("cheap", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("dear", TensorProto.FLOAT, ["N"]),
        ],
        [*weights, numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, **fed: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(["cheap", "dear"], fed))


def test_an_output_that_is_switched_off_is_nan_and_the_other_one_is_unchanged(tmp_path: Path) -> None:
    x = np.array([[0.5, -1.0], [0.25, 0.0]], np.float32)
    cheap, dear = run(graph(), x=x)
    changed = graph()
    make_optional(changed, "dear")
    assert {one.name for one in changed.graph.initializer} == {"two", switch_of("dear")}
    for fed in ({"x": x}, {"x": x, switch_of("dear"): np.array(True)}):
        assert all(np.array_equal(one, other) for one, other in zip(run(changed, **fed), (cheap, dear), strict=True))
    some, nothing = run(changed, x=x, **{switch_of("dear"): np.array(False)})
    assert np.array_equal(some, cheap) and np.isnan(nothing).all()
    always_compute(changed)
    assert [one.name for one in changed.graph.input] == ["x"]
    assert {node.op_type for node in changed.graph.node} == {node.op_type for node in graph().graph.node}
    assert all(np.array_equal(one, other) for one, other in zip(run(changed, x=x), (cheap, dear), strict=True))
