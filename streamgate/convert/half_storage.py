"""Weights stored in half precision inside an ONNX file: half the size, arithmetic still in float32."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np


def store_half(model: Any, keep: Collection[str] = (), smallest: int = 64) -> None:
    """Replace float32 initialisers of a ModelProto by float16 ones, each behind a Cast to float32, in place.

    keep: names left as they are; smallest: initialisers of fewer values are left too.
    """
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
