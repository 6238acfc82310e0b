"""Prepares graphs for a GPU: normalises pixels inside the graph, and optionally converts the graph to half precision.

This module requires the package onnx, which the `gpu` extras install. It is not used on the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streamgate.errors import StreamgateError
from streamgate.weights.catalog import InputSpec

PRECISIONS = ("fp32", "fp16")
HEAD_FROM = "features"
"""Output of recognizers from which a part of the graph computes SER-FIQ's spread. This part always remains in fp32."""

_FULL_PRECISION = (
    "LayerNormalization", "Pow", "ReduceMean", "ReduceMin", "ReduceSum", "Sigmoid", "Softmax", "Sqrt",
)  # fmt: skip
"""Operators that sum over many values or compute final values. They remain in fp32, which costs no time because they
are few and small."""


def switch_of(output: str) -> str:
    """Name of the graph input, a bool scalar, that decides whether an optional `output` is computed; true by default.

    Such an output is computed in the first branch of an `If`; in the second branch, it is a single NaN.
    """
    return f"with_{output}"


def prepare(content: bytes, spec: InputSpec, precision: str) -> bytes:
    """Convert the graph to `precision`, and its input to RGB uint8 (N, H, W, 3).

    Outputs are float32 in both precisions, and all of them are computed, even optional ones (see `switch_of`). With
    "fp32", they are bit-identical to those of the original graph with `sessions.as_input`. Content that is not an ONNX
    model is returned unchanged.

    Raises:
        StreamgateError: the package onnx is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise StreamgateError(
            "the package onnx, which prepares the networks for a GPU, is not installed: pip install onnx (the extras "
            "gpu and gpu-cu12 include it)"
        ) from error
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf raises its own exception types
        return content  # ONNX Runtime rejects it, and the session reports this
    always_compute(model)
    if spec.dtype != "uint8":
        _take_pixels(model, spec)
    if precision == "fp16":
        model = _halved(model)
    return bytes(model.SerializeToString())


def always_compute(model: Any) -> None:
    """Remove the switches of optional outputs (see `switch_of`), so that the graph computes all outputs.

    model: ModelProto, changed in place.
    """
    graph = model.graph
    switches = {switch_of(output.name) for output in graph.output}
    for node in [node for node in graph.node if node.op_type == "If" and node.input[0] in switches]:
        (branch,) = [one.g for one in node.attribute if one.name == "then_branch"]
        inner, outer = branch.output[0].name, node.output[0]
        for one in branch.node:
            one.output[:] = [outer if name == inner else name for name in one.output]
            one.input[:] = [outer if name == inner else name for name in one.input]
        graph.initializer.extend(branch.initializer)
        graph.node.extend(branch.node)
        for part in (graph.input, graph.initializer):
            for one in [one for one in part if one.name == node.input[0]]:
                part.remove(one)
        graph.node.remove(node)


def _take_pixels(model: Any, spec: InputSpec) -> None:
    """Prepend the operations of `sessions.as_input` to the graph."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    (given,) = [one for one in graph.input if one.name not in {known.name for known in graph.initializer}]
    rows, _, height, width = given.type.tensor_type.shape.dim
    sizes = [one.dim_param or one.dim_value for one in (rows, height, width)]
    names = [f"streamgate_{step}" for step in ("pixels", "order", "mean", "scale", "float", "rgb", "planes", "centred")]
    pixels, order, mean, scale, floats, coloured, planes, centred = names
    steps = [helper.make_node("Cast", [pixels], [floats], "streamgate_cast", to=TensorProto.FLOAT)]
    constants = [
        numpy_helper.from_array(np.asarray(spec.mean, np.float32).reshape(1, 3, 1, 1), mean),
        numpy_helper.from_array(np.asarray(spec.scale, np.float32).reshape(1, 3, 1, 1), scale),
    ]
    if spec.colour == "BGR":
        steps.append(helper.make_node("Gather", [floats, order], [coloured], "streamgate_gather", axis=3))
        constants.append(numpy_helper.from_array(np.array([2, 1, 0]), order))
    else:
        coloured = floats
    steps += [
        helper.make_node("Transpose", [coloured], [planes], "streamgate_transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Sub", [planes, mean], [centred], "streamgate_sub"),
        helper.make_node("Mul", [centred, scale], [given.name], "streamgate_mul"),
    ]
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    graph.input.remove(given)
    graph.input.insert(0, helper.make_tensor_value_info(pixels, TensorProto.UINT8, [sizes[0], *sizes[1:], 3]))


def _halved(model: Any) -> Any:
    """The graph in half precision, except for the parts that must remain in fp32."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    _widen_constants(model.graph)
    for number, node in enumerate(model.graph.node):
        node.name = f"{number}_{node.op_type}"
    half = convert_float_to_float16(
        model,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FULL_PRECISION],
        node_block_list=_head(model.graph),
    )
    _join_full_precision(half.graph)
    return half


def _widen_constants(graph: Any) -> None:
    """Replace constants by float32 initializers, because the conversion keeps initializers of fp32 nodes unchanged."""
    from onnx import TensorProto, numpy_helper

    stored = {one.name: one for one in graph.initializer}
    kept = []
    for node in graph.node:
        value = node.attribute[0].t if node.op_type == "Constant" and node.attribute[0].name == "value" else None
        if node.op_type == "Cast" and node.input[0] in stored and node.attribute[0].i == TensorProto.FLOAT:
            value = numpy_helper.from_array(numpy_helper.to_array(stored[node.input[0]]).astype(np.float32))
        if value is None:
            kept.append(node)
            continue
        made = graph.initializer.add()
        made.CopyFrom(value)
        made.name = node.output[0]
        stored[made.name] = made
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input} | {one.name for one in graph.output}
    for name, one in stored.items():
        if name not in used:
            graph.initializer.remove(one)


def _head(graph: Any) -> list[str]:
    """Names of the nodes that depend on the output `HEAD_FROM`."""
    behind, names = {HEAD_FROM}, []
    for node in graph.node:  # in topological order, which ONNX requires
        if behind.intersection(node.input):
            behind.update(node.output)
            names.append(node.name)
    return names


def _join_full_precision(graph: Any) -> None:
    """Remove the casts to fp16 and back that the conversion inserts between two fp32 nodes.

    Before ONNX Runtime 1.32, the conversion also adds one cast per node that uses a value, all with the same name; only
    one of them is kept.
    """
    from onnx import TensorProto

    def casts_to(kind: int) -> list[Any]:
        return [node for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == kind]

    rounded = {node.output[0]: node.input[0] for node in casts_to(TensorProto.FLOAT16)}
    full = {node.output[0] for node in graph.node if node.name.endswith("_cast_to_fp16_node")}
    for node in casts_to(TensorProto.FLOAT):
        if node.input[0] in full:
            node.input[0] = rounded[node.input[0]]
    kept = list({tuple(node.output): node for node in graph.node}.values())
    if len(kept) < len(graph.node):
        kept = [type(node).FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(kept)
