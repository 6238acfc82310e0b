"""ONNX Runtime made ready, and the device that networks run on."""

from __future__ import annotations

import ctypes
import io
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from streamgate.errors import DeviceError, StreamgateError, UsageError

CPU = "cpu"
_CUDNN = "libcudnn.so.9"
_GPU_PACKAGES = "pip uninstall onnxruntime, then pip install 'streamgate[gpu]' (CUDA 13) or 'streamgate[gpu-cu12]'"


@dataclass(frozen=True, slots=True)
class Device:
    """Where networks run: `name` is "cpu" or "cuda:N"; `reason` says in words why it was chosen."""

    name: str
    reason: str

    @property
    def index(self) -> int | None:
        """Number of the CUDA device; None on the CPU."""
        return None if self.name == CPU else int(self.name.partition(":")[2])

    def providers(self) -> list[Any]:
        """Execution providers of ONNX Runtime, with their settings."""
        if self.index is None:
            return ["CPUExecutionProvider"]
        # TF32 changes values by 1e-2; the heuristic search picks the same kernel for a shape every time.
        settings = {"device_id": self.index, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
        return [("CUDAExecutionProvider", settings), "CPUExecutionProvider"]

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def load_onnxruntime() -> Any:
    """The module `onnxruntime`, with its telemetry off.

    From 1.32 on it sends facts about the machine and the models to its vendor unless the environment variable is set
    before its first import; the call stops what an earlier import by other code may have started.

    Raises:
        StreamgateError: ONNX Runtime is not installed, or not in a version that works; says what to install.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
    except (ImportError, AttributeError) as error:
        # Two packages own the same folder: removing one of them leaves an empty module.
        raise StreamgateError(
            "ONNX Runtime is not installed, or damaged by two of its packages in one environment: pip uninstall "
            "onnxruntime onnxruntime-gpu, then pip install 'streamgate[cpu]' (or 'streamgate[gpu]' with CUDA)"
        ) from error
    return onnxruntime


def choose_device(wanted: str) -> Device:
    """The device for "auto", "cpu", "cuda" or "cuda:N"; "auto" takes the first GPU when everything it needs loads.

    Raises:
        UsageError: another word.
        DeviceError: CUDA was asked for and cannot be had; says what is missing.
        StreamgateError: ONNX Runtime is not installed.
    """
    kind, _, number = wanted.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (":" in wanted and (kind != "cuda" or not number.isdecimal())):
        raise UsageError(f"device {wanted!r} is not one of auto, cpu, cuda, cuda:N")
    if kind == "cpu":
        return Device(CPU, "as requested")
    index = int(number or 0)
    missing = _missing_for_cuda(index)
    if missing is None:
        return Device(f"cuda:{index}", "as requested" if kind == "cuda" else "found a GPU and its libraries")
    if kind == "cuda":
        raise DeviceError(f"device {wanted!r} is not available: {missing}; or use --device cpu")
    # What to install is for those who asked for a GPU.
    return Device(CPU, f"no GPU: {missing.partition(';')[0]}")


def _missing_for_cuda(index: int) -> str | None:
    """What keeps CUDA device `index` from working, with the remedy where there is one; None: nothing is known to."""
    ort = load_onnxruntime()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return f"the installed ONNX Runtime has no CUDA; {_GPU_PACKAGES}"
    return _driver_fault(index) or preload_cuda(ort)


def preload_cuda(ort: Any) -> str | None:
    """Load the CUDA and cuDNN libraries that the `gpu` extras install; what is missing, or None.

    ONNX Runtime does not search for them where pip puts them: without this every session runs on the CPU.
    """
    printed = io.StringIO()
    # It reports what it could not load by printing.
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            ort.preload_dlls()
        except Exception as error:
            print(error)
    failed = [line.strip() for line in printed.getvalue().splitlines() if "Failed to load" in line]
    names = [line.removeprefix("Failed to load ").split(":")[0].rpartition("/")[2] for line in failed]
    try:
        ctypes.CDLL(_CUDNN)
    except OSError:
        # `preload_dlls` is silent about it, and without it no convolution runs.
        names.append(_CUDNN)
    if names:
        return f"libraries of CUDA {ort.cuda_version} cannot be loaded ({', '.join(names)}); {_GPU_PACKAGES}"
    return None


def _driver_fault(index: int) -> str | None:
    """Ask the NVIDIA driver itself (libcuda) whether device `index` is there; what is wrong, or None."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1 cannot be loaded); install the driver of the card"
    if code := driver.cuInit(0):
        return f"the NVIDIA driver does not start (cuInit gives error {code}); `nvidia-smi` says more"
    count = ctypes.c_int(0)
    driver.cuDeviceGetCount(ctypes.byref(count))
    if index >= count.value:
        return f"the NVIDIA driver has {count.value} device(s), numbered from 0"
    return None
