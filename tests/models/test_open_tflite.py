"""models/open/tflite_graph.py."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from models.common.images import DataError
from models.open import tflite_graph


def test_without_the_package_that_reads_the_file_the_error_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(DataError, match="pip install tflite"):
        tflite_graph.LiteNetwork(b"", planes=True)
