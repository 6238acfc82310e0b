"""Make an output of an ONNX graph optional, so that runs that do not need this output are cheaper."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from streamgate.networks.graphs import switch_of


def make_optional(model: Any, output: str) -> None:
    """Add a switch to a graph: `output`, float32 (N,), is computed only if the new input `switch_of(output)` is true.

    model: ModelProto, changed in place. The input is a bool scalar, true by default. If it is false, the output is a
    single NaN, of shape (1,). The nodes and weights that only this output needs move into a branch of an `If`. (The
    weights must move as well: otherwise, ONNX Runtime does not treat them as constants in the branch, which then takes
    three times as long.)
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, inner = model.graph, f"{output}/computed"
    made = {name: number for number, node in enumerate(graph.node) for name in node.output}

    def behind(names: Iterable[str]) -> set[int]:
        """Positions of the nodes on which the named values depend."""
        found, waiting = set[int](), list(names)
        while waiting:
            number = made.get(waiting.pop())
            if number is not None and number not in found:
                found.add(number)
                waiting += graph.node[number].input
        return found

    own = behind([output]) - behind(one.name for one in graph.output if one.name != output)
    kept = [node for number, node in enumerate(graph.node) if number not in own]
    moved = [graph.node[number] for number in sorted(own)]
    used = {name for node in kept for name in node.input}
    weights = [one for one in graph.initializer if one.name not in used]
    for node in moved:
        for names in (node.input, node.output):
            names[:] = [inner if name == output else name for name in names]
    found = helper.make_tensor_value_info(inner, TensorProto.FLOAT, None)
    nothing = helper.make_node("Constant", [], [inner], value=numpy_helper.from_array(np.array([np.nan], np.float32)))
    switch = helper.make_node(
        "If",
        [switch_of(output)],
        [output],
        then_branch=helper.make_graph(moved, f"{output} computed", [], [found], weights),
        else_branch=helper.make_graph([nothing], f"{output} left out", [], [found]),
    )
    stays = [one for one in graph.initializer if one.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend([*kept, switch])
    graph.initializer.extend([*stays, numpy_helper.from_array(np.array(True), switch_of(output))])
    graph.input.append(helper.make_tensor_value_info(switch_of(output), TensorProto.BOOL, []))
