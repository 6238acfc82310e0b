"""Changes existing ONNX graphs: makes axes dynamic, finds the last affine layer and removes unused parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streamgate.convert.export import Values
from streamgate.convert.onnx_check import check_self_contained
from streamgate.errors import WeightsError

Doubles = npt.NDArray[np.float64]


def load(source: Path) -> Any:
    """The model in a file, unchanged. Raises WeightsError if it is not an ONNX file that streamgate can run."""
    import onnx

    try:
        model = onnx.load(str(source), load_external_data=False)
    except Exception as error:  # protobuf raises its own exception types for damaged bytes
        raise WeightsError(f"{source.name}: not an ONNX file ({type(error).__name__})") from None
    check_self_contained(model, source.name)
    if not model.graph.node:
        raise WeightsError(f"{source.name}: not an ONNX file")
    return model


def input_sides(model: Any, name: str) -> tuple[int | None, int | None]:
    """Height and width of the pictures that a graph takes; None if any value is accepted."""
    stored = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in stored]
    kind = inputs[0].type.tensor_type if len(inputs) == 1 else None
    dims = [] if kind is None else [one.dim_value or None for one in kind.shape.dim]
    if kind is None or len(dims) != 4 or dims[1] not in (3, None) or kind.elem_type != 1:
        raise WeightsError(f"{name}: must have exactly one input, which takes float32 pictures (N, 3, H, W)")
    return dims[2], dims[3]


def opened(original: Any, *, free_size: bool) -> Any:
    """A copy with prefixed names and a dynamic batch axis; with `free_size`, height and width are dynamic as well."""
    from onnx import compose

    model = compose.add_prefix(original, "own/")
    stored = {one.name: one for one in model.graph.initializer}
    taken = {node.input[1] for node in model.graph.node if node.op_type == "Reshape" and len(node.input) > 1}
    for key in taken & stored.keys():
        _free_first(stored[key])
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in taken:
            _free_first(node.attribute[0].t)
    (picture,) = [one for one in model.graph.input if one.name not in stored]
    dims = picture.type.tensor_type.shape.dim
    for dim, word in zip(dims, ("N", None, "H", "W"), strict=True):
        if word == "N" or (word and free_size):
            dim.dim_param = word
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def _free_first(tensor: Any) -> None:
    """Change the shape (1, ...) of a Reshape to keep the batch size of its input."""
    from onnx import numpy_helper

    values = numpy_helper.to_array(tensor)
    if values.ndim == 1 and len(values) > 1 and values[0] == 1:
        changed = values.copy()
        changed[0] = 0
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))


_SHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity")
_AFTER = ("Div", "LpNormalization", *_SHAPES)
"""Operators that may follow the last affine layer without changing an embedding's direction."""


def last_affine(model: Any, output: str, name: str) -> tuple[str, Values, Values]:
    """Find the last affine layer A x + c before `output`, with the batch norm that follows it folded in.

    Returns the name of the tensor x, and the values of A (D, K) and c (D,). Raises WeightsError if there is no such
    layer.
    """
    made = {one: node for node in model.graph.node for one in node.output}
    node = _behind(output, made, _AFTER)
    gain, shift = np.ones(1), np.zeros(1)
    if node is not None and node.op_type == "BatchNormalization":
        scale, offset, mean, variance = (_constant(model, made, one) for one in node.input[1:5])
        if scale is not None and offset is not None and mean is not None and variance is not None:
            gain = scale / np.sqrt(variance + _attribute(node, "epsilon", 1e-5))
            shift = offset - gain * mean
            node = _behind(node.input[0], made, _SHAPES)
    added = np.zeros(1)
    if node is not None and node.op_type == "Add":
        for constant, other in ((node.input[1], node.input[0]), (node.input[0], node.input[1])):
            if (values := _constant(model, made, constant)) is not None:
                added, node = values.reshape(-1), made.get(other)
                break
    found = None if node is None else _affine_of(node, model, made)
    if node is None or found is None:
        raise WeightsError(
            f"{name}: SER-FIQ needs an affine last layer, but the embedding comes from "
            f"{'no layer' if node is None else node.op_type}; import the original checkpoint instead of the ONNX file"
        )
    weight, bias = found
    folded = np.broadcast_to(gain * (bias + added) + shift, len(weight))
    gains = np.broadcast_to(gain, len(weight))[:, None]
    return node.input[0], (gains * weight).astype(np.float32), folded.astype(np.float32)


def _behind(name: str, made: Mapping[str, Any], skipped: tuple[str, ...]) -> Any:
    """The node that produces a tensor, ignoring nodes of the kinds `skipped`; None if there is none."""
    while name in made and made[name].op_type in skipped:
        name = made[name].input[0]
    return made.get(name)


def _affine_of(node: Any, model: Any, made: Mapping[str, Any]) -> tuple[Doubles, Doubles] | None:
    """A (D, K) and c of a Gemm, MatMul or 1x1 Conv; None for any other node."""
    constants = [_constant(model, made, one) for one in node.input[1:]]
    weight = constants[0] if constants else None
    if weight is None:
        return None
    second = constants[1] if len(constants) > 1 else None
    bias = np.zeros(1) if second is None else second.reshape(-1)
    if node.op_type == "Gemm" and weight.ndim == 2 and not _attribute(node, "transA", 0):
        turned = weight if _attribute(node, "transB", 0) else weight.T
        return _attribute(node, "alpha", 1.0) * turned, _attribute(node, "beta", 1.0) * bias
    if node.op_type == "MatMul" and weight.ndim == 2:
        return weight.T, bias
    if node.op_type == "Conv" and weight.ndim == 4 and weight.shape[2:] == (1, 1) and _attribute(node, "group", 1) == 1:
        return weight.reshape(len(weight), -1), bias
    return None


def _constant(model: Any, made: Mapping[str, Any], name: str) -> Doubles | None:
    """The values of a stored tensor, even if a Cast follows it; None for a computed tensor."""
    from onnx import numpy_helper

    for one in model.graph.initializer:
        if one.name == name:
            return np.asarray(numpy_helper.to_array(one), np.float64)
    node = made.get(name)
    if node is not None and node.op_type == "Constant":
        return np.asarray(numpy_helper.to_array(node.attribute[0].t), np.float64)
    if node is not None and node.op_type in ("Cast", "Identity"):
        return _constant(model, made, node.input[0])
    return None


def _attribute(node: Any, name: str, default: float) -> float:
    for one in node.attribute:
        if one.name == name:
            return float(one.f) if one.type == 1 else float(one.i)
    return default


def prune(model: Any) -> None:
    """Remove nodes and stored tensors that no output needs."""
    made = {one: node for node in model.graph.node for one in node.output}
    wanted, queue = set(), [one.name for one in model.graph.output]
    while queue:
        name = queue.pop()
        if name in wanted:
            continue
        wanted.add(name)
        if name in made:
            queue += [*made[name].input, *made[name].output, *_captured(made[name])]
    kept = [node for node in model.graph.node if set(node.output) & wanted]
    stored = [one for one in model.graph.initializer if one.name in wanted]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(stored)
    inputs = [one for one in model.graph.input if one.name in wanted and one.name not in {two.name for two in stored}]
    del model.graph.input[:]
    model.graph.input.extend(inputs)


def _captured(node: Any) -> Iterator[str]:
    """Names used by the subgraphs of a node."""
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            for inner in graph.node:
                yield from inner.input
                yield from _captured(inner)
