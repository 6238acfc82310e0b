"""The number of operations of a network."""

from __future__ import annotations

from math import prod
from typing import Any


def multiplications(content: bytes, size: tuple[int, ...]) -> int:
    """Multiplications of convolutions and matrix products for one picture of `size` (H, W, 3)."""
    import onnx

    model = onnx.load_model_from_string(content)
    stored = {one.name: tuple(one.dims) for one in model.graph.initializer}
    (given,) = [one for one in model.graph.input if one.name not in stored]
    dims = given.type.tensor_type.shape.dim
    wanted = (1, *size) if dims[-1].dim_value == 3 else (1, 3, *size[:2])
    for dim, value in zip(dims, wanted, strict=True):
        dim.dim_value = value
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {one.name: _shape(one) for one in (*inferred.value_info, *inferred.output, *inferred.input)} | stored
    total = 0
    for node in inferred.node:
        made = prod(shapes.get(node.output[0]) or (0,))
        if node.op_type == "Conv":
            total += made * prod((shapes.get(node.input[1]) or (0, 0))[1:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += made * (shapes.get(node.input[0]) or (0,))[-1]
    return total


def _shape(value: Any) -> tuple[int, ...]:
    # The batch is the only axis that may be left open here.
    return tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
