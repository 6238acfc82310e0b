"""Chooses how many sources are read at once on this machine, and with how many decoder threads."""

from __future__ import annotations

from pathlib import Path

from streamgate.parallel import usable_cores

SOURCE_BYTES = 256 << 20
"""Memory planned for each source that is being read: a 1080p file takes 50 to 100 MiB, a 2160p file up to 250 MiB."""
RESERVED_BYTES = 512 << 20
"""Memory reserved for the networks, the report and the rest of the process."""
GPU_JOBS = 16
"""Minimum number of jobs on a GPU, because a single file cannot keep it busy."""
MOST = 64
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def automatic_jobs(sources: int, *, on_gpu: bool = False) -> int:
    """The number of jobs for `--jobs auto`: one per core, or at least 16 on a GPU.

    It is limited by the number of sources and the available memory.
    """
    cores = usable_cores()
    wanted = max(cores, GPU_JOBS) if on_gpu else cores
    free = available_bytes()
    fitting = MOST if free is None else (free - RESERVED_BYTES) // SOURCE_BYTES
    return max(1, min(sources, wanted, fitting, MOST))


def decoder_threads(jobs: int) -> int:
    """Number of decoder threads per source when `jobs` sources are read at once; 0 means one per core.

    Each decoder thread holds its own frames in memory. With at least two sources per core, one thread per source is
    enough.
    """
    return 1 if jobs >= 2 * usable_cores() else 0


def available_bytes() -> int | None:
    """Bytes of memory that new work can use without swapping, within the container's limit; None if unknown."""
    found = []
    for line in _read(_MEMINFO).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            found.append(int(value.split()[0]) << 10)
    limit, used = _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    if limit.isdecimal() and used.isdecimal():
        found.append(int(limit) - int(used) + _reclaimable())
    return max(0, min(found)) if found else None


def _reclaimable() -> int:
    """Bytes of the container's page cache, which counts as used although the system frees it when memory is needed."""
    for line in _read(_CGROUP / "memory.stat").splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
