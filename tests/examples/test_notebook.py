"""The notebook in examples/ runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


def test_the_notebook_runs_and_shows_faces(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run with nbclient")
    nbformat = pytest.importorskip("nbformat", reason="notebooks are read with nbformat")
    pytest.importorskip("ipykernel", reason="notebooks run in ipykernel (pip install '.[dev]')")
    pytest.importorskip("skimage", reason="the portrait comes with scikit-image")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in data and "text/html" in data for data in outputs), "a shot shows itself"
    told = [data.get("text/plain", "") for data in outputs]
    assert any("<BestShot" in text and "passed>" in text for text in told)
    assert any("'p0001'" in text for text in told), "persons are found"
    assert (tmp_path / "notebook-best.png").is_file()
