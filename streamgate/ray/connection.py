"""Connects to a Ray cluster, without usage statistics and with clear error messages."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Any

from streamgate.errors import DeviceError, UsageError, one_line
from streamgate.redaction import redact_url

MISSING = "--ray needs Ray: pip install 'streamgate[ray]'"
_CORES = 2
"""CPU cores that a reader gets for each source that it reads at once, because decoding and scoring run in parallel."""
_CONNECT_S = 10.0


def connect(address: str, *, quiet: bool) -> Any:
    """Connect to the cluster at `address` and return the module `ray`; "local" starts a cluster on this machine.

    With `quiet`, all further output of this process is discarded. Raises UsageError if Ray is not installed or the
    address is invalid, and DeviceError if the cluster cannot be used.
    """
    # Disable usage statistics. The variable must be set before the import; the processes that Ray starts inherit it.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if quiet:
        _drop_output()
    try:
        import ray
    except ImportError:
        raise UsageError(MISSING) from None
    if not hasattr(ray, "init"):  # `ray` is only a folder with this name
        raise UsageError(MISSING)
    shown = redact_url(address)
    _check_reachable(address, shown)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        # Ray's object store can be small, because results are passed as files.
        options |= {"include_dashboard": False, "object_store_memory": 100 << 20}
    elif address.startswith("ray://"):
        options = {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address, **options)
    except ImportError:
        raise UsageError(f"--ray {shown}: Ray's client is not installed: pip install 'streamgate[ray]'") from None
    except Exception as error:
        what = one_line(f"{type(error).__name__}: {error}".replace(address, shown))
        raise DeviceError(
            f"--ray {shown}: the Ray cluster cannot be used ({what}); check that it is running (`ray status`) with the "
            "same versions of Ray and Python as this machine, and set RAY_AUTH_MODE=token if it requires a token"
        ) from None
    finally:
        for number, handler in handlers.items():
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)
    return ray


def share_of(nodes: list[dict[str, Any]], device: str, jobs: int) -> tuple[int, bool]:
    """The number of CPU cores of a reader that reads `jobs` sources at once, and whether the reader takes a GPU.

    A reader with a GPU gets as many cores as the node has per GPU. `nodes` are the resources of the cluster's nodes.
    Raises DeviceError if a GPU is requested and the cluster has none.
    """
    with_gpu = [one for one in nodes if one.get("GPU", 0) >= 1]
    if device.startswith("cuda") and not with_gpu:
        raise DeviceError(f"--device {device}: no node of the Ray cluster has a GPU")
    if device != "cpu" and with_gpu:
        return max(1, min(int(one.get("CPU", 1) // one["GPU"]) for one in with_gpu)), True
    most = max((int(one.get("CPU", 0)) for one in nodes), default=1)
    return max(1, min(_CORES * jobs, most)), False


def cause_of(error: Exception) -> str:
    """The reason why an actor died: the essential part of Ray's long error message."""
    text = str(error)
    if "No module named 'streamgate'" in text:
        return "streamgate is not installed on its node"
    if type(error).__name__ == "NodeDiedError" or "node has died" in text or "node was" in text or "preempt" in text:
        return "its node was lost"
    if "OutOfMemory" in type(error).__name__ or "memory pressure" in text:
        return "its node ran out of memory"
    if "worker process has died" in text or "died unexpectedly" in text:
        return "its process was killed, usually for lack of memory"
    return one_line(f"{type(error).__name__}: {text.splitlines()[-1] if text else ''}", 200)


def _check_reachable(address: str, shown: str) -> None:
    """Check the address, because Ray would wait long for a missing cluster. Raises UsageError and DeviceError."""
    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--ray {shown}: not a valid address; use local, auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError:
        raise DeviceError(
            f"--ray {shown}: cannot connect; start the cluster with `ray start --head`, or check the address"
        ) from None


def _drop_output() -> None:
    """Discard standard output and standard error, because Ray writes to their descriptors directly.

    Problems of readers are reported by streamgate's own messages.
    """
    sink = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(sink, number)
    os.close(sink)
