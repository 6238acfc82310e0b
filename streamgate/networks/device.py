"""ONNX Runtime made ready, and the device that networks run on."""

from __future__ import annotations

import ctypes
import io
import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from streamgate.errors import DeviceError, StreamgateError, UsageError
from streamgate.frames import Array

Result = TypeVar("Result")
CPU = "cpu"
_CUDNN = "libcudnn.so.9"
_GPU_PACKAGES = "pip uninstall onnxruntime, then pip install 'streamgate[gpu]' (CUDA 13) or 'streamgate[gpu-cu12]'"
_OLDER = "pip uninstall onnxruntime-gpu, then pip install 'streamgate[gpu-cu12]'"
_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
_LOWEST = {13: (7, 5)}
"""Compute capability from which a CUDA generation knows cards: Turing."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where networks run.

    Attributes:
        name: "cpu" or "cuda:N".
        reason: why it was chosen, in words.
        bound: inputs and outputs are in its own memory, and runs are padded batches (`networks.io_binding`). A GPU
            always is; the CPU is where a test or a benchmark wants to go a GPU's way without one.
    """

    name: str
    reason: str
    bound: bool = False

    @property
    def index(self) -> int | None:
        """Number of the CUDA device; None on the CPU."""
        return None if self.name == CPU else int(self.name.partition(":")[2])

    @property
    def memory(self) -> tuple[str, int]:
        """ONNX Runtime's words for its memory: kind and number."""
        return ("cpu", 0) if self.index is None else ("cuda", self.index)

    @property
    def provider(self) -> str:
        """Name of the execution provider of ONNX Runtime that runs on it."""
        return "CPUExecutionProvider" if self.index is None else "CUDAExecutionProvider"

    def providers(self, *, graphs: bool = False) -> list[Any]:
        """Execution providers of ONNX Runtime, with their settings; `graphs`: runs may be captured as CUDA graphs."""
        if self.index is None:
            return [self.provider]
        settings = {
            "device_id": self.index,
            # TF32 changes values by 1e-2.
            "use_tf32": 0,
            # It picks the same kernel for a shape every time.
            "cudnn_conv_algo_search": "HEURISTIC",
            # Decoders and other programs need memory too.
            "arena_extend_strategy": "kSameAsRequested",
            "enable_cuda_graph": int(graphs),
        }
        return [(self.provider, settings), "CPUExecutionProvider"]

    def call(self, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises, in the one thread of this process that uses the device.

        ONNX Runtime captures CUDA graphs for a thread, and while it does no other thread may allocate or copy.
        """
        return _thread(self.name).submit(work).result()

    def check(self, session: Any, network: str) -> None:
        """Raise DeviceError where the session of ONNX Runtime that runs `network` is on something else."""
        # Asking for CUDA never raises: it silently runs on the CPU (docs/design.md 7).
        running = session.get_providers()[0]
        if running != self.provider:
            raise DeviceError(
                f"device {self.name}: driver and libraries load, but ONNX Runtime runs {network} with {running} "
                f"instead of {self.provider}; see that its CUDA version and the driver fit, or use --device cpu"
            )

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
        reason = "as requested" if kind == "cuda" else "found a GPU and its libraries"
        return Device(f"cuda:{index}", reason, bound=True)
    if kind == "cuda":
        raise DeviceError(f"device {wanted!r} is not available: {missing}; or use --device cpu")
    # What to install is for those who asked for a GPU.
    return Device(CPU, f"no GPU: {missing.partition(';')[0]}")


def _missing_for_cuda(index: int) -> str | None:
    """What keeps CUDA device `index` from working, with the remedy where there is one; None: nothing is known to."""
    ort = load_onnxruntime()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return f"the installed ONNX Runtime has no CUDA; {_GPU_PACKAGES}"
    return _driver_fault(index, ort.cuda_version or "") or preload_cuda(ort)


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


def _driver_fault(index: int, cuda: str) -> str | None:
    """Ask the NVIDIA driver itself (libcuda) whether device `index` is there and takes programs for `cuda` ("13.0")."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1 cannot be loaded); install the driver of the card"
    if code := driver.cuInit(0):
        return f"the NVIDIA driver does not start (cuInit gives error {code}); `nvidia-smi` says more"
    count, card, known, *capability = (ctypes.c_int(0) for _ in range(5))
    driver.cuDeviceGetCount(ctypes.byref(count))
    if index >= count.value:
        return f"the NVIDIA driver has {count.value} device(s), numbered from 0"
    wanted = int(cuda.partition(".")[0] or 0)
    driver.cuDriverGetVersion(ctypes.byref(known))
    # A driver runs programs of its own CUDA generation and of those before.
    if known.value // 1000 < wanted:
        has = f"{known.value // 1000}.{known.value % 1000 // 10}"
        return (
            f"the NVIDIA driver knows CUDA {has}, and the installed ONNX Runtime needs CUDA {wanted}; update the "
            f"driver, or {_OLDER}"
        )
    driver.cuDeviceGet(ctypes.byref(card), index)
    for value, attribute in zip(capability, _CAPABILITY, strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, card)
    major, minor = (value.value for value in capability)
    if (major, minor) < _LOWEST.get(wanted, (0, 0)):
        return f"the card has compute capability {major}.{minor}, which CUDA {wanted} no longer knows; {_OLDER}"
    return None


def page_lock(buffer: Array, index: int) -> str | None:
    """Lock a buffer in memory, so that CUDA device `index` copies from it directly; None, or why that is not possible.

    ONNX Runtime's Python packages have no allocator for such memory: `OrtValue` takes one only of a device that was
    registered as a plugin, which CUDA in these packages is not. To be called in the device's thread.
    """
    major = (load_onnxruntime().cuda_version or "").partition(".")[0]
    try:
        runtime = ctypes.CDLL(f"libcudart.so.{major}")
    except OSError:
        return f"libcudart.so.{major} cannot be loaded"
    address, size = ctypes.c_void_p(buffer.ctypes.data), ctypes.c_size_t(buffer.nbytes)
    portable = 1  # for every context of the process
    if code := runtime.cudaSetDevice(index) or runtime.cudaHostRegister(address, size, portable):
        return f"CUDA gives error {code}"
    weakref.finalize(buffer, _unlock, runtime, address, index).atexit = False
    return None


def _unlock(runtime: Any, address: Any, index: int) -> None:
    # Whatever thread this is: without it CUDA would take up memory on the first card.
    runtime.cudaSetDevice(index)
    runtime.cudaHostUnregister(address)


@cache
def _thread(device: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=f"streamgate-{device}")
