"""Requirements on an ONNX file before streamgate runs it: a single file, standard operators, no external data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streamgate.errors import WeightsError

OPSET = 17
"""Operator set of every converted file."""

_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


def check_self_contained(model: Any, name: str) -> None:
    """Reject a ModelProto with external data or operators outside the ONNX standard.

    To load external data, the runtime would open other files next to the model; custom operators need code that
    streamgate does not load. `name` is the file's name in messages.

    Raises:
        WeightsError: the model has external data or non-standard operators; the message names the first of them.
    """
    for imported in model.opset_import:
        if imported.domain not in _STANDARD_DOMAINS:
            raise WeightsError(
                f"{name}: uses the operator domain {imported.domain!r}; only standard ONNX operators are supported"
            )
    if model.functions:
        raise WeightsError(f"{name}: defines custom functions; only standard ONNX operators are supported")
    for graph in _graphs(model.graph):
        for tensor in _tensors(graph):
            if tensor.data_location or tensor.external_data:
                raise WeightsError(f"{name}: tensor {tensor.name!r} is stored outside the file; export it as one file")
        for node in graph.node:
            if node.domain not in _STANDARD_DOMAINS:
                raise WeightsError(f"{name}: operator {node.domain}.{node.op_type} is not part of ONNX")


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                if inner.node or inner.initializer or inner.sparse_initializer:
                    yield from _graphs(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
