"""Rows of the tables in docs/reliability.md, and how the command is run for them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import REPOSITORY, say
from common import table as markdown

sys.path[:0] = [str(REPOSITORY / one) for one in ("tests", "tests/commands", "benchmarks")]

from support.hostile import Ran, run_limited  # noqa: E402
from support.real_weights import standard_models  # noqa: E402

LIMIT_S = 600.0


@dataclass(frozen=True)
class Row:
    """One row of a table; `code` is the exit code of a command that ended, `mib` its peak memory in MiB."""

    what: str
    happened: str
    seconds: float
    mib: float | None = None
    code: int | None = None

    @classmethod
    def of(cls, what: str, happened: str, ran: Ran) -> Row:
        """The row of a finished command. Also prints a line of progress."""
        say(f"{what}: {ran.code}, {ran.seconds:.1f} s")
        return cls(what, happened, ran.seconds, ran.peak_mib, ran.code)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, with a column of exit codes if there are any."""
    coded = any(row.code is not None for row in rows)
    head = ["fault or input", "what happened", *(["exit code"] if coded else []), "seconds", "peak MiB"]
    cells = [
        [_cell(row.what), _cell(row.happened), *([str(row.code)] if coded else []), f"{row.seconds:.1f}",
         "" if row.mib is None else f"{row.mib:.0f}"]
        for row in rows
    ]  # fmt: skip
    return markdown(head, cells, left=2)


def sections(title: str, text: str, tables: Mapping[str, Sequence[Row]]) -> str:
    """A section with several tables, each under its title; a table with the title "" follows the text directly."""
    parts = [f"## {title}", "", text]
    for name, rows in tables.items():
        parts += ["", *([f"### {name}", ""] if name else []), table(rows)]
    return "\n".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def run(arguments: Sequence[object], **environment: str) -> Ran:
    return run_limited(arguments, {"STREAMGATE_MODELS": str(standard_models()), **environment}, limit_s=LIMIT_S)


def told(ran: Ran, folder: Path) -> str:
    """The command's messages, without the path of this script's temporary folder."""
    lines = [line for line in ran.err.splitlines() if line.startswith("streamgate:")]
    text = "; ".join(line.removeprefix("streamgate: ") for line in lines)
    return re.sub(rf"{re.escape(str(folder))}[^\s:]*/", "", text)
