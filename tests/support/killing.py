"""Runs that are killed: starting them, finding their worker, and comparing what is left in the end."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from support.hostile import children
from support.media import astronaut_frames, write_clip

PATIENCE_S = 120.0


def small_clips(folder: Path, count: int, frames: int = 20) -> list[Path]:
    """`count` short clips of a face, no two alike."""
    return [
        write_clip(
            folder / f"clip{number}.mp4",
            astronaut_frames(frames + 3 * number, (320, 240), step=1.0 + number / 4, zoom=1.6),
        )
        for number in range(count)
    ]


def tree(out: Path) -> dict[str, object]:
    """Everything below an output folder but the lock; `timing`, which alone may vary, is taken out."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        if path.is_dir() or path == out / ".streamgate" / "lock":
            continue
        data: object = path.read_bytes()
        if path.name in ("summary.json", "source.json"):
            record = json.loads(path.read_bytes())
            del record["timing"]
            data = record
        found[path.relative_to(out).as_posix()] = data
    return found


class Running:
    """A run in a session of its own, as one started from a terminal."""

    def __init__(self, arguments: Sequence[object], *, code: str = "") -> None:
        """`streamgate run ARGUMENTS`; `code` is executed first, in the parent, which the worker inherits."""
        start = [sys.executable, "-c", f"{code}\nfrom streamgate.cli import main\nmain()"]
        self.process = subprocess.Popen(
            [*start, "run", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        )  # fmt: skip

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def worker(self) -> int | None:
        return next(iter(children(self.process.pid)), None)

    def until(self, condition: Callable[[], object]) -> bool:
        """Wait until the condition holds (True) or the run has ended (False)."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self.ended:
                return False
            assert time.monotonic() < deadline, "the run hangs"
            time.sleep(0.002)
        return True

    def until_locked(self, out: Path) -> bool:
        """Wait until its worker has opened the networks and taken the folder."""
        lock = out / ".streamgate" / "lock"
        return self.until(lambda: lock.is_file() and lock.read_text().strip() == str(self.process.pid))

    def kill(self, whom: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to the "parent", the "worker", "both" (parent first), or "all" as a terminal would."""
        worker = self.worker()
        if whom == "all":
            os.killpg(self.process.pid, number)
        if whom in ("parent", "both"):
            os.kill(self.process.pid, number)
        if whom in ("worker", "both") and worker is not None:
            with suppress(ProcessLookupError):  # it may have ended with its parent
                os.kill(worker, number)

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; exit code and both outputs."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in err, err
        return self.process.returncode, out, err


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its new parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
