"""models/open/tflite_graph.py."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from models.common.images import DataError  # noqa: E402
from models.open import tflite_graph  # noqa: E402


def test_without_the_package_that_reads_the_file_the_error_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(DataError, match="pip install tflite"):
        tflite_graph.LiteNetwork(b"", planes=True)


def test_depth_to_space_orders_channels_as_tensorflow_does() -> None:
    x = np.random.default_rng(0).normal(size=(1, 12, 2, 3)).astype(np.float32)
    got = tflite_graph._depth_to_space(2)(torch.from_numpy(x)).numpy()
    for row in range(4):
        for column in range(6):
            first = ((row % 2) * 2 + column % 2) * 3
            assert got[0, :, row, column].tolist() == x[0, first : first + 3, row // 2, column // 2].tolist()
