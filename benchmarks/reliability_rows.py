"""Rows of the tables in docs/reliability.md, and the command as it is run for them."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / one) for one in ("tests", "tests/commands", "benchmarks")]

from support.hostile import Ran, run_limited  # noqa: E402
from support.real_weights import standard_models  # noqa: E402

LIMIT_S = 600.0


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    what: str
    happened: str
    code: int
    seconds: float
    mib: float | None = None

    def line(self) -> str:
        memory = "" if self.mib is None else f"{self.mib:.0f}"
        return f"| {_cell(self.what)} | {_cell(self.happened)} | {self.code} | {self.seconds:.1f} | {memory} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def table(rows: Sequence[Row]) -> str:
    head = ["| fault or input | what happened | exit code | seconds | peak MiB |", "| --- | --- | ---: | ---: | ---: |"]
    return "\n".join([*head, *(row.line() for row in rows)])


def run(arguments: Sequence[object], **environment: str) -> Ran:
    return run_limited(arguments, {"STREAMGATE_MODELS": str(standard_models()), **environment}, limit_s=LIMIT_S)


def told(ran: Ran, folder: Path) -> str:
    """The command's own lines, without the folder of this script."""
    lines = [line for line in ran.err.splitlines() if line.startswith("streamgate:")]
    text = "; ".join(line.removeprefix("streamgate: ") for line in lines)
    return re.sub(rf"{re.escape(str(folder))}[^\s:]*/", "", text)
