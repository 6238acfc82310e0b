"""Adapts recognizers and detectors in ONNX files to the inputs and outputs of their role.

In a recognizer, SER-FIQ's head is added to the last affine layer. The batch axis becomes dynamic if the graph supports
this; in a detector, height and width become dynamic as well. The result is checked against the original file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from streamgate.convert.export import Values, check_agreement, noise, run
from streamgate.convert.graph_surgery import input_sides, last_affine, load, opened, prune
from streamgate.errors import WeightsError, one_line
from streamgate.networks.layouts import LAYOUTS, Layout, Shape
from streamgate.networks.recognizer import CROP_SIDE
from streamgate.networks.sessions import as_input
from streamgate.weights.catalog import parse_input

_SMALL: Shape = (96, 128)
_SAME_AS = 1e-4
"""Maximum relative difference from the values of the original file."""


def recognizer(source: Path, drop_rate: float, options: Mapping[str, Any]) -> tuple[Any, dict[str, Values]]:
    """A recognizer with `embedding`, `spread` and `features`, and A and c of its last affine layer.

    Raises:
        WeightsError: the file does not take ArcFace crops, or does not end in an affine layer.
    """
    from onnx import TensorProto, helper, numpy_helper

    original = load(source)
    spec = parse_input(options["input"], source.name)
    sides = input_sides(original, source.name)
    if any(side not in (None, CROP_SIDE) for side in sides):
        size = "x".join(str(side or "any") for side in sides)
        raise WeightsError(f"{source.name}: takes pictures of {size}; a recognizer must take {CROP_SIDE}x{CROP_SIDE}")
    given = _outputs(original, ("embedding",), options["outputs"], source.name)["embedding"]
    model = opened(original, free_size=False)
    features, weight, bias = last_affine(model, f"own/{given}", source.name)
    # As in `mobilefacenet.closed_form`, compute in float32 and with one product per row.
    odds = drop_rate / (1.0 - drop_rate)
    lengths = (weight.astype(np.float64) ** 2).sum(axis=0)
    stored: dict[str, Values] = {
        "A": weight, "c": bias, "lengths": lengths[None].astype(np.float32),
        "ones": np.ones((len(weight), 1), np.float32), "odds": np.full((weight.shape[1], 1), odds, np.float32),
        "two": np.array([2.0], np.float32), "row": np.array([-1], np.int64),
        "rows": np.array([0, weight.shape[1]], np.int64),
    }  # fmt: skip
    steps = [
        ("Reshape", [features, "rows"], "features"), ("Gemm", ["features", "A", "c"], "embedding"),
        ("MatMul", ["embedding", "A"], "along"), ("Mul", ["along", "along"], "along2"),
        ("Mul", ["embedding", "embedding"], "power1"), ("MatMul", ["power1", "ones"], "power"),
        ("Div", ["along2", "power"], "seen"), ("Sub", ["lengths", "seen"], "unseen"),
        ("Mul", ["features", "features"], "x2"), ("Mul", ["x2", "unseen"], "across"),
        ("MatMul", ["across", "odds"], "trace"), ("Mul", ["trace", "two"], "trace2"),
        ("Add", ["power", "trace"], "total"), ("Div", ["trace2", "total"], "square"), ("Sqrt", ["square"], "d"),
        ("Reshape", ["d", "row"], "spread"),
    ]  # fmt: skip
    for kind, inputs, output in steps:
        node = helper.make_node(kind, inputs, [output])
        if kind == "Gemm":
            node.attribute.append(helper.make_attribute("transB", 1))
        model.graph.node.append(node)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in stored.items())
    del model.graph.output[:]
    axes: dict[str, list[str | int | None]] = {
        "embedding": ["N", len(weight)], "spread": ["N"], "features": ["N", weight.shape[1]],
    }  # fmt: skip
    for name, shape in axes.items():
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    prune(model)
    crops = as_input(noise(3, CROP_SIDE, CROP_SIDE, 3), spec)
    single = [_run(original, crops[row : row + 1], source.name)[given] for row in range(3)]
    expected = _directions(np.concatenate(single).reshape(3, -1))
    one = np.concatenate([_run(model, crops[row : row + 1], source.name)["embedding"] for row in range(3)])
    check_agreement(_directions(one), expected, _SAME_AS, source.name)
    _keep_batch_open(model, crops, {"embedding": one}, source.name)
    return model, {"weight": weight, "bias": bias}


def detector(source: Path, options: Mapping[str, Any]) -> tuple[Any, dict[str, Values]]:
    """A detector with the outputs of its layout, each (N, anchors, values); RetinaFace's `conf` is (N, anchors).

    Raises:
        WeightsError: the file does not have the layout that the card states, or takes pictures of one size only, or
            the number of anchors depends on what the picture shows.
    """
    from onnx import TensorProto, helper, numpy_helper

    layout = LAYOUTS[options["layout"]]
    original = load(source)
    spec = parse_input(options["input"], source.name)
    names = _outputs(original, layout.outputs, options["outputs"], source.name)
    model = opened(original, free_size=True)
    small = as_input(noise(2, *_SMALL, 3), spec)
    found = _run(model, small[:1], source.name, "own/")
    black = _run(model, as_input(np.zeros((1, *_SMALL, 3), np.uint8), spec), source.name, "own/")
    for name in names.values():
        if found[name].size == 0 or found[name].shape != black[name].shape:
            raise WeightsError(
                f"{source.name}: the size of output {name} depends on what the picture shows; export the model without "
                "non-maximum suppression"
            )
    del model.graph.output[:]
    for name in layout.outputs:
        values, inner, last = found[names[name]], f"own/{names[name]}", layout.values(name)
        anchors = _anchors(layout, name, _SMALL, found[names[layout.outputs[0]]])
        # Published SCRFD files have no batch axis in their outputs.
        batch = 1 if values.ndim == 1 or (values.ndim == 2 and 1 < len(values) == anchors) else 0
        if name == "conf" and values.size == 2 * anchors:
            inner, values = _second_of_two(model, inner, values), values.reshape(-1, 2)[:, 1:]
        swapped = 1 < last != anchors and values.shape[-2:] == (last, anchors)
        if values.size != last * anchors or swapped:
            raise WeightsError(
                f"{source.name}: output {names[name]} has shape {list(values.shape)} for a picture of 96x128, but "
                f"{name} of the layout {options['layout']} has {anchors} rows, each with {last} values"
            )
        axes = [last] if name != "conf" else []
        model.graph.initializer.append(numpy_helper.from_array(np.array([batch, -1, *axes]), f"{name}_shape"))
        model.graph.node.append(helper.make_node("Reshape", [inner, f"{name}_shape"], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", f"P_{name}", *axes]))
    prune(model)
    sides = input_sides(original, source.name)
    shapes: list[Shape] = [_SMALL, (64, 160)]
    if sides[0] is not None and sides[1] is not None:
        shapes.append((sides[0], sides[1]))
    for shape in shapes:
        picture = as_input(noise(1, *shape, 3), spec)
        got = _run(model, picture, source.name)
        for name in layout.outputs:
            if got[name].size != layout.values(name) * _anchors(layout, name, shape, got[layout.outputs[0]]):
                raise WeightsError(
                    f"{source.name}: output {names[name]} does not scale with the picture's size; export the model "
                    "again with dynamic height and width"
                )
        if sides in ((None, None), shape):
            want = _run(original, picture, source.name)
            for name in layout.outputs:
                if name != "conf":
                    check_agreement(got[name].ravel(), want[names[name]].ravel(), _SAME_AS, source.name)
    singles = [_run(model, small[row : row + 1], source.name) for row in range(2)]
    whole = {name: np.concatenate([one[name] for one in singles]) for name in layout.outputs}
    _keep_batch_open(model, small, whole, source.name)
    return model, {}


def _anchors(layout: Layout, name: str, shape: Shape, scores: Values) -> int:
    """The number of anchors that an output must have; if the layout allows any number, it is the number of scores."""
    expected = layout.anchors(name, shape)
    return scores.size if expected is None else expected


def _second_of_two(model: Any, inner: str, values: Values) -> str:
    """Add nodes that select the face probability from RetinaFace's two classes or logits; returns the tensor's name."""
    from onnx import helper, numpy_helper

    if not (np.abs(values.reshape(-1, 2).sum(axis=1) - 1) < 1e-3).all():
        model.graph.node.append(helper.make_node("Softmax", [inner], ["probabilities"], axis=2))
        inner = "probabilities"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1), "face"))
    model.graph.node.append(helper.make_node("Gather", [inner, "face"], ["face_probability"], axis=2))
    return "face_probability"


def _outputs(model: Any, wanted: tuple[str, ...], given: Mapping[str, str], name: str) -> dict[str, str]:
    """The name of each wanted output in the graph: from the card, or else the output with this name or position."""
    there = [one.name for one in model.graph.output]
    if not given and len(there) == len(wanted):
        return dict(zip(wanted, there if not set(wanted) <= set(there) else wanted, strict=True))
    found = {one: given.get(one, one) for one in wanted}
    missing = [one for one in found.values() if one not in there]
    if missing:
        raise WeightsError(
            f'{name}: has no output {", ".join(missing)}; it has {", ".join(there)}; map them in the card\'s "outputs"'
        )
    return found


def _keep_batch_open(model: Any, rows: Values, expected: Mapping[str, Values], name: str) -> None:
    """If rows of a batch affect one another, declare a batch size of 1 in the shape of the graph's input."""
    try:
        got = _run(model, rows, name)
        for output, want in expected.items():
            check_agreement(got[output], want, _SAME_AS, output)
    except WeightsError:
        dim = model.graph.input[0].type.tensor_type.shape.dim[0]
        dim.ClearField("dim_param")
        dim.dim_value = 1


def _run(model: Any, rows: Values, name: str, prefix: str = "") -> dict[str, Values]:
    """All outputs by name without `prefix`. Raises WeightsError if the graph fails on these rows."""
    stored = {one.name for one in model.graph.initializer}
    (picture,) = [one.name for one in model.graph.input if one.name not in stored]
    try:
        found = run(model.SerializeToString(), {picture: rows})
    except Exception as error:  # onnxruntime raises its own exception types, without a common base
        shape = "x".join(str(side) for side in rows.shape)
        reason = one_line((str(error).splitlines() or [""])[0], 200)
        raise WeightsError(f"{name}: does not run on an input of {shape} ({reason})") from None
    names = [one.name.removeprefix(prefix) for one in model.graph.output]
    return dict(zip(names, found, strict=True))


def _directions(embeddings: Values) -> Values:
    return np.asarray(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
