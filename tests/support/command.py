"""The command as a user starts it: a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def streamgate(*arguments: object, models: Path | None = None, **environment: str) -> Done:
    """Run `streamgate ARGUMENTS`; `models` becomes STREAMGATE_MODELS."""
    env = os.environ | environment | ({"STREAMGATE_MODELS": str(models)} if models else {})
    done = subprocess.run(
        [sys.executable, "-m", "streamgate", *map(str, arguments)],
        capture_output=True, text=True, env=env, timeout=300,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def inside(*arguments: object) -> Done:
    """`streamgate ARGUMENTS` in this process: quicker, for commands that load nothing and start nothing."""
    from streamgate.cli import call

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = call([str(one) for one in arguments])
    return Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
