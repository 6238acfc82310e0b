"""Networks in TensorFlow Lite files as torch modules. Only the operators of MediaPipe's face networks are supported.

This module needs the package `tflite` (`pip install tflite`), which reads the file format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.common.images import DataError

_TYPES = {0: np.float32, 1: np.float16, 2: np.int32}
_SAME_PADDING, _RELU = 0, 1
_PLAIN: dict[str, Callable[..., Tensor]] = {
    "ADD": torch.add,
    "SUB": torch.sub,
    "MUL": torch.mul,
    "DIV": torch.div,
    "NEG": torch.neg,
    "SQRT": torch.sqrt,
    "RSQRT": torch.rsqrt,
    "LOGISTIC": torch.sigmoid,
    "SQUARED_DIFFERENCE": lambda a, b: (a - b) * (a - b),
}
"""Operators whose inputs are all tensors."""

Step = tuple[Callable[..., Tensor], list[int], int]
"""A function, the numbers of the tensors that are its inputs, and the number of the tensor that is its result."""


class LiteNetwork(nn.Module):
    """The graph of a file with one input. The input's first axis, which has size 1 in the file, may have any size.

    planes: if true, the channels of pictures are on the second axis, as is common in torch; otherwise on the last axis,
    as in the file.
    """

    def __init__(self, content: bytes, planes: bool) -> None:
        """Raises DataError if the file has an operator that is not supported, or the package `tflite` is missing."""
        super().__init__()
        try:
            import tflite
        except ImportError as error:
            raise DataError("the package tflite is missing: pip install tflite") from error

        model = tflite.Model.GetRootAsModel(content, 0)
        graph = model.Subgraphs(0)
        self._input, self._outputs = int(graph.Inputs(0)), [int(number) for number in graph.OutputsAsNumpy()]
        fixed = _constants(model, graph)
        self._steps: list[Step] = []
        for position in range(graph.OperatorsLength()):
            operator = graph.Operators(position)
            code = model.OperatorCodes(operator.OpcodeIndex())
            name = _name(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
            inputs = [int(number) for number in operator.InputsAsNumpy()]
            output = int(operator.Outputs(0))
            if name == "DEQUANTIZE":
                fixed[output] = fixed[inputs[0]].astype(np.float32)
                continue
            if name in _PLAIN:
                step, used = _PLAIN[name], len(inputs)
            else:
                others = [fixed.get(number) for number in inputs[1:]]
                step, used = _step(name, operator, others, planes)
                for number, value in zip(inputs[1:], others, strict=True):
                    if value is not None:
                        fixed[number] = value
            for number in inputs[:used]:
                if number in fixed:
                    self.register_buffer(f"tensor_{number}", torch.from_numpy(fixed[number].astype(np.float32)))
            self._steps.append((step, inputs[:used], output))

    def forward(self, given: Tensor, taps: Sequence[int] = ()) -> list[Tensor]:
        """The outputs, in the order of the file, followed by the tensors whose numbers in the file are `taps`."""
        values = {self._input: given}
        for step, inputs, output in self._steps:
            taken = [values[number] if number in values else getattr(self, f"tensor_{number}") for number in inputs]
            values[output] = step(*taken)
        return [values[number] for number in (*self._outputs, *taps)]


def _step(name: str, operator: Any, others: list[Any], planes: bool) -> tuple[Callable[..., Tensor], int]:
    """The function of an operator, and how many of the operator's inputs the function receives.

    others: the constant inputs after the first input, None for those that are not constant; kernels are replaced in
    place by kernels in torch's layout. Raises DataError if the operator is not supported.
    """
    options = _options(operator, name)
    if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        depthwise = name.startswith("DEPTHWISE")
        others[0] = others[0].transpose(*((3, 0, 1, 2) if depthwise else (0, 3, 1, 2)))
        groups = others[0].shape[0] if depthwise else 1
        return _convolution(options, others[0].shape[2], groups, planes), 3
    if name == "PRELU":
        others[0] = others[0].reshape(-1, 1, 1, 1)
        return _prelu, 2
    if name == "MAX_POOL_2D":
        side, stride = options.FilterHeight(), options.StrideH()
        return lambda x: functional.max_pool2d(x, side, stride), 1
    if name == "PAD":
        above, left, before = ([int(size) for size in others[0][axis]] for axis in (1, 2, 3))
        return lambda x: functional.pad(x, [*left, *above, *before]), 1
    if name == "RESHAPE":
        sizes = [int(size) for size in others[0][1:]]
        return lambda x: x.reshape(-1, *sizes), 1
    if name == "TRANSPOSE":
        order = [int(axis) for axis in others[0]]
        return lambda x: x.permute(order), 1
    if name == "STRIDED_SLICE":
        # The first axis is not sliced, so that all faces of a batch are kept.
        ends = [None if options.EndMask() >> axis & 1 else int(end) for axis, end in enumerate(others[1])]
        return lambda x: x[(slice(None), *(slice(0, end) for end in ends[1:]))], 1
    if name == "CONCATENATION":
        axis = options.Axis()
        return lambda a, b: torch.cat([a.expand(b.shape[0], -1, -1, -1), b], axis), 2
    if name in ("MEAN", "SUM"):
        (axis,) = others[0].reshape(-1)
        return _reduction(int(axis), name == "MEAN"), 1
    raise DataError(f"the operator {name} is not supported")


def _convolution(options: Any, side: int, groups: int, planes: bool) -> Callable[..., Tensor]:
    stride, same, relu = (
        options.StrideH(),
        options.Padding() == _SAME_PADDING,
        options.FusedActivationFunction() == _RELU,
    )

    def run(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        x = x if planes else x.permute(0, 3, 1, 2)
        if same:
            # If the sum is odd, TensorFlow adds the extra row or column at the bottom or on the right.
            sums = [max(0, side - (int(size) % stride or stride)) for size in x.shape[2:]]
            x = functional.pad(x, [sums[1] // 2, sums[1] - sums[1] // 2, sums[0] // 2, sums[0] - sums[0] // 2])
        x = functional.conv2d(x, kernel, bias, stride, groups=groups)
        x = torch.relu(x) if relu else x
        return x if planes else x.permute(0, 2, 3, 1)

    return run


def _reduction(axis: int, mean: bool) -> Callable[..., Tensor]:
    """Sum or mean over one axis, as a convolution, because results of ONNX Runtime's reductions depend on the batch."""

    def run(x: Tensor) -> Tensor:
        moved = x.transpose(1, axis)
        maps = moved if x.dim() == 4 else moved.unsqueeze(2)
        count = int(maps.shape[1])
        found = functional.conv2d(maps, torch.full((1, count, 1, 1), 1.0 / count if mean else 1.0))
        return (found if x.dim() == 4 else found.squeeze(2)).transpose(1, axis)

    return run


def _prelu(x: Tensor, slopes: Tensor) -> Tensor:
    """Parametric ReLU as two depthwise convolutions, which ONNX Runtime computes in half the time of its own PRelu."""
    count = slopes.shape[0]
    return functional.conv2d(x, slopes, groups=count) + functional.conv2d(torch.relu(x), 1.0 - slopes, groups=count)


def _constants(model: Any, graph: Any) -> dict[int, np.ndarray]:
    """The tensors whose values are stored in the file, by number."""
    found = {}
    for number in range(graph.TensorsLength()):
        tensor = graph.Tensors(number)
        buffer = model.Buffers(tensor.Buffer())
        if buffer.DataLength():
            shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
            values = buffer.DataAsNumpy().view(_TYPES[tensor.Type()])
            found[number] = values.reshape(shape)
    return found


def _name(code: int) -> str:
    import tflite

    return next(name for name, value in vars(tflite.BuiltinOperator).items() if value == code)


def _options(operator: Any, name: str) -> Any:
    """The operator's options, as an object of the type for this operator; None if they are not needed."""
    import tflite

    kind = {
        "CONV_2D": "Conv2DOptions",
        "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
        "MAX_POOL_2D": "Pool2DOptions",
        "STRIDED_SLICE": "StridedSliceOptions",
        "CONCATENATION": "ConcatenationOptions",
    }.get(name)
    if kind is None:
        return None
    options, table = getattr(tflite, kind)(), operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options
