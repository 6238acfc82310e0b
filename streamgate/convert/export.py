"""Export of a torch network to one plain ONNX file with the same results.

The recipes in `models/` use this module as well. torch and onnx are imported only when a function needs them.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from streamgate.convert.onnx_check import OPSET
from streamgate.errors import WeightsError
from streamgate.networks.device import load_onnxruntime

Values = npt.NDArray[Any]


def noise(*shape: int) -> npt.NDArray[np.uint8]:
    """Random pictures, which are the same in every call."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def export(
    graph: Any, name: str, outputs: tuple[str, ...], example: Values, probe: Values, *, free_size: bool = False
) -> Any:
    """Export a torch module with one input `name` and the given outputs; returns a ModelProto.

    Args:
        example: the input with which the graph is traced; its first axis becomes dynamic.
        probe: an input with another batch size (and picture size), on which ONNX must agree with torch.
        free_size: also make axes 1 and 2 of the input and axis 1 of the outputs dynamic.

    Raises:
        WeightsError: the results do not agree.
    """
    import onnx
    import torch

    axes: dict[str, dict[int, str]] = {one: {0: "N"} for one in (name, *outputs)}
    if free_size:
        axes[name].update({1: "H", 2: "W"})
        for one in outputs:
            axes[one][1] = "P"
    buffer = io.BytesIO()
    graph.eval()
    with warnings.catch_warnings(), torch.no_grad():
        # The deprecated exporter is used on purpose: the new one writes external data.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (torch.from_numpy(example),),
            cast(Any, buffer),
            dynamo=False,
            opset_version=OPSET,
            input_names=[name],
            output_names=list(outputs),
            dynamic_axes=axes,
        )
        expected = graph(torch.from_numpy(probe))
    for output, got, want in zip(outputs, run(buffer.getvalue(), {name: probe}), expected, strict=True):
        check_agreement(got, want.numpy(), 1e-3, output)
    return onnx.load_from_string(buffer.getvalue())


def export_half(
    build: Callable[[], Any], name: str, outputs: tuple[str, ...], probe: Values, tolerance: float
) -> Any:
    """Like `export`, for networks near protobuf's limit of 2 GB: matrices are stored as float16.

    Arithmetic stays in float32. Tensors of the graph are neither copied nor serialised as float32, so that 2.6 GB of
    tensors need little more memory than their size on disk.

    Args:
        build: makes the torch module. Its tensors are released before the check, so no other object should hold them.
        probe: an input of two rows or more, on which ONNX must agree with torch within `tolerance`.

    Raises:
        WeightsError: the results do not agree, or a value is out of range for float16.
    """
    import onnx
    import torch

    graph = build()
    buffer = io.BytesIO()
    axes = {one: {0: "N"} for one in (name, *outputs)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (torch.from_numpy(probe[:1]),),
            cast(Any, buffer),
            dynamo=False,
            export_params=False,
            do_constant_folding=False,
            opset_version=OPSET,
            input_names=[name],
            output_names=list(outputs),
            dynamic_axes=axes,
        )
        expected = [value.numpy() for value in graph(torch.from_numpy(probe))]
    model = onnx.load_from_string(buffer.getvalue())
    _fill(model, graph.state_dict(), name)
    del graph
    got = run(model.SerializeToString(), {name: probe}, optimise=False)
    for output, found, want in zip(outputs, got, expected, strict=True):
        check_agreement(found, want, tolerance, output)
    return model


def _fill(model: Any, tensors: Mapping[str, Any], name: str) -> None:
    """Replace all inputs of a ModelProto except `name` by stored tensors, in place; matrices become float16.

    A matrix that is only used transposed is stored transposed; otherwise the runtime would keep both forms in memory.
    """
    from onnx import TensorProto, helper, numpy_helper

    users: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for key in node.input:
            users.setdefault(key, []).append(node)
    given = [one for one in model.graph.input if one.name == name]
    casts, dropped = [], set()
    for key in [one.name for one in model.graph.input if one.name != name]:
        values, made = tensors[key].numpy(), key
        if values.ndim < 2:
            model.graph.initializer.append(numpy_helper.from_array(values, key))
            continue
        if values.ndim == 2 and [node.op_type for node in users.get(key, ())] == ["Transpose"]:
            values, made = values.T, users[key][0].output[0]
            dropped.add(made)
        with np.errstate(over="ignore"):
            half = np.ascontiguousarray(values, np.float16)
        if not np.isfinite(half).all():
            raise WeightsError(f"{key} has values out of range for float16; nothing was installed")
        model.graph.initializer.append(numpy_helper.from_array(half, key + "_fp16"))
        casts.append(helper.make_node("Cast", [key + "_fp16"], [made], to=TensorProto.FLOAT))
    nodes = [*casts, *(node for node in model.graph.node if node.output[0] not in dropped)]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.input.extend(given)


def run(content: bytes, inputs: dict[str, Values], *, optimise: bool = True) -> list[Values]:
    """Run an ONNX file on the CPU and return all outputs; with `optimise=False`, the run needs the least memory."""
    runtime = load_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = False
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def check_agreement(got: Values, want: Values, tolerance: float, name: str) -> None:
    """Reject a conversion whose values differ by more than `tolerance` times the largest magnitude (at least 1).

    Raises:
        WeightsError: the values differ by more, or are not finite; the message contains `name`, the name of an output
            or a file.
    """
    if not np.isfinite(want).all():
        raise WeightsError(f"{name}: the original outputs values that are not finite; nothing was installed")
    scale = max(1.0, float(np.abs(want).max()))
    if got.shape != want.shape or not np.abs(got - want).max() <= tolerance * scale:
        raise WeightsError(f"{name}: the converted graph does not agree with the original; nothing was installed")


def write_onnx(model: Any, path: Path, *, keep: Collection[str] = (), smallest: int = 64) -> None:
    """Write a ModelProto atomically as one file, with its weights stored as float16, which halves the size.

    Arithmetic stays in float32. Initialisers in `keep` and those with fewer than `smallest` values are stored as
    float32.
    """
    import onnx

    _store_half(model, keep, smallest)
    onnx.checker.check_model(model)
    part = path.with_name(path.name + ".part")
    onnx.save_model(model, str(part), save_as_external_data=False)
    os.replace(part, path)


def _store_half(model: Any, keep: Collection[str], smallest: int) -> None:
    """Replace float32 initialisers by float16 ones, each followed by a Cast to float32, in place."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer)
        name = initializer.name
        if name in keep or values.dtype != np.float32 or values.size < smallest:
            continue
        initializer.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_fp16"))
        casts.append(helper.make_node("Cast", [name + "_fp16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
