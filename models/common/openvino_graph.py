"""Convolutional networks in OpenVINO IR files as torch modules: Add, Multiply, ReLU and convolutions.

An IR consists of a `.xml` file, which lists the operators, and a `.bin` file with the constants.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.common.images import DataError
from streamgate.weights.files import sha256_of

_NUMBERS = {"f16": np.dtype("<f2"), "f32": np.dtype("<f4")}

Step = tuple[Callable[..., Tensor], list[str], str]
"""A function, the ids of the layers whose results are its inputs, and the id of its own layer."""


class IRNetwork(nn.Module):
    """The part of a graph that computes the results of the layers `wanted` from the graph's input, in float32."""

    def __init__(self, binary: Path, sha256: str, wanted: Sequence[str]) -> None:
        """binary: the `.bin` file, next to its `.xml` file; sha256: of the `.bin` file; wanted: names of layers.

        Raises DataError if a file is missing, if the `.bin` file has another sha256, or if the `.xml` file does not
        belong to it or contains an operator that is not supported.
        """
        super().__init__()
        described = binary.with_suffix(".xml")
        for file in (binary, described):
            if not file.is_file():
                raise DataError(f"{file}: the file is missing; models/open/PROVENANCE.md gives its source")
        if sha256_of(binary) != sha256:
            raise DataError(f"{binary}: not the published file (sha256 {sha256[:12]}…)")
        try:
            self._build(ElementTree.parse(described), binary.read_bytes(), wanted)
        except DataError as error:
            raise DataError(f"{described}: {error}") from error
        except (ElementTree.ParseError, KeyError, IndexError, ValueError) as error:
            raise DataError(f"{described}: not an OpenVINO IR of this network ({error!r})") from error

    def _build(self, tree: ElementTree.ElementTree, numbers: bytes, wanted: Sequence[str]) -> None:
        layers = {layer.attrib["id"]: layer for layer in tree.iterfind("layers/layer")}
        inputs: dict[str, dict[int, str]] = {number: {} for number in layers}
        for edge in tree.iterfind("edges/edge"):
            inputs[edge.attrib["to-layer"]][int(edge.attrib["to-port"])] = edge.attrib["from-layer"]
        names = {layer.attrib["name"]: number for number, layer in layers.items()}
        self._wanted = [names[name] for name in wanted]
        (self._input,) = (number for number, layer in layers.items() if layer.attrib["type"] == "Parameter")
        self._steps: list[Step] = []
        self._add(self._wanted, layers, inputs, numbers)

    def _add(
        self,
        wanted: Sequence[str],
        layers: dict[str, ElementTree.Element],
        inputs: dict[str, dict[int, str]],
        numbers: bytes,
    ) -> None:
        """Add the steps and constants that the layers `wanted` need, each once and after its inputs."""
        ready, begun, waiting = {self._input}, set(), list(wanted)[::-1]
        while waiting:
            number = waiting[-1]
            before = [inputs[number][port] for port in sorted(inputs[number])]
            missing = [one for one in before if one not in ready]
            if number not in ready and missing:
                if number in begun:
                    raise ValueError(f"layer {number} is its own input")
                begun.add(number)
                waiting += missing
                continue
            waiting.pop()
            if number in ready:
                continue
            layer = layers[number]
            if layer.attrib["type"] == "Const":
                self.register_buffer(f"layer_{number}", torch.from_numpy(constant(layer, numbers)))
            else:
                self._steps.append((_function(layer), before, number))
            ready.add(number)

    def forward(self, given: Tensor) -> list[Tensor]:
        """The results of the layers `wanted`, in this order; `given` has the layout of the graph's input."""
        values = {self._input: given}
        for step, inputs, output in self._steps:
            taken = [values[number] if number in values else getattr(self, f"layer_{number}") for number in inputs]
            values[output] = step(*taken)
        return [values[number] for number in self._wanted]


def constant(layer: ElementTree.Element, numbers: bytes) -> np.ndarray:
    """The values of a constant, float32."""
    data = _data(layer)
    start, size = int(data["offset"]), int(data["size"])
    values = np.frombuffer(numbers[start : start + size], _NUMBERS[data["element_type"]])
    return values.astype(np.float32).reshape(_integers(data["shape"]))


def _data(layer: ElementTree.Element) -> dict[str, str]:
    """The attributes of a layer's operator."""
    data = layer.find("data")
    return {} if data is None else data.attrib


def _integers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def _function(layer: ElementTree.Element) -> Callable[..., Tensor]:
    """The function of an operator. Raises DataError if the operator is not supported."""
    name = layer.attrib["type"]
    plain = {"Add": torch.add, "Multiply": torch.mul, "ReLU": torch.relu}
    if name in plain:
        return plain[name]
    if name not in ("Convolution", "GroupConvolution"):
        raise DataError(f"the operator {name} is not supported")
    data = _data(layer)
    strides, before, after, dilations = (
        _integers(data[key]) for key in ("strides", "pads_begin", "pads_end", "dilations")
    )
    if before != after or max(dilations) > 1:
        raise DataError("convolutions with uneven padding or with dilation are not supported")

    def run(x: Tensor, kernel: Tensor) -> Tensor:
        # The kernel of a GroupConvolution is (groups, outputs of a group, inputs of a group, height, width).
        groups = kernel.shape[0] if kernel.dim() == 5 else 1
        return functional.conv2d(x, kernel.flatten(0, kernel.dim() - 4), None, strides, before, groups=groups)

    return run
