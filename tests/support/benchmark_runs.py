"""Running a benchmark as a user does, and reading what it wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run_script(name: str, *arguments: str | Path, models: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a benchmark with its weights in the folder `models`."""
    command = [sys.executable, str(BENCHMARKS / name), *(str(one) for one in arguments)]
    environment = {**os.environ, "STREAMGATE_MODELS": str(models)}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def section(results: Path, name: str) -> str:
    """What a benchmark wrote between its marks."""
    text = results.read_text()
    assert f"<!-- {name}:begin -->" in text, text
    return text.partition(f"<!-- {name}:begin -->")[2].partition(f"<!-- {name}:end -->")[0]


def rows(table: str, first: str) -> list[list[str]]:
    """Cells of a table's rows whose first cell begins with `first`."""
    lines = [line for line in table.splitlines() if line.startswith(f"| {first}") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
