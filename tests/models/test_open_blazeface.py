"""models/open/blazeface.py and the TensorFlow Lite operators that it needs."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from models.common.images import DataError  # noqa: E402
from models.open import blazeface, tflite_graph  # noqa: E402


def test_only_the_published_file_is_accepted(tmp_path: Any) -> None:
    (tmp_path / "other.tflite").write_bytes(b"TFL3")
    with pytest.raises(DataError, match="not the published BlazeFace"):
        blazeface.BlazeFace(tmp_path / "other.tflite")


def test_without_the_package_that_reads_the_file_the_error_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(DataError, match="pip install tflite"):
        tflite_graph.LiteNetwork(b"", planes=True)


def test_best_of_four_cells_is_taken_with_positions_relative_to_their_corner() -> None:
    cells = torch.zeros(1, 17, 2, 4)
    cells[0, 0] = torch.tensor([[-1.0, -2.0, -9.0, -8.0], [-3.0, 5.0, -7.0, 1.0]])
    cells[0, 1], cells[0, 2], cells[0, 3], cells[0, 4] = 0.5, -0.25, 20.0, 24.0
    best = blazeface._best(cells)
    assert best.shape == (1, 17, 1, 2)
    # Both winners are in the second column and the second row, so their centres are 6 px from the corner.
    assert best[0, :5, 0].tolist() == [[5.0, 1.0], [6.5, 6.5], [5.75, 5.75], [20.0, 20.0], [24.0, 24.0]]


def test_depth_to_space_orders_channels_as_tensorflow_does() -> None:
    x = np.random.default_rng(0).normal(size=(1, 12, 2, 3)).astype(np.float32)
    got = tflite_graph._depth_to_space(2)(torch.from_numpy(x)).numpy()
    for row in range(4):
        for column in range(6):
            first = ((row % 2) * 2 + column % 2) * 3
            assert got[0, :, row, column].tolist() == x[0, first : first + 3, row // 2, column // 2].tolist()


def test_a_sparse_kernel_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = np.zeros((2, 1, 1, 4), np.float32)
    dense[0, 0, 0, 1], dense[0, 0, 0, 3], dense[1, 0, 0, 2] = 5.0, 6.0, 7.0
    loops = [
        SimpleNamespace(Format=lambda: 0, DenseSize=lambda: 2),
        SimpleNamespace(Format=lambda: 0, DenseSize=lambda: 1),
        SimpleNamespace(Format=lambda: 0, DenseSize=lambda: 1),
        SimpleNamespace(Format=lambda: 1, ArraySegments=np.array([0, 2, 3]), ArrayIndices=np.array([1, 3, 2])),
    ]
    sparsity = SimpleNamespace(
        BlockMapLength=lambda: 0,
        DimMetadataLength=lambda: 4,
        DimMetadata=lambda i: loops[i],
        TraversalOrderAsNumpy=lambda: np.arange(4),
    )
    tensor = SimpleNamespace(Sparsity=lambda: sparsity, ShapeAsNumpy=lambda: np.array([2, 1, 1, 4]))
    monkeypatch.setattr(tflite_graph, "_vector", lambda loop, name: getattr(loop, name))
    found = tflite_graph._dense(tensor, np.array([5.0, 6.0, 7.0], np.float32))
    assert np.array_equal(found, dense)
