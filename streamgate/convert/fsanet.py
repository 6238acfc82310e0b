"""FSA-Net head pose: merges the two published batch-1 ONNX files into one graph with a dynamic batch axis.

FSA-Net is by Yang et al., CVPR 2019; the weights are those of headpose-fsanet-pytorch. The published graphs declare a
batch of 1, but they reshape by the actual input size, so larger batches work as well; `convert` checks the results of a
batch against runs on one face each. The graph takes `face`, uint8 (N, 64, 64, 3) RGB, and returns `pose` (N, 3), the
mean of both networks: yaw, pitch and roll in degrees in FSA-Net's convention (yaw > 0: nose to smaller x).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgate.convert.onnx_check import OPSET, check_self_contained
from streamgate.errors import WeightsError


def merge(first: bytes, second: bytes) -> Any:
    """Join the "1x1" and the "var" file into the graph described above; returns an onnx ModelProto.

    Raises:
        WeightsError: a file is not ONNX or does not have the published layout.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes: list[Any] = []
    initializers: list[Any] = [
        numpy_helper.from_array(np.array(127.5, np.float32), "input.mean"),
        numpy_helper.from_array(np.array(1.0 / 128.0, np.float32), "input.scale"),
        numpy_helper.from_array(np.array([2, 1, 0], np.int64), "input.bgr"),
        numpy_helper.from_array(np.array(0.5, np.float32), "half"),
    ]
    nodes += [
        helper.make_node("Cast", ["face"], ["input.float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["input.float"], ["input.planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["input.planes", "input.bgr"], ["input.reversed"], axis=1),
        helper.make_node("Sub", ["input.reversed", "input.mean"], ["input.centred"]),
        helper.make_node("Mul", ["input.centred", "input.scale"], ["input.ready"]),
    ]
    for prefix, content in (("a/", first), ("b/", second)):
        graph = _free_batch(content, prefix)
        nodes.extend(graph.node)
        initializers.extend(graph.initializer)
    nodes += [
        helper.make_node("Add", ["a/output", "b/output"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["pose"]),
    ]
    merged = helper.make_model(
        helper.make_graph(
            nodes,
            "fsanet",
            [helper.make_tensor_value_info("face", TensorProto.UINT8, ["N", 64, 64, 3])],
            [helper.make_tensor_value_info("pose", TensorProto.FLOAT, ["N", 3])],
            initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
        producer_name="streamgate",
    )
    onnx.checker.check_model(merged, full_check=True)
    return merged


def _free_batch(content: bytes, prefix: str) -> Any:
    """One published graph at `OPSET`, with prefixed names and its input connected to `input.ready`."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import version_converter

    try:
        model = onnx.load_from_string(content)
    except DecodeError as error:
        raise WeightsError("FSA-Net: the file is not an ONNX file; pull it again") from error
    check_self_contained(model, "FSA-Net")
    graph = model.graph
    if [value.name for value in graph.input if value.name == "input"] != ["input"]:
        raise WeightsError("FSA-Net: not the published layout (no input named 'input')")
    graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    converted = version_converter.convert_version(model, OPSET).graph
    for node in converted.node:
        node.name = prefix + node.name
        node.input[:] = [_renamed(name, prefix) for name in node.input]
        node.output[:] = [_renamed(name, prefix) for name in node.output]
    for tensor in converted.initializer:
        tensor.name = prefix + tensor.name
    return converted


def _renamed(name: str, prefix: str) -> str:
    if not name:
        return name
    return "input.ready" if name == "input" else prefix + name
