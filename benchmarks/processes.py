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
"""Environment variable with the monotonic time at which the parent started a child."""
CHILD_LIMIT_S = 3600.0


def child(script: str, *arguments: str, limit_s: float = CHILD_LIMIT_S) -> tuple[Any, str]:
    """What a script of this folder prints as JSON on its last line, or None and the reason."""
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
    """The words that hand `--preset`, `--models` and `--set` on to a child; `settings` come first."""
    words = [part for one in (*settings, *given.settings) for part in ("--set", one)]
    return ["--preset", given.preset, "--models", given.models, *words]


def answer(function: Callable[[], object]) -> None:
    """The end of a child: print what the function returns as JSON, or why there is nothing, and leave."""
    try:
        print(json.dumps(function()), flush=True)
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
    # Open resources must not delay a finished measurement or make it fail.
    os._exit(0)


def streamgate(
    *words: object, check: bool = True, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command. With `check`, a failure ends the script with the command's last words."""
    command = [sys.executable, "-m", "streamgate", *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if check and ran.returncode:
        raise SystemExit(f"streamgate {words[0]} ended with {ran.returncode}: {ran.stderr.strip()[-600:]}")
    return ran


def cpu_seconds(pid: int | None = None) -> float:
    """User and system time of a process so far, all threads: this one, or another by its id (Linux)."""
    if pid is None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int | None = None) -> float:
    """Resident memory of a process now (Linux)."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    """The most memory this process has held (Linux)."""
    # ru_maxrss starts at what the parent held when it forked; VmHWM is this program's own.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def describe(models: str) -> tuple[dict[str, Any] | None, str]:
    """Versions and weights of a gate here, or None and why it does not open."""
    facts, problem = child("contestants.py", "describe", "--models", models)
    return facts, problem and f"nothing was measured, the gate does not open here: {problem}"
