"""Child processes of the benchmarks, and the resources that a process has used."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common import REPOSITORY

STARTED = "STREAMGATE_BENCHMARK_STARTED"
"""Environment variable that contains the monotonic time at which the parent process started the child process."""
CHILD_LIMIT_S = 3600.0


def child(script: str, *arguments: str, limit_s: float = CHILD_LIMIT_S) -> tuple[Any, str]:
    """Run a script of this folder. Returns the JSON value on the last line of its output, or None and the reason."""
    environment = {**os.environ, STARTED: repr(time.monotonic())}
    command = [sys.executable, str(REPOSITORY / "benchmarks" / script), *arguments]
    try:
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None, f"no result within {limit_s:.0f} s"
    if ran.returncode != 0:
        reason = ran.stderr.strip().splitlines()[-1:] or [f"ended with {ran.returncode}"]
        return None, reason[0]
    return json.loads(ran.stdout.splitlines()[-1]), ""


def gate_options(given: argparse.Namespace, *settings: str) -> list[str]:
    """The arguments that pass `--preset`, `--models` and `--set` to a child process; `settings` come first."""
    words = [part for one in (*settings, *given.settings) for part in ("--set", one)]
    return ["--preset", given.preset, "--models", given.models, *words]


def answer(function: Callable[[], object]) -> None:
    """Print the result of the function as JSON, or the reason for its failure, and end the child process."""
    try:
        print(json.dumps(function()), flush=True)
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
    # Open resources must not delay a finished measurement or make it fail.
    os._exit(0)


def streamgate(
    *words: object, check: bool = True, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command. With `check`, a failure ends the script and shows the end of the command's stderr."""
    command = [sys.executable, "-m", "streamgate", *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if check and ran.returncode:
        raise SystemExit(f"streamgate {words[0]} ended with {ran.returncode}: {ran.stderr.strip()[-600:]}")
    return ran


def cpu_seconds(pid: int | None = None) -> float:
    """User and system time of all threads of this process, or of the process `pid` (Linux), in seconds."""
    if pid is None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int | None = None) -> float:
    """Current resident memory of a process (Linux)."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    """Peak resident memory of this process (Linux)."""
    # ru_maxrss includes the memory of the parent process at the fork; VmHWM does not.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def describe(models: str) -> tuple[dict[str, Any] | None, str]:
    """The versions and weights of the pipeline on this machine, or None and the reason why it cannot be opened."""
    facts, problem = child("contestants.py", "describe", "--models", models)
    return facts, problem and f"nothing was measured, because the pipeline cannot be opened: {problem}"
