"""Loads ONNX Runtime and chooses the device that networks run on."""

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
_OLDER = "run `pip uninstall onnxruntime-gpu` followed by `pip install 'streamgate[gpu-cu12]'`"
_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
_LOWEST = {13: (7, 5)}
"""Lowest compute capability that a CUDA generation supports; 7.5 is Turing."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where networks run.

    Attributes:
        name: "cpu" or "cuda:N".
        reason: why the device was chosen, as text for the user.
        bound: inputs and outputs are in the device's memory, and runs are padded batches (`networks.io_binding`).
            Always true for a GPU; true for the CPU only in tests and benchmarks of the GPU code path.
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
        """The device's memory as ONNX Runtime names it: type and index."""
        return ("cpu", 0) if self.index is None else ("cuda", self.index)

    @property
    def provider(self) -> str:
        """Name of ONNX Runtime's execution provider for the device."""
        return "CPUExecutionProvider" if self.index is None else "CUDAExecutionProvider"

    def providers(self, *, graphs: bool = False) -> list[Any]:
        """Execution providers for ONNX Runtime, with settings; `graphs`: runs may be captured as CUDA graphs."""
        if self.index is None:
            return [self.provider]
        settings = {
            "device_id": self.index,
            # TF32 changes values by 1e-2.
            "use_tf32": 0,
            # Always selects the same kernel for a shape, so results are deterministic.
            "cudnn_conv_algo_search": "HEURISTIC",
            # Allocates only what is needed, which leaves memory for decoders and other programs.
            "arena_extend_strategy": "kSameAsRequested",
            "enable_cuda_graph": int(graphs),
        }
        return [(self.provider, settings), "CPUExecutionProvider"]

    def call(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the single thread of this process that uses the device; returns its result or raises its error.

        ONNX Runtime captures CUDA graphs per thread, and during a capture no other thread may allocate or copy.
        """
        return _thread(self.name).submit(work).result()

    def check(self, session: Any, network: str) -> None:
        """Raise DeviceError if the ONNX Runtime session of `network` runs on another device."""
        # A request for CUDA never raises an error: ONNX Runtime silently falls back to the CPU (docs/design.md 7).
        running = session.get_providers()[0]
        if running != self.provider:
            raise DeviceError(
                f"device {self.name}: the driver and the libraries load, but ONNX Runtime runs {network} with "
                f"{running} instead of {self.provider}; check that the CUDA version of ONNX Runtime matches the "
                "driver, or use --device cpu"
            )

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def load_onnxruntime() -> Any:
    """Import `onnxruntime` with telemetry disabled.

    ONNX Runtime 1.32 and later send data about the machine and the models to the vendor unless an environment variable
    is set before the first import. If other code has already imported ONNX Runtime, calling
    `disable_telemetry_events` stops the telemetry.

    Raises:
        StreamgateError: ONNX Runtime is not installed, or is broken; the message says what to install.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
    except (ImportError, AttributeError) as error:
        # Two packages install into the same folder, and uninstalling one of them leaves an empty module.
        raise StreamgateError(
            "ONNX Runtime is not installed, or two of its packages in one environment have overwritten each other: pip "
            "uninstall onnxruntime onnxruntime-gpu, then pip install 'streamgate[cpu]' (or 'streamgate[gpu]' with CUDA)"
        ) from error
    return onnxruntime


def choose_device(wanted: str) -> Device:
    """The device for "auto", "cpu", "cuda" or "cuda:N"; "auto" is the first GPU if its driver and libraries work.

    Raises:
        UsageError: `wanted` has another value.
        DeviceError: CUDA was requested and is not available; the message says what is missing.
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
    # The installation hint after the semicolon is only for users who requested a GPU.
    return Device(CPU, f"no GPU: {missing.partition(';')[0]}")


def _missing_for_cuda(index: int) -> str | None:
    """What prevents the use of CUDA device `index`, with a remedy if there is one; None if no problem was found."""
    ort = load_onnxruntime()
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return f"the installed ONNX Runtime has no CUDA support; {_GPU_PACKAGES}"
    return _driver_fault(index, ort.cuda_version or "") or preload_cuda(ort)


def preload_cuda(ort: Any) -> str | None:
    """Load the CUDA and cuDNN libraries that the `gpu` extras install; returns what is missing, or None.

    ONNX Runtime does not search the folders where pip installs them, so without this call every session would run on
    the CPU.
    """
    printed = io.StringIO()
    # `preload_dlls` prints its failures instead of raising an exception.
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
        # `preload_dlls` does not report a missing cuDNN, without which convolutions cannot run.
        names.append(_CUDNN)
    if names:
        return f"libraries of CUDA {ort.cuda_version} cannot be loaded ({', '.join(names)}); {_GPU_PACKAGES}"
    return None


def _driver_fault(index: int, cuda: str) -> str | None:
    """Ask the NVIDIA driver (libcuda) whether device `index` exists and supports CUDA version `cuda`, such as "13.0".

    Returns a description of the problem, or None.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1 cannot be loaded); install the driver for your GPU"
    if code := driver.cuInit(0):
        return f"the NVIDIA driver cannot be initialized (cuInit returns error {code}); check it with `nvidia-smi`"
    count, card, known, *capability = (ctypes.c_int(0) for _ in range(5))
    driver.cuDeviceGetCount(ctypes.byref(count))
    if index >= count.value:
        return f"the NVIDIA driver reports {count.value} device(s), numbered from 0"
    wanted = int(cuda.partition(".")[0] or 0)
    driver.cuDriverGetVersion(ctypes.byref(known))
    # A driver supports programs of its own CUDA generation and of earlier generations.
    if known.value // 1000 < wanted:
        has = f"{known.value // 1000}.{known.value % 1000 // 10}"
        return (
            f"the NVIDIA driver supports CUDA {has}, but the installed ONNX Runtime needs CUDA {wanted}; update the "
            f"driver, or {_OLDER}"
        )
    driver.cuDeviceGet(ctypes.byref(card), index)
    for value, attribute in zip(capability, _CAPABILITY, strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, card)
    major, minor = (value.value for value in capability)
    if (major, minor) < _LOWEST.get(wanted, (0, 0)):
        return f"the card has compute capability {major}.{minor}, which CUDA {wanted} no longer supports; {_OLDER}"
    return None


def page_lock(buffer: Array, index: int) -> str | None:
    """Page-lock a buffer, so that CUDA device `index` can copy from it directly; returns None, or why it failed.

    ONNX Runtime's Python packages cannot allocate page-locked memory: `OrtValue` only accepts allocators of devices
    that were registered as plugins, and in these packages CUDA is not a plugin. Call this function in the device's
    thread.
    """
    major = (load_onnxruntime().cuda_version or "").partition(".")[0]
    try:
        runtime = ctypes.CDLL(f"libcudart.so.{major}")
    except OSError:
        return f"libcudart.so.{major} cannot be loaded"
    address, size = ctypes.c_void_p(buffer.ctypes.data), ctypes.c_size_t(buffer.nbytes)
    portable = 1  # the memory is page-locked for all CUDA contexts of the process
    if code := runtime.cudaSetDevice(index) or runtime.cudaHostRegister(address, size, portable):
        return f"CUDA returns error {code}"
    weakref.finalize(buffer, _unlock, runtime, address, index).atexit = False
    return None


def _unlock(runtime: Any, address: Any, index: int) -> None:
    # This may run in any thread; if the device were not set, CUDA would allocate memory on the first card.
    runtime.cudaSetDevice(index)
    runtime.cudaHostUnregister(address)


@cache
def _thread(device: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=f"streamgate-{device}")
